//! Files that grow, and descriptors, followed until the host has had enough. Each has a thread that waits for the kernel's
//! word: nothing is looked at again and again.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use super::files::{Target, aside};
use super::interrupt::Working;
use super::ops::Shared;
use super::out::{Out, Piece, refusal};
use super::sys::{self, c_string, check, check_count};
use crate::agent_protocol::{OpError, TailSource, TailStart, ToHost};

/// Follows a file: `Done` once it is open, then `Data` until the request is given up. `proc` is a `/proc`, where there is one.
///
/// # Errors
/// When no thread can be had.
pub fn tail(
    shared: &Arc<Shared>,
    request: u32,
    source: TailSource,
    start: TailStart,
    proc: Option<OwnedFd>,
) -> Result<(), OpError> {
    let target = match &source {
        TailSource::Path(path) => Target::path("tail_file", path),
        TailSource::Descriptor(fd) => Target::descriptor("tail_stream", *fd),
    };
    let opened = match &source {
        TailSource::Path(_) => None,
        // Before anything else can close that number.
        TailSource::Descriptor(fd) => Some(sys::duplicate(*fd).map_err(|error| target.refuse(&error))?),
    };
    let mine = Target { op: target.op, subject: target.subject.clone() };
    aside(shared, request, &target, move |working, out| {
        let refuse = |error: io::Error| mine.refuse(&error);
        let file = match opened {
            Some(file) => file,
            None => open(&mine.subject).map_err(refuse)?,
        };
        let stat = sys::fstat(file.as_fd()).map_err(refuse)?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => Err(refuse(io::Error::from_raw_os_error(libc::EISDIR))),
            libc::S_IFREG => {
                let growth = watch(&file, proc).map_err(|error| no_watch(&mine, &error))?;
                let offset = beginning(&file, start, stat.st_size).map_err(refuse)?;
                let followed = Grown { file, offset, size: stat.st_size };
                out.done(request);
                followed.send(request, &growth, working, out).map_err(refuse)
            }
            _ => {
                out.done(request);
                pass_on(&file, request, working, out).map_err(refuse)
            }
        }
    })
}

/// Passes on what can be read from a descriptor: `Done`, then `Data`, at its end `Ended`.
///
/// # Errors
/// A bad descriptor; when no thread can be had.
pub fn fd_stream(shared: &Arc<Shared>, request: u32, fd: i32) -> Result<(), OpError> {
    let target = Target::descriptor("fd_stream", fd);
    // A copy: closing the number does not end the stream.
    let file = sys::duplicate(fd).map_err(|error| target.refuse(&error))?;
    let stat = sys::fstat(file.as_fd()).map_err(|error| target.refuse(&error))?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(target.refuse(&io::Error::from_raw_os_error(libc::EISDIR)));
    }
    // SAFETY: fcntl on an open descriptor.
    let flags = check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) });
    if flags.map_err(|error| target.refuse(&error))? & libc::O_ACCMODE == libc::O_WRONLY {
        return Err(target.refuse(&io::Error::from_raw_os_error(libc::EBADF)));
    }
    let mine = Target::descriptor("fd_stream", fd);
    aside(shared, request, &target, move |working, out| {
        out.done(request);
        pass_on(&file, request, working, out).map_err(|error| mine.refuse(&error))
    })
}

/// Opens a file to be followed. A FIFO is opened for writing as well: it then never ends, and opening it waits for nobody.
fn open(path: &[u8]) -> io::Result<OwnedFd> {
    let fifo = sys::stat(path, true)?.st_mode & libc::S_IFMT == libc::S_IFIFO;
    let both = if fifo { sys::open(path, libc::O_RDWR | libc::O_NONBLOCK, 0).ok() } else { None };
    both.map_or_else(|| sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0), Ok)
}

fn no_watch(target: &Target, error: &io::Error) -> OpError {
    let detail = match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel can't tell that a file grows (CONFIG_INOTIFY_USER)",
        _ => "the file can't be watched",
    };
    refusal(target.op, &target.subject, error, detail)
}

