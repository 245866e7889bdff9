//! The agent's I/O thread: the channel, pipes, ends of children, deadlines.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel as queue};
use std::sync::{Arc, Mutex, PoisonError};

use super::button;
use super::content::{Buffers, Pace};
use super::interrupt::Interrupts;
use super::ops::{self, Root, Shared};
use super::out::Out;
use super::processes::{Processes, Source};
use super::sync::Sync;
use super::sys::{self, check};
use super::wake_up::Sleep;
use super::watchers::{Watchers, watch};
use super::{clock, kmsg, wake_up};
use crate::agent_protocol::{Hello, Incoming, Op, OpError, OpReply, PROTOCOL_VERSION, ToGuest, ToHost};

/// How much is read at once before the first frame, in bytes.
const READ: usize = 4096;
/// How often the channel is read before other descriptors get their turn.
const READS: usize = 64;

/// The first message.
pub fn hello(boot_error: Option<String>, notices: Vec<String>) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        nonce: sys::nonce(),
        arch: std::env::consts::ARCH.to_owned(),
        kernel_release: sys::kernel_release(),
        pid: std::process::id(),
        uptime_ns: sys::uptime_ns(),
        boot_error,
        notices,
    }
}

/// What an agent is besides its channel.
#[derive(Default)]
pub struct Setting {
    /// Where operations happen, where that can change.
    pub root: Option<Root>,
    /// A `/dev` that the kernel fills, where it is not the ordinary one.
    pub dev: Option<OwnedFd>,
    /// A sysfs that nobody in the guest can take away.
    pub sysfs: Option<OwnedFd>,
    /// This program, to start workers from.
    pub program: Option<OwnedFd>,
    /// Whether it is a worker: what it starts ends with it.
    pub is_worker: bool,
}

impl Setting {
    fn descriptors(&self) -> impl Iterator<Item = i32> {
        let others = self.dev.iter().chain(&self.program).chain(&self.sysfs).map(AsRawFd::as_raw_fd);
        self.root.iter().map(Root::descriptor).chain(others)
    }
}

/// Serves the host on `channel` until it is gone for good.
pub fn serve(channel: OwnedFd, setting: Setting, hello: Hello) {
    if let Err(error) = run(channel, setting, &hello, ops::start) {
        eprintln!("provium-agent: {error}");
    }
}

/// Starts what does the jobs: the ops thread, or something harmless for a fuzz target.
type Start = fn(Receiver<(u32, ToGuest)>, Arc<Shared>, Option<Root>) -> io::Result<()>;

