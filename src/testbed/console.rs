//! One console of a guest: always read, kept whole, handed to whoever listens.
//!
//! A console that nobody reads freezes the guest, so a task takes everything at once. Whoever wants to know what was said
//! so far takes what is under way first: what QEMU has written is never missed.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::stream::{ByteStream, StreamError};
use crate::foundation::path_error::{PathContext, PathError};
use crate::qemu::console::{self, LineScanner, Omen};

/// How much is read from QEMU at once, in bytes.
const READ: usize = 64 * 1024;
/// How often it is read before others have their turn.
const READS: usize = 32;
/// How far back `expect` looks, in bytes.
const LOOK_BACK: u64 = 64 * 1024 * 1024;
/// How much of what came last an error shows, in bytes.
const SHOWN: usize = 200;
/// The first pause and the longest between two looks whether QEMU has taken what was written.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LATER_LOOKS: Duration = Duration::from_millis(20);

/// How long a typist whom the console never lets be waits at most, in silences.
const MOST_SILENCES: u32 = 10;

/// One of the guest's consoles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsolePort {
    /// `ttyS0` (`ttyAMA0` on aarch64), from the first byte of firmware.
    Serial,
    /// `hvc0`.
    Virtio,
}

impl ConsolePort {
    /// As x86 guests and the Lua API name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial => "ttyS0",
            Self::Virtio => "hvc0",
        }
    }
}

/// What a console has said so far, as far as others act upon it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Bytes.
    pub length: u64,
    /// QEMU has closed it.
    pub ended: bool,
    /// Why the agent can't serve, line by line.
    pub complaints: Vec<String>,
    /// The kernel's line of a panic.
    pub panic: Option<String>,
}

struct Inner {
    log: File,
    scanner: LineScanner,
    readers: Vec<Arc<ByteStream>>,
    /// Where the next `expect` begins.
    cursor: u64,
    /// When it said something last.
    spoke: Option<Instant>,
}

/// A console.
pub struct Console {
    /// Tells when there is something to read.
    stream: UnixStream,
    /// The same socket, for reads that do not rely on having been told.
    socket: std::os::unix::net::UnixStream,
    path: PathBuf,
    inner: Mutex<Inner>,
    heard: watch::Sender<Heard>,
    writing: tokio::sync::Mutex<()>,
}

/// Why a console did not take what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteError {
    /// The guest does not read.
    Full,
    /// QEMU is gone.
    Ended,
}

