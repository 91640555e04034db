//! [`NodeOps`] over netlink, the loader and the state directory.

use super::rcu::Expedite;
use super::{base, later, removal};
use crate::words::chain;
use agent_control::ports::{
    BaseFacts, BaseSpec, Document, POD_LINK_PREFIX, PodInterfaceFacts, PodInterfaceSpec, PodLink,
    PortErrorKind, Program, ROUTE_PROTOCOL, Route,
};
use agent_control::{NetnsHandle, NodeOps, PortError};
use agent_node::link::{Link, LinkKind};
use agent_node::netns::NetnsError;
use agent_node::pod_interface::{self, CheckError, CreateError, PodAddress};
use agent_node::route::{Route as NodeRoute, RouteFilter, Scope, TABLE_MAIN};
use agent_node::{Mac, Netlink, Netns};
use dataplane_abi::program::SocketProgram;
use dataplane_loader::{Direction, Hook, Object, Pins, attach, cgroup};
use std::collections::HashMap;
use std::fs;
use std::io::Write as _;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tracing::{debug, info};

/// The node: its network namespace, its pins and its state directory.
#[derive(Debug)]
pub struct KernelNode {
    netlink: Netlink,
    object: Object,
    pins: Pins,
    /// Where the programs on calls of sockets go, with services.
    cgroup: Option<PathBuf>,
    state: PathBuf,
    netns: HashMap<NetnsHandle, OwnedFd>,
    expedite: Expedite,
}

impl KernelNode {
    /// The node that the calling thread's network namespace belongs to. `state` and `run_dir` exist.
    pub fn new(netlink: Netlink, object: Object, pins: Pins, state: PathBuf, run_dir: &Path) -> Self {
        let expedite = Expedite::new(run_dir);
        Self { netlink, object, pins, cgroup: None, state, netns: HashMap::new(), expedite }
    }

    /// Says on which cgroup the programs on calls of sockets go.
    #[must_use]
    pub fn with_cgroup(mut self, cgroup: Option<PathBuf>) -> Self {
        self.cgroup = cgroup;
        self
    }

    /// What is attached and removed until [`Self::end_batch`] belongs together.
    pub fn begin_batch(&mut self) {
        self.expedite.begin();
    }

    /// The batch is over.
    pub fn end_batch(&mut self) {
        self.expedite.end();
    }

    /// Keeps the namespace of a pod under its handle until [`Self::release_netns`].
    pub fn hold_netns(&mut self, handle: NetnsHandle, netns: OwnedFd) {
        self.netns.insert(handle, netns);
    }

    /// Closes the descriptor.
    pub fn release_netns(&mut self, handle: NetnsHandle) {
        self.netns.remove(&handle);
    }

    /// The namespace under a handle, checked to be one.
    fn netns(&self, netns: &agent_control::Netns) -> Result<Netns, PortError> {
        let operation = || format!("open network namespace {}", netns.path);
        let gone = |text: &str| PortError::terminal(operation(), text).with_kind(PortErrorKind::NetnsGone);
        let file = self.netns.get(&netns.handle).ok_or_else(|| gone("the plugin sent no descriptor"))?;
        let file = file.try_clone().map_err(|error| later(operation(), &error))?;
        Netns::from_file(file, &netns.path).map_err(|error| gone(&chain(&error)))
    }

    fn route_of(&mut self, route: &Route) -> Result<NodeRoute, PortError> {
        let link = self
            .netlink
            .link(&route.device)
            .map_err(|error| later(format!("find {}", route.device), &error))?;
        Ok(NodeRoute {
            source: route.source,
            mtu: route.mtu,
            scope: if route.gateway.is_some() || route.dst.addr().is_ipv6() {
                Scope::Global
            } else {
                Scope::Link
            },
            protocol: ROUTE_PROTOCOL,
            ..NodeRoute::new(route.dst, link.index, route.gateway)
        })
    }
}

