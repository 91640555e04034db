//! Services: where calls go, at every moment, beside what the oracle says of the same objects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use agent_control::ports::{PortError, PortErrorKind, Program, Table};
use agent_control::{
    Config, Event, NodeObject, Object, ObjectKind, ObjectName, PolicyConfig, Routing, ServiceTranslation,
    Severity,
};
use dataplane_abi::backends::{BackendEntry, BackendState};
use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::services::{ServiceEntry, ServiceKey, ServiceScope};
use dataplane_abi::{Addr, Be16};
use proptest::prelude::*;
use serde_json::{Value, json};
use sim_oracle::{Backend, Cluster, End, Protocol, Translation};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::world::{OWN, World, node, underlay};

const KINDS: [ObjectKind; 2] = [ObjectKind::Service, ObjectKind::EndpointSlice];

/// Objects by kind and name, as the API has them.
#[derive(Clone, Default)]
struct Objects(BTreeMap<(ObjectKind, String), Value>);

impl Objects {
    fn of(objects: impl IntoIterator<Item = Value>) -> Self {
        let mut all = Self::default();
        objects.into_iter().for_each(|object| all.set(object));
        all
    }

    fn set(&mut self, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.0.insert((ObjectKind::of(&object).unwrap(), name), object);
    }

    fn of_kind(&self, kind: ObjectKind) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |((of, _), _)| *of == kind).map(|(_, object)| object)
    }
}

/// A service of namespace "default" with ports web (80 to 8080) and dns (UDP 53 to 5353) and the cluster IPs of a number. Of a type
/// that has node ports these are 30000 and 31000 and the number.
fn service(name: &str, vip: u8, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "clusterIP": format!("10.96.0.{vip}"),
            "clusterIPs": [format!("10.96.0.{vip}"), format!("fd00:96::{vip}")],
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"name": "web", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        },
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    if matches!(object["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
        object["spec"]["ports"][0]["nodePort"] = json!(30_000 + u16::from(vip));
        object["spec"]["ports"][1]["nodePort"] = json!(31_000 + u16::from(vip));
    }
    object["status"] = json!({"loadBalancer": {"ingress": [{"ip": format!("198.51.100.{vip}")}]}});
    object
}

/// Addresses of both nodes.
fn nodes() -> impl Iterator<Item = IpAddr> {
    (1..=2).flat_map(|n| node(n).internal_ips).map(|ip| ip.parse().unwrap())
}

