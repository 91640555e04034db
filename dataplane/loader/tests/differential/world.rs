//! The node on which frames are tried: its devices, its configuration and its neighbours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_abi::backends::BackendEntry;
use dataplane_abi::config::{ConfigFlags, NodeConfig, Routing};
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey};
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheFlags, IpCacheKey};
use dataplane_abi::no_masquerade::NoMasqueradeEntry;
use dataplane_abi::policy::{BlockKey, Direction, L4Key, PolicyEntry, PolicyFlags, PolicyKey, PolicyVerdict};
use dataplane_abi::services::{ServiceEntry, ServiceFlags, ServiceKey, ServiceScope};
use dataplane_abi::{ABI_VERSION, Addr, Be16, Identity};

use crate::frame::Address;
use crate::rng::Rng;

/// Pods on the node.
pub(crate) const PODS: usize = 4;

/// The devices that programs run on; they exist in the sandbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Devices {
    pub(crate) pods: [u32; PODS],
    pub(crate) host: u32,
    pub(crate) overlay: u32,
    pub(crate) underlay: u32,
}

impl Devices {
    pub(crate) fn all(&self) -> [u32; PODS + 3] {
        let [a, b, c, d] = self.pods;
        [a, b, c, d, self.host, self.overlay, self.underlay]
    }
}

/// Somebody who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// A pod of this node, by number.
    Pod(usize),
    /// The node itself.
    Node,
    /// The node's router address.
    Router,
    /// A pod behind another node.
    Remote(u8),
    /// Another node.
    RemoteNode,
    /// Somewhere that a row covers without a node.
    Outside(u8),
    /// Somewhere that no row covers.
    World(u8),
    /// A group.
    Group,
    /// A service, by number.
    Service(usize),
    /// What stands for a pod that speaks with itself through a service.
    Loopback,
}

impl Party {
    pub(crate) fn address(self, v6: bool) -> Address {
        if v6 { Address::V6(self.v6()) } else { Address::V4(self.v4()) }
    }

    fn v4(self) -> [u8; 4] {
        match self {
            Self::Pod(number) => [10, 1, 0, 10 + u8::try_from(number).expect("few pods")],
            Self::Node => [172, 30, 0, 1],
            Self::Router => [10, 1, 0, 1],
            Self::Remote(number) => [10, 2, number % 3, number],
            Self::RemoteNode => [172, 30, 0, 2],
            Self::Outside(number) => [192, 0, 2, number],
            Self::World(number) => [198, 51, 100, number],
            Self::Group => [224, 0, 0, 251],
            Self::Service(number) => [10, 96, 0, u8::try_from(number).expect("few services")],
            Self::Loopback => [169, 254, 42, 1],
        }
    }

    fn v6(self) -> [u8; 16] {
        let words = match self {
            Self::Pod(number) => [0xfd00, 1, 0, 0, 0, 0, 0, 0x10 + u16::try_from(number).expect("few pods")],
            Self::Node => [0xfd00, 0x30, 0, 0, 0, 0, 0, 1],
            Self::Router => [0xfd00, 1, 0, 0, 0, 0, 0, 1],
            Self::Remote(number) => [0xfd00, 2, u16::from(number % 3), 0, 0, 0, 0, u16::from(number)],
            Self::RemoteNode => [0xfd00, 0x30, 0, 0, 0, 0, 0, 2],
            Self::Outside(number) => [0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(number)],
            Self::World(number) => [0x2001, 0xdb8, 2, 0, 0, 0, 0, u16::from(number)],
            Self::Group => [0xff02, 0, 0, 0, 0, 0, 0, 0xfb],
            Self::Service(number) => {
                [0xfd00, 0x96, 0, 0, 0, 0, 0, u16::try_from(number).expect("few services")]
            }
            Self::Loopback => [0x100, 0, 0, 1, 0, 0, 0, 0x2a01],
        };
        let [a, b, c, d, e, f, g, h] = words;
        Ipv6Addr::new(a, b, c, d, e, f, g, h).octets()
    }

    fn ip(self, v6: bool) -> IpAddr {
        match self.address(v6) {
            Address::V4(bytes) => IpAddr::V4(Ipv4Addr::from(bytes)),
            Address::V6(bytes) => IpAddr::V6(Ipv6Addr::from(bytes)),
        }
    }
}

