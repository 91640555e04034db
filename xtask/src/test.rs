//! `cargo xtask test`: every rung of tests, in the order in which a failure says most.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use clap::ValueEnum;

use crate::engine::Engine;
use crate::sim::soak::Soak;
use crate::{cmd, diff, e2e, ebpf, programs, setup, sim};

/// Which stages to run; all by default.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only these stages.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Stage>,
    /// All but these stages.
    #[arg(long, value_enum, value_delimiter = ',')]
    skip: Vec<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Stage {
    /// `cargo test`, with everything that needs root, real eBPF and a container runtime.
    Cargo,
    /// The simulator: random clusters of every profile for a minute, then the matrix.
    Sim,
    /// The differential test, at least 100,000 frames.
    Diff,
    /// Every program through the verifier of every kernel of the matrix.
    Verify,
    /// Every scenario that is shipped, in the simulator and on network namespaces, compared.
    Scenarios,
    /// The connectivity matrix on network namespaces.
    Matrix,
}

const STAGES: [Stage; 6] =
    [Stage::Cargo, Stage::Sim, Stage::Diff, Stage::Verify, Stage::Scenarios, Stage::Matrix];

/// How long the simulator looks for what breaks. What nobody has seen yet is looked for at night, so that no change is blamed for it.
const SOAK: Soak = Soak { same: 60, fresh: 0 };
/// Verdicts on random clusters and policies that are compared with the oracle.
const VERDICTS: u64 = 300_000;

/// What of the matrix must pass in the simulator, on every routing and family.
const NATIVE_CASES: &str = "1-66";
/// And on network namespaces. What is missing are policies by name.
const NETNS_CASES: &str = "1-66,x1,x2,x3,x4";
/// Suites of which every case must pass, in the simulator and on network namespaces.
const SUITES: [&str; 2] = ["network-policy", "connectivity"];
/// The suite whose every case must pass with agents that serve services: in the simulator on every routing, on network namespaces on one.
const SERVICES: &str = "services";
/// Random policies that are compared with the oracle on real eBPF.
const GENERATED_CASES: &str = "1-20";

/// Sets up what is missing, builds, runs the stages and says how long each took.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    cmd::need_root("cargo xtask test")?;
    setup::ensure("ci")?;
    let mut took = Vec::new();
    for stage in STAGES {
        let wanted = (args.only.is_empty() || args.only.contains(&stage)) && !args.skip.contains(&stage);
        if !wanted {
            eprintln!("==> left out by request: {stage:?}");
            continue;
        }
        let start = Instant::now();
        match stage {
            Stage::Cargo => unit(true)?,
            Stage::Sim => simulator(&programs::build(&[])?)?,
            Stage::Diff => diff::run(&diff::Args::ci())?,
            Stage::Verify => ebpf::verify_all()?,
            Stage::Scenarios => sim::scenario::all_on_both()?,
            Stage::Matrix => matrix()?,
        }
        took.push((stage, start.elapsed()));
    }
    for (stage, elapsed) in took {
        eprintln!("    {stage:<9?} passed in {:.0} s", elapsed.as_secs_f64());
    }
    Ok(())
}

/// `cargo test` of all default members; with `everything`, a test that would skip fails instead.
pub(crate) fn unit(everything: bool) -> anyhow::Result<()> {
    let mut cargo = cmd::cargo();
    cargo.args(["test", "--locked"]);
    let engine = if everything { Engine::start()? } else { None };
    if let Some(engine) = &engine {
        engine.apply(&mut cargo);
    }
    if everything {
        let bin_dir = programs::build(&[])?;
        cargo
            .env("BRISTLE_BIN_DIR", &bin_dir)
            .env("BRISTLE_BPF_OBJECT", bin_dir.join("bristle.bpf.o"))
            .env("BRISTLE_REQUIRE_ALL", "1");
        if let Some(kubectl) = setup::kubectl() {
            cargo.env("KUBECTL", kubectl);
        }
    }
    cmd::run("cargo test", &mut cargo)
}

/// Random clusters for a while, then the cases that must pass, in the simulator on every routing and family.
pub(crate) fn simulator(bin_dir: &Path) -> anyhow::Result<()> {
    sim::soak::run(bin_dir, SOAK)?;
    sim::verdicts(bin_dir, VERDICTS)?;
    for (routing, family, args) in rounds("native-", NATIVE_CASES) {
        let mut command = Command::new(bin_dir.join("bristle-e2e"));
        let title = format!("connectivity matrix in the simulator, {routing}, {family}");
        cmd::run(&title, command.arg("native").args(args))?;
    }
    for (suite, routing) in
        SUITES.into_iter().flat_map(|suite| ["vxlan", "native"].map(|routing| (suite, routing)))
    {
        let mut command = Command::new(bin_dir.join("bristle-e2e"));
        let title = format!("suite {suite} in the simulator, {routing}");
        cmd::run(&title, command.arg("native").args(suite_args(suite, routing, "native-")))?;
    }
    for routing in ["vxlan", "native"] {
        let mut command = Command::new(bin_dir.join("bristle-e2e"));
        let title = format!("suite {SERVICES} in the simulator, {routing}");
        cmd::run(&title, command.arg("native").args(services_args(routing, "native-")))?;
    }
    Ok(())
}

/// Every routing and family, with the words for a run of the cases that must pass.
fn rounds(prefix: &str, cases: &str) -> Vec<(&'static str, &'static str, Vec<OsString>)> {
    let mut rounds = Vec::new();
    for routing in ["vxlan", "native"] {
        for family in ["v4", "v6", "dual"] {
            let report = cmd::target_dir().join(format!("e2e/{prefix}{routing}-{family}.json"));
            let args = [
                "--kube-proxy-replacement",
                "--case",
                cases,
                "--routing",
                routing,
                "--family",
                family,
                "--report",
            ]
            .into_iter()
            .map(OsString::from)
            .chain([report.into_os_string()])
            .collect();
            rounds.push((routing, family, args));
        }
    }
    rounds
}

/// The cases that must pass, on every routing, for every family; then many policies on standing pods, on every routing.
pub(crate) fn matrix() -> anyhow::Result<()> {
    cmd::need_root("the matrix on netns")?;
    setup::ensure("lab")?;
    let bin_dir = programs::build(&[])?;
    for (.., args) in rounds("", NETNS_CASES) {
        e2e::netns(&bin_dir, &args)?;
    }
    for routing in ["vxlan", "native"] {
        for suite in SUITES {
            e2e::netns(&bin_dir, &suite_args(suite, routing, ""))?;
        }
        let args = suite_args("generated", routing, "");
        e2e::netns(&bin_dir, &[args, ["--case", GENERATED_CASES].map(OsString::from).to_vec()].concat())?;
    }
    e2e::netns(&bin_dir, &services_args("vxlan", ""))
}

/// Words for a run of the suite of services.
fn services_args(routing: &str, prefix: &str) -> Vec<OsString> {
    [suite_args(SERVICES, routing, prefix), vec![OsString::from("--kube-proxy-replacement")]].concat()
}

/// Words for a run of a suite.
fn suite_args(suite: &str, routing: &str, prefix: &str) -> Vec<OsString> {
    let report = cmd::target_dir().join(format!("e2e/{prefix}{suite}-{routing}.json"));
    let args = ["--suite", suite, "--routing", routing, "--report"].map(OsString::from);
    args.into_iter().chain([report.into_os_string()]).collect()
}
