//! QEMUs that were started ahead: a restore with the arguments of an earlier one finds one that only waits for the state.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;

use super::bed::Testbed;
use crate::qemu::{HostEnds, MachineSpec, QemuProcess, RamFile};

/// How many wait at most; each takes about as much memory as a small program.
const MOST: usize = 2;

/// A QEMU that waits, or is just being started.
struct Ready {
    spec: MachineSpec,
    ram: RamFile,
    start: Start,
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

    /// One with these arguments, where there is one: as it was told, it, its channels. Waits for one that is just being
    /// started.
    pub async fn take(&self, spec: &MachineSpec, ram: &RamFile) -> Option<(MachineSpec, QemuProcess, HostEnds)> {
        let mut ready = {
            let mut waiting = self.waiting();
            let at = waiting.iter().position(|ready| is_for(ready, spec, ram))?;
            waiting.remove(at)
        };
        let (qemu, ends) = (&mut ready.start.0).await.ok().flatten()?;
        let lives = qemu.exit_watch().borrow().is_none();
        lives.then_some((ready.spec, qemu, ends))
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
        for mut ready in all {
            if let Ok(Some((qemu, _))) = (&mut ready.start.0).await {
                qemu.kill().await;
            }
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
    let reset_log = bed.shared.settings.runtime_dir.join(format!("ready-{}.reset.log", bed.next_start()));
    let spec = MachineSpec { reset_log, ..spec.clone() };
    let (told, file, of) = (spec.clone(), ram.clone(), bed.clone());
    let start = tokio::spawn(async move {
        // What fails here is told by the restore that needs it.
        let machine = of.machine().await.ok()?;
        QemuProcess::start(machine.qemu(), &told, Some(&file), Vec::new()).await.ok()
    });
    bed.shared.ready.add(Ready { spec, ram: ram.clone(), start: Start(start) });
}