/// A slice: endpoints by the last byte of their address, their node and their conditions (`r`, `s`, `t`).
fn slice(service: &str, n: u8, is_v4: bool, endpoints: &[(u8, &str, &str)]) -> Value {
    let endpoint = |(last, node, flags): &(u8, &str, &str)| {
        json!({
            "addresses": [if is_v4 { format!("10.10.2.{last}") } else { format!("fd00:10:2::{last}") }],
            "nodeName": node,
            "conditions": {
                "ready": flags.contains('r'),
                "serving": flags.contains('r') || flags.contains('s'),
                "terminating": flags.contains('t'),
            },
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default", "name": format!("{service}-{n}"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": if is_v4 { "IPv4" } else { "IPv6" },
        "ports": [{"name": "web", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// Addresses that the tests use, with the ports that services have there.
fn frontends() -> impl Iterator<Item = (SocketAddr, Protocol)> {
    let ports = |ip, first, second| {
        [(SocketAddr::new(ip, first), Protocol::Tcp), (SocketAddr::new(ip, second), Protocol::Udp)]
    };
    (1_u8..=6).flat_map(move |n| {
        let own = [
            IpAddr::from([10, 96, 0, n]),
            IpAddr::from([0xfd00, 0x96, 0, 0, 0, 0, 0, u16::from(n)]),
            IpAddr::from([192, 0, 2, n]),
            IpAddr::from([198, 51, 100, n]),
        ];
        let at_nodes = nodes().flat_map(move |ip| ports(ip, 30_000 + u16::from(n), 31_000 + u16::from(n)));
        own.into_iter().flat_map(move |ip| ports(ip, 80, 53)).chain(at_nodes)
    })
}

/// Where calls go: `None` it is no service, nowhere they fail.
type Way = Option<BTreeSet<SocketAddr>>;

/// The objects as the oracle has them.
fn oracle(objects: &Objects) -> Cluster {
    let mut cluster = Cluster::new();
    for object in objects.0.values() {
        cluster.set(object).unwrap();
    }
    for n in 1..=2 {
        let addresses = node(n).internal_ips;
        let addresses: Vec<_> =
            addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
        let object = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("node-{n}")}, "status": {"addresses": addresses}});
        cluster.set(&object).unwrap();
    }
    cluster
}

fn way_of(translation: Translation, counts: impl Fn(&Backend) -> bool) -> Way {
    match translation {
        Translation::NotAService => None,
        Translation::NoEndpoints { .. } => Some(BTreeSet::new()),
        Translation::Backends(all) => {
            Some(all.iter().filter(|b| counts(b)).map(|b| SocketAddr::new(b.ip, b.port)).collect())
        }
    }
}

/// What the oracle says of the same objects, to somebody on the node.
fn expected(objects: &Objects, to: SocketAddr, protocol: Protocol) -> Way {
    let client = End::Node { name: OWN.to_owned() };
    way_of(oracle(objects).translate(&client, to.ip(), protocol, to.port()), |_| true)
}

/// The same to somebody outside whose packets come to this node. With policies that know local endpoints alone the oracle says what
/// any node would do.
fn expected_outside(objects: &Objects, to: SocketAddr, protocol: Protocol) -> Way {
    let client = End::Outside(IpAddr::from([203, 0, 113, 9]));
    let is_local = objects.of_kind(ObjectKind::Service).any(|service| {
        let text = to.ip().to_string();
        let has_it = service["spec"]["externalIPs"].as_array().is_some_and(|all| all.contains(&json!(text)))
            || service["status"]["loadBalancer"]["ingress"][0]["ip"] == json!(text);
        has_it && service["spec"]["externalTrafficPolicy"] == "Local"
    });
    let counts = |backend: &Backend| !is_local || backend.node.as_deref() == Some(OWN);
    way_of(oracle(objects).translate(&client, to.ip(), protocol, to.port()), counts)
}

fn is_cluster_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 10,
        IpAddr::V6(ip) => ip.segments()[1] == 0x96,
    }
}

impl World {
    fn with_services() -> Self {
        let mut config = Config::new(OWN, Routing::Vxlan);
        config.kube_proxy_replacement = true;
        Self::with(config)
    }

    /// A node on which all is known and written.
    fn serving(objects: &Objects) -> Self {
        let mut world = Self::with_services();
        world.sync(2);
        world.hear(objects);
        world.settle();
        world
    }

    fn tell(&mut self, object: &Value) {
        let kind = ObjectKind::of(object).unwrap();
        if let Some(object) = Object::read(kind, object).unwrap() {
            self.event(Event::Upsert { object: Box::new(object), version: 0 });
        }
    }

    fn untell(&mut self, kind: ObjectKind, name: &str) {
        self.event(Event::Delete { kind, name: ObjectName::new("default", name), version: 0 });
    }

    /// Whole lists of both kinds.
    fn hear(&mut self, objects: &Objects) {
        for kind in KINDS {
            self.event(Event::ListStarted(kind));
            objects.of_kind(kind).for_each(|object| self.tell(object));
            self.event(Event::ListSynced(kind));
        }
    }

    fn service_row(&self, key: &ServiceKey) -> Option<ServiceEntry> {
        let row = self.maps.rows(Table::Services).get(key.as_bytes())?;
        Some(ServiceEntry::read_from_bytes(row).unwrap())
    }

    /// Where the tables send calls of those on the node.
    fn way(&self, to: SocketAddr, protocol: Protocol) -> Way {
        self.way_from(&[ServiceScope::Internal], to, protocol)
    }

    /// Where they send what comes from outside.
    fn way_outside(&self, to: SocketAddr, protocol: Protocol) -> Way {
        self.way_from(&[ServiceScope::External, ServiceScope::Internal], to, protocol)
    }

    /// What there is of the first of these scopes; at nodes, what there is for all of them.
    fn way_from(&self, scopes: &[ServiceScope], to: SocketAddr, protocol: Protocol) -> Way {
        let proto = if protocol == Protocol::Tcp { 6 } else { 17 };
        let at = |ip| {
            let (addr, family) = Addr::from_ip(ip);
            scopes
                .iter()
                .map(|scope| ServiceKey::frontend(addr, family, Be16::new(to.port()), proto, *scope))
                .find_map(|key| Some((key, self.service_row(&key)?)))
        };
        let all = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let (key, frontend) =
            at(to.ip()).or_else(|| nodes().any(|node| node == to.ip()).then(|| at(all)).flatten())?;
        let slot = |slot: u16| {
            let slot = self.service_row(&key.slot(slot)).unwrap_or_else(|| panic!("{to} has no slot {slot}"));
            let row = self.maps.rows(Table::Backends).get(slot.backend.as_bytes());
            let backend =
                BackendEntry::read_from_bytes(row.unwrap_or_else(|| panic!("{to}: {slot:?}"))).unwrap();
            SocketAddr::new(backend.ip().unwrap(), backend.port.get())
        };
        Some((1..=frontend.count).map(slot).collect())
    }

    fn ways(&self) -> Vec<Way> {
        frontends().map(|(to, protocol)| self.way(to, protocol)).collect()
    }

    /// The tables hold what the oracle says, and nothing else.
    fn assert_services(&self, objects: &Objects) {
        for (to, protocol) in frontends() {
            assert_eq!(self.way(to, protocol), expected(objects, to, protocol), "{to} {protocol:?}");
            // Cluster IPs are for those inside alone, which is not said by their rows.
            if !is_cluster_ip(to.ip()) {
                let outside = expected_outside(objects, to, protocol);
                assert_eq!(self.way_outside(to, protocol), outside, "{to} {protocol:?} from outside");
            }
        }
        let rows = self.maps.rows(Table::Services);
        let mut named = BTreeSet::new();
        for (key, row) in rows {
            let key = ServiceKey::read_from_bytes(key).unwrap();
            let front = self.service_row(&key.slot(0)).unwrap();
            assert!(key.slot <= front.count, "{key:?}");
            named.insert(ServiceEntry::read_from_bytes(row).unwrap().backend);
        }
        for (number, row) in self.maps.rows(Table::Backends) {
            let row = BackendEntry::read_from_bytes(row).unwrap();
            let active = row.state == BackendState::Active as u8;
            assert_eq!(active, named.contains(&u32::read_from_bytes(number).unwrap()), "{row:?}");
        }
    }

    fn service_tables(&self) -> [BTreeMap<Vec<u8>, Vec<u8>>; 2] {
        [Table::Services, Table::Backends].map(|table| self.maps.rows(table).clone())
    }
}

fn shop() -> Objects {
    Objects::of([
        service("shop", 1, &json!({})),
        slice("shop", 1, true, &[(1, "node-1", "r"), (2, "node-2", "r"), (3, "node-2", "st")]),
        slice("shop", 2, true, &[(4, "node-2", "")]),
        slice("shop", 3, false, &[(1, "node-1", "r")]),
        service("local", 2, &json!({"internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP"})),
        slice("local", 1, true, &[(1, "node-1", "st"), (2, "node-2", "r")]),
        service("ending", 3, &json!({})),
        slice("ending", 1, true, &[(1, "node-1", "st"), (2, "node-2", "st"), (3, "node-2", "t")]),
        service("headless", 4, &json!({"clusterIP": "None", "clusterIPs": ["None"]})),
        slice("headless", 1, true, &[(1, "node-1", "r")]),
        service(
            "outer",
            5,
            &json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "externalIPs": ["192.0.2.5"]}),
        ),
        slice("outer", 1, true, &[(1, "node-1", "r"), (2, "node-2", "r"), (3, "node-2", "r")]),
        slice("outer", 2, false, &[(2, "node-2", "st")]),
        service("ported", 6, &json!({"type": "NodePort", "internalTrafficPolicy": "Local"})),
        slice("ported", 1, true, &[(4, "node-2", "r"), (5, "node-1", "st")]),
    ])
}

