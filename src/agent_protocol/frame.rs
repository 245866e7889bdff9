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
/// Longest payload that a decoder accepts, in bytes.
pub const LARGEST_PAYLOAD: usize = 16 << 20;

/// How much may have been taken out of a decoder before the rest is moved to its front, in bytes.
const COMPACT: usize = 1 << 20;

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

/// Request, kind, payload.
pub type Frame<'a> = (u32, u8, &'a [u8]);

/// Cuts a byte stream into frames. Holds at most one frame and what came with it.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > COMPACT {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// A frame that is announced too long; the stream can't be followed then.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let waiting = &self.buffer[self.start..];
        let Some((header, rest)) = waiting.split_at_checked(HEADER) else { return Ok(None) };
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = word(0) as usize;
        if length > LARGEST_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let (request, kind) = (word(4), header[8]);
        let payload = self.start + HEADER;
        self.start = payload + length;
        Ok(Some((request, kind, &self.buffer[payload..payload + length])))
    }
}
