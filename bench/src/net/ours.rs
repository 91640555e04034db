//! Our own contenders: pods of real labs, one with VXLAN and one with native routing.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use lab::cluster::Node;
use lab::plan::Routing;
use nix::sys::signal::Signal;

use super::contender::Topology;
use super::netns;
use crate::clusters::{Lab, process_of_command};
use crate::traffic::PORT;

/// Two pods of one node.
pub const SAME_NODE: &str = "bristle-same-node";
/// Pods of two nodes that route natively.
pub const NATIVE: &str = "bristle-native";
/// Pods of two nodes with a VXLAN tunnel between them.
pub const VXLAN: &str = "bristle-vxlan";

/// Device that joins two nodes.
const WIRE: &str = "wire";
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
        wire(&lab).await.context("join the nodes by a wire")?;
        let client = pod(&lab, word, "client", 0)?;
        for (name, node) in contenders.iter().filter(|(name, _)| wanted(name)) {
            let server = pod(&lab, word, &format!("server-{node}"), *node)?;
            let topology = Topology {
                client: client.netns(),
                client_cgroup: None,
                server: server.netns(),
                target: SocketAddr::new(server.address, PORT),
                owned: Vec::new(),
            };
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

/// Joins the two nodes by one veth pair and makes the agents use it.
///
/// Nodes of a lab are joined by a bridge in a namespace of its own, which costs two more devices a packet; the nodes of
/// the yardsticks have one veth pair between them, and a machine's network card costs no bridge either. The wire has the
/// nodes' own addresses with the other node as peer, so its route is more specific than that of the bridge.
async fn wire(lab: &Lab) -> anyhow::Result<()> {
    let nodes = lab.cluster.nodes();
    let [first, second] = nodes else { bail!("two nodes are to be joined, not {}", nodes.len()) };
    let [one, two] = [first, second].map(|node| node.machine().pid().to_string());
    let link = ["link", "add", WIRE, "mtu", "1500", "netns", &one, "type", "veth"];
    netns::command("ip", &[&link[..], &["peer", "name", WIRE, "mtu", "1500", "netns", &two]].concat(), None)?;
    for (node, peer) in [(first, second), (second, first)] {
        on_node(node, &["link", "set", WIRE, "up"])?;
        for (own, other) in node.addresses().into_iter().zip(peer.addresses()) {
            let length = if own.is_ipv4() { 32 } else { 128 };
            let (own, other) = (own.to_string(), format!("{other}/{length}"));
            let nodad: &[&str] = if length == 128 { &["nodad"] } else { &[] };
            on_node(node, &[&["addr", "add", &own, "peer", &other, "dev", WIRE][..], nodad].concat())?;
        }
    }
    for node in nodes {
        restart_agent_on(node, WIRE).await?;
    }
    Ok(())
}

/// Makes another device the underlay of a node's agent.
pub async fn restart_agent_on(node: &Node, device: &str) -> anyhow::Result<()> {
    let agent = node.agent();
    let starts = agent.starts();
    agent.reconfigure(|command| command.args.extend(["--device".to_owned(), device.to_owned()]));
    if !agent.kill(Signal::SIGTERM) {
        bail!("the agent of {} does not run", node.name());
    }
    agent.wait_started_after(starts).await;
    // It attaches its programs and moves its routes within a fraction of this.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(())
}

/// Runs `ip` on a node.
pub fn on_node(node: &Node, args: &[&str]) -> anyhow::Result<()> {
    let output = node.run("ip", args).context("run ip on a node")?;
    if !output.status.success() {
        bail!("ip {} on {}: {}", args.join(" "), node.name(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A pod of a lab.
#[derive(Debug, Clone, Copy)]
pub struct Pod {
    /// A process of it.
    pub pid: u32,
    /// Its IPv4 address.
    pub address: IpAddr,
}

impl Pod {
    /// Its network namespace.
    pub fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid))
    }

    /// Its control group of version 2.
    pub fn cgroup(&self) -> anyhow::Result<PathBuf> {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid))
            .context("read the pod's control groups")?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let root = lab::cgroup::root().context("find the control groups")?;
        Ok(root.join(path.context("the pod has no control group of version 2")?))
    }
}

/// A pod that sleeps on the `node`th node of a lab.
///
/// The generator is started straight into the pod's network namespace, as it is for the yardsticks, so that nothing
/// differs but the path. The pod is found by its process, whose command line nobody else has: no other lab of this benchmark
/// has the same word, and no other pod of the lab the same name.
pub fn pod(lab: &Lab, word: &str, name: &str, node: usize) -> anyhow::Result<Pod> {
    // A number, since it is given to `sleep`.
    let digits: String = word.bytes().chain(name.bytes()).map(|byte| byte.to_string()).collect();
    let seconds = format!("{}00000.{}{digits}", 1 + node, std::process::id());
    let command = ["sleep", &seconds];
    lab.create_pod(name, &lab.node(node)?, &command)?;
    let pods = lab.wait_running(name, 1, READY_LIMIT)?;
    let pid = process_of_command(&command, READY_LIMIT)?;
    let address = pods.iter().flat_map(|pod| &pod.addresses).copied().find(IpAddr::is_ipv4);
    let pod = Pod { pid, address: address.with_context(|| format!("pod {name} has no IPv4 address"))? };
    // The yardsticks have all these ports too: with fewer, a connection costs a longer search for a free one.
    let script = "printf '1024 65535' > /proc/sys/net/ipv4/ip_local_port_range";
    let enter = format!("--net={}", pod.netns().display());
    netns::command("nsenter", &[&enter, "sh", "-c", script], None)?;
    Ok(pod)
}
