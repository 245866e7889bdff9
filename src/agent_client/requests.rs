//! The requests: run a program, short operations, power off.

use std::time::Duration;

use super::connection::{AgentClient, Conversation};
use super::error::AgentError;
use crate::agent_protocol::{CHUNK, Op, OpReply, ProcessStatus, Program, RunRequest, ToGuest, ToHost};

/// How much of one output stream is kept, in bytes.
const LARGEST_OUTPUT: usize = 64 * 1024 * 1024;

/// A program to run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// What to run.
    pub program: Program,
    /// Variables laid over the agent's own.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the agent's own variables are left out.
    pub env_clear: bool,
    /// The working directory; `/` where none is given.
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

impl AgentClient {
    /// Runs a program and waits for its end. Dropping the future kills its process group.
    ///
    /// # Errors
    /// A program, directory or user that can't be used; too much output; a connection that ends.
    pub async fn run(&self, spec: RunSpec) -> Result<RunOutcome, AgentError> {
        let mut conversation = self.open()?;
        let request = RunRequest {
            program: spec.program,
            env: spec.env,
            env_clear: spec.env_clear,
            cwd: spec.cwd,
            user: spec.user,
            timeout_ms: spec.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)),
            stdin: spec.stdin.is_some(),
            announce: false,
        };
        conversation.send(&ToGuest::Run(request)).await?;
        if let Some(stdin) = spec.stdin {
            for piece in stdin.chunks(CHUNK) {
                conversation.send(&ToGuest::Stdin(piece.to_vec())).await?;
            }
            conversation.send(&ToGuest::StdinEnd).await?;
        }
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match conversation.next().await? {
                ToHost::Stdout(piece) => keep(&mut stdout, &piece, "run", "stdout", LARGEST_OUTPUT)?,
                ToHost::StdinTaken(_) => {}
                ToHost::Stderr(piece) => keep(&mut stderr, &piece, "run", "stderr", LARGEST_OUTPUT)?,
                ToHost::Exited { status, duration_ns } => {
                    conversation.finish();
                    let status = match status {
                        ProcessStatus::Exited(code) => RunStatus::Exited(code),
                        ProcessStatus::Signalled(signal) => RunStatus::Signalled(signal),
                        ProcessStatus::TimedOut => RunStatus::TimedOut,
                    };
                    return Ok(RunOutcome { status, stdout, stderr, duration: Duration::from_nanos(duration_ns) });
                }
                other => return Err(ending(&mut conversation, other)),
            }
        }
    }

    /// A short operation with one answer.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn op(&self, op: Op) -> Result<OpReply, AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&ToGuest::Op(op)).await?;
        match conversation.next().await? {
            ToHost::Reply(reply) => {
                conversation.finish();
                Ok(reply)
            }
            other => Err(ending(&mut conversation, other)),
        }
    }

    /// Has the guest sync and power off. Returns only when it can't: the guest's end is the answer.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends, as it does when the guest goes down.
    pub async fn poweroff(&self) -> Result<(), AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&ToGuest::Poweroff).await?;
        let message = conversation.next().await?;
        Err(ending(&mut conversation, message))
    }
}

/// The error that `message` ends a request with: a refusal, or something that has no place in it.
pub(super) fn ending(conversation: &mut Conversation, message: ToHost) -> AgentError {
    match message {
        ToHost::Failed(error) => {
            conversation.finish();
            AgentError::Op(error)
        }
        other => conversation.unexpected(&other),
    }
}

pub(super) fn keep(
    all: &mut Vec<u8>,
    piece: &[u8],
    op: &'static str,
    what: &str,
    limit: usize,
) -> Result<(), AgentError> {
    if all.len() + piece.len() > limit {
        return Err(AgentError::TooMuch { op, what: what.to_owned(), limit });
    }
    all.extend_from_slice(piece);
    Ok(())
}
