//! Services: which backends are right for an address. Each function is a sentence of the documentation.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::attempt::{End, Family, ObjectName, Protocol};
use crate::cluster::Cluster;
use crate::objects::service::{Service, ServicePort};
use crate::objects::slice::Endpoint;

/// What becomes of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Translation {
    /// It is no port of a service for this client: the packet goes on to the address as it is.
    NotAService,
    /// It is a service's, but no endpoint may be used: the connection cannot come about.
    NoEndpoints {
        /// Whether the client is to be told at once (the service has no endpoints, or none on the client's node with internalTrafficPolicy Local, where it
        /// behaves as if it had none). Otherwise traffic came to a node without endpoints with externalTrafficPolicy Local, which drops it.
        reject: bool,
    },
    /// One of these, in the order of their addresses. Which one is free, except that [session affinity](Cluster::session_affinity) keeps a client with its own.
    Backends(Vec<Backend>),
}

/// An endpoint that traffic may go to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its pod, if the EndpointSlice says one.
    pub pod: Option<ObjectName>,
    /// Its node, if the EndpointSlice says one.
    pub node: Option<String>,
}

/// How a service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front<'a> {
    ClusterIp,
    /// An external IP, or an address of the load balancer.
    External,
    /// A node port at an address of this node.
    NodePort(&'a str),
}

/// Which endpoints may be used, by where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope<'a> {
    /// All.
    Cluster,
    /// Those of one node; of none if the node is not known.
    Node(Option<&'a str>),
    /// Those of whichever node received the packet.
    Receiver,
}

/// A port of a service, found by a destination.
struct Hit<'a> {
    key: &'a ObjectName,
    service: &'a Service,
    port: &'a ServicePort,
    front: Front<'a>,
}

impl Cluster {
    /// What becomes of a packet of `client` to a destination: the set of backends that are right.
    ///
    /// With externalTrafficPolicy Local and a client outside, the view does not know which node receives a packet to a load balancer's address; then
    /// every backend is right that some node would choose.
    pub fn translate(&self, client: &End, to: IpAddr, protocol: Protocol, port: u16) -> Translation {
        let Some(hit) = self.hit(client, to, protocol, port) else {
            return Translation::NotAService;
        };
        let endpoints = self.endpoints(&hit, Family::of(to));
        let scope = self.scope(client, &hit);
        let backends: BTreeSet<Backend> = usable_in(scope, &endpoints).into_iter().collect();
        if backends.is_empty() {
            let reject = hit.front == Front::ClusterIp || usable(&endpoints).is_empty();
            return Translation::NoEndpoints { reject };
        }
        Translation::Backends(backends.into_iter().collect())
    }

