//! A record of the ring buffer as an event of the local API: the header's numbers in words, and the packet's headers read.

use super::rules::Rules;
use crate::words;
use agent_api::Timestamp;
use agent_api::monitor::{DebugEvent, DropEvent, MonitorEvent, PacketInfo, PolicyVerdictEvent, TraceEvent};
use dataplane_abi::DropReason;
use dataplane_abi::events::{Event, EventHeader, EventKind, TraceReason};
use dataplane_abi::policy::Staged;
use dataplane_loader::clock::monotonic_ns;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The distance between the clock of events and the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallClock {
    boot_unix_ns: u64,
}

impl WallClock {
    /// Read again for each batch of events, so that a clock that is being set is followed.
    pub(super) fn now() -> Self {
        Self { boot_unix_ns: Timestamp::now().unix_nanos().saturating_sub(monotonic_ns()) }
    }

    const fn at(self, monotonic_ns: u64) -> Timestamp {
        Timestamp::from_unix_nanos(self.boot_unix_ns.saturating_add(monotonic_ns))
    }
}

/// The event; `None` for a kind that this version does not know.
pub(super) fn event(event: &Event, clock: WallClock, rules: &mut Rules) -> Option<MonitorEvent> {
    let EventHeader { kind, subtype, time_ns, flags, .. } = event.header;
    let time = clock.at(time_ns);
    Some(match EventKind::from_number(kind)? {
        EventKind::Drop => MonitorEvent::Drop(DropEvent {
            time,
            reason: reason(subtype),
            reason_code: subtype,
            direction: direction(flags),
            cookie: event.header.arg,
            decided_by: rules.at(event.header.arg, time_ns),
            packet: packet(event),
        }),
        EventKind::Trace => MonitorEvent::Trace(TraceEvent {
            time,
            point: event
                .header
                .trace_point()
                .map_or_else(|| format!("point-{subtype}"), |point| point.name().to_owned()),
            reason: TraceReason::from_number(event.header.trace_reason)
                .unwrap_or(TraceReason::Unknown)
                .name()
                .to_owned(),
            packet: packet(event),
        }),
        EventKind::Debug => MonitorEvent::Debug(DebugEvent {
            time,
            endpoint: event.header.endpoint,
            code: subtype,
            args: [event.header.arg, event.header.hash, event.header.ifindex],
        }),
        EventKind::PolicyVerdict => MonitorEvent::PolicyVerdict(PolicyVerdictEvent {
            time,
            direction: direction(flags),
            verdict: if subtype == 0 {
                "allowed"
            } else if event.header.policy_flags & EventHeader::AUDITED == 0 {
                "denied"
            } else {
                "audited"
            }
            .to_owned(),
            reason: if subtype == 0 { String::new() } else { reason(subtype) },
            reason_code: subtype,
            match_type: event.header.policy_match().map_or_else(
                || format!("match-{}", event.header.policy_match),
                |kind| kind.name().to_owned(),
            ),
            cookie: event.header.arg,
            decided_by: rules.at(event.header.arg, time_ns),
            staged: match event.header.staged() {
                Some(Staged::WouldAllow) => "allow".to_owned(),
                Some(Staged::WouldDeny) => "deny".to_owned(),
                Some(Staged::Nothing) | None => String::new(),
            },
            staged_cookie: event.header.staged_cookie,
            staged_by: rules.at(event.header.staged_cookie, time_ns),
            packet: packet(event),
        }),
    })
}

fn reason(number: u8) -> String {
    DropReason::from_number(number)
        .map_or_else(|| format!("REASON_{number}"), |reason| reason.name().to_owned())
}

fn direction(flags: u8) -> String {
    if flags & EventHeader::INGRESS == 0 { "egress" } else { "ingress" }.to_owned()
}

