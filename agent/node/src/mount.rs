//! The BPF file system, where maps and links are pinned.

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
