//! Our own contenders: pods of real labs, one with VXLAN and one with native routing.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use lab::plan::Routing;

use super::contender::Topology;
use crate::clusters::{Lab, netns_of_command};

/// Two pods of one node.
pub const SAME_NODE: &str = "bristle-same-node";
/// Pods of two nodes that route natively.
pub const NATIVE: &str = "bristle-native";
/// Pods of two nodes with a VXLAN tunnel between them.
pub const VXLAN: &str = "bristle-vxlan";

const READY_LIMIT: Duration = Duration::from_secs(30);

/// Labs that are up; dropping them removes them.
pub struct Labs {
    labs: Vec<Lab>,
    topologies: Vec<(&'static str, Topology)>,
}

/// Brings up the labs that the wanted contenders need.
pub async fn up(bin_dir: Option<&PathBuf>, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<Labs> {
    let mut labs = Labs { labs: Vec::new(), topologies: Vec::new() };
    for (routing, word, contenders) in [
        (Routing::Vxlan, "vxlan", &[(SAME_NODE, 0), (VXLAN, 1)][..]),
        (Routing::Native, "native", &[(NATIVE, 1)]),
    ] {
        if !contenders.iter().any(|(name, _)| wanted(name)) {
            continue;
        }
        let lab =
            Lab::up(word, 2, routing, bin_dir).await.with_context(|| format!("lab with {word} routing"))?;
        let (client, _) = pod(&lab, word, "client", 0)?;
        for (name, node) in contenders.iter().filter(|(name, _)| wanted(name)) {
            let (server, address) = pod(&lab, word, &format!("server-{node}"), *node)?;
            let topology = Topology { client: client.clone(), server, address, owned: Vec::new() };
            labs.topologies.push((name, topology));
        }
        labs.labs.push(lab);
    }
    Ok(labs)
}

impl Labs {
    /// The contenders in them; each can be taken once.
    pub fn topologies(&mut self) -> Vec<(&'static str, Topology)> {
        std::mem::take(&mut self.topologies)
    }
}

/// A pod that sleeps on the `node`th node: its network namespace and its IPv4 address.
///
/// The generator is started straight into the pod's network namespace, as it is for the yardsticks, so that nothing
/// differs but the path. The namespace is found by the pod's process, whose command line nobody else has.
fn pod(lab: &Lab, routing: &str, name: &str, node: usize) -> anyhow::Result<(PathBuf, IpAddr)> {
    let seconds = format!("{}00000.{}{node}{}", 1 + node, std::process::id(), name.len());
    let seconds = if routing == "vxlan" { format!("1{seconds}") } else { format!("2{seconds}") };
    let command = ["sleep", &seconds];
    lab.create_pod(name, &lab.node(node)?, &command)?;
    let pods = lab.wait_running(name, 1, READY_LIMIT)?;
    let address = pods.iter().flat_map(|pod| &pod.addresses).copied().find(IpAddr::is_ipv4);
    Ok((netns_of_command(&command)?, address.with_context(|| format!("pod {name} has no IPv4 address"))?))
}
