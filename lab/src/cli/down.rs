//! `down`: ends a lab and removes what is left of it.

use std::fs;
use std::time::Duration;

use anyhow::bail;
use lab::plan::LabName;
use lab::state::{LabDir, OwnerKind};
use lab::supervisor::early_log;
use nix::sys::signal::Signal;

use super::say;

/// How long a supervisor may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `down`.
pub(crate) fn down(name: &LabName, all: bool) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(lab::preflight::PreflightError::NotRoot.into());
    }
    if !all {
        return remove(&LabDir::of(name), false);
    }
    let labs = LabDir::all();
    if labs.is_empty() {
        say(format_args!("there are no labs"));
    }
    labs.iter().try_for_each(|lab| remove(lab, true))
}

fn remove(lab: &LabDir, skip_tests: bool) -> anyhow::Result<()> {
    let _ = fs::remove_file(early_log(lab.name()));
    if !lab.path().exists() {
        say(format_args!("there is no lab '{}'", lab.name()));
        return Ok(());
    }
    if let Ok(record) = lab.record()
        && record.owner.is_alive()
    {
        if record.owner_kind == OwnerKind::Library {
            if skip_tests {
                say(format_args!(
                    "lab '{}' left alone: it belongs to process {}, which still runs",
                    lab.name(),
                    record.owner.pid
                ));
                return Ok(());
            }
            bail!(
                "lab '{}' belongs to process {}, which still runs: end that one, and the lab goes with it",
                lab.name(),
                record.owner.pid
            );
        }
        let _ = record.owner.signal(Signal::SIGTERM);
        if !record.owner.wait_gone(PATIENCE) {
            let _ = record.owner.signal(Signal::SIGKILL);
            record.owner.wait_gone(PATIENCE);
        }
    }
    lab.sweep()?;
    say(format_args!("lab '{}' removed", lab.name()));
    Ok(())
}
