//! The places where frames enter and leave a bridge.

/// One place. Numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(pub u32);

impl Port {
    /// The bridge itself: its address, its services, the way to other bridges.
    pub const GATEWAY: Self = Self(0);
    /// Where frames come from that a test makes up.
    pub const INJECTED: Self = Self(u32::MAX);
}

/// What went through one place, seen from the guest there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Bytes that it received.
    pub rx_bytes: u64,
    /// Frames that it received.
    pub rx_packets: u64,
    /// Bytes that it sent.
    pub tx_bytes: u64,
    /// Frames that it sent.
    pub tx_packets: u64,
    /// Frames for it that were lost on the way: by an impairment, a cut, a full queue.
    pub dropped: u64,
    /// Frames that it sent and that are none: too short or too long.
    pub errors: u64,
}
