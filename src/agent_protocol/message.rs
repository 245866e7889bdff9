//! The messages. Streams of bytes travel raw, everything else in postcard's wire format, version 1.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::errno::{errno_name, errno_text};
use super::frame::{FrameError, HEADER, header, put};
use super::ops::{DirEntry, IoctlRequest, Op, OpReply, SyscallOutcome, SyscallRequest, TailSource, TailStart, WaitFor};

/// What a process is started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A line for `/bin/sh -c`.
    Shell(Vec<u8>),
    /// A program and its arguments; looked up in `PATH` where it has no slash.
    Argv(Vec<Vec<u8>>),
    /// A second agent, which speaks this protocol on its standard input and output (one socket).
    Worker,
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
    /// Whether `Started` tells its process id.
    pub announce: bool,
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
    /// What the host sends before its first frame: the guest skips all that comes earlier, which may be the rest of a
    /// conversation with the guest before its reset.
    pub nonce: [u8; 16],
    /// `x86_64` or `aarch64`: numbers of system calls depend on it.
    pub arch: String,
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
    /// Sends a signal to a process's group; as request 0 to those of all processes.
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
    /// A short operation, answered by `Reply` or `Failed`.
    Op(Op),
    /// Reads from a descriptor: `Data` follows, then `Done` or `Failed`.
    FileRead {
        /// The descriptor.
        fd: i32,
        /// Bytes at most; all there is where none is given.
        count: Option<u64>,
    },
    /// Writes to a descriptor: `Data` and `DataEnd` follow, then `Reply` with the count or `Failed`.
    FileWrite(i32),
    /// The entries of a directory: `Entries` follow, then `Done` or `Failed`.
    ListDir(Vec<u8>),
    /// Follows a file that grows: `Done` once it is open or `Failed`, then `Data` until the request is given up.
    Tail(TailSource, TailStart),
    /// Follows a descriptor that can be waited on (or a file to its end): `Done` or `Failed`, then `Data`, then `Ended`.
    FdStream(i32),
    /// A system call on the ops thread: `Returned` or `Failed` follows.
    Syscall(SyscallRequest),
    /// A system call on a thread of its own: `Returned` or `Failed` follows.
    SyscallAsync(SyscallRequest),
    /// An ioctl on the ops thread: `Returned` or `Failed` follows.
    Ioctl(IoctlRequest),
    /// Bytes of the agent's own memory: `Data` follows, then `Done` or `Failed`.
    ReadMemory {
        /// The address.
        address: u64,
        /// Bytes.
        count: u64,
    },
    /// Answered by `Done` as soon as it is so.
    Wait(WaitFor),
    /// Answered by `Done` after this many nanoseconds of the guest's time.
    Sleep(u64),
    /// Loads a kernel module whose bytes follow as `Data` and `DataEnd`; then `Done` or `Failed`.
    LoadModule {
        /// For errors.
        name: String,
        /// As `insmod` takes them.
        params: String,
    },
    /// The kernel's log: `Data` with whole records of `/dev/kmsg` follows, then `Done` or `Failed`; where `follow` is set no
    /// `Done` but new records as they come.
    KernelLog {
        /// Whether new records follow.
        follow: bool,
    },
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
    /// The process was started; its id.
    Started(u32),
    /// This many bytes of standard input, or of a file's content, were passed on: the host sends no more than
    /// `STDIN_WINDOW` or `DATA_WINDOW` ahead. 0 of standard input: nobody reads it any more, and what was sent is lost.
    StdinTaken(u32),
    /// What an `Op` came to.
    Reply(OpReply),
    /// Entries of a directory.
    Entries(Vec<DirEntry>),
    /// What a system call came to.
    Returned(SyscallOutcome),
    /// A followed descriptor has come to its end.
    Ended,
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
    /// Puts the frame of a `Data` with these bytes behind `out`, without a copy in between.
    pub fn encode_data(request: u32, bytes: &[u8], out: &mut Vec<u8>) {
        put(out, request, 8, bytes);
    }

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
            Self::Data(bytes) => Self::encode_data(request, bytes, out),
            Self::DataEnd => put(out, request, 9, &[]),
            Self::Cancel => put(out, request, 10, &[]),
            Self::Poweroff => put(out, request, 11, &[]),
            Self::Op(op) => put(out, request, 12, &pack(op)),
            Self::FileRead { fd, count } => put(out, request, 13, &pack(&(fd, count))),
            Self::FileWrite(fd) => put(out, request, 14, &pack(fd)),
            Self::ListDir(path) => put(out, request, 15, path),
            Self::Tail(source, start) => put(out, request, 16, &pack(&(source, start))),
            Self::FdStream(fd) => put(out, request, 17, &pack(fd)),
            Self::Syscall(call) => put(out, request, 18, &pack(call)),
            Self::SyscallAsync(call) => put(out, request, 19, &pack(call)),
            Self::Ioctl(call) => put(out, request, 20, &pack(call)),
            Self::ReadMemory { address, count } => put(out, request, 21, &pack(&(address, count))),
            Self::Wait(what) => put(out, request, 22, &pack(what)),
            Self::Sleep(nanoseconds) => put(out, request, 23, &pack(nanoseconds)),
            Self::LoadModule { name, params } => put(out, request, 24, &pack(&(name, params))),
            Self::KernelLog { follow } => put(out, request, 25, &pack(follow)),
        }
    }

    /// The kind of `Data`: its payload is large.
    pub const DATA_KIND: u8 = 8;

    /// The message of a frame whose payload is given away. Bytes of a file are not copied.
    ///
    /// # Errors
    /// An unknown kind, or a payload that does not fit it.
    pub fn decode_owned(kind: u8, payload: Vec<u8>) -> Result<Self, FrameError> {
        match kind {
            Self::DATA_KIND => Ok(Self::Data(payload)),
            _ => Self::decode(kind, &payload),
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
            7 => unpack(kind, payload).map(|(path, mode)| Self::WriteFile { path, mode }),
            8 => Ok(Self::Data(payload.to_vec())),
            9 => nothing(kind, payload, Self::DataEnd),
            10 => nothing(kind, payload, Self::Cancel),
            11 => nothing(kind, payload, Self::Poweroff),
            12 => Ok(Self::Op(unpack(kind, payload)?)),
            13 => unpack(kind, payload).map(|(fd, count)| Self::FileRead { fd, count }),
            14 => Ok(Self::FileWrite(unpack(kind, payload)?)),
            15 => Ok(Self::ListDir(payload.to_vec())),
            16 => unpack(kind, payload).map(|(source, start)| Self::Tail(source, start)),
            17 => Ok(Self::FdStream(unpack(kind, payload)?)),
            18 => Ok(Self::Syscall(unpack(kind, payload)?)),
            19 => Ok(Self::SyscallAsync(unpack(kind, payload)?)),
            20 => Ok(Self::Ioctl(unpack(kind, payload)?)),
            21 => unpack(kind, payload).map(|(address, count)| Self::ReadMemory { address, count }),
            22 => Ok(Self::Wait(unpack(kind, payload)?)),
            23 => Ok(Self::Sleep(unpack(kind, payload)?)),
            24 => unpack(kind, payload).map(|(name, params)| Self::LoadModule { name, params }),
            25 => unpack(kind, payload).map(|follow| Self::KernelLog { follow }),
            _ => Err(FrameError::UnknownKind(kind)),
        }
    }
}

