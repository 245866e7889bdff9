//! Requests that a fault holds up, and the thread that looks after them.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::disk::{Client, Disk, Order, Outcome};
use super::faults::{Faults, Wait};
use super::state::State;

/// Where nothing tells when a request may go on, it is looked at again so often.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
const STACK: usize = 256 * 1024;

/// A request that waits.
pub struct Delayed {
    pub(super) client: Client,
    order: Order,
    due: Instant,
    wait: Wait,
    reply: Box<dyn FnOnce(Outcome) + Send>,
}

impl fmt::Debug for Delayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delayed {:?} {:?}", self.order.extent(), self.wait)
    }
}

impl Delayed {
    pub(super) fn new(order: Order, client: Client, wait: Wait, reply: Box<dyn FnOnce(Outcome) + Send>) -> Self {
        let now = Instant::now();
        Self { client, order, due: now.checked_add(wait.delay).unwrap_or(now + LOOK_AGAIN), wait, reply }
    }

    /// Answers with an error.
    pub(super) fn fail(self, errno: i32) {
        if self.client.alive.load(Ordering::SeqCst) {
            (self.reply)(Err(errno));
        }
    }

    /// Whether only the end of a fault lets it go on.
    pub(super) fn is_hung(&self) -> bool {
        !self.wait.hung_by.is_empty()
    }

    fn is_ready(&self, faults: &Faults, now: Instant) -> bool {
        let hangs = self.wait.hung_by.iter().any(|id| faults.holds(*id));
        let slow = now < self.due && self.wait.slowed_by.iter().any(|id| faults.holds(*id));
        !hangs && !slow
    }
}

impl Disk {
    pub(super) fn ensure_delayer(self: &Arc<Self>, state: &mut State) {
        if state.delayer {
            return;
        }
        let disk = Arc::clone(self);
        let thread = std::thread::Builder::new().name("slow disk".to_owned()).stack_size(STACK);
        match thread.spawn(move || disk.look_after()) {
            Ok(_) => state.delayer = true,
            // Without a thread nothing can be delayed: better at once than never.
            Err(_) => {
                for delayed in std::mem::take(&mut state.queue) {
                    delayed.fail(libc::ENOMEM);
                }
            }
        }
    }

    fn look_after(&self) {
        let mut state = self.lock();
        loop {
            state.queue.retain(|delayed| delayed.client.alive.load(Ordering::SeqCst));
            if state.queue.is_empty() {
                state.delayer = false;
                return;
            }
            let now = Instant::now();
            if let Some(at) = state.queue.iter().position(|delayed| delayed.is_ready(&state.faults, now)) {
                let Delayed { client, order, reply, .. } = state.queue.remove(at);
                let outcome = state.perform(order, client.is_host);
                drop(state);
                reply(outcome);
                state = self.lock();
                continue;
            }
            let next = state.queue.iter().map(|delayed| delayed.due).filter(|due| *due > now).min();
            let pause = next.map_or(LOOK_AGAIN, |due| due - now);
            state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
