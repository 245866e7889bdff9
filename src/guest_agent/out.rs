//! Frames on their way to the host.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::interrupt::Working;
use super::sys;
use crate::agent_protocol::{CHUNK, DATA_CHUNK, HEADER, OpError, OpReply, SyscallOutcome, ToHost};

/// The channel's writing side, shared by both threads. A send waits until the host has taken the frame: nothing
/// piles up in the guest.
pub struct Out {
    channel: OwnedFd,
    buffer: Mutex<Vec<u8>>,
}

impl Out {
    /// Sends on `channel`, which must not block.
    pub fn new(channel: OwnedFd) -> Self {
        Self { channel, buffer: Mutex::new(Vec::with_capacity(CHUNK + 64)) }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// When the host is gone for good.
    pub fn send(&self, request: u32, message: &ToHost) -> io::Result<()> {
        self.send_all(&[(request, message)])
    }

    /// Sends messages in one piece.
    ///
    /// # Errors
    /// When the host is gone for good.
    pub fn send_all(&self, messages: &[(u32, &ToHost)]) -> io::Result<()> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.clear();
        for (request, message) in messages {
            message.encode(*request, &mut buffer);
        }
        self.write(&buffer)
    }

    /// Sends the first `length` bytes of `piece` as a `Data`.
    ///
    /// # Errors
    /// When the host is gone for good.
    pub fn send_piece(&self, request: u32, piece: &mut Piece, length: usize) -> io::Result<()> {
        let frame = piece.buffer.get_mut(..HEADER + length).ok_or(io::ErrorKind::InvalidInput)?;
        frame[..HEADER].copy_from_slice(&ToHost::data_header(request, length));
        let _turn = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(frame)
    }

    /// Writes a whole frame; the caller holds the lock.
    fn write(&self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match sys::write(self.channel.as_fd(), rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sys::poll_one(self.channel.as_fd(), libc::POLLOUT, -1)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells that a request is done. A host that is gone does not miss it.
    pub fn done(&self, request: u32) {
        let _ = self.send(request, &ToHost::Done);
    }

    /// Answers an operation. A host that is gone does not miss it.
    pub fn reply(&self, request: u32, reply: OpReply) {
        let _ = self.send(request, &ToHost::Reply(reply));
    }

    /// Tells what a system call came to, unless nobody waits for it any more.
    pub fn returned(&self, request: u32, outcome: SyscallOutcome, working: &Working) {
        if !working.given_up() {
            // A host that is gone does not miss it.
            let _ = self.send(request, &ToHost::Returned(outcome));
        }
    }

    /// Sends a refusal. A host that is gone does not miss it.
    pub fn fail(&self, request: u32, error: OpError) {
        let _ = self.send(request, &ToHost::Failed(error));
    }
}

/// Room for the bytes of one `Data`, with its header before it: what is read into it is sent without another copy.
pub struct Piece {
    buffer: Vec<u8>,
}

impl Piece {
    /// Room for a frame of `DATA_CHUNK` bytes: the port's driver takes 32 KiB at a time, and no small rest is left.
    pub fn new() -> Self {
        Self { buffer: vec![0; DATA_CHUNK] }
    }

    /// Where the bytes go: `most` of them, but never more than fit.
    pub fn room(&mut self, most: u64) -> &mut [u8] {
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(DATA_CHUNK - HEADER);
        &mut self.buffer[HEADER..HEADER + length]
    }
}

/// The refusal of `op` on `subject` for the reason `error`.
pub fn refusal(op: &str, subject: &[u8], error: &io::Error, detail: &str) -> OpError {
    OpError {
        op: op.to_owned(),
        subject: String::from_utf8_lossy(subject).into_owned(),
        errno: error.raw_os_error().unwrap_or_default(),
        detail: match error.raw_os_error() {
            Some(_) => detail.to_owned(),
            None => format!("{detail}{error}"),
        },
    }
}
