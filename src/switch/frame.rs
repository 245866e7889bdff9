//! An Ethernet frame as a view over borrowed bytes, length-checked on entry.

use std::fmt;

/// Bytes of an Ethernet header.
pub const HEADER: usize = 14;
/// The longest frame that is taken: what fits into an IP packet, its header, and a VLAN tag.
pub const LONGEST: usize = 65_535 + HEADER + 4;

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody's.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it stands for a group, all included.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a>(&'a [u8]);

impl<'a> Frame<'a> {
    /// `bytes` as a frame; `None` where they are too few or too many.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (HEADER..=LONGEST).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// To whom.
    pub fn destination(self) -> Mac {
        self.address(0)
    }

    /// From whom.
    pub fn source(self) -> Mac {
        self.address(6)
    }

    /// What it carries.
    pub fn ethertype(self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }

    /// What lies behind the header.
    pub fn payload(self) -> &'a [u8] {
        &self.0[HEADER..]
    }

    /// All of it.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    fn address(self, at: usize) -> Mac {
        let mut address = [0; 6];
        address.copy_from_slice(&self.0[at..at + 6]);
        Mac(address)
    }
}

/// A frame of these parts.
pub fn build(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&destination.0);
    frame.extend_from_slice(&source.0);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runts_and_giants_are_none() {
        assert!(Frame::new(&[0; HEADER - 1]).is_none());
        assert!(Frame::new(&[0; HEADER]).is_some());
        assert!(Frame::new(&vec![0; LONGEST]).is_some());
        assert!(Frame::new(&vec![0; LONGEST + 1]).is_none());
    }

    #[test]
    fn the_parts_come_back() {
        let (to, from) = (Mac([1, 2, 3, 4, 5, 6]), Mac([2, 0, 0, 0, 0, 1]));
        let bytes = build(to, from, 0x0800, b"hi");
        let frame = Frame::new(&bytes).unwrap();
        assert_eq!((frame.destination(), frame.source(), frame.ethertype()), (to, from, 0x0800));
        assert_eq!(frame.payload(), b"hi");
        assert!(to.is_group() && !from.is_group() && Mac::BROADCAST.is_group());
        assert_eq!(to.to_string(), "01:02:03:04:05:06");
    }
}
