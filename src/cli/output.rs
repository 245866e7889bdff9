//! Writing a command's result to standard output.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::error::CommandError;
use crate::foundation::path_error::describe_io;

/// Writes all of `bytes`. A reader that has gone (`provium … | head`) is no error.
///
/// # Errors
/// Any other failure, of the environment's family.
pub fn print(bytes: impl AsRef<[u8]>) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CommandError::environment(format!("can't write to standard output: {}", describe_io(&error))))
        }
        _ => Ok(()),
    }
}

/// Takes standard output for the event stream alone: what tests start (`os.execute`) and libraries print goes to standard
/// error from now on.
///
/// # Errors
/// A process without descriptors to spare, or without standard error.
pub fn reserve_stdout() -> Result<File, CommandError> {
    let failed = |error: std::io::Error| {
        CommandError::environment(format!("can't keep standard output for events: {}", describe_io(&error)))
    };
    let stdout = std::io::stdout().lock();
    // SAFETY: duplicates a descriptor of this process; the new one is owned by nobody else, and closed in children.
    let kept = unsafe {
        match libc::fcntl(stdout.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) {
            -1 => return Err(failed(std::io::Error::last_os_error())),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    // SAFETY: both are descriptors by number; the lock keeps this process from writing meanwhile.
    if unsafe { libc::dup2(libc::STDERR_FILENO, stdout.as_raw_fd()) } < 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    Ok(File::from(kept))
}
