//! Traffic of the node itself: of its own stack, and of pods that share it. It is judged by the policy in the rows of the node's addresses.
//!
//! Only with [`dataplane_abi::config::ConfigFlags::HOST_FIREWALL`]. What goes between the node and its own pods is judged where it is anyway, in
//! `from_container` and `to_container`; here is the rest: what the node sends by the underlay and the tunnel, and what is
//! different about what comes in there.
//!
//! Never judged: packets to groups and broadcasts, what is about the link (neighbour discovery), addresses that are not in
//! `ENDPOINTS` (such as those of a link), DHCP, ICMP errors that the node sends, and the tunnel's own packets, since what they
//! carry is judged.

use dataplane_abi::DropReason;
use dataplane_abi::config::{NodeConfig, Routing, VXLAN_PORT};
use dataplane_abi::policy::Direction;
use dataplane_abi::program::Program;

use crate::conntrack::{self, End, Hit};
use crate::ends::{self, Meeting, Place};
use crate::flight::{Flight, Kind, Route};
use crate::host::Host;
use crate::ip::{Ip, l4};
use crate::learn::learn;
use crate::policy::Guard;
use crate::verdict::Step;

/// Judges a packet that leaves by the underlay or the tunnel, if the node itself sends it. [`Step::Next`]: it may leave.
#[inline(never)]
pub fn sends<H: Host, F: Ip, const PROGRAM: u8>(host: H, route: &mut Route) -> Step {
    let Some(config) = host.config() else { return Step::Next };
    if !is_sender::<H, F, PROGRAM>(host, config) {
        return Step::Next;
    }
    let mut flight = Flight::<F>::new(host.ticks(), config);
    if let Err(reason) = F::parse(host, &mut flight) {
        return untracked::<H, F>(host, reason);
    }
    if flight.kind == Kind::Error || is_exempt(config, &flight) {
        return Step::Next;
    }
    match conntrack::lookup::<H, F, PROGRAM>(host, config, &mut flight, route, 0) {
        Hit::Known | Hit::Maybe => Step::Next,
        Hit::Unsure => learn::<H, F, PROGRAM>(host, &flight, route),
    }
}

/// Whether the node itself sends the packet, and to somebody off the node. A function of its own: the addresses would need room on
/// the stack of its caller, which has none.
#[inline(never)]
fn is_sender<H: Host, F: Ip, const PROGRAM: u8>(host: H, config: &NodeConfig) -> bool {
    let Some((src, dst)) = F::addresses(host) else { return false };
    if F::is_group(dst) || !is_own::<H, F>(host, config, src) {
        return false;
    }
    // On the way to a pod of this node `to_container` asks.
    PROGRAM != Program::FromHost as u8 || place::<H, F>(host, dst) == Place::Elsewhere
}

/// Whether an address is one of the node's.
#[inline(always)]
pub fn is_own<H: Host, F: Ip>(host: H, config: &NodeConfig, addr: F::Addr) -> bool {
    F::is_node(config, addr) || place::<H, F>(host, addr) == Place::Node
}

/// What kind of place an address is.
#[inline(never)]
fn place<H: Host, F: Ip>(host: H, addr: F::Addr) -> Place {
    let (mut end, mut guard) = (End::NOBODY, Guard::NONE);
    ends::find_here::<H, F>(host, addr, &mut end, &mut guard)
}

/// What becomes of a packet of the node's that conntrack cannot follow. Nothing tells an answer from a question there, so where
/// the node's policy has a say it does not pass.
#[inline(never)]
fn untracked<H: Host, F: Ip>(host: H, reason: DropReason) -> Step {
    // The address is read once more: kept until here it would need room on a stack that has none.
    let Some((own, _)) = F::addresses(host) else { return Step::Next };
    let (mut end, mut guard) = (End::NOBODY, Guard::NONE);
    match ends::find_here::<H, F>(host, own, &mut end, &mut guard) {
        Place::Node if guard.closes(Direction::Egress) => Step::Drop(reason),
        Place::Node | Place::Pod | Place::Elsewhere => Step::Next,
    }
}

/// Whether a packet on the underlay is never judged. Its key is not in order yet.
#[inline(always)]
pub fn is_exempt<F: Ip>(config: &NodeConfig, flight: &Flight<F>) -> bool {
    if flight.kind == Kind::Control {
        return true;
    }
    if F::proto(&flight.key) != l4::UDP {
        return false;
    }
    let (from, to) = F::ports(&flight.key);
    let (from, to) = (from.get(), to.get());
    // An ICMP error is sent against the direction of what it is about.
    let called = if flight.kind == Kind::Error { from } else { to };
    (config.routing == Routing::Vxlan as u8 && called == VXLAN_PORT)
        // An address that cannot be renewed is lost, whoever else the node may speak with.
        || matches!((from, to), (67, 68) | (68, 67) | (546, 547) | (547, 546))
}

/// Whether the program is one in which the node's packets are judged for the node alone.
const fn is_of_node(program: u8) -> bool {
    program == Program::FromOverlay as u8
        || program == Program::FromNetdev as u8
        || program == Program::ToNetdev as u8
        || program == Program::FromHost as u8
}

/// Whether ICMP errors about unknown connections may come to the receiver: it is the node, and its policy closes nothing.
#[inline(always)]
pub fn is_open<const PROGRAM: u8>(receiver: Guard) -> bool {
    is_of_node(PROGRAM) && receiver.is_of_node() && !receiver.closes(Direction::Ingress)
}

/// Whether a packet to the node is of a connection that was begun before anybody watched. It is judged as if the node had begun it,
/// and gets no row: the node's answer makes one. Nothing is opened by such a packet, and a connection on which the other end
/// only speaks, as API servers do, would stand still otherwise.
#[inline(always)]
pub fn is_late<F: Ip, const PROGRAM: u8>(flight: &Flight<F>, meeting: &Meeting) -> bool {
    is_of_node(PROGRAM)
        && flight.kind == Kind::Tcp
        && !conntrack::begins(flight.tcp_flags)
        && meeting.dst_guard.is_of_node()
}

/// Whether a packet of the node's is of such a connection, and no policy asks. It gets no row: one with the wrong beginner would
/// be believed when there is a policy.
#[inline(always)]
pub fn is_unclear<F: Ip, const PROGRAM: u8>(flight: &Flight<F>, meeting: &Meeting) -> bool {
    is_of_node(PROGRAM)
        && flight.kind == Kind::Tcp
        && !conntrack::begins(flight.tcp_flags)
        && meeting.src_guard.is_of_node()
        && meeting.src_guard.policy == 0
}
