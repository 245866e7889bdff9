//! What a request to the agent can fail with.

use std::fmt;

use crate::agent_protocol::{OpError, PROTOCOL_VERSION};

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentError {
    /// The guest refused the operation.
    Op(OpError),
    /// The connection is over; why.
    Closed(String),
    /// The host ended the connection; why.
    Withdrawn(String),
    /// The guest's agent is of another version.
    Version {
        /// What the guest said.
        found: u32,
    },
    /// An output that is longer than is kept.
    TooMuch {
        /// The operation.
        op: &'static str,
        /// `stdout`, `stderr` or the path of a file.
        what: String,
        /// Bytes that are kept at most.
        limit: usize,
    },
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(error) => error.fmt(f),
            Self::Closed(why) => write!(f, "the connection to the agent ended: {why}"),
            Self::Withdrawn(why) => f.write_str(why),
            Self::Version { found } => write!(
                f,
                "the guest's agent speaks version {found} of the protocol, expected {PROTOCOL_VERSION}\nhint: `provium` and \
                 `provium-agent` must come from the same build"
            ),
            Self::TooMuch { op, what, limit } => {
                write!(f, "{op}: {what} is longer than the {} MiB that are kept", limit / (1024 * 1024))
            }
        }
    }
}

impl std::error::Error for AgentError {}
