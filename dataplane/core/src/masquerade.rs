//! Masquerade: what pods send to the world leaves with the node's address, and the answers come back to them (RFC 3022, RFC 5508).
//! So does what callers outside the cluster send to backends that are not on this node, for their answers must pass here again
//! ([`crate::calls`]); it leaves by the underlay, or by the tunnel (`TUNNEL`).
//!
//! It is done on the underlay device, where what leaves has its last form and what comes has its first: routes, services and policy
//! know pods by their own addresses alone. What is kept, and when it counts: [`dataplane_abi::nat`].
//!
//! Asked in this order: what does not leave for the world, or answers somebody outside, keeps its address, and the row in conntrack
//! remembers that; so that of what stays in the cluster and of what is masqueraded a packet costs one look-up there, and of the latter
//! one more for the port.

use core::hint::black_box;

use dataplane_abi::config::{NodeConfig, Routing, VXLAN_PORT};
use dataplane_abi::conntrack::{CtFlags, Leaves};
use dataplane_abi::endpoints::{EndpointFlags, EndpointKey};
use dataplane_abi::ipcache::IpCacheKey;
use dataplane_abi::nat::{NatEntry, NatFlags};
use dataplane_abi::{Be16, DropReason, Identity};

use crate::calls;
use crate::closer::Room;
use crate::flight::{Flight, Kind, Route, Turned};
use crate::host::Host;
use crate::ip::{Ip, l4};
use crate::nat;
use crate::ports::{self, Leaving, Owner};
use crate::verdict::Step;

/// Reads a packet that leaves by the underlay, or by the tunnel (`TUNNEL`), and puts it into its room, for [`leave`].
/// [`Step::Skip`]: it leaves as it is.
#[inline(never)]
pub fn read<H: Host, F: Ip, const TUNNEL: bool>(host: H) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let mut flight = Flight::<F>::new(host.ticks(), config);
    if let Err(reason) = F::parse(host, &mut flight) {
        return if is_of_pods::<F, TUNNEL>(config) { unreadable::<H, F>(host, reason) } else { Step::Skip };
    }
    let (_, remote_port) = F::ports(&flight.key);
    if is_tunnels(config, F::proto(&flight.key), remote_port) && F::is_node(config, F::low(&flight.key)) {
        return Step::Skip;
    }
    let found = F::room(host, |room| room.flight = flight);
    if found.is_some() { Step::Next } else { Step::Skip }
}

/// Makes a packet ready that may leave by another address or port. False: it leaves as it is.
#[inline(never)]
fn prepare<H: Host, F: Ip, const TUNNEL: bool>(host: H, room: &mut Room<F>) -> bool {
    let Some(config) = host.config() else { return false };
    let flight = &mut room.flight;
    let ((port, _), proto) = (F::ports(&flight.key), F::proto(&flight.key));
    if flight.kind == Kind::Control || F::is_group(F::high(&flight.key)) {
        return false;
    }
    if F::is_node(config, F::low(&flight.key)) {
        // Of what the node itself sends only what could have a pod's port matters, or be the answer of a backend. Through the tunnel it
        // speaks by its router address, whose ports are its own.
        let may_answer = calls::from_outside::<F>(config) && (proto == l4::TCP || proto == l4::UDP);
        let may_collide = ports::has_ports(proto) && ports::is_in_range(config, port);
        if TUNNEL || !(may_answer || may_collide) {
            return false;
        }
    }
    room.leaving.read(config, flight);
    flight.from_high = F::order(&mut flight.key);
    true
}

/// Whether a packet is an outer one of the tunnel, by the port to which it goes.
#[inline(always)]
fn is_tunnels(config: &NodeConfig, proto: u8, port: Be16) -> bool {
    proto == l4::UDP && port.get() == VXLAN_PORT && config.routing == Routing::Vxlan as u8
}

/// Whether pods are masqueraded there. Through the tunnel they speak by their own addresses.
#[inline(always)]
fn is_of_pods<F: Ip, const TUNNEL: bool>(config: &NodeConfig) -> bool {
    !TUNNEL && is_on::<F>(config)
}

/// What becomes of a packet that conntrack cannot follow: of a pod it does not leave for the world.
#[inline(never)]
fn unreadable<H: Host, F: Ip>(host: H, reason: DropReason) -> Step {
    let Some((src, dst)) = F::addresses(host) else { return Step::Skip };
    if !is_pod::<H, F>(host, src) || stays::<H, F>(host, dst) {
        return Step::Skip;
    }
    let reason = match reason {
        DropReason::CtUnknownProtocol => DropReason::NatUnsupportedProtocol,
        reason => reason,
    };
    Step::Drop(reason)
}

