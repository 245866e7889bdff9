//! What a power cut may leave: pure choices about writes that no flush has made durable.
//!
//! The model is that of a drive with a volatile cache: what was written before a flush that succeeded is on the medium, what was
//! written with FUA as well; each other write is on the medium whole, not at all, or up to some sector. A sector is never
//! half written.

use super::random::Random;

/// What became of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is on the medium.
    Kept,
    /// It is not.
    Dropped,
    /// Its first sectors are.
    Torn(u64),
}

/// One thing that happened to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A write.
    Write {
        /// How many sectors.
        sectors: u64,
        /// Whether it was on the medium when it was answered.
        durable: bool,
    },
    /// A flush that succeeded.
    Flush,
}

/// How the fates are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chance {
    /// Nothing that was not flushed is left.
    Nothing,
    /// By a seed; some writes torn where that is wanted.
    Seed {
        /// The seed.
        seed: u64,
        /// Whether a write may be on the medium in part.
        torn: bool,
    },
}

/// The fates of the writes that are not durable by a flush, in their order.
pub fn fates(writes: &[Step], chance: Chance) -> Vec<Fate> {
    match chance {
        Chance::Nothing => writes.iter().map(|write| fixed(*write).unwrap_or(Fate::Dropped)).collect(),
        Chance::Seed { seed, torn } => choose(writes, &mut Random::new(seed), torn),
    }
}

fn fixed(step: Step) -> Option<Fate> {
    match step {
        Step::Write { durable: false, .. } => None,
        Step::Write { .. } | Step::Flush => Some(Fate::Kept),
    }
}

fn choose(writes: &[Step], random: &mut Random, torn: bool) -> Vec<Fate> {
    // Drives that lost nearly all, or nearly nothing, are as likely as any between.
    let share = [0.0, 0.1, 0.5, 0.9, 1.0][usize::try_from(random.below(5)).unwrap_or_default()];
    let one = |step: &Step| {
        if let Some(fate) = fixed(*step) {
            return fate;
        }
        let sectors = if let Step::Write { sectors, .. } = step { *sectors } else { 0 };
        if torn && sectors > 1 && random.below(8) == 0 {
            return Fate::Torn(1 + random.below(sectors - 1));
        }
        if random.chance(share) { Fate::Kept } else { Fate::Dropped }
    };
    writes.iter().map(one).collect()
}

/// One state: the power went after `point` steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// How many steps had happened.
    pub point: usize,
    /// How many of them, from the first on, are on the medium for sure.
    pub settled: usize,
    /// What became of the others up to the point.
    pub fates: Vec<Fate>,
}

/// A log with more states than may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// How many there are; the largest number where there are more.
    pub states: u64,
}

/// The states that a log can leave, one after the other.
#[derive(Debug, Clone)]
pub struct States {
    steps: Vec<Step>,
    next: Next,
}

#[derive(Debug, Clone)]
enum Next {
    Sampled { random: Random, left: u64, torn: bool },
    All { point: usize, number: u64 },
}

impl States {
    /// `samples` of them, chosen by a seed.
    pub fn sampled(steps: Vec<Step>, seed: u64, samples: u64, torn: bool) -> Self {
        Self { steps, next: Next::Sampled { random: Random::new(seed), left: samples, torn } }
    }

    /// All of them, each once, with whole writes only.
    ///
    /// # Errors
    /// There are more than `limit`.
    pub fn all(steps: Vec<Step>, limit: u64) -> Result<Self, TooMany> {
        let this = Self { steps, next: Next::All { point: 0, number: 0 } };
        let states = (0..=this.steps.len()).fold(0_u64, |sum, point| sum.saturating_add(this.count_at(point)));
        if states > limit { Err(TooMany { states }) } else { Ok(this) }
    }

    /// The steps from which on nothing is settled at `point`.
    fn settled(&self, point: usize) -> usize {
        self.steps[..point].iter().rposition(|step| *step == Step::Flush).map_or(0, |at| at + 1)
    }

    /// The writes at `point` that may be missing, without the last step: a state without that one was there before.
    fn open(&self, point: usize) -> u32 {
        let settled = self.settled(point);
        let before = point.saturating_sub(1).max(settled);
        let open = self.steps[settled..before].iter().filter(|step| fixed(**step).is_none()).count();
        u32::try_from(open).unwrap_or(u32::MAX)
    }

    /// How many states appear first at `point`. After a flush there is none that was not there before it.
    fn count_at(&self, point: usize) -> u64 {
        match point.checked_sub(1).map(|last| self.steps[last]) {
            None => 1,
            Some(Step::Flush) => 0,
            Some(Step::Write { .. }) => 1_u64.checked_shl(self.open(point)).unwrap_or(u64::MAX),
        }
    }

