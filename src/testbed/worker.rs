//! A second process in a guest that does what its machine's agent does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::error::VmError;
use super::guest::Guest;
use super::handles::{HandleGuard, HandleKind};
use super::vm::Vm;
use crate::agent_client::{AgentClient, AgentError, RunStatus, WorkerAgent, WorkerEnd};

/// How long a worker that was told to end, or to end its processes, may take.
const ENDING: Duration = Duration::from_secs(5);
/// As the kernel counts it.
const SIGKILL: i32 = 9;

/// The processes that a worker started.
#[derive(Default)]
struct Processes {
    running: usize,
    worst: i32,
}

/// A worker as operations use it.
pub(super) struct Inside {
    /// The agent that started it.
    parent: AgentClient,
    agent: Mutex<Option<Arc<WorkerAgent>>>,
    /// How it went, once it has.
    gone: Mutex<Option<String>>,
    processes: watch::Sender<Processes>,
    open: Mutex<Option<HandleGuard>>,
}

/// A process of a worker that runs.
pub(super) struct Running(Arc<Inside>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inside {
    /// Lets `act` use the worker.
    ///
    /// # Errors
    /// How it went, when it is gone.
    pub(super) async fn act<T>(
        &self,
        act: impl AsyncFnOnce(AgentClient) -> Result<T, AgentError>,
    ) -> Result<Result<T, AgentError>, String> {
        let Some(worker) = locked(&self.agent).clone() else { return Err(self.how()) };
        match act(worker.agent().clone()).await {
            Err(AgentError::Closed(why)) => {
                let end = tokio::time::timeout(ENDING, worker.wait()).await;
                Err(match end {
                    Ok(WorkerEnd::Ended(status, words)) => describe(status, &words),
                    Ok(WorkerEnd::Lost(error)) => error.to_string(),
                    Err(_) => why,
                })
            }
            result => Ok(result),
        }
    }

    fn how(&self) -> String {
        locked(&self.gone).clone().unwrap_or_else(|| "the worker is gone".to_owned())
    }

    /// The agent that started it.
    pub(super) fn parent(&self) -> &AgentClient {
        &self.parent
    }

    /// What ended the guest's own channel, where that took the worker along.
    pub(super) fn lost_guest(&self) -> Option<AgentError> {
        let worker = locked(&self.agent).clone()?;
        match worker.end() {
            Some(WorkerEnd::Lost(error)) => Some(error),
            _ => None,
        }
    }

    /// Notes that a process runs in it.
    pub(super) fn running(self: &Arc<Self>) -> Running {
        self.processes.send_modify(|processes| processes.running += 1);
        Running(Arc::clone(self))
    }

    /// Takes the agent out: operations fail from now on, saying `why`.
    fn take(&self, why: &str) -> Option<Arc<WorkerAgent>> {
        let agent = locked(&self.agent).take();
        if agent.is_some() {
            *locked(&self.gone) = Some(why.to_owned());
            locked(&self.open).take();
        }
        agent
    }
}

impl Running {
    /// It ended so.
    pub(super) fn ended(self, status: RunStatus) {
        self.0.processes.send_modify(|processes| processes.worst = worse(processes.worst, code(status)));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.processes.send_modify(|processes| processes.running -= 1);
    }
}

/// As a RunResult has it.
fn code(status: RunStatus) -> i32 {
    match status {
        RunStatus::Exited(code) => code,
        RunStatus::Signalled(_) => -1,
        RunStatus::TimedOut => -2,
    }
}

/// The worse of two exit codes: a time-out, then a signal, then the highest code.
fn worse(left: i32, right: i32) -> i32 {
    if left < 0 || right < 0 { left.min(right) } else { left.max(right) }
}

fn describe(status: RunStatus, words: &str) -> String {
    let how = match status {
        RunStatus::Exited(code) => format!("the worker has ended with exit code {code}"),
        RunStatus::Signalled(signal) => format!("the worker was killed by signal {signal}"),
        RunStatus::TimedOut => "the worker was killed".to_owned(),
    };
    if words.is_empty() { how } else { format!("{how}: {words}") }
}

/// A worker.
pub struct Worker {
    guest: Guest,
    inside: Arc<Inside>,
    number: u64,
}

impl Vm {
    /// Starts a worker; `place` is who asked for it.
    ///
    /// # Errors
    /// A wrong state, a dead guest, what the guest's kernel refuses.
    pub async fn spawn_worker(self: &Arc<Self>, place: Option<String>) -> Result<Arc<Worker>, VmError> {
        let op = "spawn_worker";
        let (parent, agent) =
            self.op(op, async |parent| parent.spawn_worker().await.map(|agent| (parent, agent))).await?;
        let open = self.handles().open(HandleKind::Worker, format!("worker (process {})", agent.pid()), place);
        let number = open.number();
        let inside = Arc::new(Inside {
            parent,
            agent: Mutex::new(Some(Arc::new(agent))),
            gone: Mutex::default(),
            processes: watch::Sender::new(Processes::default()),
            open: Mutex::new(Some(open)),
        });
        let guest = Guest::of_worker(Arc::clone(self), Arc::clone(&inside));
        Ok(Arc::new(Worker { guest, inside, number }))
    }
}

impl Worker {
    /// Where its operations happen.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// A number above 0, its own in the machine.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Sends a signal to every process that it started.
    ///
    /// # Errors
    /// A worker or guest that is gone.
    pub async fn kill(&self, signal: i32) -> Result<(), VmError> {
        self.guest
            .op("kill", async |agent| {
                agent.signal_all(signal).await?;
                // The answer says that the signal, which came before, was sent, or that the worker is gone.
                agent.ping().await
            })
            .await
    }

    /// Waits for the processes that it started, ends it, and returns the worst exit code.
    ///
    /// # Errors
    /// A worker or guest that is gone.
    pub async fn join(&self) -> Result<i32, VmError> {
        let worst = self
            .guest
            .op("join", async |agent| {
                agent.ping().await?;
                let mut processes = self.inside.processes.subscribe();
                let none = processes.wait_for(|processes| processes.running == 0).await;
                Ok(none.map(|processes| processes.worst).unwrap_or_default())
            })
            .await?;
        if let Some(agent) = self.inside.take("the worker has ended: it was joined") {
            let _ = agent.finish().await;
            // Dropped after that, which kills one that does not end.
            let _ = tokio::time::timeout(ENDING, agent.wait()).await;
        }
        Ok(worst)
    }

    /// Kills the processes that it started, and ends it. Nothing happens where it is gone.
    pub async fn close(&self) {
        let Some(agent) = self.inside.take("the worker was closed") else { return };
        let ending = async {
            let _ = agent.agent().signal_all(SIGKILL).await;
            let mut processes = self.inside.processes.subscribe();
            let _ = processes.wait_for(|processes| processes.running == 0).await;
            let _ = agent.finish().await;
            agent.wait().await;
        };
        let dead = async {
            let _: Result<(), VmError> = self.guest.vm().op("close", async |_| std::future::pending().await).await;
        };
        tokio::select! {
            _ = tokio::time::timeout(ENDING, ending) => {}
            () = dead => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_exit_code() {
        let worst = |codes: &[RunStatus]| codes.iter().map(|status| code(*status)).fold(0, worse);
        assert_eq!(worst(&[]), 0);
        assert_eq!(worst(&[RunStatus::Exited(1), RunStatus::Exited(3), RunStatus::Exited(0)]), 3);
        assert_eq!(worst(&[RunStatus::Exited(1), RunStatus::Signalled(9), RunStatus::Exited(3)]), -1);
        assert_eq!(worst(&[RunStatus::TimedOut, RunStatus::Signalled(9)]), -2);
    }
}
