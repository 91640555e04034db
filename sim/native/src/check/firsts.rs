//! First packets of connections, through the real programs on copies of the tables, so that nothing of it stays behind.

use std::net::IpAddr;

use agent_control::ports::{HOST_LINK, OVERLAY_LINK};
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::program::Program;
use dataplane_abi::{Addr, DropReason};
use dataplane_core::Verdict;
use dataplane_native::craft::Craft;
use dataplane_native::{Frame, Native, Tunnel};
use sim_oracle::{Attempt, Protocol};
use sim_scenario::model::Routing;
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::node::{LinkView, UNDERLAY};
use crate::queue::NodeId;
use crate::world::World;

/// The port of who opens.
const OWN_PORT: u16 = 33_333;

/// Where a first packet came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// It is not for policy to say: it has left the cluster, or reached its end.
    Through,
    /// Policy dropped it, on that node.
    Stopped(NodeId),
    /// Something else dropped it.
    Lost(NodeId, DropReason),
}

/// Who sends: a node and an address of its or of a pod of its; no node: somebody outside.
pub(super) type Source = (Option<NodeId>, IpAddr);

/// What is tried: from where, to which address, and how the objects name it.
pub(super) type Tried = (Source, IpAddr, Attempt);

impl World {
    /// Sends a first packet; `None` if its sender has no interface.
    pub(super) fn send_first(
        &self,
        copies: &[Native],
        from: Source,
        to: IpAddr,
        attempt: &Attempt,
    ) -> Option<Came> {
        let bytes = self.first(from, to, attempt);
        match from.0 {
            Some(n) => self.leave(copies, n, from.1, to, bytes),
            None => {
                let m = self.node_of(to)?;
                Some(came(m, self.enters(&copies[m], m, from.1, to, bytes)?))
            }
        }
    }

    /// Sends the answer to a first packet; `None` if nobody answers here.
    pub(super) fn send_answer(
        &self,
        copies: &[Native],
        ((home, source), to, attempt): &Tried,
    ) -> Option<Came> {
        let n = self.node_of(*to)?;
        let craft = Craft::new(*to, *source);
        let craft = match self.link_of(n, *to) {
            Some((_, link)) => craft.macs(link.pod_mac, link.mac),
            None => craft.macs([2; 6], [2; 6]),
        };
        let port = attempt.port.unwrap_or_default();
        let bytes = match attempt.protocol {
            Protocol::Udp => craft.udp(port, OWN_PORT, b"answer"),
            Protocol::Icmp => craft.echo(false, 7, 1, b"first"),
            _ => craft.tcp(port, OWN_PORT, 0x12, &[]),
        };
        if home.is_none() && self.node_at(*to) == Some(n) {
            return Some(came(n, run(&copies[n], Program::ToNetdev, UNDERLAY, bytes)));
        }
        self.leave(copies, n, *to, *source, bytes)
    }

    /// What a node says of a packet from elsewhere to a pod of its, or to itself.
    pub(super) fn enters(
        &self,
        native: &Native,
        n: NodeId,
        source: IpAddr,
        to: IpAddr,
        mut bytes: Vec<u8>,
    ) -> Option<Verdict> {
        let pod = self.link_of(n, to);
        let sender = self.owner(source).map(|(m, ..)| m).filter(|_| pod.is_some());
        if self.cluster.routing == Routing::Vxlan {
            if let Some(m) = sender {
                let key = EndpointKey::from_ip(source);
                let row = self.nodes[m].native.tables().lookup("ENDPOINTS", key.as_bytes())?;
                let identity = EndpointEntry::read_from_bytes(&row).ok()?.identity;
                if self.may_not_know(n, m, identity) {
                    return None;
                }
                return self.out_of_tunnel(native, n, m, identity.0, bytes);
            }
            if let Some((ifindex, _)) = pod {
                // The node's stack has taken it in and forwards it.
                return Some(run(native, Program::ToContainer, ifindex, bytes));
            }
        }
        bytes.get_mut(..6)?.copy_from_slice(&self.nodes[n].mac);
        Some(run(native, Program::FromNetdev, UNDERLAY, bytes))
    }

    /// The first packet of a connection.
    pub(super) fn first(&self, (n, source): Source, to: IpAddr, attempt: &Attempt) -> Vec<u8> {
        let link = n.and_then(|n| self.link_of(n, source));
        let macs = link.map_or(([2; 6], [2; 6]), |(_, link)| (link.pod_mac, link.mac));
        let craft = Craft::new(source, to).macs(macs.0, macs.1);
        let port = attempt.port.unwrap_or_default();
        match attempt.protocol {
            Protocol::Udp => craft.udp(OWN_PORT, port, b"first"),
            Protocol::Icmp => craft.echo(true, 7, 1, b"first"),
            _ => craft.tcp(OWN_PORT, port, 2, &[]),
        }
    }

    /// The link of the pod of a node that has an address.
    pub(super) fn link_of(&self, n: NodeId, address: IpAddr) -> Option<(u32, &LinkView)> {
        let mut links = self.nodes[n].links.iter();
        links.find(|(_, link)| link.pod_addresses.contains(&address)).map(|(ifindex, link)| (*ifindex, link))
    }

    /// The node that has an address, or a pod with it.
    pub(crate) fn node_of(&self, address: IpAddr) -> Option<NodeId> {
        self.owner(address).map(|(n, ..)| n).or_else(|| self.node_at(address))
    }

