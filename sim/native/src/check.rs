//! The invariants, looked at after every step.
//!
//! What is right follows from the cluster's objects, from what the runtime asked for and was answered, and from where each
//! packet came from; nothing here asks agent or dataplane what they think is right.

mod agents;
mod between;
mod claims;
pub(crate) mod conntrack;
mod delivery;
mod drops;
mod events;
mod firsts;
mod identities;
mod masquerade;
mod pairs;
mod rest;
mod services;
pub(crate) mod staged;
mod translation;
mod verdicts;
pub(crate) mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use agent_api::cni::CniResult;
use agent_control::ports::PodInterfaceSpec;
use dataplane_abi::program::Program;
use dataplane_core::Verdict;

use crate::cni::Call;
use crate::kubelet::SandboxId;
use crate::node::LinkView;
use crate::queue::NodeId;
use crate::trace::Hop;
use crate::world::World;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one, in a word; `docs/simulation.md` lists them.
    pub invariant: String,
    /// When, in virtual time since the cluster began.
    pub at: Duration,
    /// What is wrong, in a sentence.
    pub message: String,
    /// The packet's way and the rows it met, a line each, if it is about a packet.
    pub details: Vec<String>,
}

/// Who had an address, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tenure {
    node: NodeId,
    sandbox: SandboxId,
    from: Duration,
    /// When its interface was gone.
    until: Option<Duration>,
}

/// What the checker remembers.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// What first packets between two commands have come to.
    known: between::Known,
    tenures: BTreeMap<IpAddr, Vec<Tenure>>,
    /// Links whose pod's end has an address.
    links: BTreeMap<IpAddr, BTreeSet<(NodeId, u32)>>,
    connections: conntrack::Model,
    /// What may be believed of the objects.
    pub(crate) views: views::Views,
    /// What may be believed of services.
    pub(crate) services: services::ServiceViews,
    /// Who speaks with services packet by packet.
    pub(crate) talks: translation::Talks,
    /// Who has which port of a node for whom.
    masquerade: masquerade::Ports,
    /// What staged policies would have decided otherwise, by node.
    pub(crate) staged: BTreeMap<NodeId, staged::Counted>,
    was_full: BTreeSet<NodeId>,
    /// Of each node how many changes of identities have become rows.
    identities: BTreeMap<NodeId, usize>,
    /// Drops of packets of pods by reason's name.
    pub(crate) drops: BTreeMap<&'static str, u64>,
    /// The same of packets that nobody forged: what a scenario expects is about these.
    pub(crate) honest_drops: BTreeMap<&'static str, u64>,
    /// Of these, those of whole packets between two ends.
    pub(crate) unicast_drops: u64,
    /// Wires have had faults.
    pub(crate) wires_were_disturbed: bool,
}

impl Checker {
    /// One that has seen nothing. `oracle`: how the oracle reads policies.
    pub(crate) fn new(oracle: sim_oracle::Options) -> Self {
        Self { views: views::Views::new(oracle), ..Self::default() }
    }

    /// A table that packets write takes no more rows.
    pub(crate) fn table_was_full(&mut self, n: NodeId) {
        self.was_full.insert(n);
    }

    /// A link of a node is new.
    pub(crate) fn note_link(&mut self, n: NodeId, ifindex: u32, link: &LinkView) {
        for address in &link.pod_addresses {
            self.links.entry(*address).or_default().insert((n, ifindex));
        }
    }
}

impl World {
    /// An invariant is broken. Only the first is kept: what follows may follow from it.
    pub(crate) fn violate(&mut self, invariant: &str, message: String) {
        self.violate_with(invariant, message, Vec::new());
    }

    /// The same, with lines that explain.
    pub(crate) fn violate_with(&mut self, invariant: &str, message: String, details: Vec<String>) {
        if self.violation.is_none() {
            let violation = Violation { invariant: invariant.to_owned(), at: self.now, message, details };
            self.violation = Some(violation);
        }
    }

    /// An invariant about a packet is broken.
    pub(crate) fn violate_packet(&mut self, invariant: &str, id: u64, message: &str) {
        if self.violation.is_some() {
            return;
        }
        let (subject, details) = self.explain_packet(id);
        self.violate_with(invariant, format!("{message}: {subject}"), details);
    }

    /// A program has run on a packet.
    pub(crate) fn after_program(
        &mut self,
        n: NodeId,
        program: Program,
        id: sim_net::PacketId,
        verdict: &Verdict,
    ) {
        if let Verdict::Drop(reason) = verdict {
            *self.check.drops.entry(reason.name()).or_default() += 1;
            if self.trace.packet(id.0).is_some_and(|passport| passport.honest) {
                *self.check.honest_drops.entry(reason.name()).or_default() += 1;
            }
        }
        self.hop(id, n, Hop::Program(program, *verdict));
    }

    /// A pod's interface has been made: nobody else may have its addresses.
    pub(crate) fn check_addresses(&mut self, n: NodeId, spec: &PodInterfaceSpec) {
        let mine: BTreeSet<IpAddr> = spec.addresses.iter().map(ipnet::IpNet::addr).collect();
        for address in &mine {
            let other = self.check.links.get(address).into_iter().flatten().find_map(|(m, ifindex)| {
                let node = &self.nodes[*m];
                let link = node.links.get(ifindex).filter(|link| link.name != spec.host_name)?;
                Some(format!("{} of {}", link.name, node.name))
            });
            if let Some(other) = other {
                let message = format!(
                    "{address} is given to {} of {} while {other} has it",
                    spec.host_name, self.nodes[n].name
                );
                self.violate("one-owner", message);
            }
        }
        let Some((sandbox, _)) = self.nodes[n].kubelet.sandbox_at(&spec.netns.path) else { return };
        let now = self.now;
        self.check_quarantine(n, &mine);
        for address in mine {
            self.check.tenures.entry(address).or_default().push(Tenure {
                node: n,
                sandbox,
                from: now,
                until: None,
            });
        }
    }

