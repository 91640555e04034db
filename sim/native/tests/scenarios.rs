//! Scenario files that must pass: those that are shipped, and those that once found a defect.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sim_native::Options;
use sim_scenario::replay::{RunOptions, Violation};
use sim_scenario::{Known, Replay, Scenario};

/// Seeds that every file is run with.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

fn files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a directory can be read").path()).collect();
    files.retain(|file| file.extension().is_some_and(|ext| ext == "yaml"));
    files.sort();
    files
}

/// Runs it with these options, which have the seed.
fn passes(scenario: &Scenario, options: &Options, file: &Path) {
    let report = sim_native::run(scenario, options);
    assert_eq!(report.outcome.failures, [""; 0], "{} with {options:?}", file.display());
}

#[test]
fn shipped_scenarios_pass() {
    let files = files("../scenarios");
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let scenario = load(&file);
        for seed in SEEDS {
            passes(&scenario, &Options { seed, ..Options::default() }, &file);
        }
    }
}

fn load(file: &Path) -> Scenario {
    Scenario::load_valid(file, &Known::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// What a file of a defect says of the run that showed it. A replay file says all of it; a scenario's name ends with the seed,
/// `NAME.SEED.yaml`, and the options were the usual ones.
fn found(file: &Path) -> (Scenario, Options) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    if text.starts_with("bristle: replay/") {
        let replay = Replay::load(file).unwrap_or_else(|error| panic!("{error}")).replay;
        replay
            .scenario
            .validate(&Known::default())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let options = Options::of_replay(&replay);
        return (replay.scenario, options);
    }
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let seed = stem.rsplit('.').next().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| panic!("{}: no seed in the name", file.display()));
    (load(file), Options { seed, ..Options::default() })
}

#[test]
fn what_was_found_once_is_not_there_any_more() {
    for file in files("tests/found") {
        let (scenario, options) = found(&file);
        passes(&scenario, &options, &file);
        for seed in SEEDS {
            passes(&scenario, &Options { seed, ..options.clone() }, &file);
        }
    }
}

#[test]
fn a_replay_file_of_a_defect_is_run_with_its_options() {
    let scenario = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/address-reuse.yaml"));
    let violation = Violation { invariant: "drop".into(), at: Duration::ZERO, message: "a packet".into() };
    let mut replay = Replay::new(7, scenario.clone(), violation, "00");
    let odd =
        RunOptions { quarantine: Some(Duration::from_secs(2)), odd_cidrs: true, ..RunOptions::default() };
    replay.options = Some(odd);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("found.yaml");
    replay.save(&file).expect("is written");
    let (read, options) = found(&file);
    assert_eq!((read, options.seed, options.for_replay()), (scenario, 7, odd));
}
