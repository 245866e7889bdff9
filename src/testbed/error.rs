//! What can go wrong with a machine.

use std::fmt;
use std::time::Duration;

use crate::agent_client::AgentError;
use crate::agent_protocol::{errno_name, errno_text};
use crate::foundation::duration::format_duration;
use crate::foundation::path_error::{PathError, describe_io};
use crate::project::UnknownProfile;
use crate::qemu::QemuError;

/// How a guest went away by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// Its kernel panicked; the kernel's own line, where the console has one.
    Panicked(Option<String>),
    /// It powered off.
    PoweredOff,
    /// It reset itself.
    Reset,
    /// Its CPU met a triple fault.
    TripleFault,
    /// QEMU ended; its status and last words.
    QemuEnded(String),
    /// The agent's channel broke.
    AgentLost(String),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(Some(line)) => write!(f, "the guest's kernel panicked: {line}"),
            Self::Panicked(None) => f.write_str("the guest's kernel panicked"),
            Self::PoweredOff => f.write_str("the guest powered off by itself"),
            Self::Reset => f.write_str("the guest reset itself"),
            Self::TripleFault => f.write_str("the guest's CPU met a triple fault"),
            Self::QemuEnded(how) => write!(f, "QEMU ended: it {how}"),
            Self::AgentLost(why) => write!(f, "the agent in the guest is gone: {why}"),
        }
    }
}