    /// An address is kept back for a while after its last owner, unless clock or disk of the node were tampered with.
    fn check_quarantine(&mut self, n: NodeId, addresses: &BTreeSet<IpAddr>) {
        let tampered = !self.nodes[n].skew.is_zero() || self.nodes[n].restored;
        let ends = addresses.iter().filter_map(|ip| Some((ip, self.check.tenures.get(ip)?.last()?.until?)));
        let soon = ends
            .map(|(ip, until)| (*ip, self.now.saturating_sub(until)))
            .find(|(_, since)| *since < self.quarantine);
        if let Some((ip, since)) = soon
            && !tampered
        {
            let message = format!(
                "{} gives {ip} out again {} ms after its last owner was gone",
                self.nodes[n].name,
                since.as_millis()
            );
            self.violate("reused-address", message);
        }
    }

    /// Links of a node are gone, and with them their pods' ends.
    pub(crate) fn end_tenures(&mut self, n: NodeId, links: &[(u32, LinkView)]) {
        let now = self.now;
        for (ifindex, link) in links {
            let sandbox = link.netns.as_ref().and_then(|netns| self.nodes[n].kubelet.sandbox_at(netns));
            let sandbox = sandbox.map(|(id, _)| id);
            for address in &link.pod_addresses {
                if let Some(links) = self.check.links.get_mut(address) {
                    links.remove(&(n, *ifindex));
                }
                if let Some(tenure) = self.check.tenures.get_mut(address).and_then(|of| of.last_mut())
                    && (tenure.node, Some(tenure.sandbox)) == (n, sandbox)
                {
                    tenure.until.get_or_insert(now);
                }
            }
        }
    }

    /// ADD was answered: the result must be what is there.
    pub(crate) fn check_added(&mut self, n: NodeId, call: &Call, result: &CniResult) {
        let Some(netns) = call.netns.clone() else { return };
        if self.nodes[n].kubelet.is_gone(&netns) {
            return;
        }
        let node = &self.nodes[n];
        let end =
            node.memory.links().values().find_map(|link| link.pod.as_ref().filter(|pod| pod.netns == netns));
        let made: Vec<IpAddr> =
            end.map(|pod| pod.addresses.iter().map(ipnet::IpNet::addr).collect()).unwrap_or_default();
        let said: Vec<IpAddr> = result.ips.iter().map(|ip| ip.address.addr()).collect();
        if made != said || said.len() != node.routers().count() {
            let message =
                format!("ADD of {} says {said:?}, the interface has {made:?}", call.attachment.container_id);
            self.violate("cni", message);
            return;
        }
        if let Some(stray) = said.iter().find(|ip| !node.pod_cidrs.iter().any(|cidr| cidr.contains(*ip))) {
            let message = format!("{stray} is not in a pod CIDR of {}", node.name);
            self.violate("cni", message);
            return;
        }
        let reserved = said.iter().find(|ip| {
            let of = node.pod_cidrs.iter().filter(|cidr| cidr.contains(*ip));
            of.into_iter().any(|cidr| cidr.network() == **ip || (ip.is_ipv4() && cidr.broadcast() == **ip))
                || node.routers().any(|router| router == **ip)
        });
        if let Some(reserved) = reserved {
            let message = format!("{reserved} of {} is not for pods", node.name);
            self.violate("cni", message);
            return;
        }
        let now = self.now;
        if let Some((id, _)) = self.nodes[n].kubelet.sandbox_at(&netns)
            && let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get_mut(&id)
        {
            sandbox.addresses = said;
            sandbox.result = Some(result.clone());
            sandbox.since = now;
        }
    }

    /// ADD was refused for want of an address: there must be none, as far as the runtime can tell.
    pub(crate) fn check_refused(&mut self, n: NodeId, message: &str) {
        let node = &self.nodes[n];
        let v4 = message.starts_with("no IPv4 address is free");
        if !(v4 || message.starts_with("no IPv6 address is free")) || node.troubled || node.restored {
            return;
        }
        let cidrs = node.pod_cidrs.iter().filter(|cidr| cidr.addr().is_ipv4() == v4);
        // Large ones are never full here.
        let hosts =
            cidrs.flat_map(|cidr| cidr.hosts().filter(|host| *host != cidr.network()).skip(1).take(256));
        let taken = |address: &IpAddr| {
            self.check.tenures.get(address).and_then(|of| of.last()).is_some_and(|tenure| {
                tenure.until.is_none_or(|until| self.now < until + self.quarantine + Duration::from_secs(2))
            })
        };
        let free = hosts.filter(|host| !taken(host)).count();
        // Others may be just being added, or have failed and been let go again.
        let under_way =
            node.kubelet.sandboxes.values().filter(|sandbox| sandbox.addresses.is_empty()).count();
        if free > under_way + 1 {
            let message = format!("{} refuses ADD though {free} addresses are free: {message}", node.name);
            self.violate("cni", message);
        }
    }

    /// The running pod that has an address: its node, sandbox, and since when.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<(NodeId, SandboxId, Duration)> {
        let tenure = self.check.tenures.get(&address)?.last()?;
        let sandbox = self.nodes[tenure.node].kubelet.sandboxes.get(&tenure.sandbox)?;
        let runs = sandbox.host.is_some() && sandbox.addresses.contains(&address);
        runs.then_some((tenure.node, tenure.sandbox, sandbox.since))
    }

    /// The node that has an address.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<NodeId> {
        self.nodes_by_address.get(&address).copied()
    }
}
