//! `bristle-agent cleanup`: the end of a node's life with Bristle. Removes what agents made, whatever state it is in.

use crate::conflist;
use crate::flags::RunFlags;
use crate::kernel::is_pod_link;
use crate::place::{Place, remove_file};
use agent_control::ports::{HOST_LINK, NET_LINK, OVERLAY_LINK, ROUTE_PROTOCOL};
use agent_node::Netlink;
use agent_node::route::RouteFilter;
use anyhow::{Context as _, Result, bail};
use dataplane_loader::{Pins, attach, cgroup};
use std::fs;
use std::path::Path;
use tracing::{info, warn};

/// Removes, or only says what it would remove.
///
/// # Errors
/// When another agent runs, or something could not be removed; it goes on with the rest first.
pub fn run(flags: &RunFlags, yes: bool) -> Result<()> {
    // Nothing may put back what is taken away.
    let place = yes.then(|| Place::take(flags)).transpose()?;
    let mut work = Work { yes, failures: 0, found: 0 };
    // First the configuration, so that the runtime stops asking for pods, last what others may still read.
    if let Some(dir) = flags.cni_conf_dir() {
        work.file(&conflist::path(dir));
    }
    let mut netlink = Netlink::open().context("cannot talk to the kernel's network stack")?;
    routes(&mut work, &mut netlink)?;
    let pins = Pins::new(&flags.bpffs);
    programs(&mut work, &pins);
    socket_programs(&mut work, &pins);
    links(&mut work, &mut netlink)?;
    if pins.dir().is_dir() {
        work.one(&format!("tables in {}", pins.dir().display()), || {
            pins.remove_all()?;
            // Stays while another version has pins beside it.
            drop(pins.dir().parent().map(fs::remove_dir));
            Ok(())
        });
    }
    drop(place);
    for dir in [&flags.state_dir(), &flags.run_dir] {
        if dir.is_dir() && is_ours(dir) {
            work.one(&format!("directory {}", dir.display()), || remove_dir(dir));
        }
    }
    match work {
        Work { failures: 0, found: 0, .. } => info!("there is nothing to remove"),
        Work { yes: false, found, .. } => {
            info!(
                "{found} things found, nothing removed; add --yes to remove them (pods lose their network)"
            );
        }
        Work { failures: 0, found, .. } => info!("{found} things removed"),
        Work { failures, .. } => bail!("{failures} things could not be removed, see above; run it again"),
    }
    Ok(())
}

struct Work {
    yes: bool,
    failures: usize,
    found: usize,
}

impl Work {
    fn one(&mut self, what: &str, remove: impl FnOnce() -> Result<()>) {
        self.found += 1;
        if !self.yes {
            info!("would remove {what}");
            return;
        }
        match remove() {
            Ok(()) => info!("removed {what}"),
            Err(problem) => {
                self.failures += 1;
                warn!("{what}: {problem:#}");
            }
        }
    }

    fn file(&mut self, path: &Path) {
        if path.exists() {
            self.one(&format!("file {}", path.display()), || remove_file(path).map(drop));
        }
    }
}

fn routes(work: &mut Work, netlink: &mut Netlink) -> Result<()> {
    for route in netlink.routes(RouteFilter { protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::default() })? {
        work.one(&format!("route to {}", route.destination), || {
            Ok(netlink.delete_route(&route).map(drop)?)
        });
    }
    Ok(())
}

fn programs(work: &mut Work, pins: &Pins) {
    let Ok(attachments) = attach::list(pins) else { return };
    for attachment in attachments {
        work.one(&format!("program {} on {}", attachment.program, attachment.hook), || {
            Ok(attach::detach(pins, &attachment.hook).map(drop)?)
        });
    }
}

fn socket_programs(work: &mut Work, pins: &Pins) {
    for attachment in cgroup::list(pins).into_iter().rev() {
        let program = attachment.program;
        work.one(&format!("program {} on a cgroup", program.name()), || {
            Ok(cgroup::detach(pins, program).map(drop)?)
        });
    }
}

fn links(work: &mut Work, netlink: &mut Netlink) -> Result<()> {
    for link in netlink.links()? {
        // The other end of the pair goes with the first.
        if matches!(link.name.as_str(), HOST_LINK | OVERLAY_LINK) || is_pod_link(&link) {
            work.one(&format!("link {}", link.name), || Ok(netlink.delete_link(link.index).map(drop)?));
        }
    }
    if let Some(link) = netlink.find_link(NET_LINK)? {
        work.one(&format!("link {NET_LINK}"), || Ok(netlink.delete_link(link.index).map(drop)?));
    }
    Ok(())
}

/// With what is in it; a directory that something is mounted on stays, empty.
fn remove_dir(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { remove_dir(&entry.path())? } else { fs::remove_file(entry.path())? }
    }
    match fs::remove_dir(dir) {
        Err(problem) if problem.kind() != std::io::ErrorKind::ResourceBusy => Err(problem.into()),
        _ => Ok(()),
    }
}

/// A directory that somebody pointed `--run-dir` or `--state-dir` at may hold other things: it goes only with nothing but ours in it.
fn is_ours(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().all(|entry| {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { return false };
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        matches!(name, "agent.lock" | "bristle.sock" | "cni.sock" | "state" | "delete-queue")
            || matches!(extension, Some("json" | "tmp"))
    })
}

#[cfg(test)]
mod tests {
    use super::{is_ours, remove_dir};
    use std::fs;

    #[test]
    fn a_directory_with_other_things_in_it_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        fs::create_dir_all(run.join("state")).unwrap();
        fs::write(run.join("state/endpoint-1.json"), "{}").unwrap();
        fs::write(run.join("cni.sock"), "").unwrap();
        assert!(is_ours(&run));
        fs::write(run.join("docker.sock"), "").unwrap();
        assert!(!is_ours(&run));
        fs::remove_file(run.join("docker.sock")).unwrap();
        remove_dir(&run).unwrap();
        assert!(!run.exists());
    }
}
