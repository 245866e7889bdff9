//! The connection: one reader that sorts messages by request, one writer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::error::AgentError;
use super::turn::{Ticket, Turn};
use crate::agent_protocol::{Hello, Incoming, Op, OpReply, PROTOCOL_VERSION, ToGuest, ToHost};

/// How many frames may wait to be written; a sender waits past that.
const WAITING_FRAMES: usize = 16;

/// The requests that wait for messages; none once the connection is over.
struct Waiting {
    requests: HashMap<u32, mpsc::UnboundedSender<ToHost>>,
    ended: Option<String>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    next: AtomicU32,
    frames: mpsc::Sender<Vec<u8>>,
    hello: Hello,
    /// Where what nobody waits for is sent from.
    runtime: tokio::runtime::Handle,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every request; the first reason stays.
    fn end(&self, why: String) {
        let mut waiting = self.waiting();
        waiting.ended.get_or_insert(why);
        waiting.requests.clear();
    }

    /// Hands a message to its request; what nobody waits for (any more) is dropped.
    fn deliver(&self, request: u32, message: ToHost) {
        let mut waiting = self.waiting();
        let unwanted = match waiting.requests.get(&request) {
            None => Some(message),
            Some(sender) => sender.send(message).err().map(|mpsc::error::SendError(message)| message),
        };
        if let Some(message) = unwanted {
            waiting.requests.remove(&request);
            drop(waiting);
            self.discard(&message);
        }
    }

    /// Sends a message that has no answer, or one that nobody waits for.
    fn send_later(&self, request: u32, message: &ToGuest) {
        let mut frame = Vec::new();
        message.encode(request, &mut frame);
        if let Err(mpsc::error::TrySendError::Full(frame)) = self.frames.try_send(frame) {
            let frames = self.frames.clone();
            self.runtime.spawn(async move { frames.send(frame).await });
        }
    }

    /// What came too late for its request: a file that was opened in vain is closed again.
    fn discard(&self, message: &ToHost) {
        if let ToHost::Reply(OpReply::Opened(fd)) = message {
            self.close_later(*fd);
        }
    }

    fn close_later(&self, fd: i32) {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        self.send_later(request, &ToGuest::Op(Op::Close(fd)));
    }
}

/// A guest's agent; clones share the connection.
#[derive(Clone)]
pub struct AgentClient {
    shared: Arc<Shared>,
    /// Orders its next request among those of a batch.
    turn: Option<Turn>,
}

/// Waits for the agent's hello, then for its answer to a ping. The caller bounds how long.
///
/// # Errors
/// A connection that ends, an agent of another version, bytes that are no messages.
pub async fn connect(stream: UnixStream) -> Result<(AgentClient, Hello), AgentError> {
    let (reader, writer) = stream.into_split();
    connect_halves(reader, writer).await
}

/// As [`connect`], over any channel.
///
/// # Errors
/// As [`connect`].
pub(super) async fn connect_halves<R, W>(mut reader: R, mut writer: W) -> Result<(AgentClient, Hello), AgentError>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut incoming = Incoming::default();
    let hello = match next_message(&mut reader, &mut incoming).await? {
        (_, ToHost::Hello(hello)) => hello,
        (_, other) => {
            return Err(AgentError::Closed(format!("expected the agent's hello, found {}", other.describe())));
        }
    };
    if hello.version != PROTOCOL_VERSION {
        return Err(AgentError::Version { found: hello.version });
    }
    writer.write_all(&hello.nonce).await.map_err(|error| AgentError::Closed(error.to_string()))?;
    let (frames, queue) = mpsc::channel(WAITING_FRAMES);
    let waiting = Mutex::new(Waiting { requests: HashMap::new(), ended: None });
    let runtime = tokio::runtime::Handle::current();
    let next = AtomicU32::new(1);
    let shared = Arc::new(Shared { waiting, next, frames, hello: hello.clone(), runtime });
    tokio::spawn(read(reader, incoming, Arc::clone(&shared)));
    tokio::spawn(write(writer, queue, Arc::downgrade(&shared)));
    let client = AgentClient { shared, turn: None };
    client.ping().await?;
    Ok((client, hello))
}

/// The next message; the request that it belongs to.
async fn next_message(
    reader: &mut (impl AsyncRead + Unpin),
    incoming: &mut Incoming,
) -> Result<(u32, ToHost), AgentError> {
    let unreadable = |error| AgentError::Closed(format!("the guest sent {error}"));
    loop {
        let count = match reader.read(incoming.room()).await {
            Ok(0) => return Err(AgentError::Closed("the guest's end was closed".to_owned())),
            Ok(count) => count,
            Err(error) => return Err(AgentError::Closed(error.to_string())),
        };
        if let Some((request, kind, payload)) = incoming.filled(count, |_| Vec::new()).map_err(unreadable)? {
            return Ok((request, ToHost::decode_owned(kind, payload).map_err(unreadable)?));
        }
    }
}

/// Hands all messages to their requests, up to the end of the connection.
async fn read(mut reader: impl AsyncRead + Unpin, mut incoming: Incoming, shared: Arc<Shared>) {
    let why = loop {
        match next_message(&mut reader, &mut incoming).await {
            Ok((request, message)) => shared.deliver(request, message),
            Err(AgentError::Closed(why)) => break why,
            Err(other) => break other.to_string(),
        }
    };
    shared.end(why);
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Vec<u8>>,
    shared: std::sync::Weak<Shared>,
) {
    while let Some(frame) = queue.recv().await {
        if let Err(error) = writer.write_all(&frame).await {
            if let Some(shared) = shared.upgrade() {
                shared.end(error.to_string());
            }
            return;
        }
    }
}

