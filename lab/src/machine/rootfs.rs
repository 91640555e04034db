//! The file system of a machine or pod: the host's root below, a private layer on top.
//!
//! Whatever is written inside is gone with the mount namespace, and the host's files are never changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

/// Where the host's root file system stays visible inside a node, for the pods' lower layer.
pub const HOST_ROOT: &str = "/.bristle/host";
/// Where the built binaries are inside nodes and pods.
pub const BIN_DIR: &str = "/opt/bristle/bin";

/// A step of building the root file system that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}", path.display())]
pub struct RootfsError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

pub(crate) trait At<T> {
    fn at(self, step: &'static str, path: &Path) -> Result<T, RootfsError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str, path: &Path) -> Result<T, RootfsError> {
        self.map_err(|e| RootfsError { step, path: path.to_owned(), source: e.into() })
    }
}

const NONE: Option<&str> = None;

/// Stops mount events in both directions between this mount namespace and its parent.
pub fn make_private() -> Result<(), RootfsError> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .at("make mounts private below", Path::new("/"))
}

/// Mounts a file system of `kind` at `at`, making the directory first.
pub fn mount_fs(kind: &str, at: &Path, options: Option<&str>) -> Result<(), RootfsError> {
    fs::create_dir_all(at).at("make directory", at)?;
    mount(Some(kind), at, Some(kind), MsFlags::empty(), options).at("mount", at)
}

/// Shows `from` at `to` (a directory or a file; made when missing).
pub fn bind(from: &Path, to: &Path, recursive: bool) -> Result<(), RootfsError> {
    if from.is_dir() {
        fs::create_dir_all(to).at("make directory", to)?;
    } else if !to.exists() {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).at("make directory", parent)?;
        }
        fs::write(to, "").at("make file", to)?;
    }
    let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
    mount(Some(from), to, NONE, flags, NONE).at("bind", to)
}

/// Puts a private layer over `lower`; `base` becomes a tmpfs that holds it. Returns the new root, not yet entered.
pub fn overlay(lower: &Path, base: &Path) -> Result<PathBuf, RootfsError> {
    fs::create_dir_all(base).at("make directory", base)?;
    mount(Some("tmpfs"), base, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .at("mount tmpfs at", base)?;
    let lower_view = base.join("lower");
    bind(lower, &lower_view, false)?;
    let (upper, work, root) = (base.join("upper"), base.join("work"), base.join("root"));
    for dir in [&upper, &work, &root] {
        fs::create_dir_all(dir).at("make directory", dir)?;
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower_view.display(), upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .at("mount overlay at", &root)?;
    Ok(root)
}

/// Writes a file below the new root, replacing a symbolic link rather than following it out of the root.
pub fn write_file(root: &Path, name: &str, text: &str) -> Result<(), RootfsError> {
    let path = root.join(name);
    if path.is_symlink() {
        fs::remove_file(&path).at("remove link", &path)?;
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).at("make directory", parent)?;
    }
    fs::write(&path, text).at("write", &path)
}

/// Makes `root` the root of this mount namespace and drops the old one.
pub fn pivot(root: &Path) -> Result<(), RootfsError> {
    let old = root.join(".bristle/old");
    fs::create_dir_all(&old).at("make directory", &old)?;
    pivot_root(root, &old).at("pivot root to", root)?;
    chdir("/").at("change directory to", Path::new("/"))?;
    let old = Path::new("/.bristle/old");
    umount2(old, MntFlags::MNT_DETACH).at("unmount", old)?;
    fs::remove_dir(old).at("remove directory", old)
}

/// `/proc`, `/sys`, `/dev`, `/run` and `/tmp` of a machine. To be called by a process inside its PID and network namespaces.
///
/// `cgroup` is shown as the whole of `/sys/fs/cgroup`, so that a node or pod sees its own part of the tree only.
pub fn kernel_file_systems(root: &Path, cgroup: Option<&Path>) -> Result<(), RootfsError> {
    mount_fs("proc", &root.join("proc"), None)?;
    mount_fs("sysfs", &root.join("sys"), None)?;
    if let Some(cgroup) = cgroup {
        bind(cgroup, &root.join("sys/fs/cgroup"), false)?;
    }
    bind(Path::new("/dev"), &root.join("dev"), true)?;
    mount_fs("tmpfs", &root.join("run"), Some("mode=0755"))?;
    mount_fs("tmpfs", &root.join("tmp"), Some("mode=1777"))
}

/// Lets nobody write through the mount at `at`.
pub fn make_read_only(at: &Path) -> Result<(), RootfsError> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NONE, at, NONE, flags, NONE).at("make read-only", at)
}
