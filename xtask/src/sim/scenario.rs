//! `cargo xtask sim run FILE`: one scenario on one arm, or on both with a comparison.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::ValueEnum;

use super::simulator;
use crate::{cmd, programs, setup};

/// The scenario, and where it runs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The scenario.
    file: PathBuf,
    /// --on native|netns|both, and words for `bristle-sim run` or `bristle-e2e scenario`, whose --help tells which: --seed N …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arm {
    /// The simulator: one process, virtual time.
    Native,
    /// Network namespaces on this machine: real agents, real eBPF, real time; needs root.
    Netns,
    /// One after the other, and what the two saw compared.
    Both,
}

/// Takes the arm out of the words; the others are for the programs of the arms.
fn arm(words: &[OsString]) -> anyhow::Result<(Arm, Vec<OsString>)> {
    let (mut arm, mut rest) = (Arm::Native, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let named = match word.to_str() {
            Some("--on") => words.next().context("--on wants an arm: native, netns or both")?.to_str(),
            Some(text) if text.starts_with("--on=") => text.strip_prefix("--on="),
            _ => {
                rest.push(word.clone());
                continue;
            }
        };
        let named = named.unwrap_or_default();
        arm = Arm::from_str(named, false)
            .map_err(|_| anyhow::anyhow!("there is no arm `{named}`; there are native, netns and both"))?;
    }
    Ok((arm, rest))
}

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (arm, words) = arm(&args.words)?;
    match arm {
        Arm::Native => {
            let dir = programs::build_only("the simulator", &["sim-native"])?;
            cmd::pass(&mut native(&dir, &args.file, &words))
        }
        Arm::Netns => {
            let dir = lab_programs()?;
            cmd::pass(&mut netns(&dir, &args.file, &words))
        }
        Arm::Both => both(&args.file, &words),
    }
}

fn lab_programs() -> anyhow::Result<PathBuf> {
    cmd::need_root("a scenario on netns")?;
    setup::ensure("lab")?;
    programs::build(&[])
}

fn native(dir: &Path, file: &Path, words: &[OsString]) -> Command {
    let mut command = simulator(dir);
    command.arg("run").arg(file).args(words);
    command
}

fn netns(dir: &Path, file: &Path, words: &[OsString]) -> Command {
    let mut command = Command::new(dir.join("bristle-e2e"));
    command.arg("scenario").arg(file).args(words).arg("--bin-dir").arg(dir);
    command
}

/// Every scenario that is shipped, on both arms.
pub(crate) fn all_on_both() -> anyhow::Result<()> {
    let dir = cmd::root().join("sim/scenarios");
    let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<PathBuf>>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    files.iter().try_for_each(|file| both(file, &[]).with_context(|| file.display().to_string()))
}

/// Runs it on both arms, each whatever came of the other, then compares.
fn both(file: &Path, words: &[OsString]) -> anyhow::Result<()> {
    let of_one = ["--outcome", "--pcap", "--out", "--twice"];
    if let Some(word) = words.iter().find(|word| word.to_str().is_some_and(|w| of_one.contains(&w))) {
        anyhow::bail!(
            "{} is for one arm: run each by itself, and `cargo xtask sim compare` the two",
            word.display()
        );
    }
    let dir = lab_programs()?;
    let outcomes = cmd::target_dir().join("sim");
    std::fs::create_dir_all(&outcomes)?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let [a, b] = ["native", "netns"].map(|arm| outcomes.join(format!("{name}-{arm}.json")));
    for stale in [&a, &b] {
        drop(std::fs::remove_file(stale));
    }
    eprintln!("==> {} in the simulator", file.display());
    let in_simulator = cmd::pass(native(&dir, file, words).args(["--plain-pods", "--outcome"]).arg(&a));
    eprintln!("==> {} on network namespaces", file.display());
    let on_netns = cmd::pass(netns(&dir, file, words).arg("--outcome").arg(&b));
    for (result, outcome) in [(&in_simulator, &a), (&on_netns, &b)] {
        // Without an outcome it could not be run at all.
        if let (Err(error), false) = (result, outcome.is_file()) {
            anyhow::bail!("there is nothing to compare: {error}");
        }
    }
    eprintln!("==> compared");
    let compared = cmd::pass(simulator(&dir).arg("compare").args([&a, &b]).arg("--scenario").arg(file));
    in_simulator.and(on_netns).and(compared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arm_is_taken_out_wherever_it_stands() {
        for (line, wanted, rest) in [
            ("--seed 3 --twice", Arm::Native, "--seed 3 --twice"),
            ("--on both --seed 3", Arm::Both, "--seed 3"),
            ("--seed 3 --on=netns --outcome a.json", Arm::Netns, "--seed 3 --outcome a.json"),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let rest: Vec<OsString> = rest.split(' ').map(OsString::from).collect();
            assert_eq!(arm(&words).unwrap(), (wanted, rest), "{line}");
        }
        assert!(arm(&["--on".into()]).is_err() && arm(&["--on=kind".into()]).is_err());
    }
}