/// MAC of a pod's device.
pub(crate) fn pod_mac(number: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, u8::try_from(number).expect("few pods")]
}

/// MAC of the host side of a pod's device.
pub(crate) fn gateway_mac(number: usize) -> [u8; 6] {
    [2, 0, 0, 0, 2, u8::try_from(number).expect("few pods")]
}

/// The rows of a node.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) config: NodeConfig,
    pub(crate) endpoints: Vec<(EndpointKey, EndpointEntry)>,
    pub(crate) ipcache: Vec<(IpCacheKey, IpCacheEntry)>,
    pub(crate) policy: Vec<(PolicyKey, PolicyEntry)>,
    pub(crate) policy_blocks: Vec<(BlockKey, PolicyEntry)>,
    pub(crate) policy_l4: Vec<(L4Key, PolicyVerdict)>,
    pub(crate) no_masquerade: Vec<(IpCacheKey, NoMasqueradeEntry)>,
    pub(crate) services: Services,
}

impl World {
    /// A node with a configuration of its own.
    pub(crate) fn new(rng: &mut Rng, devices: &Devices, ticks_per_s: u32) -> Self {
        Self {
            config: config(rng, devices, ticks_per_s),
            endpoints: endpoints(rng, devices),
            ipcache: ipcache(rng),
            policy: policies(rng),
            policy_blocks: (0..rng.below(20)).map(|_| (block_key(rng), block(rng))).collect(),
            policy_l4: (0..rng.below(40)).map(|_| (l4_key(rng), policy_verdict(rng))).collect(),
            no_masquerade: no_masquerade(rng),
            services: Services::new(rng),
        }
    }
}

/// Services that there are. All places of one service are one backend: the hosts draw by themselves.
pub(crate) const SERVICES: usize = 6;
/// Ports of services, and the one that the first of them has at every node.
pub(crate) const SERVICE_PORTS: [u16; 2] = [80, 53];
pub(crate) const NODE_PORT: u16 = 30_080;
/// Port of backends.
pub(crate) const BACKEND_PORT: u16 = 8080;

/// Services and who answers for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    pub(crate) frontends: Vec<(ServiceKey, ServiceEntry)>,
    pub(crate) backends: Vec<(u32, BackendEntry)>,
    /// Who answers, by service.
    answers: Vec<Party>,
}

impl Services {
    fn new(rng: &mut Rng) -> Self {
        let mut services = Self::default();
        for number in 0..SERVICES {
            let pod = rng.below(PODS);
            let answers = match number {
                0 | 1 => Party::Pod(pod),
                2 | 3 => Party::Remote(rng.byte() % 6),
                4 => Party::Node,
                _ => Party::RemoteNode,
            };
            services.answers.push(answers);
            for v6 in [false, true] {
                for proto in [6, 17] {
                    services.add(rng, number, answers, v6, proto);
                }
            }
        }
        services
    }

    fn add(&mut self, rng: &mut Rng, number: usize, answers: Party, v6: bool, proto: u8) {
        let one =
            u32::try_from(number).expect("few services") * 4 + u32::from(v6) * 2 + u32::from(proto == 17);
        let (service, backend) = (1000 + one, 2000 + one);
        let (addr, family) = Addr::from_ip(answers.ip(v6));
        let entry = BackendEntry {
            addr,
            service,
            port: Be16::new(BACKEND_PORT),
            family: family as u8,
            proto,
            state: u8::from(rng.percent(10)),
            pad: [0; 3],
        };
        self.backends.push((backend, entry));
        let timeout_s = if rng.percent(30) { 10_000 } else { 0 };
        // With one place that is not there, both hosts look for it in vain.
        let (count, slots) = match rng.below(10) {
            0 => (0, 0),
            1 => (1, 0),
            2..5 => (3, 3),
            _ => (1, 1),
        };
        let every = if v6 { IpAddr::from([0; 16]) } else { IpAddr::from([0; 4]) };
        let mut places: Vec<_> =
            SERVICE_PORTS.into_iter().map(|port| (Party::Service(number).ip(v6), port)).collect();
        if number == 0 {
            places.push((every, NODE_PORT));
        }
        let mut flags = rng.pick(&[ServiceFlags::CLUSTER_IP, ServiceFlags::LOAD_BALANCER]);
        flags.set(ServiceFlags::EXTERNAL_LOCAL, rng.percent(20));
        for (ip, port) in places {
            for scope in [ServiceScope::Internal, ServiceScope::External] {
                if scope == ServiceScope::External && rng.percent(70) {
                    continue;
                }
                let (addr, family) = Addr::from_ip(ip);
                let key = ServiceKey::frontend(addr, family, Be16::new(port), proto, scope);
                self.frontends.push((key, ServiceEntry::frontend(service, count, timeout_s, flags)));
                for slot in 1..=slots {
                    self.frontends.push((key.slot(slot), ServiceEntry::slot(service, backend)));
                }
            }
        }
    }

