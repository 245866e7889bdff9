//! Messages between host and guest agent: data only, no I/O.
//!
//! One byte stream carries frames in both directions; each frame belongs to a request (`docs/agent-protocol.md`). The
//! guest speaks first: its `Hello` carries the version, and is what a booting host waits for.

mod boot_plan;
mod errno;
mod frame;
mod message;
mod ops;

pub use boot_plan::{BootFile, BootPlan, GuestInit, LAUNCHER_PATH, PLAN_PATH, PROVIUM_DIR, PlanError, RootDevice};
pub use errno::{errno_name, errno_text};
pub use frame::{FrameError, HEADER, Incoming, LARGEST_PAYLOAD};
#[cfg(test)]
pub(crate) use message::tests::{golden_to_guest, golden_to_host};
pub use message::{Hello, OpError, ProcessStatus, Program, RunRequest, ToGuest, ToHost};
pub use ops::{
    Button, Card, CardRoute, DirEntry, EntryType, FileStat, IoctlArgument, IoctlRequest, Nested, Op, OpReply,
    OpenRequest, SyscallOutcome, SyscallRequest, TailSource, TailStart, WaitFor, Wake, Whence,
};

/// Version of the protocol; both ends must have the same.
pub const PROTOCOL_VERSION: u32 = 3;
/// Name of the virtio-serial port that the agent speaks on.
pub const PORT_NAME: &str = "org.provium.agent";
/// Largest piece of a process's input or output in one frame, in bytes.
pub const CHUNK: usize = 64 * 1024;
/// Largest piece of a file's content in one frame, in bytes.
pub const DATA_CHUNK: usize = 256 * 1024;
/// How much of a file's content may be under way before the guest has written it, in bytes.
pub const DATA_WINDOW: usize = 4 * 1024 * 1024;
/// How much of a process's standard input may be under way before the guest has passed it on, in bytes.
pub const STDIN_WINDOW: usize = 256 * 1024;