fn run(channel: OwnedFd, setting: Setting, hello: &Hello, start: Start) -> io::Result<()> {
    // Before the second thread: both must have SIGCHLD (and SIGIO, for the host's return) blocked.
    let signals = signal_descriptor()?;
    sys::set_nonblocking(channel.as_fd())?;
    // SAFETY: makes a new descriptor or fails.
    let epoll = Arc::new(unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) });
    // SAFETY: as above.
    let wake = unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?) };
    watch(&epoll, channel.as_fd(), libc::EPOLLIN, Source::Channel)?;
    watch(&epoll, signals.as_fd(), libc::EPOLLIN, Source::Signals)?;
    watch(&epoll, wake.as_fd(), libc::EPOLLIN, Source::Wake)?;
    let out = channel.try_clone()?;
    let own = [&channel, &out, &signals, &*epoll, &wake].map(AsRawFd::as_raw_fd);
    let wake_up = wake.try_clone()?;
    let own = own.into_iter().chain([wake_up.as_raw_fd()]).chain(setting.descriptors()).collect();
    let shared = Arc::new(Shared {
        out: Out::new(out),
        processes: Processes::new(Arc::clone(&epoll)),
        watchers: Watchers::new(Arc::clone(&epoll)),
        interrupts: Interrupts::new()?,
        wake: wake_up,
        program: setting.program,
        quiet: Mutex::default(),
        sysfs: setting.sysfs,
        is_worker: setting.is_worker,
        own,
        buffers: Buffers::default(),
        pace: Pace::default(),
    });
    // Without a bound: this thread must go on reading, or it would never see that a job which blocks was given up. Who
    // sends much waits for receipts.
    let (jobs, waiting_jobs) = queue();
    start(waiting_jobs, Arc::clone(&shared), setting.root)?;
    shared.out.send(0, &ToHost::Hello(hello.clone()))?;

    let (incoming, sync) = (Incoming::default(), Some(Sync::new(hello.nonce)));
    let mut host = Host { incoming, jobs, sync, sleep: None, owes_hello: false, dev: setting.dev, shared };
    let shared = Arc::clone(&host.shared);
    let (processes, out) = (&shared.processes, &shared.out);
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 64];
    loop {
        let timeout = processes.expire();
        // SAFETY: the array and its length belong together.
        let count = match check(unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), 64, timeout) }) {
            Ok(count) => usize::try_from(count).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let (mut collect, mut gone) = (false, false);
        for event in &events[..count] {
            match Source::from_token(event.u64) {
                Some(Source::Channel) => gone |= !host.receive_some(&channel)?,
                Some(Source::Signals) => {
                    empty(&signals);
                    collect = true;
                }
                Some(Source::Wake) => {
                    empty(&wake);
                    host.fall_asleep()?;
                }
                Some(Source::Stdin(request)) => processes.stdin_ready(request, out)?,
                Some(Source::Follow(request)) => shared.watchers.ready(request, out)?,
                Some(output) => processes.output_ready(output, out)?,
                None => {}
            }
        }
        if gone {
            return Ok(());
        }
        // Last: what the ended processes wrote before is on its way then.
        if collect {
            processes.collect(out)?;
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
    incoming: Incoming,
    jobs: Sender<(u32, ToGuest)>,
    sync: Option<Sync>,
    /// Lasts until a first message has come behind the nonce that is waited for.
    sleep: Option<Sleep>,
    /// Whether the hello of that must still be sent.
    owes_hello: bool,
    /// A `/dev` that the kernel fills, where it is not the ordinary one.
    dev: Option<OwnedFd>,
    shared: Arc<Shared>,
}

impl Host {
    /// Reads what has come, within limits, and does what was asked. False when the host is gone for good.
    fn receive_some(&mut self, channel: &OwnedFd) -> io::Result<bool> {
        // A virtio port gives a page at a time: asking epoll before each would cost as much as reading it.
        for _ in 0..READS {
            if let Some(sync) = &mut self.sync {
                let mut first = [0; READ];
                let rest = match sys::read(channel.as_fd(), &mut first) {
                    Ok(0) => return wait_for_host(channel),
                    Ok(count) => sync.find(&first[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                if let Some(rest) = rest {
                    self.sync = None;
                    self.owes_hello = self.sleep.is_some();
                    if !self.receive_all(&rest)? {
                        return Ok(false);
                    }
                    // Nothing whole came with the nonce: the host may wait for the hello first.
                    if let Some(sleep) = self.sleep.as_ref().filter(|_| std::mem::take(&mut self.owes_hello)) {
                        self.shared.out.send_all(&[(0, sleep.hello())])?;
                    }
                }
                continue;
            }
            match sys::read(channel.as_fd(), self.incoming.room()) {
                Ok(0) => return wait_for_host(channel),
                Ok(count) => {
                    if !self.receive(count)? {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Where the host asked for quiet: says so, then nothing more until the nonce of that answer comes.
    fn fall_asleep(&mut self) -> io::Result<()> {
        let Shared { quiet, watchers, out, .. } = &*self.shared;
        let Some(request) = quiet.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
        watchers.flush(out)?;
        watchers.keep();
        let nonce = sys::nonce();
        self.sync = Some(Sync::new(nonce));
        self.incoming = Incoming::default();
        self.sleep = Some(Sleep::new(hello(None, Vec::new()), self.dev.as_ref()));
        out.send(request, &ToHost::Reply(OpReply::Quiet(nonce)))
    }

    /// Takes the first message behind the nonce: makes the guest its own machine where that says so, and only then. False
    /// where it is another one, which is still to be dealt with.
    fn awake(&mut self, request: u32, message: &ToGuest, sleep: &Sleep) -> io::Result<bool> {
        let owes_hello = std::mem::take(&mut self.owes_hello).then_some((0, sleep.hello()));
        let ToGuest::Op(Op::Wake(wake)) = message else {
            self.shared.out.send_all(owes_hello.as_slice())?;
            return Ok(false);
        };
        let notices = ToHost::Reply(OpReply::Notices(wake_up::wake_up(wake, sleep)));
        // In one piece: it costs one way through the kernel's driver.
        let all: Vec<_> = owes_hello.into_iter().chain([(request, &notices)]).collect();
        self.shared.out.send_all(&all)?;
        Ok(true)
    }

    /// Takes bytes that were read elsewhere.
    fn receive_all(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            let room = self.incoming.room();
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if !self.receive(count)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Goes on after `count` bytes have come: does what a frame asks for, once it is whole.
    fn receive(&mut self, count: usize) -> io::Result<bool> {
        let shared = &self.shared;
        let buffer = |kind| if kind == ToGuest::DATA_KIND { shared.buffers.take() } else { Vec::new() };
        match self.incoming.filled(count, buffer).map_err(io::Error::other)? {
            None => Ok(true),
            Some((request, kind, payload)) => {
                let message = ToGuest::decode_owned(kind, payload).map_err(io::Error::other)?;
                self.dispatch(request, message)
            }
        }
    }

    /// Does what needs no waiting; hands everything else to the ops thread.
    fn dispatch(&mut self, request: u32, message: ToGuest) -> io::Result<bool> {
        if let Some(sleep) = self.sleep.take()
            && self.awake(request, &message, &sleep)?
        {
            return Ok(true);
        }
        let processes = &self.shared.processes;
        match &message {
            ToGuest::Ping => {
                // The host may count on it: what the kernel has logged before is on its way.
                self.shared.watchers.flush(&self.shared.out)?;
                self.shared.out.send(request, &ToHost::Pong)?;
                return Ok(true);
            }
            // Not as whoever the ops thread has become meanwhile.
            ToGuest::Op(Op::WatchPowerButton) => {
                match button::watch(request, &self.shared) {
                    Ok(reply) => self.shared.out.reply(request, reply),
                    Err(error) => self.shared.out.fail(request, error),
                }
                return Ok(true);
            }
            ToGuest::KernelLog { follow } => {
                let Shared { watchers, out, .. } = &*self.shared;
                if let Err(error) = kmsg::begin(request, *follow, self.dev.as_ref(), watchers, out) {
                    out.fail(request, error);
                }
                return Ok(true);
            }
            // Not as whoever the ops thread has become meanwhile.
            ToGuest::Op(Op::GetClock) => return self.answer(request, clock::get()),
            ToGuest::Op(Op::SetClock(time)) => return self.answer(request, clock::set(*time)),
            ToGuest::Stdin(bytes) => {
                processes.stdin(request, Some(bytes), &self.shared.out)?;
                return Ok(true);
            }
            ToGuest::StdinEnd => {
                processes.stdin(request, None, &self.shared.out)?;
                return Ok(true);
            }
            ToGuest::Signal(signal) if request == 0 => {
                processes.signal_all(*signal);
                return Ok(true);
            }
            ToGuest::Signal(signal) => {
                processes.signal(request, *signal);
                return Ok(true);
            }
            ToGuest::Cancel => {
                processes.cancel(request);
                self.shared.watchers.remove(request);
                self.shared.interrupts.cancel(request);
            }
            ToGuest::Run(_) => processes.expect(request),
            ToGuest::Data(_) => {
                self.shared.pace.begin();
                let goes_on = self.jobs.send((request, message)).is_ok();
                self.shared.pace.wait();
                return Ok(goes_on);
            }
            _ => {}
        }
        Ok(self.jobs.send((request, message)).is_ok())
    }

    fn answer(&self, request: u32, result: Result<OpReply, OpError>) -> io::Result<bool> {
        match result {
            Ok(reply) => self.shared.out.reply(request, reply),
            Err(error) => self.shared.out.fail(request, error),
        }
        Ok(true)
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

#[cfg(test)]
#[path = "fuzz.rs"]
mod fuzz;
