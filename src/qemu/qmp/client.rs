//! The client: commands with deadlines, and the guest's condition.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::condition::GuestCondition;
use super::passing::send_with;
use super::wire::{LONGEST_LINE, Lines, Message, Refusal, parse};
use crate::foundation::path_error::describe_io;
use crate::qemu::error::QmpError;

/// How long a command may take, unless said otherwise.
const DEADLINE: Duration = Duration::from_secs(30);
/// Events that a slow observer may be behind.
const EVENTS_KEPT: usize = 256;

/// Something that QEMU told by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct QmpEvent {
    /// QEMU's name of it: `DEVICE_DELETED`.
    pub name: String,
    /// `Null` where it has none.
    pub data: Value,
}

/// A line to send, and the descriptor that goes with it.
type Outgoing = (Vec<u8>, Option<OwnedFd>);

type Answer = Result<Value, Refusal>;

/// A handle on a QEMU's control channel. Clones share it; the channel ends with the last one.
#[derive(Debug, Clone)]
pub struct Qmp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// A writer of its own makes `execute` safe to drop: a line is never half written.
    lines: mpsc::UnboundedSender<Outgoing>,
    next_id: AtomicU64,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The id of the agent's port.
    agent_port: &'static str,
    condition: watch::Sender<GuestCondition>,
    events: broadcast::Sender<QmpEvent>,
}

#[derive(Debug)]
struct State {
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    /// Why the channel ended, once it has.
    ended: Option<String>,
    /// For messages about a deadline.
    last: String,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Qmp {
    /// Waits for the greeting and turns on commands; `agent_port` is the device whose opening and closing counts. Must be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// `Deadline` when either takes longer than `deadline`; `Closed` when QEMU ends or sends something else.
    pub async fn connect(stream: UnixStream, agent_port: &'static str, deadline: Duration) -> Result<Self, QmpError> {
        let (reader, writer) = stream.into_split();
        let mut lines = Lines::new(reader, LONGEST_LINE);
        let closed = |reason| QmpError::Closed { awaited: "its greeting".to_owned(), reason };
        let greeting = tokio::time::timeout(deadline, lines.next()).await.map_err(|_| QmpError::Deadline {
            awaited: "with its greeting".to_owned(),
            after: deadline,
            last: "nothing".to_owned(),
        })?;
        match parse(&greeting.map_err(closed)?).map_err(closed)? {
            Message::Greeting => {}
            Message::Event { .. } | Message::Answer { .. } => return Err(closed("it sent something else".to_owned())),
        }
        let qmp = Self::over(lines, writer, agent_port);
        qmp.execute_within("qmp_capabilities", Value::Null, deadline).await?;
        Ok(qmp)
    }

    fn over(lines: Lines<OwnedReadHalf>, writer: OwnedWriteHalf, agent_port: &'static str) -> Self {
        let state = State { waiting: HashMap::new(), ended: None, last: "the greeting".to_owned() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            agent_port,
            condition: watch::Sender::new(GuestCondition::default()),
            events: broadcast::Sender::new(EVENTS_KEPT),
        });
        let (sender, queue) = mpsc::unbounded_channel();
        let reading = tokio::spawn(Arc::clone(&shared).read(lines));
        let writing = tokio::spawn(Arc::clone(&shared).write(queue, writer));
        let inner = Inner { shared, lines: sender, next_id: AtomicU64::new(1), tasks: [reading, writing] };
        Self { inner: Arc::new(inner) }
    }

