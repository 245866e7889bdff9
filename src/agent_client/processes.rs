//! Processes: those that are run to their end, and those that go on while something else is done.

use std::time::Duration;

use super::connection::{AgentClient, Conversation, RequestSender};
use super::error::AgentError;
use super::requests::{ending, keep};
use crate::agent_protocol::{CHUNK, ProcessStatus, Program, RunRequest, STDIN_WINDOW, ToGuest, ToHost};

/// How much of one output stream is kept, in bytes.
pub const LARGEST_OUTPUT: usize = 64 * 1024 * 1024;

/// A program to run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// What to run.
    pub program: Program,
    /// Variables laid over the agent's own.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the agent's own variables are left out.
    pub env_clear: bool,
    /// The working directory; the agent's own, `/` at first, where none is given.
    pub cwd: Option<Vec<u8>>,
    /// Its whole standard input; `/dev/null` where none is given.
    pub stdin: Option<Vec<u8>>,
    /// Then its process group is killed.
    pub timeout: Option<Duration>,
    /// `NAME`, `UID` or `UID:GID`.
    pub user: Option<String>,
}

impl Default for RunSpec {
    fn default() -> Self {
        Self {
            program: Program::Argv(Vec::new()),
            env: Vec::new(),
            env_clear: false,
            cwd: None,
            stdin: None,
            timeout: None,
            user: None,
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Its time was over.
    TimedOut,
}

/// What a program left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOutcome {
    /// How it ended.
    pub status: RunStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
    /// From its start to its end, by the guest's clock.
    pub duration: Duration,
}

/// What is heard of a process.
#[derive(Debug)]
pub enum ProcessEvent {
    /// It wrote to its standard output.
    Stdout(Vec<u8>),
    /// It wrote to its standard error.
    Stderr(Vec<u8>),
    /// Its standard input took this many bytes.
    StdinTaken(usize),
    /// Nobody reads its standard input any more.
    StdinBroken,
    /// It ended.
    Ended(RunStatus, Duration),
}

/// A process that was started. Dropping it kills the process group.
pub struct StartedProcess {
    /// Its id in the guest.
    pub pid: u32,
    /// The way to it.
    pub input: ProcessInput,
    /// What is heard of it.
    pub output: ProcessOutput,
}

/// The way to a process. What is sent after its end is lost.
#[derive(Clone)]
pub struct ProcessInput(RequestSender);

impl ProcessInput {
    /// Sends a piece of its standard input, at most [`CHUNK`] long. The caller keeps at most [`STDIN_WINDOW`] under way.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn stdin(&self, piece: &[u8]) -> Result<(), AgentError> {
        self.0.send(&ToGuest::Stdin(piece.to_vec())).await
    }

    /// Closes its standard input.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn end_stdin(&self) -> Result<(), AgentError> {
        self.0.send(&ToGuest::StdinEnd).await
    }

    /// Sends a signal to its process group.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn signal(&self, signal: i32) -> Result<(), AgentError> {
        self.0.send(&ToGuest::Signal(signal)).await
    }
}

/// What is heard of a process. Dropping it before the end kills the process group.
pub struct ProcessOutput(Conversation);

impl ProcessOutput {
    /// Waits for the next event; none follows the end.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn next(&mut self) -> Result<ProcessEvent, AgentError> {
        Ok(match self.0.next().await? {
            ToHost::Stdout(piece) => ProcessEvent::Stdout(piece),
            ToHost::Stderr(piece) => ProcessEvent::Stderr(piece),
            ToHost::StdinTaken(0) => ProcessEvent::StdinBroken,
            ToHost::StdinTaken(count) => ProcessEvent::StdinTaken(usize::try_from(count).unwrap_or(usize::MAX)),
            ToHost::Exited { status, duration_ns } => {
                self.0.finish();
                let status = match status {
                    ProcessStatus::Exited(code) => RunStatus::Exited(code),
                    ProcessStatus::Signalled(signal) => RunStatus::Signalled(signal),
                    ProcessStatus::TimedOut => RunStatus::TimedOut,
                };
                ProcessEvent::Ended(status, Duration::from_nanos(duration_ns))
            }
            other => return Err(ending(&mut self.0, other)),
        })
    }
}

fn request(spec: RunSpec, announce: bool) -> (RunRequest, Option<Vec<u8>>) {
    let request = RunRequest {
        program: spec.program,
        env: spec.env,
        env_clear: spec.env_clear,
        cwd: spec.cwd,
        user: spec.user,
        timeout_ms: spec.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)),
        stdin: announce || spec.stdin.is_some(),
        announce,
    };
    (request, spec.stdin)
}

impl AgentClient {
    /// Runs a program and waits for its end. Dropping the future kills its process group.
    ///
    /// # Errors
    /// A program, directory or user that can't be used; too much output; a connection that ends.
    pub async fn run(&self, spec: RunSpec) -> Result<RunOutcome, AgentError> {
        let mut conversation = self.open()?;
        // What follows in a batch may depend on what this program did.
        conversation.keep_turn();
        let (request, stdin) = request(spec, false);
        conversation.send(&ToGuest::Run(request)).await?;
        let input = ProcessInput(conversation.sender());
        let mut output = ProcessOutput(conversation);
        let mut feeder = Feeder::new(stdin);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            feeder.feed(&input).await?;
            match output.next().await? {
                ProcessEvent::Stdout(piece) => keep(&mut stdout, &piece, "run", "stdout", LARGEST_OUTPUT)?,
                ProcessEvent::Stderr(piece) => keep(&mut stderr, &piece, "run", "stderr", LARGEST_OUTPUT)?,
                ProcessEvent::StdinTaken(count) => feeder.taken += count,
                // As a pipe in a shell: what was not read is of no interest.
                ProcessEvent::StdinBroken => feeder.data = None,
                ProcessEvent::Ended(status, duration) => {
                    return Ok(RunOutcome { status, stdout, stderr, duration });
                }
            }
        }
    }

    /// Starts a program whose standard input stays open. `spec`'s own input and time-out are for the caller to see to.
    /// `op` is the operation that errors name.
    ///
    /// # Errors
    /// A program, directory or user that can't be used; a connection that ends.
    pub async fn start(&self, op: &str, spec: RunSpec) -> Result<StartedProcess, AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&ToGuest::Run(request(spec, true).0)).await?;
        match conversation.next().await? {
            ToHost::Started(pid) => {
                let input = ProcessInput(conversation.sender());
                Ok(StartedProcess { pid, input, output: ProcessOutput(conversation) })
            }
            other => match ending(&mut conversation, other) {
                AgentError::Op(mut error) => {
                    op.clone_into(&mut error.op);
                    Err(AgentError::Op(error))
                }
                error => Err(error),
            },
        }
    }
}

/// The whole standard input of a program, sent as far ahead as the guest takes it.
struct Feeder {
    data: Option<Vec<u8>>,
    sent: usize,
    taken: usize,
}

impl Feeder {
    fn new(data: Option<Vec<u8>>) -> Self {
        Self { data, sent: 0, taken: 0 }
    }

    async fn feed(&mut self, input: &ProcessInput) -> Result<(), AgentError> {
        let Some(data) = &self.data else { return Ok(()) };
        while self.sent < data.len() && self.sent - self.taken.min(self.sent) + CHUNK <= STDIN_WINDOW {
            let piece = &data[self.sent..data.len().min(self.sent + CHUNK)];
            input.stdin(piece).await?;
            self.sent += piece.len();
        }
        if self.sent == data.len() {
            self.data = None;
            input.end_stdin().await?;
        }
        Ok(())
    }
}
