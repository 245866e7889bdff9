//! A QEMU process: started over inherited socket pairs, watched, ended.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::arguments::{AGENT_PORT_ID, Channels, MachineSpec, arguments};
use super::console::plain;
use super::error::{QemuError, QmpError};
use super::find::QemuBinary;
use super::hotplug::FreePorts;
use super::qmp::Qmp;
use super::ram::RamFile;
use crate::foundation::path_error::describe_io;
use crate::foundation::process::spawn;

/// How long QEMU may take to greet; 40 ms on an idle machine.
const GREETING_DEADLINE: Duration = Duration::from_secs(60);
/// How long a QEMU that closed its control channel may take to end.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How much of QEMU's stderr is kept; what comes later is dropped by the kernel.
const STDERR_BYTES: usize = 64 * 1024;
/// The thread that waits for a child needs next to no stack.
const WAITER_STACK: usize = 64 * 1024;

/// How a QEMU ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuExit {
    /// Its status; `None` where the operating system did not tell.
    pub status: Option<ExitStatus>,
    /// What it wrote to stderr, without surrounding white space, 64 KiB at most.
    pub stderr: String,
}

impl fmt::Display for QemuExit {
    /// A fragment that continues "QEMU …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            None => write!(f, "ended")?,
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exited with status {code}")?,
                (None, Some(signal)) => write!(f, "was killed by signal {signal}")?,
                (None, None) => write!(f, "ended")?,
            },
        }
        match self.stderr.as_str() {
            "" => Ok(()),
            words => write!(f, ", saying:\n  {}", words.replace('\n', "\n  ")),
        }
    }
}

/// The host's ends of a QEMU's channels; none of them blocks.
#[derive(Debug)]
pub struct HostEnds {
    /// The agent's port.
    pub agent: UnixStream,
    /// The serial console.
    pub serial: UnixStream,
    /// `hvc0`.
    pub virtio: UnixStream,
    /// The cables of the network cards, in the order of the specification.
    pub cards: Vec<UnixStream>,
}

/// A running QEMU. Dropping it kills the process; `kill` also waits until it is gone.
#[derive(Debug)]
pub struct QemuProcess {
    watched: Watched,
    qmp: Qmp,
    ports: FreePorts,
}

impl QemuProcess {
    /// Starts QEMU and waits for its QMP greeting; the guest is running by then. `ram` is the file of its RAM, where `spec` says
    /// that it has one; `disks` are the ends that its disks are served on. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `Start` with QEMU's own words when it ends at once, `Qmp` when it does not greet.
    pub async fn start(
        binary: &QemuBinary,
        spec: &MachineSpec,
        ram: Option<&RamFile>,
        disks: Vec<OwnedFd>,
    ) -> Result<(Self, HostEnds), QemuError> {
        let refuse = |error: io::Error| start_error(&binary.path, &describe_io(&error));
        let (qmp_ours, qmp) = socket_pair().map_err(refuse)?;
        let (agent_ours, agent) = socket_pair().map_err(refuse)?;
        let (serial_ours, serial) = socket_pair().map_err(refuse)?;
        let (virtio_ours, virtio) = socket_pair().map_err(refuse)?;
        let stderr = stderr_file().map_err(refuse)?;
        let ram = ram.map(RamFile::share).transpose().map_err(refuse)?;
        let channels = Channels {
            qmp: qmp.as_raw_fd(),
            agent: agent.as_raw_fd(),
            serial: serial.as_raw_fd(),
            virtio: virtio.as_raw_fd(),
            ram: ram.as_ref().map(AsRawFd::as_raw_fd),
        };
        let mut command = Command::new(&binary.path);
        let (mut cards, mut card_ends) = (Vec::new(), Vec::new());
        for _ in &spec.cards {
            let (ours, theirs) = socket_pair().map_err(refuse)?;
            cards.push(ours);
            card_ends.push(theirs);
        }
        let numbers: Vec<_> = card_ends.iter().map(AsRawFd::as_raw_fd).collect();
        let served: Vec<_> = disks.iter().map(AsRawFd::as_raw_fd).collect();
        command.args(arguments(spec, channels, &served, &numbers));
        let inherited = [qmp, agent, serial, virtio].into_iter().chain(ram).chain(card_ends).chain(disks).collect();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.try_clone().map_err(refuse)?);
        // Ctrl-C on the terminal is for provium, which takes its machines down in order.
        command.process_group(0);
        // Watched from the start: where this future is dropped half-way, the child still ends.
        let start = move || Watched::new(spawn(command, inherited)?, stderr);
        let started = tokio::task::spawn_blocking(start).await;
        let watched = started.map_err(io::Error::other).and_then(|started| started).map_err(refuse)?;
        let qmp_stream = tokio::net::UnixStream::from_std(qmp_ours).map_err(refuse)?;
        match Qmp::connect(qmp_stream, AGENT_PORT_ID, GREETING_DEADLINE).await {
            Ok(qmp) => {
                let ends = HostEnds { agent: agent_ours, serial: serial_ours, virtio: virtio_ours, cards };
                let ports = FreePorts::default();
                for (port, id) in spec.disks.in_free_ports() {
                    ports.take_port(port, id);
                }
                Ok((Self { watched, qmp, ports }, ends))
            }
            Err(error) => Err(watched.why_not_started(&binary.path, error).await),
        }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.watched.pid
    }

    /// The ports that devices can be plugged into.
    pub fn ports(&self) -> &FreePorts {
        &self.ports
    }

    /// The control channel.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// Becomes `Some` the moment the process is gone.
    pub fn exit_watch(&self) -> watch::Receiver<Option<Arc<QemuExit>>> {
        self.watched.exit.clone()
    }

    /// Waits until the process is gone.
    pub async fn wait(&self) -> Arc<QemuExit> {
        wait_for_exit(self.watched.exit.clone()).await
    }

    /// Stops the process where it is: nothing that its guest does gets out any more.
    pub fn freeze(&self) {
        send_signal(&self.watched.pidfd, libc::SIGSTOP);
    }

    /// Kills the process and waits until it is gone and reaped. Nothing happens where it already is.
    pub async fn kill(&self) -> Arc<QemuExit> {
        send_kill(&self.watched.pidfd);
        self.wait().await
    }
}

