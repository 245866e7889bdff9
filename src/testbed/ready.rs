//! QEMUs that were started ahead: a restore with the arguments of an earlier one finds one that only waits for the state.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::bed::Testbed;
use crate::qemu::{HostEnds, MachineSpec, QemuProcess, RamFile};

/// How many wait at most; each takes about as much memory as a small program.
const MOST: usize = 2;

/// A started QEMU that waits.
pub struct Ready {
    /// As it was told.
    pub spec: MachineSpec,
    /// Its RAM.
    pub ram: RamFile,
    /// It.
    pub qemu: QemuProcess,
    /// Its channels.
    pub ends: HostEnds,
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

    /// One with these arguments, where there is one.
    pub fn take(&self, spec: &MachineSpec, ram: &RamFile) -> Option<Ready> {
        let mut waiting = self.waiting();
        waiting.retain(|ready| ready.qemu.exit_watch().borrow().is_none());
        let at = waiting.iter().position(|ready| is_for(ready, spec, ram))?;
        Some(waiting.remove(at))
    }

    /// Whether there is one with these arguments.
    fn has(&self, spec: &MachineSpec, ram: &RamFile) -> bool {
        self.waiting().iter().any(|ready| is_for(ready, spec, ram))
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
        for ready in all {
            ready.qemu.kill().await;
        }
    }
}

/// Each has a log of its own; all else must be the same.
fn is_for(ready: &Ready, spec: &MachineSpec, ram: &RamFile) -> bool {
    let same = MachineSpec { reset_log: ready.spec.reset_log.clone(), ..spec.clone() };
    ready.spec == same && ready.ram.is(ram)
}

/// Starts one in the background for the next restore with these arguments, unless it is there already.
pub fn start_ahead(bed: &Testbed, spec: &MachineSpec, ram: &RamFile) {
    if bed.shared.ready.has(spec, ram) {
        return;
    }
    let (ram, shared) = (ram.clone(), std::sync::Arc::downgrade(&bed.shared));
    let reset_log = bed.shared.settings.runtime_dir.join(format!("ready-{}.reset.log", bed.next_start()));
    let spec = MachineSpec { reset_log, ..spec.clone() };
    let bed = bed.clone();
    tokio::spawn(async move {
        // What fails here is told by the restore that needs it.
        let Ok(machine) = bed.machine().await else { return };
        let Ok((qemu, ends)) = QemuProcess::start(machine.qemu(), &spec, Some(&ram)).await else { return };
        drop(bed);
        if let Some(shared) = shared.upgrade() {
            shared.ready.add(Ready { spec, ram, qemu, ends });
        }
    });
}