    /// Who answers for what somebody calls at a port.
    pub(crate) fn answers(&self, called: Party, port: u16) -> Option<Party> {
        match called {
            Party::Service(number) if SERVICE_PORTS.contains(&port) => self.answers.get(number).copied(),
            Party::Node | Party::RemoteNode if port == NODE_PORT => self.answers.first().copied(),
            _ => None,
        }
    }
}

/// The port by which masqueraded connections leave, one to a destination.
pub(crate) const WIRE_PORT: u16 = 40_000;

/// Where pods are not masqueraded.
fn no_masquerade(rng: &mut Rng) -> Vec<(IpCacheKey, NoMasqueradeEntry)> {
    let mut rows = Vec::new();
    for v6 in [false, true] {
        for party in [Party::World(1), Party::Outside(1)] {
            if rng.percent(30) {
                let length = if v6 { 128 } else { 32 };
                rows.push((IpCacheKey::prefix(party.ip(v6), length), NoMasqueradeEntry::default()));
            }
        }
    }
    rows
}

fn config(rng: &mut Rng, devices: &Devices, ticks_per_s: u32) -> NodeConfig {
    let mut flags = ConfigFlags::IPV4 | ConfigFlags::IPV6;
    flags.set(ConfigFlags::SOURCE_CHECK, rng.percent(75));
    flags.set(ConfigFlags::DROP_EVENTS, rng.percent(75));
    flags.set(ConfigFlags::TRACE_EVENTS, rng.percent(75));
    flags.set(ConfigFlags::POLICY_EVENTS, rng.percent(75));
    flags.set(ConfigFlags::HOST_FIREWALL, rng.percent(50));
    flags.set(ConfigFlags::SERVICE_PACKETS, rng.percent(75));
    flags.set(ConfigFlags::MASQUERADE_V4, rng.percent(70));
    flags.set(ConfigFlags::MASQUERADE_V6, rng.percent(70));
    flags.set(ConfigFlags::OUTSIDE_CALLS, rng.percent(75));
    let routing = if rng.percent(60) { Routing::Vxlan } else { Routing::Native };
    let v4 = |party: Party| party.v4();
    let v6 = |party: Party| party.v6();
    NodeConfig {
        // A node that the agent has not reached yet passes everything.
        abi_version: if rng.percent(2) { 0 } else { ABI_VERSION },
        revision: 1 + rng.u32() % 1000,
        flags,
        routing: routing as u8,
        aggregation: rng.pick(&[0, 1, 3, 3]),
        monitor_flags: rng.pick(&[0x07, 0x07, 0xFF, 0]),
        payload_len: rng.pick(&[128, 128, 64, 14, 1, 0]),
        ticks_per_s,
        // So long that a slow machine cannot reach it within a scenario, or none; ages are set by steps.
        monitor_interval_ticks: rng.pick(&[AGE_INTERVAL, AGE_INTERVAL, 0]),
        underlay_ifindex: devices.underlay,
        overlay_ifindex: if routing == Routing::Vxlan { devices.overlay } else { 0 },
        host_ifindex: devices.host,
        underlay_mtu: rng.pick(&[1500, 1500, 600]),
        overlay_mtu: rng.pick(&[1450, 1450, 550]),
        host_identity: Identity::HOST,
        underlay_mac: [2, 0, 0, 0, 3, 1],
        host_mac: [2, 0, 0, 0, 3, 2],
        overlay_mac: [2, 0, 0, 0, 3, 3],
        router_v4: v4(Party::Router),
        router_v6: if rng.percent(90) { v6(Party::Router) } else { [0; 16] },
        node_v4: v4(Party::Node),
        node_v6: v6(Party::Node),
        world_v4: Identity::WORLD_IPV4,
        world_v6: Identity::WORLD_IPV6,
        node_port_min: if rng.percent(80) { 30_000 } else { 0 },
        node_port_max: 32_767,
        // One port: the hosts draw by themselves.
        snat_port_min: WIRE_PORT,
        snat_port_max: WIRE_PORT,
        ..NodeConfig::default()
    }
}