/// A host's end of a pod's interface: a veth whose name is `lxc` and eleven hexadecimal digits. Others use the prefix too (`lxcbr0`).
pub(crate) fn is_pod_link(link: &Link) -> bool {
    let digits = link.name.strip_prefix(POD_LINK_PREFIX).filter(|digits| digits.len() == 11);
    link.kind == LinkKind::Veth
        && digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The name of every file of the state directory ends so; others are not ours.
const STATE_SUFFIX: &str = ".json";

/// Everything that an earlier agent left in its state directory. A file that cannot be read is an error: to go on
/// without it could mean to give out its addresses again.
///
/// # Errors
/// When the directory or a file cannot be read.
pub(crate) fn documents(state: &Path) -> std::io::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for entry in fs::read_dir(state)? {
        let path = entry?.path();
        let Some(name) =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(STATE_SUFFIX))
        else {
            continue;
        };
        documents.push(Document { name: name.to_owned(), content: fs::read(&path)? });
    }
    documents.sort();
    Ok(documents)
}

const fn hook_direction(program: Program) -> Direction {
    if program.on_egress() { Direction::Egress } else { Direction::Ingress }
}

/// The addresses of a pod, each with the gateway of its family's default route.
fn pod_addresses(spec: &PodInterfaceSpec) -> Result<Vec<PodAddress>, PortError> {
    let address = |net: &ipnet::IpNet| {
        let ip = net.addr();
        let router = spec
            .routes
            .iter()
            .filter(|route| route.dst.prefix_len() == 0 && route.dst.addr().is_ipv6() == ip.is_ipv6())
            .find_map(|route| route.gateway);
        router.map(|router| PodAddress { ip, router }).ok_or_else(|| {
            PortError::terminal(
                format!("address {ip} of {}", spec.host_name),
                "there is no default route of its family",
            )
        })
    };
    spec.addresses.iter().map(address).collect()
}

fn node_spec<'a>(
    spec: &'a PodInterfaceSpec,
    addresses: &'a [PodAddress],
) -> pod_interface::PodInterfaceSpec<'a> {
    pod_interface::PodInterfaceSpec {
        host_name: &spec.host_name,
        pod_name: &spec.pod_name,
        host_mac: Mac(spec.host_mac),
        pod_mac: Mac(spec.pod_mac),
        mtu: spec.mtu,
        addresses,
    }
}

fn netns_gone(operation: String, error: &NetnsError) -> PortError {
    if error.is_gone() {
        PortError::terminal(operation, chain(error)).with_kind(PortErrorKind::NetnsGone)
    } else {
        later(operation, error)
    }
}

fn create_error(spec: &PodInterfaceSpec, error: &CreateError) -> PortError {
    let operation = format!("create {}", spec.host_name);
    match error {
        CreateError::PodNameTaken { .. } => {
            PortError::terminal(operation, chain(error)).with_kind(PortErrorKind::InterfaceExists)
        }
        CreateError::Netns(error) => netns_gone(operation, error),
        CreateError::HostNameTaken { .. } | CreateError::Netlink(_) | CreateError::Sysctl(_) => {
            later(operation, error)
        }
    }
}

impl NodeOps for KernelNode {
    fn ensure_base(&mut self, spec: &BaseSpec) -> Result<BaseFacts, PortError> {
        base::ensure(&mut self.netlink, spec)
    }

    fn attach(&mut self, link: &str, _ifindex: u32, program: Program) -> Result<(), PortError> {
        let hook = Hook { device: link.to_owned(), direction: hook_direction(program) };
        let attached = self
            .object
            .attach(&self.pins, program.name(), &hook)
            .map_err(|error| later(format!("attach {} to {link}", program.name()), &error))?;
        debug!(device = link, program = program.name(), ?attached, "program attached");
        Ok(())
    }

    fn detach(&mut self, link: &str, _ifindex: u32, program: Program) -> Result<(), PortError> {
        let hook = Hook { device: link.to_owned(), direction: hook_direction(program) };
        attach::detach(&self.pins, &hook)
            .map(drop)
            .map_err(|error| later(format!("detach {} from {link}", program.name()), &error))
    }

