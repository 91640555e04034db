//! What arrives, arrives where it shall, whole, and on the way that it shall take.

use std::net::IpAddr;
use std::time::Duration;

use sim_net::Frame;

use crate::fabric::Port;
use crate::kubelet::SandboxId;
use crate::node::{LinkView, SimNode};
use crate::queue::NodeId;
use crate::trace::{Origin, Passport};
use crate::view::View;
use crate::world::World;

/// What the tunnel adds to a packet: VXLAN, UDP, outer IP header, inner Ethernet header.
const TUNNEL_OVER_V4: usize = 8 + 8 + 20 + 14;
const TUNNEL_OVER_V6: usize = 8 + 8 + 40 + 14;

const FORGED: &str = "a packet with a source that its sender does not have is delivered";

impl World {
    /// A frame is handed to a pod.
    pub(crate) fn delivered_to_pod(&mut self, n: NodeId, id: SandboxId, ifindex: u32, frame: &Frame) {
        self.stats.delivered += 1;
        let Some(link) = self.nodes[n].links.get(&ifindex) else { return };
        let (to, from) =
            (&frame.bytes[..6.min(frame.bytes.len())], frame.bytes.get(6..12).unwrap_or_default());
        let group = to.first().is_some_and(|first| first & 1 != 0);
        if (!group && to != link.pod_mac) || from != link.mac {
            self.violate_packet(
                "delivery",
                frame.id.0,
                "a packet reaches a pod with wrong link layer addresses",
            );
            return;
        }
        if let Some(wrong) = self.wrong_answer(n, link, frame) {
            self.violate_packet("delivery", frame.id.0, wrong);
            return;
        }
        let Some(view) = View::of(&frame.bytes) else { return };
        let netns = link.netns.clone();
        let pod = self.nodes[n]
            .memory
            .links()
            .values()
            .find_map(|link| link.pod.as_ref().filter(|pod| Some(&pod.netns) == netns.as_ref()));
        let Some(pod) = pod else { return };
        // What comes from the world is as large as the underlay brings it: a pod's link takes what it would not send.
        let is_answer = self.cluster.masquerade && self.is_outside(view.src);
        let mtu = if is_answer { self.nodes[n].mtu } else { pod.mtu };
        let mine = pod.addresses.iter().any(|net| net.addr() == view.dst);
        let passport = self.trace.packet(frame.id.0).cloned();
        if passport.as_ref().is_some_and(|passport| passport.spoiled) {
            return;
        }
        if !mine && !view.is_to_many() && !view.is_of_link() {
            self.violate_packet(
                "delivery",
                frame.id.0,
                "a packet reaches a pod that does not have its destination",
            );
            return;
        }
        if view.len > mtu as usize {
            self.violate_packet("delivery", frame.id.0, "a packet larger than the pod's MTU reaches the pod");
            return;
        }
        // What a wire does to packets from outside nobody notes.
        let may_be_spoiled = passport.is_none() && self.check.wires_were_disturbed;
        if !view.sums_ok && !may_be_spoiled {
            self.violate_packet("integrity", frame.id.0, "a packet with a wrong checksum reaches a pod");
            return;
        }
        let Some(passport) = passport else { return };
        if !passport.honest && !view.is_of_link() {
            self.violate_packet("source", frame.id.0, FORGED);
            return;
        }
        if passport.untold.is_none() {
            self.check_told(n, frame, &view);
        }
        let wire = passport.untold.clone().unwrap_or_else(|| view.clone());
        if wire.is_icmp_error() && !self.check.was_full.contains(&n) && !self.quotes_known(n, &wire) {
            self.violate_packet("icmp", frame.id.0, "an ICMP error about no known connection reaches a pod");
            return;
        }
        self.check_whole(frame, &view, &passport, true);
        self.check_hops(&view, frame);
        self.check_age(n, id, frame, &view, &passport);
        // Policies judge what goes between client and backend.
        self.check_policy(n, id, frame, &wire, &passport);
    }