    /// A packet of a node, or of a pod of its.
    fn leave(
        &self,
        copies: &[Native],
        n: NodeId,
        source: IpAddr,
        to: IpAddr,
        bytes: Vec<u8>,
    ) -> Option<Came> {
        if self.node_at(source) == Some(n) {
            return self.sent_by_node(copies, n, to, bytes);
        }
        self.sent_by_pod(copies, n, self.link_of(n, source)?.0, to, bytes)
    }

    fn sent_by_pod(
        &self,
        copies: &[Native],
        n: NodeId,
        ifindex: u32,
        to: IpAddr,
        bytes: Vec<u8>,
    ) -> Option<Came> {
        let mut frame = Frame::new(bytes, ifindex);
        frame.accepted = true;
        let verdict = copies[n].run(Program::FromContainer, &mut frame);
        let by_netdev = |m: NodeId, mut bytes: Vec<u8>| {
            bytes.get_mut(..6)?.copy_from_slice(&self.nodes[m].mac);
            Some(came(m, run(&copies[m], Program::FromNetdev, UNDERLAY, bytes)))
        };
        match verdict {
            Verdict::Tunnel { .. } => {
                let tunnel = frame.to_tunnel?;
                let remote = Addr(tunnel.node).to_ip(dataplane_abi::Family::from_number(tunnel.family)?);
                let m = self.node_at(remote)?;
                Some(came(m, self.out_of_tunnel(&copies[m], m, n, tunnel.key, frame.bytes)?))
            }
            // Where nodes are not judged theirs are not looked at.
            Verdict::Neighbour { .. } | Verdict::Pass | Verdict::Skip => {
                let node = self.node_at(to).filter(|m| self.cluster.host_firewall && *m != n);
                let by_neighbour = matches!(verdict, Verdict::Neighbour { .. });
                let pod = self.owner(to).map(|(m, ..)| m).filter(|_| by_neighbour);
                node.or(pod).map_or_else(|| Some(came(n, verdict)), |m| by_netdev(m, frame.bytes))
            }
            verdict => Some(came(n, verdict)),
        }
    }

    /// A packet of a node's own: to its pods, to those elsewhere as packets of pods go there, to all others by the underlay.
    fn sent_by_node(&self, copies: &[Native], n: NodeId, to: IpAddr, bytes: Vec<u8>) -> Option<Came> {
        let node = &self.nodes[n];
        let pod = self.owner(to).map(|(m, ..)| m);
        if pod == Some(n) {
            let (ifindex, _) = self.link_of(n, to)?;
            return Some(came(n, run(&copies[n], Program::ToContainer, ifindex, bytes)));
        }
        if pod.is_some() && self.cluster.routing == Routing::Vxlan {
            let mut frame = Frame::new(bytes, node.link(HOST_LINK)?.0);
            return match copies[n].run(Program::FromHost, &mut frame) {
                Verdict::Tunnel { .. } => {
                    let tunnel = frame.to_tunnel?;
                    let remote = Addr(tunnel.node).to_ip(dataplane_abi::Family::from_number(tunnel.family)?);
                    let m = self.node_at(remote)?;
                    Some(came(m, self.out_of_tunnel(&copies[m], m, n, tunnel.key, frame.bytes)?))
                }
                verdict => Some(came(n, verdict)),
            };
        }
        let left = came(n, run(&copies[n], Program::ToNetdev, UNDERLAY, bytes.clone()));
        match pod.or_else(|| self.node_at(to)) {
            Some(m) if left == Came::Through => {
                Some(came(m, run(&copies[m], Program::FromNetdev, UNDERLAY, bytes)))
            }
            _ => Some(left),
        }
    }

    /// What the node `n` says of a packet that comes out of the tunnel from the node `m`.
    fn out_of_tunnel(
        &self,
        native: &Native,
        n: NodeId,
        m: NodeId,
        key: u32,
        bytes: Vec<u8>,
    ) -> Option<Verdict> {
        let v4 = self.nodes[n].addresses.first()?.is_ipv4();
        let outer = self.nodes[m].addresses.iter().find(|ip| ip.is_ipv4() == v4)?;
        let (remote, family) = Addr::from_ip(*outer);
        let (overlay, _) = self.nodes[n].link(OVERLAY_LINK)?;
        let mut frame = Frame::new(bytes, overlay);
        frame.accepted = true;
        frame.from_tunnel = Some(Tunnel { node: remote.0, family: family as u8, key });
        Some(native.run(Program::FromOverlay, &mut frame))
    }
}

pub(super) fn run(native: &Native, program: Program, ifindex: u32, bytes: Vec<u8>) -> Verdict {
    let mut frame = Frame::new(bytes, ifindex);
    frame.accepted = true;
    native.run(program, &mut frame)
}

pub(super) fn came(n: NodeId, verdict: Verdict) -> Came {
    match verdict {
        Verdict::Drop(DropReason::PolicyDenied | DropReason::PolicyDenyRule) => Came::Stopped(n),
        Verdict::Drop(reason) => Came::Lost(n, reason),
        _ => Came::Through,
    }
}

/// The same tables without connections and counters.
pub(super) fn copy(native: &Native) -> Native {
    let copy = Native::with_tables(native.tables().copy_of_config());
    copy.set_clock(native.clock());
    copy
}
