//! Where operations happen: in a machine's agent, or in a worker of it.

use std::sync::Arc;

use super::error::VmError;
use super::vm::Vm;
use super::worker::Inside;
use crate::agent_client::{AgentClient, AgentError, OpError, RunOutcome, RunSpec, Turn};

/// A booted machine's inside, as one process of it sees it: the agent's own, or a worker's.
#[derive(Clone)]
pub struct Guest {
    vm: Arc<Vm>,
    worker: Option<Arc<Inside>>,
    turn: Option<Turn>,
}

impl Guest {
    /// The agent of `vm`.
    pub fn new(vm: Arc<Vm>) -> Self {
        Self { vm, worker: None, turn: None }
    }

    /// A worker in `vm`.
    pub(super) fn of_worker(vm: Arc<Vm>, worker: Arc<Inside>) -> Self {
        Self { vm, worker: Some(worker), turn: None }
    }

    /// The same; the next operation is sent in its `turn`.
    pub fn in_turn(&self, turn: Turn) -> Self {
        Self { turn: Some(turn), ..self.clone() }
    }

    /// The machine.
    pub fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }

    /// The worker, where it is one.
    pub(super) fn worker(&self) -> Option<&Arc<Inside>> {
        self.worker.as_ref()
    }

    /// The machine's name.
    pub fn name(&self) -> String {
        self.vm.name().to_owned()
    }

    /// Lets `act` use the agent, unless the machine goes away first. `op` is the operation as Lua names it.
    ///
    /// # Errors
    /// A wrong state, a guest or worker that goes away, and what the agent refuses.
    pub(super) async fn op<T>(
        &self,
        op: &'static str,
        act: impl AsyncFnOnce(AgentClient) -> Result<T, AgentError>,
    ) -> Result<T, VmError> {
        let Some(worker) = &self.worker else {
            return self.vm.op(op, async |agent| act(self.turned(agent)).await).await;
        };
        // What a worker's channel ends with says nothing about the guest.
        let result =
            self.vm.op(op, async |_| Ok(worker.act(async |agent| act(self.turned(agent)).await).await)).await?;
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(self.refused(source)),
            Err(why) => match worker.lost_guest() {
                Some(lost) => {
                    let outside = Self::new(Arc::clone(&self.vm));
                    Box::pin(outside.lost(op, "worker", worker.parent(), lost)).await
                }
                None => Err(VmError::Worker { vm: self.name(), op, why }),
            },
        }
    }

    /// The error for what the agent, or the worker, refused.
    pub(super) fn refused(&self, source: AgentError) -> VmError {
        match self.worker {
            None => VmError::Agent { vm: self.name(), source },
            Some(_) => VmError::WorkerAgent { vm: self.name(), source },
        }
    }

    /// The error for `subject`, which ended with the channel of `agent`; `error` is what ended that.
    ///
    /// # Errors
    /// Always: a dead guest, or one that has booted anew since.
    pub(super) async fn lost<T>(
        &self,
        op: &'static str,
        subject: &str,
        agent: &AgentClient,
        error: AgentError,
    ) -> Result<T, VmError> {
        self.op(op, async |now| {
            if now.is(agent) {
                return Err(error);
            }
            let detail = "it ended when the guest booted anew".to_owned();
            Err(AgentError::Op(OpError { op: op.to_owned(), subject: subject.to_owned(), errno: 0, detail }))
        })
        .await
    }

    fn turned(&self, agent: AgentClient) -> AgentClient {
        match &self.turn {
            None => agent,
            Some(turn) => agent.in_turn(turn.clone()),
        }
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// A program, directory or user that can't be used, a dead guest.
    pub async fn run(&self, spec: RunSpec) -> Result<RunOutcome, VmError> {
        let running = self.worker.as_ref().map(|worker| worker.running());
        let outcome = self.op("run", async |agent| agent.run(spec).await).await?;
        if let Some(running) = running {
            running.ended(outcome.status);
        }
        Ok(outcome)
    }
}