impl Console {
    /// The console behind `stream`; what it says is kept in `path`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A log that can't be created, a stream that can't be used.
    pub fn open(stream: std::os::unix::net::UnixStream, path: PathBuf) -> Result<Arc<Self>, PathError> {
        let log = File::options().read(true).write(true).create(true).truncate(true).open(&path).at("create", &path)?;
        let socket = stream.try_clone().at("use the console of", &path)?;
        let stream = UnixStream::from_std(stream).at("use the console of", &path)?;
        let inner = Inner { log, scanner: LineScanner::default(), readers: Vec::new(), cursor: 0, spoke: None };
        let console = Arc::new(Self {
            stream,
            socket,
            path,
            inner: Mutex::new(inner),
            heard: watch::Sender::new(Heard::default()),
            writing: tokio::sync::Mutex::new(()),
        });
        tokio::spawn(follow(Arc::clone(&console)));
        Ok(console)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what QEMU has written, up to a bound.
    fn take(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner();
        // That there is nothing more is no error here.
        let _ = self.read(&mut inner);
        inner
    }

    /// Reads until there is nothing more (`WouldBlock`), the end has come, or others should have their turn.
    fn read(&self, inner: &mut Inner) -> std::io::Result<()> {
        let mut buffer = [0; READ];
        for _ in 0..READS {
            match (&self.socket).read(&mut buffer) {
                Ok(count @ 1..) => self.keep(inner, &buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
                Ok(0) | Err(_) => {
                    self.end(inner);
                    break;
                }
            }
        }
        Ok(())
    }

    fn keep(&self, inner: &mut Inner, bytes: &[u8]) {
        // A full disk loses the log, not the guest.
        let kept = inner.log.write_all(bytes).is_ok();
        let omens = inner.scanner.look(bytes);
        inner.spoke = Some(Instant::now());
        inner.readers.retain(|reader| reader.push(bytes.to_vec()));
        self.heard.send_modify(|heard| {
            if kept {
                heard.length += bytes.len() as u64;
            }
            for omen in omens {
                match omen {
                    // The first one tells the cause.
                    Omen::Panic(line) => drop(heard.panic.get_or_insert(line)),
                    Omen::Complaint(line) => heard.complaints.push(line),
                }
            }
        });
    }

    fn end(&self, inner: &mut Inner) {
        for reader in inner.readers.drain(..) {
            reader.end(Ok(()));
        }
        self.heard.send_if_modified(|heard| !std::mem::replace(&mut heard.ended, true));
    }

    /// What it has said, as it grows.
    pub fn heard(&self) -> watch::Receiver<Heard> {
        self.heard.subscribe()
    }

    /// What it has said so far.
    pub fn heard_now(&self) -> Heard {
        drop(self.take());
        self.heard.borrow().clone()
    }

    /// The line of a panic was none: the guest goes on.
    pub fn forget_panic(&self) {
        self.heard.send_if_modified(|heard| heard.panic.take().is_some());
    }

    /// A new boot begins here.
    pub fn begin_anew(&self) {
        let mut inner = self.take();
        self.heard.send_modify(|heard| {
            heard.panic = None;
            heard.complaints.clear();
        });
        inner.cursor = self.heard.borrow().length;
    }

    /// The file with everything it has said so far.
    pub fn log(&self) -> &Path {
        drop(self.take());
        &self.path
    }

    /// Everything it has said so far.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn read_log(&self) -> Result<Vec<u8>, PathError> {
        let path = self.log();
        std::fs::read(path).at("read", path)
    }

    /// The end of what it has said so far, as text.
    pub fn tail(&self, bytes: usize) -> Option<String> {
        console::tail(self.log(), bytes).ok()
    }

    /// A stream of what it says from now on.
    pub fn listen(&self) -> Arc<ByteStream> {
        let mut inner = self.take();
        let stream = Arc::new(ByteStream::new());
        if self.heard.borrow().ended {
            stream.end(Ok(()));
        } else {
            inner.readers.push(Arc::clone(&stream));
        }
        stream
    }

    /// Waits until `find` says where in the unread bytes its match ends, and reads up to there. All that was not read by an
    /// earlier call is looked at, from this boot's first byte.
    ///
    /// # Errors
    /// A time-out, the console's end, a `find` that fails; then nothing was read.
    pub async fn expect(
        &self,
        timeout: Duration,
        find: impl FnMut(&[u8]) -> Result<Option<usize>, String>,
    ) -> Result<(), StreamError> {
        let end = self.search(timeout, find).await?;
        self.read_up_to(end);
        Ok(())
    }

    /// What lies before `end` in the log was read.
    pub fn read_up_to(&self, end: u64) {
        let mut inner = self.inner();
        inner.cursor = inner.cursor.max(end);
    }

    /// As `expect`, but reads nothing: returns where in the log the match ends.
    ///
    /// # Errors
    /// As `expect`.
    pub async fn search(
        &self,
        timeout: Duration,
        mut find: impl FnMut(&[u8]) -> Result<Option<usize>, String>,
    ) -> Result<u64, StreamError> {
        let deadline = Instant::now().checked_add(timeout);
        let mut heard = self.heard();
        let mut unread = Vec::new();
        let from = {
            let inner = self.take();
            inner.cursor.max(self.heard.borrow().length.saturating_sub(LOOK_BACK))
        };
        loop {
            // Before the look: what comes after it wakes this again.
            let ended = heard.borrow_and_update().ended;
            self.read_from(from, &mut unread).map_err(|error| StreamError::Failed(error.to_string()))?;
            if let Some(end) = find(&unread).map_err(StreamError::Matcher)? {
                return Ok(from + end as u64);
            }
            let last = || unread[unread.len().saturating_sub(SHOWN)..].to_vec();
            if ended {
                return Err(StreamError::Ended { last: last() });
            }
            let changed = heard.changed();
            let in_time = match deadline {
                None => changed.await.is_ok(),
                Some(deadline) => matches!(tokio::time::timeout_at(deadline, changed).await, Ok(Ok(()))),
            };
            if !in_time {
                return Err(StreamError::TimedOut { waited: timeout, last: last() });
            }
        }
    }

    /// Appends what the log holds behind `from` and `unread`.
    fn read_from(&self, from: u64, unread: &mut Vec<u8>) -> Result<(), PathError> {
        let at = from + unread.len() as u64;
        let length = self.heard.borrow().length;
        let mut file = File::open(&self.path).at("open", &self.path)?;
        file.seek(SeekFrom::Start(at)).at("read", &self.path)?;
        file.take(length.saturating_sub(at)).read_to_end(unread).at("read", &self.path).map(drop)
    }

    /// Writes all of `bytes` and waits until QEMU has taken them, which it does as the guest's device has room. Begins once
    /// the console was silent for `silence`, as somebody does who reads a prompt before typing: many programs prompt first,
    /// and only then switch off the echo and drop what was typed before.
    ///
    /// # Errors
    /// A guest that does not read in time (what was written stays under way), a QEMU that is gone.
    pub async fn write(&self, bytes: &[u8], silence: Duration, timeout: Duration) -> Result<(), WriteError> {
        let work = async {
            let _one_at_a_time = self.writing.lock().await;
            self.wait_for_silence(silence).await;
            let mut rest = bytes;
            while !rest.is_empty() {
                self.stream.writable().await.map_err(|_| WriteError::Ended)?;
                match self.stream.try_write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    Err(_) => return Err(WriteError::Ended),
                }
            }
            // Nothing tells when the other end of a socket has read.
            let mut pause = FIRST_LOOK;
            while self.under_way() {
                if self.heard.borrow().ended {
                    return Err(WriteError::Ended);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LATER_LOOKS);
            }
            Ok(())
        };
        tokio::time::timeout(timeout, work).await.unwrap_or(Err(WriteError::Full))
    }