    /// Runs a command and returns its result; 30 s at most. `Null` stands for no arguments.
    ///
    /// # Errors
    /// `Refused` with QEMU's words, `Deadline`, or `Closed` when QEMU has gone.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.execute_within(command, arguments, DEADLINE).await
    }

    /// `execute` with a deadline of its own. Dropping the future is safe: the command may still be carried out, its
    /// answer is dropped.
    ///
    /// # Errors
    /// As `execute`.
    pub async fn execute_within(&self, command: &str, arguments: Value, within: Duration) -> Result<Value, QmpError> {
        self.send(command, arguments, None, within).await
    }

    /// Gives QEMU a copy of `descriptor`, which other commands then call by `name`; the first that uses it takes it.
    ///
    /// # Errors
    /// As `execute`.
    pub async fn pass(&self, name: &str, descriptor: OwnedFd) -> Result<(), QmpError> {
        self.send("getfd", json!({ "fdname": name }), Some(descriptor), DEADLINE).await.map(drop)
    }

    /// What QEMU tells from now on. An observer that falls far behind is told so by `RecvError::Lagged`.
    pub fn events(&self) -> broadcast::Receiver<QmpEvent> {
        self.inner.shared.events.subscribe()
    }

    async fn send(
        &self,
        command: &str,
        arguments: Value,
        descriptor: Option<OwnedFd>,
        within: Duration,
    ) -> Result<Value, QmpError> {
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let awaited = || format!("`{command}`");
        let (sender, answer) = oneshot::channel();
        self.inner
            .shared
            .expect_answer(id, sender)
            .map_err(|reason| QmpError::Closed { awaited: awaited(), reason })?;
        let _forget = Forget { shared: &self.inner.shared, id };
        // A writer that has ended told why, and answers no more.
        let _ = self.inner.lines.send((line(command, arguments, id), descriptor));
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(Refusal { class, description }))) => {
                Err(QmpError::Refused { command: command.to_owned(), class, description })
            }
            Ok(Err(_)) => Err(QmpError::Closed { awaited: awaited(), reason: self.inner.shared.why_ended() }),
            Err(_) => {
                let last = self.inner.shared.lock().last.clone();
                Err(QmpError::Deadline { awaited: awaited(), after: within, last })
            }
        }
    }

    /// The guest's condition, with all events since the start counted in. An event that came before a command's answer
    /// is counted in once `execute` has returned.
    pub fn condition(&self) -> watch::Receiver<GuestCondition> {
        self.inner.shared.condition.subscribe()
    }
}

/// One command as a line.
fn line(command: &str, arguments: Value, id: u64) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("execute".to_owned(), json!(command));
    if !arguments.is_null() {
        object.insert("arguments".to_owned(), arguments);
    }
    object.insert("id".to_owned(), json!(id));
    let mut line = Value::Object(object).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Takes a command off the waiting list when its caller is done or gone.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.id);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // No code panics with the lock held, and the state is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect_answer(&self, id: u64, sender: oneshot::Sender<Answer>) -> Result<(), String> {
        let mut state = self.lock();
        if let Some(reason) = &state.ended {
            return Err(reason.clone());
        }
        state.waiting.insert(id, sender);
        Ok(())
    }

    fn why_ended(&self) -> String {
        self.lock().ended.clone().unwrap_or_else(|| "it was closed here".to_owned())
    }

    fn end(&self, reason: String) {
        let mut state = self.lock();
        state.ended.get_or_insert(reason);
        // Dropped senders wake their callers.
        state.waiting.clear();
    }

    async fn read(self: Arc<Self>, mut lines: Lines<OwnedReadHalf>) {
        loop {
            match lines.next().await.and_then(|line| parse(&line)) {
                Ok(message) => self.take(message),
                Err(reason) => return self.end(reason),
            }
        }
    }

    fn take(&self, message: Message) {
        match message {
            Message::Greeting => {}
            Message::Answer { id, result } => {
                let waiting = {
                    let mut state = self.lock();
                    state.last = "another command's answer".to_owned();
                    state.waiting.remove(&id)
                };
                // A caller that gave up does not mind.
                if let Some(sender) = waiting {
                    let _ = sender.send(result);
                }
            }
            Message::Event { name, data } => {
                self.condition.send_if_modified(|condition| {
                    let next = condition.after(&name, &data, self.agent_port);
                    let changed = next != *condition;
                    *condition = next;
                    changed
                });
                self.lock().last = format!("the event `{name}`");
                // With nobody listening there is nobody to tell.
                let _ = self.events.send(QmpEvent { name, data });
            }
        }
    }

    async fn write(self: Arc<Self>, mut queue: mpsc::UnboundedReceiver<Outgoing>, mut writer: OwnedWriteHalf) {
        while let Some((line, descriptor)) = queue.recv().await {
            let sent = match descriptor {
                None => Ok(0),
                Some(descriptor) => send_with(writer.as_ref(), &line, &descriptor).await,
            };
            let rest = sent.map(|count| &line[count.min(line.len())..]);
            let written = match rest {
                Ok(rest) => writer.write_all(rest).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                return self.end(describe_io(&error));
            }
        }
    }
}
