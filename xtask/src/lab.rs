//! `cargo xtask lab …`: builds what a lab needs and hands over to `bristle-lab`.

use std::ffi::OsString;
use std::process::Command;

use crate::{cmd, programs, setup};

/// What `bristle-lab` is asked; `cargo xtask lab -- --help` shows its own help.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// up, status, list, shell POD, capture, kubectl -- ARGS, logs NODE, down.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<OsString>,
}

/// Builds (only `up` needs everything fresh), then runs `bristle-lab` with the words given.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let first = args.args.first().map(|word| word.to_string_lossy().into_owned());
    let bin_dir = cmd::target_dir().join("release");
    let built = bin_dir.join("bristle-lab").exists();
    let mut lab = Command::new(bin_dir.join("bristle-lab"));
    if first.as_deref() == Some("up") {
        let asks_help = args.args.iter().any(|word| word == "--help" || word == "-h");
        if !asks_help {
            cmd::need_root("lab up")?;
            setup::ensure("lab")?;
        }
        programs::build(&[])?;
        lab.args(&args.args);
        if !asks_help {
            lab.arg("--bin-dir").arg(&bin_dir);
        }
    } else {
        if !built {
            let mut cargo = cmd::cargo();
            cargo.args(["build", "--release", "--package", "lab", "--bins"]);
            cmd::run("build bristle-lab", &mut cargo)?;
        }
        lab.args(&args.args);
    }
    // The lab's own words and exit code are the answer: no line of ours around them.
    let status = lab.status()?;
    std::process::exit(status.code().unwrap_or(1));
}
