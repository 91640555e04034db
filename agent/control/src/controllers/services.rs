//! `SERVICES` and `BACKENDS`: where calls to services go, and what comes to them from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane_abi::backends::{BackendEntry, BackendState};
use dataplane_abi::services::{ServiceEntry, ServiceFlags, ServiceKey, ServiceScope};
use dataplane_abi::{Addr, Be16, Family};
use zerocopy::FromBytes as _;

use super::row_hash;
use crate::few::{Few, FewMap};
use crate::objects::{ObjectName, ServiceObject, ServicePort, SliceEndpoint, SliceObject};
use crate::ports::Row;

/// Which endpoints of a service's port stand behind an address: traffic policies leave different ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Those of all nodes.
    Cluster,
    /// Those of one node.
    Node(Box<str>),
    /// None: those of the node that is called, which has none (`externalTrafficPolicy: Local`).
    Nobody,
}

/// A port of a service in one family, with the endpoints that count: what has backends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortName {
    pub(crate) service: Arc<ObjectName>,
    pub(crate) port: Box<str>,
    pub(crate) proto: u8,
    pub(crate) is_v4: bool,
    pub(crate) reach: Reach,
}

impl PortName {
    /// Where to begin looking for a number of it.
    pub(crate) fn hash(&self) -> u32 {
        let Self { service, port, proto, is_v4, reach } = self;
        let ObjectName { namespace, name } = &**service;
        let reach = match reach {
            Reach::Cluster => "",
            Reach::Node(node) => node,
            Reach::Nobody => "/",
        };
        // Names have no slashes.
        let text = format!("{namespace}/{name}/{port}/{proto}/{is_v4}/{reach}");
        fold(row_hash(b'N', text.as_bytes(), &[]))
    }
}

/// A backend: the number of its service's port, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BackendName {
    pub(crate) service: u32,
    pub(crate) place: (IpAddr, u16),
}

impl BackendName {
    /// Where to begin looking for a number of it.
    pub(crate) fn hash(&self) -> u32 {
        let (address, port) = self.place;
        let place = (Addr::from_ip(address).0.0, port.to_le_bytes());
        fold(row_hash(b'K', &self.service.to_le_bytes(), &[place.0.as_slice(), place.1.as_slice()].concat()))
    }

    /// The one that a row is about.
    pub(crate) fn of(entry: &BackendEntry) -> Option<Self> {
        Some(Self { service: entry.service, place: (entry.ip()?, entry.port.get()) })
    }
}

fn fold(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or_default()
}

/// An address, a protocol and a port under which a service is reached; the address that is none stands for all of all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Frontend {
    pub(crate) address: IpAddr,
    pub(crate) proto: u8,
    pub(crate) port: u16,
    /// From where.
    pub(crate) scope: ServiceScope,
}

impl Frontend {
    /// Key bytes of its row at slot 0.
    pub(crate) fn key(&self) -> ServiceKey {
        let (addr, family) = Addr::from_ip(self.address);
        ServiceKey::frontend(addr, family, Be16::new(self.port), self.proto, self.scope)
    }

    /// The one that a row is about.
    pub(crate) fn of(key: &ServiceKey) -> Option<Self> {
        let scope = ServiceScope::from_number(key.scope)?;
        Some(Self { address: key.ip()?, proto: key.proto, port: key.port.get(), scope })
    }
}

/// What a service's port offers to callers on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) name: PortName,
    /// How it is called, and what is different there.
    pub(crate) frontends: FewMap<Frontend, ServiceFlags>,
    /// Endpoints that take new connections, in order.
    pub(crate) active: Box<[(IpAddr, u16)]>,
    /// Endpoints that only keep what they have, in order.
    pub(crate) kept: Box<[(IpAddr, u16)]>,
    /// Seconds, 0: none.
    pub(crate) affinity_s: u32,
    pub(crate) flags: ServiceFlags,
}

/// Where the callers are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Name of the node.
    pub(crate) node: String,
    /// Its zone (label `topology.kubernetes.io/zone`).
    pub(crate) zone: Option<String>,
    /// Addresses of nodes, this one's too.
    pub(crate) addresses: BTreeMap<Box<str>, BTreeSet<IpAddr>>,
}

