//! A model of conntrack beside the real one: after every packet the row must say what the model says.
//!
//! The model follows docs/dataplane.md: which packets make rows, how states go, how long they last, what is counted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use agent_control::ports::Table;
use dataplane_abi::conntrack::{
    CtDir, CtEntry, CtEntry6, CtFlags, CtKey4, CtKey6, CtScope, CtState, WayKind,
};
use dataplane_abi::program::Program;
use dataplane_abi::{Be16, Identity};
use dataplane_core::Verdict;
use sim_scenario::model::Routing;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::translation::LOOPBACK;
use crate::node::TICKS_PER_S;
use crate::queue::NodeId;
use crate::view::{ICMP, ICMP6, TCP, TUNNEL_PORT, UDP, View};
use crate::world::World;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// An end of a connection.
pub(super) type End = (IpAddr, u16);

/// A connection on a node, the lower end first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    node: NodeId,
    low: End,
    high: End,
    proto: u8,
}

/// What the model knows of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Connection {
    state: CtState,
    /// Tick of the last packet.
    last: u64,
    /// The end that began.
    begun_by: End,
    /// Flags seen from the end that began, and from the other.
    flags: [u8; 2],
    /// Packets from the end that began, and from the other.
    packets: [u64; 2],
}

/// Fragments of one datagram on a node.
type Datagram = (NodeId, IpAddr, IpAddr, u32);

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Model {
    connections: BTreeMap<Key, Connection>,
    /// Ports and protocol of the first fragments of datagrams: those of the others are not asked (RFC 8200, section 4.5).
    fragments: BTreeMap<Datagram, ((u16, u16), u8)>,
}

const fn timeout_ticks(state: CtState) -> u64 {
    let seconds = match state {
        CtState::Syn | CtState::Any => 60,
        CtState::Established => 8000,
        CtState::Closing => 10,
    };
    seconds * TICKS_PER_S as u64
}

fn key(node: NodeId, from: End, to: End, proto: u8) -> Key {
    let (low, high) = if from <= to { (from, to) } else { (to, from) };
    Key { node, low, high, proto }
}

/// What stands for ports in the key of a packet that says so itself; later fragments do not.
const fn ports_of(view: &View) -> Option<(u16, u16)> {
    match (view.proto, view.echo) {
        (TCP | UDP, _) => view.ports,
        (ICMP | ICMP6, Some((true, id))) => Some((id, 0)),
        (ICMP | ICMP6, Some((false, id))) => Some((0, id)),
        _ => None,
    }
}

/// The two ends of a packet that says so itself, and the protocol.
pub(super) fn own_ends(view: &View) -> Option<(End, End, u8)> {
    let (from, to) = ports_of(view)?;
    Some(((view.src, from), (view.dst, to), view.proto))
}

impl Model {
    /// The two ends of a packet as conntrack has them, and the protocol.
    pub(super) fn ends(&mut self, n: NodeId, view: &View) -> Option<(End, End, u8)> {
        let datagram = (n, view.src, view.dst, view.fragment_id);
        let own = || Some((ports_of(view)?, view.proto));
        let (ports, proto) = if view.later_fragment { *self.fragments.get(&datagram)? } else { own()? };
        if view.fragment && !view.later_fragment {
            self.fragments.insert(datagram, (ports, proto));
            if self.fragments.len() > 4096 {
                self.fragments.pop_first();
            }
        }
        Some(((view.src, ports.0), (view.dst, ports.1), proto))
    }

    /// Whether a connection lives at a tick; one that is closed does not for a packet that begins another.
    pub(super) fn lives(&self, n: NodeId, ends: [End; 2], proto: u8, now: u64, begins: bool) -> bool {
        let [one, other] = ends;
        self.connections.get(&key(n, one, other, proto)).is_some_and(|known| {
            now.saturating_sub(known.last) <= timeout_ticks(known.state)
                && !(begins && known.state == CtState::Closing)
        })
    }

    /// What was a connection is a call to a service now.
    pub(super) fn forget(&mut self, n: NodeId, ends: [End; 2], proto: u8) {
        let [one, other] = ends;
        self.connections.remove(&key(n, one, other, proto));
    }

