//! What a bridge does to frames, and which it cuts off. Values only; `forwarding` applies them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::port::Port;

/// What happens to the frames of the whole bridge, or of one ordered pair.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Impairment {
    /// How long each frame is held back.
    pub latency: Duration,
    /// By how much that varies, up and down.
    pub jitter: Duration,
    /// Percent of frames that are lost.
    pub loss: f64,
    /// Percent of frames that come twice.
    pub duplicate: f64,
    /// Percent of frames with one bit turned.
    pub corrupt: f64,
    /// Percent of frames that the next one overtakes.
    pub reorder: f64,
    /// Bits per second; 0 is no limit.
    pub bandwidth: u64,
}

impl Impairment {
    /// Whether it changes nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Both together, but for the limits: those stand one behind the other.
    pub fn plus(&self, other: &Self) -> Self {
        let percent = |one: f64, other: f64| (one + other).min(100.0);
        Self {
            latency: self.latency + other.latency,
            jitter: self.jitter + other.jitter,
            loss: percent(self.loss, other.loss),
            duplicate: percent(self.duplicate, other.duplicate),
            corrupt: percent(self.corrupt, other.corrupt),
            reorder: percent(self.reorder, other.reorder),
            bandwidth: 0,
        }
    }
}

/// A direction: from, to.
pub type Pair = (Port, Port);

/// All that is in force on a bridge.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policy {
    /// For every frame.
    pub whole: Impairment,
    /// For one direction each.
    pub pairs: BTreeMap<Pair, Impairment>,
    /// Directions that are cut.
    pub cut: BTreeSet<Pair>,
    /// Ports that nothing reaches or leaves.
    pub isolated: BTreeSet<Port>,
}

impl Policy {
    /// Whether nothing gets from one to the other.
    pub fn is_cut(&self, pair: Pair) -> bool {
        self.cut.contains(&pair) || self.isolated.contains(&pair.0) || self.isolated.contains(&pair.1)
    }

    /// What happens to the frames of `pair`; `None` where nothing does.
    pub fn of(&self, pair: Pair) -> Option<Impairment> {
        match self.pairs.get(&pair) {
            None if self.whole.is_none() => None,
            None => Some(self.whole),
            Some(own) => Some(self.whole.plus(own)),
        }
    }

    /// Changes what is in force for one direction.
    pub fn change(&mut self, pair: Pair, act: impl FnOnce(&mut Impairment)) {
        let mut own = self.pairs.get(&pair).copied().unwrap_or_default();
        act(&mut own);
        if own.is_none() {
            self.pairs.remove(&pair)
        } else {
            self.pairs.insert(pair, own)
        };
    }

    /// Cuts both directions between ports of different groups.
    pub fn split(&mut self, groups: &[Vec<Port>]) {
        for_across(groups, |pair| {
            self.cut.insert(pair);
        });
    }

    /// Undoes [`Self::split`].
    pub fn join(&mut self, groups: &[Vec<Port>]) {
        for_across(groups, |pair| {
            self.cut.remove(&pair);
        });
    }

    /// Nothing is left of a port that is gone.
    pub fn forget(&mut self, port: Port) {
        let other = |pair: &Pair| pair.0 != port && pair.1 != port;
        self.pairs.retain(|pair, _| other(pair));
        self.cut.retain(other);
        self.isolated.remove(&port);
    }
}

fn for_across(groups: &[Vec<Port>], mut act: impl FnMut(Pair)) {
    for (at, group) in groups.iter().enumerate() {
        for other in groups.iter().enumerate().filter(|(index, _)| *index != at).flat_map(|(_, other)| other) {
            group.iter().for_each(|port| act((*port, *other)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Port = Port(1);
    const B: Port = Port(2);
    const C: Port = Port(3);

    #[test]
    fn whole_and_pair_add_up() {
        let mut policy = Policy::default();
        assert_eq!(policy.of((A, B)), None);
        policy.whole.latency = Duration::from_millis(50);
        policy.whole.loss = 70.0;
        policy.change((A, B), |own| {
            own.latency = Duration::from_millis(20);
            own.loss = 40.0;
        });
        let both = policy.of((A, B)).unwrap();
        assert_eq!((both.latency, both.loss), (Duration::from_millis(70), 100.0));
        assert_eq!(policy.of((B, A)).unwrap().latency, Duration::from_millis(50));
        policy.change((A, B), |own| *own = Impairment::default());
        assert!(policy.pairs.is_empty());
    }

    #[test]
    fn cuts_are_of_ordered_pairs() {
        let mut policy = Policy::default();
        policy.cut.insert((A, B));
        assert!(policy.is_cut((A, B)) && !policy.is_cut((B, A)));
        policy.split(&[vec![A, B], vec![C]]);
        let cut = |policy: &Policy| [(A, C), (C, A), (B, C), (C, B)].map(|pair| policy.is_cut(pair));
        assert_eq!((cut(&policy), policy.is_cut((B, A))), ([true; 4], false));
        policy.join(&[vec![A, B], vec![C]]);
        assert_eq!(cut(&policy), [false; 4]);
        policy.isolated.insert(B);
        assert!(policy.is_cut((C, B)) && policy.is_cut((B, C)) && !policy.is_cut((C, A)));
        policy.forget(B);
        assert_eq!(policy, Policy::default());
    }
}
