//! Bytes on their way from a guest to a test: a buffer with one producer and waiting consumers.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::foundation::duration::format_duration;

/// How much may wait unread, in bytes.
const LARGEST_UNREAD: usize = 64 * 1024 * 1024;
/// How much of what came last an error shows, in bytes.
const SHOWN: usize = 200;

/// Why a consumer did not get what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamError {
    /// It did not come in time; the bytes are kept.
    TimedOut {
        /// How long was waited.
        waited: Duration,
        /// The end of what is there.
        last: Vec<u8>,
    },
    /// The stream ended without it; the bytes are kept.
    Ended {
        /// The end of what is there.
        last: Vec<u8>,
    },
    /// The stream was closed.
    Closed,
    /// The producer failed.
    Failed(String),
    /// What is looked for can't be looked for.
    Matcher(String),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |last: &[u8]| {
            if last.is_empty() {
                "nothing is there".to_owned()
            } else {
                format!("what is there ends with `{}`", String::from_utf8_lossy(last).escape_debug())
            }
        };
        match self {
            Self::TimedOut { waited, last } => {
                write!(f, "timed out after {}: {}", format_duration(*waited), shown(last))
            }
            Self::Ended { last } => write!(f, "the stream has ended: {}", shown(last)),
            Self::Closed => f.write_str("the stream is closed"),
            Self::Failed(why) | Self::Matcher(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StreamError {}

#[derive(Default)]
struct State {
    /// Pieces as they came; those that were taken are gone.
    pieces: std::collections::VecDeque<Vec<u8>>,
    unread: usize,
    end: Option<Result<(), String>>,
    closed: bool,
}

/// A stream of bytes.
#[derive(Default)]
pub struct ByteStream {
    state: Mutex<State>,
    changed: Notify,
}

impl ByteStream {
    /// An open stream without bytes.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes. False when nobody will read them: the producer can stop.
    pub fn push(&self, bytes: Vec<u8>) -> bool {
        let mut state = self.state();
        if state.closed || state.end.is_some() {
            return false;
        }
        if state.unread + bytes.len() > LARGEST_UNREAD {
            let limit = LARGEST_UNREAD / (1024 * 1024);
            state.end = Some(Err(format!("more than {limit} MiB came that nobody read")));
        } else if !bytes.is_empty() {
            state.unread += bytes.len();
            state.pieces.push_back(bytes);
        }
        let open = state.end.is_none();
        drop(state);
        self.changed.notify_waiters();
        open
    }

    /// Nothing more will come; the first end counts.
    pub fn end(&self, how: Result<(), String>) {
        self.state().end.get_or_insert(how);
        self.changed.notify_waiters();
    }

    /// Nobody will read any more.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.pieces.clear();
        state.unread = 0;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Whether its end has come and everything was read.
    pub fn at_end(&self) -> bool {
        let state = self.state();
        state.end.is_some() && state.pieces.is_empty()
    }

    /// Returns once the stream was closed: for the producer.
    pub async fn wait_closed(&self) {
        self.watch(None, |state| state.closed.then_some(())).await;
    }

    /// Calls `look` now and after every change, until it has an answer or `deadline` has passed.
    async fn watch<T>(&self, deadline: Option<Instant>, mut look: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the look: a change in between is not missed.
            changed.as_mut().enable();
            if let Some(answer) = look(&mut self.state()) {
                return Some(answer);
            }
            match deadline {
                None => changed.await,
                Some(deadline) => tokio::time::timeout_at(deadline, changed).await.ok()?,
            }
        }
    }

    /// All bytes that are there, as soon as there are some; `None` at the end and when `timeout` is over.
    ///
    /// # Errors
    /// A closed stream, a producer that failed.
    pub async fn next(&self, timeout: Duration) -> Result<Option<Vec<u8>>, StreamError> {
        self.take(deadline(timeout)).await.unwrap_or(Ok(None))
    }

    async fn take(&self, deadline: Option<Instant>) -> Option<Result<Option<Vec<u8>>, StreamError>> {
        self.watch(deadline, |state| {
            if state.closed {
                return Some(Err(StreamError::Closed));
            }
            if !state.pieces.is_empty() {
                state.unread = 0;
                return Some(Ok(Some(state.pieces.drain(..).flatten().collect())));
            }
            match &state.end {
                None => None,
                Some(Ok(())) => Some(Ok(None)),
                Some(Err(why)) => Some(Err(StreamError::Failed(why.clone()))),
            }
        })
        .await
    }

    /// Everything that comes until the end or until `timeout` is over, in the pieces in which it came.
    ///
    /// # Errors
    /// A closed stream, a producer that failed.
    pub async fn drain(&self, timeout: Duration) -> Result<Vec<Vec<u8>>, StreamError> {
        let deadline = deadline(timeout);
        let mut all = Vec::new();
        let end = self
            .watch(deadline, |state| {
                state.unread = 0;
                all.extend(state.pieces.drain(..));
                match &state.end {
                    _ if state.closed => Some(Err(StreamError::Closed)),
                    None => None,
                    Some(Ok(())) => Some(Ok(())),
                    Some(Err(why)) => Some(Err(StreamError::Failed(why.clone()))),
                }
            })
            .await;
        match end {
            None | Some(Ok(())) => Ok(all),
            Some(Err(error)) => Err(error),
        }
    }

    /// The bytes up to the end of the first match; `find` is given all unread bytes and says where the match ends. Bytes
    /// past it stay; without a match all stay.
    ///
    /// # Errors
    /// A time-out, the end, a closed stream, a producer that failed, a `find` that fails.
    pub async fn read_until(
        &self,
        timeout: Option<Duration>,
        mut find: impl FnMut(&[u8]) -> Result<Option<usize>, String>,
    ) -> Result<Vec<u8>, StreamError> {
        let mut looked_at = None;
        let found = self
            .watch(timeout.and_then(deadline), |state| {
                if state.closed {
                    return Some(Err(StreamError::Closed));
                }
                if looked_at != Some(state.unread) {
                    looked_at = Some(state.unread);
                    match find(state.joined()) {
                        Err(why) => return Some(Err(StreamError::Matcher(why))),
                        Ok(Some(end)) => return Some(Ok(state.split(end))),
                        Ok(None) => {}
                    }
                }
                match &state.end {
                    None => None,
                    Some(Ok(())) => Some(Err(StreamError::Ended { last: state.last() })),
                    Some(Err(why)) => Some(Err(StreamError::Failed(why.clone()))),
                }
            })
            .await;
        found.unwrap_or_else(|| {
            Err(StreamError::TimedOut { waited: timeout.unwrap_or_default(), last: self.state().last() })
        })
    }

    /// The next line without its end; what is left at the stream's end counts as one. `None` past that.
    ///
    /// # Errors
    /// A closed stream, a producer that failed.
    pub async fn next_line(&self) -> Result<Option<Vec<u8>>, StreamError> {
        let newline = |bytes: &[u8]| Ok(memchr::memchr(b'\n', bytes).map(|at| at + 1));
        match self.read_until(None, newline).await {
            Ok(mut line) => {
                line.pop();
                Ok(Some(line))
            }
            Err(StreamError::Ended { .. }) => self.next(Duration::ZERO).await,
            Err(error) => Err(error),
        }
    }
}

impl State {
    /// All unread bytes in one piece.
    fn joined(&mut self) -> &[u8] {
        if self.pieces.len() > 1 {
            let mut pieces = self.pieces.drain(..);
            let mut all = pieces.next().unwrap_or_default();
            pieces.for_each(|piece| all.extend_from_slice(&piece));
            self.pieces.push_back(all);
        }
        self.pieces.front().map_or(&[], Vec::as_slice)
    }

    /// Takes the first `end` bytes.
    fn split(&mut self, end: usize) -> Vec<u8> {
        self.joined();
        let mut all = self.pieces.pop_front().unwrap_or_default();
        let rest = all.split_off(end.min(all.len()));
        self.unread = rest.len();
        if !rest.is_empty() {
            self.pieces.push_back(rest);
        }
        all
    }

    fn last(&mut self) -> Vec<u8> {
        let all = self.joined();
        all[all.len().saturating_sub(SHOWN)..].to_vec()
    }
}

/// None where the clock can't express it: no limit then.
fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn find(needle: &'static [u8]) -> impl FnMut(&[u8]) -> Result<Option<usize>, String> {
        move |bytes| Ok(memchr::memmem::find(bytes, needle).map(|at| at + needle.len()))
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_past_a_match_are_kept() {
        let stream = ByteStream::new();
        for piece in ["lo", "gin: ", "more"] {
            assert!(stream.push(piece.into()));
        }
        assert_eq!(stream.read_until(Some(LONG), find(b"gin:")).await.unwrap(), b"login:");
        assert_eq!(stream.next(LONG).await.unwrap().unwrap(), b" more");
        let error = stream.read_until(Some(LONG), find(b"x")).await.unwrap_err();
        assert_eq!(error, StreamError::TimedOut { waited: LONG, last: Vec::new() });
        assert_eq!(stream.next(LONG).await, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn ends_and_lines() {
        let stream = ByteStream::new();
        stream.push(b"one\ntwo\n\nrest".to_vec());
        stream.end(Ok(()));
        assert!(!stream.push(b"late".to_vec()));
        assert!(!stream.at_end());
        let error = stream.read_until(None, find(b"x")).await.unwrap_err();
        assert_eq!(error.to_string(), "the stream has ended: what is there ends with `one\\ntwo\\n\\nrest`");
        for line in ["one", "two", "", "rest"] {
            assert_eq!(stream.next_line().await.unwrap().unwrap(), line.as_bytes());
        }
        assert_eq!(stream.next_line().await, Ok(None));
        assert!(stream.at_end());
        stream.close();
        assert_eq!(stream.next(LONG).await, Err(StreamError::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn drain_gives_the_pieces() {
        let stream = std::sync::Arc::new(ByteStream::new());
        let producer = std::sync::Arc::clone(&stream);
        tokio::spawn(async move {
            for piece in [b"a".to_vec(), b"b".to_vec()] {
                producer.push(piece);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            tokio::time::sleep(LONG).await;
            producer.push(b"late".to_vec());
        });
        assert_eq!(stream.drain(Duration::from_millis(500)).await.unwrap(), [b"a", b"b"]);
        stream.wait_closed_or(LONG * 2).await;
        assert_eq!(stream.next(LONG).await.unwrap().unwrap(), b"late");
    }

    impl ByteStream {
        async fn wait_closed_or(&self, limit: Duration) {
            let _ = tokio::time::timeout(limit, self.wait_closed()).await;
        }
    }

    #[tokio::test]
    async fn too_much_unread_is_an_error() {
        let stream = ByteStream::new();
        assert!(stream.push(vec![0; LARGEST_UNREAD]));
        assert!(!stream.push(vec![0]));
        assert_eq!(stream.next(LONG).await.unwrap().unwrap().len(), LARGEST_UNREAD);
        assert!(matches!(stream.next(LONG).await, Err(StreamError::Failed(why)) if why.contains("64 MiB")));
    }
}