    /// Other ends of the living connections of an end.
    pub(super) fn peers(&self, n: NodeId, end: End, proto: u8, now: u64) -> Vec<End> {
        let of_it = self.connections.iter().filter(|(key, _)| key.node == n && key.proto == proto);
        let lives = of_it.filter(|(_, known)| now.saturating_sub(known.last) <= timeout_ticks(known.state));
        lives
            .filter_map(|(key, _)| match (key.low == end, key.high == end) {
                (true, _) => Some(key.high),
                (_, true) => Some(key.low),
                _ => None,
            })
            .collect()
    }

    /// Whether it is known how the connection of a packet began, which may be by it.
    fn follows(&mut self, n: NodeId, view: &View, now: u64) -> bool {
        if view.proto != TCP || view.flags & (SYN | ACK) == SYN {
            return true;
        }
        let Some((from, to, proto)) = self.ends(n, view) else { return false };
        let known = self.connections.get(&key(n, from, to, proto));
        known.is_some_and(|known| now - known.last <= timeout_ticks(known.state))
    }

    /// A packet has been taken for one of a connection; what the row must say now.
    fn take(&mut self, n: NodeId, view: &View, now: u64) -> Option<(Key, Connection)> {
        let (from, to, proto) = self.ends(n, view)?;
        let key = key(n, from, to, proto);
        let flags = view.flags & (FIN | SYN | RST | ACK);
        let begins = proto == TCP && flags & (SYN | ACK) == SYN;
        let old = self.connections.get(&key).copied().filter(|old| {
            now - old.last <= timeout_ticks(old.state) && !(begins && old.state == CtState::Closing)
        });
        let new = match old {
            None => {
                let state = match proto {
                    TCP if flags & RST != 0 => CtState::Closing,
                    TCP if flags & SYN != 0 => CtState::Syn,
                    TCP => CtState::Established,
                    _ => CtState::Any,
                };
                Connection { state, last: now, begun_by: from, flags: [flags, 0], packets: [1, 0] }
            }
            Some(mut old) => {
                let dir = usize::from(old.begun_by != from);
                old.packets[dir] += 1;
                old.last = now;
                if proto == TCP {
                    old.flags[dir] |= flags;
                    let both_ended = old.flags[0] & old.flags[1] & FIN != 0;
                    if flags & RST != 0 || both_ended {
                        old.state = CtState::Closing;
                    } else if old.state == CtState::Syn && flags & SYN == 0 {
                        old.state = CtState::Established;
                    }
                }
                old
            }
        };
        self.connections.insert(key, new);
        Some((key, new))
    }
}

/// The bytes of the key in the real table.
fn raw(key: &Key) -> (&'static str, Vec<u8>) {
    let scope = CtScope::Connection as u8;
    let (low_port, high_port) = (Be16::new(key.low.1), Be16::new(key.high.1));
    match (key.low.0, key.high.0) {
        (IpAddr::V4(low), IpAddr::V4(high)) => {
            let (low, high) = (low.octets(), high.octets());
            let key = CtKey4 { low, high, low_port, high_port, proto: key.proto, scope, pad: [0; 2] };
            ("CT4", key.as_bytes().to_vec())
        }
        (low, high) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            let (low, high) = (octets(low), octets(high));
            let key = CtKey6 { low, high, low_port, high_port, proto: key.proto, scope, pad: [0; 2] };
            ("CT6", key.as_bytes().to_vec())
        }
    }
}

fn unraw(node: NodeId, table: Table, bytes: &[u8]) -> Option<Key> {
    if table == Table::Ct4 {
        let key = CtKey4::read_from_bytes(bytes).ok()?;
        let end = |ip: [u8; 4], port: Be16| (IpAddr::from(ip), port.get());
        let (low, high) = (end(key.low, key.low_port), end(key.high, key.high_port));
        return Some(Key { node, low, high, proto: key.proto });
    }
    let key = CtKey6::read_from_bytes(bytes).ok()?;
    let end = |ip: [u8; 16], port: Be16| (IpAddr::from(ip), port.get());
    let (low, high) = (end(key.low, key.low_port), end(key.high, key.high_port));
    Some(Key { node, low, high, proto: key.proto })
}

