//! What calls of sockets come to: every row, every counter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use dataplane_abi::backends::{BackendEntry, BackendState};
use dataplane_abi::clock::ClockEntry;
use dataplane_abi::metrics::Direction;
use dataplane_abi::program::SocketProgram;
use dataplane_abi::services::{ServiceEntry, ServiceFlags, ServiceKey, ServiceScope};
use dataplane_abi::{Addr, Be16};
use dataplane_core::SocketVerdict;
use dataplane_native::{Native, SocketCall};
use proptest::prelude::*;

const TCP: u32 = 6;
const UDP: u32 = 17;
const MPTCP: u32 = 262;

/// Number of the service of these tests.
const SHOP: u32 = 77;

fn vip(family: u8) -> IpAddr {
    if family == 4 { IpAddr::from([10, 96, 0, 1]) } else { IpAddr::from([0xfd00, 0x96, 0, 0, 0, 0, 0, 1]) }
}

fn pod(family: u8, n: u8) -> IpAddr {
    if family == 4 {
        IpAddr::from([10, 1, 1, n])
    } else {
        IpAddr::from([0xfd00, 1, 1, 0, 0, 0, 0, u16::from(n)])
    }
}

/// A service at port 80 of TCP and UDP of a family, whose backends are at 8080.
struct World {
    native: Native,
    family: u8,
}

impl World {
    fn new(family: u8, backends: &[(u8, BackendState)], timeout_s: u32) -> Self {
        let mut world = Self { native: Native::new(), family };
        world.native.set_clock(ClockEntry { ticks: 0, ktime_ns: 1_000_000_000_000 });
        world.serve(backends, timeout_s);
        world
    }

    fn key(&self, proto: u32) -> ServiceKey {
        let (addr, family) = Addr::from_ip(vip(self.family));
        let proto = u8::try_from(proto).expect("a protocol's number");
        ServiceKey::frontend(addr, family, Be16::new(80), proto, ServiceScope::Internal)
    }

    fn number(proto: u32, n: u8) -> u32 {
        proto * 1000 + u32::from(n)
    }

    /// Writes the rows as an agent would: backends that are not named are gone.
    fn serve(&mut self, backends: &[(u8, BackendState)], timeout_s: u32) {
        for proto in [TCP, UDP] {
            let key = self.key(proto);
            let service = SHOP + proto;
            let (tables, active) = (self.native.tables_mut(), |state| state == BackendState::Active);
            for n in 0..=u8::MAX {
                tables.backends.remove(&Self::number(proto, n));
            }
            for (n, state) in backends {
                let (addr, family) = Addr::from_ip(pod(self.family, *n));
                let entry = BackendEntry {
                    addr,
                    service,
                    port: Be16::new(8080),
                    family: family as u8,
                    proto: key.proto,
                    state: *state as u8,
                    pad: [0; 3],
                };
                assert!(tables.backends.insert(Self::number(proto, *n), entry));
            }
            let slots = backends.iter().filter(|(_, state)| active(*state));
            let mut count = 0;
            for (n, _) in slots {
                count += 1;
                let entry = ServiceEntry::slot(service, Self::number(proto, *n));
                assert!(tables.services.insert(key.slot(count), entry));
            }
            for slot in count + 1..300 {
                tables.services.remove(&key.slot(slot));
            }
            let entry = ServiceEntry::frontend(service, count, timeout_s, ServiceFlags::CLUSTER_IP);
            assert!(tables.services.insert(key, entry));
        }
    }

    fn program(&self, four: SocketProgram, six: SocketProgram) -> SocketProgram {
        if self.family == 4 { four } else { six }
    }

    const fn call(to: SocketAddr, protocol: u32, cookie: u64) -> SocketCall {
        SocketCall { addr: to, protocol, cookie, netns: 1 }
    }

    fn vip(&self) -> SocketAddr {
        SocketAddr::new(vip(self.family), 80)
    }

