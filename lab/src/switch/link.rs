//! A broken link: what becomes of a frame on it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::frame::ETHERNET_HEADER;

/// How much longer a frame is held back that others shall overtake.
const HOLD_BACK: Duration = Duration::from_millis(10);

/// What a link does to frames, each for itself and each way. Probabilities are 0 to 1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkFault {
    /// Probability of loss.
    pub loss: f64,
    /// Probability that a frame comes twice.
    pub duplicate: f64,
    /// Probability that a frame is held back so that later ones overtake it.
    pub reorder: f64,
    /// Probability that one byte behind the Ethernet header is changed.
    pub corrupt: f64,
    /// Delay of every frame.
    pub delay: Duration,
    /// Up to so much more, at random.
    pub jitter: Duration,
    /// Larger IP packets vanish, in bytes.
    pub mtu: Option<u16>,
}

impl LinkFault {
    /// Says what is no probability.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn check(&self) -> Result<(), String> {
        let all = [
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
            ("corrupt", self.corrupt),
        ];
        match all.into_iter().find(|(_, p)| !(0.0..=1.0).contains(p)) {
            Some((name, p)) => Err(format!("{name} is a probability from 0 to 1, not {p}")),
            None => Ok(()),
        }
    }
}

/// What happened to frames on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkCounters {
    /// Frames that came to it.
    pub frames: u64,
    /// Lost by chance, by a partition or by a pulled cable.
    pub lost: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// Changed.
    pub corrupted: u64,
    /// Larger than the link takes.
    pub too_large: u64,
}

/// Choices that a seed decides (xorshift64*, Vigna 2016).
#[derive(Debug, Clone)]
pub(super) struct Choices(u64);

impl Choices {
    /// Zero is no state of the generator.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
    fn happens(&mut self, probability: f64) -> bool {
        // No choice is made for what is never or always: a healthy link uses up nothing.
        probability > 0.0 && ((self.next() >> 11) as f64 / (1_u64 << 53) as f64) < probability
    }

    fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next() % limit }
    }
}

/// A frame and how long it takes.
pub(super) type Delivery = (Duration, Vec<u8>);

/// What comes out at the other end of a link for one frame.
pub(super) fn pass(
    fault: &LinkFault,
    choices: &mut Choices,
    counters: &mut LinkCounters,
    mut frame: Vec<u8>,
) -> Vec<Delivery> {
    if fault.mtu.is_some_and(|mtu| frame.len() > usize::from(mtu) + ETHERNET_HEADER) {
        counters.too_large += 1;
        return Vec::new();
    }
    if choices.happens(fault.loss) {
        counters.lost += 1;
        return Vec::new();
    }
    if choices.happens(fault.corrupt) && frame.len() > ETHERNET_HEADER {
        let room = u64::try_from(frame.len() - ETHERNET_HEADER).unwrap_or(u64::MAX);
        let at = ETHERNET_HEADER + usize::try_from(choices.below(room)).unwrap_or_default();
        frame[at] ^= u8::try_from(1 + choices.below(255)).unwrap_or(1);
        counters.corrupted += 1;
    }
    let copies = if choices.happens(fault.duplicate) {
        counters.duplicated += 1;
        2
    } else {
        1
    };
    let jitter = u64::try_from(fault.jitter.as_nanos()).unwrap_or(u64::MAX);
    let mut delivery = |frame| {
        let mut delay = fault.delay + Duration::from_nanos(choices.below(jitter));
        if choices.happens(fault.reorder) {
            counters.reordered += 1;
            delay += HOLD_BACK;
        }
        (delay, frame)
    };
    (0..copies).map(|_| delivery(frame.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(fault: &LinkFault, seed: u64) -> (Vec<Vec<Delivery>>, LinkCounters) {
        let (mut choices, mut counters) = (Choices::new(seed), LinkCounters::default());
        let out = (0..1000).map(|_| pass(fault, &mut choices, &mut counters, vec![7; 100])).collect();
        (out, counters)
    }

    #[test]
    fn each_fault_happens_as_often_as_asked_and_the_same_for_the_same_seed() {
        let fault = LinkFault {
            loss: 0.1,
            duplicate: 0.2,
            reorder: 0.3,
            corrupt: 0.4,
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(5),
            mtu: None,
        };
        let (out, counters) = run(&fault, 1);
        let near = |count: u64, of: f64, p: f64| {
            let want = of * p;
            let got = f64::from(u32::try_from(count).expect("few"));
            assert!((got - want).abs() < want * 0.35, "{got} of {of}, not about {want}");
        };
        near(counters.lost, 1000.0, 0.1);
        near(counters.corrupted, 900.0, 0.4);
        near(counters.duplicated, 900.0, 0.2);
        near(counters.reordered, 1080.0, 0.3);
        assert_eq!(out.iter().filter(|d| d.len() == 2).count() as u64, counters.duplicated);
        assert_eq!(out.iter().filter(|d| d.is_empty()).count() as u64, counters.lost);
        for (delay, frame) in out.iter().flatten() {
            assert!((5..20).contains(&delay.as_millis()), "{delay:?}");
            let changed = frame.iter().filter(|byte| **byte != 7).count();
            assert!(changed <= 1 && frame[..ETHERNET_HEADER].iter().all(|byte| *byte == 7));
        }
        assert_eq!(run(&fault, 1), (out.clone(), counters));
        assert_ne!(run(&fault, 2).0, out);
    }

    #[test]
    fn a_healthy_link_changes_nothing_and_a_narrow_one_loses_what_is_larger() {
        let (out, counters) = run(&LinkFault::default(), 3);
        assert_eq!(counters, LinkCounters::default());
        assert!(out.iter().all(|d| *d == [(Duration::ZERO, vec![7; 100])]));
        for (mtu, passes) in [(86, true), (85, false)] {
            let (out, counters) = run(&LinkFault { mtu: Some(mtu), ..LinkFault::default() }, 3);
            assert_eq!(out[0].len(), usize::from(passes), "{mtu}");
            assert_eq!(counters.too_large, if passes { 0 } else { 1000 });
        }
    }

    #[test]
    fn only_probabilities_are_accepted() {
        for (p, good) in [(0.0, true), (1.0, true), (-0.1, false), (1.5, false), (f64::NAN, false)] {
            let fault = LinkFault { duplicate: p, ..LinkFault::default() };
            assert_eq!(fault.check().is_ok(), good, "{p}");
        }
    }
}