/// What a service offers, port by port and family by family. A headless service, or one that is another proxy's, offers nothing.
pub(crate) fn offers<'a>(
    (name, service): (&Arc<ObjectName>, &ServiceObject),
    slices: &(impl Iterator<Item = &'a SliceObject> + Clone),
    place: &Place,
) -> Vec<Offer> {
    if service.is_anothers {
        return Vec::new();
    }
    let mut offers = Vec::new();
    for is_v4 in [true, false] {
        // The families of a service are those of its cluster IPs.
        if !service.cluster_ips.iter().any(|address| address.is_ipv4() == is_v4) {
            continue;
        }
        for port in &service.ports {
            let endpoints = endpoints(port, is_v4, slices.clone());
            for (reach, frontends) in frontends(service, port, is_v4, &endpoints, place) {
                let name = PortName {
                    service: Arc::clone(name),
                    port: port.name.clone(),
                    proto: port.proto,
                    is_v4,
                    reach,
                };
                let frontends = frontends.into_iter().collect();
                offers.push(offer(name, frontends, &endpoints, service, place));
            }
        }
    }
    offers
}

/// How a service's port is called in a family, by the endpoints that stand behind it there.
fn frontends(
    service: &ServiceObject,
    port: &ServicePort,
    is_v4: bool,
    endpoints: &Endpoints<'_>,
    place: &Place,
) -> BTreeMap<Reach, BTreeMap<Frontend, ServiceFlags>> {
    let mut frontends: BTreeMap<Reach, BTreeMap<Frontend, ServiceFlags>> = BTreeMap::new();
    let (mut known, proto) = (BTreeSet::new(), port.proto);
    let mut add = |reach: &Reach, address: IpAddr, port: u16, scope, flags| {
        let frontend = Frontend { address, proto, port, scope };
        // An address that is there twice is what it is first: cluster IPs come before others.
        if known.insert(frontend) {
            frontends.entry(reach.clone()).or_default().insert(frontend, flags);
        }
    };
    let of_family = |all: &Few<IpAddr>| -> Vec<IpAddr> {
        all.iter().copied().filter(|address| address.is_ipv4() == is_v4).collect()
    };
    let here = Reach::Node(place.node.as_str().into());
    let inside = if service.internal_local { &here } else { &Reach::Cluster };
    let mut flags = ServiceFlags::CLUSTER_IP;
    flags.set(ServiceFlags::INTERNAL_LOCAL, service.internal_local);
    for address in of_family(&service.cluster_ips) {
        add(inside, address, port.port, ServiceScope::Internal, flags);
    }
    let local = if service.external_local { ServiceFlags::EXTERNAL_LOCAL } else { ServiceFlags(0) };
    let outer = [
        (&service.external_ips, ServiceFlags::EXTERNAL_IP),
        (&service.balancer_ips, ServiceFlags::LOAD_BALANCER),
    ];
    for (addresses, kind) in outer {
        for address in of_family(addresses) {
            // For those inside the policy is always that of the whole cluster.
            add(&Reach::Cluster, address, port.port, ServiceScope::Internal, kind | local);
            if service.external_local {
                add(&here, address, port.port, ServiceScope::External, kind | local);
            }
        }
    }
    let Some(number) = port.node_port else { return frontends };
    let all: IpAddr = if is_v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let reach = if service.external_local { &Reach::Nobody } else { &Reach::Cluster };
    add(reach, all, number, ServiceScope::Internal, ServiceFlags::NODE_PORT | local);
    if service.external_local {
        // Nodes with endpoints of their own are different from the others, and from each other.
        let nodes: BTreeSet<&str> = endpoints.values().map(|endpoint| &*endpoint.node).collect();
        for node in nodes {
            let addresses = place.addresses.get(node).into_iter().flatten();
            let addresses = addresses.copied().filter(|address| address.is_ipv4() == is_v4);
            let reach = Reach::Node(node.into());
            for address in addresses {
                add(&reach, address, number, ServiceScope::Internal, ServiceFlags::NODE_PORT | local);
            }
        }
    }
    frontends
}

/// What is known of an endpoint, from all slices that have it.
type Endpoints<'a> = BTreeMap<(IpAddr, u16), &'a SliceEndpoint>;

