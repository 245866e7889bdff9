//! Workers: agents of their own, whose channel goes through the agent that started them.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::connection::{AgentClient, connect_halves};
use super::error::AgentError;
use super::processes::{ProcessEvent, ProcessInput, ProcessOutput, RunSpec, RunStatus};
use crate::agent_protocol::{CHUNK, Program, STDIN_WINDOW};

/// How much of a worker's last words is kept, in bytes.
const LAST_WORDS: usize = 1000;

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEnd {
    /// As a process, with what it said last.
    Ended(RunStatus, String),
    /// With the guest.
    Lost(AgentError),
}

/// What is known of the channel.
#[derive(Clone, Default)]
struct Progress {
    taken: usize,
    end: Option<WorkerEnd>,
}

/// A worker. Dropping it kills it, and with it the processes that it started.
pub struct WorkerAgent {
    agent: AgentClient,
    pid: u32,
    input: ProcessInput,
    progress: watch::Receiver<Progress>,
    pump: tokio::task::AbortHandle,
}

impl AgentClient {
    /// Starts a worker and waits until it answers.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends, that of the worker included.
    pub async fn spawn_worker(&self) -> Result<WorkerAgent, AgentError> {
        let spec = RunSpec { program: Program::Worker, ..RunSpec::default() };
        let started = self.start("spawn_worker", spec).await?;
        let (ours, theirs) = tokio::io::duplex(STDIN_WINDOW);
        let (from_client, to_client) = tokio::io::split(theirs);
        let (told, progress) = watch::channel(Progress::default());
        let (input, output) = (started.input, started.output);
        let sending = send(from_client, input.clone(), progress.clone());
        // One task: when it ends, or is ended, both halves of the channel are dropped.
        let pump = tokio::spawn(async move {
            tokio::select! {
                () = receive(output, to_client, &told) => {}
                () = async { sending.await; std::future::pending().await } => {}
            }
        });
        // From here on, giving up takes the worker down.
        let mut worker =
            WorkerAgent { agent: self.clone(), pid: started.pid, input, progress, pump: pump.abort_handle() };
        let (reader, writer) = tokio::io::split(ours);
        worker.agent = connect_halves(reader, writer).await?.0;
        Ok(worker)
    }
}

/// Passes on what the client sends, as far ahead as the guest takes it.
async fn send(mut from: ReadHalf<DuplexStream>, input: ProcessInput, mut progress: watch::Receiver<Progress>) {
    let mut buffer = vec![0; CHUNK];
    let mut sent = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let room = progress.wait_for(|progress| sent + count <= progress.taken + STDIN_WINDOW).await.is_ok();
        if !room || input.stdin(&buffer[..count]).await.is_err() {
            return;
        }
        sent += count;
    }
}

/// Passes on what the worker says; its end closes the client's connection.
async fn receive(mut output: ProcessOutput, mut to: WriteHalf<DuplexStream>, told: &watch::Sender<Progress>) {
    let mut words = Vec::new();
    let end = loop {
        match output.next().await {
            Ok(ProcessEvent::Stdout(piece)) => {
                // A client that is gone has ended because it was told something it did not understand.
                let _ = to.write_all(&piece).await;
            }
            Ok(ProcessEvent::Stderr(piece)) => {
                words.extend_from_slice(&piece);
                words.drain(..words.len().saturating_sub(LAST_WORDS));
            }
            Ok(ProcessEvent::StdinTaken(count)) => told.send_modify(|progress| progress.taken += count),
            Ok(ProcessEvent::StdinBroken) => {}
            Ok(ProcessEvent::Ended(status, _)) => {
                break WorkerEnd::Ended(status, String::from_utf8_lossy(&words).trim().to_owned());
            }
            Err(error) => break WorkerEnd::Lost(error),
        }
    };
    told.send_modify(|progress| progress.end = Some(end));
}

impl WorkerAgent {
    /// The worker as an agent.
    pub fn agent(&self) -> &AgentClient {
        &self.agent
    }

    /// Its process in the guest.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, once it has.
    pub fn end(&self) -> Option<WorkerEnd> {
        self.progress.borrow().end.clone()
    }

    /// Waits for its end.
    pub async fn wait(&self) -> WorkerEnd {
        let mut progress = self.progress.clone();
        let ended = progress.wait_for(|progress| progress.end.is_some()).await.ok();
        ended
            .and_then(|progress| progress.end.clone())
            .unwrap_or_else(|| WorkerEnd::Lost(AgentError::Closed("the worker's channel was given up".to_owned())))
    }

    /// Tells it that nothing more is asked of it: it ends, and with it what it started.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn finish(&self) -> Result<(), AgentError> {
        self.input.end_stdin().await
    }
}

impl Drop for WorkerAgent {
    fn drop(&mut self) {
        self.pump.abort();
    }
}
