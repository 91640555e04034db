//! The rows of policy that a packet's connection meets, for people: looked up in the order in which the programs do.

use std::net::IpAddr;

use dataplane_abi::conntrack::CtDir;
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey};
use dataplane_abi::ipcache::IpCacheKey;
use dataplane_abi::policy::{BlockKey, Direction, L4Key, PolicyEntry, PolicyKey, PolicyVerdict};
use dataplane_abi::{Addr, Be16, Identity};

use super::conntrack::Found;
use crate::queue::NodeId;
use crate::view::{ICMP, ICMP6, View};
use crate::world::World;

/// What is asked of a policy.
struct Asked {
    direction: Direction,
    /// Whose policy it is.
    own: IpAddr,
    peer: IpAddr,
    proto: u8,
    port: u16,
}

impl World {
    /// What the policies of both ends say that are of this node, a line a row.
    pub(super) fn policy_lines(&self, n: NodeId, view: &View, found: Option<Found>) -> Vec<String> {
        let reply = found.is_some_and(|found| found.direction == CtDir::Reply);
        let (initiator, responder) = if reply { (view.dst, view.src) } else { (view.src, view.dst) };
        let of_echo = matches!(view.proto, ICMP | ICMP6);
        let port = match (found, view.ports) {
            // There the row has the type of the message that began it.
            (Some(found), _) if of_echo => u16::from(found.row.dirs[CtDir::Original as usize].tcp_flags),
            (_, Some((kind, _))) if of_echo => kind,
            (_, Some((from, to))) => {
                if reply {
                    from
                } else {
                    to
                }
            }
            (_, None) => 0,
        };
        let asked = |direction, own, peer| Asked { direction, own, peer, proto: view.proto, port };
        let mut lines = self.side_lines(n, &asked(Direction::Egress, initiator, responder));
        lines.extend(self.side_lines(n, &asked(Direction::Ingress, responder, initiator)));
        lines
    }

    fn side_lines(&self, n: NodeId, asked: &Asked) -> Vec<String> {
        let tables = self.nodes[n].native.tables();
        let Some(endpoint) = tables.endpoints.get(&EndpointKey::from_ip(asked.own)) else {
            return Vec::new();
        };
        let name = &self.nodes[n].name;
        let direction = asked.direction.name();
        let head = format!("{name} POLICY {direction} of {}", asked.own);
        let (enforced, audits) = force(endpoint, asked.direction);
        if endpoint.policy == 0 || !enforced {
            return vec![format!("{head}: not in force (policy {})", endpoint.policy)];
        }
        let audited = if audits { ", what it drops passes (audit)" } else { "" };
        let peer = self.identity_at(n, asked.peer);
        let mut key = PolicyKey::new(endpoint.policy, asked.direction, peer);
        let mut row = tables.policy.get(&key);
        let mut whose = format!("identity {}", peer.0);
        if row.is_none() {
            key.identity = PolicyKey::EVERYBODY;
            row = tables.policy.get(&key);
            whose = format!("everybody (identity {} has none)", peer.0);
        }
        let policy = endpoint.policy;
        let Some(row) = row else {
            return vec![format!("{head}: policy {policy}, no row for identity {}{audited}", peer.0)];
        };
        let mut lines = vec![format!("{head}: policy {policy}, row of {whose}: {}{audited}", decision(row))];
        if row.blocks() != 0 && peer.is_pod() {
            let (addr, family) = Addr::from_ip(asked.peer);
            let block = tables.policy_blocks.get(&BlockKey::host(row.blocks(), addr, family));
            let said = block.map_or_else(|| "none, which allows nothing".to_owned(), decision);
            lines.push(format!("{name} POLICY_BLOCKS {} of {}: {said}", row.blocks(), asked.peer));
            lines.extend(block.and_then(|block| self.l4_line(n, block, asked)));
        } else {
            lines.extend(self.l4_line(n, row, asked));
        }
        lines
    }

    fn l4_line(&self, n: NodeId, row: &PolicyEntry, asked: &Asked) -> Option<String> {
        (row.l4 != 0).then(|| {
            let node = &self.nodes[n];
            let key = L4Key::exact(row.l4, asked.proto, Be16::new(asked.port));
            let found = node.native.tables().policy_l4.get(&key);
            let said = found.map_or_else(|| "none, which allows nothing".to_owned(), verdict);
            format!(
                "{} POLICY_L4 set {}, protocol {} port {}: {said}",
                node.name, row.l4, asked.proto, asked.port
            )
        })
    }

    /// Whom a node takes an address for.
    fn identity_at(&self, n: NodeId, address: IpAddr) -> Identity {
        let tables = self.nodes[n].native.tables();
        let (addr, family) = Addr::from_ip(address);
        let own = tables.endpoints.get(&EndpointKey::from_ip(address)).map(|row| row.identity);
        own.or_else(|| tables.ipcache.get(&IpCacheKey::host(addr, family)).map(|row| row.identity))
            .unwrap_or(Identity::UNKNOWN)
    }
}

/// Whether an endpoint's policy decides in that direction, and whether only for the record.
const fn force(endpoint: &EndpointEntry, direction: Direction) -> (bool, bool) {
    let (enforce, audit) = match direction {
        Direction::Ingress => (EndpointFlags::ENFORCE_INGRESS, EndpointFlags::AUDIT),
        Direction::Egress => (
            EndpointFlags::ENFORCE_EGRESS,
            EndpointFlags(EndpointFlags::AUDIT.0 | EndpointFlags::AUDIT_EGRESS.0),
        ),
    };
    (endpoint.flags.contains(enforce), endpoint.flags.intersects(audit))
}

fn decision(row: &PolicyEntry) -> String {
    match (row.l4, row.blocks()) {
        (0, _) => verdict(&row.verdict),
        (set, 0) => format!("set {set} decides"),
        (set, blocks) => format!("set {set} decides, about pods blocks {blocks}"),
    }
}

fn verdict(verdict: &PolicyVerdict) -> String {
    let word = verdict.denies().map_or("allow", |reason| reason.text());
    format!("{word}, cookie {}", verdict.cookie)
}
