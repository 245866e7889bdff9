//! The ops thread: whatever depends on the guest's own view (root, working directory, identity) happens here, one
//! operation after the other.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::content::{Buffers, Pace};
use super::files::{self, Target, Writing};
use super::hosts;
use super::interrupt::{Interrupts, Working};
use super::modules::{self, Loading};
use super::out::{Out, refusal};
use super::paths;
use super::processes::{Pipes, Processes};
use super::spawn::{self, Command, Stage};
use super::sys::{self, check};
use super::watchers::Watchers;
use super::{disks, syscalls, tail, users, waits, worker};
use crate::agent_protocol::{Op, OpError, OpReply, Program, RunRequest, ToGuest, ToHost, Whence};

/// Where programs are looked for when nobody says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What both threads of an agent use.
pub struct Shared {
    /// To the host.
    pub out: Out,
    /// The processes that were started.
    pub processes: Processes,
    /// What the I/O thread follows.
    pub watchers: Watchers,
    /// The threads that work on requests.
    pub interrupts: Arc<Interrupts>,
    /// For the content of files.
    pub buffers: Buffers,
    /// For the content of files.
    pub pace: Pace,
    /// Written to, it makes the I/O thread look at its deadlines again.
    pub wake: OwnedFd,
    /// This program, to start workers from.
    pub program: Option<OwnedFd>,
    /// A sysfs that nobody in the guest can take away.
    pub sysfs: Option<OwnedFd>,
    /// Whether this agent is a worker.
    pub is_worker: bool,
    /// The request to be quiet, once everything before it is done.
    pub quiet: Mutex<Option<u32>>,
    /// The descriptors that the agent can't do without.
    pub own: Vec<i32>,
}

impl Shared {
    /// Has the I/O thread look at what changed.
    fn wake(&self) {
        // A full counter wakes it as well.
        let _ = sys::write(self.wake.as_fd(), &1_u64.to_ne_bytes());
    }
}

/// The root directory of PID 1, which moves when the guest's init switches root.
pub struct Root {
    /// `/proc`, kept open from the start: the mount itself may be gone.
    proc: OwnedFd,
    current: Option<(u64, u64)>,
}

impl Root {
    /// Follows PID 1 as `proc` shows it.
    pub fn new(proc: OwnedFd) -> Self {
        Self { proc, current: None }
    }

    /// The descriptor of its `/proc`.
    pub fn descriptor(&self) -> i32 {
        self.proc.as_raw_fd()
    }

    /// Moves this thread to where PID 1 is now. A root that can't be looked at leaves it where it was.
    fn follow(&mut self) {
        let Ok(id) = self.identity() else { return };
        if self.current == Some(id) {
            return;
        }
        let Ok(root) = sys::openat(self.proc.as_raw_fd(), c"1/root", libc::O_PATH | libc::O_DIRECTORY, 0) else {
            return;
        };
        // SAFETY: system calls on an open directory; the thread has its own root (CLONE_FS was unshared).
        let moved = unsafe { libc::fchdir(root.as_raw_fd()) == 0 && libc::chroot(c".".as_ptr()) == 0 };
        if moved {
            self.current = Some(id);
        }
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        // SAFETY: stat is plain data to be filled, the path is a C string.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            check(libc::fstatat(self.proc.as_raw_fd(), c"1/root".as_ptr(), &raw mut stat, 0))?;
            Ok((stat.st_dev, stat.st_ino))
        }
    }
}

/// Starts the thread.
///
/// # Errors
/// When no thread can be had.
pub fn start(queue: Receiver<(u32, ToGuest)>, shared: Arc<Shared>, root: Option<Root>) -> io::Result<()> {
    let mut ops = Ops { shared, root, writing: HashMap::new(), loading: HashMap::new() };
    std::thread::Builder::new()
        .name("ops".to_owned())
        .spawn(move || {
            // SAFETY: gives this thread a root and working directory of its own; failing leaves them shared.
            unsafe { libc::unshare(libc::CLONE_FS) };
            for (request, message) in queue {
                let content = matches!(message, ToGuest::Data(_));
                ops.perform(request, message);
                if content {
                    ops.shared.pace.end();
                }
            }
        })
        .map(drop)
}

