//! Waiting inside the guest: for a time, a file, a port. Each wait has a thread of its own, with the ops thread's view of the
//! guest, so that nothing else is held up.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::network;
use super::ops::Shared;
use super::out::{Out, refusal};
use super::sys::{self, c_string, check};
use super::watchers::Follow;
use super::{disks, uevents};
use crate::agent_protocol::{OpError, ToHost, WaitFor};

/// The kernel does not tell when a port is listened on: this often it is looked for.
const PORT_INTERVAL: Duration = Duration::from_millis(50);
/// What inotify does not tell (a mount, a file of sysfs, the target of a link) is seen this often.
const FILE_INTERVAL: Duration = Duration::from_millis(200);
/// Without inotify.
const BLIND_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until `what` is so; `proc` is a `/proc`. `Done` follows.
///
/// # Errors
/// No thread can be had.
pub fn wait(request: u32, what: WaitFor, proc: Option<OwnedFd>, shared: &Arc<Shared>) -> Result<(), OpError> {
    match what {
        WaitFor::File(path) => {
            let subject = path.clone();
            start(request, shared, "wait_for_file", &subject, move |pause| wait_for_file(&path, pause))
        }
        WaitFor::Port(port) => start(request, shared, "wait_for_port", port.to_string().as_bytes(), move |pause| {
            while !is_listened_on(port, proc.as_ref())? {
                if !pause.elapse(PORT_INTERVAL, None)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }),
        WaitFor::Card(card) => {
            let [a, b, c, d, e, f] = card.mac;
            let subject = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            start(request, shared, "nic", subject.as_bytes(), move |pause| network::set_up(&card, proc.as_ref(), pause))
        }
        WaitFor::Disk(serial) => {
            let (subject, whole) = (serial.clone(), Arc::clone(shared));
            start(request, shared, "disk", &subject, move |pause| wait_for_disk(&serial, whole.sysfs.as_ref(), pause))
        }
    }
}

/// Lets a time pass. `Done` follows.
///
/// # Errors
/// No thread can be had.
pub fn sleep(request: u32, nanoseconds: u64, shared: &Arc<Shared>) -> Result<(), OpError> {
    start(request, shared, "sleep", b"", move |pause| pause.elapse(Duration::from_nanos(nanoseconds), None))
}

/// Runs `body` on a thread; it returns whether what was waited for has come, else the request was given up.
fn start(
    request: u32,
    shared: &Arc<Shared>,
    op: &'static str,
    subject: &[u8],
    body: impl FnOnce(&Pause) -> io::Result<bool> + Send + 'static,
) -> Result<(), OpError> {
    let refused = |error: io::Error| refusal(op, subject, &error, "");
    let (result, told) = sys::pipe().map_err(refused)?;
    let wait = Wait { result, op, subject: subject.to_owned() };
    shared.watchers.add(request, Box::new(wait)).map_err(refused)?;
    let spawned = std::thread::Builder::new().name("wait".to_owned()).stack_size(256 * 1024).spawn(move || {
        let pause = Pause { told };
        let errno = match body(&pause) {
            Ok(true) => 0,
            Ok(false) => return,
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        // A request that was given up has no reader.
        let _ = sys::write(pause.told.as_fd(), &errno.to_le_bytes());
    });
    spawned.map(drop).map_err(|error| {
        shared.watchers.remove(request);
        refused(error)
    })
}

/// The I/O thread's end of a wait.
struct Wait {
    result: OwnedFd,
    op: &'static str,
    subject: Vec<u8>,
}

impl Follow for Wait {
    fn fd(&self) -> BorrowedFd<'_> {
        self.result.as_fd()
    }

    fn ready(&mut self, request: u32, out: &Out) -> io::Result<bool> {
        let mut errno = [0; 4];
        let errno = match sys::read(self.result.as_fd(), &mut errno) {
            Ok(4) => i32::from_le_bytes(errno),
            _ => libc::EIO,
        };
        let message = match errno {
            0 => ToHost::Done,
            errno => ToHost::Failed(refusal(self.op, &self.subject, &io::Error::from_raw_os_error(errno), "")),
        };
        out.send(request, &message)?;
        Ok(false)
    }
}

/// The waiting thread's end: the pipe is broken once the request was given up.
pub(super) struct Pause {
    told: OwnedFd,
}

impl Pause {
    /// Waits for `time`, or until `also` is readable. False once the request was given up.
    pub(super) fn elapse(&self, time: Duration, also: Option<&OwnedFd>) -> io::Result<bool> {
        let mut entries = [
            libc::pollfd { fd: self.told.as_raw_fd(), events: 0, revents: 0 },
            libc::pollfd { fd: also.map_or(-1, AsRawFd::as_raw_fd), events: libc::POLLIN, revents: 0 },
        ];
        let end = std::time::Instant::now().checked_add(time);
        loop {
            let left = end.map_or(time, |end| end.saturating_duration_since(std::time::Instant::now()));
            let timeout = libc::timespec {
                tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            // SAFETY: two entries, and their count is two; no mask.
            let result = unsafe { libc::ppoll(entries.as_mut_ptr(), 2, &raw const timeout, std::ptr::null()) };
            match check(result) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(entries[0].revents & libc::POLLERR == 0),
            }
        }
    }
}

fn wait_for_disk(serial: &[u8], sysfs: Option<&OwnedFd>, pause: &Pause) -> io::Result<bool> {
    // Opened before the look: nothing is missed. A kernel without netlink is asked again and again.
    let announcements = uevents::open().ok();
    while disks::find(serial, sysfs)?.is_none() {
        let announced = match &announcements {
            Some(socket) => sys::poll_one(socket.as_fd(), libc::POLLIN, 0)? != 0,
            None => false,
        };
        if let (true, Some(socket)) = (announced, &announcements) {
            uevents::wait(socket)?;
        } else if !pause.elapse(FILE_INTERVAL, announcements.as_ref())? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn wait_for_file(path: &[u8], pause: &Pause) -> io::Result<bool> {
    let wanted = c_string(path)?;
    loop {
        // A watch on the nearest directory that is there, made before the look: nothing is missed.
        let watch = nearest_directory(path).and_then(|directory| watch_directory(&directory).ok());
        // SAFETY: `wanted` is a C string.
        if unsafe { libc::access(wanted.as_ptr(), libc::F_OK) } == 0 {
            return Ok(true);
        }
        let interval = if watch.is_some() { FILE_INTERVAL } else { BLIND_INTERVAL };
        if !pause.elapse(interval, watch.as_ref())? {
            return Ok(false);
        }
    }
}

fn nearest_directory(path: &[u8]) -> Option<Vec<u8>> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    path.ancestors().skip(1).find(|above| above.is_dir()).map(|above| above.as_os_str().as_bytes().to_vec())
}

fn watch_directory(directory: &[u8]) -> io::Result<OwnedFd> {
    let events = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ATTRIB | libc::IN_DELETE_SELF | libc::IN_MOVE_SELF;
    let directory = if directory.is_empty() { c_string(b".")? } else { c_string(directory)? };
    // SAFETY: makes a new descriptor or fails.
    let watch = unsafe { OwnedFd::from_raw_fd(check(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK))?) };
    // SAFETY: an open descriptor and a C string.
    check(unsafe { libc::inotify_add_watch(watch.as_raw_fd(), directory.as_ptr(), events | libc::IN_ONLYDIR) })?;
    Ok(watch)
}

/// Whether a socket of this network namespace listens on a TCP port, of IPv4 or of IPv6.
fn is_listened_on(port: u16, proc: Option<&OwnedFd>) -> io::Result<bool> {
    for name in ["thread-self/net/tcp", "thread-self/net/tcp6"] {
        let table = match proc {
            Some(proc) => sys::openat(proc.as_raw_fd(), &c_string(name.as_bytes())?, libc::O_RDONLY, 0),
            None => sys::open(format!("/proc/{name}").as_bytes(), libc::O_RDONLY, 0),
        };
        let table = match table {
            Ok(table) => table,
            // A kernel without IPv6.
            Err(error) if name.ends_with('6') && error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        if listeners(&read_all(&table)?).any(|listener| listener == port) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read_all(file: &OwnedFd) -> io::Result<String> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match sys::read(file.as_fd(), &mut buffer)? {
            0 => return Ok(String::from_utf8_lossy(&all).into_owned()),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

/// The ports that are listened on, of a table like `/proc/net/tcp`.
fn listeners(table: &str) -> impl Iterator<Item = u16> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _, state) = (words.next()?, words.next()?, words.next()?);
        if state != LISTEN {
            return None;
        }
        u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0\n   \
                     1: 0100007F:0016 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4\n   \
                     2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 3\nshort\n";
        assert_eq!(listeners(table).collect::<Vec<_>>(), [8080, 80]);
    }

    #[test]
    fn a_file_is_waited_for_through_missing_directories() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        let (_result, told) = sys::pipe().unwrap();
        let wanted = path.clone();
        let thread = std::thread::spawn(move || wait_for_file(wanted.as_os_str().as_bytes(), &Pause { told }).unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"").unwrap();
        assert!(thread.join().unwrap());
    }

    #[test]
    fn a_wait_that_is_given_up_ends() {
        let (result, told) = sys::pipe().unwrap();
        let thread = std::thread::spawn(move || wait_for_file(b"/no/such/file", &Pause { told }).unwrap());
        drop(result);
        assert!(!thread.join().unwrap());
    }
}
