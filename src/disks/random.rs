//! Random numbers that are the same for the same seed (SplitMix64).

use serde::{Deserialize, Serialize};

/// A sequence of numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number from 0 to `bound` − 1; `bound` is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The upper half of the product: as even as 64 bits allow.
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or_default()
    }

    /// True with the probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what a float holds")]
        let number = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        number < p
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            (0..4)
                .map({
                    let mut random = Random::new(seed);
                    move |_| random.next()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        let mut random = Random::new(7);
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert!((0..100).all(|_| random.chance(1.0)) && !(0..100).any(|_| random.chance(0.0)));
        let half = (0..1000).filter(|_| random.chance(0.5)).count();
        assert!((400..600).contains(&half), "{half}");
    }
}