struct Ops {
    shared: Arc<Shared>,
    root: Option<Root>,
    writing: HashMap<u32, Writing>,
    /// Modules whose bytes are on their way.
    loading: HashMap<u32, Loading>,
}

impl Ops {
    fn perform(&mut self, request: u32, message: ToGuest) {
        let shared = Arc::clone(&self.shared);
        if message == ToGuest::Cancel {
            // The last message of its request: what came before it is done or was skipped.
            self.writing.remove(&request);
            self.loading.remove(&request);
            shared.watchers.remove(request);
            shared.interrupts.forget(request);
            return;
        }
        let Some(working) = shared.interrupts.enter(request) else {
            shared.processes.skip(request);
            return;
        };
        if let Some(root) = &mut self.root {
            root.follow();
        }
        if let Err(error) = self.act(request, message, &working) {
            self.writing.remove(&request);
            self.loading.remove(&request);
            if !working.given_up() {
                shared.out.fail(request, error);
            }
        }
    }

    fn act(&mut self, request: u32, message: ToGuest, working: &Working) -> Result<(), OpError> {
        let shared = Arc::clone(&self.shared);
        let out = &shared.out;
        match message {
            ToGuest::Run(run) => self.run(request, &run),
            ToGuest::ReadFile(path) => files::read_whole(&shared, request, &path, working),
            ToGuest::WriteFile { path, mode } => {
                let writing = Writing::whole(&shared, request, &path, mode, working)?;
                self.writing.insert(request, writing);
                Ok(())
            }
            ToGuest::FileRead { fd, count } => files::read(&shared, request, fd, count, working),
            ToGuest::FileWrite(fd) => {
                let writing = Writing::descriptor(&shared, request, fd)?;
                self.writing.insert(request, writing);
                Ok(())
            }
            ToGuest::LoadModule { name, params } => Loading::begin(name, &params).map(|loading| {
                self.loading.insert(request, loading);
            }),
            ToGuest::Data(bytes) if let Some(loading) = self.loading.get_mut(&request) => loading.add(&bytes),
            ToGuest::DataEnd if let Some(loading) = self.loading.remove(&request) => loading.load(request, &shared),
            ToGuest::Op(Op::UnloadModule(name)) => modules::unload(request, &name, &shared),
            ToGuest::Data(bytes) => match self.writing.get_mut(&request) {
                // After a failure the host still sends what was on its way.
                None => Ok(()),
                Some(writing) => writing.add(request, bytes, working, &shared),
            },
            ToGuest::DataEnd => match self.writing.remove(&request) {
                None => Ok(()),
                Some(writing) => writing.finish(request, working, out),
            },
            ToGuest::Op(Op::Open(wanted)) => files::open(&shared, request, wanted, working),
            ToGuest::ListDir(path) => paths::list(&path, request, out),
            ToGuest::Tail(source, start) => tail::tail(&shared, request, source, start, self.proc()),
            ToGuest::FdStream(fd) => tail::fd_stream(&shared, request, fd),
            ToGuest::Poweroff => poweroff(),
            ToGuest::Op(Op::Quiesce) if !shared.is_worker => {
                // The I/O thread answers: nothing is said or read behind that.
                *shared.quiet.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
                shared.wake();
                Ok(())
            }
            ToGuest::Op(op) => self.op(op).map(|reply| out.reply(request, reply)),
            ToGuest::Syscall(call) => {
                let outcome = syscalls::call(&call, &shared)?;
                if outcome.errno == 0 && syscalls::moves(&call) {
                    // The test has chosen where this thread is: PID 1 is not followed any more.
                    self.root = None;
                }
                out.returned(request, outcome, working);
                Ok(())
            }
            ToGuest::SyscallAsync(call) => syscalls::call_async(request, call, &shared),
            ToGuest::Ioctl(call) => {
                let outcome = syscalls::ioctl(&call)?;
                out.returned(request, outcome, working);
                Ok(())
            }
            ToGuest::ReadMemory { address, count } => {
                let send = |piece| {
                    if working.given_up() {
                        Err(io::ErrorKind::BrokenPipe.into())
                    } else {
                        out.send(request, &ToHost::Data(piece))
                    }
                };
                syscalls::read_memory(address, count, send).map(|()| out.done(request))
            }
            ToGuest::Wait(what) => waits::wait(request, what, self.proc(), &shared),
            ToGuest::Sleep(time) => waits::sleep(request, time, &shared),
            // Done by the I/O thread, and by `perform`.
            ToGuest::KernelLog { .. }
            | ToGuest::Ping
            | ToGuest::Cancel
            | ToGuest::Stdin(_)
            | ToGuest::StdinEnd
            | ToGuest::Signal(_) => Ok(()),
        }
    }