    /// A packet ends in the stack of a node.
    pub(crate) fn delivered_to_node(&mut self, n: NodeId, frame: &Frame) {
        let Some(view) = View::of(&frame.bytes) else { return };
        let Some(passport) = self.trace.packet(frame.id.0).cloned() else { return };
        if passport.spoiled || view.is_to_many() || view.is_of_link() {
            return;
        }
        let router = self.nodes[n].routers().any(|router| router == view.dst);
        if self.node_at(view.dst) != Some(n) && !router {
            self.violate_packet("delivery", frame.id.0, "a node takes a packet that is not for it");
            return;
        }
        if !passport.honest {
            self.violate_packet("source", frame.id.0, FORGED);
        } else if view.sums_ok {
            self.check_whole(frame, &view, &passport, false);
            // As above.
            let wire = passport.untold.as_ref().unwrap_or(&view);
            self.check_policy_to_node(n, frame, wire, &passport);
        } else {
            self.violate_packet("integrity", frame.id.0, "a packet with a wrong checksum reaches a node");
        }
    }

    /// What only its ends may change has not changed, and every router has counted.
    fn check_whole(&mut self, frame: &Frame, view: &View, passport: &Passport, into_pod: bool) {
        let Some(born) = &passport.view else { return };
        // A program turns neighbour solicitations into their answers.
        if born.is_neighbour_discovery() {
            return;
        }
        if born.body != view.body {
            self.violate_packet("integrity", frame.id.0, "a packet was changed on its way");
            return;
        }
        if view.is_of_link() || view.is_to_many() {
            return;
        }
        // Every node that is not an end is a router. Its own stack does not count for what it sends itself.
        let from_pod = matches!(passport.origin, Origin::Pod(..));
        let nodes = passport.nodes();
        let most = nodes - usize::from(!into_pod);
        let least = if from_pod { most } else { most.saturating_sub(1) };
        let taken = usize::from(born.hops.wrapping_sub(view.hops));
        if !(least..=most).contains(&taken) {
            let message =
                format!("the hop limit fell by {taken} over {nodes} nodes, which makes {most} routers");
            self.violate_packet("hop-limit", frame.id.0, &message);
        }
    }

    /// What has no hop left is sent nowhere.
    pub(crate) fn check_hops(&mut self, view: &View, frame: &Frame) {
        if view.hops == 0 {
            self.violate_packet("hop-limit", frame.id.0, "a packet without a hop left is sent on");
        }
    }