/// Endpoints of a service's port in a family: those of slices that have a port of the same name and protocol.
fn endpoints<'a>(
    port: &ServicePort,
    is_v4: bool,
    slices: impl Iterator<Item = &'a SliceObject>,
) -> Endpoints<'a> {
    let mut endpoints = Endpoints::new();
    for slice in slices {
        let its = slice.ports.iter().filter(|its| its.name == port.name && its.proto == port.proto);
        for number in its.map(|its| its.port) {
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv4() == is_v4) {
                // An endpoint that moves between slices may be in both for a while: the one that can be used more counts.
                let rank = |endpoint: &SliceEndpoint| (endpoint.ready, endpoint.serving);
                let known = endpoints.entry((endpoint.address, number)).or_insert(endpoint);
                if rank(known) < rank(endpoint) {
                    *known = endpoint;
                }
            }
        }
    }
    endpoints
}

fn offer(
    name: PortName,
    frontends: FewMap<Frontend, ServiceFlags>,
    endpoints: &Endpoints<'_>,
    service: &ServiceObject,
    place: &Place,
) -> Offer {
    let mut flags = ServiceFlags(0);
    let reach = &name.reach;
    // Where a policy says `Local` the service is for its callers as if it had no others.
    let in_scope = |endpoint: &SliceEndpoint| match reach {
        Reach::Cluster => true,
        Reach::Node(node) => endpoint.node == *node,
        Reach::Nobody => false,
    };
    let scope: Endpoints<'_> =
        endpoints.iter().filter(|(_, e)| in_scope(e)).map(|(at, e)| (*at, *e)).collect();
    let ready: Endpoints<'_> = scope.iter().filter(|(_, e)| e.ready).map(|(at, e)| (*at, *e)).collect();
    let active: Vec<(IpAddr, u16)> = if ready.is_empty() {
        // Those that end and still serve are better than none.
        let ending = scope.iter().filter(|(_, e)| e.serving && e.terminating);
        let ending: Vec<_> = ending.map(|(at, _)| *at).collect();
        flags.set(ServiceFlags::ENDING, !ending.is_empty());
        ending
    } else if let Some(meant) = meant_for(place, &ready).filter(|_| *reach == Reach::Cluster) {
        flags |= ServiceFlags::ZONE_HINTS;
        meant
    } else {
        ready.keys().copied().collect()
    };
    // Slots are numbered with sixteen bits, and no table has room for more.
    let mut active = active;
    active.truncate(usize::from(u16::MAX));
    let serves = |e: &SliceEndpoint| e.ready || (e.serving && e.terminating);
    let kept = scope.iter().filter(|(at, e)| serves(e) && active.binary_search(at).is_err());
    Offer {
        frontends,
        kept: kept.map(|(at, _)| *at).collect(),
        active: active.into(),
        name,
        affinity_s: service.affinity_s.unwrap_or_default(),
        flags,
    }
}

/// Endpoints that hints mean for callers at this place: by node, else by zone. `None`: hints are not followed, since not all
/// endpoints have them or none is meant for the place, as when they are behind what is there.
fn meant_for(place: &Place, ready: &Endpoints<'_>) -> Option<Vec<(IpAddr, u16)>> {
    let pick = |name: &str, of: fn(&SliceEndpoint) -> &[Box<str>]| {
        let all_have_hints = ready.values().all(|endpoint| !of(endpoint).is_empty());
        let is_meant = |endpoint: &SliceEndpoint| of(endpoint).iter().any(|hint| **hint == *name);
        let meant: Vec<_> = ready.iter().filter(|(_, e)| is_meant(e)).map(|(at, _)| *at).collect();
        (all_have_hints && !meant.is_empty()).then_some(meant)
    };
    let by_zone = || pick(place.zone.as_deref()?, |endpoint| &endpoint.zones);
    pick(&place.node, |endpoint| &endpoint.nodes).or_else(by_zone)
}

/// Rows of a frontend: its slots and itself. `own` is what is different there, `backends` are numbers of those that take new
/// connections, in order.
pub(crate) fn rows(
    (frontend, own): (&Frontend, ServiceFlags),
    offer: &Offer,
    service: u32,
    backends: &[u32],
) -> Vec<(ServiceKey, ServiceEntry)> {
    let key = frontend.key();
    let slots =
        (1..).zip(backends).map(|(slot, backend)| (key.slot(slot), ServiceEntry::slot(service, *backend)));
    let count = u16::try_from(backends.len()).unwrap_or(u16::MAX);
    let itself = ServiceEntry::frontend(service, count, offer.affinity_s, offer.flags | own);
    slots.chain([(key, itself)]).collect()
}

