//! The host's end of the agent's channel.
//!
//! One task reads, one writes; requests wait for their own messages. What the guest sends is not trusted: it is
//! bounded, and anything that does not fit ends the connection.

mod connection;
mod error;
mod files;
#[cfg(test)]
mod fuzz;
mod kernel;
mod mailbox;
mod processes;
mod requests;
#[cfg(test)]
mod scripted_guest;
mod syscalls;
mod turn;
mod watchdog;
mod worker;

pub use crate::agent_protocol::{
    CHUNK, Hello, IoctlArgument, IoctlRequest, Nested, OpError, Program, STDIN_WINDOW, SyscallOutcome, SyscallRequest,
};
pub use connection::{AgentClient, connect, wake};
pub use error::AgentError;
pub use files::{Download, Following, Upload};
pub use kernel::KernelLogFeed;
pub use processes::{
    LARGEST_OUTPUT, ProcessEvent, ProcessInput, ProcessOutput, RunOutcome, RunSpec, RunStatus, StartedProcess,
};
pub use syscalls::CallUnderWay;
pub use turn::Turn;
pub use worker::{WorkerAgent, WorkerEnd};
