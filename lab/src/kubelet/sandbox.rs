//! A pod's network namespace, cgroup and attachment to the network.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_node::link::LinkChange;
use agent_node::netns::delete_named;
use agent_node::{Netlink, Netns};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use serde_json::Value;
use sim_api::object::{name, namespace, uid};

use super::cni::{self, Attachment, CONF_DIR, CniError, NetworkConfig};
use super::cni_fault::{self, CniFault};
use super::context::NodeContext;
use super::environment::pod_dir;
use crate::cgroup;
use crate::ns::NsError;

/// Failure to make or remove a sandbox; trying again makes sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// The network.
    #[error("failed to set up network for sandbox")]
    Cni(#[from] CniError),
    /// The node is gone.
    #[error(transparent)]
    Node(#[from] NsError),
    /// Namespace or cgroup.
    #[error("{step}: {why}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// Why not.
        why: String,
    },
}

/// A pod's place on its node.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    /// Network namespace on the node; `None` for pods in the node's network.
    pub netns: Option<PathBuf>,
    /// The pod's cgroup below /sys/fs/cgroup of the node.
    pub cgroup: PathBuf,
    /// The pod's addresses.
    pub ips: Vec<IpAddr>,
    attachment: Option<(Attachment, Value)>,
}

/// The pod's cgroup on the host.
pub(crate) fn host_cgroup(node: &NodeContext, uid: &str) -> PathBuf {
    node.cgroup.join("pods").join(uid)
}

fn make_cgroup(node: &NodeContext, uid: &str) -> Result<PathBuf, SandboxError> {
    fs::create_dir_all(host_cgroup(node, uid))
        .map_err(|e| SandboxError::Kernel { step: "make cgroup", why: e.to_string() })?;
    Ok(Path::new("/sys/fs/cgroup/pods").join(uid))
}

/// Makes the sandbox of a pod in the node's network.
pub(crate) fn create_host_network(node: &NodeContext, pod: &Value) -> Result<Sandbox, SandboxError> {
    Ok(Sandbox {
        netns: None,
        cgroup: make_cgroup(node, uid(pod))?,
        ips: node.addresses.clone(),
        attachment: None,
    })
}

/// Makes namespace and cgroup and attaches the pod. After a failure nothing is left; `attempt` makes the container id differ from
/// that of earlier attempts, as with real runtimes.
pub(crate) async fn create(
    node: &Arc<NodeContext>,
    pod: &Value,
    attempt: u32,
) -> Result<Sandbox, SandboxError> {
    let _turn = node.sandboxes.acquire().await.expect("the semaphore is never closed");
    let config = NetworkConfig::load(&node.file(CONF_DIR))?;
    let cgroup = make_cgroup(node, uid(pod))?;
    let container_id = container_id(uid(pod), "sandbox", attempt);
    let netns = Path::new("/run/netns").join(format!("cni-{}-{attempt}", uid(pod)));
    make_netns(node, &netns).await?;
    let attachment = Attachment {
        container_id,
        netns: netns.clone(),
        namespace: namespace(pod).to_owned(),
        name: name(pod).to_owned(),
        uid: uid(pod).to_owned(),
    };
    match add(node, &config, &attachment).await {
        Ok((result, took)) => {
            node.record_add(took);
            node.attachments().insert(attachment.container_id.clone(), attachment.clone());
            let ips = cni::addresses(&result);
            Ok(Sandbox { netns: Some(netns), cgroup, ips, attachment: Some((attachment, result)) })
        }
        Err(e) => {
            // As runtimes do after a failed ADD; its own failure says nothing new.
            let _ = config.del(&node.ns, &attachment, None).await;
            let _ = remove_netns(node, &netns).await;
            Err(e.into())
        }
    }
}

/// Attaches a pod, with whatever is to go wrong on the way.
async fn add(
    node: &Arc<NodeContext>,
    config: &NetworkConfig,
    pod: &Attachment,
) -> Result<(Value, Duration), CniError> {
    let faults = node.faults();
    if faults.contains(&CniFault::NetnsGone) {
        // That it is gone is what is wanted; if it is not, the ADD says so by its success.
        let _ = remove_netns(node, &pod.netns).await;
    }
    if faults.contains(&CniFault::DelFirst) {
        config.del(&node.ns, pod, None).await?;
    }
    let first = config.add(&node.ns, pod).await?;
    if faults.contains(&CniFault::RepeatAdd) {
        // The specification forbids it, so a refusal is right; the pod goes on with what the first one gave.
        match config.add(&node.ns, pod).await {
            Ok((second, _)) if cni::addresses(&second) == cni::addresses(&first.0) => {}
            Ok(_) => tracing::warn!(pod = pod.name, "a repeated ADD gave other addresses"),
            Err(e) => {
                tracing::info!(pod = pod.name, "a repeated ADD was refused: {}", crate::error_chain(&e));
            }
        }
    }
    Ok(first)
}

