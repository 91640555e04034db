//! What a kernel and a process must have to run the dataplane, and what to do about it where it is missing.

use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::statfs;

use crate::sys;

/// Oldest kernel that is supported.
pub const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// First kernel with TCX links.
pub const TCX_KERNEL: (u32, u32) = (6, 6);

/// First kernel in which a program on calls of sockets can say with which error a call fails (`bpf_set_retval`).
pub const SET_RETVAL_KERNEL: (u32, u32) = (6, 1);

/// Symbol by which the object is told whether it runs on such a kernel.
pub(crate) const HAS_SET_RETVAL: &str = "HAS_SET_RETVAL";

/// First kernel that tells a process the number of its network namespace (`SO_NETNS_COOKIE`).
pub const NETNS_COOKIE_KERNEL: (u32, u32) = (5, 14);

/// Symbol by which the object is told which network namespace is protected.
pub(crate) const PROTECTED_NETNS: &str = "PROTECTED_NETNS";

/// `f_type` of a bpffs.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What: "kernel", "btf", "bpffs", "capabilities", "tcx".
    pub what: &'static str,
    /// How it is.
    pub state: State,
    /// One sentence: what there is, or what is missing and how to mend it.
    pub text: String,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// All is well.
    Fine,
    /// The dataplane runs, but with less.
    Degraded,
    /// The dataplane cannot run.
    Missing,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.text)
    }
}

/// Looks at everything; mounts nothing.
pub fn all(bpffs: &Path) -> Vec<Finding> {
    vec![kernel(), btf(), capabilities(), bpffs_mounted(bpffs), tcx()]
}

/// The running kernel's version: major and minor.
pub fn kernel_version() -> Option<(u32, u32)> {
    let name = nix::sys::utsname::uname().ok()?;
    parse_version(name.release().to_str()?)
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn finding(what: &'static str, state: State, text: impl Into<String>) -> Finding {
    Finding { what, state, text: text.into() }
}

/// Is the kernel recent enough?
pub fn kernel() -> Finding {
    let (major, minor) = OLDEST_KERNEL;
    match kernel_version() {
        Some(version) if version >= OLDEST_KERNEL => {
            finding("kernel", State::Fine, format!("Linux {}.{}", version.0, version.1))
        }
        Some(version) => finding(
            "kernel",
            State::Missing,
            format!("Linux {}.{} is too old: boot {major}.{minor} or later", version.0, version.1),
        ),
        None => finding(
            "kernel",
            State::Missing,
            format!("the kernel's version cannot be read: {major}.{minor} or later is needed"),
        ),
    }
}

/// Does the kernel carry its type information?
pub fn btf() -> Finding {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        finding("btf", State::Fine, format!("{path} is there"))
    } else {
        finding(
            "btf",
            State::Missing,
            format!(
                "{path} is missing: mount sysfs there, or boot a kernel built with CONFIG_DEBUG_INFO_BTF (Debian's are)"
            ),
        )
    }
}

/// Bits of the capabilities that the dataplane needs, by name.
const CAPABILITIES: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

/// May this process load programs and attach them?
pub fn capabilities() -> Finding {
    let effective = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    let Some(effective) = effective else {
        return finding("capabilities", State::Missing, "they cannot be read: mount procfs at /proc");
    };
    let missing: Vec<&str> = CAPABILITIES
        .into_iter()
        .filter(|(bit, _)| effective & (1 << bit) == 0)
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        finding("capabilities", State::Fine, "all that is needed")
    } else {
        finding(
            "capabilities",
            State::Missing,
            format!("{} missing: run as root, or give the container these capabilities", missing.join(", ")),
        )
    }
}

/// Is a bpffs mounted at `path`?
pub fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| {
        #[expect(clippy::allow_attributes, reason = "the width of f_type depends on the architecture")]
        #[allow(clippy::useless_conversion, reason = "the width of f_type depends on the architecture")]
        let kind = i64::from(fs.filesystem_type().0);
        kind & 0xffff_ffff == BPF_FS_MAGIC
    })
}

/// Is a bpffs mounted at `path`?
pub fn bpffs_mounted(path: &Path) -> Finding {
    if is_bpffs(path) {
        finding("bpffs", State::Fine, format!("mounted at {}", path.display()))
    } else {
        finding(
            "bpffs",
            State::Missing,
            format!("none is mounted at {0}: mount -t bpf bpf {0}", path.display()),
        )
    }
}

/// Mounts a bpffs at `path` unless one is there. True when it was mounted now.
pub fn mount_bpffs(path: &Path) -> io::Result<bool> {
    if is_bpffs(path) {
        return Ok(false);
    }
    if !path.exists() {
        std::fs::create_dir_all(path)?;
    }
    mount(
        Some("bpf"),
        path,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )?;
    Ok(true)
}

/// What the object is told under [`HAS_SET_RETVAL`]: 1 if the kernel is such a one, else 0.
pub(crate) fn has_set_retval() -> u32 {
    u32::from(kernel_version().is_some_and(|version| version >= SET_RETVAL_KERNEL))
}

/// The kernel's number for the network namespace of the calling thread; `None` before [`NETNS_COOKIE_KERNEL`].
pub fn netns_cookie() -> Option<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    sys::netns_cookie(socket.as_fd()).ok()
}

/// Has the kernel TCX links?
pub fn tcx() -> Finding {
    match kernel_version() {
        Some(version) if version >= TCX_KERNEL => finding("tcx", State::Fine, "links are replaced in place"),
        _ => finding(
            "tcx",
            State::Degraded,
            format!(
                "the kernel is older than {}.{}: clsact filters are used instead, which other tools can remove",
                TCX_KERNEL.0, TCX_KERNEL.1
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_release_names() {
        let check = |release, expect| assert_eq!(parse_version(release), expect, "{release}");
        check("6.1.0-29-cloud-amd64", Some((6, 1)));
        check("5.10.0", Some((5, 10)));
        check("6.18.44-fc-v657", Some((6, 18)));
        check("6.6-rc1", Some((6, 6)));
        check("linux", None);
        check("", None);
    }

    #[test]
    fn every_finding_is_one_sentence() {
        for finding in all(Path::new("/nonexistent")) {
            assert!(!finding.text.is_empty());
            assert!(!finding.text.ends_with('.'), "{finding}");
            assert!(!finding.text.contains('\n'), "{finding}");
        }
        assert_eq!(bpffs_mounted(Path::new("/proc")).state, State::Missing);
    }
}