/// Report interval of the scenarios that have one, in ticks: an hour and more.
pub(crate) const AGE_INTERVAL: u32 = 1 << 20;

fn endpoints(rng: &mut Rng, devices: &Devices) -> Vec<(EndpointKey, EndpointEntry)> {
    let mut rows = Vec::new();
    let is_guarded = rng.percent(70);
    for number in 0..PODS {
        let (policy, flags) = if is_guarded { guard(rng) } else { (0, EndpointFlags(0)) };
        for v6 in [false, true] {
            // Some pods have one family only.
            if rng.percent(5) {
                continue;
            }
            rows.push((
                EndpointKey::from_ip(Party::Pod(number).ip(v6)),
                EndpointEntry {
                    ifindex: devices.pods[number],
                    id: 100 + u16::try_from(number).expect("few pods"),
                    flags,
                    identity: pod_identity(number),
                    policy,
                    mac: pod_mac(number),
                    node_mac: gateway_mac(number),
                    ..EndpointEntry::default()
                },
            ));
        }
    }
    let (policy, guard) = if rng.percent(50) { guard(rng) } else { (0, EndpointFlags(0)) };
    for v6 in [false, true] {
        for (party, flags) in
            [(Party::Node, EndpointFlags::HOST), (Party::Router, EndpointFlags::HOST | EndpointFlags::ROUTER)]
        {
            let flags = flags | guard;
            rows.push((
                EndpointKey::from_ip(party.ip(v6)),
                EndpointEntry { flags, identity: Identity::HOST, policy, ..EndpointEntry::default() },
            ));
        }
    }
    rows
}

fn pod_identity(number: usize) -> Identity {
    Identity(0x1_0000 + u32::try_from(number).expect("few pods"))
}

/// Policies, sets and blocks that endpoints and rows may name; not all of them have rows.
const POLICIES: u32 = 4;
const SETS: u32 = 4;
const BLOCKS: u32 = 2;

/// Policy and flags of an endpoint, in force or not.
pub(crate) fn guard(rng: &mut Rng) -> (u32, EndpointFlags) {
    let mut flags = EndpointFlags(0);
    flags.set(EndpointFlags::ENFORCE_INGRESS, rng.percent(70));
    flags.set(EndpointFlags::ENFORCE_EGRESS, rng.percent(70));
    flags.set(EndpointFlags::AUDIT, rng.percent(15));
    flags.set(EndpointFlags::AUDIT_EGRESS, rng.percent(15));
    (rng.u32() % (POLICIES + 1), flags)
}

/// Rows of all policies. Most allow everybody where nothing else is said, or little would pass.
fn policies(rng: &mut Rng) -> Vec<(PolicyKey, PolicyEntry)> {
    let mut rows = Vec::new();
    for policy in 1..=POLICIES {
        for direction in [Direction::Ingress, Direction::Egress] {
            if rng.percent(60) {
                let cookie = rng.u32() % 100;
                let key = PolicyKey::new(policy, direction, PolicyKey::EVERYBODY);
                rows.push((key, PolicyEntry::all(PolicyVerdict::allow(cookie))));
            }
        }
    }
    for _ in 0..rng.below(30) {
        rows.push(policy_row(rng));
    }
    rows
}

/// A row of a policy. Often for everybody, or little would pass.
pub(crate) fn policy_row(rng: &mut Rng) -> (PolicyKey, PolicyEntry) {
    let direction = if rng.percent(50) { Direction::Ingress } else { Direction::Egress };
    let pod = rng.below(PODS);
    let identity = rng.pick(&[
        PolicyKey::EVERYBODY,
        PolicyKey::EVERYBODY,
        pod_identity(pod),
        pod_identity(pod),
        Identity::HOST,
        Identity::UNMANAGED,
        Identity::REMOTE_NODE,
        Identity::WORLD_IPV4,
        Identity::WORLD_IPV6,
        Identity(0x2_0001),
        Identity(0x0100_0001),
    ]);
    let entry = if rng.percent(30) {
        PolicyEntry::by_blocks(1 + rng.u32() % SETS, 1 + rng.u32() % BLOCKS)
    } else {
        block(rng)
    };
    (PolicyKey::new(1 + rng.u32() % POLICIES, direction, identity), entry)
}

