//! What the host can ask a guest to do besides running programs, and what comes of it. Data only.

use serde::{Deserialize, Serialize};

/// A short operation with one answer. All but the clock's happen on the guest's ops thread, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Metadata of a path: answered by [`OpReply::Stat`].
    Stat {
        /// The path.
        path: Vec<u8>,
        /// Whether a symbolic link at its end is followed.
        follow: bool,
    },
    /// Whether a path is there (links followed): answered by [`OpReply::Flag`].
    Exists(Vec<u8>),
    /// Makes a directory.
    Mkdir {
        /// The path.
        path: Vec<u8>,
        /// Whether missing parents are made and an existing directory is fine.
        parents: bool,
        /// Permission bits, exact whatever the umask; 0o777 less the umask where none are given.
        perm: Option<u32>,
    },
    /// Removes a file or an empty directory.
    Unlink(Vec<u8>),
    /// Renames a path.
    Rename {
        /// From.
        from: Vec<u8>,
        /// To.
        to: Vec<u8>,
    },
    /// Opens a file: answered by [`OpReply::Opened`].
    Open(OpenRequest),
    /// Moves a descriptor's offset: answered by [`OpReply::Count`], the new offset.
    Seek {
        /// The descriptor.
        fd: i32,
        /// Bytes.
        offset: i64,
        /// From where.
        whence: Whence,
    },
    /// Flushes a descriptor's file to its device.
    Sync(i32),
    /// Cuts or extends a descriptor's file.
    Truncate {
        /// The descriptor.
        fd: i32,
        /// Bytes.
        length: u64,
    },
    /// Closes a descriptor.
    Close(i32),
    /// The real-time clock: answered by [`OpReply::Clock`].
    GetClock,
    /// Sets the real-time clock to nanoseconds since the epoch.
    SetClock(i64),
    /// Removes a kernel module.
    UnloadModule(String),
    /// Looks for a device that tells of the power button, and listens to it where nothing else in the guest does:
    /// answered by [`OpReply::Button`].
    WatchPowerButton,
    /// Makes a symbolic link; one that is there is replaced.
    Symlink {
        /// What it says.
        target: Vec<u8>,
        /// The link itself.
        path: Vec<u8>,
    },
    /// Gives names addresses: replaces what an earlier one of these put into `/etc/hosts`.
    SetHosts(String),
    /// Makes the agent quiet for a snapshot: answered by [`OpReply::Quiet`]. After that it says nothing and skips what comes,
    /// until the nonce of the answer has come; then it says hello once more and goes on with the frames behind the nonce.
    Quiesce,
    /// The first operation behind such a nonce: makes a clone its own. Answered by [`OpReply::Notices`].
    Wake(Wake),
    /// Looks for the disk with a serial number: answered by [`OpReply::Device`].
    FindDisk {
        /// The serial number.
        serial: Vec<u8>,
        /// Whether the kernel is to ask the disk for its size first.
        rescan: bool,
    },
}

/// What a guest is told that goes on after a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    /// Nanoseconds since the epoch that the real-time clock is set to.
    pub time: Option<i64>,
    /// Random bytes for the kernel's generator, which is reseeded; none leave it as it is.
    pub entropy: Vec<u8>,
    /// The host name to set.
    pub hostname: Option<String>,
}

/// What an [`Op`] came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpReply {
    /// Done; there is nothing to say.
    Unit,
    /// Yes or no.
    Flag(bool),
    /// Metadata.
    Stat(FileStat),
    /// The new descriptor, the real one of the agent's process.
    Opened(i32),
    /// A number of bytes, or an offset.
    Count(u64),
    /// Nanoseconds since the epoch.
    Clock(i64),
    /// The power button.
    Button(Button),
    /// The agent is quiet until this nonce comes.
    Quiet([u8; 16]),
    /// What did not work and may matter.
    Notices(Vec<String>),
    /// The path of a device's node; none where there is no such device.
    Device(Option<String>),
}

/// Who hears the power button.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Button {
    /// The kernel shows no such device: its driver is missing or not loaded.
    NoDevice,
    /// A program of the guest has the device open.
    Guest,
    /// Nothing else did: the agent listens now and will power off.
    Agent,
}

/// A file to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "these are open(2)'s independent flags")]
pub struct OpenRequest {
    /// The path.
    pub path: Vec<u8>,
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// `O_CREAT`.
    pub create: bool,
    /// `O_TRUNC`.
    pub truncate: bool,
    /// `O_APPEND`.
    pub append: bool,
    /// `O_EXCL`.
    pub exclusive: bool,
    /// Permission bits of a file that is created, exact whatever the umask.
    pub perm: Option<u32>,
}

