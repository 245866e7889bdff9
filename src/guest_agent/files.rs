//! The content of files in and out of the guest, in pieces.
//!
//! What can't block is done on the ops thread. Opening, reading and writing of what may (pipes, terminals, devices) has a
//! thread of its own, which starts with the ops thread's identity, root and working directory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::interrupt::Working;
use super::ops::Shared;
use super::out::{Out, Piece, refusal};
use super::sys::{self, check};
use crate::agent_protocol::{DATA_CHUNK, DATA_WINDOW, OpError, OpReply, OpenRequest, ToHost};

/// What one read of a pipe or device can give at most, in bytes.
const LARGEST_READ: u64 = 16 * 1024 * 1024;
/// After how many bytes the host gets a receipt.
const RECEIPT: usize = DATA_WINDOW / 4;

/// Vectors that were filled from the channel once and can be again: making new ones costs as much as filling them.
#[derive(Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// How many are kept: as many as the host sends ahead.
    const KEPT: usize = DATA_WINDOW / DATA_CHUNK;

    /// One of them, whatever is in it; else a new one.
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// It is not needed any more.
    fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < Self::KEPT && buffer.len() == DATA_CHUNK {
            kept.push(buffer);
        }
    }
}

/// Lets the I/O thread wait for the ops thread while content comes. Were both at work, every page that comes would interrupt
/// the writing of the one before; so the channel fills up meanwhile, and is emptied at one go.
#[derive(Default)]
pub struct Pace {
    /// Pieces that the ops thread was given and is not done with.
    pending: Mutex<usize>,
    done: Condvar,
}

impl Pace {
    /// How long the I/O thread waits: what blocks the ops thread for longer must not keep it from reading.
    const PATIENCE: Duration = Duration::from_millis(5);

    /// The ops thread is about to be given a piece.
    pub fn begin(&self) {
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    /// Waits until the ops thread is done with all pieces, within limits.
    pub fn wait(&self) {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.done.wait_timeout_while(pending, Self::PATIENCE, |pending| *pending > 0));
    }

    /// The ops thread is done with a piece.
    pub fn end(&self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending = pending.saturating_sub(1);
        self.done.notify_one();
    }
}

/// A file in use, and how errors name it.
pub struct Target {
    /// The operation.
    pub op: &'static str,
    /// Path or descriptor.
    pub subject: Vec<u8>,
}

impl Target {
    /// A file by its path.
    pub fn path(op: &'static str, path: &[u8]) -> Self {
        Self { op, subject: path.to_vec() }
    }

    /// A file by its descriptor.
    pub fn descriptor(op: &'static str, fd: i32) -> Self {
        Self { op, subject: format!("descriptor {fd}").into_bytes() }
    }

    /// The refusal for `error`.
    pub fn refuse(&self, error: &io::Error) -> OpError {
        refusal(self.op, &self.subject, error, "")
    }
}

/// Does `work` for `request` on a thread of its own. What it fails with goes to the host.
///
/// # Errors
/// When no thread can be had.
pub fn aside(
    shared: &Arc<Shared>,
    request: u32,
    target: &Target,
    work: impl FnOnce(&Working, &Out) -> Result<(), OpError> + Send + 'static,
) -> Result<(), OpError> {
    let mine = Arc::clone(shared);
    let started = shared.interrupts.spawn(request, target.op, move |working| {
        if let Err(error) = work(working, &mine.out)
            && !working.given_up()
        {
            mine.out.fail(request, error);
        }
    });
    started.map_err(|error| refusal(target.op, &target.subject, &error, "the agent can't start a thread"))
}

/// Whether opening, reading or writing `path` may block for long.
fn may_block(path: &[u8]) -> bool {
    sys::stat(path, true)
        .is_ok_and(|found| matches!(found.st_mode & libc::S_IFMT, libc::S_IFIFO | libc::S_IFCHR | libc::S_IFSOCK))
}

/// Whether reads and writes of a descriptor may block for long.
fn descriptor_may_block(file: &OwnedFd) -> io::Result<bool> {
    let kind = sys::fstat(file.as_fd())?.st_mode & libc::S_IFMT;
    Ok(!matches!(kind, libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK))
}

