//! Links, routes, programs and the state directory in memory.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::Faults;
use crate::config::Routing;
use crate::ports::{
    BaseFacts, BaseSpec, Document, HOST_LINK, LinkFacts, NET_LINK, NodeOps, OVERLAY_LINK, POD_LINK_PREFIX,
    PodInterfaceFacts, PodInterfaceSpec, PodLink, PodRoute, PortError, PortErrorKind, Program, Route,
};

/// A link in the node's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLink {
    /// Index.
    pub ifindex: u32,
    /// MAC address.
    pub mac: [u8; 6],
    /// Programs attached to it.
    pub programs: BTreeSet<Program>,
    /// The other end, if that is in a pod.
    pub pod: Option<PodEnd>,
}

/// A pod's end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEnd {
    /// Path of the namespace it is in.
    pub netns: String,
    /// Name there.
    pub name: String,
    /// MAC address.
    pub mac: [u8; 6],
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses.
    pub addresses: Vec<IpNet>,
    /// Routes.
    pub routes: Vec<PodRoute>,
}

/// One node without its maps. It outlives its agents.
#[derive(Debug, Clone)]
pub struct MemoryNode {
    links: BTreeMap<String, MemoryLink>,
    routes: BTreeMap<IpNet, Route>,
    documents: BTreeMap<String, Vec<u8>>,
    base: Option<BaseSpec>,
    last_ifindex: u32,
    gone: BTreeSet<String>,
    sockets: bool,
    faults: Faults,
}

impl MemoryNode {
    /// A node whose only link is the underlay device `device` with index 2.
    pub fn new(device: &str, faults: Faults) -> Self {
        let underlay =
            MemoryLink { ifindex: 2, mac: [2, 0, 0, 0, 0, 2], programs: BTreeSet::new(), pod: None };
        Self {
            links: BTreeMap::from([(device.to_owned(), underlay)]),
            routes: BTreeMap::new(),
            documents: BTreeMap::new(),
            base: None,
            last_ifindex: 9,
            gone: BTreeSet::new(),
            sockets: false,
            faults,
        }
    }

    /// Links by name.
    pub fn links(&self) -> &BTreeMap<String, MemoryLink> {
        &self.links
    }

    /// Whether the programs on calls of sockets are in place.
    pub fn sockets(&self) -> bool {
        self.sockets
    }

    /// Our routes by destination.
    pub fn routes(&self) -> &BTreeMap<IpNet, Route> {
        &self.routes
    }

    /// The documents in the state directory, as an agent is started with.
    pub fn documents(&self) -> Vec<Document> {
        self.documents
            .iter()
            .map(|(name, content)| Document { name: name.clone(), content: content.clone() })
            .collect()
    }

    /// Puts a document into the state directory, or removes it.
    pub fn set_document(&mut self, name: &str, content: Option<Vec<u8>>) {
        match content {
            Some(content) => self.documents.insert(name.to_owned(), content),
            None => self.documents.remove(name),
        };
    }

    /// The last base settings.
    pub fn base(&self) -> Option<&BaseSpec> {
        self.base.as_ref()
    }

    /// Destroys a pod's namespace and with it the links into it, as the runtime does.
    pub fn destroy_netns(&mut self, path: &str) {
        self.gone.insert(path.to_owned());
        self.links.retain(|_, link| link.pod.as_ref().is_none_or(|pod| pod.netns != path));
    }

    /// Adds a device by hand, as the underlay device is one.
    pub fn add_device(&mut self, name: &str, ifindex: u32, mac: [u8; 6]) {
        let link = MemoryLink { ifindex, mac, programs: BTreeSet::new(), pod: None };
        self.links.insert(name.to_owned(), link);
    }

    /// Changes or removes a link by hand.
    pub fn link_mut(&mut self, name: &str) -> Option<&mut MemoryLink> {
        self.links.get_mut(name)
    }

    /// Removes a link by hand.
    pub fn remove_link(&mut self, name: &str) {
        self.links.remove(name);
    }