/// Where an offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whence {
    /// The beginning.
    Set,
    /// The current offset.
    Current,
    /// The end.
    End,
}

/// The type of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl EntryType {
    /// As the Lua API names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharDevice => "char_device",
            Self::BlockDevice => "block_device",
        }
    }
}

/// Metadata of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Bytes.
    pub size: u64,
    /// Time of the last change of its content, seconds since the epoch.
    pub mtime: i64,
    /// The nanoseconds of that second.
    pub mtime_ns: u32,
    /// mode & 0o7777.
    pub perm: u32,
    /// Its type.
    pub entry_type: EntryType,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Inode.
    pub ino: u64,
    /// Hard links.
    pub nlink: u64,
}

/// Where a followed file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TailStart {
    /// At its first byte.
    Beginning,
    /// At its end: only what comes from now on.
    End,
    /// At an offset; a negative one counts from the end.
    Offset(i64),
    /// Where the descriptor stands.
    Current,
}

/// What is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TailSource {
    /// A file by its path.
    Path(Vec<u8>),
    /// A file by a descriptor of the agent.
    Descriptor(i32),
}

/// A call of the guest's kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyscallRequest {
    /// Its number on the guest's architecture.
    pub number: i64,
    /// The arguments; those that a pointer takes are overwritten.
    pub args: [u64; 6],
    /// Buffers in the agent's memory; they come back as the call left them.
    pub bufs: Vec<Vec<u8>>,
    /// Argument slot (from 0) that receives the address of the buffer at the same place in `bufs`; as many at most. One above
    /// 5 stands for none.
    pub ptrs: Vec<u8>,
    /// Addresses that are written into buffers before the call.
    pub nested: Vec<Nested>,
}

/// The address of buffer `child` goes into buffer `parent` at `offset`. Buffers count from 0 here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nested {
    /// The buffer that holds the pointer.
    pub parent: u32,
    /// The buffer pointed to.
    pub child: u32,
    /// Bytes from the beginning of `parent`.
    pub offset: u32,
}

/// An `ioctl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoctlRequest {
    /// The descriptor.
    pub fd: i32,
    /// The request number.
    pub command: u64,
    /// What the third argument is.
    pub argument: IoctlArgument,
    /// Buffers whose addresses are written into the data.
    pub bufs: Vec<Vec<u8>>,
    /// Offset in the data that receives the address of the buffer at the same place in `bufs`.
    pub ptr_offsets: Vec<u32>,
}

/// The third argument of an `ioctl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoctlArgument {
    /// A number.
    Number(u64),
    /// The address of these bytes.
    Data(Vec<u8>),
}

/// What a system call came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyscallOutcome {
    /// What the kernel returned; −1 where it refused.
    pub ret: i64,
    /// 0 where it did not refuse.
    pub errno: i32,
    /// An ioctl's data afterwards; empty otherwise.
    pub data: Vec<u8>,
    /// The buffers afterwards.
    pub bufs: Vec<Vec<u8>>,
}

/// What the guest waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitFor {
    /// A path is there.
    File(Vec<u8>),
    /// Something listens on this TCP port.
    Port(u16),
    /// A network card is there; it is then set up as said.
    Card(Card),
    /// The kernel has a disk with this serial number.
    Disk(Vec<u8>),
}

/// How a network card is to be set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The hardware address by which it is known.
    pub mac: [u8; 6],
    /// The hardware address that it gets, where it is to have another one.
    pub new_mac: Option<[u8; 6]>,
    /// The largest packet.
    pub mtu: u32,
    /// Its addresses: 4 or 16 bytes, and the bits of the network's part. Others of these families are removed.
    pub addresses: Vec<(Vec<u8>, u8)>,
    /// What is reached over it.
    pub routes: Vec<CardRoute>,
    /// What is no longer reached over it.
    pub ended_routes: Vec<CardRoute>,
}

/// A network behind another machine of a card's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardRoute {
    /// The network: 4 or 16 bytes.
    pub to: Vec<u8>,
    /// The bits of its part of the address; 0 is all the world.
    pub prefix: u8,
    /// The machine: as many bytes.
    pub via: Vec<u8>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// Its type.
    pub entry_type: EntryType,
}
