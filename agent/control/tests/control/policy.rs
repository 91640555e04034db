//! Identities and policies: what a pod may do, at every moment.

mod change;
mod endpoint_config;
mod explain;
mod host;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use agent_control::ports::{PortErrorKind, Table};
use agent_control::{
    Event, NamespaceObject, NodeObject, Object, ObjectKind, ObjectName, PodObject, PolicyConfig, PortError,
    RequestId, Routing, ServiceObject, SliceObject, named_port,
};
use agent_crd::identity_labels::{DEFAULT_CLUSTER, PodFacts};
use agent_crd::{CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy, IdentityLabels, Object as _};
use dataplane_abi::endpoints::EndpointFlags;
use dataplane_abi::policy::{Direction, L4Key, PolicyEntry, PolicyFlags, PolicyKey, PolicyVerdict};
use serde_json::json;
use zerocopy::FromBytes as _;

use crate::world::{World, add, node, underlay};

/// Objects of a cluster of three nodes; pods "a", "b", "c" in namespace "default" are to be on the own node.
#[derive(Clone)]
struct Objects(BTreeMap<(ObjectKind, ObjectName), Object>);

impl Objects {
    fn new() -> Self {
        let mut objects = Self(BTreeMap::new());
        let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), "default".to_owned())]);
        objects.set(Object::Namespace(NamespaceObject { name: "default".to_owned(), labels }));
        for (number, app) in [(300, "a"), (301, "b"), (302, "c"), (303, "far")] {
            objects.set(Object::Identity(CiliumIdentity::new(number, &identity_labels(app))));
        }
        for app in ["a", "b", "c"] {
            objects.set(pod(app, app));
        }
        objects.set(far("far", 303, "10.10.2.9", "172.30.0.2"));
        objects
    }

    fn set(&mut self, object: Object) -> &mut Self {
        self.0.insert((object.kind(), object.name()), object);
        self
    }

    fn remove(&mut self, kind: ObjectKind, namespace: &str, name: &str) -> &mut Self {
        self.0.remove(&(kind, ObjectName::new(namespace, name))).unwrap();
        self
    }

    fn without(mut self, kind: ObjectKind) -> Self {
        self.0.retain(|(own, _), _| *own != kind);
        self
    }
}

fn identity_labels(app: &str) -> IdentityLabels {
    identity_labels_in(DEFAULT_CLUSTER, app)
}

fn identity_labels_in(cluster: &str, app: &str) -> IdentityLabels {
    IdentityLabels::of_pod(&PodFacts {
        labels: &BTreeMap::from([("app".to_owned(), app.to_owned())]),
        namespace: "default",
        namespace_labels: &BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), "default".to_owned())]),
        service_account: "",
        cluster,
        filter: agent_crd::LabelFilter::DEFAULT,
    })
}

fn pod(name: &str, app: &str) -> Object {
    Object::Pod(PodObject {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        service_account: String::new(),
        named_ports: named_port("http", "TCP", 8080).into_iter().collect(),
    })
}