#[test]
fn calls_go_where_the_objects_say() {
    let objects = shop();
    let world = World::serving(&objects);
    world.assert_services(&objects);
    assert!(world.node.sockets());
    let affinity: BTreeSet<(u8, u32)> = world
        .maps
        .rows(Table::Services)
        .iter()
        .map(|(key, row)| {
            (ServiceKey::read_from_bytes(key).unwrap(), ServiceEntry::read_from_bytes(row).unwrap())
        })
        .filter(|(key, _)| key.slot == 0 && key.family == 1 && key.addr.to_v4()[0] == 10)
        .map(|(key, row)| (key.addr.to_v4()[3], row.affinity_timeout_s))
        .collect();
    assert_eq!(affinity, BTreeSet::from([(1, 0), (2, 10_800), (3, 0), (5, 0), (6, 0)]));
    let told: Vec<String> = world
        .agent
        .services()
        .iter()
        .filter(|service| service.port == "web" && service.frontends[0].address.is_ipv4())
        .map(|service| {
            let ways = service.frontends.iter().map(|way| {
                let outside = if way.outside { " from outside" } else { "" };
                format!(" {} {}{outside},", way.kind, way.address)
            });
            let node = service.node.as_deref().map(|node| format!(" {node} only")).unwrap_or_default();
            let backends = service.backends.iter().map(|b| format!(" {}:{}", b.address.ip(), b.state));
            let (ways, backends) = (ways.collect::<String>(), backends.collect::<String>());
            format!("{}:{ways}{node}{backends}", service.name)
        })
        .collect();
    assert_eq!(
        told,
        [
            "ending: ClusterIP 10.96.0.3:80, 10.10.2.1:active 10.10.2.2:active",
            "local: ClusterIP 10.96.0.2:80, node-1 only 10.10.2.1:active",
            "outer: ClusterIP 10.96.0.5:80, ExternalIP 192.0.2.5:80, LoadBalancer 198.51.100.5:80, \
             10.10.2.1:active 10.10.2.2:active 10.10.2.3:active",
            "outer: NodePort 172.30.0.1:30005, ExternalIP 192.0.2.5:80 from outside, \
             LoadBalancer 198.51.100.5:80 from outside, node-1 only 10.10.2.1:active",
            "outer: NodePort 172.30.0.2:30005, node-2 only 10.10.2.2:active 10.10.2.3:active",
            "ported: NodePort 0.0.0.0:30006, 10.10.2.4:active 10.10.2.5:terminating",
            "ported: ClusterIP 10.96.0.6:80, node-1 only 10.10.2.5:active",
            "shop: ClusterIP 10.96.0.1:80, 10.10.2.1:active 10.10.2.2:active 10.10.2.3:terminating",
        ]
    );
    assert!(world.agent.findings().is_empty() && world.agent.failures().is_empty());
}