/// Gives a packet in its room the address and port with which it leaves. [`Step::Skip`]: it leaves as it is; [`Step::Pass`]: turned.
#[inline(never)]
pub fn leave<H: Host, F: Ip, const TUNNEL: bool>(host: H, route: &mut Route) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    F::room(host, |room| {
        if !black_box(prepare::<H, F, TUNNEL>(host, room)) {
            return Step::Skip;
        }
        let mut step = Step::Skip;
        if !TUNNEL && calls::from_outside::<F>(config) {
            step = calls::leaves(host, &room.flight, &mut room.leaving);
        }
        // The kernel's verifier would follow each outcome by itself, here and below.
        let step = match black_box(step) {
            Step::Skip if TUNNEL || room.leaving.is_of_node == 0 => {
                of_others::<H, F, TUNNEL>(host, &room.flight, &mut room.leaving)
            }
            Step::Skip => own(host, &room.flight, &mut room.leaving),
            step => step,
        };
        let step = match black_box(step) {
            Step::Closer => get_port(host, &room.flight, &mut room.leaving),
            step => step,
        };
        match black_box(step) {
            Step::Next => turn_out(host, &room.flight, &room.leaving, route),
            end => end,
        }
    })
    .unwrap_or(Step::Skip)
}

/// Gets a connection a port and notes it: that in `leaving` if it can be had, else another.
#[inline(never)]
fn get_port<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaving: &mut Leaving<F>) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let has = (ports::is_in_range(config, leaving.port) && black_box(ports::claim(host, leaving)))
        || ports::draw(host, leaving);
    let is_noted = black_box(has)
        && if leaving.is_of_node == 0 {
            decide(host, flight, Leaves::Masqueraded, leaving.port)
        } else {
            ports::set_moved(host, leaving)
        };
    if is_noted { Step::Next } else { Step::Drop(DropReason::NatNoMapping) }
}

/// What conntrack says of how a packet leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Standing {
    /// Nothing: there is no row.
    Unknown,
    /// With its own address.
    Plain,
    /// Nobody has decided.
    Undecided,
    /// Nobody has decided, and who sends has called a service whose backend receives.
    Called,
    /// With the node's, by a port that it names.
    Masqueraded,
}

/// Finds the port by which a packet leaves that the node does not send itself. [`Step::Closer`]: it has to get one.
#[inline(never)]
fn of_others<H: Host, F: Ip, const TUNNEL: bool>(
    host: H,
    flight: &Flight<F>,
    leaving: &mut Leaving<F>,
) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    match black_box(standing(host, flight, leaving)) {
        Standing::Plain => Step::Skip,
        Standing::Masqueraded => keeps(host, flight, leaving),
        // Who has called a service packet by packet is a pod of this node, or outside.
        Standing::Called if !is_pod::<H, F>(host, leaving.sender()) => {
            if flight.kind == Kind::Error {
                unclear(host, leaving)
            } else {
                Step::Closer
            }
        }
        _ if !is_of_pods::<F, TUNNEL>(config) => Step::Skip,
        Standing::Undecided | Standing::Called => first(host, flight, leaving),
        Standing::Unknown => forgotten(host, leaving),
    }
}

#[inline(always)]
fn standing<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaving: &mut Leaving<F>) -> Standing {
    let from_high = flight.from_high;
    F::ct(host, &flight.key, |row| {
        let [there, _] = &row.dirs;
        if row.flags.contains(CtFlags::CALL) {
            Standing::Unknown
        } else if row.origin_is_high() != from_high || there.leaves == Leaves::Plain as u8 {
            Standing::Plain
        } else if there.leaves == Leaves::Masqueraded as u8 {
            leaving.port = there.leaves_by;
            Standing::Masqueraded
        } else if row.flags.contains(calls::behind(!flight.is_from_high())) {
            Standing::Called
        } else {
            Standing::Undecided
        }
    })
    .unwrap_or(Standing::Unknown)
}

/// Whether a connection still has the port by which it leaves.
#[inline(always)]
fn keeps<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaving: &mut Leaving<F>) -> Step {
    match black_box(ports::owner(host, flight, leaving)) {
        Owner::Oneself => Step::Next,
        // An error is about what has a port, and does not get it one.
        Owner::Another | Owner::Nobody if flight.kind == Kind::Error => unclear(host, leaving),
        Owner::Another | Owner::Nobody => Step::Closer,
    }
}