/// Row of a backend.
pub(crate) fn backend(name: &BackendName, proto: u8, state: BackendState) -> BackendEntry {
    let (address, port) = name.place;
    let (addr, family) = Addr::from_ip(address);
    BackendEntry {
        addr,
        service: name.service,
        port: Be16::new(port),
        family: family as u8,
        proto,
        state: state as u8,
        pad: [0; 3],
    }
}

/// A row of `SERVICES` that was read back; `None` if this agent would not have written such bytes.
pub(crate) fn parse(row: &Row) -> Option<(ServiceKey, ServiceEntry)> {
    let key = ServiceKey::read_from_bytes(&row.key).ok()?;
    let entry = ServiceEntry::read_from_bytes(&row.value).ok()?;
    let is_ours = Frontend::of(&key)?.key().slot(key.slot) == key
        && entry.service != 0
        && (key.slot == 0) == (entry.backend == 0)
        && (key.slot == 0 || entry == ServiceEntry::slot(entry.service, entry.backend));
    is_ours.then_some((key, entry))
}

/// A row of `BACKENDS` that was read back; `None` if this agent would not have written such bytes.
pub(crate) fn parse_backend(row: &Row) -> Option<(u32, BackendEntry)> {
    let number = u32::read_from_bytes(&row.key).ok()?;
    let entry = BackendEntry::read_from_bytes(&row.value).ok()?;
    Family::from_number(entry.family)?;
    let state = BackendState::from_number(entry.state)?;
    let name = BackendName::of(&entry)?;
    let is_ours = number != 0 && name.service != 0 && backend(&name, entry.proto, state) == entry;
    is_ours.then_some((number, entry))
}

#[cfg(test)]
mod tests {
    use dataplane_abi::services::ServiceFlags as F;
    use zerocopy::IntoBytes as _;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn names(list: &[&str]) -> Box<[Box<str>]> {
        list.iter().map(|name| (*name).into()).collect()
    }

    fn port(name: &str, proto: u8, port: u16) -> ServicePort {
        ServicePort { name: name.into(), proto, port, node_port: None }
    }

    /// An endpoint by the last byte of its address: `r` ready, `s` serving, `t` terminating.
    fn endpoint(n: u8, node: &str, flags: &str) -> SliceEndpoint {
        SliceEndpoint {
            address: IpAddr::from([10, 1, 0, n]),
            node: node.into(),
            ready: flags.contains('r'),
            serving: flags.contains('s') || flags.contains('r'),
            terminating: flags.contains('t'),
            zones: names(&[]),
            nodes: names(&[]),
        }
    }

    fn slice(endpoints: Vec<SliceEndpoint>) -> SliceObject {
        SliceObject { ports: vec![port("web", 6, 8080)], endpoints, ..SliceObject::default() }
    }

    fn web() -> ServiceObject {
        ServiceObject {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            cluster_ips: [ip("10.96.0.1")].into(),
            ports: vec![port("web", 6, 80)],
            ..ServiceObject::default()
        }
    }

    fn named(service: &ServiceObject) -> Arc<ObjectName> {
        Arc::new(ObjectName::new(&service.namespace, &service.name))
    }

    fn here() -> Place {
        let node = |n: u8| (format!("node-{n}").into(), [IpAddr::from([172, 18, 0, n])].into());
        let addresses = [node(1), node(2)].into();
        Place { node: "node-1".to_owned(), zone: Some("z1".to_owned()), addresses }
    }

    /// Last bytes of those that take new connections, of those that keep what they have, and the flags.
    fn of(service: &ServiceObject, slices: &[SliceObject]) -> (Vec<u8>, Vec<u8>, F) {
        let offers = offers((&named(service), service), &slices.iter(), &here());
        let [offer] = offers.as_slice() else { panic!("{offers:?}") };
        let last = |list: &[(IpAddr, u16)]| {
            let byte = |(address, port): &(IpAddr, u16)| match address {
                IpAddr::V4(v4) if *port == 8080 => v4.octets()[3],
                _ => panic!("{address} {port}"),
            };
            list.iter().map(byte).collect()
        };
        let (_, own) = offer.frontends.iter().next().unwrap();
        (last(&offer.active), last(&offer.kept), offer.flags | *own)
    }

