//! `cargo xtask crds`: the manifests of the CustomResourceDefinitions, made from the types of `agent-crd`.

use crate::cmd;

/// Options of `crds`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only say which manifests are not what the types say.
    #[arg(long)]
    check: bool,
}

/// Writes the manifests, or compares them.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    make(args.check)
}

/// Fails with the manifests that are not what the types say.
pub(crate) fn check() -> anyhow::Result<()> {
    make(true)
}

fn make(check: bool) -> anyhow::Result<()> {
    let mut cargo = cmd::cargo();
    cargo.args(["run", "--quiet", "--locked", "--package", "agent-crd", "--example", "crds", "--"]);
    if check {
        cargo.arg("--check");
    }
    cargo.arg(cmd::root().join("deploy/crds"));
    cmd::run("definitions of custom resources", &mut cargo)
}