fn far(name: &str, identity: u32, address: &str, node: &str) -> Object {
    let object = CiliumEndpoint::from_json(json!({
        "metadata": {"namespace": "default", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {
            "identity": {"id": identity},
            "networking": {"addressing": [{"ipv4": address}], "node": node},
        },
    }));
    Object::Endpoint((&object.unwrap()).into())
}

fn in_zone(n: u16, zone: &str) -> NodeObject {
    NodeObject { labels: BTreeMap::from([("zone".to_owned(), zone.to_owned())]), ..node(n) }
}

fn policy(name: &str, spec: &serde_json::Value) -> Object {
    let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
    Object::CiliumNetworkPolicy(CiliumNetworkPolicy::from_json(object).unwrap())
}

/// To "a" from "b" on port 8080, from a CIDR on 443, and from nobody else.
fn first() -> Object {
    policy(
        "p",
        &json!({
            "endpointSelector": {"matchLabels": {"app": "a"}},
            "ingress": [
                {"fromEndpoints": [{"matchLabels": {"app": "b"}}], "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}]},
                {"fromCIDR": ["192.0.2.0/24"], "toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}]}]},
            ],
        }),
    )
}

/// To "a" from everybody but "b" and a part of a CIDR, on some ports.
fn second() -> Object {
    policy(
        "p",
        &json!({
            "endpointSelector": {"matchLabels": {"app": "a"}},
            "ingress": [
                {"fromEntities": ["all"], "toPorts": [{"ports": [{"port": "8000", "endPort": 8100, "protocol": "TCP"}, {"port": "443", "protocol": "TCP"}]}]},
                {"fromEndpoints": [{"matchLabels": {"app": "c"}}]},
            ],
            "ingressDeny": [
                {"fromEndpoints": [{"matchLabels": {"app": "b"}}]},
                {"fromCIDRSet": [{"cidr": "192.0.0.0/16", "except": ["192.0.2.128/25"]}]},
            ],
        }),
    )
}

/// To "a" from nodes of one zone, and from some outside.
fn third() -> Object {
    policy(
        "p",
        &json!({
            "endpointSelector": {"matchLabels": {"app": "a"}},
            "ingress": [
                {"fromNodes": [{"matchLabels": {"zone": "east"}}]},
                {"fromCIDR": ["192.0.2.0/24"]},
            ],
        }),
    )
}

impl World {
    fn with_policy() -> Self {
        Self::in_cluster(DEFAULT_CLUSTER)
    }

    fn in_cluster(name: &str) -> Self {
        let mut config = agent_control::Config::new(crate::world::OWN, Routing::Vxlan);
        let mut policy = PolicyConfig::default();
        name.clone_into(&mut policy.engine.cluster);
        config.policy = Some(policy);
        World::with(config)
    }

    fn nodes(&mut self) {
        self.event(Event::Underlay(underlay()));
        self.event(Event::NodeListStarted);
        for n in 1..=3 {
            self.event(Event::NodeUpsert(in_zone(n, if n == 3 { "west" } else { "east" })));
        }
        self.event(Event::NodeListSynced);
    }

    fn list(&mut self, kind: ObjectKind, objects: &Objects) {
        self.event(Event::ListStarted(kind));
        for object in objects.0.values().filter(|object| object.kind() == kind) {
            self.event(Event::Upsert { object: Box::new(object.clone()), version: 1 });
        }
        self.event(Event::ListSynced(kind));
    }

    fn lists(&mut self, objects: &Objects) {
        for kind in ObjectKind::ALL {
            self.list(kind, objects);
        }
    }

    fn up(objects: &Objects) -> Self {
        let mut world = Self::with_policy();
        world.nodes();
        world.lists(objects);
        world.settle();
        for name in ["a", "b", "c"] {
            world.add(name).unwrap();
        }
        world
    }

    /// The pod `a` is to be added, and all is known but identities.
    fn with_a_pod_before_its_identity(objects: &Objects) -> (Self, RequestId) {
        let mut world = Self::with_policy();
        world.nodes();
        world.lists(&objects.clone().without(ObjectKind::Identity));
        world.settle();
        let request = world.request(add("a"));
        world.settle();
        (world, request)
    }

    fn upsert(&mut self, object: Object, version: u64) {
        self.event(Event::Upsert { object: Box::new(object), version });
    }

    fn address(&self, name: &str) -> IpAddr {
        let endpoint = self.agent.endpoints().into_iter().find(|endpoint| endpoint.pod == name).unwrap();
        IpAddr::V4(endpoint.ipv4.unwrap())
    }

    fn identity(&self, name: &str) -> u32 {
        self.endpoints()[&self.address(name)].identity.0
    }

    /// Identity of an address, as the dataplane finds it.
    fn identity_of(&self, address: IpAddr) -> u32 {
        let rows = self.ipcache();
        let covering = rows.iter().filter(|(prefix, _)| prefix.contains(&address));
        covering.max_by_key(|(prefix, _)| prefix.prefix_len()).unwrap().1.0
    }

    /// What the tables say of a TCP connection to a pod.
    fn allows(&self, to: IpAddr, from: IpAddr, port: u16) -> bool {
        self.judge(Direction::Ingress, to, from, port)
    }

    /// What the policy of a pod says of a TCP connection with a peer in a direction.
    fn judge(&self, direction: Direction, own: IpAddr, peer: IpAddr, port: u16) -> bool {
        let row = self.endpoints()[&own];
        let flag = match direction {
            Direction::Ingress => EndpointFlags::ENFORCE_INGRESS,
            Direction::Egress => EndpointFlags::ENFORCE_EGRESS,
        };
        if row.policy == 0 || !row.flags.contains(flag) {
            return true;
        }
        let decisions: BTreeMap<PolicyKey, PolicyEntry> = self
            .maps
            .rows(Table::Policy)
            .iter()
            .map(|(k, v)| (PolicyKey::read_from_bytes(k).unwrap(), PolicyEntry::read_from_bytes(v).unwrap()))
            .collect();
        let key = |identity| PolicyKey::new(row.policy, direction, dataplane_abi::Identity(identity));
        let entry = decisions.get(&key(self.identity_of(peer))).or_else(|| decisions.get(&key(0)));
        let Some(entry) = entry else { return false };
        let verdict = if entry.l4 == 0 { Some(entry.verdict) } else { self.by_port(entry.l4, port) };
        verdict.is_some_and(|verdict| verdict.flags == PolicyFlags::ALLOW)
    }

    fn by_port(&self, set: u32, port: u16) -> Option<PolicyVerdict> {
        let rows = self.maps.rows(Table::PolicyL4).iter();
        let rows = rows
            .map(|(k, v)| (L4Key::read_from_bytes(k).unwrap(), PolicyVerdict::read_from_bytes(v).unwrap()));
        let covers = |key: &L4Key| {
            let bits = u8::try_from(key.prefixlen.saturating_sub(L4Key::PROTO_BITS)).unwrap();
            key.set == set && (key.prefixlen == L4Key::ANY_BITS || *key == L4Key::ports(set, 6, port, bits))
        };
        rows.filter(|(key, _)| covers(key)).max_by_key(|(key, _)| key.prefixlen).map(|(_, verdict)| verdict)
    }

    /// What the tables say of connections to "a" from everywhere, on ports that matter.
    fn decisions(&self) -> BTreeMap<(IpAddr, u16), bool> {
        let to = self.address("a");
        let elsewhere = [
            "10.10.2.9",
            "192.0.2.1",
            "192.0.2.200",
            "192.0.3.1",
            "198.51.100.1",
            "172.30.0.2",
            "172.30.0.3",
        ];
        let mut peers: Vec<IpAddr> = elsewhere.iter().map(|text| text.parse().unwrap()).collect();
        peers.extend([self.address("b"), self.address("c")]);
        let ports = [80, 443, 8000, 8080, 8101];
        let pairs = peers.into_iter().flat_map(|peer| ports.map(|port| (peer, port)));
        pairs.map(|(peer, port)| ((peer, port), self.allows(to, peer, port))).collect()
    }
}

#[test]
fn pods_have_the_identities_of_their_labels() {
    let world = World::up(&Objects::new());
    assert_eq!(["a", "b", "c"].map(|name| world.identity(name)), [300, 301, 302]);
    assert_eq!(world.identity_of("10.10.2.9".parse().unwrap()), 303, "a pod elsewhere");
    assert_eq!(world.identity_of("10.10.2.10".parse().unwrap()), 3, "nobody that is known");
    assert!(world.decisions().values().all(|allowed| *allowed), "without policies all may pass");
    let published = world.agent.published();
    let names: Vec<&str> = published.keys().map(|name| name.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let status = &published[&ObjectName::new("default", "a")].status;
    assert_eq!(status.identity.as_ref().unwrap().id, Some(300));
    assert_eq!(status.networking.as_ref().unwrap().node.as_deref(), Some("172.30.0.1"));
}

#[test]
fn a_policy_is_in_force_and_goes() {
    let mut world = World::up(&Objects::new());
    world.upsert(first(), 7);
    world.settle();
    let allowed = |world: &World| -> BTreeSet<(String, u16)> {
        world
            .decisions()
            .iter()
            .filter(|(_, yes)| **yes)
            .map(|((ip, port), _)| (ip.to_string(), *port))
            .collect()
    };
    let b = world.address("b").to_string();
    let expected = [(b, 8080), ("192.0.2.1".into(), 443), ("192.0.2.200".into(), 443)];
    assert_eq!(allowed(&world), expected.into_iter().collect());
    assert_eq!(world.agent.policy_revision(), 7);
    assert_eq!(world.agent.findings(), Vec::new());
    let revision = world.node_config().revision;
    let gone = ObjectName::new("default", "p");
    world.event(Event::Delete { kind: ObjectKind::CiliumNetworkPolicy, name: gone, version: 9 });
    world.settle();
    assert!(world.decisions().values().all(|allowed| *allowed));
    assert!(world.node_config().revision > revision, "known connections are judged again");
    assert_eq!(world.agent.policy_revision(), 9);
    assert_eq!((world.maps.rows(Table::Policy).len(), world.maps.rows(Table::PolicyL4).len()), (0, 0));
    assert!(!world.ipcache().contains_key(&"192.0.2.0/24".parse().unwrap()));
}

#[test]
fn a_pod_waits_for_its_identity() {
    let objects = Objects::new();
    let (mut world, request) = World::with_a_pod_before_its_identity(&objects);
    assert!(world.answer(request).is_none(), "its number is not there yet");
    assert!(world.endpoints().values().all(|row| row.ifindex == 0), "and it cannot be taken for another");
    world.list(ObjectKind::Identity, &objects);
    world.settle();
    assert!(world.answer(request).unwrap().is_ok());
    assert_eq!(world.identity("a"), 300);
}

#[test]
fn identities_are_those_of_the_own_cluster() {
    let mut objects = Objects::new();
    objects.set(Object::Identity(CiliumIdentity::new(310, &identity_labels_in("prod", "a"))));
    let mut world = World::in_cluster("prod");
    world.nodes();
    world.lists(&objects);
    world.settle();
    let request = world.request(add("a"));
    world.settle();
    assert!(world.answer(request).unwrap().is_ok());
    assert_eq!(world.identity("a"), 310, "300 has the same labels in another cluster");
}

#[test]
fn a_pod_whose_identity_does_not_come_is_isolated() {
    let objects = Objects::new();
    let (mut world, request) = World::with_a_pod_before_its_identity(&objects);
    world.pass(CiliumIdentity::WAIT + Duration::from_secs(1));
    assert!(world.answer(request).unwrap().is_ok(), "the pod may start");
    assert_eq!(world.identity("a"), 5);
    assert!(!world.allows(world.address("a"), "10.10.2.9".parse().unwrap(), 80));
    world.list(ObjectKind::Identity, &objects);
    world.settle();
    assert_eq!(world.identity("a"), 300);
    assert!(world.allows(world.address("a"), "10.10.2.9".parse().unwrap(), 80));
}

#[test]
fn nothing_starts_before_policies_are_known() {
    let objects = Objects::new();
    let mut world = World::with_policy();
    world.nodes();
    for kind in ObjectKind::ALL.into_iter().filter(|kind| *kind != ObjectKind::NetworkPolicy) {
        world.list(kind, &objects);
    }
    world.settle();
    let error = world.add("a").unwrap_err();
    assert!(error.to_string().contains("NetworkPolicy"), "{error}");
    world.list(ObjectKind::NetworkPolicy, &objects);
    world.settle();
    assert!(world.add("a").is_ok());
}

#[test]
fn a_change_of_labels_moves_a_pod() {
    let mut world = World::up(Objects::new().set(first()));
    let (a, b) = (world.address("a"), world.address("b"));
    assert!(world.allows(a, b, 8080));
    world.upsert(pod("b", "new"), 8);
    world.settle();
    assert_eq!(world.identity("b"), 301, "it keeps the one it has until the other is there");
    world.upsert(Object::Identity(CiliumIdentity::new(310, &identity_labels("new"))), 9);
    world.settle();
    assert!(world.allows(a, b, 8080), "so it does while others may not know the other");
    world.pass(CiliumIdentity::CHANGE_GRACE);
    assert_eq!(world.identity("b"), 310);
    assert!(!world.allows(a, b, 8080));
}

#[test]
fn of_two_that_claim_an_address_the_later_one_has_it() {
    let mut world = World::up(&Objects::new());
    let address = "10.10.2.9".parse().unwrap();
    let mut later = far("later", 302, "10.10.2.9", "172.30.0.2");
    if let Object::Endpoint(endpoint) = &mut later {
        endpoint.created = "2026-01-01T00:00:07Z".into();
    }
    world.upsert(later, 8);
    world.settle();
    assert_eq!(world.identity_of(address), 302);
    let gone = ObjectName::new("default", "far");
    world.event(Event::Delete { kind: ObjectKind::Endpoint, name: gone, version: 9 });
    world.settle();
    assert_eq!(world.identity_of(address), 302);
}

#[test]
fn only_the_node_of_an_address_says_whose_it_is() {
    let mut world = World::up(&Objects::new());
    for (n, address, node) in [
        (1, "10.10.2.50", "172.30.0.3"),
        (2, "10.10.1.50", "172.30.0.2"),
        (3, "198.51.100.7", "172.30.0.2"),
        (4, "172.30.0.3", "172.30.0.3"),
    ] {
        world.upsert(far(&format!("liar-{n}"), 301, address, node), 8);
        world.settle();
        assert_ne!(world.identity_of(address.parse().unwrap()), 301, "{address}");
    }
}

#[test]
fn a_restart_writes_nothing_whatever_comes_first() {
    let objects = Objects::new().set(second()).clone();
    let mut world = World::up(&objects);
    let before = world.decisions();
    for shift in 0..ObjectKind::ALL.len() {
        world.restart();
        world.settle();
        let mut kinds = ObjectKind::ALL;
        kinds.rotate_left(shift);
        for kind in kinds {
            world.list(kind, &objects);
            world.settle();
            assert_eq!(world.decisions(), before);
        }
        world.nodes();
        world.settle();
        assert_eq!(world.rows_changed(), 0, "from kind {shift} on");
        assert_eq!(world.decisions(), before);
    }
}

/// Kinds of which nothing may rest on the order in which they are heard.
fn restarts_in_any_order(world: &mut World, objects: &Objects) {
    // Rows that nobody looked up any more went after the revision was raised: the next look sees that.
    world.reconcile();
    let rows = [Table::Ipcache, Table::Policy, Table::PolicyL4, Table::Endpoints];
    let before = rows.map(|table| world.maps.rows(table).clone());
    for shift in 0..=ObjectKind::ALL.len() {
        world.restart();
        world.settle();
        if shift == ObjectKind::ALL.len() {
            world.nodes();
            world.settle();
        }
        let mut kinds = ObjectKind::ALL;
        kinds.rotate_left(shift % ObjectKind::ALL.len());
        for kind in kinds {
            world.list(kind, objects);
            world.settle();
        }
        if shift < ObjectKind::ALL.len() {
            world.nodes();
            world.settle();
        }
        assert_eq!(world.rows_changed(), 0, "from kind {shift} on");
        assert_eq!(rows.map(|table| world.maps.rows(table).clone()), before);
    }
}

fn service(name: &str, selector: &[(&str, &str)]) -> Object {
    let selector = selector.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Object::Service(ServiceObject {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        labels: [("tier".to_owned(), "back".to_owned())].into(),
        selector,
        ..ServiceObject::default()
    })
}

fn slice(service: &str, n: u8, addresses: &[&str]) -> Object {
    Object::EndpointSlice(SliceObject {
        namespace: "default".to_owned(),
        name: format!("{service}-{n}"),
        service: service.to_owned(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ..SliceObject::default()
    })
}

/// From "a" to services alone.
fn to_services() -> Object {
    policy(
        "p",
        &json!({
            "endpointSelector": {"matchLabels": {"app": "a"}},
            "egress": [{"toServices": [
                {"k8sService": {"serviceName": "pods"}},
                {"k8sServiceSelector": {"selector": {"matchLabels": {"tier": "back"}}, "namespace": "default"}},
            ]}],
        }),
    )
}

#[test]
fn services_stand_for_their_pods_or_for_the_addresses_of_their_endpoints() {
    let mut objects = Objects::new();
    objects.set(to_services()).set(service("pods", &[("app", "b")])).set(service("far", &[]));
    objects.set(slice("far", 1, &["192.0.2.1"])).set(slice("pods", 1, &["192.0.2.9"]));
    let mut world = World::up(&objects);
    let (a, b, c) = (world.address("a"), world.address("b"), world.address("c"));
    let reaches = |world: &World, to: IpAddr| world.judge(Direction::Egress, a, to, 80);
    let outside = |text: &str| -> IpAddr { text.parse().unwrap() };
    assert!(reaches(&world, b) && !reaches(&world, c), "the selector counts, not the slices");
    assert!(reaches(&world, outside("192.0.2.1")));
    assert!(!reaches(&world, outside("192.0.2.2")) && !reaches(&world, outside("192.0.2.9")));
    assert_eq!(world.agent.findings(), Vec::new());
    restarts_in_any_order(&mut world, &objects);

    objects.set(slice("far", 1, &["192.0.2.2"])).set(slice("far", 2, &["192.0.2.1"]));
    objects.set(service("pods", &[("app", "c")]));
    for object in objects.0.values().filter(|object| object.kind() == ObjectKind::EndpointSlice) {
        world.upsert(object.clone(), 7);
    }
    world.upsert(service("pods", &[("app", "c")]), 8);
    world.settle();
    assert!(!reaches(&world, b) && reaches(&world, c));
    assert!(reaches(&world, outside("192.0.2.1")) && reaches(&world, outside("192.0.2.2")));
    restarts_in_any_order(&mut world, &objects);

    for kind in [ObjectKind::EndpointSlice, ObjectKind::Service] {
        world.list(kind, &Objects::new());
        world.settle();
    }
    assert!(!reaches(&world, c) && !reaches(&world, outside("192.0.2.1")));
    assert!(!world.ipcache().contains_key(&"192.0.2.1/32".parse().unwrap()));
    assert_eq!(world.agent.findings().len(), 1, "a service by name is missing");
}

#[test]
fn nodes_are_told_apart_while_a_policy_asks_for_their_labels() {
    let mut objects = Objects::new();
    let mut world = World::up(&objects);
    let a = world.address("a");
    let [east, east6, west] =
        ["172.30.0.2", "fd00:30::2", "172.30.0.3"].map(|text| text.parse::<IpAddr>().unwrap());
    // From these they send to pods through the tunnel.
    let [east_router, west_router] = ["10.10.2.1", "10.10.3.1"].map(|text| text.parse::<IpAddr>().unwrap());
    let all = [east, east6, west, east_router, west_router];
    assert_eq!(all.map(|address| world.identity_of(address)), [6; 5]);

    objects.set(third());
    world.upsert(third(), 7);
    world.settle();
    assert!(world.allows(a, east, 80) && world.allows(a, east6, 80) && !world.allows(a, west, 80));
    assert!(world.allows(a, east_router, 80) && !world.allows(a, west_router, 80));
    let identity = world.identity_of(east);
    assert!(identity > 0x0200_0000, "{identity:#x}");
    assert_eq!([east6, east_router].map(|address| world.identity_of(address)), [identity; 2]);
    assert_ne!(world.identity_of(west), identity);
    restarts_in_any_order(&mut world, &objects);

    world.event(Event::NodeUpsert(in_zone(3, "east")));
    world.settle();
    assert_eq!(world.identity_of(west), identity, "equal labels are one peer");
    assert!(world.allows(a, west, 80));
    world.event(Event::NodeUpsert(in_zone(2, "west")));
    world.settle();
    assert!(!world.allows(a, east, 80) && world.allows(a, west, 80));

    world.list(ObjectKind::CiliumNetworkPolicy, &Objects::new());
    world.settle();
    assert_eq!(all.map(|address| world.identity_of(address)), [6; 5]);
    assert_eq!(world.maps.rows(Table::Policy).len(), 0);
}

/// A node that joins at the moment at which nodes begin to be told apart lends the others nothing that held for its address.
#[test]
fn a_node_that_joins_changes_nothing_for_others_with_its_labels() {
    let east: IpAddr = "172.30.0.2".parse().unwrap();
    let changed = || {
        let mut world = World::up(&Objects::new());
        // Its address comes before that of the other one in every order.
        let addresses = vec!["172.29.0.1".to_owned()];
        let joins = NodeObject { internal_ips: addresses, pod_cidrs: Vec::new(), ..in_zone(4, "east") };
        world.upsert(third(), 7);
        world.event(Event::NodeUpsert(joins));
        world.faults.revive();
        world
    };
    let mut whole = changed();
    whole.settle();
    assert_eq!(whole.identity_of(east), whole.identity_of("172.29.0.1".parse().unwrap()));
    let calls = whole.faults.calls();
    assert!(calls > 5);
    for call in 0..=calls {
        let mut world = changed();
        world.faults.crash_after(call);
        world.reconcile();
        assert!(world.allows(world.address("a"), east, 80), "after call {call}");
    }
}

/// "a" may speak with API servers, and they with it.
fn api_server() -> Object {
    policy(
        "p",
        &json!({
            "endpointSelector": {"matchLabels": {"app": "a"}},
            "ingress": [{"fromEntities": ["kube-apiserver"]}],
            "egress": [{"toEntities": ["kube-apiserver"]}],
        }),
    )
}

#[test]
fn api_servers_are_known_by_the_endpoints_of_their_service() {
    let mut objects = Objects::new();
    objects.set(api_server()).set(slice("kubernetes", 1, &["172.30.0.3", "198.51.100.1"]));
    let mut world = World::up(&objects);
    let a = world.address("a");
    let [host, other, node, outside, beside] =
        ["172.30.0.1", "172.30.0.2", "172.30.0.3", "198.51.100.1", "198.51.100.2"]
            .map(|text| text.parse::<IpAddr>().unwrap());
    assert_eq!([host, other, node].map(|address| world.identity_of(address)), [1, 6, 7]);
    let allowed = |world: &World| {
        [host, other, node, outside, beside].map(|peer| world.judge(Direction::Egress, a, peer, 80))
    };
    assert_eq!(allowed(&world), [false, false, true, true, false]);
    assert!(world.allows(a, node, 80) && world.allows(a, outside, 80) && !world.allows(a, other, 80));
    restarts_in_any_order(&mut world, &objects);

    let moved = slice("kubernetes", 1, &["172.30.0.1", "fd00:30::2", "198.51.100.2"]);
    objects.set(moved.clone());
    world.upsert(moved, 8);
    world.settle();
    assert_eq!([host, other, node].map(|address| world.identity_of(address)), [1, 7, 6]);
    assert_eq!(allowed(&world), [true, true, false, false, true]);
    assert!(!world.ipcache().contains_key(&"198.51.100.1/32".parse().unwrap()));
    restarts_in_any_order(&mut world, &objects);

    world.list(ObjectKind::EndpointSlice, &Objects::new());
    world.settle();
    assert_eq!(allowed(&world), [false; 5]);
}

#[test]
fn an_object_that_cannot_be_read_stays_as_it_was() {
    let mut world = World::up(Objects::new().set(first()));
    let before = world.decisions();
    let name = ObjectName::new("default", "p");
    let error = "spec.ingress: not a list".to_owned();
    world.event(Event::Unreadable { kind: ObjectKind::CiliumNetworkPolicy, name, error });
    world.upsert(policy("p", &json!({"endpointSelector": {"matchLabels": {"app": "a"}}})), 9);
    world.settle();
    assert_eq!(world.decisions(), before);
    let findings = world.agent.findings();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].subject, "CiliumNetworkPolicy/default/p");
}

/// Whatever the moment at which the agent dies, what is allowed was allowed before or is allowed afterwards.
#[test]
fn dies_after_every_single_call_of_a_change_of_policy() {
    let with = |policy: Option<Object>| {
        let mut objects = Objects::new();
        if let Some(policy) = policy {
            objects.set(policy);
        }
        objects
    };
    let states = [with(None), with(Some(first())), with(Some(second())), with(Some(third()))];
    let changes = [(0, 1), (1, 2), (2, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0), (2, 3), (3, 2)];
    for (from, to) in changes {
        let (from, to) = (&states[from], &states[to]);
        let change = |world: &mut World| world.list(ObjectKind::CiliumNetworkPolicy, to);
        let mut whole = World::up(from);
        let old = whole.decisions();
        whole.faults.revive();
        change(&mut whole);
        whole.settle();
        let (new, calls) = (whole.decisions(), whole.faults.calls());
        assert!(calls > 3);
        for call in 0..calls {
            let mut world = World::up(from);
            world.faults.revive();
            world.faults.crash_after(call);
            world.faults.record();
            change(&mut world);
            world.reconcile();
            let found = world.decisions();
            let log = world.faults.recorded();
            for (at, allowed) in &found {
                assert!(
                    *allowed == old[at] || *allowed == new[at],
                    "{at:?} after call {call}: {allowed}, before {}, afterwards {}\n{log:#?}",
                    old[at],
                    new[at]
                );
            }
            world.restart();
            world.settle();
            assert_eq!(world.decisions(), found, "a new agent that knows nothing changes nothing");
            world.nodes();
            world.lists(to);
            world.settle();
            assert_eq!(world.decisions(), new, "after call {call}");
            assert_eq!(world.maps.rows(Table::Policy), whole.maps.rows(Table::Policy));
            assert_eq!(world.maps.rows(Table::PolicyL4), whole.maps.rows(Table::PolicyL4));
        }
    }
}

/// What cannot be written holds back what rests on it.
#[test]
fn a_full_table_opens_nothing() {
    for table in ["POLICY", "POLICY_L4", "IPCACHE"] {
        let mut world = World::up(Objects::new().set(first()));
        let old = world.decisions();
        let full = PortError::retryable(format!("write {table}"), "no room").with_kind(PortErrorKind::Full);
        world.faults.refuse(format!("upsert {table} "), full);
        world.faults.record();
        world.upsert(second(), 8);
        world.settle();
        let log = world.faults.recorded();
        let new = {
            let mut other = World::up(Objects::new().set(second()));
            other.settle();
            other.decisions()
        };
        for (at, allowed) in world.decisions() {
            assert!(allowed == old[&at] || allowed == new[&at], "{table} {at:?}\n{log:#?}");
        }
        assert_ne!(world.agent.policy_revision(), 8, "{table}");
        world.faults.accept();
        world.pass(Duration::from_mins(3));
        assert_eq!(world.decisions(), new, "{table}");
        assert_eq!(world.agent.policy_revision(), 8, "{table}");
    }
}

#[test]
fn what_is_not_listed_any_more_is_gone() {
    let mut objects = Objects::new();
    objects.set(first());
    let mut world = World::up(&objects);
    objects.remove(ObjectKind::CiliumNetworkPolicy, "default", "p");
    objects.remove(ObjectKind::Endpoint, "default", "far");
    world.event(Event::ListStarted(ObjectKind::CiliumNetworkPolicy));
    world.event(Event::ListStarted(ObjectKind::CiliumNetworkPolicy));
    world.settle();
    assert!(!world.decisions().values().all(|allowed| *allowed), "a list that is cut short removes nothing");
    world.lists(&objects);
    world.settle();
    assert!(world.decisions().values().all(|allowed| *allowed));
    assert_eq!(world.identity_of("10.10.2.9".parse().unwrap()), 3);
}

#[test]
fn a_pod_whose_document_is_lost_keeps_its_policy() {
    let objects = Objects::new().set(first()).clone();
    let mut world = World::up(&objects);
    let (a, b) = (world.address("a"), world.address("b"));
    world.agent = agent_control::Agent::new(world.config.clone(), Vec::new());
    world.settle();
    world.nodes();
    world.lists(&objects);
    world.settle();
    assert_eq!(world.endpoints()[&a].identity.0, 300);
    assert!(world.allows(a, b, 8080));
    assert!(!world.allows(a, "10.10.2.9".parse().unwrap(), 8080));
}
