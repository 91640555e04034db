//! What must hold when nothing has anything left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use agent_control::ports::{HOST_LINK, OVERLAY_LINK};
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey};
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};
use dataplane_abi::metrics::{Direction, EVENTS_LOST};
use dataplane_abi::program::Program;
use ipnet::IpNet;
use sim_scenario::model::Routing;
use zerocopy::FromBytes as _;

use super::claims::Claims;
use crate::kubelet::Stage;
use crate::node::{DEVICE, SimNode};
use crate::queue::NodeId;
use crate::view::digest;
use crate::world::World;

impl World {
    /// Everything that must hold now that nothing has anything to do.
    pub(crate) fn check_rest(&mut self) {
        for n in 0..self.nodes.len() {
            self.check_rest_of(n);
        }
        let version = self.policy_version();
        let behind = self.policy_revisions().into_iter().find(|(_, revision)| *revision < version);
        if let Some((node, revision)) = behind.filter(|_| self.has_identities()) {
            let message =
                format!("{node} at rest: policies are in force up to {revision}, the latest is {version}");
            self.violate("policy", message);
        }
        if self.violation.is_none()
            && let Some(what) = self.check_pairs()
        {
            self.violate("policy", format!("at rest: {what}"));
        }
    }

    /// The same of one node.
    pub(crate) fn check_rest_of(&mut self, n: NodeId) {
        let findings = [
            self.check_endpoints(n),
            self.check_ipcache(n),
            self.check_services(n),
            self.check_programs(n),
            self.check_routes(n),
            self.check_ipam(n),
            self.stale_way(n).map(|what| ("conntrack", what)),
            self.check_revision(n),
            self.check_counters(n),
            self.check_staged(n),
        ];
        for (invariant, finding) in findings.into_iter().flatten() {
            let message = format!("{} at rest: {finding}", self.nodes[n].name);
            self.violate(invariant, message);
        }
    }

    /// Pods of a node that shall have rows: address, link's index, MAC addresses.
    fn pods_of(&self, n: NodeId) -> BTreeMap<IpAddr, (u32, [u8; 6], [u8; 6])> {
        let node = &self.nodes[n];
        let mut pods = BTreeMap::new();
        for work in node.kubelet.pods.values().filter(|work| work.stage == Stage::Running) {
            let Some(sandbox) = work.sandbox.and_then(|id| node.kubelet.sandboxes.get(&id)) else { continue };
            let link = node.links.iter().find(|(_, link)| link.netns.as_ref() == Some(&sandbox.netns));
            let Some((ifindex, link)) = link else { continue };
            for address in &sandbox.addresses {
                pods.insert(*address, (*ifindex, link.pod_mac, link.mac));
            }
        }
        pods
    }

    /// `ENDPOINTS` has the node's own addresses and its pods, and nothing else.
    fn check_endpoints(&self, n: NodeId) -> Option<(&'static str, String)> {
        let wrong = |what| Some(("tables", format!("ENDPOINTS {what}")));
        let node = &self.nodes[n];
        let pods = self.pods_of(n);
        let own: BTreeSet<IpAddr> = node.routers().chain(node.addresses.iter().copied()).collect();
        let mut seen = BTreeSet::new();
        for (key, value) in node.native.tables().dump("ENDPOINTS").unwrap_or_default() {
            let address = EndpointKey::read_from_bytes(&key).ok().and_then(|key| key.ip());
            let row = EndpointEntry::read_from_bytes(&value).ok();
            let Some((address, row)) = address.zip(row) else {
                return wrong("has a row that is none".into());
            };
            seen.insert(address);
            if own.contains(&address) {
                if !row.flags.contains(EndpointFlags::HOST) {
                    return wrong(format!("takes the node's own {address} for a pod"));
                }
            } else if let Some((ifindex, mac, node_mac)) = pods.get(&address) {
                if (row.ifindex, row.mac, row.node_mac) != (*ifindex, *mac, *node_mac) || row.id == 0 {
                    return wrong(format!("has the wrong way to {address}: {row:?}"));
                }
                if !self.has_identity(address, row.identity.0) {
                    return wrong(format!("has {address} with identity {}", row.identity.0));
                }
            } else {
                return wrong(format!("has {address}, which is nobody's"));
            }
        }
        let missing = own.iter().chain(pods.keys()).find(|address| !seen.contains(*address))?;
        wrong(format!("lacks {missing}"))
    }

