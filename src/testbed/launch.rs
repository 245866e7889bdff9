//! Starting a QEMU with its channels, its RAM and its logs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;

use super::bed::Testbed;
use super::console::Console;
use super::error::VmError;
use super::kernel_log::{KernelLog, Teller};
use super::ready::ReadyMachine;
use super::running::{Built, Consoles, Running};
use super::vm_disks::serve_all;
use crate::disks::Disk;
use crate::foundation::path_error::describe_io;
use crate::project::Profile;
use crate::qemu::{MachineSpec, QemuProcess, RamFile, RamKind};
use crate::run_events::{VmRef, VmStarted};

/// How long the kernel's log is quiet between two reports, before the accelerator's factor.
const QUIET: Duration = Duration::from_millis(250);

/// Whose QEMU is to be started.
pub struct Launch<'a> {
    /// The run.
    pub bed: &'a Testbed,
    /// The machine.
    pub vm: &'a VmRef,
    /// Its profile.
    pub profile: &'a Profile,
    /// Where its kernel comes from.
    pub kernel_store_path: Option<String>,
    /// What the author called.
    pub op: &'static str,
}

/// A QEMU that was started.
pub struct Launched {
    /// It and what is known of it.
    pub running: Arc<Running>,
    /// The agent's channel.
    channel: Option<UnixStream>,
    /// The cables of its network cards.
    cables: Vec<std::os::unix::net::UnixStream>,
    /// Whether it has taken in the state of another machine already.
    pub is_loaded: bool,
    /// The disks that it is connected with, in the order of its specification.
    pub disks: Vec<Arc<Disk>>,
    started: VmStarted,
}

impl Launched {
    /// The agent's channel, for whoever comes first.
    pub fn take_channel(&mut self) -> Option<UnixStream> {
        self.channel.take()
    }

    /// The cables of its network cards, for whoever comes first.
    pub fn take_cables(&mut self) -> Vec<std::os::unix::net::UnixStream> {
        std::mem::take(&mut self.cables)
    }

    /// Tells that it runs: its end is told as well from now on.
    pub fn announce(&self) {
        self.running.announce(self.started.clone());
    }
}

impl Launch<'_> {
    /// Starts QEMU; `stored` is the RAM of a machine that is copy-on-write, and the file of the state that it will take in; all
    /// others get RAM of their own. `disks` are those of `spec`; a QEMU that was started ahead has equal ones of its own.
    ///
    /// # Errors
    /// No RAM or logs to be had, a QEMU that does not start.
    pub async fn start(
        &self,
        mut spec: MachineSpec,
        stored: Option<(RamFile, &Path)>,
        disks: Vec<Arc<Disk>>,
    ) -> Result<Launched, VmError> {
        let machine = self.bed.machine().await?;
        let settings = &self.bed.shared.settings;
        // Each start has logs of its own: a machine may have two QEMUs for a moment.
        let start = self.bed.next_start();
        let file = |what: &str| settings.runtime_dir.join(format!("vm-{}.{start}.{what}.log", self.vm.vm_id));
        spec.reset_log = file("reset");
        let (ram, state) = stored.map_or((None, None), |(ram, state)| (Some(ram), Some(state)));
        let ram = match (spec.ram, ram) {
            (RamKind::Own, _) => None,
            (RamKind::Private, Some(ram)) => Some(ram),
            (RamKind::Shared | RamKind::Private, _) => Some(RamFile::in_memory(spec.ram_size()).map_err(no_ram)?),
        };
        let ahead = match (&ram, state) {
            (Some(ram), Some(state)) => self.bed.shared.ready.take(&spec, ram, state).await,
            _ => None,
        };
        let ReadyMachine { spec, qemu, ends, disks, is_loaded } = match ahead {
            Some(ready) => ready,
            None => {
                let served = serve_all(&disks)
                    .map_err(|error| VmError::Environment(format!("disks can't be served: {}", describe_io(&error))))?;
                let started = QemuProcess::start(machine.qemu(), &spec, ram.as_ref(), served).await;
                let failed = |source| VmError::Qemu { vm: self.vm.vm.clone(), op: self.op, source };
                let (qemu, ends) = started.map_err(failed)?;
                ReadyMachine { spec, qemu, ends, disks, is_loaded: false }
            }
        };
        let consoles = Consoles {
            serial: Console::open(ends.serial, file("ttyS0")).map_err(VmError::File)?,
            virtio: Console::open(ends.virtio, file("hvc0")).map_err(VmError::File)?,
        };
        let channel = UnixStream::from_std(ends.agent).map_err(|error| {
            VmError::Environment(format!("the agent's channel can't be used: {}", describe_io(&error)))
        })?;
        let started = VmStarted {
            vm: self.vm.clone(),
            profile: self.profile.name.clone(),
            pid: qemu.pid(),
            accelerator: machine.accel().name().to_owned(),
            kernel: spec.kernel.display().to_string(),
            kernel_store_path: self.kernel_store_path.clone(),
            cmdline: spec.cmdline.clone(),
        };
        let log = self.kernel_log(&consoles);
        let built = Built { spec, ram };
        let running = Running::new(self.vm.clone(), settings.sink.clone(), qemu, consoles, built, log);
        let (channel, cables) = (Some(channel), ends.cards);
        Ok(Launched { running: Arc::new(running), channel, cables, disks, is_loaded, started })
    }

    fn kernel_log(&self, consoles: &Consoles) -> KernelLog {
        let bed = self.bed;
        let teller = Teller {
            vm: self.vm.clone(),
            policy: self.profile.splats,
            sink: bed.shared.settings.sink.clone(),
            desk: bed.splats().clone(),
            artifacts: bed.artifacts().clone(),
        };
        let logs = consoles.both().into_iter().map(|console| console.log().to_owned()).collect();
        KernelLog::start(teller, logs, bed.scaled(QUIET, self.profile))
    }
}

fn no_ram(error: io::Error) -> VmError {
    VmError::Environment(format!("no memory for a guest can be had: {}", describe_io(&error)))
}
