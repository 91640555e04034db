//! File systems of the kernel: BPF's, where maps and links are pinned, and that of control groups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// The BPF file system is not there and could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct MountError {
    /// What was tried.
    pub operation: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// True if the directory lies in a BPF file system.
pub fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|facts| facts.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts a BPF file system on the directory (making it if need be) unless there is one. True if it was mounted now.
///
/// # Errors
/// When the directory cannot be made or the mount is refused (no `CAP_SYS_ADMIN`).
pub fn ensure_bpffs(path: &Path) -> Result<bool, MountError> {
    let error = |operation, source: io::Error| MountError { operation, path: path.to_owned(), source };
    if is_bpffs(path) {
        return Ok(false);
    }
    // /sys has no room for new directories; /sys/fs/bpf is there already.
    if !path.is_dir() {
        fs::create_dir_all(path).map_err(|source| error("make directory", source))?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
    mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|errno| error("mount the BPF file system on", errno.into()))?;
    Ok(true)
}

/// Where the version 2 hierarchy of control groups is mounted: alone, or beside version 1 on hybrid systems. `None`: nowhere.
pub fn cgroup2() -> Option<PathBuf> {
    cgroup2_in(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// Finds it in the text of a mountinfo file (`man 5 proc`).
fn cgroup2_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mount_point = front.split(' ').nth(4)?;
        (back.split(' ').next()? == "cgroup2").then(|| PathBuf::from(mount_point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_alone_and_beside_version_1() {
        let hybrid = "29 24 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      40 29 0:36 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_in(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let alone = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(cgroup2_in(alone), Some("/sys/fs/cgroup".into()));
        assert_eq!(cgroup2_in("1 2 0:1 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