    /// Adds a route by hand.
    pub fn add_route(&mut self, route: Route) {
        self.routes.insert(route.dst, route);
    }

    /// Removes a route by hand.
    pub fn remove_route(&mut self, dst: &IpNet) {
        self.routes.remove(dst);
    }

    fn next_ifindex(&mut self) -> u32 {
        self.last_ifindex += 1;
        self.last_ifindex
    }

    fn ensure_link(&mut self, name: &str) -> LinkFacts {
        if !self.links.contains_key(name) {
            let ifindex = self.next_ifindex();
            // Low byte of the index: enough to tell links of one node apart.
            let mac = [2, 0xb1, 0, 0, 0, ifindex.to_le_bytes()[0]];
            self.links
                .insert(name.to_owned(), MemoryLink { ifindex, mac, programs: BTreeSet::new(), pod: None });
        }
        let link = &self.links[name];
        LinkFacts { ifindex: link.ifindex, mac: link.mac }
    }
}

fn not_found(operation: &str, what: &str) -> PortError {
    PortError::terminal(operation, format!("{what} does not exist")).with_kind(PortErrorKind::NotFound)
}

impl NodeOps for MemoryNode {
    fn ensure_base(&mut self, spec: &BaseSpec) -> Result<BaseFacts, PortError> {
        let faults = self.faults.clone();
        faults.call("ensure the base links".to_owned(), |operation| {
            if !self.links.contains_key(&spec.device) {
                return Err(not_found(operation, &spec.device));
            }
            let (host, net) = (self.ensure_link(HOST_LINK), self.ensure_link(NET_LINK));
            let overlay = match spec.routing {
                Routing::Vxlan => Some(self.ensure_link(OVERLAY_LINK)),
                Routing::Native => {
                    self.links.remove(OVERLAY_LINK);
                    None
                }
            };
            self.base = Some(spec.clone());
            Ok(BaseFacts { host, net, overlay })
        })
    }

    fn attach(&mut self, link: &str, ifindex: u32, program: Program) -> Result<(), PortError> {
        let links = &mut self.links;
        self.faults.call(format!("attach {} to {link}", program.name()), |operation| {
            let found = links.get_mut(link).filter(|found| found.ifindex == ifindex);
            found.ok_or_else(|| not_found(operation, link))?.programs.insert(program);
            Ok(())
        })
    }

    fn detach(&mut self, link: &str, ifindex: u32, program: Program) -> Result<(), PortError> {
        let links = &mut self.links;
        self.faults.call(format!("detach {} from {link}", program.name()), |_| {
            if let Some(found) = links.get_mut(link).filter(|found| found.ifindex == ifindex) {
                found.programs.remove(&program);
            }
            Ok(())
        })
    }

    fn set_sockets(&mut self, on: bool) -> Result<(), PortError> {
        let sockets = &mut self.sockets;
        let operation = if on { "attach to sockets" } else { "detach from sockets" };
        self.faults.call(operation.to_owned(), |_| {
            *sockets = on;
            Ok(())
        })
    }

    fn list_programs(&mut self) -> Result<Vec<(String, u32, Program)>, PortError> {
        let links = &self.links;
        self.faults.call("list programs".to_owned(), |_| {
            let of_link = |(name, link): (&String, &MemoryLink)| {
                let (name, ifindex) = (name.clone(), link.ifindex);
                link.programs.iter().map(move |program| (name.clone(), ifindex, *program)).collect::<Vec<_>>()
            };
            Ok(links.iter().flat_map(of_link).collect())
        })
    }

    fn list_routes(&mut self) -> Result<Vec<Route>, PortError> {
        self.faults.call("list routes".to_owned(), |_| Ok(self.routes.values().cloned().collect()))
    }

    fn replace_route(&mut self, route: &Route) -> Result<(), PortError> {
        let (links, routes) = (&self.links, &mut self.routes);
        self.faults.call(format!("replace route {}", route.dst), |operation| {
            if !links.contains_key(&route.device) {
                return Err(not_found(operation, &route.device));
            }
            routes.insert(route.dst, route.clone());
            Ok(())
        })
    }