    fn set_sockets(&mut self, on: bool) -> Result<(), PortError> {
        if !on {
            // What sends processes elsewhere goes before what tells them whom they called.
            return SocketProgram::ALL.into_iter().rev().try_for_each(|program| {
                cgroup::detach(&self.pins, program)
                    .map(drop)
                    .map_err(|error| later(format!("detach {}", program.name()), &error))
            });
        }
        let operation = || "attach to sockets".to_owned();
        let path =
            self.cgroup.as_ref().ok_or_else(|| PortError::terminal(operation(), "no cgroup is given"))?;
        SocketProgram::ALL.into_iter().try_for_each(|program| {
            let attached = self
                .object
                .attach_socket(&self.pins, program, path)
                .map_err(|error| later(operation(), &error))?;
            debug!(cgroup = %path.display(), program = program.name(), ?attached, "program attached");
            Ok(())
        })
    }

    fn list_programs(&mut self) -> Result<Vec<(String, u32, Program)>, PortError> {
        let attached = attach::list(&self.pins).map_err(|error| later("list programs", &error))?;
        let known = |found: attach::Attachment| {
            let program = Program::from_name(&found.program)?;
            Some((found.hook.device, found.ifindex.unwrap_or(0), program))
        };
        Ok(attached.into_iter().filter_map(known).collect())
    }

    fn list_routes(&mut self) -> Result<Vec<Route>, PortError> {
        let filter =
            RouteFilter { table: Some(TABLE_MAIN), protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::default() };
        let failed = |error| later("list routes", &error);
        let routes = self.netlink.routes(filter).map_err(failed)?;
        let mut devices: HashMap<u32, String> = HashMap::new();
        let mut ours = Vec::with_capacity(routes.len());
        for route in routes {
            let device = if let Some(name) = devices.get(&route.link) {
                name.clone()
            } else {
                // A link that went away between the two requests took its routes along.
                let Some(link) = self.netlink.link_by_index(route.link).map_err(failed)? else { continue };
                devices.entry(route.link).or_insert(link.name).clone()
            };
            ours.push(Route {
                dst: route.destination,
                gateway: route.via,
                device,
                source: route.source,
                mtu: route.mtu,
            });
        }
        Ok(ours)
    }

