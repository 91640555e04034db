//! `cargo xtask sim mutants`: the defects of `sim/mutants/mutants.yaml`, all woven into one build of a copy of the
//! sources, and runs that show who finds them. `docs/mutants.md` says how to add one.
//!
//! The product's sources know nothing of it: what is woven in exists below `target/mutants` alone.

mod build;
mod copy;
mod list;
mod tests;
mod weave;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{cmd, tidy};
use list::{LIST, Mutant};

/// Without an option: build and let the simulator look for every mutant.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these mutants.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// Write what was found to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Most seconds that the simulator may take for all of them together, of CPU where the machine tells.
    #[arg(long, value_name = "N", default_value_t = MOST_SECONDS)]
    most_seconds: u64,
    /// Say which mutants there are, and build nothing.
    #[arg(long, conflicts_with_all = ["build", "tests", "json"])]
    list: bool,
    /// Only build.
    #[arg(long, conflicts_with = "tests")]
    build: bool,
    /// Say which mutants the unit and integration tests find, without the simulator.
    #[arg(long, conflicts_with = "json")]
    tests: bool,
}

/// How long the simulator may look for all mutants, in seconds.
const MOST_SECONDS: u64 = 300;

impl Default for Args {
    fn default() -> Self {
        Self {
            only: Vec::new(),
            json: None,
            most_seconds: MOST_SECONDS,
            list: false,
            build: false,
            tests: false,
        }
    }
}

/// The name under which sources tell such a build from others.
const CFG: &str = "bristle_mutants";

/// Where the sources may say [`CFG`]: the simulator switches mutants on, and these files and documents are about it.
const MAY_SAY_CFG: &[&str] = &["sim/native/", "xtask/", "docs/", "Cargo.toml"];

/// Lists, builds or looks for mutants.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let all = list::read()?;
    let chosen = list::choose(&all, &args.only)?;
    if args.list {
        print_list(&chosen);
        return Ok(());
    }
    let build = build::prepare(&all)?;
    if args.tests {
        return tests::run(&build, &chosen);
    }
    build.simulator()?;
    if args.build {
        return Ok(());
    }
    let program = build.bin_dir().join("bristle-sim");
    if !program.exists() {
        bail!("{} was not built: does sim-native have that program?", program.display());
    }
    let mut command = Command::new(program);
    command.arg("mutants").arg("--list").arg(cmd::root().join(LIST));
    command.args(["--most-seconds", &args.most_seconds.to_string()]);
    for id in &args.only {
        command.args(["--only", id]);
    }
    if let Some(file) = &args.json {
        command.arg("--json").arg(std::path::absolute(file).context("--json names no file")?);
    }
    eprintln!("==> mutants in the simulator");
    cmd::pass(command.current_dir(cmd::root()))
}

/// Fails unless every mutant still fits the sources, and the sources still know nothing of mutants.
pub(crate) fn check() -> anyhow::Result<()> {
    eprintln!("==> mutants");
    let root = cmd::root();
    let mutants = list::read()?;
    weave::all(&mutants, |file| Ok(std::fs::read_to_string(root.join(file))?))?;
    let mut findings = Vec::new();
    for file in tidy::tracked(&root)? {
        let name = file.to_string_lossy();
        let is_source = name.ends_with(".rs") || name.ends_with(".toml");
        if !is_source || MAY_SAY_CFG.iter().any(|allowed| name.starts_with(allowed)) {
            continue;
        }
        if std::fs::read_to_string(root.join(&file)).is_ok_and(|text| text.contains(CFG)) {
            findings.push(format!("{name} mentions {CFG}: only sim-native may know of mutants"));
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!("the product knows of its mutants:\n  {}", findings.join("\n  "))
}

fn print_list(mutants: &[&Mutant]) {
    let width = mutants.iter().map(|mutant| mutant.id.len()).max().unwrap_or(0);
    for mutant in mutants {
        println!("{:width$}  {:<14} {:<6} {}", mutant.id, mutant.kind, mutant.profile.name(), mutant.what);
        if let Some(why) = &mutant.unseen {
            println!("{:width$}  not looked for: {why}", "");
        }
        if let Some(needs) = &mutant.needs {
            println!("{:width$}  needs {needs}", "");
        }
    }
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for mutant in mutants {
        *kinds.entry(&mutant.kind).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    println!("{} mutants: {}", mutants.len(), kinds.join(", "));
}

#[cfg(test)]
mod unit {
    #[test]
    fn every_mutant_fits_the_sources_and_they_know_of_none() {
        super::check().unwrap();
    }
}