    /// Frontends and their flags, with the last bytes of those that take new connections.
    fn outer(service: &ServiceObject, endpoints: Vec<SliceEndpoint>) -> Vec<String> {
        let text = |offer: Offer| {
            let active: Vec<String> = offer.active.iter().map(|(address, _)| address.to_string()).collect();
            let line = move |(frontend, flags): (Frontend, F)| {
                let Frontend { address, port, scope, .. } = frontend;
                format!("{address} {port} {} {:#x} {}", scope.name(), flags.0, active.join(" "))
            };
            offer.frontends.iter().map(|(front, own)| line((*front, *own))).collect::<Vec<_>>()
        };
        offers((&named(service), service), &[slice(endpoints)].iter(), &here())
            .into_iter()
            .flat_map(text)
            .collect()
    }

    /// A service that is reached in every way.
    fn balanced() -> ServiceObject {
        ServiceObject {
            external_ips: [ip("192.0.2.1"), ip("2001:db8::1"), ip("10.96.0.1")].into(),
            balancer_ips: [ip("198.51.100.1")].into(),
            ports: vec![ServicePort { node_port: Some(30_080), ..port("web", 6, 80) }],
            ..web()
        }
    }

    #[test]
    fn a_service_has_a_frontend_for_each_way_to_it() {
        let endpoints = || vec![endpoint(1, "node-1", "r"), endpoint(2, "node-2", "r"), endpoint(3, "", "r")];
        assert_eq!(
            outer(&balanced(), endpoints()),
            [
                "0.0.0.0 30080 internal 0x10 10.1.0.1 10.1.0.2 10.1.0.3",
                // An external address that is the cluster's own is a cluster IP.
                "10.96.0.1 80 internal 0x1 10.1.0.1 10.1.0.2 10.1.0.3",
                "192.0.2.1 80 internal 0x20 10.1.0.1 10.1.0.2 10.1.0.3",
                "198.51.100.1 80 internal 0x40 10.1.0.1 10.1.0.2 10.1.0.3",
            ]
        );
    }

    #[test]
    fn local_traffic_from_outside_stays_on_the_node_that_is_called() {
        let service = ServiceObject { external_local: true, ..balanced() };
        let endpoints =
            || vec![endpoint(1, "node-1", "r"), endpoint(2, "node-2", "st"), endpoint(3, "", "r")];
        let of_nodes = [
            "10.96.0.1 80 internal 0x1 10.1.0.1 10.1.0.3",
            "192.0.2.1 80 internal 0xa0 10.1.0.1 10.1.0.3",
            "198.51.100.1 80 internal 0xc0 10.1.0.1 10.1.0.3",
            // The cluster IP is an external address to those outside.
            "10.96.0.1 80 external 0xa0 10.1.0.1",
            "172.18.0.1 30080 internal 0x90 10.1.0.1",
            "192.0.2.1 80 external 0xa0 10.1.0.1",
            "198.51.100.1 80 external 0xc0 10.1.0.1",
            // A node whose endpoints all end has those.
            "172.18.0.2 30080 internal 0x90 10.1.0.2",
            // All others have none.
            "0.0.0.0 30080 internal 0x90 ",
        ];
        assert_eq!(outer(&service, endpoints()), of_nodes);
        let both = ServiceObject { internal_local: true, ..service };
        let mut lines = of_nodes.map(str::to_owned);
        lines[0] = "10.96.0.1 80 internal 0x3 10.1.0.1".to_owned();
        let mut found = outer(&both, endpoints());
        found.sort();
        lines.sort();
        assert_eq!(found, lines);
        let nobody = outer(&both, vec![endpoint(9, "node-9", "r")]);
        assert!(nobody.iter().all(|line| !line.contains("172.18") && !line.contains("external 0xc0 10")));
    }

    #[test]
    fn ready_endpoints_take_new_connections_and_ending_ones_if_there_are_no_others() {
        let plain = F::CLUSTER_IP;
        for (endpoints, active, kept, flags) in [
            (vec![(3, "r"), (1, "r"), (2, "")], vec![1, 3], vec![], plain),
            (vec![(1, "r"), (2, "st"), (3, "t")], vec![1], vec![2], plain),
            (vec![(1, ""), (2, "st"), (3, "t"), (4, "st")], vec![2, 4], vec![], plain | F::ENDING),
            // Pods that are published whether they are ready or not are ready also when they end.
            (vec![(1, "rt"), (2, "st")], vec![1], vec![2], plain),
            (vec![(1, "s"), (2, "t")], vec![], vec![], plain),
            (vec![], vec![], vec![], plain),
        ] {
            let endpoints: Vec<_> =
                endpoints.into_iter().map(|(n, flags)| endpoint(n, "node-2", flags)).collect();
            let found = of(&web(), &[slice(endpoints.clone())]);
            assert_eq!(found, (active, kept, flags), "{endpoints:?}");
        }
    }