#[test]
fn balancers_hear_of_endpoints_that_are_here_and_ready() {
    let balanced = |local| json!({"type": "LoadBalancer", "healthCheckNodePort": 32_000, "externalTrafficPolicy": local});
    let mut objects = Objects::of([
        service("outer", 5, &balanced("Local")),
        slice(
            "outer",
            1,
            true,
            &[(1, "node-1", "r"), (2, "node-2", "r"), (3, "node-1", "st"), (4, "node-1", "r")],
        ),
        slice("outer", 2, false, &[(1, "node-1", "r")]),
        service("any", 6, &balanced("Cluster")),
    ]);
    let mut world = World::with_services();
    world.sync(2);
    assert_eq!(world.agent.service_health(), None, "a list that was not heard says nothing");
    world.hear(&objects);
    world.settle();
    let counts = |world: &World| -> Vec<(String, u16, usize)> {
        let all = world.agent.service_health().expect("all was heard");
        all.into_iter().map(|one| (one.service.name, one.port, one.local_endpoints)).collect()
    };
    assert_eq!(counts(&world), [("outer".to_owned(), 32_000, 2)]);

    // Each change is news; what has nothing to do with it is none.
    let mut news = world.agent.service_health_news();
    let mut is_news = |world: &World| std::mem::replace(&mut news, world.agent.service_health_news()) != news;
    world.tell(&slice("outer", 1, true, &[(2, "node-2", "r"), (3, "node-1", "st")]));
    world.untell(ObjectKind::EndpointSlice, "outer-2");
    assert!(is_news(&world));
    assert_eq!(counts(&world), [("outer".to_owned(), 32_000, 0)]);
    world.tell(&slice("any", 1, true, &[(1, "node-1", "r")]));
    assert!(!is_news(&world));
    objects.set(service("outer", 5, &balanced("Cluster")));
    world.hear(&objects);
    assert!(is_news(&world));
    assert_eq!(counts(&world), []);
}

#[test]
fn without_the_flag_nothing_is_written_and_what_was_left_goes() {
    let objects = shop();
    let mut world = World::serving(&objects);
    world.config.kube_proxy_replacement = false;
    world.restart();
    // As long as programs read the rows, they stay.
    world.faults.refuse("detach from sockets", PortError::retryable("", "busy"));
    world.settle();
    assert_ne!(world.service_tables(), [BTreeMap::new(), BTreeMap::new()]);
    world.faults.accept();
    world.pass(Duration::from_secs(5));
    assert!(!world.node.sockets());
    assert_eq!(world.service_tables(), [BTreeMap::new(), BTreeMap::new()]);
    world.sync(2);
    world.hear(&objects);
    world.settle();
    assert_eq!(world.service_tables(), [BTreeMap::new(), BTreeMap::new()]);
    assert_eq!(world.agent.failures(), []);
}

