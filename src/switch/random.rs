//! Random decisions that can be repeated: Sebastiano Vigna's `SplitMix64`.

/// A stream of numbers that its seed determines.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of `seed`, of the purpose and the ordered pair that `parts` names: each has one of its own, so that the
    /// traffic of others changes nothing.
    pub fn new(seed: u64, parts: &[u64]) -> Self {
        let mut random = Self(seed);
        for part in parts {
            random.0 = random.next() ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        random
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(limit);
        u64::try_from(wide >> 64).unwrap_or_default()
    }

    /// Whether something that happens to `percent` of all frames happens to this one.
    pub fn happens(&mut self, percent: f64) -> bool {
        // 53 bits: all that a double holds.
        let drawn = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        drawn * 100.0 < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_and_the_pair_determine_it() {
        let draw = |seed, parts: &[u64]| Random::new(seed, parts).next();
        assert_eq!(draw(1, &[1, 2]), draw(1, &[1, 2]));
        assert_ne!(draw(1, &[1, 2]), draw(1, &[2, 1]));
        assert_ne!(draw(1, &[1, 2]), draw(2, &[1, 2]));
    }

    #[test]
    fn percentages_are_met() {
        let mut random = Random::new(7, &[]);
        let count = |random: &mut Random, percent| (0..20_000).filter(|_| random.happens(percent)).count();
        assert_eq!((count(&mut random, 0.0), count(&mut random, 100.0)), (0, 20_000));
        // Six standard deviations.
        assert!((5611..=6389).contains(&count(&mut random, 30.0)));
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }
}
