//! The machines of one test, or of one file, and their end.

use std::sync::Arc;

use super::network::{self, Bridge};
use super::snapshot::Snapshot;
use super::vm::Vm;
use crate::foundation::cancel::{CancelReason, CancelToken};
use crate::run_events::StopReason;

/// Owns machines; `stop` takes them down.
#[derive(Default)]
pub struct Scope {
    vms: Vec<Arc<Vm>>,
    snapshots: Vec<Snapshot>,
    bridges: Vec<Arc<Bridge>>,
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

    /// Adds a bridge.
    pub fn insert_bridge(&mut self, bridge: Arc<Bridge>) {
        self.bridges.push(bridge);
    }

    /// The bridges that are not over, in the order of creation.
    pub fn bridges(&self) -> Vec<Arc<Bridge>> {
        self.bridges.iter().filter(|bridge| !bridge.is_closed()).cloned().collect()
    }

    /// Empties the scope of its bridges and hands them to whoever closes them, after its machines.
    pub fn take_bridges(&mut self) -> Vec<Arc<Bridge>> {
        std::mem::take(&mut self.bridges)
    }

    /// Ends bridges; machines of others that are attached lose their cards.
    pub async fn close(bridges: Vec<Arc<Bridge>>) {
        for bridge in bridges {
            network::close(&bridge).await;
        }
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
