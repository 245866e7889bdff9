//! The connection: one reader that sorts messages by request, one writer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::error::AgentError;
use super::mailbox::{Backlog, Mailbox, Sender, mailbox};
use super::turn::{Ticket, Turn};
use crate::agent_protocol::{Hello, Incoming, Op, OpReply, PROTOCOL_VERSION, ToGuest, ToHost, Wake};

/// How many frames may wait to be written; a sender waits past that.
const WAITING_FRAMES: usize = 16;

/// The requests that wait for messages; none once the connection is over.
pub(super) struct Waiting {
    pub(super) requests: HashMap<u32, Listener>,
    pub(super) ended: Option<AgentError>,
}

/// Where the messages of a request go.
pub(super) struct Listener {
    sender: Sender,
    /// Whether the request is to go on while the guest is there: it is nothing that has to end.
    lasts: bool,
}

/// The two tasks of a connection; each gives its half back when it is told to stop.
struct Tasks<R, W> {
    reading: JoinHandle<R>,
    writing: JoinHandle<W>,
}

pub(super) struct Shared {
    waiting: Mutex<Waiting>,
    pub(super) next: AtomicU32,
    pub(super) frames: mpsc::Sender<Vec<u8>>,
    /// What the requests have not taken yet.
    backlog: Arc<Backlog>,
    hello: Hello,
    /// Where what nobody waits for is sent from.
    runtime: tokio::runtime::Handle,
    /// Counts what was read from the guest.
    pub(super) heard: AtomicU64,
    stop: watch::Sender<bool>,
    /// Told whenever a request is over.
    over: watch::Sender<()>,
    /// Of a connection over a socket, until it is taken apart.
    tasks: Mutex<Option<Tasks<OwnedReadHalf, OwnedWriteHalf>>>,
}

impl Shared {
    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every request; the first reason stays.
    pub(super) fn end(&self, why: AgentError) {
        let mut waiting = self.waiting();
        waiting.ended.get_or_insert(why);
        waiting.requests.clear();
        drop(waiting);
        // A guest that was given up is neither listened to nor waited for.
        self.stop.send_replace(true);
        self.over.send_replace(());
    }

    /// Hands a message to its request; what nobody waits for (any more) is dropped.
    fn deliver(&self, request: u32, message: ToHost) {
        let mut waiting = self.waiting();
        let unwanted = match waiting.requests.get(&request) {
            None => Some(message),
            Some(listener) => listener.sender.send(message),
        };
        if let Some(message) = unwanted {
            waiting.requests.remove(&request);
            drop(waiting);
            self.over.send_replace(());
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
    pub(super) shared: Arc<Shared>,
    /// Orders its next request among those of a batch.
    turn: Option<Turn>,
}

/// Waits for the agent's hello, then for its answer to a ping. The caller bounds how long.
///
/// # Errors
/// A connection that ends, an agent of another version, bytes that are no messages.
pub async fn connect(stream: UnixStream) -> Result<(AgentClient, Hello), AgentError> {
    let (reader, writer) = stream.into_split();
    let (client, tasks) = begin(reader, writer).await?;
    *client.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Some(tasks);
    client.ping().await?;
    let hello = client.hello().clone();
    Ok((client, hello))
}

/// As [`connect`], over any channel.
///
/// # Errors
/// As [`connect`].
pub(super) async fn connect_halves<R, W>(reader: R, writer: W) -> Result<(AgentClient, Hello), AgentError>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (client, _) = begin(reader, writer).await?;
    client.ping().await?;
    let hello = client.hello().clone();
    Ok((client, hello))
}

/// Waits for the hello, answers it and starts the tasks.
async fn begin<R, W>(mut reader: R, mut writer: W) -> Result<(AgentClient, Tasks<R, W>), AgentError>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut incoming = Incoming::default();
    let hello = first_hello(&mut reader, &mut incoming).await?;
    writer.write_all(&hello.nonce).await.map_err(|error| AgentError::Closed(error.to_string()))?;
    Ok(start(reader, writer, incoming, hello, 1))
}