    /// Connects to the service; where to, or `None` if refused.
    fn connect(&self, protocol: u32, cookie: u64) -> Option<SocketAddr> {
        let mut call = Self::call(self.vip(), protocol, cookie);
        let program = self.program(SocketProgram::Connect4, SocketProgram::Connect6);
        self.outcome(program, &mut call)
    }

    /// Sends a datagram to the service; where to, or `None` if refused.
    fn send(&self, cookie: u64) -> Option<SocketAddr> {
        let mut call = Self::call(self.vip(), UDP, cookie);
        let program = self.program(SocketProgram::Sendmsg4, SocketProgram::Sendmsg6);
        self.outcome(program, &mut call)
    }

    fn outcome(&self, program: SocketProgram, call: &mut SocketCall) -> Option<SocketAddr> {
        match self.native.run_socket(program, call) {
            SocketVerdict::Pass => Some(call.addr),
            SocketVerdict::Refuse | SocketVerdict::Taken => None,
        }
    }

    /// What a process is told of who sent a datagram, or of its peer.
    fn told(&self, program: SocketProgram, from: SocketAddr, protocol: u32, cookie: u64) -> SocketAddr {
        let mut call = Self::call(from, protocol, cookie);
        assert_eq!(self.native.run_socket(program, &mut call), SocketVerdict::Pass);
        call.addr
    }

    fn pass_s(&self, seconds: u64) {
        self.native.advance(seconds * 1_000_000_000, 250);
    }

    fn backends(&self, numbers: &[u8]) -> BTreeSet<SocketAddr> {
        numbers.iter().map(|n| SocketAddr::new(pod(self.family, *n), 8080)).collect()
    }
}

const ACTIVE: BackendState = BackendState::Active;
const ENDING: BackendState = BackendState::Terminating;

#[test]
fn a_connection_goes_to_a_backend_and_sees_the_service() {
    for family in [4, 6] {
        let world = World::new(family, &[(1, ACTIVE), (2, ACTIVE), (3, ACTIVE)], 0);
        let getpeername = world.program(SocketProgram::Getpeername4, SocketProgram::Getpeername6);
        let mut seen: BTreeMap<SocketAddr, u32> = BTreeMap::new();
        for cookie in 0..300 {
            let protocol = [TCP, MPTCP, UDP][usize::try_from(cookie % 3).unwrap()];
            let backend = world.connect(protocol, cookie).unwrap();
            *seen.entry(backend).or_default() += 1;
            assert_eq!(world.told(getpeername, backend, protocol, cookie), world.vip());
            assert_eq!(world.told(getpeername, backend, protocol, cookie + 1000), backend, "another socket");
        }
        assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), world.backends(&[1, 2, 3]));
        assert!(seen.values().all(|count| *count > 60), "about as many for each: {seen:?}");
        assert_eq!(world.native.counters(), []);
        assert!(world.native.tables().affinity.borrow().is_empty(), "nothing to stay with");
    }
}

#[test]
fn what_is_no_service_is_left_alone() {
    for family in [4, 6] {
        let world = World::new(family, &[(1, ACTIVE)], 0);
        let connect = world.program(SocketProgram::Connect4, SocketProgram::Connect6);
        for (addr, port, protocol) in [
            (vip(family), 81, TCP),
            (pod(family, 1), 80, TCP),
            (vip(family), 80, 132),
            (vip(family), 80, 136),
        ] {
            let to = SocketAddr::new(addr, port);
            let mut call = World::call(to, protocol, 7);
            assert_eq!(world.outcome(connect, &mut call), Some(to));
        }
        assert_eq!(world.native.counters(), []);
        assert!(world.native.tables().sock_revnat.borrow().is_empty());
    }
}

