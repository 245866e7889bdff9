//! A worker: a second agent with identity, directories and descriptors of its own, which speaks with the host through the
//! agent that started it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::ops::Root;
use super::server::{self, Setting};
use super::sys::{self, check};

/// The words that a worker is started with. systemd spares processes whose name begins so when it switches root.
pub const WORDS: [&CStr; 2] = [c"@provium-agent", c"--worker"];

/// This program, whatever became of its file; through `proc` where that is a mounted `/proc`.
///
/// # Errors
/// errno.
pub fn program(proc: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    match proc {
        Some(proc) => sys::openat(proc.as_raw_fd(), c"self/exe", libc::O_PATH, 0),
        None => sys::open(b"/proc/self/exe", libc::O_PATH, 0),
    }
}

/// Two ends of a channel.
///
/// # Errors
/// errno.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for both descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) })?;
    // SAFETY: the call just made both.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Serves on standard input until its other end is closed. Standard output is the same channel, or the `/proc` of the
/// agent that started this one: then operations happen where PID 1 is, wherever it goes.
pub fn main() {
    match take_channel() {
        Ok((channel, root)) => {
            let setting = Setting { root, is_worker: true, ..Setting::default() };
            server::serve(channel, setting, server::hello(None, Vec::new()));
        }
        Err(error) => eprintln!("provium-agent: the worker's channel can't be used: {error}"),
    }
}

/// Moves what came with them away from the descriptors that everybody writes to.
fn take_channel() -> io::Result<(OwnedFd, Option<Root>)> {
    let (channel, second) = (sys::duplicate(0)?, sys::duplicate(1)?);
    let is_directory = sys::fstat(second.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let root = is_directory.then(|| Root::new(second));
    let null = sys::open(b"/dev/null", libc::O_RDWR, 0).or_else(|_| sys::pipe().map(|(read, _)| read))?;
    for standard in [0, 1] {
        // SAFETY: both descriptors are open, and nothing uses the old ones any more.
        check(unsafe { libc::dup2(null.as_raw_fd(), standard) })?;
    }
    Ok((channel, root))
}