/// A child and the thread that waits for it. Dropping it kills the child.
#[derive(Debug)]
struct Watched {
    pid: u32,
    pidfd: OwnedFd,
    exit: watch::Receiver<Option<Arc<QemuExit>>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The waiting thread reaps it, also where the runtime is already gone.
        send_kill(&self.pidfd);
    }
}

impl Watched {
    fn new(mut child: Child, stderr: File) -> io::Result<Self> {
        let pid = child.id();
        let (pidfd, (sender, exit)) = match open_pidfd(pid) {
            Ok(pidfd) => (pidfd, watch::channel(None)),
            Err(error) => {
                reap(&mut child);
                return Err(error);
            }
        };
        let waiter = std::thread::Builder::new().name(format!("qemu-{pid}")).stack_size(WAITER_STACK);
        let waiting = waiter.spawn(move || {
            let status = child.wait().ok();
            let stderr = read_stderr(&stderr);
            // With no receiver left there is nobody to tell.
            let _ = sender.send(Some(Arc::new(QemuExit { status, stderr })));
        });
        match waiting {
            Ok(_) => Ok(Self { pid, pidfd, exit }),
            Err(error) => {
                // The child went with the closure and can't be waited for; it dies with this process at the latest.
                send_kill(&pidfd);
                Err(error)
            }
        }
    }

    async fn why_not_started(self, program: &Path, error: QmpError) -> QemuError {
        // Where it closed the channel it is about to end by itself; what it said is complete only then.
        let by_itself = matches!(error, QmpError::Closed { .. })
            && tokio::time::timeout(LAST_WORDS, wait_for_exit(self.exit.clone())).await.is_ok();
        send_kill(&self.pidfd);
        let exit = wait_for_exit(self.exit.clone()).await;
        if !by_itself {
            error.into()
        } else if exit.stderr.is_empty() {
            start_error(program, &format!("it {exit} without a word"))
        } else {
            start_error(program, &exit.stderr)
        }
    }
}

fn start_error(program: &Path, problem: &str) -> QemuError {
    QemuError::Start(format!("`{}`: {problem}", program.display()))
}

async fn wait_for_exit(mut exit: watch::Receiver<Option<Arc<QemuExit>>>) -> Arc<QemuExit> {
    match exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone()) {
        Some(exit) => exit,
        // The waiting thread ended without a word, which it never does.
        None => Arc::new(QemuExit { status: None, stderr: String::new() }),
    }
}

/// Our end does not block, as tokio wants it; QEMU's end is a description of its own.
fn socket_pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs.into()))
}

/// A memory file of fixed size: QEMU's writes never block and never take more memory.
fn stderr_file() -> io::Result<File> {
    // SAFETY: the name is a NUL-terminated literal.
    let fd = unsafe { libc::memfd_create(c"qemu-stderr".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(STDERR_BYTES as u64)?;
    // SAFETY: takes integers only.
    if unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_GROW | libc::F_SEAL_SHRINK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

fn read_stderr(file: &File) -> String {
    let mut bytes = vec![0; STDERR_BYTES];
    // Reads at an offset, since QEMU's writes moved the shared position.
    let count = file.read_at(&mut bytes, 0).unwrap_or(0);
    let written = bytes[..count].split(|byte| *byte == 0).next().unwrap_or_default();
    plain(written).trim().to_owned()
}

fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only. The child is not reaped yet, so the id is its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and owned by nobody else; the kernel made it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A process that has already ended can't be signalled, which is as good.
fn send_kill(pidfd: &OwnedFd) {
    send_signal(pidfd, libc::SIGKILL);
}

fn send_signal(pidfd: &OwnedFd, signal: i32) {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null pointer asks the kernel to fill in the information itself.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) };
}

fn reap(child: &mut Child) {
    // Both fail only where it is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(script: &str) -> Watched {
        let stderr = stderr_file().unwrap();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).stdin(Stdio::null()).stderr(stderr.try_clone().unwrap());
        Watched::new(spawn(command, Vec::new()).unwrap(), stderr).unwrap()
    }

    #[tokio::test]
    async fn an_exit_comes_with_status_and_words() {
        let watched = watched("echo oops >&2; exit 3");
        let exit = wait_for_exit(watched.exit.clone()).await;
        assert_eq!(exit.to_string(), "exited with status 3, saying:\n  oops");
    }

    #[tokio::test]
    async fn a_kill_is_seen() {
        let watched = watched("exec sleep 1000");
        send_kill(&watched.pidfd);
        assert_eq!(wait_for_exit(watched.exit.clone()).await.to_string(), "was killed by signal 9");
        send_kill(&watched.pidfd);
        assert!(!Path::new(&format!("/proc/{}", watched.pid)).exists());
    }

    #[tokio::test]
    async fn endless_words_are_cut() {
        let line = "a line of some fifty bytes for the stderr file";
        let script = &format!("i=0; while [ $i -lt 3000 ]; do echo '{line}' >&2; i=$((i+1)); done; true");
        let watched = watched(script);
        let exit = wait_for_exit(watched.exit.clone()).await;
        assert!(exit.stderr.len() > STDERR_BYTES / 2 && exit.stderr.len() <= STDERR_BYTES);
    }
}
