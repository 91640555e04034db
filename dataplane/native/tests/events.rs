//! What is told: drops always, traces by the level of aggregation.

mod world;

use dataplane_abi::config::ConfigFlags;
use dataplane_abi::events::{Event, EventHeader, TracePoint, TraceReason};
use dataplane_abi::metrics::EVENTS_LOST;
use dataplane_abi::program::Program;
use dataplane_abi::{DropReason, Identity};
use dataplane_core::Verdict;
use dataplane_native::tables::Ring;
use world::{A1, A2, B1, FAMILIES, HZ, World, craft};

fn told(world: &World) -> Vec<(Option<TracePoint>, Option<TraceReason>)> {
    world
        .events()
        .iter()
        .map(|e| (e.header.trace_point(), TraceReason::from_number(e.header.trace_reason)))
        .collect()
}

fn world(aggregation: u8) -> World {
    let mut world = World::vxlan();
    world.config.aggregation = aggregation;
    world.write_config();
    world
}

#[test]
fn a_trace_says_who_and_where() {
    for family in FAMILIES {
        let world = world(3);
        let bytes = craft(&A1, A2.ip(family)).tcp(4000, 80, 2, b"");
        let (_, frame) = world.pod_sends(&A1, &bytes);
        let events = world.events();
        let [Event { header, payload }] = &events[..] else { panic!("one event, not {}", events.len()) };
        assert_eq!(
            *header,
            EventHeader {
                kind: 4,
                subtype: TracePoint::ToEndpoint as u8,
                endpoint: A1.id,
                hash: 0,
                time_ns: 1_000_000_000,
                len_orig: u32::try_from(bytes.len()).expect("a short frame"),
                len_cap: u16::try_from(bytes.len()).expect("a short frame"),
                version: 2,
                program: Program::FromContainer as u8,
                src_identity: Identity(A1.identity),
                dst_identity: Identity(A2.identity),
                dst_endpoint: A2.id,
                trace_reason: TraceReason::New as u8,
                flags: if family == 6 { EventHeader::IPV6 } else { 0 },
                ifindex: A1.ifindex,
                arg: 0,
                staged_cookie: 0,
                staged: 0,
                policy_match: 0,
                policy_flags: 0,
                reserved: [0; 5],
            }
        );
        assert_eq!(payload[..bytes.len()], frame.bytes);
        assert!(payload[bytes.len()..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn medium_tells_of_what_is_new_and_then_once_per_interval() {
    use TracePoint::{ToEndpoint, ToOverlay};
    use TraceReason::{Established, New, Reply};
    let world = world(3);
    let send = |flags| world.forwards(&A1, &craft(&A1, A2.v4).tcp(4000, 80, flags, b""));
    let answer = |flags| world.forwards(&A2, &craft(&A2, A1.v4).tcp(80, 4000, flags, b""));
    send(2);
    assert_eq!(told(&world), [(Some(ToEndpoint), Some(New))]);
    answer(18);
    assert_eq!(told(&world), [(Some(ToEndpoint), Some(Reply))]);
    for _ in 0..20 {
        send(16);
        answer(16);
    }
    assert_eq!(told(&world), []);
    world.seconds(6);
    for _ in 0..20 {
        send(16);
        answer(16);
    }
    assert_eq!(told(&world), [(Some(ToEndpoint), Some(Established)), (Some(ToEndpoint), Some(Reply))]);
    send(17);
    assert_eq!(told(&world), [(Some(ToEndpoint), Some(Established))], "FIN was not seen before");
    world.forwards(&A1, &craft(&A1, B1.v4).udp(1, 2, b""));
    assert_eq!(told(&world), [(Some(ToOverlay), Some(New))]);
    assert_eq!(HZ, world.config.ticks_per_s);
}

#[test]
fn low_tells_of_every_packet_once_and_none_also_where_it_came_from() {
    let count = |aggregation| {
        let world = world(aggregation);
        for _ in 0..3 {
            world.forwards(&A1, &craft(&A1, A2.v4).udp(1, 2, b""));
        }
        told(&world)
    };
    assert_eq!(count(1).len(), 3);
    let all = count(0);
    assert_eq!(all.len(), 6);
    assert_eq!(all[0], (Some(TracePoint::FromEndpoint), Some(TraceReason::Unknown)));
    assert_eq!(all[1].0, Some(TracePoint::ToEndpoint));
}

#[test]
fn events_can_be_switched_off_and_counters_stay() {
    let mut world = World::vxlan();
    world.config.flags.remove(ConfigFlags::DROP_EVENTS | ConfigFlags::TRACE_EVENTS);
    world.config.aggregation = 0;
    world.write_config();
    world.forwards(&A1, &craft(&A1, A2.v4).udp(1, 2, b""));
    let (verdict, _) = world.pod_sends(&A2, &craft(&A1, A2.v4).udp(1, 2, b""));
    assert_eq!(verdict, Verdict::Drop(DropReason::InvalidSourceIp));
    assert!(world.events().is_empty());
    assert_eq!(world.counters().len(), 2);
}

#[test]
fn long_packets_are_cut_and_lost_records_are_counted() {
    let mut world = World::vxlan();
    // A record takes 192 bytes, and the last byte stays free.
    assert_eq!([4 * 192, 4 * 192 + 1].map(Ring::records), [3, 4]);
    world.native.tables_mut().events.replace(Ring::new(4 * 192 + 1));
    for port in 1..=10 {
        world.forwards(&A1, &craft(&A1, A2.v4).udp(port, 2, &[7; 1000]));
    }
    let events = world.events();
    assert_eq!(events.len(), 4);
    assert_eq!((events[0].header.len_cap, events[0].header.len_orig), (128, 1042));
    let lost = world.native.tables().metrics.borrow().get(EVENTS_LOST).map(|row| row.packets);
    assert_eq!(lost, Some(6));
}
