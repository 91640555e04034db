//! `cargo xtask e2e`: a lab of its own or the simulator, the matrix against it, reports and captures.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::{cmd, programs, setup};

/// Where the matrix runs; every other word goes to `bristle-e2e`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The arm: network namespaces on this machine, the simulator (no root), or kind.
    #[arg(long, value_parser = ["netns", "native", "kind"], default_value = "netns")]
    on: String,
    /// --case 1-6,20-23, --routing vxlan|native, --family v4|v6|dual, --report FILE.json, --captures DIR, --suite network-policy|connectivity|services|generated …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Builds, then runs the matrix; fails if a selected case fails.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.on == "kind" {
        bail!("the kind arm is not built yet: use --on netns, which runs the same cases with real eBPF");
    }
    if args.on == "native" {
        let bin_dir = programs::build_only("the matrix", &["e2e"])?;
        return cmd::pass(Command::new(bin_dir.join("bristle-e2e")).arg("native").args(&args.args));
    }
    cmd::need_root("e2e on netns")?;
    setup::ensure("lab")?;
    let bin_dir = programs::build(&[])?;
    netns(&bin_dir, &args.args)
}

/// One run of the matrix on a lab of its own.
pub(crate) fn netns(bin_dir: &Path, args: &[OsString]) -> anyhow::Result<()> {
    let mut command = Command::new(bin_dir.join("bristle-e2e"));
    command.arg("netns").arg("--bin-dir").arg(bin_dir).args(args);
    cmd::run("connectivity matrix on netns", &mut command)
}
