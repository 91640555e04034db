//! The conntrack row of a packet's connection, for people.

use std::net::IpAddr;

use dataplane_abi::Be16;
use dataplane_abi::conntrack::{CtDir, CtEntry, CtFlags, CtHalf, CtKey4, CtKey6, CtState, WayKind};

use crate::node::TICKS_PER_S;
use crate::queue::NodeId;
use crate::view::{ICMP, ICMP6, TCP, UDP, View};
use crate::world::World;

/// A row, and which way the packet goes in its connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) row: CtEntry,
    pub(super) direction: CtDir,
}

/// What stands for ports in the key of a packet's row; later fragments do not say.
pub(super) const fn ports(view: &View) -> Option<(u16, u16)> {
    match (view.proto, view.echo) {
        _ if view.later_fragment => None,
        (TCP | UDP, _) => view.ports,
        (ICMP | ICMP6, Some((true, id))) => Some((id, 0)),
        (ICMP | ICMP6, Some((false, id))) => Some((0, id)),
        (ICMP | ICMP6, None) => None,
        _ => Some((0, 0)),
    }
}

impl World {
    /// The row of the connection that a packet belongs to.
    pub(super) fn conntrack_row(&self, n: NodeId, view: &View) -> Option<Found> {
        let tables = self.nodes[n].native.tables();
        let (sport, dport) = ports(view).map(|(a, b)| (Be16::new(a), Be16::new(b)))?;
        let (row, from_high) = match (view.src, view.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (key, from_high) =
                    CtKey4::of_packet(src.octets(), dst.octets(), sport, dport, view.proto);
                (*tables.ct4.borrow().peek(&key)?, from_high)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (key, from_high) =
                    CtKey6::of_packet(src.octets(), dst.octets(), sport, dport, view.proto);
                (tables.ct6.borrow().peek(&key)?.entry, from_high)
            }
            _ => return None,
        };
        let direction = if row.origin_is_high() == from_high { CtDir::Original } else { CtDir::Reply };
        Some(Found { row, direction })
    }

    /// All that the row says, a line each.
    pub(super) fn conntrack_lines(&self, n: NodeId, view: &View, found: Option<Found>) -> Vec<String> {
        let node = &self.nodes[n];
        let table = if view.dst.is_ipv4() { "CT4" } else { "CT6" };
        let Some(Found { row, direction }) = found else {
            let why = if ports(view).is_some() { "none" } else { "none is its own: it has no ports" };
            return vec![format!("{} {table} row of the connection: {why}", node.name)];
        };
        let now = node.native.clock().ticks;
        // Rows have the low half of a tick.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        let ago = |tick: u32| f64::from((now as u32).wrapping_sub(tick)) / f64::from(TICKS_PER_S);
        let state = CtState::from_number(row.state).map_or("no known state", CtState::name);
        let replied = if row.flags.contains(CtFlags::SEEN_REPLY) { "answered" } else { "not answered" };
        let way = match direction {
            CtDir::Original => "the packet goes as the first one did",
            CtDir::Reply => "the packet goes against the first one",
        };
        let mut lines = vec![format!(
            "{} {table} row of the connection: {state}, {replied}, made {:.3} s and used {:.3} s ago; {way}",
            node.name,
            ago(row.created),
            ago(row.last_seen),
        )];
        for (word, half) in ["original", "reply"].into_iter().zip(&row.dirs) {
            lines.push(format!("{} {table} {word}: {}", node.name, direction_line(half)));
        }
        lines
    }
}

fn direction_line(half: &CtHalf) -> String {
    let judged = match half.revision {
        0 => "not judged".to_owned(),
        revision => format!("judged at revision {revision}"),
    };
    let way = &half.way;
    let kind = match WayKind::from_number(way.kind) {
        Some(WayKind::None) => "no way yet",
        Some(WayKind::Local) => "to a pod of this node",
        Some(WayKind::Tunnel) => "through the tunnel",
        Some(WayKind::Neighbour) => "to a next hop",
        Some(WayKind::Stack) => "to the node's stack",
        Some(WayKind::Backend) => "to the backend of a service",
        None => "no known way",
    };
    format!(
        "{judged}, {kind} (link {}, endpoint {}), from identity {}, {} packets, flags {:#04x}",
        way.ifindex, way.endpoint, half.identity.0, half.packets, half.tcp_flags
    )
}