/// A socket of both families calls an IPv4 service by an IPv6 address that stands for it.
#[test]
fn mapped_addresses_are_ipv4() {
    let world = World::new(4, &[(1, ACTIVE)], 0);
    let mapped = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => panic!("{addr} is none"),
    };
    let backend = SocketAddr::new(pod(4, 1), 8080);
    let mut call = World::call(mapped(world.vip()), TCP, 7);
    assert_eq!(world.outcome(SocketProgram::Connect6, &mut call), Some(mapped(backend)));
    assert_eq!(
        world.told(SocketProgram::Getpeername6, mapped(backend), TCP, 7),
        mapped(world.vip()),
        "and so back"
    );
    // The kernel hands datagrams of such sockets to the program for IPv4, and asks that for IPv6 who sent the answer.
    assert_eq!(world.send(8), Some(backend));
    assert_eq!(world.told(SocketProgram::Recvmsg6, mapped(backend), UDP, 8), mapped(world.vip()));
    let plain = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 80);
    let mut call = World::call(plain, TCP, 7);
    assert_eq!(world.outcome(SocketProgram::Connect6, &mut call), Some(plain));
}

#[test]
fn without_backends_a_call_fails_at_once() {
    for family in [4, 6] {
        let world = World::new(family, &[(1, ENDING)], 0);
        assert_eq!((world.connect(TCP, 1), world.connect(UDP, 2), world.send(3)), (None, None, None));
        assert_eq!(world.native.counters(), [(158, Direction::Service, 3)]);
        assert!(world.native.tables().sock_revnat.borrow().is_empty());
    }
}

#[test]
fn datagrams_of_a_socket_stay_with_their_backend_until_it_is_gone() {
    for family in [4, 6] {
        let mut world = World::new(family, &[(1, ACTIVE), (2, ACTIVE), (3, ACTIVE)], 0);
        let recvmsg = world.program(SocketProgram::Recvmsg4, SocketProgram::Recvmsg6);
        let first = world.send(9).unwrap();
        for _ in 0..100 {
            world.pass_s(59);
            assert_eq!(world.send(9), Some(first));
        }
        assert_eq!(world.told(recvmsg, first, UDP, 9), world.vip());
        let n = (1..=3).find(|n| first.ip() == pod(family, *n)).unwrap();
        // It is ending: what was begun goes on, another socket goes elsewhere.
        let others: Vec<u8> = (1..=3).filter(|other| *other != n).collect();
        let ending: Vec<_> = (1..=3).map(|other| (other, if other == n { ENDING } else { ACTIVE })).collect();
        world.serve(&ending, 0);
        assert_eq!(world.send(9), Some(first));
        for cookie in 100..150 {
            assert!(world.backends(&others).contains(&world.send(cookie).unwrap()));
        }
        // It is gone.
        let left: Vec<_> = others.iter().map(|n| (*n, ACTIVE)).collect();
        world.serve(&left, 0);
        let second = world.send(9).unwrap();
        assert!(world.backends(&others).contains(&second));
        assert_eq!(world.told(recvmsg, second, UDP, 9), world.vip());
        assert_eq!(world.told(recvmsg, first, UDP, 9), world.vip(), "a late answer of the first");
        assert_eq!(world.native.counters(), []);
    }
}

#[test]
fn a_silent_socket_may_go_elsewhere() {
    let world = World::new(4, &[(1, ACTIVE), (2, ACTIVE), (3, ACTIVE), (4, ACTIVE)], 0);
    let mut seen = BTreeSet::new();
    for _ in 0..64 {
        seen.extend(world.send(9));
        world.pass_s(61);
    }
    assert_eq!(seen, world.backends(&[1, 2, 3, 4]));
}

