//! Cancellation that flows from a run to its files, from a file to its tests, and from a test to what it waits for.
//!
//! A token is cancelled by hand (Ctrl-C) or by its own deadline, and then for good: the first reason stays.
//! Cancelling a token cancels its children, never its parent. Deadlines need no timer thread: whoever asks or
//! waits looks at the clock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Why something was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// A signal: the whole run ends.
    Interrupted,
    /// The test file's time is up.
    FileTimeout,
    /// One test's time is up.
    TestTimeout,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupted => "interrupted",
            Self::FileTimeout => "the file timed out",
            Self::TestTimeout => "the test timed out",
        })
    }
}

/// A handle to one cancellation; clones share it.
#[derive(Debug, Clone)]
pub struct CancelToken {
    node: Arc<Node>,
}

#[derive(Debug)]
struct Node {
    state: watch::Sender<Option<CancelReason>>,
    deadline: Option<Deadline>,
    children: Mutex<Vec<Weak<Node>>>,
    listeners: Mutex<Listeners>,
}

/// Who is called at a cancellation.
#[derive(Default)]
struct Listeners {
    next: u64,
    by_id: BTreeMap<u64, Box<dyn Fn() + Send>>,
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_id.keys()).finish()
    }
}

/// A listener is called for as long as this lives.
#[derive(Debug)]
#[must_use = "the listener is forgotten when this is dropped"]
pub struct Listening {
    node: Arc<Node>,
    id: u64,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.node.lock_listeners().by_id.remove(&self.id);
    }
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    reason: CancelReason,
}

impl Default for CancelToken {
    fn default() -> Self {
        Self::new()
    }
}

impl CancelToken {
    /// A token without parent and deadline.
    pub fn new() -> Self {
        Self { node: Arc::new(Node::new(None, None)) }
    }

    /// A token that is cancelled with this one, and can be cancelled alone.
    pub fn child(&self) -> Self {
        self.child_until(None)
    }

    /// As [`child`](Self::child), and cancelled with `reason` once `limit` has passed from now. A parent's earlier
    /// deadline stays in force, with its own reason.
    pub fn child_with_deadline(&self, limit: Duration, reason: CancelReason) -> Self {
        // A limit beyond what the clock can express is no limit.
        self.child_until(Instant::now().checked_add(limit).map(|at| Deadline { at, reason }))
    }

