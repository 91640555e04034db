//! Control groups of labs, nodes and pods, on the version 2 hierarchy (unified, or beside version 1 on hybrid systems).
//!
//! No controller is switched on: the groups exist so that programs attached to a node's group see exactly that node's pods.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::plan::LabName;

/// There is no version 2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no cgroup2 file system is mounted: mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified` (make the directory first)"
)]
pub struct NoCgroup2Error;

/// Mount point of the version 2 hierarchy.
pub fn root() -> Result<PathBuf, NoCgroup2Error> {
    agent_node::mount::cgroup2().ok_or(NoCgroup2Error)
}

/// Group of a lab.
pub fn lab_path(lab: &LabName) -> Result<PathBuf, NoCgroup2Error> {
    Ok(root()?.join("bristle-lab").join(lab.as_str()))
}

/// Ends all processes in a group and below, and removes it. Tries for some seconds, because a killed process leaves its
/// group a little later.
pub fn remove(path: &Path) {
    let end = Instant::now() + Duration::from_secs(5);
    while path.exists() && Instant::now() < end {
        if remove_once(path).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One attempt to remove a group with all groups below it; processes inside are killed.
pub fn remove_once(path: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_once(&entry.path())?;
        }
    }
    for line in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid @ 1..) = line.parse::<i32>() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Moves the calling process into a group.
pub fn join(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), "0")
}
