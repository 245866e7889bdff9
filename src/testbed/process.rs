//! A process in a guest that goes on while the test does something else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::error::VmError;
use super::guest::Guest;
use super::handles::{HandleGuard, HandleKind};
use super::stream::ByteStream;
use crate::agent_client::{
    AgentClient, AgentError, CHUNK, LARGEST_OUTPUT, OpError, ProcessEvent, ProcessInput, ProcessOutput, RunOutcome,
    RunSpec, RunStatus, STDIN_WINDOW,
};
use crate::foundation::duration::format_duration;

/// How long `close` leaves a process after it was asked to end.
const GRACE: Duration = Duration::from_secs(2);
/// How long the end of a process that was killed is waited for: one in an uninterruptible wait does not end.
const KILLED: Duration = Duration::from_secs(10);
/// As the kernel counts them.
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const EPIPE: i32 = 32;

/// How far a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It ended by itself.
    Exited,
    /// A signal ended it.
    Signalled,
}

/// How it ended for the host.
#[derive(Debug, Clone)]
enum End {
    Ended(RunStatus, Duration),
    /// The host killed it.
    Refused(String),
    /// Its agent is gone.
    Lost(AgentError),
}

#[derive(Default)]
struct Progress {
    /// Bytes of standard input that the guest has passed on.
    taken: usize,
    /// Whether nobody reads its standard input any more.
    broken: bool,
    end: Option<End>,
}

/// One output: all of it, and who reads it as a stream.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    readers: Vec<Arc<ByteStream>>,
    end: Option<Result<(), String>>,
}

impl Output {
    /// False when it would be more than is kept.
    fn add(&mut self, piece: Vec<u8>) -> bool {
        if self.bytes.len() + piece.len() > LARGEST_OUTPUT {
            return false;
        }
        self.bytes.extend_from_slice(&piece);
        self.readers.retain(|reader| reader.push(piece.clone()));
        true
    }

    fn end(&mut self, how: &Result<(), String>) {
        for reader in self.readers.drain(..) {
            reader.end(how.clone());
        }
        self.end = Some(how.clone());
    }
}

struct Shared {
    progress: watch::Sender<Progress>,
    outputs: Mutex<[Output; 2]>,
    /// Counts it as open until its end.
    open: Mutex<Option<HandleGuard>>,
}

impl Shared {
    fn outputs(&self) -> MutexGuard<'_, [Output; 2]> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, end: End) {
        let how = match &end {
            End::Ended(..) => Ok(()),
            End::Refused(why) => Err(why.clone()),
            End::Lost(error) => Err(error.to_string()),
        };
        self.outputs().iter_mut().for_each(|output| output.end(&how));
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.progress.send_modify(|progress| progress.end = Some(end));
    }
}

/// What was written to its standard input.
#[derive(Default)]
struct Written {
    bytes: usize,
    closed: bool,
}

/// A process.
pub struct Process {
    guest: Guest,
    /// The agent that started it: one of another boot knows nothing of it.
    agent: AgentClient,
    command: String,
    pid: u32,
    number: u64,
    input: ProcessInput,
    /// Locked by whoever writes.
    written: Arc<tokio::sync::Mutex<Written>>,
    shared: Arc<Shared>,
    pump: tokio::task::AbortHandle,
}

impl Guest {
    /// Starts a process; `command` is how messages show it, `place` is who started it.
    ///
    /// # Errors
    /// A program, directory or user that can't be used, a dead guest.
    pub async fn run_async(
        &self,
        mut spec: RunSpec,
        command: String,
        place: Option<String>,
    ) -> Result<Arc<Process>, VmError> {
        let stdin = spec.stdin.take();
        let op = "run_async";
        let (agent, started) =
            self.op(op, async |agent| agent.start(op, spec).await.map(|started| (agent, started))).await?;
        let open = self.vm().handles().open(HandleKind::Process, format!("process `{command}`"), place);
        let number = open.number();
        let shared = Arc::new(Shared {
            progress: watch::Sender::new(Progress::default()),
            outputs: Mutex::default(),
            open: Mutex::new(Some(open)),
        });
        let running = self.worker().map(|worker| worker.running());
        let listening = Arc::clone(&shared);
        let output = started.output;
        let pump = tokio::spawn(async move {
            let end = listen(&listening, output).await;
            if let (Some(running), End::Ended(status, _)) = (running, &end) {
                running.ended(*status);
            }
            listening.finish(end);
        });
        let process = Arc::new(Process {
            guest: self.clone(),
            agent,
            command,
            pid: started.pid,
            number,
            input: started.input,
            written: Arc::default(),
            shared,
            pump: pump.abort_handle(),
        });
        if let Some(stdin) = stdin {
            process.write_first(stdin);
        }
        Ok(process)
    }
}

