//! System calls as functions that return `io::Result`.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The result of a call that returns −1 and errno.
///
/// # Errors
/// errno.
pub fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Bytes as a C string; a NUL inside is an `InvalidInput`, which the kernel would say as well.
///
/// # Errors
/// A NUL inside.
pub fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// `openat`; always with `O_CLOEXEC`, and never as the agent's controlling terminal.
///
/// # Errors
/// errno.
pub fn openat(dir: RawFd, path: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: `path` is a C string that lives during the call.
    let fd = check(unsafe { libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC | libc::O_NOCTTY, mode) })?;
    // SAFETY: the call just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a path of bytes.
///
/// # Errors
/// errno.
pub fn open(path: &[u8], flags: i32, mode: u32) -> io::Result<OwnedFd> {
    openat(libc::AT_FDCWD, &c_string(path)?, flags, mode)
}

/// A pipe: the end to read from, the end to write to. Both close on exec.
///
/// # Errors
/// errno.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for both descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the call just made both.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Makes reads and writes of a descriptor return `EAGAIN` instead of waiting.
///
/// # Errors
/// errno.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: fcntl on a descriptor that is open.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// A count, or the −1 of a call that failed.
///
/// # Errors
/// errno.
pub fn check_count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Makes `call` again for as long as a signal interrupts it.
fn whatever_signals_come<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads once. 0 means the end.
///
/// # Errors
/// errno; never `EINTR`.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    whatever_signals_come(|| read_once(fd, buffer))
}

/// As [`read`], but a signal interrupts it.
///
/// # Errors
/// errno.
pub fn read_once(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of `buffer`.
    check_count(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// Writes once.
///
/// # Errors
/// errno; never `EINTR`.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    whatever_signals_come(|| write_once(fd, bytes))
}

/// As [`write()`], but a signal interrupts it.
///
/// # Errors
/// errno.
pub fn write_once(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of `bytes`.
    check_count(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// Waits until `fd` has one of `events`.
///
/// # Errors
/// errno; never `EINTR`.
pub fn poll_one(fd: BorrowedFd<'_>, events: i16, timeout_ms: i32) -> io::Result<i16> {
    whatever_signals_come(|| poll_once(fd, events, timeout_ms))
}

/// As [`poll_one`], but a signal interrupts it.
///
/// # Errors
/// errno.
pub fn poll_once(fd: BorrowedFd<'_>, events: i16, timeout_ms: i32) -> io::Result<i16> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry, and its count is one.
    check(unsafe { libc::poll(&raw mut entry, 1, timeout_ms) }).map(|_| entry.revents)
}

/// A copy of a descriptor that somebody else owns, named by its number.
///
/// # Errors
/// `EBADF`.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: any number may be tried; the new descriptor is ours.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3))?)) }
}

/// Metadata of an open descriptor.
///
/// # Errors
/// errno.
pub fn fstat(fd: BorrowedFd<'_>) -> io::Result<libc::stat> {
    // SAFETY: stat is plain data to be filled.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstat(fd.as_raw_fd(), &raw mut stat))?;
        Ok(stat)
    }
}

/// Metadata of a path; `follow` says whether a symbolic link at its end is followed.
///
/// # Errors
/// errno.
pub fn stat(path: &[u8], follow: bool) -> io::Result<libc::stat> {
    let path = c_string(path)?;
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    // SAFETY: stat is plain data to be filled; `path` lives during the call.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstatat(libc::AT_FDCWD, path.as_ptr(), &raw mut stat, flags))?;
        Ok(stat)
    }
}

/// `mount` without data.
///
/// # Errors
/// errno.
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: all are C strings that live during the call; no data is passed.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) }).map(drop)
}

/// The kernel's release, `uname -r`.
pub fn kernel_release() -> String {
    // SAFETY: utsname is plain data, for which zeroes are a value.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `names` is a utsname to be filled.
    if unsafe { libc::uname(&raw mut names) } != 0 {
        return String::new();
    }
    // SAFETY: the kernel ends each field with a NUL.
    unsafe { CStr::from_ptr(names.release.as_ptr()) }.to_string_lossy().into_owned()
}

/// Nanoseconds since boot.
pub fn uptime_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec to be filled.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Sixteen bytes that differ from boot to boot: random where the kernel has random bytes already, else made of clocks.
pub fn nonce() -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: the pointer and length are those of `bytes`. GRND_NONBLOCK: an agent never waits for entropy.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if usize::try_from(count) != Ok(bytes.len()) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap_or_default();
        bytes[..8].copy_from_slice(&uptime_ns().to_le_bytes());
        bytes[8..].copy_from_slice(&wall.rotate_left(17).to_le_bytes());
    }
    bytes
}
