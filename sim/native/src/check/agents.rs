//! What an agent owes to what was there before it, and the order in which it goes about.

use std::net::IpAddr;

use agent_api::endpoint::EndpointState;
use agent_control::ports::{Route, Table};
use dataplane_abi::endpoints::EndpointKey;
use dataplane_abi::ipcache::IpCacheKey;
use zerocopy::IntoBytes as _;

use crate::cni::{Call, Wanted};
use crate::queue::NodeId;
use crate::world::World;

/// The document of the own Node object.
const OWN_NODE: &str = "node";

impl World {
    /// A call was answered with an error: not for want of what the agent can know.
    pub(crate) fn check_failed(&mut self, n: NodeId, call: &Call, message: &str) {
        let node = &self.nodes[n];
        if node.troubled || node.restored {
            return;
        }
        let container = &call.attachment.container_id;
        // What was there when it started: who is in its first life may have written it a moment ago.
        let remembers = || {
            node.agent.life > 0 && node.memory.documents().iter().any(|document| document.name == OWN_NODE)
        };
        let wrong = match call.wanted {
            Wanted::Add if message.contains("has not been seen yet") && remembers() => {
                format!("{} refuses ADD of {container} though it remembers its node: {message}", node.name)
            }
            // Whose rows they are does not depend on the API server.
            Wanted::Del if message.contains("are still there") => {
                format!("{} fails DEL of {container} though nothing hinders it: {message}", node.name)
            }
            _ => return,
        };
        self.violate("cni", wrong);
    }

    /// DEL was done: the pod's rows are gone, whatever has failed.
    pub(crate) fn check_deleted(&mut self, n: NodeId, call: &Call) {
        let node = &self.nodes[n];
        let Some(agent) = node.agent.agent.as_ref().filter(|_| !node.restored) else { return };
        let endpoints = agent.endpoints();
        let ready = endpoints.iter().filter(|endpoint| endpoint.state == EndpointState::Ready);
        let needed = ready.map(|endpoint| {
            u64::from(endpoint.ipv4.is_some()).saturating_add(u64::from(endpoint.ipv6.is_some()))
        });
        let needed: u64 = needed.sum();
        let used: u64 = agent.ipam(self.agent_now(n)).iter().map(|pool| pool.used).sum();
        let container = &call.attachment.container_id;
        if used < needed {
            let message = format!(
                "after DEL of {container} {} has {used} addresses in use, its pods have {needed}",
                node.name
            );
            self.violate("one-owner", message);
            return;
        }
        let Some(result) = &call.result else { return };
        // It may be another's by now.
        let others = |address: &IpAddr| {
            let of = |endpoint: &agent_api::endpoint::Endpoint| match address {
                IpAddr::V4(address) => endpoint.ipv4 == Some(*address),
                IpAddr::V6(address) => endpoint.ipv6 == Some(*address),
            };
            endpoints.iter().any(of)
        };
        let rows = |address: &IpAddr| {
            let key = EndpointKey::from_ip(*address);
            node.native.tables().lookup(Table::Endpoints.name(), key.as_bytes()).is_some()
        };
        let mut addresses = result.ips.iter().map(|ip| ip.address.addr());
        if let Some(left) = addresses.find(|address| rows(address) && !others(address)) {
            let message = format!("DEL of {container} succeeds, and the row of {left} remains");
            self.violate("cni", message);
        }
    }

    /// Whose ADD was never answered does not run, unless all but the answer was done: then its document says so.
    pub(crate) fn check_half_made(&mut self, n: NodeId) {
        let node = &self.nodes[n];
        let Some(agent) = node.agent.agent.as_ref().filter(|_| node.agent.life > 0) else { return };
        let unanswered = |container: &str| {
            let mut of = node.kubelet.sandboxes.values();
            of.any(|sandbox| sandbox.attachment.container_id == container && sandbox.result.is_none())
        };
        if node.kubelet.sandboxes.values().all(|sandbox| sandbox.result.is_some()) {
            return;
        }
        let half_made = agent.endpoints().into_iter().find(|endpoint| {
            endpoint.state == EndpointState::Ready && unanswered(&endpoint.container_id) && {
                let name = format!("endpoint-{}", endpoint.id);
                let document = node.memory.documents().into_iter().find(|document| document.name == name);
                let content = document
                    .and_then(|document| serde_json::from_slice::<serde_json::Value>(&document.content).ok());
                content.is_some_and(|content| content["ready"] == false)
            }
        });
        if let Some(endpoint) = half_made {
            let message = format!(
                "{} takes {} for a pod that runs, whose ADD was not finished",
                node.name, endpoint.container_id
            );
            self.violate("restart", message);
        }
    }

    /// `CONFIG` was written: pods have their gateway for as long as they live.
    pub(crate) fn check_routers(&mut self, n: NodeId) {
        let node = &self.nodes[n];
        let Some(config) = node.native.tables().config.get(0).filter(|_| !node.restored) else { return };
        let routers = [IpAddr::from(config.router_v4), IpAddr::from(config.router_v6)];
        let pods = node.memory.links().values().filter_map(|link| link.pod.as_ref());
        let mut gateways = pods.flat_map(|pod| pod.routes.iter().filter_map(|route| route.gateway));
        if let Some(lost) = gateways.find(|gateway| !routers.contains(gateway)) {
            let message = format!("{} is {routers:?} now, pods have the gateway {lost}", node.name);
            self.violate("routes", message);
        }
    }

    /// A route is about to be set: the row that its packets need is there.
    pub(crate) fn check_rows_before(&mut self, n: NodeId, route: &Route) {
        let node = &self.nodes[n];
        let key = IpCacheKey::prefix(route.dst.addr(), route.dst.prefix_len());
        let there = node.native.tables().lookup(Table::Ipcache.name(), key.as_bytes()).is_some();
        if !there && !node.troubled && !node.commands.dead {
            let message = format!("{} sets a route to {} before its row", node.name, route.dst);
            self.violate("routes", message);
        }
    }
}