/// The row that a value of the real table is.
fn entry(table: &str, value: &[u8]) -> Option<CtEntry> {
    match table {
        "CT4" => CtEntry::read_from_bytes(value).ok(),
        _ => CtEntry6::read_from_bytes(value).ok().map(|row| row.entry),
    }
}

impl World {
    /// Whether a program keeps track of connections.
    pub(crate) const fn tracks(&self, program: Program) -> bool {
        match program {
            Program::FromContainer | Program::FromOverlay | Program::FromNetdev | Program::ToContainer => {
                true
            }
            Program::FromHost | Program::ToNetdev => self.cluster.host_firewall,
            Program::ToHost => false,
        }
    }

    /// Whether a packet carries others through the tunnel: those are judged, and it is not.
    pub(crate) fn is_of_tunnel(&self, view: &View) -> bool {
        let by_nodes = self.node_at(view.src).is_some() && self.node_at(view.dst).is_some();
        let called = matches!(view.ports, Some((_, port)) if port == TUNNEL_PORT);
        self.cluster.routing == Routing::Vxlan && view.proto == UDP && called && by_nodes
    }

    /// Whether a node's own connections have rows, and this packet of one has just passed.
    fn is_of_node(&self, n: NodeId, program: Program, view: &View, verdict: &Verdict) -> bool {
        let own = |address| self.is_own_address(n, address);
        self.cluster.host_firewall
            && !self.is_of_tunnel(view)
            && match (program, verdict) {
                (Program::FromOverlay, Verdict::Pass) | (Program::FromNetdev, Verdict::Skip) => own(view.dst),
                (Program::FromHost, Verdict::Tunnel { .. }) | (Program::ToNetdev, Verdict::Skip) => {
                    own(view.src)
                }
                _ => false,
            }
    }

    pub(super) fn ticks(&self, n: NodeId) -> u64 {
        self.nodes[n].native.clock().ticks
    }

    /// The row of a connection in the real tables.
    fn row(&self, n: NodeId, key: &Key) -> Option<CtEntry> {
        let (table, bytes) = raw(key);
        let row = entry(table, &self.nodes[n].native.tables().lookup(table, &bytes)?)?;
        // A call to a service is none.
        (!row.flags.contains(CtFlags::CALL)).then_some(row)
    }

    /// Whether the tables of a node have a row for the connection that a packet belongs to, whichever way the packet goes, and it
    /// is not over yet: its row may wait for its collection.
    pub(super) fn has_live_connection(&self, n: NodeId, packet: &View) -> bool {
        let now = self.ticks(n);
        ports_of(packet).is_some_and(|(sport, dport)| {
            let key = key(n, (packet.src, sport), (packet.dst, dport), packet.proto);
            let found = self.row(n, &key).and_then(|row| from_row(&row, &key, now));
            found.is_some_and(|found| now - found.last <= timeout_ticks(found.state))
        })
    }

