//! The kernel's killer of processes when memory runs out: it must not take the agent, which would be the largest process of
//! a small guest, and must take what the agent starts for what it is.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::sys::{check, openat, write};

/// A `/proc` for the processes that are started, once the agent is spared; −1 before.
static PROC: AtomicI32 = AtomicI32::new(-1);

/// Spares this process. What it starts from now on must call `count_again`.
///
/// # Errors
/// errno; then nothing is changed.
pub fn spare(proc: &OwnedFd) -> io::Result<()> {
    use std::os::fd::AsFd;
    let file = openat(proc.as_raw_fd(), c"self/oom_score_adj", libc::O_WRONLY, 0)?;
    let kept = proc.try_clone()?;
    write(file.as_fd(), b"-1000")?;
    PROC.store(kept.into_raw_fd(), Ordering::Relaxed);
    Ok(())
}

/// In a child that has not executed its program yet: makes it count like any process. System calls only.
pub fn count_again() {
    let proc = PROC.load(Ordering::Relaxed);
    if proc < 0 {
        return;
    }
    // SAFETY: plain system calls on a descriptor that stays open, C strings and a buffer that live on. A failure leaves the
    // child spared, which harms nobody who has memory.
    unsafe {
        let path = c"self/oom_score_adj".as_ptr();
        if let Ok(file) = check(libc::openat(proc, path, libc::O_WRONLY | libc::O_CLOEXEC)) {
            libc::write(file, c"0".as_ptr().cast(), 1);
            libc::close(file);
        }
    }
}
