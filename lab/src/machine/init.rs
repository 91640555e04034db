//! `bristle-lab node-init`: process 1 of a machine.
//!
//! It builds the machine's root file system, says `ready`, then reaps orphans until its standard input closes. The supervisor
//! holds the other end of that pipe and nothing else does, so a machine ends with its supervisor however that one ends; and
//! when process 1 of a PID namespace ends, the kernel kills everything inside.

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use super::rootfs::{self, BIN_DIR, HOST_ROOT};

/// What the supervisor tells a machine's first process, as one line of JSON on its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InitConfig {
    /// Host name.
    pub hostname: String,
    /// Root file system; a machine without one shares the host's files (read: the fabric).
    pub root: Option<RootConfig>,
    /// Whether the machine forwards packets.
    pub forwarding: bool,
}

/// How a node's root file system is built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootConfig {
    /// An existing or creatable directory on the host; only this machine sees what is mounted there.
    pub base: PathBuf,
    /// The node's cgroup directory on the host.
    pub cgroup: PathBuf,
    /// Directory with the project's binaries.
    pub bin_dir: PathBuf,
    /// The eBPF object, shown at [`OBJECT_PATH`].
    pub object: PathBuf,
    /// Directory of the lab shared with all machines, shown at [`SHARE_DIR`].
    pub share: PathBuf,
    /// Contents of /etc/hosts.
    pub hosts: String,
    /// Contents of /etc/resolv.conf.
    pub resolv_conf: String,
}

/// Where machines see the lab's shared directory (kubeconfig, DNS records).
pub const SHARE_DIR: &str = "/run/bristle-lab";

/// Where machines see the eBPF object: where an installation has it.
pub const OBJECT_PATH: &str = "/usr/lib/bristle/bristle.bpf.o";

/// Kernel settings of every machine, below /proc/sys/net; a setting that the kernel lacks is left out.
const SYSCTLS: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
    // Addresses are unique by plan; waiting a second for duplicate address detection would be the longest part of a start.
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
];

/// Runs process 1 until the supervisor goes away.
pub fn main() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("read the configuration")?;
    let config: InitConfig = serde_json::from_str(&line).context("parse the configuration")?;

    rootfs::make_private()?;
    if let Some(root) = &config.root {
        build_root(&config.hostname, root)?;
    } else {
        // The PID namespace is new, so the old /proc would show other processes' numbers, and the old /sys other links.
        rootfs::mount_fs("proc", Path::new("/proc"), None)?;
        rootfs::mount_fs("sysfs", Path::new("/sys"), None)?;
    }
    nix::unistd::sethostname(&config.hostname).context("set the host name")?;
    let forwarding: &[(&str, &str)] =
        if config.forwarding { &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] } else { &[] };
    for (name, value) in SYSCTLS.iter().chain(forwarding) {
        let path = Path::new("/proc/sys/net").join(name);
        if path.exists() {
            fs::write(&path, value).with_context(|| format!("set {}", path.display()))?;
        }
    }

    let signals = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("block signals")?;
    let signal_fd = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("open a signal descriptor")?;
    println!("ready");
    std::io::stdout().flush()?;
    watch(&signal_fd)
}

/// Reaps children until standard input closes or a termination signal comes.
fn watch(signal_fd: &SignalFd) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    loop {
        let mut fds = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(signal_fd.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
        if fds[0].revents().is_some_and(|r| !r.is_empty()) {
            return Ok(());
        }
        while let Ok(Some(info)) = signal_fd.read_signal() {
            if i32::try_from(info.ssi_signo).is_ok_and(|s| s != Signal::SIGCHLD as i32) {
                return Ok(());
            }
        }
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
    }
}

fn build_root(hostname: &str, config: &RootConfig) -> anyhow::Result<()> {
    let root = rootfs::overlay(Path::new("/"), &config.base)?;
    rootfs::bind(Path::new("/"), &root.join(HOST_ROOT.trim_start_matches('/')), false)?;
    rootfs::kernel_file_systems(&root, Some(&config.cgroup))?;
    rootfs::mount_fs("bpf", &root.join("sys/fs/bpf"), Some("mode=0700"))?;
    for name in ["sys/kernel/tracing", "sys/kernel/debug"] {
        let host = Path::new("/").join(name);
        if host.join("available_events").exists() || host.join("tracing").exists() {
            rootfs::bind(&host, &root.join(name), false)?;
        }
    }
    rootfs::bind(&config.bin_dir, &root.join(BIN_DIR.trim_start_matches('/')), false)?;
    rootfs::bind(&config.object, &root.join(OBJECT_PATH.trim_start_matches('/')), false)?;
    rootfs::bind(&config.share, &root.join(SHARE_DIR.trim_start_matches('/')), false)?;
    rootfs::write_file(&root, "etc/hostname", &format!("{hostname}\n"))?;
    rootfs::write_file(&root, "etc/hosts", &config.hosts)?;
    rootfs::write_file(&root, "etc/resolv.conf", &config.resolv_conf)?;
    for dir in ["run/netns", "run/pods", "etc/cni/net.d", "opt/cni/bin"] {
        fs::create_dir_all(root.join(dir)).with_context(|| format!("make /{dir}"))?;
    }
    let plugin = config.bin_dir.join("bristle-cni");
    if plugin.exists() {
        rootfs::bind(&plugin, &root.join("opt/cni/bin/bristle-cni"), false)?;
    }
    rootfs::pivot(&root)?;
    Ok(())
}