    /// A `/proc` of the agent's own.
    fn proc(&self) -> Option<OwnedFd> {
        self.root.as_ref().and_then(|root| root.proc.try_clone().ok())
    }

    /// A short operation with one answer.
    fn op(&mut self, op: Op) -> Result<OpReply, OpError> {
        match op {
            Op::Stat { path, follow } => paths::stat(&path, follow),
            Op::Exists(path) => Ok(paths::exists(&path)),
            Op::Mkdir { path, parents, perm } => paths::mkdir(&path, parents, perm),
            Op::Unlink(path) => paths::unlink(&path),
            Op::Rename { from, to } => paths::rename(&from, &to),
            Op::Symlink { target, path } => paths::symlink(&target, &path),
            Op::SetHosts(text) => hosts::set(&text),
            Op::Seek { fd, offset, whence } => {
                let whence = match whence {
                    Whence::Set => libc::SEEK_SET,
                    Whence::Current => libc::SEEK_CUR,
                    Whence::End => libc::SEEK_END,
                };
                on_descriptor("seek", fd, paths::seek(fd, offset, whence))
            }
            Op::Sync(fd) => on_descriptor("sync", fd, paths::sync(fd)),
            Op::Truncate { fd, length } => on_descriptor("truncate", fd, paths::truncate(fd, length)),
            Op::Close(fd) => on_descriptor("close", fd, paths::close(fd)),
            Op::FindDisk { serial, rescan } => disks::node(&serial, rescan, self.shared.sysfs.as_ref())
                .map_err(|error| refusal("disk", &serial, &error, "")),
            // Answers by itself: `act`.
            Op::Open(_) => Err(unsupported("open_file")),
            // Done by the I/O thread, and by `act`.
            Op::GetClock | Op::SetClock(_) | Op::UnloadModule(_) | Op::Wake(_) => Err(unsupported("operation")),
            Op::Quiesce => Err(unsupported("snapshot")),
            Op::WatchPowerButton => Err(unsupported("power_button")),
        }
    }

