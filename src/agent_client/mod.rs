//! The host's end of the agent's channel.
//!
//! One task reads, one writes; requests wait for their own messages. What the guest sends is not trusted: it is
//! bounded, and anything that does not fit ends the connection.

mod connection;
mod error;
mod files;
mod kernel;
mod requests;

pub use crate::agent_protocol::{Hello, OpError, Program};
pub use connection::{AgentClient, connect};
pub use error::AgentError;
pub use files::{Download, Following, Upload};
pub use requests::{RunOutcome, RunSpec, RunStatus};
