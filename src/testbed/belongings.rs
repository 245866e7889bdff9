//! What a test (or a file) started in guests, and its end: machines of the file outlive a test, what the test started in
//! them does not.

use std::sync::Arc;

use super::call::Call;
use super::process::{Process, ProcessState};
use super::worker::Worker;

/// How many processes are remembered before those that have ended are forgotten.
const FORGET: usize = 64;

/// Processes, workers and system calls of one scope.
#[derive(Default)]
pub struct Belongings {
    processes: Vec<Arc<Process>>,
    forget_at: usize,
    workers: Vec<Arc<Worker>>,
    calls: Vec<Arc<Call>>,
}

impl Belongings {
    /// A process that was started.
    pub fn add_process(&mut self, process: Arc<Process>) {
        if self.processes.len() >= self.forget_at.max(FORGET) {
            self.processes.retain(|process| process.state() == ProcessState::Running);
            self.forget_at = self.processes.len() * 2;
        }
        self.processes.push(process);
    }

    /// A worker that was started.
    pub fn add_worker(&mut self, worker: Arc<Worker>) {
        self.workers.push(worker);
    }

    /// A system call that was begun.
    pub fn add_call(&mut self, call: Arc<Call>) {
        self.calls.retain(|call| !call.is_done());
        self.calls.push(call);
    }

    /// Ends all of it, and returns when it is gone.
    pub async fn end(self) {
        for call in &self.calls {
            call.end().await;
        }
        let mut tasks = tokio::task::JoinSet::new();
        for process in self.processes {
            tasks.spawn(async move { process.end().await });
        }
        while tasks.join_next().await.is_some() {}
        for worker in self.workers {
            tasks.spawn(async move { worker.close().await });
        }
        while tasks.join_next().await.is_some() {}
    }
}