impl ToHost {
    /// What stands before the bytes of a `Data`, for a sender who has them in place already.
    pub fn data_header(request: u32, length: usize) -> [u8; HEADER] {
        header(request, 134, length)
    }

    /// What it is, inside a sentence.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Hello(_) => "a hello",
            Self::Pong => "a pong",
            Self::Stdout(_) | Self::Stderr(_) => "output",
            Self::Exited { .. } => "the end of a process",
            Self::Data(_) => "data",
            Self::Done => "the end of a request",
            Self::Failed(_) => "a refusal",
            Self::Started(_) => "the start of a process",
            Self::StdinTaken(_) => "a receipt for input",
            Self::Reply(_) => "a reply",
            Self::Entries(_) => "directory entries",
            Self::Returned(_) => "the result of a system call",
            Self::Ended => "the end of a stream",
        }
    }

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
            Self::Started(pid) => put(out, request, 137, &pack(pid)),
            Self::StdinTaken(count) => put(out, request, 138, &pack(count)),
            Self::Reply(reply) => put(out, request, 139, &pack(reply)),
            Self::Entries(entries) => put(out, request, 140, &pack(entries)),
            Self::Returned(outcome) => put(out, request, 141, &pack(outcome)),
            Self::Ended => put(out, request, 142, &[]),
        }
    }

    /// The message of a frame whose payload is given away. Bytes of a stream are not copied.
    ///
    /// # Errors
    /// An unknown kind, or a payload that does not fit it.
    pub fn decode_owned(kind: u8, payload: Vec<u8>) -> Result<Self, FrameError> {
        match kind {
            131 => Ok(Self::Stdout(payload)),
            132 => Ok(Self::Stderr(payload)),
            134 => Ok(Self::Data(payload)),
            _ => Self::decode(kind, &payload),
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
            137 => Ok(Self::Started(unpack(kind, payload)?)),
            138 => Ok(Self::StdinTaken(unpack(kind, payload)?)),
            139 => Ok(Self::Reply(unpack(kind, payload)?)),
            140 => Ok(Self::Entries(unpack(kind, payload)?)),
            141 => Ok(Self::Returned(unpack(kind, payload)?)),
            142 => nothing(kind, payload, Self::Ended),
            _ => Err(FrameError::UnknownKind(kind)),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;

#[cfg(test)]
#[path = "properties.rs"]
mod properties;
