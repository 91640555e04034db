//! Files that a failed run leaves: its replay, and a capture of its last frames.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sim_native::{Options, Report, Violation};
use sim_scenario::Scenario;
use sim_scenario::replay::{self, Replay};

/// Where replay files and captures are written if nobody says where.
pub(crate) const DIR: &str = "sim-failures";

/// The replay of a run that failed.
pub(crate) fn replay(
    options: &Options,
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
    let mut replay = Replay::new(options.seed, scenario.clone(), violation, report.trace_hash.clone());
    replay.profile = profile.map(str::to_owned);
    replay.options = Some(options.for_replay());
    replay
}

/// Writes replay and capture below `dir` as `name`; the replay's path.
pub(crate) fn save(dir: &Path, name: &str, replay: &Replay, report: &Report) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(format!("{name}.yaml"));
    replay.save(&path)?;
    capture(&path.with_extension("pcap"), report)?;
    Ok(path)
}

/// What can be done with a replay file, for people.
pub(crate) fn hints(path: &Path) -> String {
    format!(
        "replay:  cargo xtask sim replay {0}\nsmaller: cargo xtask sim shrink {0}\nframes:  {1}",
        path.display(),
        path.with_extension("pcap").display()
    )
}

/// Writes the last frames of a run.
pub(crate) fn capture(path: &Path, report: &Report) -> anyhow::Result<()> {
    sim_native::write_capture(path, &report.frames)
        .with_context(|| format!("cannot write {}", path.display()))
}
