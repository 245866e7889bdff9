//! Which sectors a layer holds: a bitmap that is there only where something is.

use std::collections::HashMap;

/// Sectors of one piece of the bitmap: 2 MiB of the disk.
const CHUNK: u64 = 4096;
const WORDS: usize = 64;

#[derive(Debug, Clone)]
enum Chunk {
    Full,
    Bits(Box<[u64; WORDS]>),
}

/// A set of sectors.
#[derive(Debug, Clone, Default)]
pub struct SectorMap {
    chunks: HashMap<u64, Chunk>,
}

impl SectorMap {
    /// Adds sectors.
    pub fn insert(&mut self, first: u64, count: u64) {
        for (number, from, to) in pieces(first, count) {
            if (from, to) == (0, CHUNK) {
                self.chunks.insert(number, Chunk::Full);
                continue;
            }
            let chunk = self.chunks.entry(number).or_insert_with(|| Chunk::Bits(Box::new([0; WORDS])));
            if let Chunk::Bits(bits) = chunk {
                set(bits, from, to, true);
                if bits.iter().all(|word| *word == u64::MAX) {
                    *chunk = Chunk::Full;
                }
            }
        }
    }

    /// Takes sectors out.
    pub fn remove(&mut self, first: u64, count: u64) {
        for (number, from, to) in pieces(first, count) {
            if (from, to) == (0, CHUNK) {
                self.chunks.remove(&number);
                continue;
            }
            let Some(chunk) = self.chunks.get_mut(&number) else { continue };
            if matches!(chunk, Chunk::Full) {
                *chunk = Chunk::Bits(Box::new([u64::MAX; WORDS]));
            }
            if let Chunk::Bits(bits) = chunk {
                set(bits, from, to, false);
            }
        }
    }

    /// Takes out all sectors from `first` on.
    pub fn cut(&mut self, first: u64) {
        let edge = first / CHUNK;
        self.chunks.retain(|number, _| *number <= edge);
        self.remove(first, (edge + 1) * CHUNK - first);
    }

    /// Whether `first` is in the set, and how many sectors from there on are alike, `count` at most.
    pub fn run(&self, first: u64, count: u64) -> (bool, u64) {
        let here = self.has(first);
        let mut length = 0;
        while length < count {
            let sector = first + length;
            let same = self.alike(sector, here);
            if same == 0 {
                break;
            }
            length += same;
        }
        (here, length.min(count))
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.chunks.values().all(|chunk| matches!(chunk, Chunk::Bits(bits) if bits.iter().all(|word| *word == 0)))
    }

    /// All runs of sectors in the set, in order.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let mut numbers: Vec<u64> = self.chunks.keys().copied().collect();
        numbers.sort_unstable();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for number in numbers {
            let (mut at, end) = (number * CHUNK, (number + 1) * CHUNK);
            while at < end {
                let (held, length) = self.run(at, end - at);
                match ranges.last_mut() {
                    Some((first, count)) if held && *first + *count == at => *count += length,
                    _ if held => ranges.push((at, length)),
                    _ => {}
                }
                at += length;
            }
        }
        ranges
    }

    fn has(&self, sector: u64) -> bool {
        match self.chunks.get(&(sector / CHUNK)) {
            None => false,
            Some(Chunk::Full) => true,
            Some(Chunk::Bits(bits)) => bits[word_of(sector)] >> (sector % 64) & 1 == 1,
        }
    }

    /// How many sectors from `sector` on, to the end of a word or chunk, are `held`.
    fn alike(&self, sector: u64, held: bool) -> u64 {
        let rest_of_chunk = CHUNK - sector % CHUNK;
        match self.chunks.get(&(sector / CHUNK)) {
            None if held => 0,
            None => rest_of_chunk,
            Some(Chunk::Full) if held => rest_of_chunk,
            Some(Chunk::Full) => 0,
            Some(Chunk::Bits(bits)) => {
                let word = bits[word_of(sector)] >> (sector % 64);
                let same = if held { word.trailing_ones() } else { word.trailing_zeros() };
                u64::from(same).min(64 - sector % 64)
            }
        }
    }
}

fn word_of(sector: u64) -> usize {
    usize::try_from(sector % CHUNK / 64).unwrap_or_default()
}

/// The chunks that sectors lie in, each with the part of it.
fn pieces(first: u64, count: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let end = first.saturating_add(count);
    let last = if count == 0 { first / CHUNK } else { end.div_ceil(CHUNK) };
    (first / CHUNK..last).map(move |number| {
        let begin = number * CHUNK;
        (number, first.max(begin) - begin, end.min(begin + CHUNK) - begin)
    })
}

fn set(bits: &mut [u64; WORDS], from: u64, to: u64, value: bool) {
    let mut at = from;
    while at < to {
        let in_word = (64 - at % 64).min(to - at);
        let mask = if in_word == 64 { u64::MAX } else { ((1 << in_word) - 1) << (at % 64) };
        let word = &mut bits[word_of(at)];
        *word = if value { *word | mask } else { *word & !mask };
        at += in_word;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 0_u64..9000, 0_u64..9000), 0..30), cut in 0_u64..20000) {
            let (mut map, mut set) = (SectorMap::default(), BTreeSet::new());
            for (add, first, count) in steps {
                if add {
                    map.insert(first, count);
                    set.extend(first..first + count);
                } else {
                    map.remove(first, count);
                    set.retain(|sector| !(first..first + count).contains(sector));
                }
            }
            map.cut(cut);
            set.retain(|sector| *sector < cut);
            prop_assert_eq!(map.is_empty(), set.is_empty());
            let found: BTreeSet<u64> = map.ranges().into_iter().flat_map(|(first, count)| first..first + count).collect();
            prop_assert_eq!(&found, &set);
            let mut at = 0;
            while at < 20000 {
                let (held, length) = map.run(at, 20000 - at);
                prop_assert!(length > 0 && (at..at + length).all(|sector| set.contains(&sector) == held));
                at += length;
                prop_assert!(at >= 20000 || set.contains(&at) != held, "runs are as long as they can be");
            }
        }
    }
}