    /// A program has let a packet go on: the row of its connection must be as the model has it.
    pub(crate) fn check_connection(
        &mut self,
        n: NodeId,
        program: Program,
        id: u64,
        before: &[u8],
        verdict: &Verdict,
    ) {
        if self.check.was_full.contains(&n) {
            return;
        }
        let Some(view) = View::of(before) else { return };
        if view.is_icmp_error() || view.is_neighbour_discovery() || view.is_to_many() || view.is_of_link() {
            return;
        }
        if matches!(program, Program::FromHost | Program::ToNetdev) && !self.is_own_address(n, view.src) {
            // Of what the node only forwards nothing is noted there.
            return;
        }
        let of_node = self.is_of_node(n, program, &view, verdict);
        let goes_on = match (program, verdict) {
            (
                Program::FromContainer,
                Verdict::Peer { .. } | Verdict::Tunnel { .. } | Verdict::Neighbour { .. },
            ) => true,
            // To the node itself; what a router would answer is left to the stack and not counted on.
            (Program::FromContainer, Verdict::Pass) => {
                self.is_own_address(n, view.dst) && (view.hops > 1 || !self.translates_packets())
            }
            (Program::FromOverlay | Program::FromNetdev, Verdict::Peer { .. }) => true,
            (Program::ToContainer, Verdict::Pass) => true,
            _ => of_node,
        };
        // Nobody knows who began a connection of the node's that was there before it was watched, and it need not have a row.
        // And what a wire has spoiled may be none of its connections, or nothing that can be followed.
        let spoiled = self.trace.packet(id).is_some_and(|passport| passport.spoiled);
        let unclear = of_node && (spoiled || !self.check.connections.follows(n, &view, self.ticks(n)));
        if !goes_on || unclear {
            self.forget_uncertain(n, &view);
            return;
        }
        let now = self.ticks(n);
        let own_mac = self.trace.packet(id).is_none_or(|passport| passport.own_mac || passport.spoiled);
        let Some((key, wanted)) = self.check.connections.take(n, &view, now) else { return };
        if !own_mac && program == Program::FromContainer && wanted.packets == [1, 0] {
            self.violate_packet(
                "source",
                id,
                "a connection is begun with a MAC address that its sender does not have",
            );
            return;
        }
        let row = self.row(n, &key);
        let identities = row.map(|row| (row.dirs[0].identity.0, row.dirs[1].identity.0));
        let other = if wanted.begun_by == key.low { key.high } else { key.low };
        // A wire may have made another address of it.
        let spoiled = self.trace.packet(id).is_some_and(|passport| passport.spoiled);
        if let Some((first, second)) = identities
            && !(self.may_be(n, wanted.begun_by.0, first) && self.may_be(n, other.0, second))
            && program != Program::ToContainer
            && !spoiled
        {
            let message = format!(
                "conntrack of {} has identities {first} and {second}, which are not those of {} and {}",
                self.nodes[n].name, wanted.begun_by.0, other.0
            );
            self.violate_packet("conntrack", id, &message);
        }
        if let Some(wrong) = difference(row, &key, &wanted, now) {
            let message = format!("conntrack of {} {wrong}", self.nodes[n].name);
            self.violate_packet("conntrack", id, &message);
        }
    }

    /// What the model cannot be sure of any more after a packet that went another way is taken from the table again.
    fn forget_uncertain(&mut self, n: NodeId, view: &View) {
        if let Some((from, to, proto)) = self.check.connections.ends(n, view) {
            let key = key(n, from, to, proto);
            match self.row(n, &key).and_then(|row| from_row(&row, &key, self.ticks(n))) {
                Some(connection) => self.check.connections.connections.insert(key, connection),
                None => self.check.connections.connections.remove(&key),
            };
        }
    }

    /// Whether an address may have an identity on a node.
    fn may_be(&self, n: NodeId, address: IpAddr, identity: u32) -> bool {
        if let Some((m, ..)) = self.owner(address) {
            // Of pods elsewhere only their agents tell more than that they are pods.
            return m != n || self.may_have_identity(address, identity);
        }
        if self.is_own_address(n, address) {
            return identity == Identity::HOST.0;
        }
        // An agent that has not heard of the node takes its address for the world's.
        // So does one whose tables were full.
        let known = self.is_known_everywhere() && !self.nodes[n].troubled;
        let is_node = self.node_at(address).is_some() && known;
        !is_node || identity == Identity::REMOTE_NODE.0
    }

    /// Whether the sender of a packet began its connection, as far as a node knows it and it is not over.
    pub(super) fn was_begun_by_sender(&self, n: NodeId, view: &View) -> Option<bool> {
        let (source, destination) = ports_of(view)?;
        let key = key(n, (view.src, source), (view.dst, destination), view.proto);
        let known = self.check.connections.connections.get(&key)?;
        let idle = self.ticks(n).saturating_sub(known.last);
        (idle <= timeout_ticks(known.state)).then_some(known.begun_by == (view.src, source))
    }

    fn is_own_address(&self, n: NodeId, address: IpAddr) -> bool {
        self.node_at(address) == Some(n) || self.nodes[n].routers().any(|router| router == address)
    }