    #[test]
    fn local_traffic_knows_endpoints_of_the_node_alone() {
        let service = ServiceObject { internal_local: true, ..web() };
        let local = F::CLUSTER_IP | F::INTERNAL_LOCAL;
        let far = [endpoint(1, "node-2", "r"), endpoint(2, "", "r")];
        let all = |near: SliceEndpoint| [slice(far.to_vec()), slice(vec![near])];
        assert_eq!(of(&service, &all(endpoint(3, "node-1", "r"))), (vec![3], vec![], local));
        // Its own that end come before ready ones elsewhere.
        assert_eq!(of(&service, &all(endpoint(3, "node-1", "st"))), (vec![3], vec![], local | F::ENDING));
        assert_eq!(of(&service, &[slice(far.to_vec())]), (vec![], vec![], local));
    }

    #[test]
    fn hints_are_followed_when_all_have_them_and_one_is_meant_for_here() {
        let hint = |n, zones: &[&str], nodes: &[&str]| SliceEndpoint {
            zones: names(zones),
            nodes: names(nodes),
            ..endpoint(n, "node-2", "r")
        };
        let hinted = F::CLUSTER_IP | F::ZONE_HINTS;
        let zones = [hint(1, &["z1"], &[]), hint(2, &["z2"], &[]), hint(3, &["z2", "z1"], &[])];
        assert_eq!(of(&web(), &[slice(zones.to_vec())]), (vec![1, 3], vec![2], hinted));
        // One that ends needs none.
        let ending = [zones.to_vec(), vec![endpoint(4, "node-2", "st")]].concat();
        assert_eq!(of(&web(), &[slice(ending)]), (vec![1, 3], vec![2, 4], hinted));
        let one_without = [zones.to_vec(), vec![endpoint(4, "node-2", "r")]].concat();
        assert_eq!(of(&web(), &[slice(one_without)]), (vec![1, 2, 3, 4], vec![], F::CLUSTER_IP));
        let elsewhere = vec![hint(1, &["z2"], &[]), hint(2, &["z3"], &[])];
        assert_eq!(of(&web(), &[slice(elsewhere)]), (vec![1, 2], vec![], F::CLUSTER_IP));
        let nodes = vec![hint(1, &["z1"], &["node-2"]), hint(2, &["z2"], &["node-1"])];
        assert_eq!(of(&web(), &[slice(nodes)]), (vec![2], vec![1], hinted), "the node comes before the zone");
        let local = ServiceObject { internal_local: true, ..web() };
        let here = |n, zone: &str| SliceEndpoint { zones: names(&[zone]), ..endpoint(n, "node-1", "r") };
        let found = of(&local, &[slice(vec![here(1, "z1"), here(2, "z2")])]);
        assert_eq!(found, (vec![1, 2], vec![], F::CLUSTER_IP | F::INTERNAL_LOCAL), "what is here is near");
    }

    #[test]
    fn an_endpoint_in_two_slices_is_one_and_counts_as_the_better() {
        let slices = [
            slice(vec![endpoint(1, "", "")]),
            slice(vec![endpoint(1, "", "r")]),
            slice(vec![endpoint(1, "", "t")]),
        ];
        assert_eq!(of(&web(), &slices), (vec![1], vec![], F::CLUSTER_IP));
    }

