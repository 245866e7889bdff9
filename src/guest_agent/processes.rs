//! The processes that the host started, and their pipes.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::input::{Fed, Input};
use super::out::{Out, refusal};
use super::sys;
use super::watchers::watch;
use crate::agent_protocol::{CHUNK, ProcessStatus, ToHost};

/// What an epoll event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The channel to the host.
    Channel,
    /// A child ended.
    Signals,
    /// A deadline was added.
    Wake,
    /// A process's standard output.
    Stdout(u32),
    /// A process's standard error.
    Stderr(u32),
    /// A process's standard input.
    Stdin(u32),
    /// What a request follows.
    Follow(u32),
}

impl Source {
    /// As epoll keeps it.
    pub fn token(self) -> u64 {
        let (kind, request) = match self {
            Self::Channel => (0, 0),
            Self::Signals => (1, 0),
            Self::Wake => (2, 0),
            Self::Stdout(request) => (3, request),
            Self::Stderr(request) => (4, request),
            Self::Stdin(request) => (5, request),
            Self::Follow(request) => (6, request),
        };
        u64::from(request) << 8 | kind
    }

    /// Back from epoll.
    pub fn from_token(token: u64) -> Option<Self> {
        let request = u32::try_from(token >> 8).ok()?;
        Some(match token & 0xff {
            0 => Self::Channel,
            1 => Self::Signals,
            2 => Self::Wake,
            3 => Self::Stdout(request),
            4 => Self::Stderr(request),
            5 => Self::Stdin(request),
            6 => Self::Follow(request),
            _ => return None,
        })
    }
}

/// One process, from its request on.
#[derive(Default)]
struct Process {
    /// None until it is started.
    pid: Option<libc::pid_t>,
    started: Option<Instant>,
    deadline: Option<Instant>,
    timed_out: bool,
    cancelled: bool,
    ended: bool,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    stdin: Input,
}

/// The parent's ends of a process's pipes.
pub struct Pipes {
    /// To write to; none where its standard input is `/dev/null`.
    pub stdin: Option<OwnedFd>,
    /// To read from.
    pub stdout: OwnedFd,
    /// To read from.
    pub stderr: OwnedFd,
}

/// All processes; the lock is held while one is started, so that none can end unseen.
pub struct Processes {
    epoll: Arc<OwnedFd>,
    table: Mutex<HashMap<u32, Process>>,
    /// Children that tell in their own way how they end: they are only collected.
    helpers: Mutex<Vec<libc::pid_t>>,
}

impl Processes {
    /// No process yet; events come to `epoll`.
    pub fn new(epoll: Arc<OwnedFd>) -> Self {
        Self { epoll, table: Mutex::default(), helpers: Mutex::default() }
    }

    fn helpers(&self) -> MutexGuard<'_, Vec<libc::pid_t>> {
        self.helpers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a child by `fork` that is collected when it ends, and nothing else.
    ///
    /// # Errors
    /// Those of `fork`.
    pub fn start_helper(&self, fork: impl FnOnce() -> io::Result<libc::pid_t>) -> io::Result<libc::pid_t> {
        // Locked before it is there: it can't end unseen.
        let mut helpers = self.helpers();
        let pid = fork()?;
        helpers.push(pid);
        Ok(pid)
    }

