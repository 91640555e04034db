//! A Docker engine for the tests that run the programs in containers: the machine's own, or Debian bookworm's in the cache.

use std::path::PathBuf;

use super::apt::{self, Suite};
use super::{find_program, is_executable, tools_dir};

/// The programs of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Programs {
    /// The client.
    pub(crate) docker: PathBuf,
    /// The engine.
    pub(crate) dockerd: PathBuf,
}

fn cached(name: &str) -> Option<PathBuf> {
    Some(tools_dir().join("docker/usr").join(name)).filter(|path| is_executable(path))
}

/// The programs of the machine, else those of the cache. Client and engine are of one origin, so that they understand each other.
pub(crate) fn find() -> Option<Programs> {
    let own = find_program("docker").zip(find_program("dockerd"));
    let (docker, dockerd) = own.or_else(|| cached("bin/docker").zip(cached("sbin/dockerd")))?;
    Some(Programs { docker, dockerd })
}

/// Puts Debian's engine into the cache. Installed, it would start with the machine and set up the network to its taste.
pub(super) fn install() -> anyhow::Result<()> {
    eprintln!("==> docker: no engine is here, taking Debian bookworm's (unpacked, not installed)");
    apt::install("the Docker engine", &["libdevmapper1.02.1"])?;
    apt::unpack(Suite::Bookworm, "docker.io", &tools_dir().join("docker"))
}
