//! The agent's I/O thread: the channel, pipes, ends of children, deadlines.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use super::ops::{self, Job, Root};
use super::out::Out;
use super::processes::{Processes, Source};
use super::sys::{self, check};
use crate::agent_protocol::{Decoder, Hello, PROTOCOL_VERSION, ToGuest, ToHost};

/// How much is read from the channel at once, in bytes.
const READ: usize = 256 * 1024;
/// How many jobs may wait for the ops thread; past that the channel is not read.
const WAITING_JOBS: usize = 256;

/// The first message.
pub fn hello(boot_error: Option<String>, notices: Vec<String>) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        kernel_release: sys::kernel_release(),
        pid: std::process::id(),
        uptime_ns: sys::uptime_ns(),
        boot_error,
        notices,
    }
}

/// Serves the host on `channel` until it is gone for good. `root` is where operations happen, where that can change.
pub fn serve(channel: OwnedFd, root: Option<Root>, hello: Hello) {
    if let Err(error) = run(channel, root, &hello) {
        eprintln!("provium-agent: {error}");
    }
}

fn run(channel: OwnedFd, root: Option<Root>, hello: &Hello) -> io::Result<()> {
    // Before the second thread: both must have SIGCHLD (and SIGIO, for the host's return) blocked.
    let signals = signal_descriptor()?;
    sys::set_nonblocking(channel.as_fd())?;
    // SAFETY: makes a new descriptor or fails.
    let epoll = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
    // SAFETY: as above.
    let wake = unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?) };
    let processes = Arc::new(Processes::new(epoll));
    processes.watch(channel.as_fd(), libc::EPOLLIN, Source::Channel)?;
    processes.watch(signals.as_fd(), libc::EPOLLIN, Source::Signals)?;
    processes.watch(wake.as_fd(), libc::EPOLLIN, Source::Wake)?;
    let out = Arc::new(Out::new(channel.try_clone()?));
    let (jobs, queue) = sync_channel(WAITING_JOBS);
    ops::start(queue, Arc::clone(&out), Arc::clone(&processes), wake.try_clone()?, root)?;
    out.send(0, &ToHost::Hello(hello.clone()))?;

    let mut host = Host { decoder: Decoder::default(), buffer: vec![0; READ], jobs };
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 64];
    loop {
        let timeout = processes.expire();
        // SAFETY: the array and its length belong together.
        let count =
            match check(unsafe { libc::epoll_wait(processes.epoll().as_raw_fd(), events.as_mut_ptr(), 64, timeout) }) {
                Ok(count) => usize::try_from(count).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
        let (mut collect, mut gone) = (false, false);
        for event in &events[..count] {
            match Source::from_token(event.u64) {
                Some(Source::Channel) => gone |= !host.receive(&channel, &processes, &out)?,
                Some(Source::Signals) => {
                    empty(&signals);
                    collect = true;
                }
                Some(Source::Wake) => empty(&wake),
                Some(Source::Stdin(request)) => processes.stdin_ready(request),
                Some(output) => processes.output_ready(output, &out)?,
                None => {}
            }
        }
        if gone {
            return Ok(());
        }
        // Last: what the ended processes wrote before is on its way then.
        if collect {
            processes.collect(&out)?;
        }
    }
}

fn signal_descriptor() -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data that sigemptyset fills; the calls change this thread's mask only.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGIO);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
        Ok(OwnedFd::from_raw_fd(check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?))
    }
}

fn empty(fd: &OwnedFd) {
    let mut buffer = [0; 1024];
    while sys::read(fd.as_fd(), &mut buffer).is_ok_and(|count| count == buffer.len()) {}
}

struct Host {
    decoder: Decoder,
    buffer: Vec<u8>,
    jobs: SyncSender<(u32, Job)>,
}

impl Host {
    /// Reads once and does what was asked. False when the host is gone for good.
    fn receive(&mut self, channel: &OwnedFd, processes: &Processes, out: &Out) -> io::Result<bool> {
        match sys::read(channel.as_fd(), &mut self.buffer) {
            Ok(0) => return wait_for_host(channel),
            Ok(count) => self.decoder.push(&self.buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
        loop {
            let message = match self.decoder.next_frame() {
                Ok(None) => return Ok(true),
                Ok(Some((request, kind, payload))) => ToGuest::decode(kind, payload).map(|message| (request, message)),
                Err(error) => Err(error),
            };
            let (request, message) = message.map_err(io::Error::other)?;
            if !self.dispatch(request, message, processes, out)? {
                return Ok(false);
            }
        }
    }

    fn dispatch(&self, request: u32, message: ToGuest, processes: &Processes, out: &Out) -> io::Result<bool> {
        let job = match message {
            ToGuest::Ping => {
                out.send(request, &ToHost::Pong)?;
                return Ok(true);
            }
            ToGuest::Stdin(bytes) => {
                processes.stdin(request, Some(&bytes));
                return Ok(true);
            }
            ToGuest::StdinEnd => {
                processes.stdin(request, None);
                return Ok(true);
            }
            ToGuest::Signal(signal) => {
                processes.signal(request, signal);
                return Ok(true);
            }
            ToGuest::Cancel => {
                processes.cancel(request);
                Job::Cancel
            }
            ToGuest::Run(run) => {
                processes.expect(request);
                Job::Run(run)
            }
            ToGuest::ReadFile(path) => Job::ReadFile(path),
            ToGuest::WriteFile { path, mode } => Job::WriteFile { path, mode },
            ToGuest::Data(bytes) => Job::Data(bytes),
            ToGuest::DataEnd => Job::DataEnd,
            ToGuest::Poweroff => Job::Poweroff,
        };
        Ok(self.jobs.send((request, job)).is_ok())
    }
}

/// The host closed its end. A socket's peer is gone for good; a virtio port's host comes back after a snapshot.
fn wait_for_host(channel: &OwnedFd) -> io::Result<bool> {
    // SAFETY: stat is plain data to be filled.
    let kind = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstat(channel.as_raw_fd(), &raw mut stat))?;
        stat.st_mode & libc::S_IFMT
    };
    if kind != libc::S_IFCHR {
        return Ok(false);
    }
    // The driver says POLLHUP for as long as the host is away, so polling would spin; it sends SIGIO when that changes.
    // SAFETY: sigset_t is plain data that sigemptyset fills; fcntl acts on an open descriptor. SIGIO is blocked from the
    // start, so one that comes between the look and the wait stays pending.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGIO);
        let flags = check(libc::fcntl(channel.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(channel.as_raw_fd(), libc::F_SETOWN, libc::getpid()))?;
        check(libc::fcntl(channel.as_raw_fd(), libc::F_SETFL, flags | libc::O_ASYNC))?;
        while sys::poll_one(channel.as_fd(), libc::POLLIN, 0)? & libc::POLLHUP != 0 {
            check(libc::sigwaitinfo(&raw const set, std::ptr::null_mut()))?;
        }
    }
    Ok(true)
}