/// Ends the quiet of an agent, over the channel it had or that of a clone: `nonce` is what it waits for. The caller bounds how
/// long. Besides the agent, what did not work in the guest and may matter.
///
/// # Errors
/// A connection that ends, an agent of another version, bytes that are no messages.
pub async fn wake(
    stream: UnixStream,
    nonce: [u8; 16],
    wake: Wake,
) -> Result<(AgentClient, Hello, Vec<String>), AgentError> {
    const REQUEST: u32 = 1;
    let (mut reader, mut writer) = stream.into_split();
    // In one piece: one way there and one back.
    let mut first = nonce.to_vec();
    ToGuest::Op(Op::Wake(wake)).encode(REQUEST, &mut first);
    writer.write_all(&first).await.map_err(|error| AgentError::Closed(error.to_string()))?;
    let mut incoming = Incoming::default();
    let hello = first_hello(&mut reader, &mut incoming).await?;
    let notices = match next_message(&mut reader, &mut incoming, || ()).await? {
        (REQUEST, ToHost::Reply(OpReply::Notices(notices))) => notices,
        (REQUEST, ToHost::Failed(error)) => return Err(AgentError::Op(error)),
        (_, other) => {
            return Err(AgentError::Closed(format!("expected the agent to wake up, found {}", other.describe())));
        }
    };
    let (client, tasks) = start(reader, writer, incoming, hello, REQUEST + 1);
    *client.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Some(tasks);
    let hello = client.hello().clone();
    Ok((client, hello, notices))
}

async fn first_hello(reader: &mut (impl AsyncRead + Unpin), incoming: &mut Incoming) -> Result<Hello, AgentError> {
    let hello = match next_message(reader, incoming, || ()).await? {
        (_, ToHost::Hello(hello)) => hello,
        (_, other) => {
            return Err(AgentError::Closed(format!("expected the agent's hello, found {}", other.describe())));
        }
    };
    if hello.version != PROTOCOL_VERSION {
        return Err(AgentError::Version { found: hello.version });
    }
    Ok(hello)
}

/// Starts the tasks of a connection whose hello has come; `next` is the number of the next request.
fn start<R, W>(reader: R, writer: W, incoming: Incoming, hello: Hello, next: u32) -> (AgentClient, Tasks<R, W>)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (frames, queue) = mpsc::channel(WAITING_FRAMES);
    let shared = Arc::new(Shared {
        waiting: Mutex::new(Waiting { requests: HashMap::new(), ended: None }),
        next: AtomicU32::new(next),
        frames,
        backlog: Arc::default(),
        hello,
        runtime: tokio::runtime::Handle::current(),
        heard: AtomicU64::new(0),
        stop: watch::Sender::new(false),
        over: watch::Sender::new(()),
        tasks: Mutex::new(None),
    });
    let reading = tokio::spawn(read(reader, incoming, Arc::clone(&shared), shared.stop.subscribe()));
    let writing = tokio::spawn(write(writer, queue, Arc::downgrade(&shared), shared.stop.subscribe()));
    (AgentClient { shared, turn: None }, Tasks { reading, writing })
}

/// The next message; the request that it belongs to.
async fn next_message(
    reader: &mut (impl AsyncRead + Unpin),
    incoming: &mut Incoming,
    heard: impl Fn(),
) -> Result<(u32, ToHost), AgentError> {
    let unreadable = |error| AgentError::Closed(format!("the guest sent {error}"));
    loop {
        let count = match reader.read(incoming.room()).await {
            Ok(0) => return Err(AgentError::Closed("the guest's end was closed".to_owned())),
            Ok(count) => count,
            Err(error) => return Err(AgentError::Closed(error.to_string())),
        };
        heard();
        if let Some((request, kind, payload)) = incoming.filled(count, |_| Vec::new()).map_err(unreadable)? {
            return Ok((request, ToHost::decode_owned(kind, payload).map_err(unreadable)?));
        }
    }
}

/// Hands all messages to their requests, up to the end of the connection or until it is told to stop.
async fn read<R: AsyncRead + Unpin>(
    mut reader: R,
    mut incoming: Incoming,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) -> R {
    let heard = || {
        shared.heard.fetch_add(1, Ordering::Relaxed);
    };
    let why = loop {
        let next = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return reader,
            next = async {
                shared.backlog.room().await;
                next_message(&mut reader, &mut incoming, heard).await
            } => next,
        };
        match next {
            Ok((request, message)) => shared.deliver(request, message),
            Err(error) => break error,
        }
    };
    shared.end(why);
    reader
}

async fn write<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut queue: mpsc::Receiver<Vec<u8>>,
    shared: std::sync::Weak<Shared>,
    mut stop: watch::Receiver<bool>,
) -> W {
    loop {
        let written = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return writer,
            written = write_next(&mut writer, &mut queue) => written,
        };
        match written {
            Ok(true) => {}
            Ok(false) => return writer,
            Err(error) => {
                if let Some(shared) = shared.upgrade() {
                    shared.end(AgentError::Closed(error.to_string()));
                }
                return writer;
            }
        }
    }
}

