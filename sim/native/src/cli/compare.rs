//! Whether two arms saw the same.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sim_scenario::{Outcome, Scenario, compare};

/// Compare the outcomes of one scenario on two arms; what differs is told in sentences.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// An outcome, as `run --outcome` writes it.
    a: PathBuf,
    /// The other.
    b: PathBuf,
    /// The scenario that both ran: it says what may differ.
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
}

/// Compares them; false if they differ.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let scenario = Scenario::load(&args.scenario)?;
    let differences = compare(&a, &b, &scenario);
    for difference in &differences {
        println!("{difference}");
    }
    if differences.is_empty() {
        println!("{} and {} saw the same", a.arm, b.arm);
    }
    Ok(differences.is_empty())
}

fn read(path: &Path) -> anyhow::Result<Outcome> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not an outcome", path.display()))
}
