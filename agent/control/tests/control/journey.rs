//! Packet journeys: Node objects and CNI requests go into real agents, their rows into real programs, packets through both.

mod cluster;
mod packet;

use std::net::IpAddr;
use std::time::Duration;

use agent_control::Routing;
use dataplane_abi::DropReason;
use dataplane_abi::metrics::Direction;

use cluster::{Cluster, End};
use packet::{ACK, FIN, Load, Packet, SYN};

const BOTH: [Routing; 2] = [Routing::Vxlan, Routing::Native];
const ECHO: Load = Load::Echo { reply: false, id: 77 };
const HTTP: Load = Load::Tcp { sport: 40000, dport: 80, flags: SYN };
const DNS: Load = Load::Udp { sport: 40000, dport: 53 };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Counters by node: packets forwarded and passed by in each direction.
fn counted(cluster: &Cluster) -> Vec<String> {
    let text = |(n, reason, direction, packets): (u16, u8, Direction, u64)| {
        format!("{n} {} {} {packets}", reason, direction.name().to_lowercase())
    };
    cluster.counters().into_iter().map(text).collect()
}

#[test]
fn pods_of_one_node_by_one_program_each_way() {
    for routing in BOTH {
        let mut cluster = Cluster::new(routing, 3);
        let a = cluster.add(1, "a");
        let b = cluster.add(1, "b");
        for (src, dst) in a.into_iter().zip(b) {
            for load in [ECHO, HTTP, DNS] {
                let sent = Packet::new(src, dst, load);
                let there = cluster.pod_sends(1, "a", sent);
                assert_eq!(there.way, ["1 from_container peer"]);
                let arrived = there.in_pod(1, "b");
                assert_eq!(arrived, Packet { hops: 63, ..sent });
                let back = cluster.pod_sends(1, "b", arrived.answer());
                assert_eq!(back.way, ["1 from_container peer"]);
                assert_eq!(back.in_pod(1, "a"), Packet { hops: 63, ..sent.answer() });
            }
        }
        assert_eq!(counted(&cluster), ["1 0 egress 12"], "each packet once, and nobody else has seen any");
        let rows = |table| cluster.members[&1].native.tables().dump(table).unwrap().len();
        assert_eq!(
            (rows("CT4"), rows("CT6")),
            (3, 3),
            "one row for a connection, not one for each direction"
        );
    }
}

