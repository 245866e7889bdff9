//! Where operations happen: in a machine's agent, or in a worker of it.

use std::sync::Arc;

use super::error::VmError;
use super::vm::Vm;
use crate::agent_client::{AgentClient, AgentError, RunOutcome, RunSpec};

/// A booted machine's inside, as one process of it sees it: the agent's own, or a worker's.
#[derive(Clone)]
pub struct Guest {
    vm: Arc<Vm>,
    worker: Option<AgentClient>,
}

impl Guest {
    /// The agent of `vm`.
    pub fn new(vm: Arc<Vm>) -> Self {
        Self { vm, worker: None }
    }

    /// The machine.
    pub fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }

    /// The machine's name.
    pub fn name(&self) -> String {
        self.vm.name().to_owned()
    }

    /// Lets `act` use the agent, unless the machine goes away first. `op` is the operation as Lua names it.
    ///
    /// # Errors
    /// A wrong state, a guest that goes away, and what the agent refuses.
    pub(super) async fn op<T>(
        &self,
        op: &'static str,
        act: impl AsyncFnOnce(AgentClient) -> Result<T, AgentError>,
    ) -> Result<T, VmError> {
        let worker = self.worker.clone();
        self.vm.op(op, async |agent| act(worker.unwrap_or(agent)).await).await
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// A program, directory or user that can't be used, a dead guest.
    pub async fn run(&self, spec: RunSpec) -> Result<RunOutcome, VmError> {
        self.op("run", async |agent| agent.run(spec).await).await
    }
}
