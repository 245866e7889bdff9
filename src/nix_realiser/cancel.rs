//! Asking a realisation under way to stop.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Listener = Box<dyn Fn() + Send>;

#[derive(Default)]
struct State {
    cancelled: bool,
    next: u64,
    listeners: Vec<(u64, Listener)>,
}

/// A handle that any thread may use to stop the realisation it was given to. It stays cancelled.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Mutex<State>>);

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("cancelled", &self.is_cancelled()).finish()
    }
}

impl Cancel {
    /// A handle nobody has used yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops what was given this handle: nix's process group gets SIGTERM, and SIGKILL after 5 seconds.
    pub fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        for (_, listener) in &state.listeners {
            listener();
        }
    }

    /// Whether somebody cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Has `listener` called when somebody cancels, at once if that was before. It must not block.
    pub fn listen(&self, listener: Listener) -> Listening {
        let mut state = self.lock();
        if state.cancelled {
            listener();
        }
        let id = state.next;
        state.next += 1;
        state.listeners.push((id, listener));
        Listening { cancel: self.clone(), id }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, so a panicking listener leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listener is called for as long as this lives.
#[must_use = "the listener is forgotten when this is dropped"]
pub struct Listening {
    cancel: Cancel,
    id: u64,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.cancel.lock().listeners.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn tells_listeners_old_and_new() {
        let cancel = Cancel::new();
        let (tell, told) = mpsc::channel();
        let early = tell.clone();
        let _early = cancel.listen(Box::new(move || early.send("early").unwrap()));
        let dropped = tell.clone();
        drop(cancel.listen(Box::new(move || dropped.send("dropped").unwrap())));
        cancel.clone().cancel();
        let _late = cancel.listen(Box::new(move || tell.send("late").unwrap()));
        assert!(cancel.is_cancelled());
        assert_eq!(told.try_iter().collect::<Vec<_>>(), ["early", "late"]);
    }
}