#[test]
fn calls_are_translated_where_the_configuration_says() {
    let objects = shop();
    for (translation, at_sockets, in_packets) in [
        (ServiceTranslation::Socket, true, false),
        (ServiceTranslation::Packet, false, true),
        (ServiceTranslation::Both, true, true),
    ] {
        let mut world = World::serving(&objects);
        world.config.service_translation = translation;
        world.restart();
        world.sync(2);
        world.hear(&objects);
        world.settle();
        world.assert_services(&objects);
        assert_eq!(world.node.sockets(), at_sockets, "{translation:?}");
        let config = world.maps.rows(Table::Config);
        let row = NodeConfig::read_from_bytes(config.values().next().unwrap()).unwrap();
        assert_eq!(row.flags.contains(ConfigFlags::SERVICE_PACKETS), in_packets, "{translation:?}");
        // Without services nothing is translated anywhere.
        world.config.kube_proxy_replacement = false;
        world.restart();
        world.sync(2);
        world.hear(&objects);
        world.settle();
        let config = world.maps.rows(Table::Config);
        let row = NodeConfig::read_from_bytes(config.values().next().unwrap()).unwrap();
        assert!(!world.node.sockets() && !row.flags.contains(ConfigFlags::SERVICE_PACKETS));
    }
}

#[test]
fn calls_from_outside_are_translated_with_services_unless_that_is_off() {
    for routing in [Routing::Vxlan, Routing::Native] {
        let mut world = World::with(Config::new(OWN, routing));
        for (services, node_port, is_on) in
            [(true, true, true), (true, false, false), (false, true, false), (true, true, true)]
        {
            (world.config.kube_proxy_replacement, world.config.node_port) = (services, node_port);
            world.restart();
            world.sync(2);
            let row = world.node_config();
            assert_eq!(row.flags.contains(ConfigFlags::OUTSIDE_CALLS), is_on);
            let ports = if is_on { (32_768, 65_535) } else { (0, 0) };
            assert_eq!((row.snat_port_min, row.snat_port_max), ports, "what leaves again needs ports");
            let programs = &world.node.links()["eth0"].programs;
            assert_eq!(programs.contains(&Program::ToNetdev), is_on);
            assert_eq!(programs.contains(&Program::FromNetdev), is_on || routing == Routing::Native);
        }
    }
}

#[test]
fn services_need_no_policies_and_bear_them() {
    let objects = shop();
    let mut config = Config::new(OWN, Routing::Native);
    config.kube_proxy_replacement = true;
    config.policy = Some(PolicyConfig::default());
    let mut world = World::with(config);
    world.sync(2);
    world.hear(&objects);
    world.settle();
    world.assert_services(&objects);
}

#[test]
fn a_restart_with_the_same_objects_writes_nothing() {
    let objects = shop();
    let mut world = World::serving(&objects);
    let tables = world.service_tables();
    for cut in [false, true] {
        world.restart();
        world.faults.record();
        world.settle();
        world.event(Event::Underlay(underlay()));
        if cut {
            // Lists that are cut short, and objects that come before their time.
            world.event(Event::ListStarted(ObjectKind::EndpointSlice));
            world.tell(objects.of_kind(ObjectKind::EndpointSlice).next().unwrap());
            world.event(Event::ListStarted(ObjectKind::Service));
            world.settle();
            assert_eq!(world.service_tables(), tables);
        }
        world.hear(&objects);
        world.settle();
        assert_eq!(world.service_tables(), tables, "nodes are still to be heard of");
        world.sync(2);
        let calls = world.faults.recorded();
        let writes: Vec<_> =
            calls.iter().filter(|call| call.contains("SERVICES") || call.contains("BACKENDS")).collect();
        assert!(writes.iter().all(|call| call.starts_with("dump")), "{writes:?}");
        assert_eq!(world.service_tables(), tables);
    }
}

/// What a list leaves out is gone when the list is whole, and not before.
#[test]
fn a_partial_list_removes_no_backend() {
    let objects = shop();
    let mut world = World::serving(&objects);
    let before = world.ways();
    for kind in KINDS {
        world.event(Event::ListStarted(kind));
        world.settle();
        assert_eq!(world.ways(), before);
    }
    let mut left = objects.clone();
    left.0.retain(|(_, name), _| !name.starts_with("shop-1") && name != "ending");
    left.0.values().for_each(|object| world.tell(object));
    world.settle();
    assert_eq!(world.ways(), before);
    KINDS.into_iter().for_each(|kind| world.event(Event::ListSynced(kind)));
    world.settle();
    world.assert_services(&left);
    assert_ne!(world.ways(), before);
}

#[test]
fn an_object_that_cannot_be_read_leaves_what_was() {
    let objects = shop();
    let mut world = World::serving(&objects);
    let tables = world.service_tables();
    let name = ObjectName::new("default", "shop");
    let error = "ports[0].port: invalid value: integer `70000`, expected u16".to_owned();
    world.event(Event::Unreadable { kind: ObjectKind::Service, name, error });
    world.settle();
    assert_eq!(world.service_tables(), tables);
    let findings = world.agent.findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(
        (findings[0].severity, findings[0].subject.as_str()),
        (Severity::Error, "Service/default/shop")
    );
    world.tell(&service("shop", 1, &json!({})));
    world.settle();
    assert_eq!((world.agent.findings(), world.service_tables()), (vec![], tables));
}

