//! Faults that requests meet: which, how often, where. Pure: a request in, what happens to it out.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::random::Random;

/// How long `slow` holds a request back where nothing else is said.
pub const SLOW: Duration = Duration::from_millis(50);

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Reads fail with EIO.
    EioRead,
    /// Writes fail with EIO.
    EioWrite,
    /// Flushes fail with EIO.
    EioFlush,
    /// Writes fail with ENOSPC.
    Enospc,
    /// Requests take longer.
    Slow,
    /// A bit of each sector that is read is flipped.
    CorruptRead,
    /// Only the first half of a write arrives, and nothing tells.
    TornWrite,
    /// Requests are not answered.
    Hang,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::EioRead,
        Self::EioWrite,
        Self::EioFlush,
        Self::Enospc,
        Self::Slow,
        Self::CorruptRead,
        Self::TornWrite,
        Self::Hang,
    ];

    /// As a test writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EioRead => "eio_read",
            Self::EioWrite => "eio_write",
            Self::EioFlush => "eio_flush",
            Self::Enospc => "enospc",
            Self::Slow => "slow",
            Self::CorruptRead => "corrupt_read",
            Self::TornWrite => "torn_write",
            Self::Hang => "hang",
        }
    }

    /// The mode of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    fn strikes(self, kind: Kind) -> bool {
        match self {
            Self::EioRead | Self::CorruptRead => kind == Kind::Read,
            Self::EioWrite | Self::Enospc | Self::TornWrite => kind == Kind::Write,
            Self::EioFlush => kind == Kind::Flush,
            Self::Slow | Self::Hang => true,
        }
    }

    /// Whether it decides when a request is carried out, not how.
    fn delays(self) -> bool {
        matches!(self, Self::Slow | Self::Hang)
    }
}

/// What a request is, as faults and the log of requests see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reading.
    Read,
    /// Writing; also zeroes, and sectors that are given back.
    Write,
    /// Making what was written durable.
    Flush,
}

impl Kind {
    /// As a test reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
        }
    }
}

/// A fault as it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// What it does.
    pub mode: Mode,
    /// The sectors it is about; none: the whole disk, flushes too.
    pub sectors: Option<Range<u64>>,
    /// How probable it is that a request is struck.
    pub p: f64,
    /// How many requests pass before the first is struck.
    pub after: u64,
    /// How many are struck; none: all.
    pub times: Option<u64>,
    /// How long `slow` takes.
    pub delay: Duration,
    /// Of the probability, and of the bits that are flipped.
    pub seed: u64,
}

impl Fault {
    /// The mode everywhere and always.
    pub fn plain(mode: Mode) -> Self {
        Self { mode, sectors: None, p: 1.0, after: 0, times: None, delay: SLOW, seed: 1 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Active {
    id: u64,
    fault: Fault,
    seen: u64,
    struck: u64,
    random: Random,
}

impl Active {
    fn is_over(&self) -> bool {
        self.fault.times.is_some_and(|times| self.struck >= times)
    }

    /// The sectors of a request that it is about, where it is about any.
    fn touches(&self, kind: Kind, first: u64, count: u64) -> Option<Range<u64>> {
        if !self.fault.mode.strikes(kind) {
            return None;
        }
        let whole = first..first + count;
        match &self.fault.sectors {
            None => Some(whole),
            Some(_) if kind == Kind::Flush => (self.fault.mode == Mode::EioFlush).then_some(whole),
            Some(sectors) => {
                let both = whole.start.max(sectors.start)..whole.end.min(sectors.end);
                (!both.is_empty()).then_some(both)
            }
        }
    }

    /// Counts a request that it is about; whether it is struck.
    fn count(&mut self) -> bool {
        self.seen += 1;
        let struck = self.seen > self.fault.after && !self.is_over() && self.random.chance(self.fault.p);
        self.struck += u64::from(struck);
        struck
    }
}

/// What a request waits for before it is carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wait {
    /// This time.
    pub delay: Duration,
    /// The end of these faults.
    pub hung_by: Vec<u64>,
    /// The faults that cause the delay: it is over when they are gone.
    pub slowed_by: Vec<u64>,
}

impl Wait {
    /// Whether there is nothing to wait for.
    pub fn is_none(&self) -> bool {
        self.hung_by.is_empty() && self.slowed_by.is_empty()
    }
}

/// What becomes of a request that is carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    /// It fails so.
    pub errno: Option<i32>,
    /// In these sectors the bit of this number is flipped.
    pub corrupt: Vec<(u64, u64)>,
    /// Only half of it arrives.
    pub torn: bool,
}

/// The faults of one disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Faults {
    active: Vec<Active>,
    next_id: u64,
}

impl Faults {
    /// Adds one.
    pub fn inject(&mut self, fault: Fault) {
        self.next_id += 1;
        let random = Random::new(fault.seed);
        self.active.push(Active { id: self.next_id, fault, seen: 0, struck: 0, random });
    }