    /// What an answer on the link says that is not so: whatever a pod asks for with ARP its gateway has, and with neighbour discovery
    /// what the gateway or another pod of the node has; nobody but the pod has its own address.
    fn wrong_answer(&self, n: NodeId, link: &LinkView, frame: &Frame) -> Option<&'static str> {
        let bytes = &frame.bytes;
        if bytes.get(12..14) == Some(&[8, 6]) {
            if bytes.get(22..28) != Some(&link.mac) {
                return Some("an ARP answer names another MAC address than the gateway's");
            }
            let named = bytes.get(28..32)?.first_chunk().map(|ip: &[u8; 4]| IpAddr::from(*ip))?;
            return link
                .pod_addresses
                .contains(&named)
                .then_some("an ARP answer says that a pod's address is taken");
        }
        const ADVERTISEMENT: u16 = 136;
        let view = View::of(bytes).filter(View::is_neighbour_discovery)?;
        if view.ports.is_none_or(|(kind, _)| kind != ADVERTISEMENT) {
            return None;
        }
        let named = bytes.get(62..78)?.first_chunk().map(|ip: &[u8; 16]| IpAddr::from(*ip))?;
        if link.pod_addresses.contains(&named) {
            return Some("an advertisement says that a pod's address is taken");
        }
        let of_pods =
            self.check.tenures.get(&named).is_some_and(|of| of.iter().any(|tenure| tenure.node == n));
        let of_node = self.node_at(named) == Some(n) || self.nodes[n].routers().any(|router| router == named);
        let of_link = matches!(named, IpAddr::V6(ip) if ip.is_unicast_link_local());
        (!of_pods && !of_node && !of_link).then_some("an advertisement names an address that nobody has")
    }

    /// Who gets a used address gets nothing of what was sent to the one before.
    fn check_age(&mut self, n: NodeId, id: SandboxId, frame: &Frame, view: &View, passport: &Passport) {
        let Some(tenures) = self.check.tenures.get(&view.dst) else { return };
        let Some(current) = tenures.iter().rev().find(|tenure| tenure.node == n && tenure.sandbox == id)
        else {
            return;
        };
        let before = tenures.iter().any(|tenure| tenure.from <= passport.born && tenure.from < current.from);
        if passport.born < current.from && before {
            let message = "a packet that was sent to an earlier owner of the address reaches the new one";
            self.violate_packet("reused-address", frame.id.0, message);
        }
    }

    /// A packet goes into the tunnel.
    pub(crate) fn check_tunnel(&mut self, n: NodeId, remote: IpAddr, key: u32, frame: &Frame) {
        let Some(view) = View::of(&frame.bytes) else { return };
        if self.trace.packet(frame.id.0).is_none_or(|passport| passport.spoiled) {
            return;
        }
        let there = self.owner(view.dst).map(|(m, ..)| m).or_else(|| self.node_at(view.dst));
        if let Some(m) = there
            && self.node_at(remote) != Some(m)
        {
            let message = format!(
                "a packet goes through the tunnel to {remote}, but its destination is on {}",
                self.nodes[m].name
            );
            self.violate_packet("tunnel", frame.id.0, &message);
            return;
        }
        self.check_hops(&view, frame);
        let overhead = if remote.is_ipv4() { TUNNEL_OVER_V4 } else { TUNNEL_OVER_V6 };
        if view.len + overhead > self.nodes[n].mtu as usize {
            self.violate_packet(
                "mtu",
                frame.id.0,
                "a packet goes through the tunnel that is larger than it takes",
            );
            return;
        }
        let from_pod = self.owner(view.src).is_some_and(|(m, ..)| m == n);
        if from_pod && !self.may_have_identity(view.src, key) {
            let message = format!("the tunnel key of a pod's packet is {key}, not its identity");
            self.violate_packet("tunnel", frame.id.0, &message);
        }
    }

    /// A packet comes out of the tunnel.
    pub(crate) fn check_tunnelled(&mut self, n: NodeId, remote: IpAddr, key: u32, frame: &Frame) {
        if self.node_at(remote).is_none() && !self.check.wires_were_disturbed {
            let message = format!(
                "a packet with key {key} comes out of the tunnel of {} from {remote}",
                self.nodes[n].name
            );
            self.violate_packet("tunnel", frame.id.0, &message);
        }
        // The tunnel's own packets carry what was sent as it is; what a pod has wrapped is something else.
        let passport = self.trace.packet(frame.id.0).filter(|passport| !passport.spoiled && !passport.honest);
        let born = passport.and_then(|passport| passport.view.as_ref()).filter(|born| born.is_for_tunnel());
        if let (Some(born), Some(inner)) = (born, View::of(&frame.bytes))
            && (born.src, born.dst) != (inner.src, inner.dst)
        {
            let message =
                format!("{} unpacks what {} has wrapped for a tunnel", self.nodes[n].name, born.src);
            self.violate_packet("tunnel", frame.id.0, &message);
        }
    }

    /// A frame does not arrive at a port.
    pub(crate) fn check_lost_on_wire(&mut self, from: Port, _: Port, frame: &Frame, why: &'static str) {
        let Port::Node(n) = from else { return };
        if why == "larger than the wire's MTU"
            && self.trace.packet(frame.id.0).is_none_or(|passport| !passport.spoiled)
        {
            let message = format!("{} sends a frame larger than the MTU of its underlay", self.nodes[n].name);
            self.violate_packet("mtu", frame.id.0, &message);
        }
    }

    /// A program sends a packet to a link without a pod behind it.
    pub(crate) fn check_into_nowhere(&mut self, n: NodeId, ifindex: u32, frame: &Frame) {
        let Some(view) = View::of(&frame.bytes) else { return };
        if let Some((m, _, since)) = self.owner(view.dst)
            && m == n
            && self.now > since + Duration::from_millis(1)
        {
            let message = format!("a packet for a running pod goes to link {ifindex}, which is not its own");
            self.violate_packet("delivery", frame.id.0, &message);
        }
    }
}

impl SimNode {
    /// The node's router addresses: of each family the gateway that its pods have, else the first of its first pod CIDR.
    pub(crate) fn routers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        [true, false].into_iter().filter_map(|v4| {
            let pods = self.memory.links().values().filter_map(|link| link.pod.as_ref());
            let mut gateways = pods.flat_map(|pod| pod.routes.iter().filter_map(|route| route.gateway));
            if let Some(gateway) = gateways.find(|gateway| gateway.is_ipv4() == v4) {
                return Some(gateway);
            }
            let cidr = self.pod_cidrs.iter().find(|cidr| cidr.addr().is_ipv4() == v4)?;
            cidr.hosts().find(|address| *address != cidr.network())
        })
    }
}
