//! `cargo xtask bench NAME`: builds and hands over to `bristle-bench`.

use std::ffi::OsString;
use std::process::Command;

use crate::{cmd, programs, setup};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// dataplane, net, lab, cni, policy, service or sim; then --json FILE, --quick …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<OsString>,
}

/// Measures; exits 0 whether or not goals are met.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.args.first().is_some_and(|name| name == "sim") {
        return simulator(args);
    }
    if args.args.first().is_some_and(|name| name == "policy") {
        return policy(args);
    }
    cmd::need_root("bench")?;
    setup::ensure("lab")?;
    let bin_dir = programs::build(&["bench"])?;
    if args.args.first().is_some_and(|name| name == "service") {
        let mut cargo = cmd::cargo();
        cargo.args([
            "build",
            "--release",
            "--locked",
            "--package",
            "agent-daemon",
            "--example",
            "service_scale",
        ]);
        cmd::run("build the agent to be measured", &mut cargo)?;
    }
    if args.args.first().is_some_and(|name| name == "dataplane") {
        let mut cargo = cmd::cargo();
        cargo.args(["bench", "--package", "dataplane-native"]);
        cmd::run("the native host, by criterion", &mut cargo)?;
    }
    let mut command = Command::new(bin_dir.join("bristle-bench"));
    command.args(&args.args).env("BRISTLE_BIN_DIR", &bin_dir);
    cmd::run("bench", &mut command)
}

/// What the simulator can do: no root, no lab.
fn simulator(args: &Args) -> anyhow::Result<()> {
    let bin_dir = programs::build_only("the simulator", &["bench", "sim-native", "e2e"])?;
    let mut cargo = cmd::cargo();
    cargo.args(["bench", "--package", "dataplane-native", "--", "from_container established"]);
    cmd::run("the native host, by criterion", &mut cargo)?;
    let mut command = Command::new(bin_dir.join("bristle-bench"));
    command.args(&args.args).env("BRISTLE_BIN_DIR", &bin_dir);
    cmd::run("bench", &mut command)
}

/// One agent with many policies: no root, no lab, no kernel.
fn policy(args: &Args) -> anyhow::Result<()> {
    let bin_dir = programs::build_only("the benchmark", &["bench"])?;
    let mut cargo = cmd::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "agent-control", "--example", "policy_scale"]);
    cmd::run("build the agent to be measured", &mut cargo)?;
    let mut command = Command::new(bin_dir.join("bristle-bench"));
    command.args(&args.args).env("BRISTLE_BIN_DIR", &bin_dir);
    cmd::run("bench", &mut command)
}
