//! The agent's place on the node: its directories, the lock that there is only one, and the eBPF object.

use crate::flags::RunFlags;
use anyhow::{Context as _, Result, bail};
use dataplane_loader::probe::{self, State};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// An agent that is being replaced needs a moment to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// What the kernel and this process must have; the first thing that is missing is the error, with its remedy.
///
/// # Errors
/// When the dataplane cannot run here.
pub(crate) fn probe(flags: &RunFlags) -> Result<()> {
    flags.check()?;
    for finding in [probe::kernel(), probe::btf(), probe::capabilities(), probe::tcx()] {
        match finding.state {
            State::Fine => {}
            State::Degraded => warn!("{finding}"),
            State::Missing => bail!("{finding}"),
        }
    }
    if probe::mount_bpffs(&flags.bpffs).with_context(|| {
        format!(
            "no BPF file system at {0} and none can be mounted; run `mount -t bpf bpf {0}` or give --bpffs",
            flags.bpffs.display()
        )
    })? {
        info!(path = %flags.bpffs.display(), "BPF file system mounted; in a container mount the host's there instead, pins live only as long as the mount");
    }
    Ok(())
}

/// Directories and the lock. The lock is held as long as the value lives.
#[derive(Debug)]
pub(crate) struct Place {
    /// Directory of what survives a restart.
    pub(crate) state: PathBuf,
    /// The HTTP socket.
    pub(crate) api_socket: PathBuf,
    /// The CNI socket.
    pub(crate) cni_socket: PathBuf,
    _lock: File,
}

impl Place {
    /// Makes the directories and waits for an agent that is ending.
    pub(crate) fn take(flags: &RunFlags) -> Result<Self> {
        let make = |dir: &Path, mode: u32| {
            DirBuilder::new().recursive(true).mode(mode).create(dir).with_context(|| {
                format!("cannot make {}; give another --run-dir or --state-dir", dir.display())
            })
        };
        make(&flags.run_dir, 0o755)?;
        let state = flags.state_dir();
        make(&state, 0o700)?;
        Ok(Self {
            state,
            api_socket: flags.run_dir.join(agent_api::paths::API_SOCKET_NAME),
            cni_socket: flags.run_dir.join(agent_api::cni::SOCKET_NAME),
            _lock: lock(&flags.run_dir.join("agent.lock"))?,
        })
    }
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another bristle-agent holds {}; stop it first, or give this one its own --run-dir",
                    path.display()
                )
            }
            Err(TryLockError::Error(problem)) => {
                return Err(problem).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

/// Name of the eBPF object where it is installed.
const OBJECT_NAME: &str = "bristle.bpf.o";

/// The eBPF object: as flagged, beside this program, or where packages put it.
pub(crate) fn object(flags: &RunFlags) -> Result<PathBuf> {
    if let Some(path) = &flags.bpf_object {
        if path.is_file() {
            return Ok(path.clone());
        }
        bail!(
            "there is no eBPF object at {}; build it with `cargo xtask ebpf` or correct --bpf-object",
            path.display()
        );
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(OBJECT_NAME)));
    let installed = Path::new("/usr/lib/bristle").join(OBJECT_NAME);
    let mut places = beside.into_iter().chain([installed]);
    places.find(|path| path.is_file()).with_context(|| {
        format!("there is no {OBJECT_NAME} beside this program or in /usr/lib/bristle; build it with `cargo xtask ebpf` and give --bpf-object")
    })
}

/// Where the programs on calls of sockets go: as flagged, or the root of the hierarchy. `None`: they are not put in place.
pub(crate) fn cgroup(flags: &RunFlags) -> Result<Option<PathBuf>> {
    if !flags.translates_at_sockets() {
        return Ok(None);
    }
    let path = flags.cgroup_root.clone().or_else(agent_node::mount::cgroup2);
    let path = path.context(
        "no cgroup2 file system is mounted: mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`, or give --service-translation packet",
    )?;
    if dataplane_loader::cgroup::is_cgroup(&path) {
        return Ok(Some(path));
    }
    bail!("{} is no cgroup of version 2; correct --cgroup-root", path.display())
}

/// The Node object's name: as flagged, or the host name as kubelet takes it (lower case).
pub(crate) fn node_name(flags: &RunFlags) -> Result<String> {
    if let Some(name) = flags.node_name.as_ref().filter(|name| !name.is_empty()) {
        return Ok(name.clone());
    }
    let name = nix::unistd::gethostname().context("cannot read the host name; give --node-name")?;
    match name.into_string() {
        Ok(name) if !name.is_empty() => Ok(name.to_lowercase()),
        _ => bail!("the host name is of no use as a node's name; give --node-name"),
    }
}

/// Removes a file if it is there.
pub(crate) fn remove_file(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(problem) => Err(problem).with_context(|| format!("cannot remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, object};
    use crate::flags::Flags;
    use clap::Parser as _;

    #[test]
    fn two_agents_do_not_share_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let flags =
            Flags::try_parse_from(["bristle-agent", "--run-dir", dir.path().to_str().unwrap()]).unwrap().run;
        let first = Place::take(&flags).unwrap();
        assert!(first.state.is_dir());
        let other = std::fs::File::create(dir.path().join("agent.lock")).unwrap();
        assert!(other.try_lock().is_err());
        drop(first);
        other.try_lock().unwrap();
    }

    #[test]
    fn a_missing_object_says_how_to_get_one() {
        let flags = Flags::try_parse_from(["bristle-agent", "--bpf-object", "/nonexistent/x.o"]).unwrap().run;
        let text = object(&flags).unwrap_err().to_string();
        assert!(text.contains("/nonexistent/x.o") && text.contains("cargo xtask ebpf"), "{text}");
    }
}