/// Decides how a connection leaves of which this is the first packet to do so.
#[inline(never)]
fn first<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaving: &mut Leaving<F>) -> Step {
    if !is_pod::<H, F>(host, leaving.sender()) {
        return Step::Skip;
    }
    if stays::<H, F>(host, leaving.receiver()) {
        // Without a row the next packet is asked for again.
        let _: bool = decide(host, flight, Leaves::Plain, Be16::ZERO);
        return Step::Skip;
    }
    let proto = F::proto(&leaving.own);
    if !ports::has_ports(proto) {
        return Step::Drop(DropReason::NatUnsupportedProtocol);
    }
    let (_, remote_port) = F::ports(&leaving.own);
    let is_echo = proto == l4::ICMP || proto == l4::ICMP6;
    // An error opens nothing. An answer to an echo that nobody asked for has no identifier of its own.
    if flight.kind == Kind::Error || (is_echo && remote_port != Be16::ZERO) {
        return unclear(host, leaving);
    }
    Step::Closer
}

/// What becomes of a packet whose row in conntrack is gone between the pod and here, if it is a pod's.
#[inline(never)]
fn forgotten<H: Host, F: Ip>(host: H, leaving: &Leaving<F>) -> Step {
    if !is_pod::<H, F>(host, leaving.sender()) || stays::<H, F>(host, leaving.receiver()) {
        return Step::Skip;
    }
    unclear(host, leaving)
}

/// What is about no port does not leave, unless the node's stack says it.
#[inline(always)]
fn unclear<H: Host, F: Ip>(host: H, leaving: &Leaving<F>) -> Step {
    match F::addresses(host) {
        Some((sender, _)) if sender != leaving.sender() => Step::Skip,
        _ => Step::Drop(DropReason::NatNoMapping),
    }
}

/// Writes into the connection's row how it leaves. False: there is none.
#[inline(never)]
fn decide<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaves: Leaves, port: Be16) -> bool {
    F::ct(host, &flight.key, |row| {
        let [there, _] = &mut row.dirs;
        (there.leaves, there.leaves_by) = (leaves as u8, port);
    })
    .is_some()
}

/// Whether a pod of this node has the address.
#[inline(never)]
fn is_pod<H: Host, F: Ip>(host: H, addr: F::Addr) -> bool {
    host.endpoint(&EndpointKey::new(F::to_abi(addr), F::FAMILY))
        .is_some_and(|entry| !entry.flags.contains(EndpointFlags::HOST))
}

/// Whether pods speak with an address by their own.
#[inline(never)]
fn stays<H: Host, F: Ip>(host: H, addr: F::Addr) -> bool {
    let key = IpCacheKey::host(F::to_abi(addr), F::FAMILY);
    if host.is_not_masqueraded(&key) {
        return true;
    }
    let Some(config) = host.config() else { return true };
    host.ipcache(&key).is_some_and(|entry| {
        let identity = entry.identity;
        if identity.is_remote_node() {
            // Behind the tunnel nodes do not know the way to a pod without it.
            config.routing == Routing::Native as u8
        } else {
            identity.is_pod() || identity == Identity::HOST || entry.node_family != 0
        }
    })
}

/// Sees to it that what the node itself sends leaves by a port that is no pod's.
#[inline(never)]
fn own<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaving: &mut Leaving<F>) -> Step {
    if !host.config().is_some_and(|config| ports::is_in_range(config, leaving.port)) {
        return Step::Skip;
    }
    let known = black_box(ports::owner(host, flight, leaving));
    if known == Owner::Oneself {
        return Step::Skip;
    }
    if black_box(ports::moved(host, flight, leaving)) {
        return keeps(host, flight, leaving);
    }
    if flight.kind == Kind::Error {
        return Step::Skip;
    }
    if known == Owner::Another {
        return Step::Closer;
    }
    // Without room for a row the node goes on; only a pod might get its port.
    let _: bool = ports::claim(host, leaving);
    Step::Skip
}

/// Writes the address and the port by which a packet leaves over its own.
#[inline(never)]
fn turn_out<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaving: &Leaving<F>, route: &mut Route) -> Step {
    let (addr, port) = (leaving.addr, leaving.port);
    let done = if flight.kind == Kind::Error {
        let Some((sender, _)) = F::addresses(host) else { return Step::Drop(DropReason::WriteError) };
        nat::set_quoted::<H, F, false>(host, flight, &addr, port)
            && (sender != leaving.sender() || nat::set_end_of_error::<H, F, true>(host, flight, &addr, route))
    } else {
        nat::set_end::<H, F, true>(host, flight, &addr, port, route)
    };
    if done { Step::Pass } else { Step::Drop(DropReason::WriteError) }
}

