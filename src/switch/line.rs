//! One direction between two ports, where something is done to its frames.

use std::time::Duration;

use super::forwarding::{Moment, Queued};
use super::impairments::Pair;
use super::random::Random;
use super::shaper::Shaper;

/// What each stream of random numbers decides.
const LOSS: u64 = 1;
const DUPLICATE: u64 = 2;
const CORRUPT: u64 = 3;
const REORDER: u64 = 4;
const JITTER: u64 = 5;

/// The state of one direction.
#[derive(Debug)]
pub struct Line {
    /// Whether a frame is lost.
    pub loss: Random,
    /// Whether it comes twice.
    pub duplicate: Random,
    /// Whether and where a bit is turned.
    pub corrupt: Random,
    /// Whether the next one overtakes it.
    pub reorder: Random,
    /// How long it takes.
    pub jitter: Random,
    /// The limit of this direction.
    pub shaper: Shaper,
    /// When the last one arrives: one that takes a shorter time does not overtake it.
    pub last_due: Moment,
    /// A frame that waits to be overtaken.
    pub held: Option<Queued>,
}

impl Line {
    /// The direction `pair` of a bridge with this seed.
    pub fn new(seed: u64, pair: Pair) -> Self {
        let stream = |what| Random::new(seed, &[u64::from(pair.0.0), u64::from(pair.1.0), what]);
        Self {
            loss: stream(LOSS),
            duplicate: stream(DUPLICATE),
            corrupt: stream(CORRUPT),
            reorder: stream(REORDER),
            jitter: stream(JITTER),
            shaper: Shaper::new(),
            last_due: Moment::ZERO,
            held: None,
        }
    }

    /// How long the next frame takes: `latency`, up to `jitter` more or less.
    pub fn delay(&mut self, latency: Duration, jitter: Duration) -> Duration {
        let span = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX / 2);
        if span == 0 {
            return latency;
        }
        let drawn = self.jitter.below(span.saturating_mul(2).saturating_add(1));
        (latency + Duration::from_nanos(drawn)).saturating_sub(Duration::from_nanos(span))
    }

    /// Turns one bit behind the Ethernet header.
    pub fn corrupt(&mut self, bytes: &mut [u8]) {
        let Some(bits) = bytes.len().checked_sub(super::frame::HEADER).map(|length| length as u64 * 8) else { return };
        if bits == 0 {
            return;
        }
        let bit = usize::try_from(self.corrupt.below(bits)).unwrap_or_default();
        bytes[super::frame::HEADER + bit / 8] ^= 1 << (bit % 8);
    }
}
