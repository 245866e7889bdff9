//! A limit on bits per second: a queue whose head takes as long as a wire of that speed would.

use std::collections::VecDeque;
use std::time::Duration;

use super::forwarding::{Moment, Queued};

/// A queue is as long as what the limit lets through in this time …
const DEPTH: Duration = Duration::from_millis(200);
/// … but never shorter than this many bytes.
const LEAST_DEPTH: u64 = 48 * 1024;

/// One limit.
#[derive(Debug)]
pub struct Shaper {
    bits_per_second: u64,
    queue: VecDeque<Queued>,
    bytes: u64,
    /// When the wire is free again; while something is queued, when its head is through.
    free_at: Moment,
}

impl Shaper {
    /// No limit; nothing is queued.
    pub fn new() -> Self {
        Self { bits_per_second: 0, queue: VecDeque::new(), bytes: 0, free_at: Moment::default() }
    }

    /// Changes the limit; 0 is none. The frame on the wire starts anew.
    pub fn set(&mut self, bits_per_second: u64, now: Moment) {
        if bits_per_second != self.bits_per_second {
            self.bits_per_second = bits_per_second;
            let head = self.queue.front().map_or(0, |head| head.bytes.len());
            self.free_at = now + self.time(head);
        }
    }

    /// Whether frames go through it.
    pub fn is_active(&self) -> bool {
        self.bits_per_second != 0 || !self.queue.is_empty()
    }

    /// Puts a frame at the end; gives it back where the queue is full.
    ///
    /// # Errors
    /// A full queue.
    pub fn push(&mut self, queued: Queued, now: Moment) -> Result<(), Queued> {
        let length = queued.bytes.len() as u64;
        let in_depth = u128::from(self.bits_per_second) * DEPTH.as_millis() / 8000;
        let depth = u64::try_from(in_depth).unwrap_or(u64::MAX).max(LEAST_DEPTH);
        if self.bytes + length > depth && !self.queue.is_empty() {
            return Err(queued);
        }
        if self.queue.is_empty() {
            self.free_at = self.free_at.max(now) + self.time(queued.bytes.len());
        }
        self.bytes += length;
        self.queue.push_back(queued);
        Ok(())
    }

    /// The next frame that is through by `now`, and when it was.
    pub fn pop(&mut self, now: Moment) -> Option<(Moment, Queued)> {
        if self.queue.is_empty() || self.free_at > now {
            return None;
        }
        let queued = self.queue.pop_front()?;
        self.bytes -= queued.bytes.len() as u64;
        let at = self.free_at;
        if let Some(next) = self.queue.front() {
            self.free_at = at + self.time(next.bytes.len());
        }
        Some((at, queued))
    }

    /// When the next frame is through.
    pub fn deadline(&self) -> Option<Moment> {
        self.queue.front().map(|_| self.free_at)
    }

    /// Keeps only some of what is queued; returns what goes.
    pub fn retain(&mut self, now: Moment, keep: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let head = self.queue.front().map(|head| head.number);
        let (kept, gone): (Vec<_>, Vec<_>) = self.queue.drain(..).partition(|queued| keep(queued));
        self.queue = kept.into();
        self.bytes = self.queue.iter().map(|queued| queued.bytes.len() as u64).sum();
        if let Some(next) = self.queue.front().filter(|next| Some(next.number) != head) {
            self.free_at = now + self.time(next.bytes.len());
        }
        gone
    }

    fn time(&self, bytes: usize) -> Duration {
        if self.bits_per_second == 0 {
            return Duration::ZERO;
        }
        let nanoseconds = bytes as u128 * 8 * 1_000_000_000 / u128::from(self.bits_per_second);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}