    fn numbered(&self, point: usize, number: u64) -> Choice {
        let settled = self.settled(point);
        let mut bit = 0;
        let last = point.saturating_sub(1);
        let fate = |(at, step): (usize, &Step)| {
            if settled + at == last || fixed(*step).is_some() {
                return Fate::Kept;
            }
            let kept = number >> bit & 1 == 1;
            bit += 1;
            if kept { Fate::Kept } else { Fate::Dropped }
        };
        let fates = self.steps[settled..point].iter().enumerate().map(fate).collect();
        Choice { point, settled, fates }
    }
}

impl Iterator for States {
    type Item = Choice;

    fn next(&mut self) -> Option<Choice> {
        match self.next.clone() {
            Next::Sampled { mut random, left, torn } => {
                let left = left.checked_sub(1)?;
                let point = usize::try_from(random.below(self.steps.len() as u64 + 1)).unwrap_or_default();
                let settled = self.settled(point);
                let fates = choose(&self.steps[settled..point], &mut random, torn);
                self.next = Next::Sampled { random, left, torn };
                Some(Choice { point, settled, fates })
            }
            Next::All { mut point, mut number } => {
                while number >= self.count_at(point) {
                    (point, number) = (point + 1, 0);
                    if point > self.steps.len() {
                        return None;
                    }
                }
                self.next = Next::All { point, number: number + 1 };
                Some(self.numbered(point, number))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const WRITE: Step = Step::Write { sectors: 8, durable: false };
    const FUA: Step = Step::Write { sectors: 8, durable: true };

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(prop_oneof![4 => Just(WRITE), 1 => Just(FUA), 1 => Just(Step::Flush)], 0..12)
    }

    /// The writes that are on the medium, by their place in the log.
    fn left(steps: &[Step], choice: &Choice) -> Vec<(usize, Fate)> {
        let all = (0..choice.settled).map(|at| (at, Fate::Kept));
        let all = all.chain(choice.fates.iter().enumerate().map(|(at, fate)| (choice.settled + at, *fate)));
        all.filter(|(at, fate)| steps[*at] != Step::Flush && *fate != Fate::Dropped).collect()
    }

    proptest! {
        #[test]
        fn what_was_flushed_is_always_there(steps in steps(), seed in any::<u64>()) {
            let states = States::sampled(steps.clone(), seed, 50, true).chain(States::all(steps.clone(), u64::MAX).unwrap().take(500));
            for choice in states {
                let flushed = steps[..choice.point].iter().rposition(|step| *step == Step::Flush).unwrap_or(0);
                let there = left(&steps, &choice);
                for (at, step) in steps[..choice.point].iter().enumerate() {
                    let must = *step == FUA || *step == WRITE && at < flushed;
                    prop_assert!(!must || there.contains(&(at, Fate::Kept)), "{choice:?}");
                }
                prop_assert!(there.iter().all(|(at, _)| *at < choice.point));
                prop_assert!(there.iter().all(|(_, fate)| !matches!(fate, Fate::Torn(0 | 8..))));
            }
        }

        #[test]
        fn all_are_told_once(steps in steps()) {
            let all: Vec<_> = States::all(steps.clone(), u64::MAX).unwrap().collect();
            let seen: BTreeSet<Vec<usize>> =
                all.iter().map(|choice| left(&steps, choice).into_iter().map(|(at, _)| at).collect()).collect();
            prop_assert_eq!(seen.len(), all.len(), "each once");
            // Every subset of what is open at any point.
            for point in 0..=steps.len() {
                let sampled = States::sampled(steps[..point].to_vec(), 5, 20, false);
                for choice in sampled {
                    let one: Vec<usize> = left(&steps, &choice).into_iter().map(|(at, _)| at).collect();
                    prop_assert!(seen.contains(&one), "{:?} is missing", one);
                }
            }
        }
    }

    #[test]
    fn too_many_are_counted() {
        let steps = vec![WRITE; 80];
        assert_eq!(States::all(steps.clone(), 1000).unwrap_err(), TooMany { states: u64::MAX });
        assert_eq!(States::all(vec![WRITE; 10], 1024).unwrap().count(), 1024);
        assert_eq!(States::all(vec![WRITE; 10], 1023).unwrap_err(), TooMany { states: 1024 });
        let same = |seed| States::sampled(steps.clone(), seed, 30, true).collect::<Vec<_>>();
        assert_eq!(same(3), same(3));
        assert_ne!(same(3), same(4));
    }

    #[test]
    fn without_a_seed_nothing_is_left_but_what_is_durable() {
        assert_eq!(fates(&[WRITE, FUA, WRITE], Chance::Nothing), [Fate::Dropped, Fate::Kept, Fate::Dropped]);
    }
}
