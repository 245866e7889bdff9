//! The messages. Streams of bytes travel raw, everything else in postcard's wire format, version 1.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::errno::{errno_name, errno_text};
use super::frame::{FrameError, put};

/// What a process is started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A line for `/bin/sh -c`.
    Shell(Vec<u8>),
    /// A program and its arguments; looked up in `PATH` where it has no slash.
    Argv(Vec<Vec<u8>>),
}

/// A process to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// What to run.
    pub program: Program,
    /// Variables laid over the agent's own.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the agent's own variables are left out.
    pub env_clear: bool,
    /// The working directory; `/` where none is given.
    pub cwd: Option<Vec<u8>>,
    /// `NAME`, `UID` or `UID:GID`.
    pub user: Option<String>,
    /// Milliseconds after which its process group is killed.
    pub timeout_ms: Option<u64>,
    /// Whether `Stdin` messages follow; without them its standard input is `/dev/null`.
    pub stdin: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessStatus {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Its time was over.
    TimedOut,
}

/// The guest's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION) of the guest's end.
    pub version: u32,
    /// `uname -r`.
    pub kernel_release: String,
    /// The agent's process in the guest.
    pub pid: u32,
    /// Nanoseconds since the guest's boot.
    pub uptime_ns: u64,
    /// Why the guest can't be used although its agent runs.
    pub boot_error: Option<String>,
    /// What did not work on the way up, and may matter.
    pub notices: Vec<String>,
}

/// An operation that the guest's kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpError {
    /// The operation: `read_file`, `run`.
    pub op: String,
    /// What it was applied to: a path, a program, a user.
    pub subject: String,
    /// errno; 0 where the kernel had no part in it.
    pub errno: i32,
    /// More about it, or the whole reason where errno is 0.
    pub detail: String,
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`: ", self.op, self.subject)?;
        if !self.detail.is_empty() {
            f.write_str(&self.detail)?;
        }
        if self.errno != 0 {
            let gap = if self.detail.is_empty() { "" } else { ": " };
            write!(f, "{gap}{} ({})", errno_name(self.errno), errno_text(self.errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for OpError {}

/// Host to guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToGuest {
    /// Answered by `Pong`.
    Ping,
    /// Starts a process: `Stdout` and `Stderr` follow, then `Exited` or `Failed`.
    Run(RunRequest),
    /// More for a process's standard input.
    Stdin(Vec<u8>),
    /// Closes a process's standard input.
    StdinEnd,
    /// Sends a signal to a process's group.
    Signal(i32),
    /// Reads a file: `Data` follows, then `Done` or `Failed`.
    ReadFile(Vec<u8>),
    /// Writes a file whole: `Data` and `DataEnd` follow from the host, then `Done` or `Failed` from the guest.
    WriteFile {
        /// The file.
        path: Vec<u8>,
        /// Permission bits, exact; of a new file 0o666 less the umask where none are given.
        mode: Option<u32>,
    },
    /// A piece of a file's content.
    Data(Vec<u8>),
    /// The content is complete.
    DataEnd,
    /// Gives a request up: its process is killed, its file closed.
    Cancel,
    /// Syncs and powers off: no answer but the guest's end, or `Failed`.
    Poweroff,
}

/// Guest to host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToHost {
    /// The first message.
    Hello(Hello),
    /// Answer to `Ping`.
    Pong,
    /// A piece of standard output.
    Stdout(Vec<u8>),
    /// A piece of standard error.
    Stderr(Vec<u8>),
    /// The process ended, after this many nanoseconds.
    Exited {
        /// How.
        status: ProcessStatus,
        /// Nanoseconds from its start.
        duration_ns: u64,
    },
    /// A piece of a file's content.
    Data(Vec<u8>),
    /// The request is done.
    Done,
    /// The request failed.
    Failed(OpError),
}

/// Postcard's own errors can only mean that memory ran out: the types have no form that can't be written.
fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data always has a wire form")
}

fn unpack<'a, T: Deserialize<'a>>(kind: u8, payload: &'a [u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        _ => Err(FrameError::BadPayload(kind)),
    }
}

fn nothing<T>(kind: u8, payload: &[u8], message: T) -> Result<T, FrameError> {
    if payload.is_empty() { Ok(message) } else { Err(FrameError::BadPayload(kind)) }
}

impl ToGuest {
    /// Puts the frame of this message behind `out`.
    pub fn encode(&self, request: u32, out: &mut Vec<u8>) {
        match self {
            Self::Ping => put(out, request, 1, &[]),
            Self::Run(run) => put(out, request, 2, &pack(run)),
            Self::Stdin(bytes) => put(out, request, 3, bytes),
            Self::StdinEnd => put(out, request, 4, &[]),
            Self::Signal(signal) => put(out, request, 5, &pack(signal)),
            Self::ReadFile(path) => put(out, request, 6, path),
            Self::WriteFile { path, mode } => put(out, request, 7, &pack(&(path, mode))),
            Self::Data(bytes) => put(out, request, 8, bytes),
            Self::DataEnd => put(out, request, 9, &[]),
            Self::Cancel => put(out, request, 10, &[]),
            Self::Poweroff => put(out, request, 11, &[]),
        }
    }

    /// The message of a frame.
    ///
    /// # Errors
    /// An unknown kind, or a payload that does not fit it.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        match kind {
            1 => nothing(kind, payload, Self::Ping),
            2 => Ok(Self::Run(unpack(kind, payload)?)),
            3 => Ok(Self::Stdin(payload.to_vec())),
            4 => nothing(kind, payload, Self::StdinEnd),
            5 => Ok(Self::Signal(unpack(kind, payload)?)),
            6 => Ok(Self::ReadFile(payload.to_vec())),
            7 => {
                let (path, mode) = unpack(kind, payload)?;
                Ok(Self::WriteFile { path, mode })
            }
            8 => Ok(Self::Data(payload.to_vec())),
            9 => nothing(kind, payload, Self::DataEnd),
            10 => nothing(kind, payload, Self::Cancel),
            11 => nothing(kind, payload, Self::Poweroff),
            _ => Err(FrameError::UnknownKind(kind)),
        }
    }
}

impl ToHost {
    /// Puts the frame of this message behind `out`.
    pub fn encode(&self, request: u32, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => put(out, request, 129, &pack(hello)),
            Self::Pong => put(out, request, 130, &[]),
            Self::Stdout(bytes) => put(out, request, 131, bytes),
            Self::Stderr(bytes) => put(out, request, 132, bytes),
            Self::Exited { status, duration_ns } => put(out, request, 133, &pack(&(status, duration_ns))),
            Self::Data(bytes) => put(out, request, 134, bytes),
            Self::Done => put(out, request, 135, &[]),
            Self::Failed(error) => put(out, request, 136, &pack(error)),
        }
    }

    /// The message of a frame.
    ///
    /// # Errors
    /// An unknown kind, or a payload that does not fit it.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        match kind {
            129 => Ok(Self::Hello(unpack(kind, payload)?)),
            130 => nothing(kind, payload, Self::Pong),
            131 => Ok(Self::Stdout(payload.to_vec())),
            132 => Ok(Self::Stderr(payload.to_vec())),
            133 => {
                let (status, duration_ns) = unpack(kind, payload)?;
                Ok(Self::Exited { status, duration_ns })
            }
            134 => Ok(Self::Data(payload.to_vec())),
            135 => nothing(kind, payload, Self::Done),
            136 => Ok(Self::Failed(unpack(kind, payload)?)),
            _ => Err(FrameError::UnknownKind(kind)),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