    /// Ends all.
    pub fn clear(&mut self) {
        self.active.clear();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// The names of those that may still strike, each once, in the order in which they came.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for active in self.active.iter().filter(|active| !active.is_over()) {
            if !names.contains(&active.fault.mode.name()) {
                names.push(active.fault.mode.name());
            }
        }
        names
    }

    /// Whether a fault is still there, struck out or not.
    pub fn holds(&self, id: u64) -> bool {
        self.active.iter().any(|active| active.id == id)
    }

    /// A request comes: what it waits for; `may_hang` is whether `hang` counts.
    pub fn arrive(&mut self, kind: Kind, first: u64, count: u64, may_hang: bool) -> Wait {
        let mut wait = Wait::default();
        let counts = |active: &&mut Active| active.fault.mode.delays() && (may_hang || active.fault.mode != Mode::Hang);
        for active in self.active.iter_mut().filter(counts) {
            if active.touches(kind, first, count).is_none() || !active.count() {
                continue;
            }
            if active.fault.mode == Mode::Hang {
                wait.hung_by.push(active.id);
            } else {
                wait.slowed_by.push(active.id);
                wait.delay += active.fault.delay;
            }
        }
        wait
    }

    /// A request is carried out: what becomes of it.
    pub fn strike(&mut self, kind: Kind, first: u64, count: u64) -> Effect {
        let mut effect = Effect::default();
        for active in self.active.iter_mut().filter(|active| !active.fault.mode.delays()) {
            let Some(touched) = active.touches(kind, first, count) else { continue };
            if !active.count() {
                continue;
            }
            match active.fault.mode {
                Mode::EioRead | Mode::EioWrite | Mode::EioFlush => effect.errno = effect.errno.or(Some(libc::EIO)),
                Mode::Enospc => effect.errno = effect.errno.or(Some(libc::ENOSPC)),
                Mode::CorruptRead => {
                    effect.corrupt.extend(touched.map(|sector| (sector, active.random.below(4096))));
                }
                Mode::TornWrite => effect.torn = true,
                Mode::Slow | Mode::Hang => {}
            }
        }
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(all: impl IntoIterator<Item = Fault>) -> Faults {
        let mut faults = Faults::default();
        all.into_iter().for_each(|fault| faults.inject(fault));
        faults
    }

    #[test]
    fn only_the_range_is_struck() {
        let mut faults = faults([Fault { sectors: Some(100..108), ..Fault::plain(Mode::EioRead) }]);
        let struck = |faults: &mut Faults, kind, first, count| faults.strike(kind, first, count).errno.is_some();
        assert!(struck(&mut faults, Kind::Read, 100, 1) && struck(&mut faults, Kind::Read, 0, 101));
        assert!(struck(&mut faults, Kind::Read, 107, 8));
        assert!(!struck(&mut faults, Kind::Read, 108, 8) && !struck(&mut faults, Kind::Read, 92, 8));
        assert!(!struck(&mut faults, Kind::Write, 100, 8) && !struck(&mut faults, Kind::Flush, 0, 0));
        faults.clear();
        assert!(!struck(&mut faults, Kind::Read, 100, 1));
    }

    #[test]
    fn after_and_times_count_what_it_is_about() {
        let fault = Fault { after: 2, times: Some(2), sectors: Some(0..8), ..Fault::plain(Mode::Enospc) };
        let mut faults = faults([fault]);
        let mut hits = Vec::new();
        for number in 0..8 {
            // One that lies elsewhere does not count.
            assert_eq!(faults.strike(Kind::Write, 8, 1).errno, None);
            if faults.strike(Kind::Write, 0, 1).errno == Some(libc::ENOSPC) {
                hits.push(number);
            }
        }
        assert_eq!(hits, [2, 3]);
        assert_eq!(faults.names(), Vec::<&str>::new());
    }

    #[test]
    fn delays_add_up_and_hanging_ends_with_its_fault() {
        let slow = Fault { delay: Duration::from_millis(5), ..Fault::plain(Mode::Slow) };
        let mut faults = faults([slow.clone(), slow, Fault { times: Some(1), ..Fault::plain(Mode::Hang) }]);
        let wait = faults.arrive(Kind::Flush, 0, 0, true);
        assert_eq!((wait.delay, wait.hung_by.len(), wait.slowed_by.len()), (Duration::from_millis(10), 1, 2));
        assert!(faults.holds(wait.hung_by[0]));
        assert!(faults.arrive(Kind::Read, 0, 1, true).hung_by.is_empty());
        assert_eq!(faults.names(), ["slow"]);
        faults.clear();
        assert!(!faults.holds(wait.hung_by[0]) && faults.arrive(Kind::Read, 0, 1, true).is_none());
    }

    #[test]
    fn a_probability_is_met_and_repeats_with_its_seed() {
        let hits = |seed| {
            let mut faults = faults([Fault { p: 0.25, seed, ..Fault::plain(Mode::EioWrite) }]);
            (0..1000).map(|_| faults.strike(Kind::Write, 0, 1).errno.is_some()).collect::<Vec<_>>()
        };
        let count = hits(1).iter().filter(|hit| **hit).count();
        assert!((200..300).contains(&count), "{count}");
        assert_eq!(hits(1), hits(1));
        assert_ne!(hits(1), hits(2));
    }

    #[test]
    fn several_at_once() {
        let mut faults =
            faults([Fault::plain(Mode::TornWrite), Fault::plain(Mode::CorruptRead), Fault::plain(Mode::TornWrite)]);
        assert_eq!(faults.names(), ["torn_write", "corrupt_read"]);
        assert!(faults.strike(Kind::Write, 4, 2).torn);
        let corrupt = faults.strike(Kind::Read, 4, 2).corrupt;
        assert_eq!(corrupt.iter().map(|(sector, _)| *sector).collect::<Vec<_>>(), [4, 5]);
        assert!(Mode::ALL.iter().all(|mode| Mode::parse(mode.name()) == Some(*mode)) && Mode::parse("x").is_none());
    }
}
