//! One node with its agent, and an oracle that says what its tables shall hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use agent_api::Timestamp;
use agent_api::cni::{self, Attachment, CniError, CniResult, Operation, PodRef};
use agent_control::memory::{Faults, MemoryMaps, MemoryNode};
use agent_control::ports::{HOST_LINK, OVERLAY_LINK, Program, Table};
use agent_control::{
    Agent, CniRequest, Config, DeviceFacts, Event, NetnsHandle, NodeObject, Now, ReconcileReport, Reply,
    RequestId, Routing,
};
use dataplane_abi::config::NodeConfig;
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey};
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};
use ipnet::IpNet;
use zerocopy::FromBytes as _;

/// Name of the own node.
pub(crate) const OWN: &str = "node-1";
/// The underlay device.
pub(crate) const DEVICE: &str = "eth0";

/// Node `n` of a dual-stack cluster: `172.30.0.n`, `fd00:30::n`, `10.10.n.0/24`, `fd00:10:n::/112`, created at second n.
pub(crate) fn node(n: u16) -> NodeObject {
    NodeObject {
        name: format!("node-{n}"),
        uid: format!("uid-{n}"),
        created_s: 1000 + u64::from(n),
        pod_cidrs: vec![format!("10.{}.{}.0/24", 10 + n / 256, n % 256), format!("fd00:10:{n:x}::/112")],
        internal_ips: vec![format!("172.30.{}.{}", n / 256, n % 256), format!("fd00:30::{n:x}")],
        ..NodeObject::default()
    }
}

/// The underlay device of the own node as the daemon finds it.
pub(crate) fn underlay() -> DeviceFacts {
    underlay_of(1)
}

/// The underlay device of node `n`.
pub(crate) fn underlay_of(n: u16) -> DeviceFacts {
    DeviceFacts {
        name: DEVICE.to_owned(),
        ifindex: 2,
        mac: [2, 0, 0, 0, 0, 2],
        mtu: 1500,
        addresses: node(n).internal_ips.iter().map(|ip| ip.parse().unwrap()).collect(),
    }
}

pub(crate) fn attachment(container: &str) -> Attachment {
    Attachment { container_id: container.to_owned(), ifname: "eth0".to_owned() }
}

/// One node, its maps and its agent. The agent can be killed and started again; the rest stays.
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) faults: Faults,
    pub(crate) maps: MemoryMaps,
    pub(crate) node: MemoryNode,
    pub(crate) agent: Agent,
    pub(crate) now: Now,
    pub(crate) reports: Vec<ReconcileReport>,
    replies: BTreeMap<RequestId, cni::Reply>,
    last_request: u64,
}

impl World {
    pub(crate) fn new(routing: Routing) -> Self {
        Self::with(Config::new(OWN, routing))
    }

    pub(crate) fn with(config: Config) -> Self {
        let faults = Faults::default();
        let mut world = Self {
            agent: Agent::new(config.clone(), Vec::new()),
            maps: MemoryMaps::new(faults.clone()),
            node: MemoryNode::new(DEVICE, faults.clone()),
            faults,
            config,
            now: Now::from_secs(10_000),
            reports: Vec::new(),
            replies: BTreeMap::new(),
            last_request: 0,
        };
        // The daemon reconciles once before it takes events.
        world.settle();
        world.reports.clear();
        world
    }

    /// A node of a cluster of `nodes`, in sync and ready.
    pub(crate) fn ready(routing: Routing, nodes: u16) -> Self {
        let mut world = Self::new(routing);
        world.sync(nodes);
        world
    }

    /// Underlay and complete list of nodes.
    pub(crate) fn sync(&mut self, nodes: u16) {
        let me = (1..=nodes).find(|n| node(*n).name == self.config.node_name).unwrap_or(1);
        self.event(Event::Underlay(underlay_of(me)));
        self.event(Event::NodeListStarted);
        for n in 1..=nodes {
            self.event(Event::NodeUpsert(node(n)));
        }
        self.event(Event::NodeListSynced);
        self.settle();
    }

