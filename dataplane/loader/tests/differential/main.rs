//! Invariant: the native host and the kernel's give the same verdict, the same packet bytes, the same rows, the same
//! counters and the same events for the same rows and frames.
//!
//! Seeded scenarios run on both side by side. What cannot be compared:
//!
//! - Time. The kernel's ticks cannot be set, so the native clock follows them; times in rows may differ by [`SLACK_S`],
//!   and scenarios keep away from thresholds by more than that.
//! - The kernel's hash of a flow, which has a secret in it.
//! - Where a redirect goes: the kernel keeps it to itself until the packet moves. The rows that say where are compared.
//! - The tunnel's key on packets out of the tunnel, which a test run cannot carry. Packets of known connections are
//!   tried there, first packets are dropped for want of it by both hosts.
//! - Packets that the kernel does not make: shorter than the header that their type promises.
//!
//! `BRISTLE_DIFF_FRAMES` and `BRISTLE_DIFF_SEED` say how many frames and where to begin.

#![expect(clippy::print_stderr, reason = "a long test says how far it is")]

mod compare;
mod frame;
mod host;
mod kernel;
mod liar;
mod native;
mod rng;
mod scenario;
mod world;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use dataplane_loader::{Clock, Sandbox, attach};

use crate::compare::{Mismatch, Tally, run};
use crate::kernel::Kernel;
use crate::liar::{Liar, Lie};
use crate::native::Native;
use crate::scenario::Scenario;
use crate::world::{Devices, PODS};

/// Frames of one scenario.
const FRAMES: usize = 200;

/// Seconds by which times in rows may differ.
const SLACK_S: u32 = 2;

/// Frames where nobody says how many.
const DEFAULT_FRAMES: usize = 100_000;

#[test]
fn native_and_kernel_agree() {
    in_sandbox(differ);
}

#[test]
fn a_host_that_lies_is_caught() {
    in_sandbox(|bytes| {
        let devices = make_devices();
        let mut kernel = Kernel::load(bytes);
        let clock = Clock::calibrate(kernel.object()).expect("the clock probe runs");
        let mut found = |lie: Lie, closely: bool| {
            let mut tally = Tally::default();
            (1..=20).any(|seed| {
                let scenario = Scenario::new(seed, FRAMES, &devices, clock.ticks_per_s());
                run(&scenario, &mut kernel, &mut Liar::new(lie), &clock, closely, &mut tally).is_err()
            })
        };
        assert!(!found(Lie::None, false));
        for lie in Lie::ALL {
            assert!(found(lie, false), "{lie:?} was not found");
            assert!(found(lie, true), "{lie:?} was not found step by step");
        }
    });
}

fn in_sandbox(body: impl FnOnce(&[u8]) + Send) {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let Some(bytes) = object_bytes() else {
        return skip("needs the eBPF object: run `cargo xtask ebpf`");
    };
    Sandbox::run(|_| body(&bytes)).expect("make a sandbox");
}

fn differ(bytes: &[u8]) {
    let frames = number("BRISTLE_DIFF_FRAMES").and_then(|n| n.try_into().ok()).unwrap_or(DEFAULT_FRAMES);
    let first = number("BRISTLE_DIFF_SEED").unwrap_or(1);
    let devices = make_devices();
    let mut kernel = Kernel::load(bytes);
    let mut native = Native::new();
    let mut clock = Clock::calibrate(kernel.object()).expect("the clock probe runs");
    let ticks_per_s = clock.ticks_per_s();

    let start = Instant::now();
    let mut tally = Tally::default();
    let mut seed = first;
    while tally.compared < frames {
        let scenario = Scenario::new(seed, FRAMES, &devices, ticks_per_s);
        clock.read(kernel.object()).expect("the clock probe runs");
        if let Err(mismatch) = run(&scenario, &mut kernel, &mut native, &clock, false, &mut tally) {
            // Once more, with the tables compared after each step: that finds the step, and lets a machine that stood
            // still for seconds off.
            let mut again = Tally::default();
            clock.read(kernel.object()).expect("the clock probe runs");
            match run(&scenario, &mut kernel, &mut native, &clock, true, &mut again) {
                Err(found) => report(seed, &scenario, &found),
                Ok(()) => eprintln!("seed {seed}: not repeated: {mismatch}"),
            }
        }
        seed += 1;
    }
    eprintln!(
        "{} frames in {:.1} s, no mismatch; seeds {first} to {}; {} more refused by the kernel; {tally}",
        tally.compared,
        start.elapsed().as_secs_f64(),
        seed - 1,
        tally.refused,
    );
    tally.assert_variety();
}

fn report(seed: u64, scenario: &Scenario, mismatch: &Mismatch) -> ! {
    panic!(
        "native and kernel differ\nrepeat with: cargo xtask diff --seed {seed} --frames 1\nconfig: {:?}\n{mismatch}",
        scenario.world.config
    );
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Devices to be on; nothing is ever sent through them.
fn make_devices() -> Devices {
    let device = |name: &str| {
        let output = Command::new("ip")
            .args(["link", "add", name, "type", "veth", "peer", "name", &format!("{name}x")])
            .output()
            .expect("iproute2 is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        attach::ifindex(name).expect("it was just made")
    };
    let mut pods = [0; PODS];
    for (number, pod) in pods.iter_mut().enumerate() {
        *pod = device(&format!("pod{number}"));
    }
    Devices { pods, host: device("host"), overlay: device("overlay"), underlay: device("underlay") }
}

fn object_bytes() -> Option<Vec<u8>> {
    let places = [
        std::env::var_os("BRISTLE_BPF_OBJECT").map(PathBuf::from),
        std::env::var_os("CARGO_TARGET_DIR").map(|dir| PathBuf::from(dir).join("bpf/bristle.bpf.o")),
        Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf/bristle.bpf.o")),
    ];
    let path = places.into_iter().flatten().find(|path| path.exists())?;
    Some(std::fs::read(path).expect("read the object"))
}

fn skip(why: &str) {
    assert!(
        std::env::var_os("BRISTLE_REQUIRE_ALL").is_none(),
        "a test was to be skipped although all are required: {why}"
    );
    eprintln!("SKIPPED: the differential test {why}");
}
