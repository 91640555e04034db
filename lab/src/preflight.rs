//! Checks before a lab starts: what is missing is said in one sentence with its remedy.

use std::path::{Path, PathBuf};

/// Programs of the host that pods and the lab use, with the Debian package that has them.
const TOOLS: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("ping", "iputils-ping"),
    ("nslookup", "bind9-dnsutils"),
    ("tcpdump", "tcpdump"),
    ("sh", "dash"),
];
/// Oldest kernel, as (major, minor).
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Something that a lab needs is not there. The text is for people and says how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreflightError {
    /// Not the superuser.
    #[error(
        "a lab makes network namespaces and loads eBPF programs, which needs root: run the same command with sudo"
    )]
    NotRoot,
    /// Kernel too old.
    #[error("the kernel is {0}, but 5.10 or later is needed: boot a newer kernel")]
    KernelTooOld(String),
    /// No BTF.
    #[error(
        "the kernel has no BTF (/sys/kernel/btf/vmlinux): boot a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions' kernels are"
    )]
    NoBtf,
    /// No overlay file system.
    #[error("the kernel has no overlay file system: load it with `modprobe overlay`")]
    NoOverlay,
    /// No cgroup2.
    #[error(transparent)]
    NoCgroup2(#[from] crate::cgroup::NoCgroup2Error),
    /// A tool is missing.
    #[error("{tool} is not installed: install it with `apt-get install {package}`")]
    NoTool {
        /// Program.
        tool: &'static str,
        /// Debian package.
        package: &'static str,
    },
    /// One of our own binaries is missing.
    #[error("{} is not there: build it with `cargo xtask lab up`, or name the directory that has it with --bin-dir", .0.display())]
    NoBinary(PathBuf),
    /// The eBPF object is missing.
    #[error("there is no bristle.bpf.o in {}: build it with `cargo xtask ebpf`", .0.display())]
    NoObject(PathBuf),
}

/// Parses `6.18.44-fc` into (6, 18).
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Finds a program in `PATH`.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|p| p.is_file())
}

/// Checks the machine: root, kernel, tools.
pub fn machine() -> Result<(), PreflightError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(PreflightError::NotRoot);
    }
    let release =
        nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    if kernel_version(&release).is_some_and(|v| v < OLDEST_KERNEL) {
        return Err(PreflightError::KernelTooOld(release));
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(PreflightError::NoBtf);
    }
    let file_systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !file_systems.lines().any(|l| l.trim().ends_with("overlay")) {
        return Err(PreflightError::NoOverlay);
    }
    crate::cgroup::root()?;
    match TOOLS.iter().find(|(tool, _)| find_tool(tool).is_none()) {
        Some((tool, package)) => Err(PreflightError::NoTool { tool, package }),
        None => Ok(()),
    }
}

/// For tests: whether a lab can be made here. Says loudly when not.
///
/// # Panics
/// When not, and `BRISTLE_REQUIRE_ALL=1` asks for every test to run.
pub fn can_test() -> bool {
    let problem = machine().and_then(|()| crate::bins::BinDir::find(None).map(drop));
    let Err(problem) = problem else { return true };
    assert!(
        std::env::var_os("BRISTLE_REQUIRE_ALL").is_none_or(|v| v != "1"),
        "this test must run, but {problem}"
    );
    eprintln!("SKIPPED: this test needs root, network namespaces and the built programs: {problem}");
    false
}

/// Raises the limit of open files as far as this process may: each container costs a handful.
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_compare_as_numbers() {
        assert_eq!(kernel_version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(kernel_version("5.9-rc1"), Some((5, 9)));
        assert!(kernel_version("5.9.0") < Some(OLDEST_KERNEL));
        assert_eq!(kernel_version("weird"), None);
    }
}
