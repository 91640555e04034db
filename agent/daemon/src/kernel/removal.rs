//! Links of pods are removed without waiting for packets in flight.
//!
//! A link that is removed is gone from its namespace, with its peer, its addresses and the programs on it, when the
//! kernel lets go of its lock. Whoever asked for it then still waits for the end of every reader that may hold on to the
//! device (`netdev_run_todo`: an `rcu_barrier`, some 20 ms). A thread of its own does that for us, so that the next pod
//! need not wait.

use agent_node::Netlink;
use agent_node::netlink::NetlinkError;
use std::sync::mpsc;
use std::time::Duration;

/// How often it is looked whether the links are gone. Each look waits for the kernel's lock, and so for the removal.
const LOOK: Duration = Duration::from_micros(200);

/// Removes links of the calling thread's namespace, which is that of `netlink`, and returns when they are gone.
/// Links that are gone already count as done.
///
/// # Errors
/// When the kernel refuses; some may be gone then.
pub(super) fn remove(netlink: &mut Netlink, indices: &[u32]) -> Result<(), NetlinkError> {
    if indices.is_empty() {
        return Ok(());
    }
    let (tell, told) = mpsc::channel();
    let theirs = indices.to_vec();
    let spawned = std::thread::Builder::new().name("removal".to_owned()).spawn(move || {
        // The receiver does not wait for the answer once the links are gone.
        drop(tell.send(Netlink::open().and_then(|mut netlink| netlink.delete_links(&theirs))));
    });
    if spawned.is_err() {
        return netlink.delete_links(indices);
    }
    loop {
        match told.recv_timeout(LOOK) {
            Ok(result) => return result,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            // It ended without a word, which a panic alone could make it do.
            Err(mpsc::RecvTimeoutError::Disconnected) => return netlink.delete_links(indices),
        }
        let mut gone = true;
        for index in indices {
            gone &= netlink.link_by_index(*index)?.is_none();
            if !gone {
                break;
            }
        }
        if gone {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::remove;
    use agent_node::link::{LinkSpec, LinkSpecKind, VethPeer};
    use agent_node::{Netlink, Netns};

    #[test]
    fn links_are_gone_when_it_returns_and_missing_ones_are_no_error() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: removing links needs root");
            return;
        }
        let netns = Netns::create_anonymous().unwrap();
        netns
            .run(|| {
                let mut netlink = Netlink::open().unwrap();
                let mut indices = Vec::new();
                for name in ["a", "b", "c", "d"] {
                    let peer = format!("{name}-peer");
                    let kind = LinkSpecKind::Veth(VethPeer::new(&peer));
                    indices.push(netlink.create_link(&LinkSpec::new(name, kind)).unwrap().index);
                }
                remove(&mut netlink, &indices[..1]).unwrap();
                assert_eq!(netlink.links().unwrap().len(), 7, "lo and three pairs");
                remove(&mut netlink, &indices).unwrap();
                assert_eq!(netlink.links().unwrap().len(), 1, "lo");
                remove(&mut netlink, &indices).unwrap();
                remove(&mut netlink, &[]).unwrap();
            })
            .unwrap();
    }
}
