//! What a process's standard input is fed with: the pipe takes what it can, the rest waits.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::processes::Source;
use super::sys;
use super::watchers::{unwatch, watch};

/// The writing end of a process's standard input and what it has not taken yet. The host sends a bounded amount ahead.
#[derive(Default)]
pub struct Input {
    pipe: Option<OwnedFd>,
    queue: Vec<u8>,
    /// Whether nothing follows the queue.
    ends: bool,
    /// Whether the I/O thread waits for room.
    watched: bool,
}

/// What became of the queue.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes that the pipe took.
    pub taken: usize,
    /// Whether nobody reads any more, and bytes were dropped for that.
    pub broken: bool,
}

impl Input {
    /// Begins to write into `pipe`.
    pub fn open(&mut self, pipe: Option<OwnedFd>) {
        self.pipe = pipe.filter(|fd| sys::set_nonblocking(fd.as_fd()).is_ok());
    }

    /// The process runs. What came for it before is written once the I/O thread sees room, which is at once.
    pub fn begin(&mut self, epoll: &OwnedFd, request: u32) {
        let Some(pipe) = &self.pipe else { return };
        if self.queue.is_empty() {
            if self.ends {
                self.close();
            }
        } else if watch(epoll, pipe.as_fd(), libc::EPOLLOUT, Source::Stdin(request)).is_ok() {
            self.watched = true;
        } else {
            self.close();
        }
    }

    /// The pipe, while it is open.
    pub fn descriptor(&self) -> Option<i32> {
        self.pipe.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Adds to the queue.
    pub fn push(&mut self, bytes: &[u8]) {
        self.queue.extend_from_slice(bytes);
    }

    /// Nothing more will be added: the pipe is closed behind the queue.
    pub fn end(&mut self) {
        self.ends = true;
    }

    /// Closes the pipe at once.
    pub fn close(&mut self) {
        self.queue.clear();
        if let Some(pipe) = self.pipe.take() {
            // Ends a worker's channel, of which the other direction is still open. A pipe refuses, which is fine.
            // SAFETY: the descriptor is open.
            unsafe { libc::shutdown(pipe.as_raw_fd(), libc::SHUT_WR) };
        }
    }

    /// Writes as much of the queue as the pipe takes, then closes it or waits for more room.
    pub fn feed(&mut self, epoll: &OwnedFd, request: u32) -> Fed {
        let Some(pipe) = &self.pipe else {
            let broken = !self.queue.is_empty();
            self.queue.clear();
            return Fed { taken: 0, broken };
        };
        let mut taken = 0;
        let mut full = false;
        while taken < self.queue.len() {
            match sys::write(pipe.as_fd(), &self.queue[taken..]) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    full = true;
                    break;
                }
                Err(_) => {
                    self.close();
                    return Fed { taken, broken: true };
                }
            }
        }
        self.queue.drain(..taken);
        if full && !self.watched {
            if watch(epoll, pipe.as_fd(), libc::EPOLLOUT, Source::Stdin(request)).is_err() {
                self.close();
                return Fed { taken, broken: true };
            }
            self.watched = true;
        } else if !full && self.watched {
            unwatch(epoll, pipe.as_fd());
            self.watched = false;
        }
        if !full && self.ends {
            self.close();
        }
        Fed { taken, broken: false }
    }
}