    fn replace_route(&mut self, route: &Route) -> Result<(), PortError> {
        let wanted = self.route_of(route)?;
        self.netlink
            .replace_route(&wanted)
            .map_err(|error| later(format!("route to {}", route.dst), &error))?;
        // IPv6 keeps routes of one destination side by side where the next hop differs; the old one must go.
        if route.dst.addr().is_ipv6() {
            let filter = RouteFilter {
                ipv6: Some(true),
                table: Some(TABLE_MAIN),
                protocol: Some(ROUTE_PROTOCOL),
                link: None,
            };
            let failed = |error| later(format!("route to {}", route.dst), &error);
            for old in self.netlink.routes(filter).map_err(failed)? {
                let same_way = old.link == wanted.link && old.via == wanted.via;
                if old.destination == wanted.destination && !same_way {
                    self.netlink.delete_route(&old).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    fn delete_route(&mut self, route: &Route) -> Result<(), PortError> {
        let operation = || format!("remove route to {}", route.dst);
        // With its link the route is gone.
        let Some(link) = self.netlink.find_link(&route.device).map_err(|error| later(operation(), &error))?
        else {
            return Ok(());
        };
        let mut old =
            NodeRoute { protocol: ROUTE_PROTOCOL, ..NodeRoute::new(route.dst, link.index, route.gateway) };
        old.scope =
            if route.gateway.is_some() || route.dst.addr().is_ipv6() { Scope::Global } else { Scope::Link };
        self.netlink.delete_route(&old).map(drop).map_err(|error| later(operation(), &error))
    }

    fn create_pod_interface(&mut self, spec: &PodInterfaceSpec) -> Result<PodInterfaceFacts, PortError> {
        let netns = self.netns(&spec.netns)?;
        let addresses = pod_addresses(spec)?;
        let wanted = node_spec(spec, &addresses);
        let made = match pod_interface::create(&mut self.netlink, &netns, &wanted) {
            Err(CreateError::HostNameTaken { .. }) => {
                info!(device = spec.host_name, "leftover of an earlier try removed");
                self.delete_pod_interface(&spec.host_name)?;
                pod_interface::create(&mut self.netlink, &netns, &wanted)
            }
            result => result,
        };
        let made = made.map_err(|error| create_error(spec, &error))?;
        Ok(PodInterfaceFacts {
            host_ifindex: made.host_index,
            host_mac: made.host_mac.octets(),
            pod_mac: made.pod_mac.octets(),
        })
    }

    fn check_pod_interface(&mut self, spec: &PodInterfaceSpec) -> Result<Vec<String>, PortError> {
        let netns = self.netns(&spec.netns)?;
        let addresses = pod_addresses(spec)?;
        match pod_interface::check(&mut self.netlink, &netns, &node_spec(spec, &addresses)) {
            Ok(differences) => Ok(differences.iter().map(ToString::to_string).collect()),
            Err(CheckError::Netns(error)) => Err(netns_gone(format!("check {}", spec.host_name), &error)),
            Err(error @ CheckError::Netlink(_)) => Err(later(format!("check {}", spec.host_name), &error)),
        }
    }

    fn delete_pod_interface(&mut self, host_name: &str) -> Result<(), PortError> {
        let failed = |error| later(format!("remove {host_name}"), &error);
        if let Some(link) = self.netlink.find_link(host_name).map_err(failed)? {
            removal::remove(&mut self.netlink, &[link.index]).map_err(failed)?;
            debug!(device = host_name, "pod link removed");
        }
        // The device took the programs along; what is left is the pin.
        for direction in [Direction::Ingress, Direction::Egress] {
            let hook = Hook { device: host_name.to_owned(), direction };
            attach::detach(&self.pins, &hook).map_err(|error| later(format!("unpin {hook}"), &error))?;
        }
        Ok(())
    }

    fn delete_pod_interfaces_soon(&mut self, host_names: &[String]) {
        let netlink = &mut self.netlink;
        let found: Vec<u32> =
            host_names.iter().filter_map(|name| Some(netlink.find_link(name).ok()??.index)).collect();
        if let Err(error) = removal::remove(netlink, &found) {
            debug!("pod links are removed one by one: {error}");
        }
    }

    fn list_pod_links(&mut self) -> Result<Vec<PodLink>, PortError> {
        let links = self.netlink.links().map_err(|error| later("list links", &error))?;
        Ok(links
            .into_iter()
            .filter(is_pod_link)
            .map(|link| PodLink {
                mac: link.mac.map(Mac::octets).unwrap_or_default(),
                name: link.name,
                ifindex: link.index,
            })
            .collect())
    }

    fn save_state(&mut self, document: &Document) -> Result<(), PortError> {
        let path = self.state.join(format!("{}{STATE_SUFFIX}", document.name));
        let temporary = path.with_extension("tmp");
        // No fsync: the directory is on a tmpfs by default, and state that outlives the machine would be of no use,
        // for links and maps do not.
        let write = || -> std::io::Result<()> {
            fs::File::create(&temporary)?.write_all(&document.content)?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|error| later(format!("write {}", path.display()), &error))
    }

    fn remove_state(&mut self, name: &str) -> Result<(), PortError> {
        let path = self.state.join(format!("{name}{STATE_SUFFIX}"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(later(format!("remove {}", path.display()), &error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::documents;
    use agent_control::ports::Document;

    #[test]
    fn reads_documents_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("endpoint-1.json"), "{}").unwrap();
        std::fs::write(dir.path().join("endpoint-2.tmp"), "half").unwrap();
        std::fs::write(dir.path().join("README"), "x").unwrap();
        let found = documents(dir.path()).unwrap();
        assert_eq!(found, [Document { name: "endpoint-1".into(), content: b"{}".to_vec() }]);
        assert!(documents(&dir.path().join("missing")).is_err());
    }
}