/// A failed operation on a machine.
#[derive(Debug)]
pub enum VmError {
    /// The waiting test must end.
    Cancelled,
    /// The profile is not in provium.toml.
    UnknownProfile {
        /// The VM that asked.
        vm: String,
        /// What is there instead.
        source: UnknownProfile,
    },
    /// There is no provium.toml, hence no profile.
    NoConfig,
    /// The operation needs another state.
    State {
        /// The VM.
        vm: String,
        /// The operation, as Lua names it.
        op: &'static str,
        /// The state it is in.
        state: &'static str,
    },
    /// The test or file that created it has ended.
    Retired {
        /// The VM.
        vm: String,
        /// The operation.
        op: &'static str,
        /// The test; none for a VM of file scope.
        test: Option<String>,
    },
    /// A file or value of the profile can't be used.
    Image {
        /// The VM.
        vm: String,
        /// The profile.
        profile: String,
        /// The profile's key: `kernel`, `initrd`, …
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The machine this runs on can't boot any VM.
    Environment(String),
    /// QEMU or its control channel failed.
    Qemu {
        /// The VM.
        vm: String,
        /// The operation, as Lua names it.
        op: &'static str,
        /// The cause.
        source: QemuError,
    },
    /// The agent did not answer in time.
    BootTimeout {
        /// The VM.
        vm: String,
        /// The operation: `boot`, `reset`, `wait_reboot`.
        op: &'static str,
        /// How long was waited.
        waited: Duration,
        /// What the guest's console said last.
        console: String,
    },
    /// The guest can't be used although it came up.
    BootFailed {
        /// The VM.
        vm: String,
        /// As above.
        op: &'static str,
        /// Why.
        message: String,
        /// What the guest's console said last.
        console: String,
    },
    /// The guest went away.
    Dead {
        /// The VM.
        vm: String,
        /// What was being done.
        op: &'static str,
        /// How it went away.
        death: Death,
        /// What its console said last.
        console: String,
    },
    /// The guest refused an operation.
    Agent {
        /// The VM.
        vm: String,
        /// The cause: operation, path or program, errno.
        source: AgentError,
    },
    /// A file of the host that an operation needs can't be used.
    HostFile {
        /// The VM.
        vm: String,
        /// The operation.
        op: &'static str,
        /// The file and why.
        source: PathError,
    },
    /// A worker refused an operation.
    WorkerAgent {
        /// The VM.
        vm: String,
        /// The cause: operation, path or program, errno.
        source: AgentError,
    },
    /// A worker is gone.
    Worker {
        /// The VM.
        vm: String,
        /// What was asked of it.
        op: &'static str,
        /// How it went.
        why: String,
    },
    /// A process can't do what is asked of it.
    Process {
        /// The VM.
        vm: String,
        /// What was asked.
        op: &'static str,
        /// Its command.
        command: String,
        /// Why not.
        why: String,
    },
    /// An operation that failed, with its name and why.
    Failed {
        /// The VM.
        vm: String,
        /// The operation, what it was applied to, and why.
        message: String,
    },
    /// A file of this run could not be written or read.
    File(PathError),
    /// The machine was reset or taken down meanwhile.
    Interrupted {
        /// The VM.
        vm: String,
        /// The operation.
        op: &'static str,
        /// What was done to it.
        why: String,
    },
    /// What was waited for did not come.
    Timeout {
        /// The VM.
        vm: String,
        /// The operation.
        op: &'static str,
        /// What did not happen: `the guest did not power off`.
        what: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The operation makes no sense for this machine as it is.
    Refused {
        /// The VM.
        vm: String,
        /// The operation.
        op: &'static str,
        /// Why, and what to do about it.
        why: String,
    },
    /// A stored snapshot can't be used or written.
    Snapshot {
        /// Its directory.
        directory: String,
        /// Why.
        why: String,
    },
    /// A console.
    Console {
        /// The VM.
        vm: String,
        /// Which: `ttyS0`, `hvc0`.
        port: &'static str,
        /// What was tried, with its argument.
        op: String,
        /// Why it failed.
        why: String,
    },
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::UnknownProfile { vm, source } => write!(f, "vm `{vm}`: {source}"),
            Self::NoConfig => f.write_str(
                "there is no provium.toml, so there are no profiles\nhint: write one beside the tests or above them",
            ),
            Self::State { vm, op, state } => {
                write!(f, "vm `{vm}`: {op}: the VM is {}{}", described(state), hint(op, state))
            }
            Self::Retired { vm, op, test: Some(test) } => {
                write!(f, "vm `{vm}`: {op}: its test has ended (`{test}`), and the VM with it")
            }
            Self::Retired { vm, op, test: None } => {
                write!(f, "vm `{vm}`: {op}: its file has ended, and the VM with it")
            }
            Self::Image { vm, profile, key, message } => {
                write!(f, "vm `{vm}`: profile `{profile}`: `{key}`: {message}")
            }
            Self::Environment(message) => f.write_str(message),
            Self::Qemu { vm, op, source } => write!(f, "vm `{vm}`: {op}: {source}"),
            Self::BootTimeout { vm, op, waited, console } => {
                write!(
                    f,
                    "vm `{vm}`: {op}: the agent did not answer within {}{console}\nhint: the option `agent_timeout` or \
                     the profile's `timeout_scale` gives it longer",
                    format_duration(*waited)
                )
            }
            Self::BootFailed { vm, op, message, console } => write!(f, "vm `{vm}`: {op}: {message}{console}"),
            Self::Dead { vm, op, death, console } => write!(f, "vm `{vm}`: {op}: the VM is `dead`: {death}{console}"),
            Self::Agent { vm, source } => write!(f, "vm `{vm}`: {source}"),
            Self::HostFile { vm, op, source } => {
                write!(f, "vm `{vm}`: {op}: on the host: `{}`: {}", source.path.display(), errno_of(&source.source))
            }
            Self::WorkerAgent { vm, source } => write!(f, "vm `{vm}`: worker: {source}"),
            Self::Worker { vm, op, why } => write!(f, "vm `{vm}`: worker: {op}: {why}"),
            Self::Process { vm, op, command, why } => write!(f, "vm `{vm}`: {op}: `{command}`: {why}"),
            Self::Failed { vm, message } => write!(f, "vm `{vm}`: {message}"),
            Self::File(source) => source.fmt(f),
            Self::Interrupted { vm, op, why } | Self::Refused { vm, op, why } => write!(f, "vm `{vm}`: {op}: {why}"),
            Self::Timeout { vm, op, what, waited } => {
                write!(f, "vm `{vm}`: {op}: {what} within {}", format_duration(*waited))
            }
            Self::Snapshot { directory, why } => write!(f, "snapshot `{directory}`: {why}"),
            Self::Console { vm, port, op, why } => write!(f, "vm `{vm}`: console `{port}`: {op}: {why}"),
        }
    }
}

/// An error of the host as those of the guest are shown.
fn errno_of(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => format!("{} ({})", errno_name(errno), errno_text(errno)),
        None => describe_io(error),
    }
}

/// The state by its name, and what it means.
fn described(state: &str) -> String {
    match state {
        "created" => "`created`, not booted".to_owned(),
        "shutdown" => "shut down (`shutdown`)".to_owned(),
        state => format!("`{state}`"),
    }
}

fn hint(op: &str, state: &str) -> &'static str {
    match (op, state) {
        ("restore", "booted" | "paused") => "\nhint: `:shutdown()` comes before `:restore()`",
        ("boot", "booted" | "paused") => "\nhint: `:shutdown()` comes before another `:boot()`",
        ("boot", _) => "",
        ("restore", _) => "",
        (_, "created" | "shutdown") => "\nhint: call `:boot()` first",
        (_, "paused") => "\nhint: call `:resume()` first",
        _ => "",
    }
}

impl std::error::Error for VmError {}
