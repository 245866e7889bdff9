//! Loading and unloading kernel modules. Each happens in a process of its own: a module's code may sleep for ever, or crash,
//! and the kernel kills the thread in which it did.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::ops::Shared;
use super::out::{Out, refusal};
use super::sys::{self, c_string};
use super::watchers::Follow;
use crate::agent_protocol::{OpError, OpReply, ToHost};

/// The largest module that is taken, in bytes.
const LARGEST: usize = 512 * 1024 * 1024;

/// A module whose bytes are on their way.
pub struct Loading {
    name: String,
    params: CString,
    bytes: Vec<u8>,
}

impl Loading {
    /// Nothing has come yet.
    ///
    /// # Errors
    /// Parameters with a NUL inside.
    pub fn begin(name: String, params: &str) -> Result<Self, OpError> {
        match c_string(params.as_bytes()) {
            Ok(params) => Ok(Self { name, params, bytes: Vec::new() }),
            Err(error) => Err(refusal("load_module", name.as_bytes(), &error, "a NUL in the parameters")),
        }
    }

    /// The next piece.
    ///
    /// # Errors
    /// More than is taken.
    pub fn add(&mut self, piece: &[u8]) -> Result<(), OpError> {
        if self.bytes.len() + piece.len() > LARGEST {
            let error = io::Error::from_raw_os_error(libc::EFBIG);
            return Err(refusal("load_module", self.name.as_bytes(), &error, ""));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Hands the module to the kernel; `Done` or `Failed` follows.
    ///
    /// # Errors
    /// No process for it can be had.
    pub fn load(self, request: u32, shared: &Arc<Shared>) -> Result<(), OpError> {
        let (bytes, params) = (&self.bytes, &self.params);
        let call = || {
            // SAFETY: the pointer and length are those of `bytes`, and `params` is a C string.
            unsafe { libc::syscall(libc::SYS_init_module, bytes.as_ptr(), bytes.len(), params.as_ptr()) }
        };
        start(request, shared, "load_module", &self.name, ToHost::Done, call)
    }
}

/// Removes a module; `Reply` or `Failed` follows.
///
/// # Errors
/// No process for it can be had.
pub fn unload(request: u32, name: &str, shared: &Arc<Shared>) -> Result<(), OpError> {
    let refused = |error: io::Error| refusal("unload_module", name.as_bytes(), &error, "");
    let text = c_string(name.as_bytes()).map_err(refused)?;
    let call = || {
        // SAFETY: `text` is a C string. O_NONBLOCK: a module that is in use is an error, not to be waited for.
        unsafe { libc::syscall(libc::SYS_delete_module, text.as_ptr(), libc::O_NONBLOCK) }
    };
    start(request, shared, "unload_module", name, ToHost::Reply(OpReply::Unit), call)
}

/// Makes `call` in a child that has this thread's identity, and follows it.
fn start(
    request: u32,
    shared: &Arc<Shared>,
    op: &'static str,
    name: &str,
    answer: ToHost,
    call: impl FnOnce() -> libc::c_long,
) -> Result<(), OpError> {
    let refused = |error: io::Error| refusal(op, name.as_bytes(), &error, "a process for it can't be had");
    let (result, told) = sys::pipe().map_err(refused)?;
    let fork = || {
        // SAFETY: the child makes system calls only, on memory that the fork copied, and ends with _exit.
        match sys::check(unsafe { libc::fork() })? {
            0 => {
                close_all_but(told.as_raw_fd());
                let errno = if call() < 0 { io::Error::last_os_error().raw_os_error().unwrap_or_default() } else { 0 };
                let _ = sys::write(told.as_fd(), &errno.to_le_bytes());
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(0) }
            }
            pid => Ok(pid),
        }
    };
    let pid = shared.processes.start_helper(fork).map_err(refused)?;
    drop(told);
    let helper = Helper { pid, result, op, name: name.to_owned(), answer, shared: Arc::clone(shared) };
    shared.watchers.add(request, Box::new(helper)).map_err(refused)
}

/// In the child: a module may keep it for long, and what it has open would not be closed for others.
fn close_all_but(kept: i32) {
    let (before, after) = (kept.unsigned_abs().saturating_sub(1), kept.unsigned_abs() + 1);
    // SAFETY: closes descriptors of this child, which uses none of them.
    unsafe {
        if libc::syscall(libc::SYS_close_range, after, u32::MAX, 0) == 0 {
            libc::syscall(libc::SYS_close_range, 0, before, 0);
            return;
        }
        // Before Linux 5.9.
        (0..4096).filter(|fd| *fd != kept).for_each(|fd| {
            libc::close(fd);
        });
    }
}

/// A child that is in the kernel for a request.
struct Helper {
    pid: libc::pid_t,
    result: OwnedFd,
    op: &'static str,
    name: String,
    answer: ToHost,
    shared: Arc<Shared>,
}

impl Follow for Helper {
    fn fd(&self) -> BorrowedFd<'_> {
        self.result.as_fd()
    }

    fn ready(&mut self, request: u32, out: &Out) -> io::Result<bool> {
        let mut errno = [0; 4];
        let refused = |error: &io::Error| ToHost::Failed(refusal(self.op, self.name.as_bytes(), error, ""));
        let message = match sys::read(self.result.as_fd(), &mut errno) {
            Ok(4) => match i32::from_le_bytes(errno) {
                0 => self.answer.clone(),
                errno => refused(&io::Error::from_raw_os_error(errno)),
            },
            // The module's code crashed, and its process with it.
            _ => refused(&io::Error::other("the kernel killed the process that did it: the module's code crashed")),
        };
        out.send(request, &message)?;
        Ok(false)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // One that has ended, or is about to, is not hurt by it.
        self.shared.processes.kill_helper(self.pid);
    }
}
