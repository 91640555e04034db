//! `bristle-lab node-exec`: a program inside a machine or a container that runs already.
//!
//! Two steps, because a PID namespace is entered by being born in it: [`outer`] enters and starts [`inner`], which ties its
//! life to the outer process, takes the terminal if there is one, and becomes the program.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use nix::sys::signal::Signal;

use super::init::exit_code;
use crate::cgroup;
use crate::machine::rootfs::BIN_DIR;
use crate::ns::NsSet;

/// Where a program is to run.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Process whose namespaces are entered: a machine's first process or a container's shim
    #[arg(long)]
    pid: u32,
    /// Cgroup to join first
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Make the standard streams the program's controlling terminal
    #[arg(long)]
    tty: bool,
    /// Working directory inside
    #[arg(long, default_value = "/")]
    cwd: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Enters and waits; ends with the program's exit code.
pub fn outer(target: &Target) -> anyhow::Result<ExitCode> {
    let set = NsSet::of_process(target.pid)?;
    if let Some(path) = &target.cgroup {
        cgroup::join(path).with_context(|| format!("join cgroup {}", path.display()))?;
    }
    set.enter()?;
    let mut inner = Command::new(Path::new(BIN_DIR).join("bristle-lab"));
    inner.arg("exec-inner");
    if target.tty {
        inner.arg("--tty");
    }
    let status = inner
        .arg("--")
        .args(&target.command)
        .current_dir(&target.cwd)
        .status()
        .with_context(|| format!("run in {}", target.cwd))?;
    Ok(ExitCode::from(exit_code(status)))
}

/// Becomes the program.
pub fn inner(tty: bool, command: &[OsString]) -> anyhow::Result<ExitCode> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("tie the program to its client")?;
    if tty {
        nix::unistd::setsid().context("start a session")?;
        // A session's first process without a terminal gets the one that it opens.
        OpenOptions::new().read(true).write(true).open("/proc/self/fd/0").context("take the terminal")?;
    }
    let (program, args) = command.split_first().context("no command was given")?;
    let error = Command::new(program).args(args).exec();
    eprintln!("exec: \"{}\": {error}", program.display());
    Ok(ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }))
}
