//! Events of virtual machines.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which machine an event is about. Names repeat between tests and labs, `vm_id` is one machine's alone; one that was stopped
/// may be started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRef {
    /// Unique in the run, from [`EventSink::next_vm_id`](super::EventSink::next_vm_id).
    pub vm_id: u64,
    /// The name that the test gave it.
    pub vm: String,
    /// The test file that owns it.
    pub file: String,
    /// The test that owns it; none for a machine of the file's scope.
    pub test: Option<String>,
}

/// QEMU runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStarted {
    /// Which machine.
    #[serde(flatten)]
    pub vm: VmRef,
    /// The profile's name.
    pub profile: String,
    /// QEMU's process id on the host.
    pub pid: u32,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// The kernel image that is booted.
    pub kernel: String,
    /// The store path that the kernel comes from, where it is a Nix value.
    pub kernel_store_path: Option<String>,
    /// The effective kernel command line.
    pub cmdline: String,
}

/// How a machine came to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootHow {
    /// The kernel was booted.
    Boot,
    /// A snapshot was restored.
    Restore,
}

/// The agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmReady {
    /// Which machine.
    #[serde(flatten)]
    pub vm: VmRef,
    /// Booted or restored.
    pub how: BootHow,
    /// From the start of QEMU to the agent's first word, in seconds.
    pub duration: f64,
    /// Seconds by phase, for example `qemu`, `kernel`, `agent`.
    pub phases: BTreeMap<String, f64>,
    /// `uname -r` as the guest says it.
    pub kernel_release: String,
}

/// Why a machine is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The test said `shutdown`.
    Shutdown,
    /// The test cut its power.
    PowerCut,
    /// The guest powered off or reset by itself.
    GuestEnded,
    /// The guest's kernel panicked.
    Panicked,
    /// QEMU ended without being asked.
    QemuDied,
    /// The agent went silent and was given up.
    AgentLost,
    /// It never became ready.
    BootFailed,
    /// A snapshot took its place.
    Restored,
    /// The scope that owned it ended: the test, or the file for a machine of file scope.
    ScopeEnded,
    /// The test's or the file's time was up.
    TimedOut,
    /// The run was interrupted.
    Interrupted,
    /// Nobody said why: a bug in provium; written by the stream itself at the end of the run.
    Unknown,
}

impl StopReason {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Shutdown => "shut down",
            Self::PowerCut => "power cut",
            Self::GuestEnded => "the guest ended it",
            Self::Panicked => "the guest's kernel panicked",
            Self::QemuDied => "QEMU died",
            Self::AgentLost => "the agent went silent",
            Self::BootFailed => "boot failed",
            Self::Restored => "restored to a snapshot",
            Self::ScopeEnded => "end of scope",
            Self::TimedOut => "timed out",
            Self::Interrupted => "interrupted",
            Self::Unknown => "unknown",
        }
    }
}

/// QEMU is gone, and what belonged to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStopped {
    /// Which machine.
    #[serde(flatten)]
    pub vm: VmRef,
    /// Why.
    pub reason: StopReason,
    /// More about it: QEMU's last words, an exit status.
    pub detail: Option<String>,
}

/// The guest's kernel panicked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPanic {
    /// Which machine.
    #[serde(flatten)]
    pub vm: VmRef,
    /// The kernel's line, where the console has one.
    pub message: String,
}

/// The guest's kernel reported something: a warning, an oops, a stall, what a sanitizer found, …
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSplat {
    /// Which machine: unique in the run.
    pub vm_id: u64,
    /// The name that the test gave it.
    pub vm: String,
    /// The test file that owns it.
    pub file: String,
    /// The test that ran; none between tests.
    pub test: Option<String>,
    /// The report's kind: `kasan`, `kfence`, `kmsan`, `kcsan`, `ubsan`, `bug`, `warning`, `lockdep`, `rcu_stall`, `hung_task`,
    /// `soft_lockup`, `hard_lockup` or `oops`.
    pub splat: String,
    /// Its most telling line.
    pub title: String,
    /// All of it.
    pub report: String,
}
