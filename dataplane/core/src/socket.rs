//! What programs on calls of sockets need from the world, beside the clock; the tables of services are the packet programs' too.
//! As for packets there are two implementations: the kernel's and the one in memory; and hosts are handles, passed by value.

use dataplane_abi::affinity::{AffinityEntry, AffinityKey};
use dataplane_abi::backends::BackendEntry;
use dataplane_abi::services::{ServiceEntry, ServiceKey};
use dataplane_abi::sock_revnat::{SockRevNatEntry, SockRevNatKey};
use dataplane_abi::{Addr, Be16, Family};

use crate::host::{Clock, Places};
use crate::ip::l4;

/// `IPPROTO_MPTCP`: TCP to everybody but the socket.
const MPTCP: u32 = 262;

/// A call with an address: of whom it is about to speak with, or of whom it has been spoken to by; of `bind`, its own.
pub trait Call: Copy {
    /// Whether the address in the call is an IPv6 one.
    fn is_v6(self) -> bool;
    /// The socket's protocol (`IPPROTO_…`).
    fn protocol(self) -> u32;
    /// The address in the call; IPv4 in the first four bytes.
    fn addr(self) -> Addr;
    /// The port in the call.
    fn port(self) -> Be16;
    /// Writes another address, of the call's kind, and another port into the call.
    fn set(self, addr: Addr, port: Be16);
    /// Number of the socket, never used twice.
    fn cookie(self) -> u64;
    /// Number of the socket's network namespace, never used twice.
    fn netns_cookie(self) -> u64;
    /// Whether the socket is in the node's own network namespace, as far as that is to be told from those of pods.
    fn is_of_node(self) -> bool;
}

/// The tables of services.
pub trait ServiceMaps: Copy {
    /// A frontend, or one of its slots.
    fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry>;
    /// A backend by its number.
    fn backend(&self, number: u32) -> Option<&BackendEntry>;
    /// Runs `f` on the row of a client, if there is one.
    fn affinity<R>(self, key: &AffinityKey, f: impl FnOnce(&mut AffinityEntry) -> R) -> Option<R>;
    /// Makes or replaces the row of a client. A full table forgets another one.
    fn set_affinity(self, key: &AffinityKey, entry: &AffinityEntry);
    /// Adds one to a row of the counters.
    fn count_call(self, index: u32);
}

/// What is remembered of sockets.
pub trait SocketMaps: Copy {
    /// Whom a socket's process called.
    fn sock_revnat(self, key: &SockRevNatKey) -> Option<SockRevNatEntry>;
    /// Notes it. False: there is no room at all.
    #[must_use]
    fn set_sock_revnat(self, key: &SockRevNatKey, entry: &SockRevNatEntry) -> bool;
}

/// Chance.
pub trait Random: Copy {
    /// Any number, each as likely as every other.
    fn random(self) -> u32;
}

/// What the choice of a backend needs, be it for a call of a socket or for a packet.
pub trait Chooser: Places + ServiceMaps + Random + Clock {}

impl<T: Places + ServiceMaps + Random + Clock> Chooser for T {}

/// A host of these programs is all of them.
pub trait SocketHost: Call + SocketMaps + Chooser {}

impl<T: Call + SocketMaps + Chooser> SocketHost for T {}

/// How a call ends that is about to speak with somebody, or to be spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum SocketVerdict {
    /// It goes on, to the address that is in it now.
    Pass,
    /// It fails at once: nobody is there.
    Refuse,
    /// It fails at once: a service has the port.
    Taken,
}

/// With whom a call is about to speak, or has been spoken to by, in words of the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Address; IPv4 in the first four bytes, also where the call has an IPv6 address that stands for it.
    pub addr: Addr,
    /// Its family.
    pub family: Family,
    /// Port.
    pub port: Be16,
    /// IP protocol: TCP or UDP.
    pub proto: u8,
}

impl Peer {
    /// That of a call; `None`: it is of a protocol that services do not have.
    #[inline(always)]
    pub fn of<H: Call>(host: H) -> Option<Self> {
        let proto = match host.protocol() {
            protocol if protocol == u32::from(l4::TCP) || protocol == MPTCP => l4::TCP,
            protocol if protocol == u32::from(l4::UDP) => l4::UDP,
            _ => return None,
        };
        let (addr, port) = (host.addr(), host.port());
        let (addr, family) = match addr.unmapped() {
            _ if !host.is_v6() => (addr, Family::V4),
            Some(v4) => (Addr::v4(v4), Family::V4),
            None => (addr, Family::V6),
        };
        Some(Self { addr, family, port, proto })
    }

    /// Writes it into a call, in the way in which the call has addresses.
    #[inline(always)]
    pub fn set_in<H: Call>(&self, host: H) {
        let stands_for_v4 = host.is_v6() && matches!(self.family, Family::V4);
        let addr = if stands_for_v4 { Addr::mapped(self.addr.to_v4()) } else { self.addr };
        host.set(addr, self.port);
    }
}
