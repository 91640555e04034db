//! Ports of the node for masqueraded connections: who has one, and giving one out.
//!
//! A port is given out for one destination and protocol: the key of its row is the connection as the wire has it. So two pods may
//! have one port for two destinations, and nobody has to search.

use core::hint::black_box;

use dataplane_abi::Be16;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::conntrack::{CtScope, CtState};
use dataplane_abi::nat::{NatEntry, NatFlags};

use crate::conntrack;
use crate::flight::{Flight, Kind};
use crate::host::Host;
use crate::ip::{Ip, l4};

/// How often a port is drawn before the search is given up, as in Cilium.
const DRAWS: u32 = 32;

/// A packet that may leave by another port. It does not lie on the stack, which has no room for it; and of what a table holds the
/// kernel's verifier knows nothing, so that it does not follow each outcome by itself.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Leaving<F: Ip> {
    /// Its connection as its sender has it, the sender's end first.
    pub own: F::Key,
    /// Its connection as the wire has it, the node's end first.
    pub wire: F::Key,
    /// What the row of its port is at first.
    pub entry: NatEntry,
    /// The address by which it leaves: the node's, or that of a service.
    pub addr: F::Addr,
    /// The port by which it leaves, once known.
    pub port: Be16,
    /// The node itself sends it.
    pub is_of_node: u8,
    /// It begins a connection.
    pub begins: u8,
}

impl<F: Ip> Leaving<F> {
    /// Nothing known yet.
    pub const NONE: Self = Self {
        own: F::NO_KEY,
        wire: F::NO_KEY,
        entry: NatEntry {
            last_seen: 0,
            created: 0,
            state: 0,
            flags: NatFlags(0),
            port: Be16::ZERO,
            flags_out: 0,
            flags_in: 0,
            pad: [0; 2],
            addr: dataplane_abi::Addr::ZERO,
        },
        addr: F::LOOPBACK,
        port: Be16::ZERO,
        is_of_node: 0,
        begins: 0,
    };

    /// Reads a packet whose key is not in order yet.
    #[inline(always)]
    pub fn read(&mut self, config: &NodeConfig, flight: &Flight<F>) {
        let (sender, (port, remote_port)) = (F::low(&flight.key), F::ports(&flight.key));
        let is_of_node = F::is_node(config, sender);
        let is_tcp = flight.kind == Kind::Tcp;
        self.own = flight.key;
        self.wire = F::key(F::node(config), F::high(&flight.key), port, remote_port, F::proto(&flight.key));
        self.entry = NatEntry {
            last_seen: flight.now,
            created: flight.now,
            state: conntrack::first_state(flight) as u8,
            flags: if is_of_node { NatFlags::OF_NODE } else { NatFlags(0) },
            port,
            flags_out: if is_tcp { flight.tcp_flags } else { 0 },
            flags_in: 0,
            pad: [0; 2],
            addr: F::to_abi(sender),
        };
        (self.addr, self.port) = (F::node(config), port);
        self.is_of_node = u8::from(is_of_node);
        self.begins = u8::from(is_tcp && conntrack::begins(flight.tcp_flags));
    }

    /// Address of the sender.
    #[inline(always)]
    pub fn sender(&self) -> F::Addr {
        F::low(&self.own)
    }

    /// Whom it is for.
    #[inline(always)]
    pub fn receiver(&self) -> F::Addr {
        F::high(&self.own)
    }
}

/// Whether masqueraded connections may leave by a port.
#[inline(always)]
pub fn is_in_range(config: &NodeConfig, port: Be16) -> bool {
    let port = port.get();
    config.snat_port_min != 0 && port >= config.snat_port_min && port <= config.snat_port_max
}

/// Whether packets of a protocol have something that can stand for a port.
#[inline(always)]
pub const fn has_ports(proto: u8) -> bool {
    matches!(proto, l4::TCP | l4::UDP | l4::ICMP | l4::ICMP6)
}

/// Whose a port is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Owner {
    /// The sender's.
    Oneself,
    /// Somebody else's.
    Another,
    /// Nobody's: there is no row, or its connection is over or begins again.
    Nobody,
}

/// Whether a row is of the sender.
#[inline(always)]
fn is_of<F: Ip>(row: &NatEntry, leaving: &Leaving<F>) -> bool {
    row.port == leaving.entry.port && F::from_abi(row.addr) == F::from_abi(leaving.entry.addr)
}

