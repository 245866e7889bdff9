//! The NBD protocol as bytes (`doc/proto.md` of the NetworkBlockDevice project): fixed newstyle handshake, simple replies.

/// What a server says first.
pub const GREETING: &[u8; 18] = b"NBDMAGICIHAVEOPT\x00\x03";
/// The client's flag for a handshake without 124 zeroes at its end.
pub const NO_ZEROES: u32 = 2;
/// The most that one request may move, in bytes.
pub const LARGEST: u32 = 32 << 20;
/// The most that an option may bring, in bytes.
pub const LARGEST_OPTION: u32 = 64 << 10;

const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// Options that are answered.
pub mod option {
    /// Names an export and ends the negotiation.
    pub const EXPORT_NAME: u32 = 1;
    /// Ends the connection.
    pub const ABORT: u32 = 2;
    /// Lists exports.
    pub const LIST: u32 = 3;
    /// Asks about an export.
    pub const INFO: u32 = 6;
    /// As `INFO`, and ends the negotiation.
    pub const GO: u32 = 7;
}

/// Answers to options.
pub mod answer {
    /// Done.
    pub const ACK: u32 = 1;
    /// A name.
    pub const SERVER: u32 = 2;
    /// About an export.
    pub const INFO: u32 = 3;
    /// Such an option is not known.
    pub const UNSUPPORTED: u32 = (1 << 31) + 1;
    /// The option makes no sense.
    pub const INVALID: u32 = (1 << 31) + 3;
    /// There is no such export.
    pub const UNKNOWN: u32 = (1 << 31) + 6;
    /// It brings too much.
    pub const TOO_BIG: u32 = (1 << 31) + 9;
}

/// The one export: the empty name, which stands for the default.
pub const EXPORT: &str = "";

/// What a client asks for before the first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionHead {
    /// Which option.
    pub option: u32,
    /// How many bytes follow.
    pub length: u32,
}

impl OptionHead {
    /// How many bytes it has.
    pub const BYTES: usize = 16;

    /// Reads one; none where it begins with something else.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        (bytes[..8] == *b"IHAVEOPT").then(|| Self { option: word(bytes, 8), length: word(bytes, 12) })
    }
}

/// An answer to an option.
pub fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut reply = REPLY_MAGIC.to_be_bytes().to_vec();
    reply.extend(option.to_be_bytes());
    reply.extend(kind.to_be_bytes());
    reply.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    reply.extend(data);
    reply
}

/// The export's name in the data of `INFO` and `GO`; none where the data is malformed.
pub fn wanted_export(data: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(u32::from_be_bytes(data.get(..4)?.try_into().ok()?)).ok()?;
    let name = data.get(4..)?.get(..length)?;
    let rest = &data[4 + length..];
    let count = usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?));
    (rest.len() == 2 + 2 * count).then_some(name)
}

/// What is told about the export: its size and flags.
pub fn export_info(size: u64, flags: u16) -> Vec<u8> {
    let mut info = vec![0, 0];
    info.extend(size.to_be_bytes());
    info.extend(flags.to_be_bytes());
    info
}

/// What is told about the sizes of requests: whole sectors, 4 KiB where one can choose.
pub fn block_size_info() -> Vec<u8> {
    let mut info = vec![0, 3];
    for size in [512, 4096, LARGEST] {
        info.extend(u32::to_be_bytes(size));
    }
    info
}