/// A service is deleted and another one gets its address, but the news come in the wrong order, as after a watch that was cut.
#[test]
fn of_two_services_with_one_address_the_later_has_it() {
    let mut world = World::serving(&shop());
    let mut later = service("new", 1, &json!({}));
    later["metadata"]["creationTimestamp"] = json!("2026-01-02T00:00:00Z");
    world.tell(&later);
    world.tell(&slice("new", 1, true, &[(9, "node-2", "r")]));
    world.settle();
    let (web, dns) = ("10.96.0.1:80".parse().unwrap(), "10.96.0.1:53".parse().unwrap());
    assert_eq!(world.way(web, Protocol::Tcp), Some(BTreeSet::from(["10.10.2.9:8080".parse().unwrap()])));
    let findings = world.agent.findings();
    assert!(findings.iter().all(|finding| finding.subject == "Service/default/shop"), "{findings:?}");
    assert_eq!(findings.len(), 4, "two ports in two families");
    assert!(findings[0].message.contains("default/new"), "{findings:?}");
    // The later one goes first.
    world.untell(ObjectKind::Service, "new");
    world.settle();
    assert_eq!(world.way(web, Protocol::Tcp), expected(&shop(), web, Protocol::Tcp));
    assert_eq!(world.way(dns, Protocol::Udp), expected(&shop(), dns, Protocol::Udp));
    assert_eq!(world.agent.findings(), []);
}

#[test]
fn the_zone_of_the_node_decides_about_hints() {
    let endpoints: Vec<Value> = [(1, "a"), (2, "b")]
        .into_iter()
        .map(|(n, zone)| json!({"addresses": [format!("10.10.2.{n}")], "hints": {"forZones": [{"name": zone}]}}))
        .collect();
    let mut hinted = slice("shop", 1, true, &[]);
    hinted["endpoints"] = json!(endpoints);
    let mut world = World::serving(&Objects::of([service("shop", 1, &json!({})), hinted]));
    let web: SocketAddr = "10.96.0.1:80".parse().unwrap();
    let to = |all: &[u8]| -> Way {
        Some(all.iter().map(|n| SocketAddr::new([10, 10, 2, *n].into(), 8080)).collect())
    };
    assert_eq!(world.way(web, Protocol::Tcp), to(&[1, 2]));
    for (zone, all) in [("b", vec![2]), ("a", vec![1]), ("c", vec![1, 2])] {
        let labels = BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), zone.to_owned())]);
        world.event(Event::NodeUpsert(NodeObject { labels, ..node(1) }));
        world.settle();
        assert_eq!(world.way(web, Protocol::Tcp), to(&all), "{zone}");
        assert_eq!(world.maps.rows(Table::Backends).len(), 4, "who is not chosen keeps what it has");
    }
}

#[test]
fn a_change_costs_the_rows_of_its_service() {
    let mut objects = shop();
    for n in 0..200 {
        objects.set(service(&format!("other-{n}"), 100, &json!({"clusterIPs": [format!("10.97.0.{n}")]})));
        objects.set(slice(&format!("other-{n}"), 1, true, &[(1, "node-1", "r"), (2, "node-1", "r")]));
    }
    let mut world = World::serving(&objects);
    world.faults.record();
    world.tell(&slice("shop", 2, true, &[(4, "node-2", "r")]));
    world.settle();
    let calls = world.faults.recorded();
    // Two ports: a backend, a slot and a count each.
    assert_eq!(calls.iter().filter(|call| call.contains("upsert")).count(), 6, "{calls:?}");
    assert!(calls.iter().all(|call| !call.contains("delete")), "{calls:?}");
    world.faults.record();
    world.tell(&slice("shop", 2, true, &[(4, "node-2", "r")]));
    world.settle();
    assert!(world.faults.recorded().iter().all(|call| !call.contains("SERVICES")));
}

