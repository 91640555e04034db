//! Scenario files that must pass: those that are shipped, and those that once found a defect.

use std::path::{Path, PathBuf};

use sim_native::Options;
use sim_scenario::Scenario;
use sim_scenario::validate::Known;

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

fn passes(file: &Path, seed: u64) {
    let scenario = Scenario::load_valid(file, &Known::default()).unwrap_or_else(|error| panic!("{error}"));
    let report = sim_native::run(&scenario, &Options { seed, ..Options::default() });
    assert_eq!(report.outcome.failures, [""; 0], "{} with seed {seed}", file.display());
}

#[test]
fn shipped_scenarios_pass() {
    let files = files("../scenarios");
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        SEEDS.for_each(|seed| passes(&file, seed));
    }
}

/// Their names end with the seed that showed the defect: `NAME.SEED.yaml`.
#[test]
fn what_was_found_once_is_not_there_any_more() {
    for file in files("tests/found") {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let seed = stem.rsplit('.').next().and_then(|seed| seed.parse().ok());
        passes(&file, seed.unwrap_or_else(|| panic!("{}: no seed in the name", file.display())));
        SEEDS.for_each(|seed| passes(&file, seed));
    }
}