/// Notes a packet that leaves in a row. One that comes in is noted by [`heard`].
#[inline(always)]
fn sent<F: Ip>(row: &mut NatEntry, flight: &Flight<F>) {
    if flight.kind == Kind::Error {
        return;
    }
    row.last_seen = flight.now;
    if flight.kind == Kind::Tcp {
        row.flags_out |= flight.tcp_flags;
        row.state = conntrack::next_state(row.state, flight.tcp_flags, row.flags_out, row.flags_in);
    }
}

/// Notes a packet that came in in a row.
#[inline(always)]
pub fn heard<F: Ip>(row: &mut NatEntry, flight: &Flight<F>) {
    if flight.kind == Kind::Error {
        return;
    }
    row.last_seen = flight.now;
    if flight.kind == Kind::Tcp {
        row.flags_in |= flight.tcp_flags;
        row.state = conntrack::next_state(row.state, flight.tcp_flags, row.flags_in, row.flags_out);
    }
}

/// Asks whose the port is by which a packet would leave, and notes the packet if it is its sender's.
#[inline(never)]
pub fn owner<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaving: &mut Leaving<F>) -> Owner {
    let Some(config) = host.config() else { return Owner::Another };
    let (now, ticks_per_s) = (flight.now, config.ticks_per_s);
    F::set_low_port(&mut leaving.wire, leaving.port);
    F::nat(host, &leaving.wire, |row| {
        if row.is_expired(now, ticks_per_s) {
            Owner::Nobody
        } else if !is_of(row, leaving) {
            Owner::Another
        } else if leaving.begins != 0 && row.state == CtState::Closing as u8 {
            Owner::Nobody
        } else {
            sent(row, flight);
            Owner::Oneself
        }
    })
    .unwrap_or(Owner::Nobody)
}

/// Takes a port for the sender of a packet, unless somebody else has it.
#[inline(always)]
fn take<H: Host, F: Ip>(host: H, config: &NodeConfig, leaving: &mut Leaving<F>, port: Be16) -> bool {
    let (now, ticks_per_s) = (leaving.entry.last_seen, config.ticks_per_s);
    F::set_low_port(&mut leaving.wire, port);
    let taken = F::nat(host, &leaving.wire, |row| {
        let is_free = row.is_expired(now, ticks_per_s) || is_of(row, leaving);
        if is_free {
            *row = leaving.entry;
        }
        is_free
    });
    match taken {
        Some(taken) => taken,
        None => F::nat_create(host, &leaving.wire, &leaving.entry),
    }
}

/// Gives the sender of a packet the port of its choice, if nobody else has it.
#[inline(never)]
pub fn claim<H: Host, F: Ip>(host: H, leaving: &mut Leaving<F>) -> bool {
    let Some(config) = host.config() else { return false };
    take(host, config, leaving, leaving.port)
}

/// Gives the sender of a packet a port by chance, if one is found. `leaving.port` says which.
#[inline(never)]
pub fn draw<H: Host, F: Ip>(host: H, leaving: &mut Leaving<F>) -> bool {
    let Some(config) = host.config() else { return false };
    let (min, max) = (u32::from(config.snat_port_min), u32::from(config.snat_port_max));
    if min == 0 || max < min {
        return false;
    }
    let ports = max.wrapping_sub(min).wrapping_add(1);
    for _ in 0..DRAWS {
        // Of 32 bits by chance the remainder is even enough, and the divisor is not zero.
        let drawn = min.wrapping_add(host.random().checked_rem(ports).unwrap_or(0));
        let [low, high, ..] = drawn.to_le_bytes();
        leaving.port = Be16::new(u16::from_le_bytes([low, high]));
        if black_box(take(host, config, leaving, leaving.port)) {
            return true;
        }
    }
    false
}

/// Finds the port to which a connection of the node's was moved, if it was.
#[inline(never)]
pub fn moved<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaving: &mut Leaving<F>) -> bool {
    let Some(config) = host.config() else { return false };
    let (now, ticks_per_s) = (flight.now, config.ticks_per_s);
    F::set_scope(&mut leaving.own, CtScope::Moved);
    let found = F::nat(host, &leaving.own, |row| {
        if row.is_expired(now, ticks_per_s) {
            return None;
        }
        sent(row, flight);
        Some(row.port)
    });
    match found.flatten() {
        Some(port) => {
            leaving.port = port;
            true
        }
        None => false,
    }
}

/// Notes the port to which a connection of the node's is moved. False: there is no room.
#[inline(never)]
pub fn set_moved<H: Host, F: Ip>(host: H, leaving: &mut Leaving<F>) -> bool {
    F::set_scope(&mut leaving.own, CtScope::Moved);
    leaving.entry.port = leaving.port;
    let written = F::nat(host, &leaving.own, |row| *row = leaving.entry);
    written.is_some() || F::nat_create(host, &leaving.own, &leaving.entry)
}