    fn child_until(&self, own: Option<Deadline>) -> Self {
        let earliest = match (self.node.deadline, own) {
            (Some(parent), Some(own)) => Some(if own.at < parent.at { own } else { parent }),
            (parent, own) => parent.or(own),
        };
        let mut children = self.node.lock_children();
        let node = Arc::new(Node::new(*self.node.state.borrow(), earliest));
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&node));
        Self { node }
    }

    /// Cancels this token and its children. Later reasons change nothing.
    pub fn cancel(&self, reason: CancelReason) {
        self.node.cancel(reason);
    }

    /// The reason, once cancelled or past the deadline.
    pub fn reason(&self) -> Option<CancelReason> {
        let reason = *self.node.state.borrow();
        reason.or_else(|| {
            self.node.expired().map(|reason| {
                self.node.cancel(reason);
                // A concurrent `cancel` may have been first.
                (*self.node.state.borrow()).unwrap_or(reason)
            })
        })
    }

    /// Whether to stop.
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// The earliest deadline of this token and its parents.
    pub fn deadline(&self) -> Option<Instant> {
        self.node.deadline.map(|deadline| deadline.at)
    }

    /// Has `listener` called when the token is cancelled, at once where it is already; it must not block. For threads that wait
    /// without a runtime: they look at the [`deadline`](Self::deadline) themselves. It may be called twice.
    pub fn listen(&self, listener: Box<dyn Fn() + Send>) -> Listening {
        let id = {
            let mut listeners = self.node.lock_listeners();
            let id = listeners.next;
            listeners.next += 1;
            listeners.by_id.insert(id, listener);
            id
        };
        if self.is_cancelled()
            && let Some(listener) = self.node.lock_listeners().by_id.get(&id)
        {
            listener();
        }
        Listening { node: Arc::clone(&self.node), id }
    }

    /// Returns once the token is cancelled or its deadline has passed. Dropping the future loses nothing.
    ///
    /// # Panics
    /// When the token has a deadline and there is no tokio runtime with a timer around it.
    pub async fn cancelled(&self) -> CancelReason {
        let mut state = self.node.state.subscribe();
        let by_hand = async {
            match state.wait_for(Option::is_some).await.map(|reason| *reason) {
                Ok(Some(reason)) => reason,
                // The sender lives in `self`, and the condition is `is_some`.
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        match self.node.deadline {
            None => by_hand.await,
            Some(deadline) => {
                tokio::select! {
                    reason = by_hand => reason,
                    () = tokio::time::sleep_until(deadline.at.into()) => self.reason().unwrap_or(deadline.reason),
                }
            }
        }
    }
}

impl Node {
    fn new(state: Option<CancelReason>, deadline: Option<Deadline>) -> Self {
        Self { state: watch::Sender::new(state), deadline, children: Mutex::default(), listeners: Mutex::default() }
    }

    fn lock_children(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Node>>> {
        // The list is consistent at every step, so a panic elsewhere does not spoil it.
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_listeners(&self) -> std::sync::MutexGuard<'_, Listeners> {
        // As above.
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expired(&self) -> Option<CancelReason> {
        self.deadline.filter(|deadline| deadline.at <= Instant::now()).map(|deadline| deadline.reason)
    }

    fn cancel(&self, reason: CancelReason) {
        // A deadline that passed unnoticed was there first.
        let reason = self.expired().unwrap_or(reason);
        let mut guard = self.lock_children();
        let first = self.state.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(reason);
            }
            first
        });
        let children = if first { std::mem::take(&mut *guard) } else { Vec::new() };
        drop(guard);
        if first {
            self.lock_listeners().by_id.values().for_each(|listener| listener());
        }
        for child in children.iter().filter_map(Weak::upgrade) {
            child.cancel(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn flows_down_and_never_up() {
        let run = CancelToken::new();
        let file = run.child();
        let test = file.child();
        let sibling = run.child();
        file.cancel(CancelReason::FileTimeout);
        assert_eq!(test.reason(), Some(CancelReason::FileTimeout));
        assert_eq!(run.reason(), None);
        assert_eq!(sibling.reason(), None);
        run.cancel(CancelReason::Interrupted);
        assert_eq!(sibling.reason(), Some(CancelReason::Interrupted));
        assert_eq!(test.reason(), Some(CancelReason::FileTimeout), "the first reason stays");
    }

    #[test]
    fn a_child_of_a_cancelled_token_is_cancelled() {
        let run = CancelToken::new();
        run.cancel(CancelReason::Interrupted);
        assert!(run.child().is_cancelled());
        assert_eq!(
            run.child_with_deadline(Duration::ZERO, CancelReason::TestTimeout).reason(),
            Some(CancelReason::Interrupted)
        );
    }

    #[test]
    fn deadlines_are_noticed_without_a_timer() {
        let run = CancelToken::new();
        let file = run.child_with_deadline(Duration::ZERO, CancelReason::FileTimeout);
        assert_eq!(file.reason(), Some(CancelReason::FileTimeout));
        assert_eq!(run.reason(), None);
    }

    #[test]
    fn the_earlier_deadline_gives_the_reason() {
        let file = CancelToken::new().child_with_deadline(Duration::ZERO, CancelReason::FileTimeout);
        let test = file.child_with_deadline(Duration::from_secs(3600), CancelReason::TestTimeout);
        assert_eq!(test.reason(), Some(CancelReason::FileTimeout));
        assert_eq!(test.deadline(), file.deadline());

        let file = CancelToken::new().child_with_deadline(Duration::from_secs(3600), CancelReason::FileTimeout);
        let test = file.child_with_deadline(Duration::ZERO, CancelReason::TestTimeout);
        // Cancelled from above after its own deadline has passed unnoticed.
        file.cancel(CancelReason::Interrupted);
        assert_eq!(test.reason(), Some(CancelReason::TestTimeout));
    }

    #[test]
    fn a_limit_beyond_the_clock_is_none() {
        let file = CancelToken::new().child_with_deadline(Duration::MAX, CancelReason::FileTimeout);
        assert_eq!(file.deadline(), None);
    }

    #[test]
    fn waiting_ends_by_hand_from_another_thread() {
        let run = CancelToken::new();
        let file = run.child_with_deadline(Duration::from_secs(3600), CancelReason::FileTimeout);
        let canceller = std::thread::spawn(move || run.cancel(CancelReason::Interrupted));
        assert_eq!(block_on(file.cancelled()), CancelReason::Interrupted);
        canceller.join().unwrap();
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let token = CancelToken::new().child_with_deadline(Duration::from_millis(5), CancelReason::TestTimeout);
        assert_eq!(block_on(token.cancelled()), CancelReason::TestTimeout);
        assert_eq!(token.reason(), Some(CancelReason::TestTimeout));
    }

    #[test]
    fn listeners_hear_of_it_old_and_new() {
        let run = CancelToken::new();
        let file = run.child();
        let (tell, told) = std::sync::mpsc::channel();
        let listener = |name: &'static str| {
            let tell = tell.clone();
            Box::new(move || tell.send(name).unwrap())
        };
        let _early = file.listen(listener("early"));
        drop(file.listen(listener("dropped")));
        run.cancel(CancelReason::Interrupted);
        run.cancel(CancelReason::FileTimeout);
        let _late = file.listen(listener("late"));
        assert_eq!(told.try_iter().collect::<Vec<_>>(), ["early", "late"]);
    }

    #[test]
    fn forgotten_children_are_not_kept() {
        let run = CancelToken::new();
        for _ in 0..100 {
            drop(run.child());
        }
        assert!(run.node.lock_children().len() <= 1);
    }
}