    async fn wait_for_silence(&self, silence: Duration) {
        let patience = Instant::now() + silence * MOST_SILENCES;
        loop {
            let spoke = self.take().spoke;
            let until = spoke.map_or(patience, |spoke| spoke + silence).min(patience);
            if spoke.is_none() || until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Whether QEMU has not read yet all that was written.
    fn under_way(&self) -> bool {
        let mut count: libc::c_int = 0;
        // SAFETY: the descriptor is open, and the call fills one integer.
        let result = unsafe { libc::ioctl(self.stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
        result == 0 && count > 0
    }
}

async fn follow(console: Arc<Console>) {
    while console.stream.readable().await.is_ok() {
        // What would block must be known to tokio, or it says at once again that there is something.
        let _ = console.stream.try_io(tokio::io::Interest::READABLE, || console.read(&mut console.inner()));
        if console.heard.borrow().ended {
            return;
        }
        tokio::task::yield_now().await;
    }
    let mut inner = console.inner();
    console.end(&mut inner);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SILENCE: Duration = Duration::from_millis(20);

    fn find(needle: &'static str) -> impl FnMut(&[u8]) -> Result<Option<usize>, String> {
        move |bytes| Ok(memchr::memmem::find(bytes, needle.as_bytes()).map(|at| at + needle.len()))
    }

    fn console() -> (Arc<Console>, std::os::unix::net::UnixStream, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Console::open(ours, dir.path().join("log")).unwrap(), theirs, dir)
    }

    #[tokio::test]
    async fn everything_is_kept_and_nothing_under_way_is_missed() {
        let (console, mut guest, _dir) = console();
        guest.write_all(b"first\xff\n").unwrap();
        assert_eq!(console.read_log().unwrap(), b"first\xff\n");
        let stream = console.listen();
        guest.write_all(b"second\n").unwrap();
        assert_eq!(stream.next(LONG).await.unwrap().unwrap(), b"second\n");
        assert_eq!(console.tail(100).unwrap(), "first\u{fffd}\nsecond\n");
        drop(guest);
        assert_eq!(stream.next(LONG).await.unwrap(), None);
        assert!(console.heard_now().ended);
        assert!(console.listen().at_end());
    }

    #[tokio::test]
    async fn expect_reads_up_to_its_match() {
        let (console, mut guest, _dir) = console();
        guest.write_all(b"a login: b login: ").unwrap();
        console.expect(LONG, find("login:")).await.unwrap();
        console.expect(LONG, find("login:")).await.unwrap();
        let error = console.expect(Duration::ZERO, find("login:")).await.unwrap_err();
        assert_eq!(error, StreamError::TimedOut { waited: Duration::ZERO, last: b" ".to_vec() });
        let waiting = tokio::spawn({
            let console = Arc::clone(&console);
            async move { console.expect(LONG, find("login:")).await }
        });
        tokio::task::yield_now().await;
        guest.write_all(b"log").unwrap();
        guest.write_all(b"in:").unwrap();
        waiting.await.unwrap().unwrap();
        console.begin_anew();
        drop(guest);
        let error = console.expect(LONG, find("login:")).await.unwrap_err();
        assert_eq!(error, StreamError::Ended { last: Vec::new() });
    }

    #[tokio::test]
    async fn a_write_waits_for_a_silence_but_not_for_ever() {
        let (console, mut guest, _dir) = console();
        guest.write_all(b"Password: ").unwrap();
        let mut reader = guest.try_clone().unwrap();
        let reading = std::thread::spawn(move || reader.read_exact(&mut [0]));
        let begun = Instant::now();
        console.write(b"x", SILENCE, LONG).await.unwrap();
        assert!(begun.elapsed() >= SILENCE);
        reading.join().unwrap().unwrap();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let talker = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    guest.write_all(b".").unwrap();
                }
                guest.read_exact(&mut [0]).unwrap();
            }
        });
        tokio::time::timeout(LONG, console.wait_for_silence(SILENCE)).await.unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        console.write(b"x", SILENCE, LONG).await.unwrap();
        talker.join().unwrap();
    }

    #[tokio::test]
    async fn a_write_waits_until_it_is_taken() {
        let (console, mut guest, _dir) = console();
        let full = console.write(b"abc", SILENCE, Duration::from_millis(50)).await;
        assert_eq!(full, Err(WriteError::Full));
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; 6];
            guest.read_exact(&mut buffer).unwrap();
            (buffer, guest)
        });
        console.write(b"def", SILENCE, LONG).await.unwrap();
        let (buffer, guest) = reading.join().unwrap();
        assert_eq!(&buffer, b"abcdef");
        drop(guest);
        // What is written before the end is noticed is taken by nobody.
        let ended = async {
            while console.write(b"x", SILENCE, LONG).await.is_ok() {
                tokio::task::yield_now().await;
            }
            console.write(b"x", SILENCE, LONG).await
        };
        assert_eq!(tokio::time::timeout(LONG, ended).await.unwrap(), Err(WriteError::Ended));
    }

    #[tokio::test]
    async fn omens_are_told() {
        let (console, mut guest, _dir) = console();
        guest.write_all(b"provium-agent: fatal: no port\r\nKernel panic - not syncing: x\r\n").unwrap();
        let heard = console.heard_now();
        assert_eq!(heard.complaints, ["no port"]);
        assert_eq!(heard.panic.as_deref(), Some("Kernel panic - not syncing: x"));
        console.forget_panic();
        assert_eq!(console.heard_now().panic, None);
        console.begin_anew();
        assert!(console.heard_now().complaints.is_empty());
    }
}