/// Detaches the pod, or puts it off.
async fn del(node: &Arc<NodeContext>, pod: &Attachment, result: &Value) -> Result<(), CniError> {
    let faults = node.faults();
    for fault in &faults {
        if let CniFault::LateDel(after) = fault {
            cni_fault::del_later(node, pod.clone(), *after);
            return Ok(());
        }
    }
    let config = NetworkConfig::load(&node.file(CONF_DIR))?;
    config.del(&node.ns, pod, Some(result)).await?;
    for fault in &faults {
        if let CniFault::RepeatDel(after) = fault {
            cni_fault::del_later(node, pod.clone(), *after);
        }
    }
    Ok(())
}

/// Detaches the pod and removes namespace and cgroup. May be repeated after a failure.
pub(crate) async fn remove(
    node: &Arc<NodeContext>,
    uid: &str,
    sandbox: &Sandbox,
) -> Result<(), SandboxError> {
    let _turn = node.sandboxes.acquire().await.expect("the semaphore is never closed");
    if let Some((attachment, result)) = &sandbox.attachment {
        del(node, attachment, result).await?;
        node.attachments().remove(&attachment.container_id);
    }
    if let Some(netns) = &sandbox.netns {
        remove_netns(node, netns).await?;
    }
    remove_files(node, uid).await;
    Ok(())
}

/// Removes the pod's cgroup and files.
pub(crate) async fn remove_files(node: &NodeContext, uid: &str) {
    // A process that has just been killed may still be in the group; the lab's end removes what remains.
    for _ in 0..50 {
        if cgroup::remove_once(&host_cgroup(node, uid)).is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = fs::remove_dir_all(node.file(pod_dir(uid)));
}

async fn make_netns(node: &NodeContext, path: &Path) -> Result<(), SandboxError> {
    let path = path.to_owned();
    // The namespace is made outside, where /proc knows the thread that makes it, and mounted inside.
    let made = tokio::task::spawn_blocking(|| {
        let netns = Netns::create_anonymous().map_err(|e| crate::error_chain(&e))?;
        let up = Netlink::open_in(&netns).and_then(|mut netlink| {
            let lo = netlink.link("lo")?.index;
            netlink.set_link(lo, &LinkChange::up())
        });
        up.map_err(|e| crate::error_chain(&e)).map(|()| netns)
    });
    let failed = |why: String| SandboxError::Kernel { step: "make network namespace", why };
    let netns = made.await.map_err(|e| failed(e.to_string()))?.map_err(failed)?;
    let mounted = node.ns.run_outside_pids(move || -> io::Result<()> {
        File::create(&path)?;
        let tree = open_tree(
            &netns,
            "",
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH,
        )?;
        Ok(move_mount(&tree, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    });
    mounted.await?.map_err(|e| failed(format!("mount it: {e}")))
}

async fn remove_netns(node: &NodeContext, path: &Path) -> Result<(), SandboxError> {
    let path = path.to_owned();
    let removed = node.ns.run_outside_pids(move || delete_named(&path)).await?;
    removed
        .map_err(|e| SandboxError::Kernel { step: "remove network namespace", why: crate::error_chain(&e) })
}

/// An id as container runtimes make them: 64 hexadecimal digits, the same for the same run of the same container.
pub(crate) fn container_id(uid: &str, name: &str, attempt: u32) -> String {
    use std::fmt::Write as _;
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    (0..4u8).fold(String::new(), |mut id, part| {
        let mut hasher = DefaultHasher::new();
        (uid, name, attempt, part).hash(&mut hasher);
        // Writing to a String cannot fail.
        let _ = write!(id, "{:016x}", hasher.finish());
        id
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_between_runs() {
        let id = container_id("u", "a", 0);
        assert_eq!(id.len(), 64);
        assert_eq!(id, container_id("u", "a", 0));
        assert_ne!(id, container_id("u", "a", 1));
    }
}