    /// With sessionAffinity ClientIP, all connections of a client address to a service go to the same backend while it is there; the time is how long
    /// this lasts after the last of them. None without affinity or without a service.
    pub fn session_affinity(
        &self,
        client: &End,
        to: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Option<Duration> {
        self.hit(client, to, protocol, port)?.service.affinity_s.map(Duration::from_secs)
    }

    /// The service's port that a destination stands for. Cluster IPs come before external ones, and these before node ports, which are of the node's own addresses.
    fn hit<'a>(&'a self, client: &End, to: IpAddr, protocol: Protocol, port: u16) -> Option<Hit<'a>> {
        let node =
            self.nodes.iter().find(|(_, node)| node.addresses.contains(&to)).map(|(name, _)| name.as_str());
        let candidates = || {
            self.services
                .iter()
                .flat_map(|(key, service)| service.ports.iter().map(move |port| (key, service, port)))
                .filter(|(_, _, candidate)| candidate.protocol == protocol)
        };
        let find = |front: Front<'a>, is_it: &dyn Fn(&Service, &ServicePort) -> bool| {
            candidates().find(|(_, service, port)| is_it(service, port)).map(|(key, service, port)| Hit {
                key,
                service,
                port,
                front,
            })
        };
        find(Front::ClusterIp, &|service, candidate| {
            is_inside(client) && candidate.port == port && service.cluster_ips.contains(&to)
        })
        .or_else(|| {
            find(Front::External, &|service, candidate| {
                candidate.port == port && service.external_ips.contains(&to) && serves(service, to)
            })
        })
        .or_else(|| {
            find(Front::NodePort(node?), &|service, candidate| {
                candidate.node_port == Some(port) && serves(service, to)
            })
        })
    }

    /// Which endpoints the traffic policies leave.
    fn scope<'a>(&'a self, client: &'a End, hit: &Hit<'a>) -> Scope<'a> {
        match hit.front {
            // internalTrafficPolicy Local: only endpoints on the node from which the traffic comes.
            Front::ClusterIp if hit.service.internal_local => Scope::Node(self.node_of(client)),
            Front::ClusterIp => Scope::Cluster,
            // externalTrafficPolicy Local: each node delivers what it receives to its own endpoints alone.
            Front::NodePort(node) if hit.service.external_local => Scope::Node(Some(node)),
            // Traffic to an external or load balancer address from within the cluster always gets the meaning of Cluster.
            Front::External if hit.service.external_local && !is_inside(client) => Scope::Receiver,
            Front::NodePort(_) | Front::External => Scope::Cluster,
        }
    }

    /// The node that a client is on.
    fn node_of<'a>(&'a self, client: &'a End) -> Option<&'a str> {
        match client {
            End::Node { name } => Some(name),
            End::Pod { namespace, name } => {
                let key = ObjectName { namespace: namespace.clone(), name: name.clone() };
                self.pods.get(&key)?.node.as_deref()
            }
            End::Outside(_) => None,
        }
    }

    /// The endpoints of a service's port: those of all slices of the service, of the family of the destination, at the slices' port with the same name and protocol.
    fn endpoints(&self, hit: &Hit<'_>, family: Family) -> Vec<(&Endpoint, u16)> {
        let mut endpoints = Vec::new();
        for (key, slice) in &self.slices {
            let is_its = key.namespace == hit.key.namespace && slice.service.as_ref() == Some(&hit.key.name);
            if !is_its || slice.family != Some(family) {
                continue;
            }
            for port in &slice.ports {
                if port.name == hit.port.name && port.protocol == hit.port.protocol {
                    endpoints.extend(slice.endpoints.iter().map(|endpoint| (endpoint, port.number)));
                }
            }
        }
        endpoints
    }
}

/// Pods and nodes are inside. A cluster IP is reachable from there alone.
fn is_inside(client: &End) -> bool {
    !matches!(client, End::Outside(_))
}

/// A service is served in its families only, at addresses that are not its own alone, too.
fn serves(service: &Service, to: IpAddr) -> bool {
    service.families.contains(&Family::of(to))
}

/// The endpoints that a scope leaves and that can be used. Where they are comes first: ending endpoints of the right node come before ready ones of another.
fn usable_in(scope: Scope<'_>, endpoints: &[(&Endpoint, u16)]) -> Vec<Backend> {
    match scope {
        Scope::Cluster => usable(endpoints),
        Scope::Node(None) => Vec::new(),
        Scope::Node(Some(node)) => usable(&on_node(node, endpoints)),
        Scope::Receiver => {
            let nodes: BTreeSet<&str> =
                endpoints.iter().filter_map(|(endpoint, _)| endpoint.node.as_deref()).collect();
            nodes.into_iter().flat_map(|node| usable(&on_node(node, endpoints))).collect()
        }
    }
}

fn on_node<'a>(node: &str, endpoints: &[(&'a Endpoint, u16)]) -> Vec<(&'a Endpoint, u16)> {
    endpoints.iter().copied().filter(|(endpoint, _)| endpoint.node.as_deref() == Some(node)).collect()
}

/// Ready endpoints are used. If there are none, those that still serve while they are ending.
fn usable(endpoints: &[(&Endpoint, u16)]) -> Vec<Backend> {
    let choose = |is_chosen: &dyn Fn(&Endpoint) -> bool| -> Vec<Backend> {
        endpoints
            .iter()
            .filter(|(endpoint, _)| is_chosen(endpoint))
            .map(|(endpoint, port)| Backend {
                ip: endpoint.address,
                port: *port,
                pod: endpoint.pod.clone(),
                node: endpoint.node.clone(),
            })
            .collect()
    };
    let ready = choose(&|endpoint| endpoint.ready);
    if ready.is_empty() { choose(&|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
}