#[test]
fn a_client_stays_with_its_backend_for_the_time_of_a_session() {
    for family in [4, 6] {
        let mut world = World::new(family, &[(1, ACTIVE), (2, ACTIVE), (3, ACTIVE)], 100);
        let first = world.connect(TCP, 1).unwrap();
        for cookie in 2..60 {
            world.pass_s(100);
            assert_eq!(world.connect(TCP, cookie), Some(first));
        }
        // UDP has a service number of its own, so its sessions are others.
        let datagrams = world.send(60).unwrap();
        for cookie in 61..80 {
            assert_eq!(world.send(cookie), Some(datagrams));
        }
        // Another client.
        let mut seen = BTreeSet::new();
        let program = world.program(SocketProgram::Connect4, SocketProgram::Connect6);
        for netns in 2..60 {
            let mut call = SocketCall { netns, ..World::call(world.vip(), TCP, 1000 + netns) };
            seen.extend(world.outcome(program, &mut call));
        }
        assert_eq!(seen, world.backends(&[1, 2, 3]));
        // The backend is ending: no new connection goes there, and the next backend is the one that stays.
        let n = (1..=3).find(|n| first.ip() == pod(family, *n)).unwrap();
        let ending: Vec<_> = (1..=3).map(|other| (other, if other == n { ENDING } else { ACTIVE })).collect();
        world.serve(&ending, 100);
        let second = world.connect(TCP, 2000).unwrap();
        assert_ne!(second, first);
        for cookie in 2001..2030 {
            assert_eq!(world.connect(TCP, cookie), Some(second));
        }
        // The time of a session that nobody has used.
        let mut seen = BTreeSet::new();
        for cookie in 3000..3064 {
            world.pass_s(101);
            seen.extend(world.connect(TCP, cookie));
        }
        assert_eq!(seen.len(), 2);
        assert_eq!(world.native.counters(), []);
    }
}

/// The row of a client may outlive the service; its number may come again.
#[test]
fn a_session_with_a_backend_of_another_service_is_none() {
    let mut world = World::new(4, &[(1, ACTIVE)], 100);
    world.connect(TCP, 1).unwrap();
    let number = World::number(TCP, 1);
    let mut other = *world.native.tables().backends.get(&number).unwrap();
    (other.service, other.addr) = (1, Addr::v4([192, 0, 2, 1]));
    world.serve(&[(2, ACTIVE)], 100);
    assert!(world.native.tables_mut().backends.insert(number, other));
    assert_eq!(world.connect(TCP, 2), Some(SocketAddr::new(pod(4, 2), 8080)));
}

/// An agent takes slots and backends away while processes connect: the first slot is the last to go.
#[test]
fn a_slot_that_went_in_between_costs_nobody_a_connection() {
    let mut world = World::new(4, &[(1, ACTIVE), (2, ACTIVE)], 0);
    let key = world.key(TCP);
    world.native.tables_mut().services.remove(&key.slot(2));
    let first = SocketAddr::new(pod(4, 1), 8080);
    for cookie in 0..50 {
        assert_eq!(world.connect(TCP, cookie), Some(first));
    }
    let counters = world.native.counters();
    assert!(matches!(counters[..], [(5, Direction::Service, n)] if n > 10), "{counters:?}");
    world.native.tables_mut().backends.remove(&World::number(TCP, 1));
    assert_eq!(world.connect(TCP, 100), None);
    assert!(world.native.counters().iter().any(|(reason, _, _)| *reason == 158));
}

#[test]
fn who_could_not_be_told_whom_it_called_sends_no_datagram() {
    let mut world = World::new(4, &[(1, ACTIVE)], 0);
    assert!(world.native.tables_mut().refuse_creates("SOCK_REVNAT", 1));
    assert_eq!(world.send(1), None);
    assert_eq!(world.send(1), Some(SocketAddr::new(pod(4, 1), 8080)));
    assert!(world.native.tables_mut().refuse_creates("SOCK_REVNAT", 1));
    assert_eq!(world.connect(TCP, 2), Some(SocketAddr::new(pod(4, 1), 8080)), "it has its one peer anyway");
    assert_eq!(world.native.counters(), [(7, Direction::Service, 2)]);
}

