//! `cargo xtask check`: what must hold before a test is worth running.

use std::process::Command;

use crate::{cmd, crds, ebpf, layers, sim, tidy};

/// Options of `check`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Mend what can be mended (format, simple lints) instead of only saying it.
    #[arg(long)]
    fix: bool,
}

/// Runs all checks and stops at the first that fails.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut fmt = cmd::cargo();
    fmt.args(["fmt", "--all"]);
    if !args.fix {
        fmt.arg("--check");
    }
    cmd::run("format", &mut fmt)?;
    tidy::check()?;
    layers::check()?;
    sim::mutants::check()?;
    let mut clippy = cmd::cargo();
    clippy.args(["clippy", "--locked", "--all-targets"]);
    if args.fix {
        clippy.args(["--fix", "--allow-dirty", "--allow-staged"]);
    }
    clippy.args(["--", "-D", "warnings"]);
    cmd::run("lints", &mut clippy)?;
    crds::check()?;
    ebpf::check()?;
    deny()
}

/// Licences, advisories and bans; needs cargo-deny, which CI always has.
fn deny() -> anyhow::Result<()> {
    let found =
        Command::new("cargo-deny").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!(
            "==> cargo deny: SKIPPED, cargo-deny is not installed (`cargo install cargo-deny --locked`)"
        );
        return Ok(());
    }
    let mut cargo = cmd::cargo();
    cargo.args(["deny", "--workspace", "check", "bans", "licenses", "sources"]);
    cmd::run("cargo deny", &mut cargo)
}