    /// Kills a helper, unless it has ended.
    pub fn kill_helper(&self, pid: libc::pid_t) {
        let helpers = self.helpers();
        if helpers.contains(&pid) {
            // SAFETY: a signal to a child of ours that is not collected yet.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u32, Process>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, fd: BorrowedFd<'_>, events: i32, source: Source) -> io::Result<()> {
        watch(&self.epoll, fd, events, source)
    }

    /// A request has come; its process is not started yet.
    pub fn expect(&self, request: u32) {
        self.table().insert(request, Process::default());
    }

    /// The request was given up before its process was started.
    pub fn skip(&self, request: u32) {
        let mut table = self.table();
        if table.get(&request).is_some_and(|process| process.pid.is_none()) {
            table.remove(&request);
        }
    }

    /// Starts the process of `request` by `spawn`; `announce` tells the host its id, before anything else of it.
    ///
    /// # Errors
    /// Those of `spawn`; the request is over then.
    pub fn start<E>(
        &self,
        request: u32,
        limit: Option<Duration>,
        announce: Option<&Out>,
        spawn: impl FnOnce() -> Result<(libc::pid_t, Pipes), E>,
    ) -> Result<(), E> {
        let mut table = self.table();
        if table.get(&request).is_none_or(|process| process.cancelled) {
            table.remove(&request);
            return Ok(());
        }
        let (pid, pipes) = match spawn() {
            Ok(started) => started,
            Err(error) => {
                table.remove(&request);
                return Err(error);
            }
        };
        let Some(process) = table.get_mut(&request) else { return Ok(()) };
        let now = Instant::now();
        process.pid = Some(pid);
        process.started = Some(now);
        process.deadline = limit.and_then(|limit| now.checked_add(limit));
        if let Some(out) = announce {
            // A host that is gone does not miss it.
            let _ = out.send(request, &ToHost::Started(pid.unsigned_abs()));
        }
        // A pipe that can't be watched is closed: the process then sees a broken pipe, and the host its end.
        let reading = |fd: OwnedFd, source| {
            let ready = sys::set_nonblocking(fd.as_fd()).and_then(|()| self.watch(fd.as_fd(), libc::EPOLLIN, source));
            ready.is_ok().then_some(fd)
        };
        process.stdout = reading(pipes.stdout, Source::Stdout(request));
        process.stderr = reading(pipes.stderr, Source::Stderr(request));
        process.stdin.open(pipes.stdin);
        // What came before the start is fed when the I/O thread finds room in the new pipe; an end alone is done at once.
        process.stdin.begin(&self.epoll, request);
        Ok(())
    }

    /// More for a process's standard input; `None` is its end.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn stdin(&self, request: u32, bytes: Option<&[u8]>, out: &Out) -> io::Result<()> {
        let fed = {
            let mut table = self.table();
            let Some(process) = table.get_mut(&request) else { return Ok(()) };
            match bytes {
                Some(bytes) => process.stdin.push(bytes),
                None => process.stdin.end(),
            }
            if process.pid.is_none() {
                return Ok(());
            }
            process.stdin.feed(&self.epoll, request)
        };
        receipt(request, fed, out)
    }

    /// A process's standard input takes more.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn stdin_ready(&self, request: u32, out: &Out) -> io::Result<()> {
        let fed = match self.table().get_mut(&request) {
            Some(process) => process.stdin.feed(&self.epoll, request),
            None => return Ok(()),
        };
        receipt(request, fed, out)
    }

    /// This agent's ends of all processes' pipes.
    pub fn descriptors(&self) -> Vec<i32> {
        let number = |slot: &Option<OwnedFd>| slot.as_ref().map(AsRawFd::as_raw_fd);
        let of = |process: &Process| [number(&process.stdout), number(&process.stderr), process.stdin.descriptor()];
        self.table().values().flat_map(of).flatten().collect()
    }

    /// Sends a signal to the group of a process.
    pub fn signal(&self, request: u32, signal: i32) {
        if let Some(Process { pid: Some(pid), ended: false, .. }) = self.table().get(&request) {
            kill_group(*pid, signal);
        }
    }

    /// Sends a signal to the groups of all processes.
    pub fn signal_all(&self, signal: i32) {
        for process in self.table().values() {
            if let Process { pid: Some(pid), ended: false, .. } = process {
                kill_group(*pid, signal);
            }
        }
    }

    /// The host has given a process up.
    pub fn cancel(&self, request: u32) {
        if let Some(process) = self.table().get_mut(&request) {
            process.cancelled = true;
            if let (Some(pid), false) = (process.pid, process.ended) {
                kill_group(pid, libc::SIGKILL);
            }
        }
    }

    /// Passes on what stands in an output pipe, one piece.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn output_ready(&self, source: Source, out: &Out) -> io::Result<()> {
        let (request, second) = match source {
            Source::Stdout(request) => (request, false),
            Source::Stderr(request) => (request, true),
            _ => return Ok(()),
        };
        let mut table = self.table();
        let Some(process) = table.get_mut(&request) else { return Ok(()) };
        let ended = process.ended;
        let slot = if second { &mut process.stderr } else { &mut process.stdout };
        let Some(piece) = take_piece(slot) else { return Ok(()) };
        if process.ended && process.stdout.is_none() && process.stderr.is_none() {
            table.remove(&request);
        }
        drop(table);
        // What a background child says after the end of its parent has no reader.
        if piece.is_empty() || ended {
            return Ok(());
        }
        out.send(request, &if second { ToHost::Stderr(piece) } else { ToHost::Stdout(piece) })
    }

    /// Collects the processes that have ended and tells the host of each.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn collect(&self, out: &Out) -> io::Result<()> {
        // SAFETY: a child of ours that is not collected yet; its status is of no interest.
        self.helpers().retain(|pid| unsafe { libc::waitpid(*pid, std::ptr::null_mut(), libc::WNOHANG) } == 0);
        let mut done = Vec::new();
        {
            let mut table = self.table();
            for (request, process) in table.iter_mut() {
                let Process { pid: Some(pid), ended: false, .. } = process else { continue };
                let Some(end) = end_of(*pid, process) else { continue };
                process.ended = true;
                process.stdin.close();
                done.push((*request, end));
            }
        }
        for (request, exited) in done {
            self.drain(request, out)?;
            out.send(request, &exited)?;
        }
        Ok(())
    }

    /// Passes on what an ended process left in its pipes. A child of its that still has them open goes on writing: what
    /// comes later is read and dropped, so that it is never stopped by a full or broken pipe.
    fn drain(&self, request: u32, out: &Out) -> io::Result<()> {
        for second in [false, true] {
            loop {
                let mut table = self.table();
                let Some(process) = table.get_mut(&request) else { return Ok(()) };
                let slot = if second { &mut process.stderr } else { &mut process.stdout };
                let piece = take_piece(slot);
                drop(table);
                match piece {
                    Some(piece) if !piece.is_empty() => {
                        out.send(request, &if second { ToHost::Stderr(piece) } else { ToHost::Stdout(piece) })?;
                    }
                    _ => break,
                }
            }
        }
        let mut table = self.table();
        if table.get(&request).is_some_and(|process| process.stdout.is_none() && process.stderr.is_none()) {
            table.remove(&request);
        }
        Ok(())
    }

    /// Kills what is past its deadline. Returns how long until the next one, in milliseconds, −1 without any.
    pub fn expire(&self) -> i32 {
        let now = Instant::now();
        let mut next: Option<Duration> = None;
        for process in self.table().values_mut() {
            let Process { pid: Some(pid), deadline: Some(deadline), ended: false, timed_out: false, .. } = process
            else {
                continue;
            };
            match deadline.checked_duration_since(now) {
                Some(left) if !left.is_zero() => next = Some(next.map_or(left, |next| next.min(left))),
                _ => {
                    process.timed_out = true;
                    kill_group(*pid, libc::SIGKILL);
                }
            }
        }
        next.map_or(-1, |left| i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX))
    }
}

