//! `kubectl`: the user's kubectl with the lab's kubeconfig.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use lab::plan::LabName;
use lab::preflight::find_tool;
use lab::state::LabDir;

/// Oldest minor version of kubectl 1.x that is supported.
const OLDEST_MINOR: u32 = 32;

/// Becomes kubectl.
pub(crate) fn kubectl(name: &LabName, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let dir = LabDir::of(name);
    let record = dir.record()?;
    if !record.owner.is_alive() {
        bail!(
            "lab '{name}' has crashed: remove what it left with `{} down{}`",
            super::COMMAND,
            super::name_flag(name)
        );
    }
    let program = find()?;
    let args = if args.first().is_some_and(|a| a == "--") { &args[1..] } else { args };
    Err(Command::new(&program).args(args).env("KUBECONFIG", dir.kubeconfig()).exec())
        .with_context(|| format!("run {}", program.display()))
}

/// `$KUBECTL`, else one that was set up below the target directory, else the one on the `PATH`.
fn find() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("KUBECTL") {
        return Ok(given.into());
    }
    let own = std::env::current_exe().context("find this program")?;
    let set_up = own.ancestors().skip(1).take(3).map(|dir| dir.join("tools/kubectl")).find(|p| p.is_file());
    let remedy =
        "install kubectl 1.32 or later and put it on the PATH, or name it with KUBECTL=/path/to/kubectl";
    let Some(program) = set_up.or_else(|| find_tool("kubectl")) else {
        bail!("kubectl is not installed: {remedy}")
    };
    let output = Command::new(&program)
        .args(["version", "--client", "-o", "json"])
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let minor =
        version["clientVersion"]["minor"].as_str().and_then(|m| m.trim_end_matches('+').parse::<u32>().ok());
    // A version that cannot be read is let through: kubectl itself will say what is wrong.
    if minor.is_some_and(|minor| minor < OLDEST_MINOR) {
        bail!(
            "{} is {}: {remedy}",
            program.display(),
            version["clientVersion"]["gitVersion"].as_str().unwrap_or("too old")
        );
    }
    Ok(program)
}