/// Flags of the export.
pub fn export_flags(readonly: bool) -> u16 {
    const HAS_FLAGS: u16 = 1;
    const READ_ONLY: u16 = 1 << 1;
    const SEND_FLUSH: u16 = 1 << 2;
    const SEND_FUA: u16 = 1 << 3;
    const SEND_TRIM: u16 = 1 << 5;
    const SEND_WRITE_ZEROES: u16 = 1 << 6;
    let writable = if readonly { READ_ONLY } else { SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES };
    HAS_FLAGS | SEND_FLUSH | writable
}

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Bytes.
    Read,
    /// To store bytes.
    Write,
    /// To end the connection.
    Disconnect,
    /// What was written to be durable.
    Flush,
    /// To give bytes back.
    Trim,
    /// Zeroes to be stored.
    WriteZeroes,
    /// Something else.
    Unknown,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What it wants.
    pub command: Command,
    /// Whether it wants its own bytes durable at once.
    pub fua: bool,
    /// Comes back with the reply.
    pub cookie: u64,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub length: u32,
}

impl Request {
    /// How many bytes it has.
    pub const BYTES: usize = 28;

    /// Reads one; none where it begins with something else.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        if word(bytes, 0) != REQUEST_MAGIC {
            return None;
        }
        let command = match u16::from_be_bytes([bytes[6], bytes[7]]) {
            0 => Command::Read,
            1 => Command::Write,
            2 => Command::Disconnect,
            3 => Command::Flush,
            4 => Command::Trim,
            6 => Command::WriteZeroes,
            _ => Command::Unknown,
        };
        let long = |at| u64::from(word(bytes, at)) << 32 | u64::from(word(bytes, at + 4));
        Some(Self { command, fua: bytes[5] & 1 == 1, cookie: long(8), offset: long(16), length: word(bytes, 24) })
    }

    /// The same as bytes.
    #[cfg(test)]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let command: u16 = match self.command {
            Command::Read => 0,
            Command::Write => 1,
            Command::Disconnect => 2,
            Command::Flush => 3,
            Command::Trim => 4,
            Command::WriteZeroes => 6,
            Command::Unknown => 99,
        };
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[5] = u8::from(self.fua);
        bytes[6..8].copy_from_slice(&command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }
}

/// The head of a reply; the bytes of a read follow.
pub fn reply_head(cookie: u64, errno: i32) -> [u8; 16] {
    let mut head = [0; 16];
    head[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    head[4..8].copy_from_slice(&wire_errno(errno).to_be_bytes());
    head[8..].copy_from_slice(&cookie.to_be_bytes());
    head
}

/// An errno as the protocol knows it.
fn wire_errno(errno: i32) -> u32 {
    match errno {
        0 => 0,
        libc::EPERM => 1,
        libc::ENOMEM => 12,
        libc::EINVAL => 22,
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => 28,
        libc::ENOTSUP => 95,
        libc::ESHUTDOWN => 108,
        _ => 5,
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_comes_back(fua: bool, cookie: u64, offset: u64, length: u32, kind in 0_usize..6) {
            use Command::{Disconnect, Flush, Read, Trim, Write, WriteZeroes};
            let command = [Read, Write, Disconnect, Flush, Trim, WriteZeroes][kind];
            let request = Request { command, fua, cookie, offset, length };
            prop_assert_eq!(Request::decode(&request.encode()), Some(request));
        }

        #[test]
        fn any_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..64), bytes: [u8; 28]) {
            let _ = wanted_export(&data);
            let _ = Request::decode(&bytes);
        }
    }

    #[test]
    fn the_export_is_found_in_its_option() {
        assert_eq!(wanted_export(b"\0\0\0\x02ab\0\x01\0\x03"), Some(&b"ab"[..]));
        assert_eq!(wanted_export(b"\0\0\0\0\0\0"), Some(&b""[..]));
        for broken in [&b"\0\0\0"[..], b"\0\0\0\x09ab\0\0", b"\0\0\0\0\0\x01", b"\xff\xff\xff\xff\0\0"] {
            assert_eq!(wanted_export(broken), None);
        }
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(export_info(0x200, export_flags(false)), [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0x6d]);
        assert_eq!(export_flags(true), 7);
        assert_eq!(reply_head(7, libc::EIO)[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5]);
        assert_eq!(option_reply(7, answer::ACK, b"")[..12], [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 7]);
    }
}
