//! What can go wrong with a bridge.

use std::fmt;

use crate::testbed::error::VmError;

/// A failed operation on a bridge.
#[derive(Debug)]
pub enum BridgeError {
    /// The bridge's own.
    Failed {
        /// The bridge.
        bridge: String,
        /// The operation, as Lua names it.
        op: &'static str,
        /// Why, and what to do about it.
        why: String,
    },
    /// A member's.
    Vm(VmError),
}

impl BridgeError {
    /// `op` on `bridge` failed.
    pub fn new(bridge: &str, op: &'static str, why: impl Into<String>) -> Self {
        Self::Failed { bridge: bridge.to_owned(), op, why: why.into() }
    }
}

impl fmt::Display for BridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { bridge, op, why } => write!(f, "bridge `{bridge}`: {op}: {why}"),
            Self::Vm(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BridgeError {}

impl From<VmError> for BridgeError {
    fn from(error: VmError) -> Self {
        Self::Vm(error)
    }
}
