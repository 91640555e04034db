//! The same scenario and seed are the same run, whatever happens in it, in one process and in another.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use rstest::rstest;
use sim_native::Options;
use sim_scenario::Scenario;
use sim_scenario::generate::generate;
use sim_scenario::profile::{PROFILES, Profile};

/// Seeds of each profile.
const SEEDS: [u64; 3] = [1, 7, 23];

fn scenario(profile: &str, seed: u64) -> Scenario {
    generate(seed, Profile::by_name(profile).expect("a profile"), None)
}

fn hash(scenario: &Scenario, seed: u64) -> String {
    sim_native::run(scenario, &Options { seed, ..Options::default() }).trace_hash
}

#[rstest]
fn a_seed_decides_the_whole_run(
    #[values("mixed", "quiet", "crash", "api", "net", "cni", "full", "policy", "order", "split", "fresh")]
    profile: &str,
) {
    let mut hashes = BTreeSet::new();
    // As random runs are made, and one with the usual options, which scenario files have.
    let of_files = Options { seed: SEEDS[0], ..Options::default() };
    let runs = SEEDS.map(|seed| Options::of_generated(seed, profile)).into_iter().chain([of_files]);
    for options in runs {
        let scenario = scenario(profile, options.seed);
        let (first, second) = (sim_native::run(&scenario, &options), sim_native::run(&scenario, &options));
        assert_eq!(first, second, "{profile} with {options:?}");
        hashes.insert(first.trace_hash);
    }
    assert_eq!(hashes.len(), SEEDS.len() + 1, "the digest tells runs of {profile} apart");
}

#[test]
fn no_profile_is_left_out() {
    let names: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
    assert_eq!(
        names,
        ["mixed", "quiet", "crash", "api", "net", "cni", "full", "policy", "order", "split", "fresh"]
    );
}

#[test]
fn another_seed_makes_another_run_of_the_same_scenario() {
    let scenario = scenario("quiet", 1);
    assert_ne!(hash(&scenario, 1), hash(&scenario, 2));
}

#[test]
fn two_processes_run_a_scenario_alike() {
    let dir = tempfile::tempdir().expect("a directory");
    for (profile, seed) in [("mixed", 1), ("crash", 7), ("cni", 23)] {
        let scenario = scenario(profile, seed);
        let file = dir.path().join(format!("{profile}.yaml"));
        std::fs::write(&file, scenario.to_yaml()).expect("is written");
        let (first, second) = (told(&file, seed), told(&file, seed));
        assert_eq!(first, second, "{profile}");
        let here = hash(&scenario, seed);
        assert!(first.contains(&format!("trace {here}")), "{profile}: not {here} but {first}");
    }
}

/// What the program prints of a run.
fn told(file: &Path, seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bristle-sim"))
        .arg("run")
        .arg(file)
        .args(["--seed", &seed.to_string()])
        .output()
        .expect("bristle-sim runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