    #[test]
    fn ports_meet_by_name_and_protocol_and_families_are_apart() {
        let service = ServiceObject {
            cluster_ips: [ip("10.96.0.1"), ip("fd00:96::1")].into(),
            ports: vec![port("web", 6, 80), port("dns", 17, 53), port("dns-tcp", 6, 53)],
            affinity_s: Some(9),
            ..web()
        };
        let six = SliceEndpoint { address: ip("fd00::1"), ..endpoint(0, "", "r") };
        let slices = [
            SliceObject {
                ports: vec![
                    port("web", 6, 8080),
                    port("dns", 17, 5353),
                    port("dns", 6, 1),
                    port("other", 6, 2),
                ],
                endpoints: vec![endpoint(1, "", "r")],
                ..SliceObject::default()
            },
            // Of some pods the named port has another number.
            SliceObject {
                ports: vec![port("web", 6, 9090)],
                endpoints: vec![endpoint(2, "", "r"), six],
                ..slice(vec![])
            },
        ];
        let text = |offer: Offer| {
            let (front, _) = offer.frontends.iter().next().unwrap();
            assert_eq!((offer.frontends.len(), offer.affinity_s), (1, 9));
            let words = [format!("{} {} {}", front.address, front.proto, front.port)];
            let places = offer.active.iter().map(|(address, port)| format!("{address}:{port}"));
            words.into_iter().chain(places).collect::<Vec<_>>().join(" ")
        };
        let found: Vec<String> =
            offers((&named(&service), &service), &slices.iter(), &here()).into_iter().map(text).collect();
        assert_eq!(
            found,
            [
                "10.96.0.1 6 80 10.1.0.1:8080 10.1.0.2:9090",
                "10.96.0.1 17 53 10.1.0.1:5353",
                "10.96.0.1 6 53",
                "fd00:96::1 6 80 fd00::1:9090",
                "fd00:96::1 17 53",
                "fd00:96::1 6 53",
            ]
        );
        let anothers = ServiceObject { is_anothers: true, ..service };
        assert!(offers((&named(&anothers), &anothers), &slices.iter(), &here()).is_empty());
        let headless = ServiceObject { cluster_ips: [].into(), ..web() };
        assert!(offers((&named(&headless), &headless), &slices.iter(), &here()).is_empty());
    }

    #[test]
    fn rows_come_back_as_they_were_written() {
        let service = ServiceObject { affinity_s: Some(7), ..web() };
        let slices = [slice(vec![endpoint(1, "", "r"), endpoint(2, "", "r")])];
        let offer = offers((&named(&service), &service), &slices.iter(), &here()).remove(0);
        let (frontend, own) = offer.frontends.iter().next().unwrap();
        let rows = rows((frontend, *own), &offer, 5, &[21, 22]);
        assert_eq!(rows.iter().map(|(key, _)| key.slot).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(rows[2].1, ServiceEntry::frontend(5, 2, 7, F::CLUSTER_IP));
        for (key, entry) in rows {
            let row = Row { key: key.as_bytes().to_vec(), value: entry.as_bytes().to_vec() };
            assert_eq!(parse(&row), Some((key, entry)));
        }
        for state in [BackendState::Active, BackendState::Terminating] {
            let name = BackendName { service: 5, place: (ip("fd00::1"), 80) };
            let entry = backend(&name, 17, state);
            let row = Row { key: 9_u32.as_bytes().to_vec(), value: entry.as_bytes().to_vec() };
            assert_eq!(parse_backend(&row), Some((9, entry)));
            assert_eq!(BackendName::of(&entry), Some(name));
        }
    }

    #[test]
    fn foreign_bytes_are_no_rows() {
        let scope = ServiceScope::External;
        let key = Frontend { address: ip("10.96.0.1"), proto: 6, port: 80, scope }.key();
        let row = |key: ServiceKey, entry: ServiceEntry| Row {
            key: key.as_bytes().to_vec(),
            value: entry.as_bytes().to_vec(),
        };
        for row in [
            row(ServiceKey { scope: 2, ..key }, ServiceEntry::frontend(1, 0, 0, F::CLUSTER_IP)),
            row(key, ServiceEntry::slot(1, 2)),
            row(key.slot(1), ServiceEntry::frontend(1, 0, 0, F::CLUSTER_IP)),
            row(key.slot(1), ServiceEntry { count: 1, ..ServiceEntry::slot(1, 2) }),
            row(ServiceKey { family: 9, ..key }, ServiceEntry::frontend(1, 0, 0, F::CLUSTER_IP)),
            row(key, ServiceEntry::frontend(0, 0, 0, F::CLUSTER_IP)),
            Row { key: vec![1], value: vec![] },
        ] {
            assert_eq!(parse(&row), None);
        }
        let name = BackendName { service: 5, place: (ip("10.1.0.1"), 80) };
        let entry = backend(&name, 6, BackendState::Active);
        for (number, entry) in [
            (0_u32, entry),
            (9, BackendEntry { state: 9, ..entry }),
            (9, BackendEntry { family: 0, ..entry }),
            (9, BackendEntry { pad: [1; 3], ..entry }),
        ] {
            let row = Row { key: number.as_bytes().to_vec(), value: entry.as_bytes().to_vec() };
            assert_eq!(parse_backend(&row), None);
        }
    }
}
