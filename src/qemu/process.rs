//! A QEMU process: started over inherited sockets, watched, killed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::arguments::{MachineSpec, arguments};
use super::console::plain;
use super::error::QemuError;
use super::find::QemuBinary;
use super::qmp::Qmp;
use crate::foundation::path_error::describe_io;
use crate::foundation::process;

/// How much of QEMU's standard error is kept, in bytes.
const LAST_WORDS: usize = 16 * 1024;

/// How a guest, or its QEMU, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest powered off.
    Poweroff,
    /// The guest reset itself.
    Reset,
    /// The guest's kernel told of its panic.
    Panic,
    /// QEMU ended: its status and last words.
    Exited(String),
}

/// A running QEMU. Dropping it kills it.
pub struct QemuProcess {
    pid: u32,
    qmp: Qmp,
    exit: watch::Receiver<Option<String>>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<(String, Value)>>,
}

impl QemuProcess {
    /// Starts QEMU and waits until QMP answers. Returns the agent's channel with it.
    ///
    /// # Errors
    /// QEMU can't be started, or ends at once: the message holds its own words.
    pub async fn start(binary: &QemuBinary, spec: &MachineSpec) -> Result<(Self, UnixStream), QemuError> {
        let start = |error: io::Error| QemuError::Start(describe_io(&error));
        let (qmp, qmp_theirs) = std::os::unix::net::UnixStream::pair().map_err(start)?;
        let (agent, agent_theirs) = std::os::unix::net::UnixStream::pair().map_err(start)?;
        let mut command = Command::new(&binary.path);
        command
            .args(arguments(spec, qmp_theirs.as_raw_fd(), agent_theirs.as_raw_fd()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal is for provium, which takes its machines down in order.
            .process_group(0);
        let inherit = vec![OwnedFd::from(qmp_theirs), OwnedFd::from(agent_theirs)];
        let child = process::spawn(command, inherit)
            .map_err(|error| QemuError::Start(format!("`{}`: {}", binary.path.display(), describe_io(&error))))?;
        let pid = child.id();
        let guard = KillOnDrop(Some(pid));
        let exit = watch_exit(child);
        let connected = Qmp::connect(to_tokio(qmp).map_err(start)?).await;
        let (qmp, events) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                guard.kill();
                return Err(match wait_exit(exit).await {
                    how if how.contains("signal 9") => error,
                    how => QemuError::Ended(how),
                });
            }
        };
        guard.disarm();
        let agent = to_tokio(agent).map_err(start)?;
        Ok((Self { pid, qmp, exit, events: tokio::sync::Mutex::new(events) }, agent))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its control channel.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// Waits until the guest or QEMU ends. One task may wait at a time.
    pub async fn wait_for_end(&self) -> End {
        let mut events = self.events.lock().await;
        loop {
            let (name, data) = match events.recv().await {
                Some(event) => event,
                None => return End::Exited(wait_exit(self.exit.clone()).await),
            };
            let end = match (name.as_str(), data["reason"].as_str()) {
                ("GUEST_PANICKED", _) | ("SHUTDOWN", Some("guest-panic")) => Some(End::Panic),
                ("SHUTDOWN", Some("guest-reset")) => Some(End::Reset),
                ("SHUTDOWN", Some("guest-shutdown")) => Some(End::Poweroff),
                _ => None,
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Kills QEMU and waits until it is gone.
    pub async fn kill(&self) {
        if self.exit.borrow().is_none() {
            kill(self.pid);
        }
        wait_exit(self.exit.clone()).await;
    }
}

impl Drop for QemuProcess {
    fn drop(&mut self) {
        // Only while its number is still its own: the watching thread has not collected it.
        let exit = self.exit.borrow();
        if exit.is_none() {
            kill(self.pid);
        }
    }
}

fn to_tokio(stream: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn kill(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: a signal to a child of ours that was not collected yet.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Kills a QEMU whose start is given up.
struct KillOnDrop(Option<u32>);

impl KillOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }

    fn kill(&self) {
        if let Some(pid) = self.0 {
            kill(pid);
        }
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Collects the process on a thread of its own; its end is known at once.
fn watch_exit(mut child: Child) -> watch::Receiver<Option<String>> {
    let (sender, exit) = watch::channel(None);
    let words = Arc::new(Mutex::new(Vec::new()));
    let stderr = child.stderr.take();
    let kept = Arc::clone(&words);
    std::thread::spawn(move || {
        let reader = stderr.map(|mut stderr| std::thread::spawn(move || keep_last(&mut stderr, &kept)));
        let status = child.wait();
        if let Some(reader) = reader {
            // A helper of QEMU's that holds the pipe open would keep this waiting; QEMU has none.
            let _ = reader.join();
        }
        let words = words.lock().unwrap_or_else(PoisonError::into_inner);
        sender.send_replace(Some(describe(status, &words)));
    });
    exit
}

fn keep_last(stderr: &mut impl io::Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buffer[..count]);
        let surplus = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..surplus);
    }
}

fn describe(status: io::Result<ExitStatus>, words: &[u8]) -> String {
    let how = match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        },
        Err(error) => describe_io(&error),
    };
    match plain(words).trim() {
        "" => how,
        words => format!("{how}\n  {}", words.replace('\n', "\n  ")),
    }
}

async fn wait_exit(mut exit: watch::Receiver<Option<String>>) -> String {
    match exit.wait_for(Option::is_some).await {
        Ok(how) => how.clone().unwrap_or_default(),
        Err(_) => "an unknown status".to_owned(),
    }
}
