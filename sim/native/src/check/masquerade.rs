//! Masquerade: what a pod sends to the world leaves with its node's address and a port that nobody else has for that destination then,
//! the answer reaches whom it is for, and nothing else of a packet changes.
//!
//! What is known here follows from packets that left: what came in may be anything.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use dataplane_abi::conntrack::{CtKey4, CtKey6, CtScope};
use dataplane_abi::program::Program;
use dataplane_core::Verdict;
use sim_oracle::End as Who;
use zerocopy::FromBytes as _;

use super::conntrack::End;
use crate::agents::snat_ports;
use crate::node::TICKS_PER_S;
use crate::queue::NodeId;
use crate::view::{ICMP, ICMP6, TCP, UDP, View, untranslated};
use crate::world::World;

/// A connection as the wire has it: node, protocol, the node's end, the other.
type Wire = (NodeId, u8, End, End);

/// Who has a port.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Who, as it knows itself.
    by: End,
    /// Tick of the last packet.
    last: u64,
}

/// Ports, by the wire and by who has them.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: BTreeMap<Wire, Held>,
    /// The node's end, by node, protocol, who has it and whom it speaks with.
    leaves: BTreeMap<(NodeId, u8, End, End), End>,
}

/// Ticks for which a port stays whose it is, whatever is said: a closed TCP connection is kept shortest.
const fn kept_ticks(proto: u8) -> u64 {
    let seconds = if proto == TCP { 10 } else { 60 };
    seconds * TICKS_PER_S as u64
}

impl Ports {
    fn live(&self, wire: &Wire, now: u64) -> Option<Held> {
        self.held.get(wire).copied().filter(|held| now.saturating_sub(held.last) < kept_ticks(wire.1))
    }

    fn note(&mut self, wire: Wire, by: End, now: u64) {
        let (n, proto, node, remote) = wire;
        self.held.insert(wire, Held { by, last: now });
        self.leaves.insert((n, proto, by, remote), node);
    }
}

const fn place(end: End) -> SocketAddr {
    SocketAddr::new(end.0, end.1)
}

/// Whether two packets differ in what translation may change.
fn differ(one: &View, other: &View) -> bool {
    (one.src, one.dst, one.ports) != (other.src, other.dst, other.ports) || one.echo != other.echo
}

/// Both ends of what an error quotes, sender first, with what stands for ports.
fn quoted(view: &View) -> Option<(End, End, u8)> {
    let quote = view.quotes.as_ref().filter(|quote| !quote.later_fragment)?;
    let (from, to) = match (quote.proto, quote.echo) {
        (TCP | UDP, _) => quote.ports?,
        (ICMP | ICMP6, Some((true, id))) => (id, 0),
        (ICMP | ICMP6, Some((false, id))) => (0, id),
        _ => return None,
    };
    Some(((quote.src, from), (quote.dst, to), quote.proto))
}

/// The frame with another receiver, address and port, and whatever checksums.
fn addressed(frame: &[u8], view: &View, to: IpAddr, port: Option<u16>) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (at, octets) = match to {
        IpAddr::V4(to) => (14 + 16, to.octets().to_vec()),
        IpAddr::V6(to) => (14 + 24, to.octets().to_vec()),
    };
    if let Some(bytes) = frame.get_mut(at..at + octets.len()) {
        bytes.copy_from_slice(&octets);
    }
    let at = 14 + view.upper + 2;
    if let Some((port, bytes)) = port.zip(frame.get_mut(at..at + 2)) {
        bytes.copy_from_slice(&port.to_be_bytes());
    }
    frame
}

impl World {
    /// Whether a program may masquerade, or turn answers back.
    pub(crate) const fn masquerades(&self, program: Program) -> bool {
        self.cluster.masquerade && matches!(program, Program::ToNetdev | Program::FromNetdev)
    }

