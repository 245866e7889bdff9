//! Events of the run as a whole.

use serde::{Deserialize, Serialize};

/// The first event of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// Provium's own version.
    pub version: String,
    /// The QEMU of the run, where it is known before the first boot.
    pub qemu: Option<QemuInfo>,
    /// `kvm` or `tcg`, where it is known before the first boot.
    pub accelerator: Option<String>,
    /// The machine that runs the tests.
    pub host: HostInfo,
    /// The `provium.toml` in use.
    pub config: Option<String>,
}

/// Which QEMU, and who named it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuInfo {
    /// The program.
    pub path: String,
    /// As `--version` says it, such as `10.0.13`.
    pub version: String,
    /// Where the path comes from: `--qemu`, `PROVIUM_QEMU`, `[provium] qemu`, `PROVIUM_DEFAULT_QEMU`, `PATH`.
    pub origin: String,
}

/// The machine that runs the tests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// The distribution's own name for itself.
    pub os: String,
    /// The kernel's release, `uname -r`.
    pub release: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
}

/// The accelerator was probed, at the first boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceleratorChosen {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Why this one.
    pub reason: String,
    /// The QEMU it was probed with.
    pub qemu: Option<QemuInfo>,
}

/// Something to know that is no failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// All passed or skipped.
    Passed,
    /// A test failed or timed out, or a file did not load.
    Failed,
    /// Usage, configuration or the environment.
    Error,
    /// Nothing was selected.
    Empty,
    /// A signal.
    Interrupted,
    /// A bug in provium.
    Bug,
}

/// Numbers of a run, counted by the stream itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Tests that passed, without flaky ones.
    pub passed: u64,
    /// Tests that failed, without timed-out ones.
    pub failed: u64,
    /// Tests that were skipped.
    pub skipped: u64,
    /// Tests that timed out.
    pub timed_out: u64,
    /// Tests that passed on a retry.
    pub flaky: u64,
    /// Files discovered.
    pub files: u64,
    /// Files that broke apart from their tests.
    pub files_broken: u64,
    /// Files that the run did not get to, or not through.
    pub files_not_run: u64,
}

/// The last event of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunDone {
    /// How it ended.
    pub status: RunStatus,
    /// The process's exit code.
    pub exit_code: u8,
    /// Seconds.
    pub duration: f64,
    /// The numbers.
    pub counts: Counts,
}
