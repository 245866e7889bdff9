//! Frames: a header of nine bytes, then the payload.
//!
//! | bytes | what |
//! |---|---|
//! | 0–3 | length of the payload, little-endian |
//! | 4–7 | number of the request, little-endian |
//! | 8 | kind of message |

use std::fmt;

/// Bytes before the payload.
pub const HEADER: usize = 9;
/// Longest payload that is accepted, in bytes.
pub const LARGEST_PAYLOAD: usize = 16 << 20;

/// A stream that can't be followed any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// A frame says it is longer than any that is sent.
    TooLong(usize),
    /// A kind of message that this version does not know.
    UnknownKind(u8),
    /// A payload that is not what its kind says.
    BadPayload(u8),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(length) => {
                write!(f, "a frame of {length} bytes was announced, the longest is {LARGEST_PAYLOAD}")
            }
            Self::UnknownKind(kind) => write!(f, "a message of the unknown kind {kind}"),
            Self::BadPayload(kind) => write!(f, "a message of kind {kind} whose content can't be read"),
        }
    }
}

impl std::error::Error for FrameError {}

/// What stands before a payload of `length` bytes.
pub(super) fn header(request: u32, kind: u8, length: usize) -> [u8; HEADER] {
    debug_assert!(length <= LARGEST_PAYLOAD, "callers split what is longer");
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    header[4..8].copy_from_slice(&request.to_le_bytes());
    header[8] = kind;
    header
}

/// Puts a frame behind `out`.
pub(super) fn put(out: &mut Vec<u8>, request: u32, kind: u8, payload: &[u8]) {
    out.reserve(HEADER + payload.len());
    out.extend_from_slice(&header(request, kind, payload.len()));
    out.extend_from_slice(payload);
}

/// Takes frames apart as they are read, each payload into a buffer of its own: nothing is copied after the reader did.
#[derive(Debug, Default)]
pub struct Incoming {
    header: [u8; HEADER],
    payload: Vec<u8>,
    /// How much of header and payload is there.
    filled: usize,
}

/// Request, kind, payload.
pub type OwnedFrame = (u32, u8, Vec<u8>);

impl Incoming {
    /// Where the next bytes go. Never empty.
    pub fn room(&mut self) -> &mut [u8] {
        match self.filled.checked_sub(HEADER) {
            None => &mut self.header[self.filled..],
            Some(filled) => &mut self.payload[filled..],
        }
    }

    /// So much of the room was filled. A frame, once it is whole; `buffer` gives the vector for a payload of a kind, whatever
    /// is in it.
    ///
    /// # Errors
    /// A frame that is announced too long; the stream can't be followed then.
    pub fn filled(
        &mut self,
        count: usize,
        buffer: impl FnOnce(u8) -> Vec<u8>,
    ) -> Result<Option<OwnedFrame>, FrameError> {
        let header = self.header;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let before = self.filled;
        self.filled += count;
        if before < HEADER && self.filled == HEADER {
            let length = word(0) as usize;
            if length > LARGEST_PAYLOAD {
                return Err(FrameError::TooLong(length));
            }
            self.payload = if length == 0 { Vec::new() } else { buffer(header[8]) };
            self.payload.resize(length, 0);
        }
        if self.filled < HEADER || self.filled < HEADER + self.payload.len() {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some((word(4), header[8], std::mem::take(&mut self.payload))))
    }
}
