//! One simulated node: what outlives its agent.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use agent_control::DeviceFacts;
use agent_control::memory::{Faults, MemoryNode};
use agent_control::ports::Document;
use dataplane_abi::program::Program;
use dataplane_native::Native;
use ipnet::IpNet;
use sim_scenario::model::Families;

use crate::agents::AgentProcess;
use crate::cni::Call;
use crate::kubelet::Kubelet;
use crate::ports::Commands;

/// The kernel's `HZ`.
pub(crate) const TICKS_PER_S: u32 = 250;
/// Name of the underlay device.
pub(crate) const DEVICE: &str = "eth0";
/// Its index.
pub(crate) const UNDERLAY: u32 = 2;
/// Time that the nodes had been up before the simulation began.
pub(crate) const UPTIME: Duration = Duration::from_secs(4000);

/// A link as the packet path needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkView {
    /// Its name.
    pub(crate) name: String,
    /// Its MAC address.
    pub(crate) mac: [u8; 6],
    /// Programs by number, as bits.
    pub(crate) programs: u8,
    /// Network namespace of the other end, if that is a pod's.
    pub(crate) netns: Option<String>,
    /// MAC address of the pod's end.
    pub(crate) pod_mac: [u8; 6],
    /// Addresses of the pod's end.
    pub(crate) pod_addresses: Vec<IpAddr>,
}

impl LinkView {
    /// Whether a program is attached.
    pub(crate) const fn has(&self, program: Program) -> bool {
        self.programs & (1 << program as u8) != 0
    }
}

/// A node.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct SimNode {
    /// `node-1` and on.
    pub(crate) name: String,
    /// Its addresses on the underlay.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its pod CIDRs.
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// MAC address of the underlay device.
    pub(crate) mac: [u8; 6],
    /// MTU of the underlay device.
    pub(crate) mtu: u32,
    /// Tables and programs.
    pub(crate) native: Native,
    /// Links, routes, documents.
    pub(crate) memory: MemoryNode,
    /// Links by index, following `memory`.
    pub(crate) links: BTreeMap<u32, LinkView>,
    /// The stack.
    pub(crate) stack: sim_net::Node,
    /// Where its agent says whether the node has endpoints of a service, and whether it has.
    pub(crate) health_ports: BTreeMap<u16, bool>,
    /// When the stack is due.
    pub(crate) stack_due: Option<Duration>,
    /// The agent, while it lives.
    pub(crate) agent: AgentProcess,
    /// What its agent may still do.
    pub(crate) commands: Commands,
    /// Pods.
    pub(crate) kubelet: Kubelet,
    /// DELs that came while no agent listened.
    pub(crate) delete_queue: Vec<Call>,
    /// The state directory as it was, with the time at which it became so.
    pub(crate) snapshots: VecDeque<(Duration, Vec<Document>)>,
    /// Its object has been made.
    pub(crate) registered: bool,
    /// What the agent's clock is ahead.
    pub(crate) skew: Duration,
    /// Runs of programs that count.
    pub(crate) runs: u64,
    /// Commands of its agent were made to fail, or tables to be full.
    pub(crate) troubled: bool,
    /// Its state directory was once replaced by an older one.
    pub(crate) restored: bool,
    /// The revision in `CONFIG`.
    pub(crate) revision: u32,
    /// Digest of the rows when it was raised.
    pub(crate) rows_then: u64,
    /// Somebody always listens to what its programs tell.
    pub(crate) listened: bool,
    /// Routes as the stack was given them.
    pub(crate) stack_routes: Vec<sim_net::Route>,
}

impl SimNode {
    /// Node number `index` (from 0) as it is before its agent first starts.
    pub(crate) fn new(index: usize, families: Families, mtu: u32, v4_bits: u8, seed: u64) -> Self {
        let addresses = addresses(index, families);
        let [high, low] = u16::try_from(index + 1).unwrap_or(u16::MAX).to_be_bytes();
        let mac = [0x02, 0xee, 0, 0, high, low];
        let mut memory = MemoryNode::new(DEVICE, Faults::default());
        let native = Native::new();
        native.set_seed(seed);
        if let Some(device) = memory.link_mut(DEVICE) {
            device.mac = mac;
        }
        Self {
            name: format!("node-{}", index + 1),
            addresses,
            pod_cidrs: pod_cidrs(index, families, v4_bits),
            mac,
            mtu,
            native,
            memory,
            links: BTreeMap::new(),
            stack: sim_net::Node::new(seed),
            health_ports: BTreeMap::new(),
            stack_due: None,
            agent: AgentProcess::default(),
            commands: Commands::default(),
            kubelet: Kubelet::default(),
            delete_queue: Vec::new(),
            snapshots: VecDeque::new(),
            registered: false,
            skew: Duration::ZERO,
            runs: 0,
            troubled: false,
            restored: false,
            revision: 0,
            rows_then: 0,
            listened: false,
            stack_routes: Vec::new(),
        }
    }

    /// The underlay device as the agent is told of it.
    pub(crate) fn device(&self) -> DeviceFacts {
        DeviceFacts {
            name: DEVICE.to_owned(),
            ifindex: UNDERLAY,
            mac: self.mac,
            mtu: self.mtu,
            addresses: self.addresses.clone(),
        }
    }

    /// The link with that name.
    pub(crate) fn link(&self, name: &str) -> Option<(u32, &LinkView)> {
        self.links.iter().find(|(_, link)| link.name == name).map(|(ifindex, link)| (*ifindex, link))
    }
}

/// Prefixes of the nodes' own network.
pub(crate) const NODE_NETS: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(172, 30, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0)), 64),
];

fn wanted(families: Families, v4: bool) -> bool {
    match families {
        Families::V4 => v4,
        Families::V6 => !v4,
        Families::Dual => true,
    }
}

fn addresses(index: usize, families: Families) -> Vec<IpAddr> {
    let [high, low] = u16::try_from(index + 1).unwrap_or(u16::MAX).to_be_bytes();
    let number = u16::from_be_bytes([high, low]);
    let v4 = IpAddr::V4(Ipv4Addr::new(172, 30, high, low));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, number));
    [v4, v6].into_iter().filter(|ip| wanted(families, ip.is_ipv4())).collect()
}

fn pod_cidrs(index: usize, families: Families, v4_bits: u8) -> Vec<IpNet> {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let bits = v4_bits.clamp(16, 30);
    let base = u32::from(Ipv4Addr::new(10, 16, 0, 0));
    let v4 = Ipv4Addr::from(base.wrapping_add(index << (32 - u32::from(bits))));
    let v6 = u128::from(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0)) + (u128::from(index) << 16);
    let nets = [IpNet::new(IpAddr::V4(v4), bits), IpNet::new(IpAddr::V6(Ipv6Addr::from(v6)), 112)];
    nets.into_iter().flatten().filter(|net| wanted(families, net.addr().is_ipv4())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_addresses_and_pod_cidrs_of_their_own() {
        let node = SimNode::new(2, Families::Dual, 1500, 28, 0);
        let text = |list: &[String]| list.join(" ");
        assert_eq!(node.name, "node-3");
        assert_eq!(
            text(&node.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()),
            "172.30.0.3 fd00:30::3"
        );
        assert_eq!(
            text(&node.pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>()),
            "10.16.0.32/28 fd00:10::2:0/112"
        );
    }

    #[test]
    fn a_thousand_nodes_do_not_overlap() {
        let all: Vec<IpNet> = (0..1000).flat_map(|n| pod_cidrs(n, Families::Dual, 24)).collect();
        let mut sorted = all.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), all.len());
    }
}
