//! The commands for people.

use std::fmt;
use std::io::{self, Write as _};

use anyhow::{Context as _, bail};
use lab::control::{self, Request, Response};
use lab::plan::LabName;
use lab::state::{LabDir, OwnerKind};

pub(crate) mod down;
pub(crate) mod fault;
pub(crate) mod inside;
pub(crate) mod kubectl;
pub(crate) mod status;
mod terminal;
pub(crate) mod up;

/// How a user types these commands.
pub(crate) const COMMAND: &str = "cargo xtask lab";

/// Prints a line. A reader that has gone away (`| head`) is no reason to make noise, nor to stop what is being done.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// ` --name x` unless it is the default lab.
pub(crate) fn name_flag(name: &LabName) -> String {
    if name.as_str() == "default" { String::new() } else { format!(" --name {name}") }
}

/// Asks the lab's supervisor.
pub(crate) fn ask(name: &LabName, request: &Request) -> anyhow::Result<Response> {
    let dir = LabDir::of(name);
    let record = dir.record()?;
    if !record.owner.is_alive() {
        bail!("lab '{name}' has crashed: remove what it left with `{COMMAND} down{}`", name_flag(name));
    }
    match control::ask(&dir.control_socket(), request) {
        Ok(response) => Ok(response),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            match record.owner_kind {
                OwnerKind::Supervisor => {
                    bail!("lab '{name}' is still starting (process {})", record.owner.pid)
                }
                OwnerKind::Library => bail!(
                    "lab '{name}' belongs to a test (process {}), which takes no commands",
                    record.owner.pid
                ),
            }
        }
        Err(e) => Err(e).context("ask the lab"),
    }
}