/// Takes in what the process says, so that nothing piles up in the guest. Returning kills it where it still runs.
async fn listen(shared: &Shared, mut output: ProcessOutput) -> End {
    loop {
        let (which, piece) = match output.next().await {
            Ok(ProcessEvent::Stdout(piece)) => (0, piece),
            Ok(ProcessEvent::Stderr(piece)) => (1, piece),
            Ok(ProcessEvent::StdinTaken(count)) => {
                shared.progress.send_modify(|progress| progress.taken += count);
                continue;
            }
            Ok(ProcessEvent::StdinBroken) => {
                shared.progress.send_modify(|progress| progress.broken = true);
                continue;
            }
            Ok(ProcessEvent::Ended(status, duration)) => return End::Ended(status, duration),
            Err(error) => return End::Lost(error),
        };
        if !shared.outputs()[which].add(piece) {
            let name = ["stdout", "stderr"][which];
            let limit = LARGEST_OUTPUT / (1024 * 1024);
            return End::Refused(format!(
                "{name} is longer than the {limit} MiB that are kept: the process was killed"
            ));
        }
    }
}

impl Process {
    /// Its id in the guest.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A number above 0, its own in the machine.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How messages show it.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Where it runs.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// How far it is.
    pub fn state(&self) -> ProcessState {
        match &self.shared.progress.borrow().end {
            None => ProcessState::Running,
            Some(End::Ended(RunStatus::Exited(_), _)) => ProcessState::Exited,
            Some(_) => ProcessState::Signalled,
        }
    }