    /// The agent's process ends and another begins, with what is in the state directory.
    pub(crate) fn restart(&mut self) {
        self.faults.revive();
        self.agent = Agent::new(self.config.clone(), self.node.documents());
        self.reports.clear();
        self.replies.clear();
    }

    /// Hands in an event without a reconcile.
    pub(crate) fn event(&mut self, event: Event) {
        let replies = self.agent.handle(self.now, event);
        self.keep(replies);
    }

    fn keep(&mut self, replies: Vec<Reply>) {
        if self.faults.crashed() {
            // A dead process answers nobody.
            return;
        }
        for reply in replies {
            let twice = self.replies.insert(reply.id, reply.outcome);
            assert!(twice.is_none(), "request {:?} was answered twice", reply.id);
        }
    }

    /// One reconcile.
    pub(crate) fn reconcile(&mut self) -> ReconcileReport {
        let report = self.agent.reconcile(self.now, &mut self.maps, &mut self.node);
        self.keep(report.replies.clone());
        self.reports.push(report.clone());
        report
    }

    /// Reconciles for as long as there is something to do at once.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100 {
            self.reconcile();
            if self.agent.next_deadline().is_none_or(|at| at > self.now) {
                return;
            }
        }
        panic!("the agent always has something to do at once: {:?}", self.reports.last());
    }

    /// Lets time pass, waking the agent whenever it asks for it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while let Some(at) = self.agent.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.event(Event::Tick);
            self.settle();
        }
        self.now = end;
    }

    /// Rows written and removed since the last start.
    pub(crate) fn rows_changed(&self) -> usize {
        self.reports.iter().map(ReconcileReport::rows_changed).sum()
    }

    /// Sends a request; its answer is taken with [`World::answer`].
    pub(crate) fn request(&mut self, operation: Operation) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        let netns = match &operation {
            Operation::Add { .. } | Operation::Check { .. } => Some(NetnsHandle(self.last_request)),
            _ => None,
        };
        let name =
            operation.attachment().map(|attachment| attachment.container_id.clone()).unwrap_or_default();
        let pod = PodRef { namespace: "default".to_owned(), name, uid: None };
        let received = Timestamp::from_unix_nanos(0);
        self.event(Event::Cni(CniRequest { id, received, netns, pod: Some(pod), operation }));
        id
    }

    /// The answer to a request, if there is one.
    pub(crate) fn answer(&mut self, id: RequestId) -> Option<Result<Option<CniResult>, CniError>> {
        Some(match self.replies.remove(&id)? {
            cni::Reply::Added { result } => Ok(Some(result)),
            cni::Reply::Done => Ok(None),
            cni::Reply::Error { error } => Err(error),
        })
    }

    fn call(&mut self, operation: Operation) -> Result<Option<CniResult>, CniError> {
        let id = self.request(operation);
        self.settle();
        self.answer(id).expect("every request is answered")
    }

    pub(crate) fn add(&mut self, container: &str) -> Result<CniResult, CniError> {
        self.call(add(container)).map(|result| result.expect("ADD has a result"))
    }

    pub(crate) fn del(&mut self, container: &str) -> Result<(), CniError> {
        self.call(del(container)).map(drop)
    }

    pub(crate) fn check(&mut self, container: &str, prev_result: &CniResult) -> Result<(), CniError> {
        let prev_result = prev_result.clone();
        self.call(Operation::Check {
            attachment: attachment(container),
            netns: netns(container),
            prev_result,
        })
        .map(drop)
    }

    pub(crate) fn gc(&mut self, valid: &[&str]) -> Result<(), CniError> {
        let valid_attachments = valid.iter().map(|container| attachment(container)).collect();
        self.call(Operation::Gc { valid_attachments }).map(drop)
    }

    pub(crate) fn status(&mut self) -> Result<(), CniError> {
        self.call(Operation::Status).map(drop)
    }

    pub(crate) fn endpoints(&self) -> BTreeMap<IpAddr, EndpointEntry> {
        let row = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            let key = EndpointKey::read_from_bytes(key).unwrap();
            (key.ip().unwrap(), EndpointEntry::read_from_bytes(value).unwrap())
        };
        self.maps.rows(Table::Endpoints).iter().map(row).collect()
    }

    pub(crate) fn ipcache(&self) -> BTreeMap<IpNet, (u32, Option<IpAddr>)> {
        let row = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            let (address, len) = IpCacheKey::read_from_bytes(key).unwrap().to_prefix().unwrap();
            let entry = IpCacheEntry::read_from_bytes(value).unwrap();
            (IpNet::new(address, len).unwrap(), (entry.identity.0, entry.node_ip()))
        };
        self.maps.rows(Table::Ipcache).iter().map(row).collect()
    }

    pub(crate) fn node_config(&self) -> NodeConfig {
        NodeConfig::read_from_bytes(self.maps.rows(Table::Config).values().next().expect("CONFIG is written"))
            .unwrap()
    }

    /// Routes as text, by destination.
    pub(crate) fn routes(&self) -> BTreeMap<String, String> {
        let text = |(dst, route): (&IpNet, &agent_control::ports::Route)| {
            let word = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
            let words = [
                word("via", route.gateway.map(|gateway| gateway.to_string())),
                word("dev", Some(route.device.clone())),
                word("src", route.source.map(|source| source.to_string())),
                word("mtu", route.mtu.map(|mtu| mtu.to_string())),
            ];
            let text = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
            (dst.to_string(), text)
        };
        self.node.routes().iter().map(text).collect()
    }

    /// Checks everything outside against what it shall be for these nodes and these live pods, and that nothing else is there.
    /// The own node and its family are those of [`node`]; dual stack.
    pub(crate) fn assert_outside(&self, nodes: &[NodeObject], pods: &BTreeMap<String, CniResult>) {
        let vxlan = self.config.routing == Routing::Vxlan;
        let own = nodes.iter().find(|node| node.name == OWN).expect("the own node is one of them");
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let gateways: Vec<IpAddr> = own.pod_cidrs.iter().map(|cidr| router_of(net(cidr))).collect();

        let mut ipcache: BTreeMap<IpNet, (u32, Option<IpAddr>)> =
            BTreeMap::from([(net("0.0.0.0/0"), (9, None)), (net("::/0"), (10, None))]);
        let mut ways = BTreeMap::new();
        let mut hosts: BTreeSet<IpAddr> = BTreeSet::new();
        for object in nodes {
            for text in &object.internal_ips {
                let address = ip(text);
                let row = if object.name == OWN {
                    hosts.insert(address);
                    (1, None)
                } else {
                    (6, Some(if vxlan { ip(&object.internal_ips[0]) } else { address }))
                };
                ipcache.insert(IpNet::from(address), row);
            }
            for text in &object.pod_cidrs {
                let v4 = net(text).addr().is_ipv4();
                let peer = ip(&object.internal_ips[usize::from(!v4)]);
                let router = gateways.iter().find(|router| router.is_ipv4() == v4).unwrap();
                let (row, route) = if object.name == OWN {
                    ((3, None), format!("dev bristle_host src {router}"))
                } else if vxlan {
                    let via = if v4 { format!("via {router} ") } else { String::new() };
                    let tunnel = ip(&object.internal_ips[0]);
                    ((3, Some(tunnel)), format!("{via}dev bristle_host src {router} mtu 1450"))
                } else {
                    ((3, Some(peer)), format!("via {peer} dev {DEVICE}"))
                };
                ipcache.insert(net(text), row);
                if vxlan && object.name != OWN {
                    // What the node sends to pods here comes from its router address.
                    ipcache.insert(IpNet::from(router_of(net(text))), (6, row.1));
                }
                ways.insert(text.clone(), route);
            }
        }
        hosts.extend(&gateways);
        ipcache.extend(gateways.iter().map(|router| (IpNet::from(*router), (1, None))));

        let mut found = self.endpoints();
        for host in hosts {
            let row = found.remove(&host).unwrap_or_else(|| panic!("no row for the node's address {host}"));
            let router = gateways.contains(&host);
            assert_eq!(
                row.flags,
                EndpointFlags::HOST | if router { EndpointFlags::ROUTER } else { EndpointFlags::empty() }
            );
            assert_eq!((row.identity.0, row.ifindex, row.id), (1, 0, 0));
        }
        let mut links: BTreeSet<&str> = BTreeSet::from([DEVICE, HOST_LINK, "bristle_net"]);
        if vxlan {
            links.insert(OVERLAY_LINK);
        }
        let mut ids = BTreeSet::new();
        for (container, result) in pods {
            let host = &result.interfaces[0];
            let link =
                self.node.links().get(&host.name).unwrap_or_else(|| panic!("{container} has lost its link"));
            links.insert(&host.name);
            assert_eq!(
                link.programs,
                BTreeSet::from([Program::FromContainer, Program::ToContainer]),
                "{container}"
            );
            assert_eq!(link.pod.as_ref().unwrap().netns, netns(container));
            for pod_ip in &result.ips {
                let address = pod_ip.address.addr();
                let row = found
                    .remove(&address)
                    .unwrap_or_else(|| panic!("{container} has lost the row of {address}"));
                assert_eq!(
                    (row.ifindex, row.node_mac, row.mac),
                    (link.ifindex, link.mac, link.pod.as_ref().unwrap().mac)
                );
                assert_eq!((row.identity.0, row.flags), (5, EndpointFlags::empty()));
                ids.insert(row.id);
                ipcache.insert(IpNet::from(address), (5, None));
            }
        }
        assert_eq!(ids.len(), pods.len(), "each pod has its own number");
        assert_eq!(found.keys().collect::<Vec<_>>(), Vec::<&IpAddr>::new(), "rows of nobody");
        assert_eq!(self.ipcache(), ipcache);
        assert_eq!(self.routes(), ways);
        assert_eq!(self.node.links().keys().map(String::as_str).collect::<BTreeSet<_>>(), links);
        let on = |link: &str| self.node.links()[link].programs.clone();
        assert_eq!(on(HOST_LINK), BTreeSet::from([Program::FromHost, Program::ToHost]));
        assert_eq!(on(DEVICE), (!vxlan).then_some(Program::FromNetdev).into_iter().collect());
        if vxlan {
            assert_eq!(on(OVERLAY_LINK), BTreeSet::from([Program::FromOverlay]));
        }
        let documents =
            self.node.documents().iter().filter(|document| document.name.starts_with("endpoint-")).count();
        assert_eq!(documents, pods.len(), "one document for each endpoint");
    }

    /// A new agent finds nothing to write. The world goes on with it.
    pub(crate) fn assert_restart_writes_nothing(&mut self, nodes: &[NodeObject]) {
        let before = self.maps.rows(Table::Config).clone();
        self.restart();
        self.event(Event::Underlay(underlay()));
        self.settle();
        assert_eq!(self.rows_changed(), 0, "before anything is heard of the API server");
        self.event(Event::NodeListStarted);
        for object in nodes {
            self.event(Event::NodeUpsert(object.clone()));
        }
        self.event(Event::NodeListSynced);
        self.settle();
        assert_eq!(self.rows_changed(), 0, "with the same nodes");
        assert_eq!(self.maps.rows(Table::Config), &before);
    }
}

/// Path of a container's namespace.
pub(crate) fn netns(container: &str) -> String {
    format!("/run/netns/{container}")
}

pub(crate) fn add(container: &str) -> Operation {
    Operation::Add { attachment: attachment(container), netns: netns(container) }
}

pub(crate) fn del(container: &str) -> Operation {
    Operation::Del { attachment: attachment(container), netns: None, prev_result: None }
}

/// The address of a node on the links of its pods.
fn router_of(pod_cidr: IpNet) -> IpAddr {
    match pod_cidr.network() {
        IpAddr::V4(first) => IpAddr::V4((u32::from(first) + 1).into()),
        IpAddr::V6(first) => IpAddr::V6((u128::from(first) + 1).into()),
    }
}