/// Gives a packet that came in the address and port of whose answer it is: a pod's, or a caller's from outside the cluster.
/// [`Step::Next`]: it has; [`Step::Skip`]: it is the node's, as it is; [`Step::Closer`]: nobody has such a port, and it may be a call.
#[inline(never)]
pub fn come<H: Host, F: Ip>(host: H) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let mut flight = Flight::<F>::new(host.ticks(), config);
    if F::parse(host, &mut flight).is_err() {
        return Step::Skip;
    }
    let ((remote_port, port), proto) = (F::ports(&flight.key), F::proto(&flight.key));
    let outer_port = if flight.kind == Kind::Error { remote_port } else { port };
    if flight.kind == Kind::Control || !ports::has_ports(proto) || is_tunnels(config, proto, outer_port) {
        return Step::Skip;
    }
    let may_call = proto == l4::TCP || proto == l4::UDP;
    let nobodys = if may_call { Step::Closer } else { Step::Skip };
    if !ports::is_in_range(config, port) {
        return nobodys;
    }
    flight.from_high = F::order(&mut flight.key);
    let step = F::room(host, |room| {
        room.flight = flight;
        answers(host, room)
    })
    .unwrap_or(Step::Skip);
    if step == Step::Closer { nobodys } else { step }
}

/// The same with a packet in its room that comes to the node's address, and a port of the range or not.
#[inline(never)]
pub fn answers<H: Host, F: Ip>(host: H, room: &mut Room<F>) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let flight = &room.flight;
    let (src, port, proto) = (flight.src(), flight.dst_port(), F::proto(&flight.key));
    if !ports::has_ports(proto) || !ports::is_in_range(config, port) {
        return Step::Closer;
    }
    room.leaving.wire = F::key(flight.dst(), src, port, flight.src_port(), proto);
    room.leaving.port = port;
    match black_box(whose(host, &room.flight, &mut room.leaving)) {
        Step::Next => {}
        end => return end,
    }
    room.turned = Turned::ToClient;
    let step = turn_in(host, &room.flight, &room.leaving, &mut room.route);
    let entry = &room.leaving.entry;
    room.flight.key = F::key(src, F::from_abi(entry.addr), room.flight.src_port(), entry.port, proto);
    step
}

/// Finds whose answer a packet is: address and port go into the entry of `leaving`.
#[inline(never)]
fn whose<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaving: &mut Leaving<F>) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let (now, ticks_per_s) = (flight.now, config.ticks_per_s);
    F::nat(host, &leaving.wire, |row| {
        if row.is_expired(now, ticks_per_s) || !is_right::<H, F>(host, &leaving.wire, row) {
            return Step::Closer;
        }
        ports::heard(row, flight);
        (leaving.entry.addr, leaving.entry.port) = (row.addr, row.port);
        let is_as_it_is = row.flags.contains(NatFlags::OF_NODE) && row.port == leaving.port;
        if is_as_it_is { Step::Skip } else { Step::Next }
    })
    .unwrap_or(Step::Closer)
}

/// Whether who has a port knows it by now: of a row that is left alone nothing is believed. The node knows.
#[inline(always)]
fn is_right<H: Host, F: Ip>(host: H, wire: &F::Key, row: &NatEntry) -> bool {
    if row.flags.contains(NatFlags::OF_NODE) {
        return true;
    }
    let (port, remote_port) = F::ports(wire);
    let mut key = F::key(F::from_abi(row.addr), F::high(wire), row.port, remote_port, F::proto(wire));
    let pod_is_high = F::order(&mut key);
    F::ct(host, &key, |row| {
        let [there, _] = &row.dirs;
        !row.flags.contains(CtFlags::CALL)
            && row.origin_is_high() == pod_is_high
            && there.leaves == Leaves::Masqueraded as u8
            && there.leaves_by == port
    }) == Some(true)
}

/// Writes address and port of whose it is over those to which a packet came.
#[inline(never)]
fn turn_in<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaving: &Leaving<F>, route: &mut Route) -> Step {
    let (addr, port) = (F::from_abi(leaving.entry.addr), leaving.entry.port);
    let done = if flight.kind == Kind::Error {
        nat::set_quoted::<H, F, true>(host, flight, &addr, port)
            && nat::set_end_of_error::<H, F, false>(host, flight, &addr, route)
    } else {
        nat::set_end::<H, F, false>(host, flight, &addr, port, route)
    };
    if done { Step::Next } else { Step::Drop(DropReason::WriteError) }
}

/// Whether pods are masqueraded by a family.
#[inline(always)]
pub fn is_on<F: Ip>(config: &NodeConfig) -> bool {
    config.flags.contains(F::MASQUERADE)
}