    /// Ways that are in force lead to who is there: the first that does not.
    pub(crate) fn stale_way(&self, n: NodeId) -> Option<String> {
        let node = &self.nodes[n];
        let tables = node.native.tables();
        let revision = tables.config.get(0).map_or(0, |config| config.revision);
        for (name, table) in [("CT4", Table::Ct4), ("CT6", Table::Ct6)] {
            for (bytes, value) in tables.dump(name).unwrap_or_default() {
                let Some((key, row)) = unraw(n, table, &bytes).zip(entry(name, &value)) else { continue };
                // Of a pod that speaks with itself one end stands for the other.
                let itself = LOOPBACK.iter().find(|ip| key.low.0 == **ip || key.high.0 == **ip);
                let [low, high] = match itself {
                    Some(ip) if key.low.0 == *ip => [key.high, key.high],
                    Some(_) => [key.low, key.low],
                    None => [key.low, key.high],
                };
                let (first, second) = if row.origin_is_high() { (low, high) } else { (high, low) };
                for (half, to) in row.dirs.iter().zip([first, second]) {
                    if half.revision != revision || half.way.kind != WayKind::Local as u8 {
                        continue;
                    }
                    let netns = node.links.get(&half.way.ifindex).and_then(|link| link.netns.as_ref());
                    let pods = node.memory.links().values().filter_map(|link| link.pod.as_ref());
                    let mut behind = pods.filter(|pod| Some(&pod.netns) == netns);
                    if !behind.any(|pod| pod.addresses.iter().any(|net| net.addr() == to.0)) {
                        return Some(format!(
                            "conntrack leads to {} by link {}, which is not its own",
                            to.0, half.way.ifindex
                        ));
                    }
                }
            }
        }
        None
    }

    /// Connections were just collected: what was over long before is gone.
    pub(crate) fn check_collected(&mut self) {
        let mut left = None;
        for (key, connection) in &self.check.connections.connections {
            if self.check.was_full.contains(&key.node) {
                continue;
            }
            let now = self.ticks(key.node);
            let idle = now.saturating_sub(connection.last);
            // Two seconds, for the pass took place within the last one.
            if idle > timeout_ticks(connection.state) + 2 * u64::from(TICKS_PER_S)
                && self.row(key.node, key).is_some()
            {
                left = Some((key.node, connection.state.name(), *key));
                break;
            }
        }
        if let Some((n, state, key)) = left {
            let message = format!(
                "{} keeps a connection in state {state} that is long over: {key:?}",
                self.nodes[n].name
            );
            self.violate("conntrack", message);
        }
    }

    /// The agent removes a row: its connection must be over.
    pub(crate) fn check_expired(&mut self, n: NodeId, table: Table, bytes: &[u8]) {
        let Some(key) = unraw(n, table, bytes) else { return };
        self.set_clock(n);
        let now = self.ticks(n);
        let Some(connection) = self.check.connections.connections.remove(&key) else { return };
        let idle = now - connection.last;
        if idle < timeout_ticks(connection.state) && !self.check.was_full.contains(&n) {
            let message = format!(
                "the agent of {} removes a connection in state {} that was idle for {} s: {:?}",
                self.nodes[n].name,
                connection.state.name(),
                idle / u64::from(TICKS_PER_S),
                key
            );
            self.violate("conntrack", message);
        }
    }
}

fn from_row(row: &CtEntry, key: &Key, now: u64) -> Option<Connection> {
    let [there, back] = &row.dirs;
    // Low 32 bits of a clock that is not near their end in any run.
    Some(Connection {
        state: CtState::from_number(row.state)?,
        last: u64::from(row.last_seen).min(now),
        begun_by: if row.origin_is_high() { key.high } else { key.low },
        flags: [there.tcp_flags, back.tcp_flags],
        packets: [there.packets, back.packets],
    })
}

/// What is wrong with a row.
fn difference(row: Option<CtEntry>, key: &Key, wanted: &Connection, now: u64) -> Option<String> {
    let Some(row) = row else { return Some("has no row for a packet that went on".to_owned()) };
    let found = from_row(&row, key, now)?;
    if found.state != wanted.state {
        return Some(format!("has it as {}, not {}", found.state.name(), wanted.state.name()));
    }
    if found.begun_by != wanted.begun_by {
        return Some("takes the wrong end for the one that began".to_owned());
    }
    if found.last != wanted.last {
        return Some(format!("says it was seen at tick {}, not {}", found.last, wanted.last));
    }
    if found.packets != wanted.packets {
        let [there, back] = [CtDir::Original as usize, CtDir::Reply as usize];
        return Some(format!(
            "counted {} packets and {} replies, not {} and {}",
            found.packets[there], found.packets[back], wanted.packets[there], wanted.packets[back]
        ));
    }
    None
}