    fn error(&self, op: &'static str, why: String) -> VmError {
        VmError::Process { vm: self.guest.name(), op, command: self.command.clone(), why }
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// When what is known of it ended with its guest, or with the worker that started it.
    async fn has_ended(&self, op: &'static str) -> Result<bool, VmError> {
        let end = self.shared.progress.borrow().end.clone();
        match end {
            None => Ok(false),
            Some(End::Lost(error)) => self.guest.lost(op, &self.command, &self.agent, error).await,
            Some(_) => Ok(true),
        }
    }

    /// Waits until it has ended.
    async fn ended(&self) -> End {
        let mut progress = self.shared.progress.subscribe();
        let end = progress.wait_for(|progress| progress.end.is_some()).await.ok().and_then(|now| now.end.clone());
        end.unwrap_or_else(|| End::Lost(AgentError::Closed("the process was given up".to_owned())))
    }

    /// Waits for its end and returns all that it left; again after that as well.
    ///
    /// # Errors
    /// When `timeout` is over (it goes on then), too much output, a dead guest.
    pub async fn wait(&self, timeout: Option<Duration>) -> Result<RunOutcome, VmError> {
        let op = "wait";
        let known = self.shared.progress.borrow().end.clone();
        let end = match (known, timeout) {
            (Some(end), _) => end,
            (None, None) => self.guest.op(op, async |_| Ok(self.ended().await)).await?,
            (None, Some(limit)) => {
                let waited = self.guest.op(op, async |_| Ok(tokio::time::timeout(limit, self.ended()).await)).await?;
                waited.map_err(|_| self.error(op, format!("still running after {}", format_duration(limit))))?
            }
        };
        match end {
            End::Ended(status, duration) => {
                let outputs = self.shared.outputs();
                let [stdout, stderr] = [0, 1].map(|which| outputs[which].bytes.clone());
                Ok(RunOutcome { status, stdout, stderr, duration })
            }
            End::Refused(why) => Err(self.error(op, why)),
            End::Lost(error) => self.guest.lost(op, &self.command, &self.agent, error).await,
        }
    }

    /// Sends a signal to its process group. Nothing happens where it has ended.
    ///
    /// # Errors
    /// A dead guest.
    pub async fn signal(&self, op: &'static str, signal: i32) -> Result<(), VmError> {
        if self.has_ended(op).await? {
            return Ok(());
        }
        self.guest.op(op, async |_| self.input.signal(signal).await).await
    }

    /// Writes to its standard input; returns once the pipe has taken it all.
    ///
    /// # Errors
    /// `EPIPE` when nobody reads any more, an input that was closed, a dead guest.
    pub async fn write_stdin(&self, bytes: &[u8]) -> Result<(), VmError> {
        let op = "stdin_write";
        let mut written = self.written.lock().await;
        if written.closed {
            return Err(self.error(op, "its standard input was closed".to_owned()));
        }
        let taken = self.guest.op(op, async |_| self.feed(&mut written, bytes).await).await?;
        if taken { Ok(()) } else { Err(self.broken_pipe(op)) }
    }

    fn broken_pipe(&self, op: &str) -> VmError {
        let subject = self.command.clone();
        let error = OpError { op: op.to_owned(), subject, errno: EPIPE, detail: String::new() };
        self.guest.refused(AgentError::Op(error))
    }

    /// False when nobody reads.
    async fn feed(&self, written: &mut Written, bytes: &[u8]) -> Result<bool, AgentError> {
        for piece in bytes.chunks(CHUNK) {
            if !self.taken_to(written.bytes + piece.len(), STDIN_WINDOW).await {
                return Ok(false);
            }
            self.input.stdin(piece).await?;
            written.bytes += piece.len();
        }
        Ok(self.taken_to(written.bytes, 0).await)
    }

    /// Waits until of `bytes` at most `ahead` are under way. False when nobody reads.
    async fn taken_to(&self, bytes: usize, ahead: usize) -> bool {
        let mut progress = self.shared.progress.subscribe();
        let over = |now: &Progress| now.broken || now.end.is_some();
        let looked = progress.wait_for(|now| over(now) || bytes <= now.taken + ahead).await;
        looked.is_ok_and(|now| bytes <= now.taken && ahead == 0 || !over(&now))
    }

    /// Writes what the start was given, before anything else that is written.
    fn write_first(self: &Arc<Self>, bytes: Vec<u8>) {
        let Ok(mut written) = Arc::clone(&self.written).try_lock_owned() else { return };
        let process = Arc::downgrade(self);
        tokio::spawn(async move {
            if let Some(process) = process.upgrade() {
                // A process that reads less than it was given is free to do so.
                let _ = process.feed(&mut written, &bytes).await;
            }
        });
    }

    /// Closes its standard input; nothing happens where that was done, or where it has ended.
    ///
    /// # Errors
    /// A dead guest.
    pub async fn close_stdin(&self) -> Result<(), VmError> {
        let mut written = self.written.lock().await;
        let op = "close_stdin";
        if written.closed || self.has_ended(op).await? {
            written.closed = true;
            return Ok(());
        }
        self.guest.op(op, async |_| self.input.end_stdin().await).await?;
        written.closed = true;
        Ok(())
    }

    /// Its standard output, or its standard error, from the first byte on.
    pub fn stream(&self, stderr: bool) -> Arc<ByteStream> {
        let stream = Arc::new(ByteStream::new());
        let output = &mut self.shared.outputs()[usize::from(stderr)];
        stream.push(output.bytes.clone());
        match &output.end {
            Some(how) => stream.end(how.clone()),
            None => output.readers.push(Arc::clone(&stream)),
        }
        stream
    }

    /// Ends it: asks first, then kills it. Nothing happens where it has ended.
    ///
    /// # Errors
    /// A guest that is gone, a process that can't be killed.
    pub async fn close(&self) -> Result<(), VmError> {
        let op = "close";
        if self.has_ended(op).await? {
            return Ok(());
        }
        self.signal(op, SIGTERM).await?;
        if self.guest.op(op, async |_| Ok(tokio::time::timeout(GRACE, self.ended()).await)).await?.is_ok() {
            return Ok(());
        }
        self.signal(op, SIGKILL).await?;
        match self.guest.op(op, async |_| Ok(tokio::time::timeout(KILLED, self.ended()).await)).await? {
            Ok(_) => Ok(()),
            Err(_) => Err(self.error(op, format!("still there {} after SIGKILL", format_duration(KILLED)))),
        }
    }

    /// Kills it and waits for its end; a guest that is gone took it along.
    pub(super) async fn end(&self) {
        if self.signal("kill", SIGKILL).await.is_ok() {
            let gone = self.guest.op("kill", async |_| Ok(self.ended().await));
            let _ = tokio::time::timeout(KILLED, gone).await;
        }
        self.pump.abort();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Drops the conversation: the guest kills the process where it still runs.
        self.pump.abort();
    }
}