/// What is in the tables must be right after every single call: each frontend sends to backends of before or after, one that
/// has some before and after has some at every moment, and one refuses only if it does before or after.
fn watched(world: &mut World, before: &[Way], after: &[Way], act: impl Fn(&mut World)) -> u64 {
    let check = |world: &World, when: &str| {
        for ((way, (old, new)), (to, _)) in world.ways().iter().zip(before.iter().zip(after)).zip(frontends())
        {
            let all: BTreeSet<_> = [old, new].into_iter().flatten().flatten().collect();
            assert!(way.iter().flatten().all(|backend| all.contains(backend)), "{when}: {to} {way:?}");
            let has = |way: &Way| way.as_ref().is_some_and(|way| !way.is_empty());
            assert!(has(way) || !(has(old) && has(new)), "{when}: {to} has lost its backends");
            let refuses = |way: &Way| way.as_ref().is_some_and(BTreeSet::is_empty);
            assert!(!refuses(way) || refuses(old) || refuses(new), "{when}: {to} refuses");
        }
    };
    let maps = world.maps.clone();
    let mut calls = 0;
    for call in 0.. {
        world.maps = maps.clone();
        world.restart();
        world.sync(2);
        // The earlier state is known, then something happens, and the agent dies after so many calls.
        act(world);
        world.faults.crash_after(world.faults.calls() + call);
        for _ in 0..3 {
            if !world.faults.crashed() {
                world.reconcile();
            }
        }
        let died = world.faults.crashed();
        check(world, &format!("after call {call}"));
        calls = call;
        if !died {
            break;
        }
        // The next one goes on from there.
        world.restart();
        world.settle();
        check(world, "after the restart");
    }
    calls
}

#[test]
fn an_agent_that_dies_after_any_call_leaves_calls_a_way() {
    let first = shop();
    let second = Objects::of([
        service("shop", 1, &json!({})),
        slice(
            "shop",
            1,
            true,
            &[(2, "node-2", "st"), (5, "node-1", "r"), (6, "node-1", "r"), (7, "node-1", "r")],
        ),
        slice("shop", 3, false, &[(9, "node-1", "r")]),
        service("local", 2, &json!({"sessionAffinity": "ClientIP"})),
        slice("local", 1, true, &[(2, "node-2", "r")]),
        service("ending", 3, &json!({})),
        slice("ending", 1, true, &[(1, "node-1", "st"), (8, "node-2", "r")]),
        service("headless", 4, &json!({})),
        slice("headless", 1, true, &[(1, "node-1", "r")]),
        service("outer", 5, &json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.5"]})),
        slice("outer", 1, true, &[(1, "node-1", "r"), (4, "node-2", "r")]),
        service(
            "ported",
            6,
            &json!({"type": "NodePort", "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"}),
        ),
        slice("ported", 1, true, &[(4, "node-2", "r"), (5, "node-1", "st")]),
    ]);
    for (from, to) in
        [(&first, &second), (&second, &first), (&first, &Objects::default()), (&Objects::default(), &second)]
    {
        let mut world = World::serving(from);
        let before = world.ways();
        let after = World::serving(to).ways();
        let calls = watched(&mut world, &before, &after, |world| world.hear(to));
        assert!(calls > 10, "{calls}");
        world.restart();
        world.sync(2);
        world.hear(to);
        world.settle();
        world.assert_services(to);
    }
}

/// A full table keeps what is there, and what waits comes when there is room.
#[test]
fn what_finds_no_room_waits_and_holds_back_nothing_else() {
    for table in [Table::Services, Table::Backends] {
        let objects = shop();
        let mut world = World::serving(&objects);
        let rows = world.maps.rows(table).len();
        world.maps.set_capacity(table, rows);
        let (before, mut more) = (world.ways(), objects.clone());
        more.set(slice(
            "shop",
            1,
            true,
            &[(1, "node-1", "r"), (7, "node-2", "r"), (8, "node-2", "r"), (9, "node-2", "r")],
        ));
        more.set(slice("local", 1, true, &[]));
        world.hear(&more);
        world.settle();
        let failures = world.agent.failures();
        assert!(!failures.is_empty(), "{table:?}");
        // The service that needs no room has changed; the others go where they went, or where they shall.
        let after: Vec<Way> = frontends().map(|(to, protocol)| expected(&more, to, protocol)).collect();
        for (((way, old), new), (to, _)) in world.ways().iter().zip(&before).zip(&after).zip(frontends()) {
            let all: BTreeSet<_> = [old, new].into_iter().flatten().flatten().collect();
            assert!(way.iter().flatten().all(|backend| all.contains(backend)), "{to} {way:?}");
            assert_eq!(way.is_some(), new.is_some(), "{to}");
        }
        world.maps.set_capacity(table, 1000);
        world.pass(Duration::from_mins(1));
        world.assert_services(&more);
        assert_eq!(world.agent.failures(), []);
    }
}

#[test]
fn rows_of_no_agent_go() {
    let objects = shop();
    let mut world = World::serving(&objects);
    world.maps.put(Table::Services, &[9; 24], &[9; 16]);
    world.maps.put(Table::Backends, &[0; 4], &[9; 28]);
    world.maps.put(Table::Backends, &[7, 0, 0, 0], &[9; 28]);
    world.restart();
    world.sync(2);
    world.hear(&objects);
    world.settle();
    world.assert_services(&objects);
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Tell(usize),
    Untell(usize),
    Lists,
    Cut,
    Settle,
    Restart,
    Fail(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_usize..32).prop_map(Step::Tell),
        3 => (0_usize..32).prop_map(Step::Untell),
        1 => Just(Step::Lists),
        1 => Just(Step::Cut),
        5 => Just(Step::Settle),
        1 => Just(Step::Restart),
        2 => (1_u64..12).prop_map(Step::Fail),
    ]
}