/// How a process ended, once it has: what the host is told.
fn end_of(pid: libc::pid_t, process: &Process) -> Option<ToHost> {
    let mut status = 0;
    // SAFETY: `status` is an int to be filled; the child is ours and not collected yet by this thread.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
        0 => return None,
        -1 => {
            let error = io::Error::last_os_error();
            let detail = "a system call of the test has collected its status";
            return Some(ToHost::Failed(refusal("run", format!("process {pid}").as_bytes(), &error, detail)));
        }
        _ => {}
    }
    let took = process.started.map(|started| started.elapsed()).unwrap_or_default();
    let status = match (process.timed_out, libc::WIFSIGNALED(status)) {
        (true, true) => ProcessStatus::TimedOut,
        (_, true) => ProcessStatus::Signalled(libc::WTERMSIG(status)),
        (_, false) => ProcessStatus::Exited(libc::WEXITSTATUS(status)),
    };
    Some(ToHost::Exited { status, duration_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) })
}

/// One piece from a pipe; empty where there is none now; `None` (and the pipe is closed) at its end.
fn take_piece(slot: &mut Option<OwnedFd>) -> Option<Vec<u8>> {
    let fd = slot.as_ref()?;
    let mut piece = vec![0; CHUNK];
    match sys::read(fd.as_fd(), &mut piece) {
        Ok(0) => {
            *slot = None;
            Some(Vec::new())
        }
        Ok(count) => {
            piece.truncate(count);
            Some(piece)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(Vec::new()),
        Err(_) => {
            *slot = None;
            Some(Vec::new())
        }
    }
}

/// Tells the host what became of what it sent. None taken means that nobody reads any more.
fn receipt(request: u32, fed: Fed, out: &Out) -> io::Result<()> {
    if fed.taken > 0 {
        out.send(request, &ToHost::StdinTaken(u32::try_from(fed.taken).unwrap_or(u32::MAX)))?;
    }
    if fed.broken {
        out.send(request, &ToHost::StdinTaken(0))?;
    }
    Ok(())
}

fn kill_group(pid: libc::pid_t, signal: i32) {
    // SAFETY: a signal to a group of ours; one that is gone already is no error that matters.
    unsafe { libc::kill(-pid, signal) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        for source in [
            Source::Channel,
            Source::Signals,
            Source::Wake,
            Source::Stdout(7),
            Source::Stderr(u32::MAX),
            Source::Stdin(0),
            Source::Follow(3),
        ] {
            assert_eq!(Source::from_token(source.token()), Some(source));
        }
        assert_eq!(Source::from_token(7), None);
        assert_eq!(Source::from_token(u64::MAX), None);
    }
}