    /// A program has run on a packet. If it masqueraded it, or turned an answer back: the packet before and after whatever else it did.
    pub(crate) fn check_masquerade(
        &mut self,
        n: NodeId,
        program: Program,
        id: u64,
        frames: (&[u8], &[u8]),
        verdict: &Verdict,
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        let (before, after) = frames;
        let (was, is) = View::of(before).zip(View::of(after))?;
        if !self.masquerades(program) {
            return None;
        }
        if matches!(verdict, Verdict::Drop(_)) {
            // An answer is judged as one to the pod; what it looks like when it is dropped nobody sees.
            let turned =
                program == Program::FromNetdev && self.node_at(was.dst) == Some(n) && differ(&was, &is);
            return turned.then(|| (after.to_vec(), after.to_vec()));
        }
        if program == Program::ToNetdev {
            let turned = if was.is_icmp_error() {
                self.check_error_left(n, id, &was, &is)
            } else {
                self.check_left(n, id, frames, &was, &is)
            };
            return turned.then(|| (before.to_vec(), before.to_vec()));
        }
        if self.node_at(was.dst) != Some(n) {
            return None;
        }
        if was.is_icmp_error() {
            return self.check_error_came(n, id, &was, &is).then(|| (after.to_vec(), after.to_vec()));
        }
        self.check_came(n, id, frames, &was, &is)
    }

    /// Whether nothing is asked of a packet: a wire has changed it, or a table has forgotten too much.
    fn is_excused(&self, n: NodeId, id: u64) -> bool {
        self.check.was_full.contains(&n) || self.trace.packet(id).is_some_and(|passport| passport.spoiled)
    }

    /// Whether what a pod sends there is to be masqueraded.
    pub(super) fn is_outside(&self, address: IpAddr) -> bool {
        matches!(self.end_at(address), Some(Who::Outside(_)))
    }

    /// A packet leaves. Whether it was masqueraded.
    fn check_left(&mut self, n: NodeId, id: u64, frames: (&[u8], &[u8]), was: &View, is: &View) -> bool {
        let turned = differ(was, is);
        let Some((by, remote, proto)) = self.check.connections.ends(n, was) else { return turned };
        let excused = self.is_excused(n, id);
        if !turned {
            let is_of_pod = self.owner(was.src).is_some_and(|(m, ..)| m == n);
            let is_own = self.trace.packet(id).is_some_and(|passport| passport.honest);
            if is_of_pod && is_own && !excused && self.is_outside(was.dst) {
                let what = "a pod's packet leaves for the world with the pod's address";
                self.violate_packet("masquerade", id, what);
            } else if self.node_at(was.src) == Some(n)
                && snat_ports(n).contains(&by.1)
                && !self.is_of_tunnel(was)
                && !was.later_fragment
            {
                self.take_port(n, id, proto, (by, remote), by, excused);
            }
            return false;
        }
        if let Some(passport) = self.trace.packet(id).cloned() {
            self.trace.turn(id, is.clone(), Some(passport.untold.unwrap_or_else(|| was.clone())));
        }
        if excused {
            return true;
        }
        if untranslated(frames.0) != untranslated(frames.1) || was.dst != is.dst {
            self.violate_packet("integrity", id, "more of a packet is masqueraded than its source");
        } else if was.sums_ok && !is.sums_ok {
            self.violate_packet("integrity", id, "a packet is masqueraded and its checksum is wrong");
        } else if self.owner(was.dst).is_some() && self.is_known_everywhere() && !self.nodes[n].troubled {
            self.violate_packet("masquerade", id, "a packet to another pod is masqueraded");
        } else if self.node_at(is.src) != Some(n) {
            self.violate_packet("masquerade", id, "a packet leaves with an address that is not its node's");
        } else if was.later_fragment {
            if !self.check.masquerade.leaves.contains_key(&(n, proto, by, remote)) {
                self.violate_packet("masquerade", id, "a fragment is masqueraded and its first was not");
            }
        } else if let Some((node, other, _)) = super::conntrack::own_ends(is) {
            if other != remote {
                self.violate_packet("integrity", id, "a packet is masqueraded and goes to another port");
            } else if !snat_ports(n).contains(&node.1) {
                let message = format!("a packet leaves by port {}, which is not for that", node.1);
                self.violate_packet("masquerade", id, &message);
            } else {
                self.keep_port(n, id, was, (by, remote, proto), node);
                self.take_port(n, id, proto, (node, remote), by, false);
            }
        }
        true
    }