/// Opens a file for the host: answered with the descriptor.
///
/// # Errors
/// errno with the path.
pub fn open(shared: &Arc<Shared>, request: u32, wanted: OpenRequest, working: &Working) -> Result<(), OpError> {
    let target = Target::path("open_file", &wanted.path);
    let act = move |working: &Working, out: &Out| {
        let file = open_as_wanted(&wanted, working).map_err(|error| refusal("open_file", &wanted.path, &error, ""))?;
        // A host that does not want it any more closes it.
        out.reply(request, OpReply::Opened(file.into_raw_fd()));
        Ok(())
    };
    if may_block(&target.subject) { aside(shared, request, &target, act) } else { act(working, &shared.out) }
}

fn open_as_wanted(wanted: &OpenRequest, working: &Working) -> io::Result<OwnedFd> {
    let access = match (wanted.read, wanted.write || wanted.append) {
        (true, true) => libc::O_RDWR,
        (true, false) => libc::O_RDONLY,
        (false, true) => libc::O_WRONLY,
        (false, false) => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    let flag = |wanted, flag| if wanted { flag } else { 0 };
    let flags = access
        | flag(wanted.create || wanted.exclusive, libc::O_CREAT)
        | flag(wanted.exclusive, libc::O_EXCL)
        | flag(wanted.truncate, libc::O_TRUNC)
        | flag(wanted.append, libc::O_APPEND);
    // Exact permission bits: the umask belongs to this thread alone (CLONE_FS), and is put back.
    // SAFETY: no preconditions.
    let old = wanted.perm.map(|_| unsafe { libc::umask(0) });
    let opened = working.retry(|| sys::open(&wanted.path, flags, wanted.perm.unwrap_or(0o666)));
    if let Some(old) = old {
        // SAFETY: as above.
        unsafe { libc::umask(old) };
    }
    opened
}

/// Sends a whole file: `Data`, then `Done`.
///
/// # Errors
/// errno with the path.
pub fn read_whole(shared: &Arc<Shared>, request: u32, path: &[u8], working: &Working) -> Result<(), OpError> {
    let target = Target::path("read_file", path);
    if may_block(path) {
        let mine = Target::path("read_file", path);
        return aside(shared, request, &target, move |working, out| {
            let opened = working.retry(|| sys::open(&mine.subject, libc::O_RDONLY, 0));
            let file = opened.map_err(|error| mine.refuse(&error))?;
            Reading { file, target: mine, left: u64::MAX }.rest(request, working, out)
        });
    }
    let file = working.retry(|| sys::open(path, libc::O_RDONLY, 0)).map_err(|error| target.refuse(&error))?;
    Reading { file, target, left: u64::MAX }.begin(shared, request, working)
}

/// Sends `count` bytes of a descriptor's file, all where none are given; of what may block what one read gives. Then `Done`.
///
/// # Errors
/// errno with the descriptor.
pub fn read(shared: &Arc<Shared>, request: u32, fd: i32, count: Option<u64>, working: &Working) -> Result<(), OpError> {
    let target = Target::descriptor("read", fd);
    // The number may be closed and used again while a read blocks; a copy stays what it is.
    let file = sys::duplicate(fd).map_err(|error| target.refuse(&error))?;
    let blocks = descriptor_may_block(&file).map_err(|error| target.refuse(&error))?;
    let reading = Reading { file, target, left: count.unwrap_or(u64::MAX) };
    match (blocks, count) {
        (false, _) => reading.begin(shared, request, working),
        (true, None) => reading.aside(shared, request, move |all, working, out| all.rest(request, working, out)),
        (true, Some(_)) => reading.aside(shared, request, move |some, working, out| some.once(request, working, out)),
    }
}

struct Reading {
    file: OwnedFd,
    target: Target,
    /// Bytes at most.
    left: u64,
}

impl Reading {
    fn aside(
        self,
        shared: &Arc<Shared>,
        request: u32,
        work: impl FnOnce(Self, &Working, &Out) -> Result<(), OpError> + Send + 'static,
    ) -> Result<(), OpError> {
        let target = Target { op: self.target.op, subject: self.target.subject.clone() };
        aside(shared, request, &target, move |working, out| work(self, working, out))
    }

    /// Sends to the end on this thread, but goes on aside where the file turns out to block: some files of `/proc` and
    /// tracefs do, although they look like regular ones.
    fn begin(mut self, shared: &Arc<Shared>, request: u32, working: &Working) -> Result<(), OpError> {
        let mut piece = Piece::new();
        let mut sent = false;
        loop {
            let ready =
                sys::poll_one(self.file.as_fd(), libc::POLLIN, 0).map_err(|error| self.target.refuse(&error))?;
            if ready == 0 && sent && self.left != u64::MAX {
                shared.out.done(request);
                return Ok(());
            }
            if ready == 0 {
                return self.aside(shared, request, move |reading, working, out| match reading.left {
                    u64::MAX => reading.rest(request, working, out),
                    _ => reading.once(request, working, out),
                });
            }
            if self.send_one(request, &mut piece, working, &shared.out)? == 0 {
                shared.out.done(request);
                return Ok(());
            }
            sent = true;
        }
    }

    /// Sends to the end.
    fn rest(mut self, request: u32, working: &Working, out: &Out) -> Result<(), OpError> {
        let mut piece = Piece::new();
        while self.send_one(request, &mut piece, working, out)? > 0 {}
        out.done(request);
        Ok(())
    }

    /// Sends what one read gives, as the kernel cuts it: terminals give lines, some sockets and devices give messages.
    fn once(self, request: u32, working: &Working, out: &Out) -> Result<(), OpError> {
        let most = usize::try_from(self.left.min(LARGEST_READ)).unwrap_or(DATA_CHUNK);
        let mut bytes = vec![0; most];
        let count = working.retry(|| sys::read_once(self.file.as_fd(), &mut bytes));
        let count = count.map_err(|error| self.target.refuse(&error))?;
        for piece in bytes[..count].chunks(DATA_CHUNK) {
            let _ = out.send(request, &ToHost::Data(piece.to_vec()));
        }
        out.done(request);
        Ok(())
    }

    /// Reads once and sends that. 0 at the end, or when the host is gone.
    fn send_one(&mut self, request: u32, piece: &mut Piece, working: &Working, out: &Out) -> Result<usize, OpError> {
        if self.left == 0 {
            return Ok(0);
        }
        let room = piece.room(self.left);
        let count = working.retry(|| sys::read_once(self.file.as_fd(), room));
        let count = count.map_err(|error| self.target.refuse(&error))?;
        if count > 0 && out.send_piece(request, piece, count).is_err() {
            return Ok(0);
        }
        if self.left != u64::MAX {
            self.left = self.left.saturating_sub(u64::try_from(count).unwrap_or_default());
        }
        Ok(count)
    }
}

/// A file that the host is writing.
pub enum Writing {
    /// On the ops thread.
    Here(Writer),
    /// On a thread of its own, which takes the pieces from this; an empty one is the end.
    Aside(Sender<Vec<u8>>),
}

impl Writing {
    /// Creates or truncates a file; `mode` is exact.
    ///
    /// # Errors
    /// errno with the path.
    pub fn whole(
        shared: &Arc<Shared>,
        request: u32,
        path: &[u8],
        mode: Option<u32>,
        working: &Working,
    ) -> Result<Self, OpError> {
        if !may_block(path) {
            return Writer::create(path, mode, working).map(Self::Here);
        }
        let (pieces, queue) = channel();
        let target = Target::path("write_file", path);
        let path = path.to_vec();
        aside(shared, request, &target, move |working, out| {
            Writer::create(&path, mode, working)?.take(request, &queue, working, out)
        })?;
        Ok(Self::Aside(pieces))
    }

    /// Writes to a descriptor where it stands.
    ///
    /// # Errors
    /// errno with the descriptor.
    pub fn descriptor(shared: &Arc<Shared>, request: u32, fd: i32) -> Result<Self, OpError> {
        let target = Target::descriptor("write", fd);
        let file = sys::duplicate(fd).map_err(|error| target.refuse(&error))?;
        let blocks = descriptor_may_block(&file).map_err(|error| target.refuse(&error))?;
        let subject = target.subject.clone();
        let writer = Writer { target, file, whole: false, count: 0, unreceipted: 0 };
        if !blocks {
            return Ok(Self::Here(writer));
        }
        let (pieces, queue) = channel();
        let target = Target { op: "write", subject };
        aside(shared, request, &target, move |working, out| writer.take(request, &queue, working, out))?;
        Ok(Self::Aside(pieces))
    }

    /// The next piece has come.
    ///
    /// # Errors
    /// errno with the path.
    pub fn add(&mut self, request: u32, bytes: Vec<u8>, working: &Working, shared: &Shared) -> Result<(), OpError> {
        match self {
            Self::Here(writer) => {
                writer.add(request, &bytes, working, &shared.out)?;
                shared.buffers.give(bytes);
                Ok(())
            }
            Self::Aside(pieces) => {
                // Its thread ends early only when it failed and has said so.
                let _ = if bytes.is_empty() { Ok(()) } else { pieces.send(bytes) };
                Ok(())
            }
        }
    }

    /// All has come.
    ///
    /// # Errors
    /// errno with the path.
    pub fn finish(self, request: u32, working: &Working, out: &Out) -> Result<(), OpError> {
        match self {
            Self::Here(writer) => writer.finish(request, working, out),
            Self::Aside(pieces) => {
                let _ = pieces.send(Vec::new());
                Ok(())
            }
        }
    }
}

/// An open file and how much was written to it.
pub struct Writer {
    target: Target,
    file: OwnedFd,
    /// Whether the file was created or truncated by this, and is closed at the end; else the host gets the count.
    whole: bool,
    count: u64,
    unreceipted: usize,
}

impl Writer {
    fn create(path: &[u8], mode: Option<u32>, working: &Working) -> Result<Self, OpError> {
        let target = Target::path("write_file", path);
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
        let opened = working.retry(|| sys::open(path, flags, mode.unwrap_or(0o666))).and_then(|file| {
            if let Some(mode) = mode {
                // SAFETY: fchmod on a descriptor that is open. The umask has no say in a mode that was asked for.
                check(unsafe { libc::fchmod(file.as_raw_fd(), mode) })?;
            }
            Ok(file)
        });
        match opened {
            Ok(file) => Ok(Self { target, file, whole: true, count: 0, unreceipted: 0 }),
            Err(error) => Err(target.refuse(&error)),
        }
    }

    /// Writes what comes from `queue` up to an empty piece. A queue that ends without one belongs to a request that was
    /// given up.
    fn take(mut self, request: u32, queue: &Receiver<Vec<u8>>, working: &Working, out: &Out) -> Result<(), OpError> {
        for bytes in queue {
            if bytes.is_empty() {
                return self.finish(request, working, out);
            }
            self.add(request, &bytes, working, out)?;
        }
        Ok(())
    }

    fn add(&mut self, request: u32, mut bytes: &[u8], working: &Working, out: &Out) -> Result<(), OpError> {
        self.unreceipted += bytes.len();
        while !bytes.is_empty() {
            let count = self.write(bytes, working)?;
            self.count += u64::try_from(count).unwrap_or_default();
            bytes = &bytes[count..];
        }
        if self.unreceipted >= RECEIPT {
            let taken = u32::try_from(self.unreceipted).unwrap_or(u32::MAX);
            self.unreceipted = 0;
            let _ = out.send(request, &ToHost::StdinTaken(taken));
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], working: &Working) -> Result<usize, OpError> {
        working.retry(|| sys::write_once(self.file.as_fd(), bytes)).map_err(|error| {
            let written = match self.count {
                0 => String::new(),
                count => format!("after {count} bytes"),
            };
            refusal(self.target.op, &self.target.subject, &error, &written)
        })
    }

    fn finish(self, request: u32, working: &Working, out: &Out) -> Result<(), OpError> {
        if !self.whole {
            if self.count == 0 {
                // Also a write of nothing finds out whether the descriptor can be written to.
                self.write(&[], working)?;
            }
            out.reply(request, OpReply::Count(self.count));
            return Ok(());
        }
        // Some file systems tell only when a file is closed that it did not fit.
        // SAFETY: the descriptor is ours, and not used after.
        match check(unsafe { libc::close(self.file.into_raw_fd()) }) {
            Ok(_) => {
                out.done(request);
                Ok(())
            }
            Err(error) => Err(self.target.refuse(&error)),
        }
    }
}
