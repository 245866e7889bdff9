//! QEMUs that were started ahead: a restore with the arguments of an earlier one finds one that has the state and only waits
//! for the word to go on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;

use super::bed::Testbed;
use super::vm_disks::serve_all;
use crate::disks::Disk;
use crate::qemu::{Accel, HostEnds, MachineSpec, QemuProcess, RamFile};

/// How many wait at most; each takes about as much memory as a small program.
const MOST: usize = 2;

/// A QEMU that waits, or is just being started.
struct Ready {
    spec: MachineSpec,
    ram: RamFile,
    /// The file of the state that it takes in.
    state: PathBuf,
    /// The disks that it is connected with.
    disks: Vec<Arc<Disk>>,
    start: Start,
}

/// A QEMU that was started ahead.
pub struct ReadyMachine {
    /// As it was told.
    pub spec: MachineSpec,
    /// It.
    pub qemu: QemuProcess,
    /// Its channels.
    pub ends: HostEnds,
    /// Whether it has taken the state in.
    pub is_loaded: bool,
    /// The disks that it is connected with.
    pub disks: Vec<Arc<Disk>>,
}

type Started = Option<(QemuProcess, HostEnds)>;

/// The start of a QEMU; dropping it ends that, and what came of it.
struct Start(JoinHandle<Started>);

impl Drop for Start {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All that wait. Dropping them ends them.
#[derive(Default)]
pub struct ReadyMachines {
    waiting: Mutex<Vec<Ready>>,
}

impl ReadyMachines {
    fn waiting(&self) -> MutexGuard<'_, Vec<Ready>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One with these arguments, for the state in the file `state`, where there is one. Waits for one that is just being
    /// started.
    pub async fn take(&self, spec: &MachineSpec, ram: &RamFile, state: &Path) -> Option<ReadyMachine> {
        let mut ready = {
            let mut waiting = self.waiting();
            let at = waiting.iter().position(|ready| is_for(ready, spec, ram, state))?;
            waiting.remove(at)
        };
        let (qemu, ends) = (&mut ready.start.0).await.ok().flatten()?;
        let lives = qemu.exit_watch().borrow().is_none();
        let is_loaded = loads_ahead(&ready.spec);
        lives.then_some(ReadyMachine { spec: ready.spec, qemu, ends, disks: ready.disks, is_loaded })
    }

    /// Whether there is one with these arguments.
    fn has(&self, spec: &MachineSpec, ram: &RamFile, state: &Path) -> bool {
        self.waiting().iter().any(|ready| is_for(ready, spec, ram, state))
    }

    /// Adds one; the oldest one makes room.
    fn add(&self, ready: Ready) {
        let mut waiting = self.waiting();
        waiting.push(ready);
        let surplus = waiting.len().saturating_sub(MOST);
        waiting.drain(..surplus);
    }

    /// Ends all.
    pub async fn end(&self) {
        let all = std::mem::take(&mut *self.waiting());
        for mut ready in all {
            if let Ok(Some((qemu, _))) = (&mut ready.start.0).await {
                qemu.kill().await;
            }
        }
    }
}

/// Each has a log of its own; all else must be the same. The state stands for the snapshot, and so for the content of its disks.
fn is_for(ready: &Ready, spec: &MachineSpec, ram: &RamFile, state: &Path) -> bool {
    let same = MachineSpec { reset_log: ready.spec.reset_log.clone(), ..spec.clone() };
    ready.spec == same && ready.ram.is(ram) && ready.state == state
}

/// Whether it takes the state in at once. Under KVM the time-stamp counter would go on from then, and a guest that trusts it would
/// find that it had slept.
fn loads_ahead(spec: &MachineSpec) -> bool {
    spec.accel == Accel::Tcg
}

/// Starts one in the background for the next restore with these arguments from the state in the file `state`, unless it is there
/// already. `disks` makes those that it needs.
pub fn start_ahead(
    bed: &Testbed,
    spec: &MachineSpec,
    ram: &RamFile,
    state: PathBuf,
    disks: impl FnOnce() -> Option<Vec<Arc<Disk>>>,
) {
    if bed.shared.ready.has(spec, ram, &state) {
        return;
    }
    // What fails here is told by the restore that needs it.
    let Some(disks) = disks() else { return };
    let Ok(served) = serve_all(&disks) else { return };
    let reset_log = bed.shared.settings.runtime_dir.join(format!("ready-{}.reset.log", bed.next_start()));
    let spec = MachineSpec { reset_log, ..spec.clone() };
    let (told, file, of, from) = (spec.clone(), ram.clone(), bed.clone(), state.clone());
    let start = tokio::spawn(async move {
        let machine = of.machine().await.ok()?;
        let (qemu, ends) = QemuProcess::start(machine.qemu(), &told, Some(&file), served).await.ok()?;
        if loads_ahead(&told) {
            qemu.load(&from, false).await.ok()?;
        }
        Some((qemu, ends))
    });
    bed.shared.ready.add(Ready { spec, ram: ram.clone(), state, disks, start: Start(start) });
}