    /// `IPCACHE` leads to every pod and node, and knows no others.
    fn check_ipcache(&self, n: NodeId) -> Option<(&'static str, String)> {
        let wrong = |what| Some(("tables", format!("IPCACHE {what}")));
        let node = &self.nodes[n];
        let mut wanted: BTreeSet<IpNet> = BTreeSet::new();
        let families: Vec<bool> = [true, false].into_iter().filter(|v4| node.has(*v4)).collect();
        for v4 in &families {
            let any = if *v4 { "0.0.0.0/0" } else { "::/0" };
            wanted.extend(any.parse::<IpNet>().ok());
        }
        wanted.extend(node.routers().map(IpNet::from));
        wanted.extend(self.pods_of(n).into_keys().map(IpNet::from));
        let claims = Claims::of(self, n);
        wanted.extend(claims.holders.keys().filter(|net| families.contains(&net.addr().is_ipv4())));
        if self.cluster.routing == Routing::Vxlan {
            let routers = claims.routers().map(IpNet::from);
            wanted.extend(routers.filter(|net| families.contains(&net.addr().is_ipv4())));
        }
        let (mut found, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
        for (key, value) in node.native.tables().dump("IPCACHE").unwrap_or_default() {
            let prefix = IpCacheKey::read_from_bytes(&key).ok().and_then(|key| key.to_prefix());
            let row = IpCacheEntry::read_from_bytes(&value).ok();
            let prefix = prefix.and_then(|(ip, len)| IpNet::new(ip, len).ok());
            let Some((prefix, row)) = prefix.zip(row) else { return wrong("has a row that is none".into()) };
            let is_host = prefix.prefix_len() == prefix.max_prefix_len();
            if is_host && !wanted.contains(&prefix) && self.owner(prefix.addr()).is_some_and(|(m, ..)| m != n)
            {
                // A pod elsewhere, by what its agent tells.
                if !self.has_identity(prefix.addr(), row.identity.0) {
                    return wrong(format!("has {prefix} with identity {}", row.identity.0));
                }
                elsewhere.insert(prefix);
            } else if row.identity.is_local() {
                if !self.check.views.names_prefix(&prefix) {
                    return wrong(format!("tells {prefix} apart, which nobody names"));
                }
            } else {
                found.insert(prefix);
            }
            let behind = claims.behind(self, n, prefix);
            if row.node_ip() != behind {
                return wrong(format!("leads to {prefix} by {:?}, not by {behind:?}", row.node_ip()));
            }
        }
        if let Some(missing) = wanted.difference(&found).next() {
            return wrong(format!("lacks {missing}"));
        }
        let others = self.nodes.iter().enumerate();
        let others = others.filter(|(m, other)| *m != n && !other.restored && self.has_identities());
        let mut pods = others.flat_map(|(m, _)| self.pods_of(m).into_keys().map(IpNet::from));
        if let Some(missing) = pods.find(|net| !elsewhere.contains(net)) {
            return wrong(format!("lacks {missing}, which is a pod elsewhere"));
        }
        found.difference(&wanted).next().and_then(|stale| wrong(format!("has {stale}, which is nobody's")))
    }

    /// Every program is where it belongs.
    fn check_programs(&self, n: NodeId) -> Option<(&'static str, String)> {
        let node = &self.nodes[n];
        let native = self.cluster.routing == Routing::Native;
        for link in node.links.values() {
            let wanted: &[Program] = match link.name.as_str() {
                HOST_LINK => &[Program::FromHost, Program::ToHost],
                OVERLAY_LINK => &[Program::FromOverlay],
                DEVICE
                    if self.cluster.host_firewall
                        || self.cluster.masquerade
                        || self.cluster.kube_proxy_replacement =>
                {
                    &[Program::FromNetdev, Program::ToNetdev]
                }
                DEVICE if native => &[Program::FromNetdev],
                _ if link.netns.is_some() => &[Program::FromContainer, Program::ToContainer],
                _ => &[],
            };
            let bits = wanted.iter().fold(0, |bits, program| bits | 1 << *program as u8);
            if link.programs != bits {
                let what = format!("{} has programs {:#010b}, not {bits:#010b}", link.name, link.programs);
                return Some(("programs", what));
            }
        }
        None
    }

    /// With native routing the node's own routes lead to the other nodes' pods; with the tunnel all pods are behind `bristle_host`.
    fn check_routes(&self, n: NodeId) -> Option<(&'static str, String)> {
        let node = &self.nodes[n];
        let routes = node.memory.routes();
        let claims = Claims::of(self, n);
        let cidrs = claims
            .holders
            .iter()
            .filter(|(net, _)| net.prefix_len() < net.max_prefix_len() && node.has(net.addr().is_ipv4()));
        let mut wanted = BTreeSet::new();
        for (cidr, holder) in cidrs {
            let behind = claims.behind(self, n, *cidr);
            if holder.remote && behind.is_none() {
                continue;
            }
            wanted.insert(*cidr);
            let Some(route) = routes.get(cidr) else {
                return Some(("routes", format!("there is none to {cidr} of {}", holder.name)));
            };
            let direct = holder.remote && self.cluster.routing == Routing::Native;
            let (device, gateway) = if direct { (DEVICE, behind) } else { (HOST_LINK, route.gateway) };
            if route.device != device || route.gateway != gateway {
                return Some(("routes", format!("{cidr} of {} is routed by {route:?}", holder.name)));
            }
        }
        let stale = routes.keys().find(|dst| !wanted.contains(*dst));
        stale.map(|dst| ("routes", format!("there is one to {dst}, which is nobody's")))
    }

    /// The agent has an endpoint for each pod and no address more.
    fn check_ipam(&self, n: NodeId) -> Option<(&'static str, String)> {
        let node = &self.nodes[n];
        let agent = node.agent.agent.as_ref()?;
        let running = node.kubelet.pods.values().filter(|work| work.stage == Stage::Running);
        let sandboxes = running.filter_map(|work| node.kubelet.sandboxes.get(&work.sandbox?));
        let netns: BTreeSet<&str> = sandboxes.map(|sandbox| sandbox.netns.as_str()).collect();
        let of_pods = node
            .links
            .values()
            .filter(|link| link.netns.as_ref().is_some_and(|at| netns.contains(at.as_str())));
        let wanted: BTreeSet<&str> = of_pods.map(|link| link.name.as_str()).collect();
        let endpoints = agent.endpoints();
        let found: BTreeSet<&str> = endpoints.iter().map(|endpoint| endpoint.device.as_str()).collect();
        if let Some(leaked) = found.difference(&wanted).next() {
            return Some(("leak", format!("the agent keeps an endpoint for {leaked}, which is gone")));
        }
        if let Some(lost) = wanted.difference(&found).next() {
            return Some(("leak", format!("the agent knows no endpoint for {lost}, which runs")));
        }
        let used: u64 = agent.ipam(self.agent_now(n)).iter().map(|pool| pool.used).sum();
        let pods = self.pods_of(n).len() as u64;
        (used != pods).then(|| ("leak", format!("{used} addresses are in use, pods have {pods}")))
    }

    /// Rows that have changed are judged by a new revision.
    fn check_revision(&self, n: NodeId) -> Option<(&'static str, String)> {
        let changed = !self.is_bulk() && self.nodes[n].rows_then != self.rows_digest(n);
        changed.then(|| ("tables", "rows have changed since the revision was raised".to_owned()))
    }

    /// Notes what the rows are for which a revision stands.
    pub(crate) fn seal_rows(&mut self, n: NodeId) {
        if !self.is_bulk() {
            self.nodes[n].rows_then = self.rows_digest(n);
        }
    }

    fn rows_digest(&self, n: NodeId) -> u64 {
        let tables = self.nodes[n].native.tables();
        let rows =
            ["ENDPOINTS", "IPCACHE"].into_iter().flat_map(|name| tables.dump(name).unwrap_or_default());
        rows.fold(0, |sum, (key, value)| digest(digest(sum, &key), &value))
    }

    /// Every run of a program counts one packet.
    fn check_counters(&self, n: NodeId) -> Option<(&'static str, String)> {
        let node = &self.nodes[n];
        let counters = node.native.counters();
        let counted: u64 = counters
            .iter()
            .filter(|(reason, ..)| dataplane_abi::metrics::from_index(EVENTS_LOST).0 != *reason)
            // Calls of sockets are no packets.
            .filter(|(_, direction, _)| *direction != Direction::Service)
            .map(|(.., packets)| *packets)
            .sum();
        (counted != node.runs)
            .then(|| ("counters", format!("programs ran {} times and counted {counted} packets", node.runs)))
    }
}

impl SimNode {
    /// Whether pods have addresses of the family.
    fn has(&self, v4: bool) -> bool {
        self.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv4() == v4)
    }
}
