//! The machines of one test, or of one file, and their end.

use std::sync::Arc;

use super::vm::Vm;
use crate::foundation::cancel::{CancelReason, CancelToken};
use crate::run_events::StopReason;

struct Entry {
    vm: Arc<Vm>,
    place: Option<String>,
}

/// Owns machines; `stop` takes them down.
#[derive(Default)]
pub struct Scope {
    entries: Vec<Entry>,
}

impl Scope {
    /// The machine `name`.
    pub fn find(&self, name: &str) -> Option<Arc<Vm>> {
        self.entries.iter().find(|entry| entry.vm.name() == name).map(|entry| Arc::clone(&entry.vm))
    }

    /// Where the machine `name` was created, as `file:line`.
    pub fn place_of(&self, name: &str) -> Option<String> {
        let entry = self.entries.iter().find(|entry| entry.vm.name() == name)?;
        Some(entry.place.clone().unwrap_or_else(|| "an unknown place".to_owned()))
    }

    /// Adds a machine that was created at `place`.
    pub fn insert(&mut self, vm: Arc<Vm>, place: Option<String>) {
        self.entries.push(Entry { vm, place });
    }

    /// The names, in the order of creation.
    pub fn names(&self) -> Vec<String> {
        self.entries.iter().map(|entry| entry.vm.name().to_owned()).collect()
    }

    /// The machines, in the order of creation.
    pub fn vms(&self) -> Vec<Arc<Vm>> {
        self.entries.iter().map(|entry| Arc::clone(&entry.vm)).collect()
    }

    /// Empties the scope and hands its machines to whoever stops them.
    pub fn take(&mut self) -> Vec<Arc<Vm>> {
        self.entries.drain(..).map(|entry| entry.vm).collect()
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