impl AgentClient {
    /// What the agent said of itself.
    pub fn hello(&self) -> &Hello {
        &self.shared.hello
    }

    /// The same agent; the next request is sent in its `turn`.
    pub fn in_turn(&self, turn: Turn) -> Self {
        Self { turn: Some(turn), ..self.clone() }
    }

    /// Sends a signal to the groups of all processes that the agent has started.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn signal_all(&self, signal: i32) -> Result<(), AgentError> {
        // Nothing answers: the request's number says that all are meant.
        RequestSender { client: self.clone(), number: 0 }.send(&ToGuest::Signal(signal)).await
    }

    /// Opens a request: its messages come to the returned conversation.
    ///
    /// # Errors
    /// When the connection is over.
    pub(super) fn open(&self) -> Result<Conversation, AgentError> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, messages) = mpsc::unbounded_channel();
        let mut waiting = self.shared.waiting();
        if let Some(why) = &waiting.ended {
            return Err(AgentError::Closed(why.clone()));
        }
        waiting.requests.insert(number, sender);
        drop(waiting);
        let ticket = self.turn.as_ref().and_then(Turn::take);
        let to_guest = RequestSender { client: Self { shared: Arc::clone(&self.shared), turn: None }, number };
        Ok(Conversation { to_guest, messages, finished: false, ticket, keeps_turn: false })
    }

    /// Whether `other` speaks to the same agent: not to one of another boot, and to no worker.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Closes a descriptor of the agent; nobody waits for it.
    pub fn close_later(&self, fd: i32) {
        self.shared.close_later(fd);
    }

    /// Returns once the agent has answered, which it does to messages in their order. What the kernel had logged before was passed
    /// on by then.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn ping(&self) -> Result<(), AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&ToGuest::Ping).await?;
        match conversation.next().await? {
            ToHost::Pong => {
                conversation.finish();
                Ok(())
            }
            other => Err(AgentError::Closed(format!("expected the answer to a ping, found {}", other.describe()))),
        }
    }
}

/// The way to the guest of one request.
#[derive(Clone)]
pub(super) struct RequestSender {
    client: AgentClient,
    number: u32,
}

impl RequestSender {
    /// Sends a message of this request.
    ///
    /// # Errors
    /// When the connection is over.
    pub(super) async fn send(&self, message: &ToGuest) -> Result<(), AgentError> {
        let mut frame = Vec::new();
        message.encode(self.number, &mut frame);
        self.client.shared.frames.send(frame).await.map_err(|_| self.closed())
    }

    /// Sends bytes of a file's content.
    ///
    /// # Errors
    /// When the connection is over.
    pub(super) async fn send_data(&self, bytes: &[u8]) -> Result<(), AgentError> {
        let mut frame = Vec::new();
        ToGuest::encode_data(self.number, bytes, &mut frame);
        self.client.shared.frames.send(frame).await.map_err(|_| self.closed())
    }

    fn closed(&self) -> AgentError {
        AgentError::Closed(self.client.shared.waiting().ended.clone().unwrap_or_else(|| "unknown reason".to_owned()))
    }
}

/// One request and its messages. Dropping it before its end gives the request up in the guest as well.
pub(super) struct Conversation {
    to_guest: RequestSender,
    messages: mpsc::UnboundedReceiver<ToHost>,
    finished: bool,
    ticket: Option<Ticket>,
    keeps_turn: bool,
}

impl Conversation {
    /// Sends a message of this request.
    ///
    /// # Errors
    /// When the connection is over.
    pub(super) async fn send(&self, message: &ToGuest) -> Result<(), AgentError> {
        if let Some(ticket) = &self.ticket {
            ticket.comes_up().await;
        }
        self.to_guest.send(message).await
    }

    /// Sends bytes of a file's content, after a first message.
    ///
    /// # Errors
    /// When the connection is over.
    pub(super) async fn send_data(&self, bytes: &[u8]) -> Result<(), AgentError> {
        self.to_guest.send_data(bytes).await
    }

    /// A way to send more of this request from elsewhere.
    pub(super) fn sender(&self) -> RequestSender {
        self.to_guest.clone()
    }

    /// All of this request is sent: what follows in a batch may be.
    pub(super) fn pass_turn(&mut self) {
        self.keeps_turn = false;
        self.ticket = None;
    }

    /// In a batch, what follows waits for the end of this request, not only until it was sent.
    pub(super) fn keep_turn(&mut self) {
        self.keeps_turn = true;
    }

    /// The next message of this request.
    ///
    /// # Errors
    /// When the connection is over.
    pub(super) async fn next(&mut self) -> Result<ToHost, AgentError> {
        if !self.keeps_turn {
            // All is sent: the next request of a batch may be.
            self.ticket = None;
        }
        self.messages.recv().await.ok_or_else(|| self.to_guest.closed())
    }

    /// The next message, where it is there already.
    pub(super) fn try_next(&mut self) -> Option<ToHost> {
        self.messages.try_recv().ok()
    }

    /// The request is over: nothing is given up by dropping it.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// A message that has no place in this request.
    pub(super) fn unexpected(&self, message: &ToHost) -> AgentError {
        let why = format!("the guest sent {} where it has no place", message.describe());
        self.to_guest.client.shared.end(why.clone());
        AgentError::Closed(why)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let RequestSender { client, number } = &self.to_guest;
        let shared = &client.shared;
        shared.waiting().requests.remove(number);
        if self.finished {
            return;
        }
        shared.send_later(*number, &ToGuest::Cancel);
        while let Ok(message) = self.messages.try_recv() {
            shared.discard(&message);
        }
    }
}
