//! The machines of one test, or of one file, and their end.

use std::sync::Arc;

use super::snapshot::Snapshot;
use super::vm::Vm;
use crate::foundation::cancel::{CancelReason, CancelToken};
use crate::run_events::StopReason;

/// Owns machines; `stop` takes them down.
#[derive(Default)]
pub struct Scope {
    vms: Vec<Arc<Vm>>,
    snapshots: Vec<Snapshot>,
}

impl Scope {
    /// Adds a machine.
    pub fn insert(&mut self, vm: Arc<Vm>) {
        self.vms.push(vm);
    }

    /// Keeps a snapshot at least as long as the scope.
    pub fn keep(&mut self, snapshot: Snapshot) {
        self.snapshots.push(snapshot);
    }

    /// The machines, in the order of creation.
    pub fn vms(&self) -> Vec<Arc<Vm>> {
        self.vms.clone()
    }

    /// Empties the scope and hands its machines to whoever stops them.
    pub fn take(&mut self) -> Vec<Arc<Vm>> {
        std::mem::take(&mut self.vms)
    }

    /// Stops `vms` at once, all together, and returns when every QEMU is gone. `token` says why, where it was cancelled.
    pub async fn stop(vms: Vec<Arc<Vm>>, token: &CancelToken) {
        let reason = match token.reason() {
            None => StopReason::ScopeEnded,
            Some(CancelReason::Interrupted) => StopReason::Interrupted,
            Some(CancelReason::FileTimeout | CancelReason::TestTimeout) => StopReason::TimedOut,
        };
        let mut tasks = tokio::task::JoinSet::new();
        for vm in vms {
            tasks.spawn(async move { vm.destroy(reason).await });
        }
        while tasks.join_next().await.is_some() {}
    }
}
