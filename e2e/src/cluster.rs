//! The cluster under test as its API shows it.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::Serialize;

/// Label by which pods are pinned to a node.
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// A node that test pods may be put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its `kubernetes.io/hostname` label.
    pub hostname: String,
    /// Its addresses of type `InternalIP`.
    pub addresses: Vec<IpAddr>,
}

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which they are run.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Whether an address is of this family.
    pub fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    /// The first address of this family.
    pub fn pick(self, addresses: &[IpAddr]) -> Option<IpAddr> {
        addresses.iter().copied().find(|address| self.has(address))
    }

    /// `v4` or `v6`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }
}

/// Connects with a kubeconfig file (its current context), or as `kubectl` would without one.
pub async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let options = KubeConfigOptions::default();
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .with_context(|| format!("use {}", path.display()))?
        }
        None => Config::from_kubeconfig(&options)
            .await
            .context("find a kubeconfig (give one with --kubeconfig)")?,
    };
    // A proxy of the environment is for the world, not for the cluster's API.
    config.proxy_url = None;
    Client::try_from(config).context("make a client of the kubeconfig")
}

/// The nodes that take ordinary pods, by name.
pub async fn usable_nodes(client: &Client) -> anyhow::Result<Vec<NodeFacts>> {
    let nodes =
        Api::<Node>::all(client.clone()).list(&ListParams::default()).await.context("list the nodes")?;
    let mut usable: Vec<NodeFacts> = nodes.items.iter().filter(|node| takes_pods(node)).map(facts).collect();
    usable.sort_by(|a, b| a.name.cmp(&b.name));
    if usable.len() < 2 {
        bail!("the matrix needs two nodes that take pods; {} of {} do", usable.len(), nodes.items.len());
    }
    Ok(usable)
}

fn takes_pods(node: &Node) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let tainted = spec.taints.unwrap_or_default().iter().any(|taint| taint.effect != "PreferNoSchedule");
    let conditions = node.status.clone().unwrap_or_default().conditions.unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && !tainted && !spec.unschedulable.unwrap_or_default()
}

fn facts(node: &Node) -> NodeFacts {
    let name = node.metadata.name.clone().unwrap_or_default();
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let addresses = node.status.clone().unwrap_or_default().addresses.unwrap_or_default();
    NodeFacts {
        hostname: labels.get(HOSTNAME_LABEL).cloned().unwrap_or_else(|| name.clone()),
        addresses: addresses
            .iter()
            .filter(|address| address.type_ == "InternalIP")
            .filter_map(|address| address.address.parse().ok())
            .collect(),
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: serde_json::Value) -> Node {
        serde_json::from_value(json).expect("a node")
    }

    #[test]
    fn tainted_cordoned_and_unready_nodes_take_no_pods() {
        let ready = serde_json::json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let taint = |effect| serde_json::json!({"taints": [{"key": "k", "effect": effect}]});
        for (spec, status, expected) in [
            (serde_json::json!({}), ready.clone(), true),
            (taint("NoSchedule"), ready.clone(), false),
            (taint("PreferNoSchedule"), ready.clone(), true),
            (serde_json::json!({"unschedulable": true}), ready, false),
            (serde_json::json!({}), serde_json::json!({}), false),
        ] {
            let node = node(serde_json::json!({"metadata": {"name": "n"}, "spec": spec, "status": status}));
            assert_eq!(takes_pods(&node), expected, "{node:?}");
        }
    }

    #[test]
    fn internal_addresses_of_both_families_are_kept() {
        let facts = facts(&node(serde_json::json!({
            "metadata": {"name": "node-1", "labels": {"kubernetes.io/hostname": "host-1"}},
            "status": {"addresses": [
                {"type": "Hostname", "address": "node-1"},
                {"type": "InternalIP", "address": "172.30.1.1"},
                {"type": "ExternalIP", "address": "9.9.9.9"},
                {"type": "InternalIP", "address": "fd00:30:1::1"},
            ]},
        })));
        assert_eq!(facts.hostname, "host-1");
        assert_eq!(Family::V4.pick(&facts.addresses), "172.30.1.1".parse().ok());
        assert_eq!(Family::V6.pick(&facts.addresses), "fd00:30:1::1".parse().ok());
    }
}