fn packet(event: &Event) -> PacketInfo {
    let header = &event.header;
    let captured = usize::from(header.len_cap).min(event.payload.len());
    let mut info = PacketInfo {
        endpoint: header.endpoint,
        to_endpoint: header.dst_endpoint,
        source_identity: header.src_identity.0,
        destination_identity: header.dst_identity.0,
        ifindex: header.ifindex,
        length: header.len_orig,
        ..PacketInfo::default()
    };
    // What cannot be read stays empty: an event about a truncated packet is an event all the same.
    let _ = link_layer(&event.payload[..captured], &mut info);
    info
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn ipv4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn ipv6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

fn link_layer(frame: &[u8], info: &mut PacketInfo) -> Option<()> {
    let payload = frame.get(14..)?;
    match be16(frame, 12)? {
        0x0800 => network_v4(payload, info),
        0x86dd => network_v6(payload, info),
        0x0806 => {
            "arp".clone_into(&mut info.protocol);
            info.source = ipv4(payload, 14);
            info.destination = ipv4(payload, 24);
            info.detail = match be16(payload, 6)? {
                1 => "request".into(),
                2 => "reply".into(),
                other => format!("operation {other}"),
            };
            Some(())
        }
        other => {
            info.protocol = format!("ethertype {other:#06x}");
            Some(())
        }
    }
}

fn network_v4(packet: &[u8], info: &mut PacketInfo) -> Option<()> {
    info.source = ipv4(packet, 12);
    info.destination = ipv4(packet, 16);
    let protocol = *packet.get(9)?;
    info.protocol = words::protocol(protocol);
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    let fragment = be16(packet, 6)?;
    if fragment & 0x1fff != 0 {
        info.detail = format!("fragment at {}", (fragment & 0x1fff) * 8);
        return Some(());
    }
    transport(protocol, packet.get(header_len..)?, info)
}

fn network_v6(packet: &[u8], info: &mut PacketInfo) -> Option<()> {
    info.source = ipv6(packet, 8);
    info.destination = ipv6(packet, 24);
    let mut protocol = *packet.get(6)?;
    let mut rest = packet.get(40..)?;
    // Hop-by-hop, routing, fragment, destination options, authentication (RFC 8200 section 4, RFC 4302). The payload's length bounds the walk.
    loop {
        let length = match protocol {
            0 | 43 | 60 => (usize::from(*rest.get(1)?) + 1) * 8,
            51 => (usize::from(*rest.get(1)?) + 2) * 4,
            44 => {
                let offset = be16(rest, 2)? & 0xfff8;
                if offset != 0 {
                    info.protocol = words::protocol(*rest.first()?);
                    info.detail = format!("fragment at {offset}");
                    return Some(());
                }
                8
            }
            _ => break,
        };
        protocol = *rest.first()?;
        rest = rest.get(length..)?;
    }
    info.protocol = words::protocol(protocol);
    transport(protocol, rest, info)
}

fn transport(protocol: u8, segment: &[u8], info: &mut PacketInfo) -> Option<()> {
    match protocol {
        6 | 17 | 132 => {
            info.source_port = Some(be16(segment, 0)?);
            info.destination_port = Some(be16(segment, 2)?);
            if protocol == 6 {
                info.detail = words::tcp_flags(*segment.get(13)?);
            }
        }
        1 | 58 => info.detail = icmp(protocol == 58, *segment.first()?, *segment.get(1)?),
        _ => {}
    }
    Some(())
}

fn icmp(v6: bool, kind: u8, code: u8) -> String {
    let name = match (v6, kind) {
        (false, 8) | (true, 128) => "echo request",
        (false, 0) | (true, 129) => "echo reply",
        (false, 3) if code == 4 => return "fragmentation needed".into(),
        (false, 3) | (true, 1) => return format!("destination unreachable, code {code}"),
        (false, 11) | (true, 3) => "time exceeded",
        (true, 2) => "packet too big",
        (true, 133) => "router solicitation",
        (true, 134) => "router advertisement",
        (true, 135) => "neighbour solicitation",
        (true, 136) => "neighbour advertisement",
        _ => return format!("type {kind} code {code}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Rules, WallClock, event};
    use agent_api::MonitorEvent;
    use dataplane_abi::events::{Event, EventHeader, EventKind, PAYLOAD_MAX, TracePoint, TraceReason};
    use dataplane_abi::policy::{PolicyMatch, Staged};
    use dataplane_abi::{DropReason, Identity};

    const CLOCK: WallClock = WallClock { boot_unix_ns: 1_000_000_000 };

    fn nothing() -> Rules {
        Rules::new(std::sync::mpsc::channel().1)
    }

    fn record(header: EventHeader, frame: &[u8]) -> Event {
        let mut payload = [0; PAYLOAD_MAX];
        payload[..frame.len()].copy_from_slice(frame);
        let len_cap = u16::try_from(frame.len()).unwrap();
        Event { header: EventHeader { len_cap, len_orig: 1500, ..header }, payload }
    }

    fn tcp_syn() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 11, 1, 5, 10, 11, 2, 7]);
        frame.extend([0x10, 0x92, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn a_drop_says_who_why_and_when() {
        let header = EventHeader {
            kind: EventKind::Drop as u8,
            subtype: DropReason::PolicyDenied.number(),
            endpoint: 12,
            time_ns: 5,
            arg: 9,
            src_identity: Identity(300),
            ..EventHeader::default()
        };
        let Some(MonitorEvent::Drop(drop)) = event(&record(header, &tcp_syn()), CLOCK, &mut nothing()) else {
            panic!("a drop")
        };
        assert_eq!(
            (drop.reason.as_str(), drop.reason_code, drop.direction.as_str()),
            ("POLICY_DENIED", 133, "egress")
        );
        assert_eq!((drop.time.unix_nanos(), drop.cookie), (1_000_000_005, 9));
        let packet = drop.packet;
        assert_eq!(packet.source.unwrap().to_string(), "10.11.1.5");
        assert_eq!((packet.source_port, packet.destination_port), (Some(4242), Some(8080)));
        assert_eq!((packet.protocol.as_str(), packet.detail.as_str()), ("tcp", "SYN"));
        assert_eq!((packet.endpoint, packet.source_identity, packet.length), (12, 300, 1500));
    }

    #[test]
    fn a_verdict_says_whose_policy_it_was_and_by_which_rules() {
        let header = EventHeader {
            kind: EventKind::PolicyVerdict as u8,
            subtype: DropReason::PolicyDenyRule.number(),
            endpoint: 12,
            flags: EventHeader::INGRESS,
            arg: 7,
            staged_cookie: 8,
            staged: Staged::WouldAllow as u8,
            policy_match: PolicyMatch::L3L4 as u8,
            ..EventHeader::default()
        };
        let decode = |header| match event(&record(header, &tcp_syn()), CLOCK, &mut nothing()) {
            Some(MonitorEvent::PolicyVerdict(verdict)) => verdict,
            other => panic!("{other:?}"),
        };
        let denied = decode(header);
        assert_eq!(
            (denied.direction.as_str(), denied.verdict.as_str(), denied.reason.as_str(), denied.reason_code),
            ("ingress", "denied", "POLICY_DENY", 181)
        );
        assert_eq!((denied.match_type.as_str(), denied.cookie), ("L3-L4", 7));
        assert_eq!((denied.staged.as_str(), denied.staged_cookie), ("allow", 8));
        assert_eq!((denied.packet.endpoint, denied.packet.destination_port), (12, Some(8080)));

        let audited = decode(EventHeader { policy_flags: EventHeader::AUDITED, ..header });
        assert_eq!(audited.verdict, "audited");
        let allowed = decode(EventHeader { subtype: 0, staged: 0, flags: 0, ..header });
        assert_eq!(
            (allowed.direction.as_str(), allowed.verdict.as_str(), allowed.reason.as_str()),
            ("egress", "allowed", "")
        );
        assert_eq!(allowed.staged, "");
    }

    #[test]
    fn cut_packets_give_what_is_there() {
        let frame = tcp_syn();
        for length in 0..frame.len() {
            let header = EventHeader {
                kind: EventKind::Trace as u8,
                subtype: TracePoint::ToEndpoint as u8,
                ..EventHeader::default()
            };
            let Some(MonitorEvent::Trace(trace)) =
                event(&record(header, &frame[..length]), CLOCK, &mut nothing())
            else {
                panic!("a trace")
            };
            assert_eq!(trace.point, "to-endpoint");
            assert_eq!(trace.reason, TraceReason::New.name());
            assert_eq!(trace.packet.destination_port.is_some(), length >= 38, "{length}");
        }
    }

    #[test]
    fn extension_headers_are_walked_over() {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 0, 64]);
        frame.extend([0xfd; 16]);
        frame.extend([0xfe; 16]);
        frame.extend([60, 0, 0, 0, 0, 0, 0, 0]); // hop-by-hop, then destination options
        frame.extend([58, 0, 0, 0, 0, 0, 0, 0]); // then ICMPv6
        frame.extend([128, 0, 0, 0, 0, 0, 0, 0]);
        let header = EventHeader { kind: EventKind::Trace as u8, ..EventHeader::default() };
        let Some(MonitorEvent::Trace(trace)) = event(&record(header, &frame), CLOCK, &mut nothing()) else {
            panic!("a trace")
        };
        assert_eq!(
            (trace.packet.protocol.as_str(), trace.packet.detail.as_str()),
            ("icmpv6", "echo request")
        );
    }

    #[test]
    fn unknown_kinds_are_left_out() {
        assert!(
            event(&record(EventHeader { kind: 77, ..EventHeader::default() }, &[]), CLOCK, &mut nothing())
                .is_none()
        );
    }
}
