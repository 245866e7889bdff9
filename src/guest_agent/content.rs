//! How the content of files goes from the I/O thread to the ops thread.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::agent_protocol::DATA_CHUNK;

/// Vectors that were filled from the channel once and can be again: making new ones costs as much as filling them.
#[derive(Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// How many are kept.
    const KEPT: usize = 4;

    /// One of them, whatever is in it; else a new one.
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// It is not needed any more.
    pub fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < Self::KEPT && buffer.len() == DATA_CHUNK {
            kept.push(buffer);
        }
    }
}

/// Lets the I/O thread wait for the ops thread while content comes. Were both at work, every page that comes would interrupt
/// the writing of the one before; so the channel fills up meanwhile, and is emptied at one go.
#[derive(Default)]
pub struct Pace {
    /// Pieces that the ops thread was given and is not done with.
    pending: Mutex<usize>,
    done: Condvar,
}

impl Pace {
    /// How long the I/O thread waits: what blocks the ops thread for longer must not keep it from reading.
    const PATIENCE: Duration = Duration::from_millis(20);

    /// The ops thread is about to be given a piece.
    pub fn begin(&self) {
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    /// Waits until the ops thread is done with all pieces, within limits.
    pub fn wait(&self) {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.done.wait_timeout_while(pending, Self::PATIENCE, |pending| *pending > 0));
    }

    /// The ops thread is done with a piece.
    pub fn end(&self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending = pending.saturating_sub(1);
        self.done.notify_one();
    }
}
