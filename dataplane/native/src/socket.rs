//! Calls of sockets, and what `dataplane-core` asks of their host, answered from memory.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

use dataplane_abi::program::SocketProgram;
use dataplane_abi::sock_revnat::{SockRevNatEntry, SockRevNatKey};
use dataplane_abi::{Addr, Be16};
use dataplane_core::host::Clock;
use dataplane_core::socket::{Call, SocketMaps};

use crate::Native;

/// A call of a socket that has an address in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketCall {
    /// The address in the call, of the program's family. An IPv6 one may stand for an IPv4 one (`::ffff:a.b.c.d`).
    pub addr: SocketAddr,
    /// The socket's protocol (`IPPROTO_…`).
    pub protocol: u32,
    /// Number of the socket, never used twice.
    pub cookie: u64,
    /// Number of its network namespace, never used twice.
    pub netns: u64,
}

impl SocketCall {
    /// Whether it is one to which the kernel gives this program.
    pub(crate) const fn is_for(&self, program: SocketProgram) -> bool {
        self.addr.is_ipv6() == program.is_v6()
    }
}

/// A call on a node.
#[derive(Clone, Copy)]
pub(crate) struct Handle<'a> {
    pub(crate) node: &'a Native,
    pub(crate) call: &'a Cell<SocketCall>,
}

impl Call for Handle<'_> {
    fn is_v6(self) -> bool {
        self.call.get().addr.is_ipv6()
    }

    fn protocol(self) -> u32 {
        self.call.get().protocol
    }

    fn addr(self) -> Addr {
        Addr::from_ip(self.call.get().addr.ip()).0
    }

    fn port(self) -> Be16 {
        Be16::new(self.call.get().addr.port())
    }

    fn set(self, addr: Addr, port: Be16) {
        let mut call = self.call.get();
        let ip = match call.addr.ip() {
            IpAddr::V4(_) => IpAddr::from(addr.to_v4()),
            IpAddr::V6(_) => IpAddr::from(addr.0),
        };
        // As in the kernel, where the rest of the address (scope of the link, flow label) is left alone.
        call.addr.set_ip(ip);
        call.addr.set_port(port.get());
        self.call.set(call);
    }

    fn cookie(self) -> u64 {
        self.call.get().cookie
    }

    fn netns_cookie(self) -> u64 {
        self.call.get().netns
    }

    fn is_of_node(self) -> bool {
        let protected = self.node.protected_netns.get();
        protected != 0 && protected == self.call.get().netns
    }
}

places!(Handle<'_>);

services!(Handle<'_>);

impl SocketMaps for Handle<'_> {
    fn sock_revnat(self, key: &SockRevNatKey) -> Option<SockRevNatEntry> {
        self.node.tables.sock_revnat.borrow_mut().get_mut(key).copied()
    }

    fn set_sock_revnat(self, key: &SockRevNatKey, entry: &SockRevNatEntry) -> bool {
        self.node.tables.sock_revnat.borrow_mut().insert(*key, *entry)
    }
}

impl Clock for Handle<'_> {
    fn ticks(self) -> u64 {
        self.node.clock.get().ticks
    }

    fn now_ns(self) -> u64 {
        self.node.clock.get().ktime_ns
    }
}