/// Node ports: rows of a service for all nodes, and of another one that is different at one of them.
mod node_ports {
    use dataplane_abi::Identity;
    use dataplane_abi::config::NodeConfig;
    use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey};
    use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};

    use super::*;

    fn ip(family: u8, n: u8) -> IpAddr {
        if family == 4 {
            IpAddr::from([172, 18, 0, n])
        } else {
            IpAddr::from([0xfd00, 0x18, 0, 0, 0, 0, 0, u16::from(n)])
        }
    }

    const OWN: u8 = 1;
    const ROUTER: u8 = 2;
    const REMOTE: u8 = 3;
    const API: u8 = 4;
    const LABELLED: u8 = 5;
    const ELSEWHERE: u8 = 6;

    /// A node that knows others, and a service at port 30080 of all nodes.
    fn world(family: u8, range: (u16, u16)) -> World {
        let world = World::new(family, &[(1, ACTIVE)], 0);
        let World { mut native, .. } = world;
        let tables = native.tables_mut();
        let config = NodeConfig { node_port_min: range.0, node_port_max: range.1, ..NodeConfig::default() };
        tables.config.set(0, config);
        let own = |flags| EndpointEntry { flags, identity: Identity::HOST, ..EndpointEntry::default() };
        for (n, flags) in [(OWN, EndpointFlags::HOST), (ROUTER, EndpointFlags::HOST | EndpointFlags::ROUTER)]
        {
            assert!(tables.endpoints.insert(EndpointKey::from_ip(ip(family, n)), own(flags)));
        }
        let row = EndpointEntry { id: 7, identity: Identity(3000), ..EndpointEntry::default() };
        assert!(tables.endpoints.insert(EndpointKey::from_ip(pod(family, 1)), row));
        for (n, identity) in [
            (REMOTE, Identity::REMOTE_NODE),
            (API, Identity::KUBE_APISERVER),
            (LABELLED, Identity(0x0200_0001)),
            (ELSEWHERE, Identity::WORLD),
        ] {
            let bits = if family == 4 { 32 } else { 128 };
            let key = IpCacheKey::prefix(ip(family, n), bits);
            tables.ipcache.insert(key, IpCacheEntry::new(identity)).expect("room in the table");
        }
        let mut world = World { native, family };
        for proto in [TCP, UDP] {
            let cluster_ip = world.key(proto);
            let key = ServiceKey { addr: Addr::ZERO, port: Be16::new(30_080), ..cluster_ip };
            world.copy(cluster_ip, key, ServiceFlags::NODE_PORT);
        }
        world
    }

    impl World {
        /// Gives a frontend the backends of another one.
        fn copy(&mut self, from: ServiceKey, to: ServiceKey, flags: ServiceFlags) {
            let tables = self.native.tables_mut();
            let front = *tables.services.get(&from).expect("a frontend");
            for slot in 1..=front.count {
                let row = *tables.services.get(&from.slot(slot)).expect("a slot");
                assert!(tables.services.insert(to.slot(slot), row));
            }
            assert!(tables.services.insert(to, ServiceEntry { flags, ..front }));
        }

        fn call_at(&self, to: SocketAddr) -> [Option<SocketAddr>; 2] {
            let connect = self.program(SocketProgram::Connect4, SocketProgram::Connect6);
            let sendmsg = self.program(SocketProgram::Sendmsg4, SocketProgram::Sendmsg6);
            let outcome = |program, protocol| self.outcome(program, &mut Self::call(to, protocol, 5));
            [outcome(connect, TCP), outcome(sendmsg, UDP)]
        }
    }

    #[test]
    fn a_port_of_every_node_is_a_service_and_of_nobody_else() {
        for family in [4, 6] {
            let world = world(family, (30_000, 32_767));
            let backend = SocketAddr::new(pod(family, 1), 8080);
            let at = |n, port| SocketAddr::new(ip(family, n), port);
            for n in [OWN, REMOTE, API, LABELLED] {
                assert_eq!(world.call_at(at(n, 30_080)), [Some(backend); 2], "{n}");
                assert_eq!(world.call_at(at(n, 30_081)), [Some(at(n, 30_081)); 2], "{n}: another port");
            }
            for n in [ROUTER, ELSEWHERE, 9] {
                assert_eq!(world.call_at(at(n, 30_080)), [Some(at(n, 30_080)); 2], "{n}");
            }
            let to_pod = SocketAddr::new(pod(family, 1), 30_080);
            assert_eq!(world.call_at(to_pod), [Some(to_pod); 2]);
            let getpeername = world.program(SocketProgram::Getpeername4, SocketProgram::Getpeername6);
            assert_eq!(world.told(getpeername, backend, TCP, 5), at(LABELLED, 30_080));
            assert_eq!(world.native.counters(), []);
        }
    }

    #[test]
    fn ports_beyond_the_range_are_not_looked_for() {
        for family in [4, 6] {
            let to = SocketAddr::new(ip(family, OWN), 30_080);
            for range in [(0, 0), (30_081, 32_767), (30_000, 30_079)] {
                assert_eq!(world(family, range).call_at(to), [Some(to); 2], "{range:?}");
            }
            let backend = SocketAddr::new(pod(family, 1), 8080);
            assert_eq!(world(family, (30_080, 30_080)).call_at(to), [Some(backend); 2]);
        }
    }

    #[test]
    fn processes_of_the_node_do_not_get_ports_of_services() {
        for family in [4, 6] {
            let mut world = world(family, (30_000, 32_767));
            let program = world.program(SocketProgram::Bind4, SocketProgram::Bind6);
            let bind = |world: &World, to: SocketAddr, protocol, netns| {
                let mut call = SocketCall { netns, ..World::call(to, protocol, 5) };
                let verdict = world.native.run_socket(program, &mut call);
                assert_eq!(call.addr, to, "it is left as it is");
                verdict
            };
            let all: IpAddr = if family == 4 { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let (own, router) = (ip(family, OWN), ip(family, ROUTER));
            let taken = SocketAddr::new(all, 30_080);
            assert_eq!(bind(&world, taken, TCP, 1), SocketVerdict::Pass, "nobody is kept from it");
            world.native.set_protected_netns(1);
            for protocol in [TCP, UDP, MPTCP] {
                assert_eq!(bind(&world, taken, protocol, 1), SocketVerdict::Taken);
                let at_node = SocketAddr::new(own, 30_080);
                assert_eq!(bind(&world, at_node, protocol, 1), SocketVerdict::Taken);
                assert_eq!(
                    bind(&world, taken, protocol, 2),
                    SocketVerdict::Pass,
                    "a pod has ports of its own"
                );
                for to in [
                    SocketAddr::new(router, 30_080),
                    SocketAddr::new(ip(family, 9), 30_080),
                    SocketAddr::new(all, 30_081),
                    SocketAddr::new(all, 0),
                ] {
                    assert_eq!(bind(&world, to, protocol, 1), SocketVerdict::Pass, "{to}");
                }
            }
            let sctp = 132;
            assert_eq!(bind(&world, taken, sctp, 1), SocketVerdict::Pass, "services do not have it");
            // A port is taken while nobody answers there, and free when the service is gone.
            let key =
                |world: &World| ServiceKey { addr: Addr::ZERO, port: Be16::new(30_080), ..world.key(TCP) };
            let front = *world.native.tables().services.get(&key(&world)).unwrap();
            let nobody = ServiceEntry { count: 0, ..front };
            let at = key(&world);
            assert!(world.native.tables_mut().services.insert(at, nobody));
            assert_eq!(bind(&world, taken, TCP, 1), SocketVerdict::Taken);
            world.native.tables_mut().services.remove(&at);
            assert_eq!(bind(&world, taken, TCP, 1), SocketVerdict::Pass);
        }
    }

    #[test]
    fn a_socket_of_both_families_has_the_ports_of_both() {
        let world = world(4, (30_000, 32_767));
        world.native.set_protected_netns(1);
        for (to, verdict) in [
            ("[::]:30080", SocketVerdict::Taken),
            ("[::ffff:0.0.0.0]:30080", SocketVerdict::Taken),
            ("[::ffff:172.18.0.1]:30080", SocketVerdict::Taken),
            ("[::1]:30080", SocketVerdict::Pass),
            ("[::]:30081", SocketVerdict::Pass),
        ] {
            let mut call = World::call(to.parse().unwrap(), TCP, 5);
            assert_eq!(world.native.run_socket(SocketProgram::Bind6, &mut call), verdict, "{to}");
        }
    }

    /// As with `externalTrafficPolicy: Local`.
    #[test]
    fn a_node_may_be_different_from_the_others() {
        for family in [4, 6] {
            let mut world = world(family, (30_000, 32_767));
            for proto in [TCP, UDP] {
                let cluster_ip = world.key(proto);
                let all = ServiceKey { addr: Addr::ZERO, port: Be16::new(30_080), ..cluster_ip };
                let own = ServiceKey { addr: Addr::from_ip(ip(family, OWN)).0, ..all };
                world.copy(cluster_ip, own, ServiceFlags::NODE_PORT);
                let nobody = ServiceEntry { count: 0, ..*world.native.tables().services.get(&all).unwrap() };
                assert!(world.native.tables_mut().services.insert(all, nobody));
            }
            let backend = SocketAddr::new(pod(family, 1), 8080);
            assert_eq!(world.call_at(SocketAddr::new(ip(family, OWN), 30_080)), [Some(backend); 2]);
            assert_eq!(world.call_at(SocketAddr::new(ip(family, REMOTE), 30_080)), [None; 2]);
            assert_eq!(world.native.counters(), [(158, Direction::Service, 2)]);
        }
    }
}

