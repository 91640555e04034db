//! What policy says, happens: what it forbids is not delivered, what it allows is not dropped for it.

use std::net::IpAddr;

use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use sim_net::Frame;
use sim_oracle::{Attempt, End, Protocol};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::views::Possible;
use crate::kubelet::SandboxId;
use crate::listen::OPERATOR;
use crate::queue::NodeId;
use crate::trace::{Origin, Passport};
use crate::view::{ICMP, ICMP6, TCP, UDP, View};
use crate::world::World;

/// A pod by `namespace/name`.
pub(crate) fn pod_end(pod: &str) -> End {
    let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
    End::Pod { namespace: namespace.to_owned(), name: name.to_owned() }
}

impl World {
    /// Whether everybody has heard of everything and has acted on it; empty, or what is under way.
    pub(crate) fn under_way(&self) -> &'static str {
        if !self.has_identities() {
            return "";
        }
        if !self.has_heard_all(OPERATOR) {
            return "the operator has not heard all";
        }
        match self.operator.restless() {
            "" => {}
            why => return why,
        }
        for (n, node) in self.nodes.iter().enumerate() {
            let agent = &node.agent;
            if !agent.alive || agent.running || !agent.inbox.is_empty() || !agent.idle {
                return "an agent is at work";
            }
            let knows_nodes = agent.watch.following && agent.watch.position == self.node_log.len();
            if !knows_nodes || !self.has_heard_all(n) {
                return "an agent has not heard all";
            }
            if !self.has_told_all(n) {
                return "an agent has not told all";
            }
        }
        ""
    }

    /// Notes the moment if nothing is under way.
    pub(crate) fn look_for_rest(&mut self) {
        if self.under_way().is_empty() {
            let now = self.now;
            self.check.views.at_rest(now);
        }
    }

    fn end_of(&self, origin: Origin) -> Option<End> {
        Some(match origin {
            Origin::Pod(n, id) => pod_end(&self.nodes[n].kubelet.sandboxes.get(&id)?.pod),
            Origin::Node(n) => End::Node { name: self.nodes[n].name.clone() },
        })
    }

    /// The connection that a packet belongs to, as an attempt. The node whose conntrack is asked comes first.
    /// Without a row it begins with this packet. `None`: it belongs to none that policy judges.
    fn attempt(&self, n: NodeId, view: &View, passport: &Passport, to: End) -> Option<Attempt> {
        if view.later_fragment || view.is_icmp_error() || view.is_of_link() || view.is_to_many() {
            return None;
        }
        let from = self.end_of(passport.origin)?;
        let is_node = matches!(to, End::Node { .. });
        let protocol = match view.proto {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            ICMP | ICMP6 => Protocol::Icmp,
            _ => return None,
        };
        let (Origin::Pod(home, _) | Origin::Node(home)) = passport.origin;
        let forward = match view.echo {
            Some((request, _)) => request,
            None if protocol == Protocol::Icmp => return None,
            None if view.flags & 0x12 == 2 => true,
            // Who began what a full table could not keep is not followed here.
            None if [n, home].iter().any(|n| self.check.was_full.contains(n)) => return None,
            None => self
                .was_begun_by_sender(n, view)
                .or_else(|| self.was_begun_by_sender(home, view))
                // Of a connection that was not seen to begin the node may be the one that did.
                .unwrap_or(!(self.cluster.host_firewall && protocol == Protocol::Tcp && is_node)),
        };
        let (source, destination) = view.ports?;
        let port = match protocol {
            Protocol::Icmp => Some(if view.proto == ICMP { 8 } else { 128 }),
            _ if forward => Some(destination),
            _ => Some(source),
        };
        let (from, to) = if forward { (from, to) } else { (to, from) };
        Some(Attempt { from, to, family: crate::world::family(view.dst), protocol, port })
    }

    /// Whether two nodes take different ends for the one that began the connection of a packet: one of them has forgotten it since
    /// and takes a late reply for a beginning, or just drops it as that. What each of them judges is right for what it knows.
    fn is_disputed(&self, n: NodeId, view: &View, passport: &Passport) -> bool {
        let (Origin::Pod(home, _) | Origin::Node(home)) = passport.origin;
        let [here, there] = [n, home].map(|n| self.was_begun_by_sender(n, view));
        match (here, there) {
            (Some(here), Some(there)) => here != there,
            (None, Some(began)) => !began,
            _ => false,
        }
    }

    /// What may come of the connection of a packet.
    fn possible(&mut self, attempt: &Attempt, view: &View, passport: &Passport) -> Option<Possible> {
        self.look_for_rest();
        let forward = self.end_of(passport.origin).as_ref() == Some(&attempt.from);
        let ends = if forward { [view.src, view.dst] } else { [view.dst, view.src] };
        self.check.views.possible(attempt, ends, passport.born)
    }

    /// Why the objects as they are say what they say, for people.
    fn why(&self, attempt: &Attempt) -> String {
        format!("{attempt}: {}", self.oracle.judge(attempt))
    }

    fn check_allowed(&mut self, n: NodeId, to: End, frame: &Frame, view: &View, passport: &Passport) {
        if !self.policies.any
            || !passport.honest
            || passport.spoiled
            || self.has_lost_pods(view)
            || self.is_disputed(n, view, passport)
        {
            return;
        }
        let Some(attempt) = self.attempt(n, view, passport, to) else { return };
        if self.possible(&attempt, view, passport).is_some_and(|possible| !possible.through()) {
            let message = format!("policy forbids a packet that is delivered ({})", self.why(&attempt));
            self.violate_packet("policy", frame.id.0, &message);
        }
    }

    /// A packet is handed to a pod.
    pub(super) fn check_policy(
        &mut self,
        n: NodeId,
        id: SandboxId,
        frame: &Frame,
        view: &View,
        passport: &Passport,
    ) {
        let to = self.nodes[n].kubelet.sandboxes.get(&id).map(|sandbox| pod_end(&sandbox.pod));
        if let Some(to) = to {
            self.check_allowed(n, to, frame, view, passport);
        }
    }

    /// A packet ends in the stack of a node.
    pub(super) fn check_policy_to_node(
        &mut self,
        n: NodeId,
        frame: &Frame,
        view: &View,
        passport: &Passport,
    ) {
        let to = End::Node { name: self.nodes[n].name.clone() };
        self.check_allowed(n, to, frame, view, passport);
    }

    /// A packet reaches somebody outside.
    pub(crate) fn check_policy_to_outside(&mut self, frame: &Frame) {
        let Some(view) = View::of(&frame.bytes) else { return };
        let Some(passport) = self.trace.packet(frame.id.0).cloned() else { return };
        let (Origin::Pod(n, _) | Origin::Node(n)) = passport.origin;
        let to = End::Outside(view.dst);
        // Policies judge what the pod sent, before it was masqueraded.
        let view = passport.untold.clone().unwrap_or(view);
        self.check_allowed(n, to, frame, &view, &passport);
    }

    /// Whether policy explains that a packet is dropped.
    pub(super) fn is_forbidden(&mut self, n: NodeId, view: &View, passport: &Passport) -> bool {
        if view.is_icmp_error() {
            // What is related to a connection is as good as it.
            return false;
        }
        if view.is_neighbour_discovery() || self.is_of_tunnel(view) {
            return false;
        }
        let (Origin::Pod(home, _) | Origin::Node(home)) = passport.origin;
        if [n, home].iter().any(|n| self.check.was_full.contains(n)) {
            // A reply whose connection could not be kept is judged as if it began one.
            return true;
        }
        if self.has_lost_pods(view) || self.is_disputed(n, view, passport) || self.is_unknown(n, view) {
            return true;
        }
        let Some(to) = self.end_at(view.dst) else { return true };
        let Some(attempt) = self.attempt(n, view, passport, to) else {
            // Ports of fragments are not known here.
            return view.later_fragment || !matches!(view.proto, TCP | UDP);
        };
        self.possible(&attempt, view, passport).is_none_or(Possible::stopped)
    }

    /// Who has an address; `None`: a pod that is gone or is being made.
    pub(super) fn end_at(&self, address: IpAddr) -> Option<End> {
        if let Some((n, id, _)) = self.owner(address) {
            return Some(pod_end(&self.nodes[n].kubelet.sandboxes.get(&id)?.pod));
        }
        if let Some(n) = self.node_at(address) {
            return Some(End::Node { name: self.nodes[n].name.clone() });
        }
        let routed = self.nodes.iter().position(|node| node.routers().any(|router| router == address));
        if let Some(n) = routed {
            return Some(End::Node { name: self.nodes[n].name.clone() });
        }
        let of_pods = self.nodes.iter().any(|node| node.pod_cidrs.iter().any(|cidr| cidr.contains(&address)));
        (!of_pods).then_some(End::Outside(address))
    }

    /// Whether the sender of a packet has an identity that this node may not know.
    fn is_unknown(&self, n: NodeId, view: &View) -> bool {
        let Some((home, ..)) = self.owner(view.src).filter(|(home, ..)| *home != n) else { return false };
        let key = EndpointKey::from_ip(view.src);
        let row = self.nodes[home].native.tables().lookup("ENDPOINTS", key.as_bytes());
        let row = row.and_then(|row| EndpointEntry::read_from_bytes(&row).ok());
        row.is_some_and(|row| self.may_not_know(n, home, row.identity))
    }

    /// Whether an end of a packet is a pod of a node whose agent has found an older state directory: of links that it does not
    /// remember it cannot say whose they are.
    pub(super) fn has_lost_pods(&self, view: &View) -> bool {
        [view.src, view.dst].into_iter().any(|address| self.is_lost(address))
    }

    /// The same of an address.
    pub(super) fn is_lost(&self, address: IpAddr) -> bool {
        self.owner(address).is_some_and(|(n, ..)| self.nodes[n].restored)
    }

    /// Whether the pod with this address has this identity by its labels as they are.
    pub(super) fn has_identity(&self, address: IpAddr, identity: u32) -> bool {
        let known = self.owner(address).filter(|(n, ..)| self.has_identities() && !self.nodes[*n].restored);
        let Some((n, id, _)) = known else { return true };
        let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get(&id) else { return true };
        self.check.views.may_have(&sandbox.pod, identity, true)
    }

    /// Whether a pod with this address may have an identity.
    pub(crate) fn may_have_identity(&self, address: IpAddr, identity: u32) -> bool {
        let known = self.owner(address).filter(|_| self.has_identities());
        let Some((n, id, _)) = known else { return true };
        let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get(&id) else { return true };
        self.check.views.may_have(&sandbox.pod, identity, false)
    }
}
