//! Random and spoilt frames through every program, and random conversations beside a model of their rows, for as long as one
//! likes: the stable stand-in for a fuzzer.
//!
//! `BRISTLE_FUZZ_SECONDS` sets the time (default 2), `BRISTLE_FUZZ_SEED` repeats a run. A failure prints seed and frame.
#![expect(clippy::disallowed_methods, reason = "it is told for how long to go on")]

#[path = "fuzz/conversations.rs"]
mod conversations;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use dataplane_abi::program::Program;
use dataplane_core::Verdict;
use dataplane_native::craft::{arp_request, solicitation};
use dataplane_native::{Frame, Tunnel};
use world::{A1, A2, B1, FAMILIES, HOST, OVERLAY, UNDERLAY, World, craft, outside, router};

/// `SplitMix64`: one number per seed, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).expect("a length")).expect("a length")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let mut frames = vec![Vec::new(), arp_request(A1.mac, [10, 1, 1, 11], [10, 1, 1, 1])];
    for family in FAMILIES {
        for dst in [A2.ip(family), B1.ip(family), router(1, family), outside(family)] {
            let craft = craft(&A1, dst);
            let datagram = craft.udp(5000, 53, &[7; 20]);
            frames.extend([
                craft.tcp(4000, 80, 2, b""),
                craft.tcp(4000, 80, 16, &[1; 30]),
                craft.echo(true, 5, 1, &[2; 16]),
                craft.clone().fragment(0, true).udp(5000, 53, &[3; 64]),
                craft.clone().fragment(9, false).upper(17, vec![3; 64], None),
                craft.clone().options(&[1; 12]).extension(0, &[1, 4]).extension(60, &[]).udp(5000, 53, b"x"),
                craft.error_about(if family == 4 { 3 } else { 1 }, 0, &datagram),
                datagram,
            ]);
        }
        let answer = craft(&A2, A1.ip(family));
        frames.extend([
            answer.tcp(80, 4000, 18, b""),
            answer.udp(53, 5000, b"y"),
            answer.echo(false, 5, 1, b""),
        ]);
    }
    let target = dataplane_abi::Addr::from_ip(router(1, 6)).0.0;
    let sender = dataplane_abi::Addr::from_ip(A1.v6).0.0;
    frames.push(solicitation(A1.mac, sender, target));
    frames
}

/// Spoils a frame a little: bytes changed, cut, made longer, headers swapped with another's.
fn spoil(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..random.below(4) {
        match random.below(8) {
            0 => bytes.truncate(random.below(bytes.len() + 1)),
            1 => bytes.extend((0..random.below(40)).map(|n| u8::try_from(n).unwrap_or(0))),
            2 => {
                let at = random.below(bytes.len().min(other.len()) + 1);
                bytes.truncate(at);
                bytes.extend(other.iter().skip(at));
            }
            _ => {
                // Headers are more interesting than payloads.
                let at = random.below(bytes.len().min(80));
                let value = random.byte();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if random.below(2) == 0 { value } else { *byte ^ (1 << (value & 7)) };
                }
            }
        }
    }
}

/// Seconds and seed of a run.
fn settings() -> (u64, u64) {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    (number("BRISTLE_FUZZ_SECONDS", 2), number("BRISTLE_FUZZ_SEED", 0x0062_7269_7374_6c65))
}

#[test]
fn any_frame_gets_one_verdict_and_one_count() {
    let (seconds, seed) = settings();
    let mut random = Random(seed);
    let corpus = corpus();
    let devices = [A1.ifindex, A1.ifindex, A2.ifindex, UNDERLAY, OVERLAY, HOST];
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut world = World::vxlan();
    let (mut run, mut in_world) = (0_u64, 0_u64);
    while run == 0 || Instant::now() < end {
        for _ in 0..1000 {
            if in_world == 20_000 {
                world = World::vxlan();
                in_world = 0;
            }
            let mut bytes = corpus[random.below(corpus.len())].clone();
            let other = &corpus[random.below(corpus.len())];
            spoil(&mut random, &mut bytes, other);
            let program = Program::ALL[random.below(Program::ALL.len())];
            let mut frame = Frame::new(bytes.clone(), devices[random.below(devices.len())]);
            frame.at_hand = if random.below(4) == 0 { random.below(90) } else { usize::MAX };
            frame.from_tunnel = match random.below(4) {
                0 => None,
                1 => Some(Tunnel { node: [0; 16], family: 1, key: 0 }),
                _ => Some(Tunnel { node: [0; 16], family: 1, key: 300 }),
            };
            let verdict = catch_unwind(AssertUnwindSafe(|| world.native.run(program, &mut frame)));
            run += 1;
            in_world += 1;
            let context = || format!("seed {seed}, frame {run}, {program:?}: {bytes:02x?}");
            let Ok(verdict) = verdict else { panic!("panicked: {}", context()) };
            // Reading all the counters takes longer than a packet.
            if in_world.is_multiple_of(64) {
                let counted: u64 = world.counters().iter().map(|(_, _, packets)| packets).sum();
                assert_eq!(counted, in_world, "{}", context());
            }
            assert_eq!(frame.bytes.len(), bytes.len(), "{}", context());
            if matches!(verdict, Verdict::Drop(_) | Verdict::Skip | Verdict::Pass) {
                assert_eq!(frame.bytes, bytes, "{}", context());
            }
            if random.below(1000) == 0 {
                world.seconds(u64::from(random.byte()));
                world.events();
            }
        }
    }
    println!("{run} frames in {seconds} s, seed {seed}");
}
