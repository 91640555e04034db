//! Masquerade: what the dataplane is told, and that a restart, with other flags or the same, leaves what these say.

use std::collections::BTreeSet;

use agent_control::ports::{PortError, Program, Table};
use agent_control::{Config, Event, FamilyMode, Masquerade, Routing};
use dataplane_abi::config::ConfigFlags;
use dataplane_abi::conntrack::CtState;
use dataplane_abi::ipcache::IpCacheKey;
use dataplane_abi::nat::NatEntry;
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::world::{OWN, World, node};

const ON: ConfigFlags = ConfigFlags::MASQUERADE_V4.union(ConfigFlags::MASQUERADE_V6);

fn config(routing: Routing) -> Config {
    let masquerade = Masquerade {
        ipv4: true,
        ipv6: true,
        native_routing: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()],
        excluded: vec!["192.0.2.77/24".parse().unwrap()],
        ..Masquerade::default()
    };
    Config { masquerade, ..Config::new(OWN, routing) }
}

fn ready(config: Config) -> World {
    let mut world = World::with(config);
    world.sync(2);
    world
}

/// Prefixes with the reasons for which pods keep their address there.
fn prefixes(world: &World) -> BTreeSet<(String, u8)> {
    let row = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        let (ip, length) = IpCacheKey::read_from_bytes(key).unwrap().to_prefix().unwrap();
        (format!("{ip}/{length}"), value[0])
    };
    world.maps.rows(Table::NoMasquerade).iter().map(row).collect()
}

fn on_device(world: &World) -> usize {
    let programs = &world.node.links()["eth0"].programs;
    [Program::FromNetdev, Program::ToNetdev].iter().filter(|program| programs.contains(program)).count()
}

#[test]
fn flags_ports_prefixes_and_programs() {
    for routing in [Routing::Vxlan, Routing::Native] {
        let world = ready(config(routing));
        let row = world.node_config();
        assert!(row.flags.contains(ON));
        assert_eq!((row.snat_port_min, row.snat_port_max), (32_768, 65_535));
        let expected = [("10.0.0.0/8", 1), ("fd00::/16", 1), ("192.0.2.0/24", 2)];
        assert_eq!(prefixes(&world), expected.map(|(prefix, why)| (prefix.to_owned(), why)).into());
        assert_eq!(on_device(&world), 2);
    }
}

#[test]
fn one_family_alone() {
    let mut one = config(Routing::Vxlan);
    one.masquerade.ipv4 = false;
    let world = ready(one);
    assert_eq!(world.node_config().flags & ON, ConfigFlags::MASQUERADE_V6);
    assert_eq!(prefixes(&world), [("fd00::/16".to_owned(), 1)].into());
    // Pods without IPv6 are not masqueraded by it.
    let world = ready(Config { ipv6: FamilyMode::Off, ..config(Routing::Vxlan) });
    assert_eq!(world.node_config().flags & ON, ConfigFlags::MASQUERADE_V4);
}

#[test]
fn without_the_flags_nothing_is_there() {
    let world = ready(Config::new(OWN, Routing::Vxlan));
    let row = world.node_config();
    assert!(!row.flags.intersects(ON));
    assert_eq!((row.snat_port_min, row.snat_port_max), (0, 0));
    assert_eq!((prefixes(&world).len(), on_device(&world)), (0, 0));
}

#[test]
fn a_restart_writes_nothing_and_one_with_other_flags_what_these_say() {
    let mut world = ready(config(Routing::Vxlan));
    world.assert_restart_writes_nothing(&[node(1), node(2)]);
    world.config.masquerade.excluded = vec!["198.51.100.0/24".parse().unwrap()];
    world.restart();
    world.sync(2);
    assert!(prefixes(&world).contains(&("198.51.100.0/24".to_owned(), 2)));
    assert_eq!(prefixes(&world).len(), 3);
    world.config.masquerade = Masquerade::default();
    world.restart();
    world.sync(2);
    assert!(!world.node_config().flags.intersects(ON));
    assert_eq!((prefixes(&world).len(), on_device(&world)), (0, 0));
}

#[test]
fn prefixes_are_there_before_anybody_is_masqueraded() {
    let mut world = ready(Config::new(OWN, Routing::Vxlan));
    world.config = config(Routing::Vxlan);
    world.restart();
    world.faults.refuse("upsert NO_MASQUERADE", PortError::retryable("", "busy"));
    world.sync(2);
    assert!(!world.agent.failures().is_empty());
    assert!(!world.node_config().flags.intersects(ON));
    world.faults.accept();
    world.pass(std::time::Duration::from_mins(1));
    assert_eq!((world.agent.failures().len(), prefixes(&world).len()), (0, 3));
    assert!(world.node_config().flags.contains(ON));
}

#[test]
fn ports_of_connections_that_are_over_are_removed() {
    let mut world = ready(config(Routing::Vxlan));
    world.maps.clock.ticks = 250 * 20_000;
    for (n, state, idle_s) in
        [(1_u8, CtState::Established, 7999), (2, CtState::Established, 8001), (3, CtState::Any, 61)]
    {
        let clock = world.maps.clock;
        let last_seen = u32::try_from(clock.ticks - idle_s * u64::from(clock.ticks_per_s)).unwrap();
        let entry = NatEntry { last_seen, state: state as u8, ..NatEntry::default() };
        world.maps.put(Table::Nat4, &[n; 16], entry.as_bytes());
        world.maps.put(Table::Nat6, &[n; 40], entry.as_bytes());
    }
    world.event(Event::CtGc);
    world.settle();
    for table in [Table::Nat4, Table::Nat6] {
        let left: Vec<u8> = world.maps.rows(table).keys().map(|key| key[0]).collect();
        assert_eq!(left, [1]);
    }
    assert_eq!(world.agent.conntrack_entries(), 0, "ports are no connections");
}