    /// What goes on leaves by the port by which it left.
    fn keep_port(&mut self, n: NodeId, id: u64, was: &View, talk: (End, End, u8), node: End) {
        let (by, remote, proto) = talk;
        let Some(before) = self.check.masquerade.leaves.get(&(n, proto, by, remote)).copied() else { return };
        let now = self.ticks(n);
        let held = self.check.masquerade.live(&(n, proto, before, remote), now);
        let begins = proto == TCP && was.flags & 0x12 == 2;
        if before != node && !begins && held.is_some_and(|held| held.by == by) {
            let message = format!("what left as {} leaves as {}", place(before), place(node));
            self.violate_packet("masquerade", id, &message);
        }
    }

    /// Somebody speaks with somebody outside by a port of the node: nobody else may have it.
    fn take_port(&mut self, n: NodeId, id: u64, proto: u8, ends: (End, End), by: End, excused: bool) {
        let (node, remote) = ends;
        let (wire, now) = ((n, proto, node, remote), self.ticks(n));
        if !excused && let Some(held) = self.check.masquerade.live(&wire, now).filter(|held| held.by != by) {
            let message = format!(
                "{} leaves as {} for {}, as {} does",
                place(by),
                place(node),
                place(remote),
                place(held.by)
            );
            self.violate_packet("masquerade", id, &message);
        }
        self.check.masquerade.note(wire, by, now);
    }

    /// A packet comes in for the node. What it was and is beside that it is an answer to a pod, if it is.
    fn check_came(
        &mut self,
        n: NodeId,
        id: u64,
        frames: (&[u8], &[u8]),
        was: &View,
        is: &View,
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        let turned =
            (was.dst, was.ports.map(|(_, to)| to), was.echo) != (is.dst, is.ports.map(|(_, to)| to), is.echo);
        let Some((remote, node, proto)) = self.check.connections.ends(n, was) else {
            return turned.then(|| (frames.1.to_vec(), frames.1.to_vec()));
        };
        let now = self.ticks(n);
        let held = self.check.masquerade.held.get(&(n, proto, node, remote)).copied();
        if !turned {
            let live = self.check.masquerade.live(&(n, proto, node, remote), now);
            // What a wire has made of a packet from outside nobody can tell.
            if let Some(held) = live.filter(|held| held.by != node)
                && !self.is_excused(n, id)
                && !self.check.wires_were_disturbed
                && self.check.connections.lives(n, [held.by, remote], proto, now, false)
                && self.owner(held.by.0).is_some_and(|(m, _, since)| m == n && since < self.now)
            {
                let message = format!("an answer to {} ends in its node's stack", place(held.by));
                self.violate_packet("masquerade", id, &message);
            }
            return None;
        }
        let to = super::conntrack::own_ends(is).map(|(_, to, _)| to);
        let reaches = if was.later_fragment { (is.dst, held.map_or(0, |held| held.by.1)) } else { to? };
        if !self.is_excused(n, id) {
            if held.is_none_or(|held| held.by != reaches) {
                let whose = held.map_or_else(|| "nobody".to_owned(), |held| place(held.by).to_string());
                let message = format!("an answer to {whose} reaches {}", place(reaches));
                self.violate_packet("masquerade", id, &message);
            } else if untranslated(frames.0) != untranslated(frames.1) {
                self.violate_packet("integrity", id, "more of an answer is turned back than its ends");
            } else if was.sums_ok && !is.sums_ok {
                self.violate_packet("integrity", id, "an answer is turned back and its checksum is wrong");
            }
        }
        if let Some(held) = self.check.masquerade.held.get_mut(&(n, proto, node, remote)) {
            held.last = now;
        }
        if was.src == is.src {
            self.trace.turn(id, is.clone(), None);
            return Some((frames.1.to_vec(), frames.1.to_vec()));
        }
        // It comes from a service besides.
        let port = is.ports.map(|(_, to)| to).filter(|_| !was.later_fragment);
        Some((addressed(frames.0, was, is.dst, port), frames.1.to_vec()))
    }

