//! Whole files in and out of the guest, in pieces.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::out::refusal;
use super::sys::{self, check};
use crate::agent_protocol::{CHUNK, OpError};

/// Sends a file's content piece by piece.
///
/// # Errors
/// errno with the path. A host that is gone ends it quietly.
pub fn send(path: &[u8], mut piece: impl FnMut(Vec<u8>) -> io::Result<()>) -> Result<(), OpError> {
    let failed = |error: io::Error| refusal("read_file", path, &error, "");
    let file = sys::open(path, libc::O_RDONLY, 0).map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match sys::read(file.as_fd(), &mut buffer).map_err(failed)? {
            0 => return Ok(()),
            count => {
                if piece(buffer[..count].to_vec()).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// A file that is being written.
pub struct Writing {
    path: Vec<u8>,
    file: OwnedFd,
}

impl Writing {
    /// Creates or truncates the file.
    ///
    /// # Errors
    /// errno with the path.
    pub fn begin(path: Vec<u8>, mode: Option<u32>) -> Result<Self, OpError> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
        let opened = sys::open(&path, flags, mode.unwrap_or(0o666)).and_then(|file| {
            if let Some(mode) = mode {
                // SAFETY: fchmod on a descriptor that is open. The umask has no say in a mode that was asked for.
                check(unsafe { libc::fchmod(file.as_raw_fd(), mode) })?;
            }
            Ok(file)
        });
        match opened {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(refusal("write_file", &path, &error, "")),
        }
    }

    /// Writes the next piece.
    ///
    /// # Errors
    /// errno with the path.
    pub fn add(&mut self, mut bytes: &[u8]) -> Result<(), OpError> {
        while !bytes.is_empty() {
            let count =
                sys::write(self.file.as_fd(), bytes).map_err(|error| refusal("write_file", &self.path, &error, ""))?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Closes the file: some file systems tell only then that it did not fit.
    ///
    /// # Errors
    /// errno with the path.
    pub fn finish(self) -> Result<(), OpError> {
        use std::os::fd::IntoRawFd;
        // SAFETY: the descriptor is ours, and not used after.
        match check(unsafe { libc::close(self.file.into_raw_fd()) }) {
            Ok(_) => Ok(()),
            Err(error) => Err(refusal("write_file", &self.path, &error, "")),
        }
    }
}