/// A descriptor that is readable whenever `file` was modified. Whatever its path has become: it is named by its descriptor.
fn watch(file: &OwnedFd, proc: Option<OwnedFd>) -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor or fails.
    let growth = unsafe { OwnedFd::from_raw_fd(check(libc::inotify_init1(libc::IN_CLOEXEC))?) };
    let add = |path: &CStr| {
        // SAFETY: an open descriptor, and a C string that lives during the call.
        check(unsafe { libc::inotify_add_watch(growth.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) })
    };
    let name = format!("self/fd/{}", file.as_raw_fd());
    match proc {
        // The guest may have no `/proc`, or another one: this thread alone moves to the agent's own.
        // SAFETY: no preconditions; an open descriptor.
        Some(proc) if unsafe { libc::unshare(libc::CLONE_FS) == 0 && libc::fchdir(proc.as_raw_fd()) == 0 } => {
            add(&c_string(name.as_bytes())?)?
        }
        _ => add(&c_string(format!("/proc/{name}").as_bytes())?)?,
    };
    Ok(growth)
}

fn beginning(file: &OwnedFd, start: TailStart, size: i64) -> io::Result<i64> {
    Ok(match start {
        TailStart::Beginning => 0,
        TailStart::End => size,
        TailStart::Offset(offset) if offset < 0 => size.saturating_add(offset).max(0),
        TailStart::Offset(offset) => offset,
        // SAFETY: an open descriptor.
        TailStart::Current => match unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) } {
            at if at < 0 => return Err(io::Error::last_os_error()),
            at => at,
        },
    })
}

/// A regular file and how far it was sent.
struct Grown {
    file: OwnedFd,
    offset: i64,
    /// Its size when it was looked at last.
    size: i64,
}

impl Grown {
    /// Sends what is there, then waits for more; for ever.
    fn send(mut self, request: u32, growth: &OwnedFd, working: &Working, out: &Out) -> io::Result<()> {
        let mut piece = Piece::new();
        let mut events = vec![0; 4096];
        loop {
            let size = sys::fstat(self.file.as_fd())?.st_size;
            if size < self.size && size < self.offset {
                self.offset = 0;
            }
            self.size = size;
            loop {
                let room = piece.room(u64::MAX);
                let count = working.retry(|| {
                    let fd = self.file.as_raw_fd();
                    // SAFETY: the pointer and length are those of `room`.
                    check_count(unsafe { libc::pread(fd, room.as_mut_ptr().cast(), room.len(), self.offset) })
                })?;
                if count == 0 {
                    break;
                }
                if out.send_piece(request, &mut piece, count).is_err() {
                    return Ok(());
                }
                self.offset += i64::try_from(count).unwrap_or_default();
            }
            // What was written since the last look stands in the queue already.
            working.retry(|| sys::read_once(growth.as_fd(), &mut events))?;
        }
    }
}

/// Sends what can be read up to the end, then `Ended`.
fn pass_on(file: &OwnedFd, request: u32, working: &Working, out: &Out) -> io::Result<()> {
    let mut piece = Piece::new();
    loop {
        let room = piece.room(u64::MAX);
        match working.retry(|| sys::read_once(file.as_fd(), room)) {
            Ok(0) => break,
            Ok(count) => {
                if out.send_piece(request, &mut piece, count).is_err() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                working.retry(|| sys::poll_once(file.as_fd(), libc::POLLIN, -1))?;
            }
            // So a pseudo-terminal says that the last program at its other end is gone.
            Err(error) if error.raw_os_error() == Some(libc::EIO) && is_terminal(file) => break,
            Err(error) => return Err(error),
        }
    }
    let _ = out.send(request, &ToHost::Ended);
    Ok(())
}

fn is_terminal(file: &OwnedFd) -> bool {
    // SAFETY: an open descriptor.
    unsafe { libc::isatty(file.as_raw_fd()) == 1 }
}