    fn run(&self, request: u32, run: &RunRequest) -> Result<(), OpError> {
        let op = if run.program == Program::Worker { "spawn_worker" } else { "run" };
        let (argv, program) = match &run.program {
            Program::Shell(line) => (vec![b"/bin/sh".to_vec(), b"-c".to_vec(), line.clone()], None),
            Program::Argv(argv) => (argv.clone(), None),
            Program::Worker => {
                let program = self.shared.program.as_ref().map(AsRawFd::as_raw_fd).ok_or_else(|| unsupported(op))?;
                (worker::WORDS.map(|word| word.to_bytes().to_vec()).to_vec(), Some(program))
            }
        };
        let name = argv.first().cloned().unwrap_or_default();
        let user = match &run.user {
            None => None,
            Some(user) => {
                Some(users::find(user).map_err(|error| refusal(op, user.as_bytes(), &error, "as this user: "))?)
            }
        };
        let env = environment(run, user.as_ref());
        let limit = run.timeout_ms.map(Duration::from_millis);
        let announce = run.announce.then_some(&self.shared.out);
        self.shared.processes.start(request, limit, announce, || {
            let pipes = |error: io::Error| refusal(op, &name, &error, "a pipe can't be had");
            let (stdio, pipes) = channels(run, self.proc()).map_err(pipes)?;
            let ends_with_us = self.shared.is_worker;
            let command = Command { argv, program, env, cwd: run.cwd.clone(), user, ends_with_us, stdio };
            let pid = spawn::spawn(&command).map_err(|(stage, error)| match stage {
                Stage::Setup => refusal(op, &name, &error, "the process can't be set up"),
                Stage::Directory => {
                    refusal(op, command.cwd.as_deref().unwrap_or_default(), &error, "as working directory")
                }
                Stage::User => refusal(op, run.user.as_deref().unwrap_or_default().as_bytes(), &error, "as this user"),
                Stage::Program => refusal(op, &name, &error, ""),
            })?;
            Ok((pid, pipes))
        })?;
        if limit.is_some() {
            // The I/O thread must look at its deadlines again.
            self.shared.wake();
        }
        Ok(())
    }
}

fn on_descriptor(op: &'static str, fd: i32, result: io::Result<OpReply>) -> Result<OpReply, OpError> {
    result.map_err(|error| Target::descriptor(op, fd).refuse(&error))
}

/// A process's standard input, output and error, and our ends of them. A worker has one channel for both directions, and
/// `proc` in its place where that is followed: see [`worker::main`].
fn channels(run: &RunRequest, proc: Option<OwnedFd>) -> io::Result<([OwnedFd; 3], Pipes)> {
    let (from_stderr, stderr) = sys::pipe()?;
    if run.program == Program::Worker {
        let (ours, theirs) = worker::channel()?;
        let pipes = Pipes { stdin: Some(ours.try_clone()?), stdout: ours, stderr: from_stderr };
        let second = proc.map_or_else(|| theirs.try_clone(), Ok)?;
        return Ok(([theirs, second, stderr], pipes));
    }
    let (stdin, to_stdin) = if run.stdin {
        let (read, write) = sys::pipe()?;
        (read, Some(write))
    } else {
        (null_device()?, None)
    };
    let (from_stdout, stdout) = sys::pipe()?;
    Ok(([stdin, stdout, stderr], Pipes { stdin: to_stdin, stdout: from_stdout, stderr: from_stderr }))
}

fn unsupported(op: &str) -> OpError {
    refusal(op, b"", &io::Error::from_raw_os_error(libc::ENOSYS), "")
}

/// `/dev/null`, or an empty pipe's reading end where the guest has none.
fn null_device() -> io::Result<OwnedFd> {
    sys::open(b"/dev/null", libc::O_RDONLY, 0).or_else(|_| sys::pipe().map(|(read, _)| read))
}

fn environment(run: &RunRequest, user: Option<&users::User>) -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    let mut variables: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut set = |name: Vec<u8>, value: Vec<u8>| match variables.iter_mut().find(|(known, _)| *known == name) {
        Some((_, old)) => *old = value,
        None => variables.push((name, value)),
    };
    if !run.env_clear {
        for (name, value) in std::env::vars_os() {
            set(name.into_vec(), value.into_vec());
        }
        if std::env::var_os("PATH").is_none() {
            set(b"PATH".to_vec(), DEFAULT_PATH.into());
        }
        if let Some((home, name)) = user.and_then(|user| user.home.clone()) {
            for variable in ["USER", "LOGNAME"] {
                set(variable.into(), name.clone().into());
            }
            set(b"HOME".to_vec(), home.into());
        }
    }
    for (name, value) in &run.env {
        set(name.clone(), value.clone());
    }
    variables.into_iter().map(|(name, value)| [name, value].join(&b'=')).collect()
}

fn poweroff() -> Result<(), OpError> {
    // SAFETY: no preconditions.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    Err(refusal("shutdown", b"power off", &io::Error::last_os_error(), ""))
}