/// What may be said without addresses.
fn block(rng: &mut Rng) -> PolicyEntry {
    if rng.percent(60) {
        PolicyEntry::all(policy_verdict(rng))
    } else {
        PolicyEntry::by_l4(1 + rng.u32() % SETS)
    }
}

/// A block around the ends of flows.
fn block_key(rng: &mut Rng) -> BlockKey {
    let number = u8::try_from(rng.below(3)).expect("a few");
    let pod = rng.below(PODS);
    let party = rng.pick(&[Party::Pod(pod), Party::Remote(number), Party::Outside(number)]);
    let length = rng.pick(&[0, 8, 15, 24, 31, 32, 48, 63, 127, 128]);
    BlockKey::prefix(1 + rng.u32() % BLOCKS, party.ip(rng.percent(50)), length)
}

/// A row of a set, for the protocols and ports of flows.
fn l4_key(rng: &mut Rng) -> L4Key {
    let set = 1 + rng.u32() % SETS;
    let proto = rng.pick(&[6, 6, 17, 17, 1, 58, 132]);
    let port = rng.pick(&[80, 443, 53, 40_000, 40_001, 1, 8, 0, 128, 129]);
    match rng.below(10) {
        0 => L4Key::any(set),
        1..4 => L4Key::proto(set, proto),
        4..7 => L4Key::exact(set, proto, Be16::new(port)),
        _ => L4Key::ports(set, proto, port, rng.byte() % 17),
    }
}

fn policy_verdict(rng: &mut Rng) -> PolicyVerdict {
    PolicyVerdict {
        flags: PolicyFlags(rng.pick(&[1, 1, 1, 1, 1, 1, 2, 0, 4, 3])),
        staged: rng.pick(&[0, 0, 1, 2]),
        proxy_port: Be16::new(rng.pick(&[0, 10_000])),
        cookie: rng.u32() % 100,
        staged_cookie: rng.u32() % 100,
    }
}

fn ipcache(rng: &mut Rng) -> Vec<(IpCacheKey, IpCacheEntry)> {
    let mut rows = Vec::new();
    for v6 in [false, true] {
        // The other node may be reached by either family.
        let node = Party::RemoteNode.ip(rng.percent(30));
        let (pods, one, wide) = if v6 { (32, 48, 64) } else { (16, 24, 24) };
        let remote = Party::Remote(0).ip(v6);
        rows.push((IpCacheKey::prefix(remote, pods), IpCacheEntry::behind(Identity::UNMANAGED, node)));
        if rng.percent(50) {
            let mut entry = IpCacheEntry::behind(Identity(0x2_0001), node);
            if rng.percent(30) {
                entry.flags = IpCacheFlags::SKIP_TUNNEL;
            }
            rows.push((IpCacheKey::prefix(Party::Remote(1).ip(v6), one), entry));
        }
        if rng.percent(50) {
            let single = if v6 { 128 } else { 32 };
            rows.push((
                IpCacheKey::prefix(Party::Remote(2).ip(v6), single),
                IpCacheEntry::new(Identity(0x2_0002)),
            ));
        }
        let mut other = IpCacheEntry::behind(Identity::REMOTE_NODE, node);
        if rng.percent(50) {
            other = IpCacheEntry::new(Identity::REMOTE_NODE);
        }
        rows.push((IpCacheKey::prefix(Party::RemoteNode.ip(v6), if v6 { 128 } else { 32 }), other));
        rows.push((
            IpCacheKey::prefix(Party::Outside(0).ip(v6), wide),
            IpCacheEntry::new(Identity(0x0100_0001)),
        ));
        rows.push((
            IpCacheKey::prefix(Party::Node.ip(v6), if v6 { 128 } else { 32 }),
            IpCacheEntry::new(Identity::HOST),
        ));
    }
    rows
}