    fn delete_route(&mut self, route: &Route) -> Result<(), PortError> {
        let routes = &mut self.routes;
        self.faults.call(format!("delete route {}", route.dst), |_| {
            routes.remove(&route.dst);
            Ok(())
        })
    }

    fn create_pod_interface(&mut self, spec: &PodInterfaceSpec) -> Result<PodInterfaceFacts, PortError> {
        let faults = self.faults.clone();
        faults.call(format!("create interface {}", spec.host_name), |operation| {
            if self.gone.contains(&spec.netns.path) {
                let message = format!("there is no network namespace {}", spec.netns.path);
                return Err(PortError::terminal(operation, message).with_kind(PortErrorKind::NetnsGone));
            }
            self.links.remove(&spec.host_name);
            let taken = |link: &MemoryLink| {
                link.pod.as_ref().is_some_and(|pod| pod.netns == spec.netns.path && pod.name == spec.pod_name)
            };
            if self.links.values().any(taken) {
                let message = format!("{} exists in {}", spec.pod_name, spec.netns.path);
                return Err(PortError::terminal(operation, message).with_kind(PortErrorKind::InterfaceExists));
            }
            let ifindex = self.next_ifindex();
            let pod = PodEnd {
                netns: spec.netns.path.clone(),
                name: spec.pod_name.clone(),
                mac: spec.pod_mac,
                mtu: spec.mtu,
                addresses: spec.addresses.clone(),
                routes: spec.routes.clone(),
            };
            let link = MemoryLink { ifindex, mac: spec.host_mac, programs: BTreeSet::new(), pod: Some(pod) };
            self.links.insert(spec.host_name.clone(), link);
            Ok(PodInterfaceFacts { host_ifindex: ifindex, host_mac: spec.host_mac, pod_mac: spec.pod_mac })
        })
    }

    fn check_pod_interface(&mut self, spec: &PodInterfaceSpec) -> Result<Vec<String>, PortError> {
        let links = &self.links;
        self.faults.call(format!("check interface {}", spec.host_name), |_| {
            let Some(pod) = links.get(&spec.host_name).and_then(|link| link.pod.as_ref()) else {
                return Ok(vec![format!("the link {} does not exist", spec.host_name)]);
            };
            let mut problems = Vec::new();
            if pod.netns != spec.netns.path || pod.name != spec.pod_name {
                problems.push(format!("there is no {} in {}", spec.pod_name, spec.netns.path));
            }
            for address in spec.addresses.iter().filter(|address| !pod.addresses.contains(address)) {
                problems.push(format!("{} has lost its address {address}", spec.pod_name));
            }
            for route in spec.routes.iter().filter(|route| !pod.routes.contains(route)) {
                problems.push(format!("the pod has lost its route to {}", route.dst));
            }
            Ok(problems)
        })
    }

    fn delete_pod_interface(&mut self, host_name: &str) -> Result<(), PortError> {
        let links = &mut self.links;
        self.faults.call(format!("delete interface {host_name}"), |_| {
            links.remove(host_name);
            Ok(())
        })
    }

    fn list_pod_links(&mut self) -> Result<Vec<PodLink>, PortError> {
        let links = &self.links;
        self.faults.call("list pod links".to_owned(), |_| {
            let pods = links.iter().filter(|(name, _)| name.starts_with(POD_LINK_PREFIX));
            Ok(pods
                .map(|(name, link)| PodLink { name: name.clone(), ifindex: link.ifindex, mac: link.mac })
                .collect())
        })
    }

    fn save_state(&mut self, document: &Document) -> Result<(), PortError> {
        let documents = &mut self.documents;
        self.faults.call(format!("save {}", document.name), |_| {
            documents.insert(document.name.clone(), document.content.clone());
            Ok(())
        })
    }

    fn remove_state(&mut self, name: &str) -> Result<(), PortError> {
        let documents = &mut self.documents;
        self.faults.call(format!("remove {name}"), |_| {
            documents.remove(name);
            Ok(())
        })
    }
}