    /// An ICMP error leaves. Whether it was made one about what is on the wire.
    fn check_error_left(&mut self, n: NodeId, id: u64, was: &View, is: &View) -> bool {
        let Some((remote, by, proto)) = quoted(was) else { return false };
        let turned = quoted(is) != quoted(was) || was.src != is.src;
        let node = self.check.masquerade.leaves.get(&(n, proto, by, remote)).copied();
        let now = self.ticks(n);
        let live = node.filter(|node| {
            let held = self.check.masquerade.live(&(n, proto, *node, remote), now);
            held.is_some_and(|held| held.by == by)
        });
        if turned && let Some(passport) = self.trace.packet(id).cloned() {
            self.trace.turn(id, is.clone(), Some(passport.untold.unwrap_or_else(|| was.clone())));
        }
        if self.is_excused(n, id) {
            return turned;
        }
        if turned {
            if quoted(is).map(|(_, node, _)| node) != node {
                self.violate_packet(
                    "masquerade",
                    id,
                    "an ICMP error leaves that is about somebody else's packet",
                );
            } else if was.sums_ok && !is.sums_ok {
                self.violate_packet(
                    "integrity",
                    id,
                    "an ICMP error is masqueraded and its checksum is wrong",
                );
            }
        } else if live.is_some_and(|node| node != by) && self.owner(was.src).is_some() {
            self.violate_packet("masquerade", id, "an ICMP error leaves as a pod has made it");
        }
        turned
    }

    /// An ICMP error comes in for the node. Whether it was made one for a pod.
    fn check_error_came(&mut self, n: NodeId, id: u64, was: &View, is: &View) -> bool {
        let Some((node, remote, proto)) = quoted(was) else { return false };
        let turned = quoted(is) != quoted(was) || was.dst != is.dst;
        let now = self.ticks(n);
        let held = self.check.masquerade.held.get(&(n, proto, node, remote)).copied();
        if self.is_excused(n, id) {
            return turned;
        }
        if turned {
            let about = quoted(is).map(|(by, ..)| by);
            if held.map(|held| held.by) != about || about.is_some_and(|by| by.0 != is.dst) {
                self.violate_packet("masquerade", id, "an ICMP error reaches somebody whom it is not about");
            } else if was.sums_ok && !is.sums_ok {
                self.violate_packet(
                    "integrity",
                    id,
                    "an ICMP error is turned back and its checksum is wrong",
                );
            } else {
                self.trace.turn(id, is.clone(), None);
            }
        } else if let Some(held) = self.check.masquerade.live(&(n, proto, node, remote), now)
            && held.by != node
            && !self.check.wires_were_disturbed
            && self.check.connections.lives(n, [held.by, remote], proto, now, false)
        {
            let message =
                format!("an ICMP error about a packet of {} ends in its node's stack", place(held.by));
            self.violate_packet("masquerade", id, &message);
        }
        turned
    }

    /// Whether so many have ports of the node for whom a packet goes to that none may be found.
    pub(super) fn may_lack_ports(&self, n: NodeId, view: &View) -> bool {
        let Some((_, remote, proto)) = super::conntrack::own_ends(view) else { return view.later_fragment };
        let taken = self.check.masquerade.held.keys();
        let taken = taken.filter(|(m, its, _, other)| (*m, *its, *other) == (n, proto, remote)).count();
        taken * 2 > snat_ports(n).len()
    }

    /// The agent removes the row of a port: its connection must be over.
    pub(crate) fn check_port_freed(&mut self, n: NodeId, bytes: &[u8]) {
        let Some((wire, scope)) = wire(n, bytes) else { return };
        self.set_clock(n);
        let now = self.ticks(n);
        if scope == CtScope::Connection as u8
            && let Some(held) = self.check.masquerade.live(&wire, now)
            && !self.check.was_full.contains(&n)
        {
            let message = format!(
                "the agent of {} frees the port of {}, which spoke {} s ago",
                self.nodes[n].name,
                place(held.by),
                now.saturating_sub(held.last) / u64::from(TICKS_PER_S)
            );
            self.violate("masquerade", message);
        }
    }
}

/// What the key of a row says.
fn wire(n: NodeId, bytes: &[u8]) -> Option<(Wire, u8)> {
    if bytes.len() == size_of::<CtKey4>() {
        let key = CtKey4::read_from_bytes(bytes).ok()?;
        let (low, high) = ((key.low.into(), key.low_port.get()), (key.high.into(), key.high_port.get()));
        return Some(((n, key.proto, low, high), key.scope));
    }
    let key = CtKey6::read_from_bytes(bytes).ok()?;
    let (low, high) = ((key.low.into(), key.low_port.get()), (key.high.into(), key.high_port.get()));
    Some(((n, key.proto, low, high), key.scope))
}
