//! The order in which the requests of a batch are sent: each waits until the one before it is sent, none for an answer.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// A place in the order, to be used by one request.
#[derive(Clone)]
pub struct Turn(Arc<Mutex<Option<Ticket>>>);

/// A request's place in the order. Its end lets the next one go on.
pub(super) struct Ticket {
    before: Mutex<Option<oneshot::Receiver<()>>>,
    _next: oneshot::Sender<()>,
}

impl Turn {
    /// The first place and each that follows.
    pub fn sequence() -> impl FnMut() -> Self {
        let mut before = None;
        move || {
            let (next, after) = oneshot::channel();
            let ticket = Ticket { before: Mutex::new(before.replace(after)), _next: next };
            Self(Arc::new(Mutex::new(Some(ticket))))
        }
    }

    pub(super) fn take(&self) -> Option<Ticket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Ticket {
    /// Returns once the place has come up.
    pub(super) async fn comes_up(&self) {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(before) = before {
            // An error says that the sender is gone, which is the signal.
            let _ = before.await;
        }
    }
}