/// Names of services, whose number is one more than their place.
const NAMES: [&str; 6] = ["shop", "local", "ending", "headless", "outer", "ported"];

/// A service or slice as it may be at some time.
fn object() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(NAMES.to_vec());
    let flags = prop::sample::select(vec!["r", "r", "r", "st", "t", "", "rt"]);
    let at = prop::sample::select(vec!["node-1", "node-2"]);
    let endpoints = prop::collection::btree_map(1_u8..6, (at, flags), 0..4);
    let kind = prop::sample::select(vec!["ClusterIP", "NodePort", "LoadBalancer"]);
    prop_oneof![
        (name.clone(), any::<[bool; 4]>(), kind).prop_map(
            |(name, [local, affinity, outer, external], kind)| {
                let vip = 1 + u8::try_from(NAMES.iter().position(|n| *n == name).unwrap()).unwrap();
                let policy = |local| if local { "Local" } else { "Cluster" };
                let mut spec = json!({
                    "type": kind,
                    "internalTrafficPolicy": policy(local),
                    "externalTrafficPolicy": policy(outer),
                });
                if affinity {
                    spec["sessionAffinity"] = json!("ClientIP");
                }
                if external {
                    spec["externalIPs"] = json!([format!("192.0.2.{vip}")]);
                }
                service(name, vip, &spec)
            }
        ),
        (name, 1_u8..4, any::<bool>(), endpoints).prop_map(|(name, n, is_v4, endpoints)| {
            let endpoints: Vec<(u8, &str, &str)> =
                endpoints.into_iter().map(|(last, (node, flags))| (last, node, flags)).collect();
            // An endpoint is in one slice but while it moves; what then counts is for the unit tests.
            let endpoints: Vec<_> =
                endpoints.into_iter().map(|(last, node, flags)| (last + 10 * n, node, flags)).collect();
            slice(name, n, is_v4, &endpoints)
        }),
    ]
}

proptest! {
    /// Any history of objects, lists, failures and restarts ends in the rows that the last objects ask for; and at no moment is a row
    /// without what it names.
    #[test]
    fn any_history_ends_the_same(pool in prop::collection::vec(object(), 32), steps in prop::collection::vec(step(), 0..60)) {
        let mut world = World::with_services();
        let mut objects = Objects::default();
        world.sync(2);
        for step in &steps {
            match step {
                Step::Tell(n) => {
                    objects.set(pool[*n].clone());
                    world.tell(&pool[*n]);
                }
                Step::Untell(n) => {
                    let kind = ObjectKind::of(&pool[*n]).unwrap();
                    let name = pool[*n]["metadata"]["name"].as_str().unwrap();
                    objects.0.remove(&(kind, name.to_owned()));
                    world.untell(kind, name);
                }
                Step::Lists => world.hear(&objects),
                Step::Cut => KINDS.into_iter().for_each(|kind| world.event(Event::ListStarted(kind))),
                Step::Settle => world.settle(),
                Step::Restart => {
                    world.restart();
                    world.sync(2);
                }
                Step::Fail(after) => {
                    world.faults.fail_call(world.faults.calls() + after, PortError::retryable("", "injected"));
                }
            }
            // Panics where a row is missing that another names.
            world.ways();
        }
        world.faults.revive();
        world.sync(2);
        world.hear(&objects);
        world.pass(Duration::from_mins(6));
        world.assert_services(&objects);
        prop_assert_eq!(world.agent.failures(), []);
        let once = World::serving(&objects);
        prop_assert_eq!(world.service_tables(), once.service_tables(), "as if there had been no history");
    }
}

#[test]
fn failures_say_which_table_is_full() {
    let mut world = World::with_services();
    world.maps.set_capacity(Table::Services, 0);
    world.sync(2);
    world.hear(&shop());
    world.settle();
    let errors: Vec<_> = world.reports.iter().flat_map(|report| &report.errors).collect();
    assert!(!errors.is_empty() && errors.iter().all(|error| error.kind == PortErrorKind::Full), "{errors:?}");
}
