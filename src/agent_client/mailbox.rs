//! Messages on their way to the requests that they answer, all of a connection together bounded in memory: when requests don't
//! take their messages, nothing more is read from the guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, mpsc};

use crate::agent_protocol::ToHost;

/// How much may lie in all mailboxes of a connection before the guest is no longer listened to, in bytes.
const LARGEST_BACKLOG: usize = 64 * 1024 * 1024;
/// What a value takes in memory beside its bytes, about.
const OVERHEAD: usize = 64;

/// How much lies in the mailboxes of a connection.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: AtomicUsize,
    less: Notify,
}

impl Backlog {
    /// Waits until there is room for more.
    pub(super) async fn room(&self) {
        loop {
            let mut less = std::pin::pin!(self.less.notified());
            // Before the look: what is taken in between is not missed.
            less.as_mut().enable();
            if self.bytes.load(Ordering::Acquire) <= LARGEST_BACKLOG {
                return;
            }
            less.await;
        }
    }

    fn take(&self, message: &ToHost) {
        self.bytes.fetch_sub(weight(message), Ordering::AcqRel);
        self.less.notify_waiters();
    }
}

/// What a message takes in memory, about.
fn weight(message: &ToHost) -> usize {
    let bytes = match message {
        ToHost::Stdout(bytes) | ToHost::Stderr(bytes) | ToHost::Data(bytes) => bytes.len(),
        ToHost::Entries(entries) => entries.iter().map(|entry| entry.name.len() + OVERHEAD).sum(),
        ToHost::Returned(outcome) => {
            outcome.data.len() + outcome.bufs.iter().map(|buf| buf.len() + OVERHEAD).sum::<usize>()
        }
        ToHost::Failed(error) => error.op.len() + error.subject.len() + error.detail.len(),
        _ => 0,
    };
    bytes + OVERHEAD
}

/// Puts messages into a mailbox.
pub(super) struct Sender {
    queue: mpsc::UnboundedSender<ToHost>,
    backlog: Arc<Backlog>,
}

/// The messages of one request.
pub(super) struct Mailbox {
    queue: mpsc::UnboundedReceiver<ToHost>,
    backlog: Arc<Backlog>,
}

/// An empty mailbox, counted in `backlog`.
pub(super) fn mailbox(backlog: &Arc<Backlog>) -> (Sender, Mailbox) {
    let (sender, queue) = mpsc::unbounded_channel();
    (Sender { queue: sender, backlog: Arc::clone(backlog) }, Mailbox { queue, backlog: Arc::clone(backlog) })
}

impl Sender {
    /// Adds a message; it comes back where nobody will take it.
    pub(super) fn send(&self, message: ToHost) -> Option<ToHost> {
        self.backlog.bytes.fetch_add(weight(&message), Ordering::AcqRel);
        let mpsc::error::SendError(message) = self.queue.send(message).err()?;
        self.backlog.take(&message);
        Some(message)
    }
}

impl Mailbox {
    /// Waits for the next message; none once the connection is over and all were taken.
    pub(super) async fn next(&mut self) -> Option<ToHost> {
        let message = self.queue.recv().await?;
        self.backlog.take(&message);
        Some(message)
    }

    /// The next message that is there already.
    pub(super) fn take(&mut self) -> Option<ToHost> {
        let message = self.queue.try_recv().ok()?;
        self.backlog.take(&message);
        Some(message)
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // What comes from now on goes back to its sender.
        self.queue.close();
        while self.take().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_mailbox_makes_the_reader_wait() {
        let backlog = Arc::new(Backlog::default());
        let (sender, mut messages) = mailbox(&backlog);
        let (other, others) = mailbox(&backlog);
        backlog.room().await;
        assert_eq!(sender.send(ToHost::Data(vec![0; LARGEST_BACKLOG])), None);
        assert_eq!(other.send(ToHost::Done), None);
        let waiting = tokio::spawn({
            let backlog = Arc::clone(&backlog);
            async move { backlog.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(matches!(messages.next().await, Some(ToHost::Data(_))));
        waiting.await.unwrap();
        assert_eq!(sender.send(ToHost::Stdout(vec![0; LARGEST_BACKLOG])), None);
        drop(messages);
        backlog.room().await;
        assert_eq!(sender.send(ToHost::Done), Some(ToHost::Done));
        drop(others);
        assert_eq!(backlog.bytes.load(Ordering::Relaxed), 0);
    }
}
