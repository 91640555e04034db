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
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|_| NoCgroup2Error)?;
    root_in(&mounts).ok_or(NoCgroup2Error)
}

/// Finds the hierarchy's root in the text of a mountinfo file (`man 5 proc`).
fn root_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mount_point = front.split(' ').nth(4)?;
        (back.split(' ').next()? == "cgroup2").then(|| PathBuf::from(mount_point))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_hierarchy_on_hybrid_and_unified_systems() {
        let hybrid = "29 24 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      40 29 0:36 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(root_in(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let unified = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(root_in(unified), Some("/sys/fs/cgroup".into()));
        assert_eq!(root_in("1 2 0:1 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