proptest! {
    /// Whatever the rows, a call goes to an active backend of the service, to one that the client has had before, or fails; and what
    /// a process is told of who answers is whom it has called.
    #[test]
    fn calls_reach_backends_that_the_rows_allow(
        family in prop_oneof![Just(4_u8), Just(6)],
        timeout_s in prop_oneof![Just(0_u32), 1_u32..200],
        seed in any::<u64>(),
        steps in prop::collection::vec((prop::collection::btree_map(1_u8..7, any::<bool>(), 0..6), 0_u64..4, 0_u64..90, any::<bool>()), 1..40),
    ) {
        let mut world = World::new(family, &[], timeout_s);
        world.native.set_seed(seed);
        let mut had: BTreeMap<u64, SocketAddr> = BTreeMap::new();
        for (backends, cookie, seconds, datagram) in steps {
            let rows: Vec<_> = backends.iter().map(|(n, active)| (*n, if *active { ACTIVE } else { ENDING })).collect();
            world.serve(&rows, timeout_s);
            world.pass_s(seconds);
            let active = world.backends(&backends.iter().filter(|(_, active)| **active).map(|(n, _)| *n).collect::<Vec<_>>());
            let all = world.backends(&backends.keys().copied().collect::<Vec<_>>());
            let outcome = if datagram { world.send(cookie) } else { world.connect(TCP, cookie) };
            prop_assert_eq!(outcome.is_none(), active.is_empty());
            let Some(backend) = outcome else { continue };
            let stays = datagram && all.contains(&backend) && had.get(&cookie) == Some(&backend);
            prop_assert!(active.contains(&backend) || stays, "{backend} of {active:?}, {had:?}");
            if datagram {
                had.insert(cookie, backend);
            }
            let program = world.program(SocketProgram::Recvmsg4, SocketProgram::Recvmsg6);
            prop_assert_eq!(world.told(program, backend, if datagram { UDP } else { TCP }, cookie), world.vip());
        }
    }
}
