//! Files that a failed run leaves: its replay, and a capture of its last frames.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sim_native::{Report, Violation};
use sim_scenario::Scenario;
use sim_scenario::replay::{self, Replay};

/// The replay of a run that failed.
pub(crate) fn replay(
    seed: u64,
    profile: Option<&str>,
    scenario: &Scenario,
    report: &Report,
    broken: &Violation,
) -> Replay {
    let violation = replay::Violation {
        invariant: broken.invariant.clone(),
        at: broken.at,
        message: broken.message.clone(),
    };
    let mut replay = Replay::new(seed, scenario.clone(), violation, report.trace_hash.clone());
    replay.profile = profile.map(str::to_owned);
    replay
}

/// Writes replay and capture below `dir`; the replay's path.
pub(crate) fn save(dir: &Path, replay: &Replay, report: &Report) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(format!("{}.yaml", replay.scenario.name));
    replay.save(&path)?;
    capture(&path.with_extension("pcap"), report)?;
    Ok(path)
}

/// Writes the last frames of a run.
pub(crate) fn capture(path: &Path, report: &Report) -> anyhow::Result<()> {
    sim_native::write_capture(path, &report.frames)
        .with_context(|| format!("cannot write {}", path.display()))
}