/// Writes one frame. False when there will be no more.
async fn write_next(
    writer: &mut (impl AsyncWrite + Unpin),
    queue: &mut mpsc::Receiver<Vec<u8>>,
) -> std::io::Result<bool> {
    match queue.recv().await {
        None => Ok(false),
        Some(frame) => writer.write_all(&frame).await.map(|()| true),
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
        self.converse(false)
    }

    /// As [`AgentClient::open`]; the request goes on as long as the guest, and does not count as under way.
    ///
    /// # Errors
    /// When the connection is over.
    pub(super) fn open_lasting(&self) -> Result<Conversation, AgentError> {
        self.converse(true)
    }

    fn converse(&self, lasts: bool) -> Result<Conversation, AgentError> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, messages) = mailbox(&self.shared.backlog);
        let mut waiting = self.shared.waiting();
        if let Some(why) = &waiting.ended {
            return Err(why.clone());
        }
        waiting.requests.insert(number, Listener { sender, lasts });
        drop(waiting);
        let ticket = self.turn.as_ref().and_then(Turn::take);
        let to_guest = RequestSender { client: Self { shared: Arc::clone(&self.shared), turn: None }, number };
        Ok(Conversation { to_guest, messages, finished: false, ticket, keeps_turn: false })
    }

    /// Ends the connection with the reason `why` for all that is under way, and gives the stream back for another
    /// [`connect`]; `None` where that was done before.
    pub async fn withdraw(&self, why: &str) -> Option<UnixStream> {
        self.shared.end(AgentError::Withdrawn(why.to_owned()));
        let tasks = self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        self.shared.stop.send_replace(true);
        let (reader, writer) = (tasks.reading.await.ok()?, tasks.writing.await.ok()?);
        reader.reunite(writer).ok()
    }

    /// How many requests are under way, but for those that last as long as the guest.
    fn under_way(&self) -> usize {
        self.shared.waiting().requests.values().filter(|listener| !listener.lasts).count()
    }

    /// Waits at most `limit` until no request is under way, and says how many still are.
    pub async fn settle(&self, limit: Duration) -> usize {
        let mut over = self.shared.over.subscribe();
        let settled = async { while self.under_way() > 0 && over.changed().await.is_ok() {} };
        // What is left after that time is counted.
        let _ = tokio::time::timeout(limit, settled).await;
        self.under_way()
    }

    /// Makes the agent quiet for a snapshot; no request may be under way: see [`AgentClient::settle`]. The nonce that ends
    /// that: see [`wake`]. Only [`AgentClient::withdraw`] may follow.
    ///
    /// # Errors
    /// A connection that ends, an agent that can't.
    pub async fn quiesce(&self) -> Result<[u8; 16], AgentError> {
        match self.op(Op::Quiesce).await? {
            OpReply::Quiet(nonce) => Ok(nonce),
            _ => Err(AgentError::Closed("expected the agent to be quiet, found another reply".to_owned())),
        }
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
        let ended = self.client.shared.waiting().ended.clone();
        ended.unwrap_or_else(|| AgentError::Closed("unknown reason".to_owned()))
    }
}

/// One request and its messages. Dropping it before its end gives the request up in the guest as well.
pub(super) struct Conversation {
    to_guest: RequestSender,
    messages: Mailbox,
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
        self.messages.next().await.ok_or_else(|| self.to_guest.closed())
    }

    /// The next message, where it is there already.
    pub(super) fn try_next(&mut self) -> Option<ToHost> {
        self.messages.take()
    }

    /// The request is over: nothing is given up by dropping it.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// A message that has no place in this request.
    pub(super) fn unexpected(&self, message: &ToHost) -> AgentError {
        let why = format!("the guest sent {} where it has no place", message.describe());
        self.to_guest.client.shared.end(AgentError::Closed(why.clone()));
        AgentError::Closed(why)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let RequestSender { client, number } = &self.to_guest;
        let shared = &client.shared;
        shared.waiting().requests.remove(number);
        shared.over.send_replace(());
        if self.finished {
            return;
        }
        shared.send_later(*number, &ToGuest::Cancel);
        while let Some(message) = self.messages.take() {
            shared.discard(&message);
        }
    }
}