#[test]
fn pods_of_two_nodes() {
    for routing in BOTH {
        let mut cluster = Cluster::new(routing, 3);
        let a = cluster.add(1, "a");
        let b = cluster.add(2, "b");
        cluster.add(3, "c");
        let way = |from: u16, to: u16| match routing {
            Routing::Vxlan => vec![
                format!("{from} from_container tunnel"),
                format!("{from} to_netdev skip"),
                format!("{to} from_netdev skip"),
                format!("{to} from_overlay peer"),
            ],
            Routing::Native => vec![
                format!("{from} from_container neighbour"),
                format!("{from} to_netdev skip"),
                format!("{to} from_netdev peer"),
            ],
        };
        for (src, dst) in a.into_iter().zip(b) {
            for load in [ECHO, HTTP, DNS] {
                let sent = Packet::new(src, dst, load);
                let there = cluster.pod_sends(1, "a", sent);
                assert_eq!(there.way, way(1, 2));
                let arrived = there.in_pod(2, "b");
                assert_eq!(arrived, Packet { hops: 62, ..sent }, "two routers are on the way");
                let back = cluster.pod_sends(2, "b", arrived.answer());
                assert_eq!(back.way, way(2, 1));
                assert_eq!(back.in_pod(1, "a").hops, 62);
            }
        }
        let expected: &[&str] = match routing {
            // Forwarded (0): from_container, from_overlay. Passed by (3): the outer packets on the underlay.
            Routing::Vxlan => &[
                "1 0 ingress 6",
                "1 3 ingress 6",
                "1 0 egress 6",
                "1 3 egress 6",
                "2 0 ingress 6",
                "2 3 ingress 6",
                "2 0 egress 6",
                "2 3 egress 6",
            ],
            Routing::Native => &[
                "1 0 ingress 6",
                "1 0 egress 6",
                "1 3 egress 6",
                "2 0 ingress 6",
                "2 0 egress 6",
                "2 3 egress 6",
            ],
        };
        assert_eq!(sorted(counted(&cluster)), sorted(expected.iter().map(ToString::to_string).collect()));
    }
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn pods_and_nodes() {
    for routing in BOTH {
        let mut cluster = Cluster::new(routing, 3);
        let a = cluster.add(1, "a");
        let routers = [ip("10.10.1.1"), ip("fd00:10:1::1")];
        let own = [ip("172.30.0.1"), ip("fd00:30::1")];
        let other = [ip("172.30.0.2"), ip("fd00:30::2")];
        for family in 0..2 {
            for load in [ECHO, HTTP, DNS] {
                // To the own node, by either address, and back.
                for address in [routers[family], own[family]] {
                    let sent = Packet::new(a[family], address, load);
                    let arrived = cluster.pod_sends(1, "a", sent).in_host(1);
                    assert_eq!(arrived, sent);
                    let back = cluster.host_sends(1, arrived.answer());
                    assert_eq!(back.way, ["1 from_host egress", "1 to_container pass"]);
                    assert_eq!(back.in_pod(1, "a"), sent.answer());
                }
                // To another node, and back.
                let sent = Packet::new(a[family], other[family], load);
                let there = cluster.pod_sends(1, "a", sent);
                let first = if routing == Routing::Vxlan {
                    "1 from_container tunnel"
                } else {
                    "1 from_container neighbour"
                };
                assert_eq!(there.way[0], first);
                let arrived = there.in_host(2);
                cluster.host_sends(2, arrived.answer()).in_pod(1, "a");
                // A node begins: the router of a node behind the tunnel is the source the routes give it.
                let near = if routing == Routing::Vxlan {
                    ip(["10.10.2.1", "fd00:10:2::1"][family])
                } else {
                    other[family]
                };
                let sent = Packet::new(near, a[family], load);
                let arrived = cluster.host_sends(2, sent).in_pod(1, "a");
                let back = cluster.pod_sends(1, "a", arrived.answer());
                assert_eq!(back.in_host(2).load, sent.answer().load);
                // The own node begins.
                let sent = Packet::new(routers[family], a[family], load);
                cluster.host_sends(1, sent).in_pod(1, "a");
            }
        }
        assert!(
            cluster.counters().iter().all(|(_, reason, ..)| *reason == 0 || *reason == 3),
            "nothing was dropped"
        );
    }
}

#[test]
fn the_world_is_left_to_the_stack() {
    for routing in BOTH {
        let mut cluster = Cluster::new(routing, 2);
        let a = cluster.add(1, "a");
        for (src, dst) in a.into_iter().zip([ip("192.0.2.9"), ip("2001:db8::9")]) {
            let journey = cluster.pod_sends(1, "a", Packet::new(src, dst, HTTP));
            assert_eq!(journey.end, End::World { node: 1 });
            assert_eq!(journey.way, ["1 from_container pass", "1 to_netdev skip"]);
        }
    }
}

#[test]
fn nobody_there_and_nobody_else() {
    for routing in BOTH {
        let mut cluster = Cluster::new(routing, 3);
        let a = cluster.add(1, "a");
        cluster.add(2, "b");
        // An address of this node, and one of another, that no pod has.
        for (src, near, far) in
            [(a[0], "10.10.1.200", "10.10.2.200"), (a[1], "fd00:10:1::c8", "fd00:10:2::c8")]
        {
            let end = cluster.pod_sends(1, "a", Packet::new(src, ip(near), HTTP)).end;
            let program = agent_control::ports::Program::FromHost;
            assert_eq!(end, End::Dropped { node: 1, program, reason: DropReason::UnknownTarget });
            let end = cluster.pod_sends(1, "a", Packet::new(src, ip(far), HTTP)).end;
            assert!(
                matches!(end, End::Dropped { node: 2, reason: DropReason::UnknownTarget, .. }),
                "{routing:?} {far}: {end:?}"
            );
        }
        // A pod that says it is another one, here or elsewhere.
        for lie in ["10.10.1.200", "10.10.2.2", "172.30.0.1", "192.0.2.1"] {
            let end = cluster.pod_sends(1, "a", Packet::new(ip(lie), ip("10.10.2.2"), HTTP)).end;
            assert!(
                matches!(end, End::Dropped { node: 1, reason: DropReason::InvalidSourceIp, .. }),
                "{lie}: {end:?}"
            );
        }
    }
}

#[test]
fn connections_outlive_the_agent_and_changes_of_others() {
    for routing in BOTH {
        let mut cluster = Cluster::new(routing, 3);
        let a = cluster.add(1, "a");
        let b = cluster.add(2, "b");
        let sent = Packet::new(a[0], b[0], HTTP);
        let arrived = cluster.pod_sends(1, "a", sent).in_pod(2, "b");
        cluster.pod_sends(2, "b", arrived.answer()).in_pod(1, "a");
        let more = Packet { load: Load::Tcp { sport: 40000, dport: 80, flags: ACK }, ..sent };
        cluster.restart(1);
        cluster.restart(2);
        cluster.pod_sends(1, "a", more).in_pod(2, "b");
        // Other pods come and go, which raises the revision.
        for n in 0..5 {
            cluster.add(1, &format!("x{n}"));
            cluster.del(1, "x0");
            cluster.add(2, &format!("y{n}"));
            cluster.pod_sends(1, "a", more).in_pod(2, "b");
            cluster.pod_sends(2, "b", more.answer()).in_pod(1, "a");
        }
    }
}

#[test]
fn who_gets_a_used_address_gets_no_old_packets_way() {
    let mut cluster = Cluster::new(Routing::Vxlan, 2);
    let a = cluster.add(1, "a");
    let old = cluster.add(2, "old");
    let sent = Packet::new(a[0], old[0], HTTP);
    let arrived = cluster.pod_sends(1, "a", sent).in_pod(2, "old");
    cluster.pod_sends(2, "old", arrived.answer()).in_pod(1, "a");
    cluster.del(2, "old");
    let more = Packet { load: Load::Tcp { sport: 40000, dport: 80, flags: ACK }, ..sent };
    let end = cluster.pod_sends(1, "a", more).end;
    assert!(matches!(end, End::Dropped { node: 2, reason: DropReason::UnknownTarget, .. }), "{end:?}");
    // All other addresses are used up, the quarantine is over: another pod gets that one.
    cluster.member(2).world.pass(Duration::from_secs(31));
    let mut n = 0;
    let container = loop {
        n += 1;
        let container = format!("c{n}");
        if cluster.add(2, &container)[0] == old[0] {
            break container;
        }
    };
    assert_eq!(n, 253, "as late as can be");
    cluster.pod_sends(1, "a", more).in_pod(2, &container);
}

#[test]
fn the_agent_expires_what_the_programs_wrote() {
    let mut cluster = Cluster::new(Routing::Native, 2);
    let a = cluster.add(1, "a");
    let b = cluster.add(2, "b");
    for (src, dst) in a.into_iter().zip(b) {
        cluster.pod_sends(1, "a", Packet::new(src, dst, ECHO)).in_pod(2, "b");
        for flags in [SYN, ACK] {
            let load = Load::Tcp { sport: 40000, dport: 80, flags };
            cluster.pod_sends(1, "a", Packet::new(src, dst, load)).in_pod(2, "b");
        }
        for (from, to, container) in [(src, dst, "b"), (dst, src, "a")] {
            let (n, sender) = if container == "b" { (1, "a") } else { (2, "b") };
            let (sport, dport) = if container == "b" { (40001, 80) } else { (80, 40001) };
            let load = Load::Tcp { sport, dport, flags: FIN | ACK };
            cluster
                .pod_sends(n, sender, Packet::new(from, to, load))
                .in_pod(if n == 1 { 2 } else { 1 }, container);
        }
    }
    let mut left = |seconds: u64| {
        let mut left = Vec::new();
        for member in cluster.members.values_mut() {
            member.native.advance(seconds * 1_000_000_000, 250);
            member.collect();
            for table in ["CT4", "CT6"] {
                left.push(member.native.tables().dump(table).unwrap().len());
            }
        }
        left
    };
    assert_eq!(left(9), [3, 3, 3, 3]);
    assert_eq!(left(2), [2, 2, 2, 2], "closed by FIN of both ends: 10 s");
    assert_eq!(left(51), [1, 1, 1, 1], "echo: 60 s");
    assert_eq!(left(7900), [1, 1, 1, 1]);
    assert_eq!(left(100), [0, 0, 0, 0], "established: 8000 s");
}
