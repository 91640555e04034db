//! Random numbers that are the same everywhere and for ever.
//!
//! xoshiro256++ (D. Blackman, S. Vigna: "Scrambled Linear Pseudorandom Number Generators", ACM TOMS 47, 2021), seeded by SplitMix64
//! (G. Steele, D. Lea, C. Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
//! Numbers below a bound are unbiased (D. Lemire: "Fast Random Integer Generation in an Interval", ACM TOMACS 29, 2019).
//!
//! Every purpose has a stream of its own ([`Rng::stream`]), so that one step more or less does not shift the numbers of the others.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A stream of random numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        let mut mix = SplitMix(seed);
        Self { state: [mix.next(), mix.next(), mix.next(), mix.next()] }
    }

    /// The stream of a purpose, such as (`link`, 3). Streams of other names or indices have nothing in common with it.
    pub fn stream(seed: u64, name: &str, index: u64) -> Self {
        // FNV-1a, 64 bits: tells names apart; SplitMix64 then spreads the bits.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let mut seed = SplitMix(seed).next();
        for part in [hash, index] {
            seed = SplitMix(seed ^ part).next();
        }
        Self::new(seed)
    }

    /// The next number.
    pub fn u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let mut product = u128::from(self.u64()) * u128::from(n);
        if low(product) < n {
            let threshold = n.wrapping_neg() % n;
            while low(product) < threshold {
                product = u128::from(self.u64()) * u128::from(n);
            }
        }
        high(product)
    }

    /// A number of the range, ends included; its start if it is empty.
    pub fn range(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (start, end) = (*range.start(), *range.end());
        match end.checked_sub(start).map(|span| span.checked_add(1)) {
            Some(Some(span)) => start + self.below(span),
            Some(None) => self.u64(),
            None => start,
        }
    }

    /// True with probability `p`: never for 0 and less, always for 1 and more. Takes one number in any case.
    pub fn chance(&mut self, p: f64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what a float holds")]
        let unit = (self.u64() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < p
    }

    /// One of them; none if there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    /// A random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
    }

    /// A time of the range, ends included, to the nanosecond.
    pub fn duration(&mut self, between: RangeInclusive<Duration>) -> Duration {
        let ns = |duration: &Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.range(ns(between.start())..=ns(between.end())))
    }

    /// An index below `len`; 0 if that is 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
const fn low(product: u128) -> u64 {
    product as u64
}

const fn high(product: u128) -> u64 {
    low(product >> 64)
}

struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Numbers of the authors' C code.
    #[test]
    fn the_numbers_are_those_of_the_papers() {
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let numbers: Vec<u64> = (0..6).map(|_| rng.u64()).collect();
        assert_eq!(
            numbers,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386,
                9_228_616_714_210_784_205,
                9_973_669_472_204_895_162
            ]
        );
        let mut mix = SplitMix(1_477_776_061_723_855_037);
        assert_eq!([mix.next(), mix.next()], [1_985_237_415_132_408_290, 2_979_275_885_539_914_483]);
    }

    #[test]
    fn streams_differ_by_seed_name_and_index_and_come_again() {
        let mut first = BTreeSet::new();
        for seed in 0..10 {
            for name in ["link", "crash", ""] {
                for index in 0..10 {
                    let number = Rng::stream(seed, name, index).u64();
                    assert_eq!(number, Rng::stream(seed, name, index).u64());
                    first.insert(number);
                }
            }
        }
        assert_eq!(first.len(), 300);
    }

    #[test]
    fn every_number_of_a_range_comes_and_no_other() {
        let mut rng = Rng::new(1);
        let mut count = [0_u32; 5];
        for _ in 0..5000 {
            let n = rng.range(3..=7);
            count[usize::try_from(n - 3).unwrap()] += 1;
        }
        assert!(count.iter().all(|n| (800..1200).contains(n)), "{count:?}");
        assert_eq!((rng.below(0), rng.below(1), rng.range(4..=4)), (0, 0, 4));
        assert_eq!(rng.pick::<u8>(&[]), None);
    }

    #[test]
    fn chances_are_as_said() {
        let mut rng = Rng::new(2);
        let hits = |rng: &mut Rng, p: f64| (0..10_000).filter(|_| rng.chance(p)).count();
        assert_eq!((hits(&mut rng, 0.0), hits(&mut rng, 1.0)), (0, 10_000));
        assert!((2800..3200).contains(&hits(&mut rng, 0.3)));
    }

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut items: Vec<u32> = (0..100).collect();
        Rng::new(3).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
