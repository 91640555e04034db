//! The machine around a stack: numbers for its packets, and calls of processes before they are packets, of which programs on a cgroup may
//! make others.

use std::net::SocketAddr;

use crate::frame::PacketId;

/// What a stack asks of the machine that it is on. Whatever gives numbers alone is a machine without programs.
pub trait Machine {
    /// A number for a packet that is made now.
    fn id(&mut self) -> PacketId;

    /// What becomes of calls.
    fn calls(&self) -> &dyn Calls {
        &AsIs
    }
}

impl<F: FnMut() -> PacketId> Machine for F {
    fn id(&mut self) -> PacketId {
        self()
    }
}

/// A socket that makes a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Caller {
    /// Number of the socket, never used twice on a machine.
    pub socket: u64,
    /// IP protocol.
    pub protocol: u8,
}

/// What becomes of calls.
pub trait Calls {
    /// A socket is connected: to whom it is then, or nothing if the call fails.
    fn connect(&self, caller: Caller, to: SocketAddr) -> Option<SocketAddr>;
    /// A socket that is not connected sends a datagram: to whom it goes, or nothing if the call fails.
    fn send(&self, caller: Caller, to: SocketAddr) -> Option<SocketAddr>;
    /// Who sent a datagram, as its receiver is told.
    fn sender(&self, caller: Caller, from: SocketAddr) -> SocketAddr;
}

/// No programs: every call goes on as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsIs;

impl Calls for AsIs {
    fn connect(&self, _caller: Caller, to: SocketAddr) -> Option<SocketAddr> {
        Some(to)
    }

    fn send(&self, _caller: Caller, to: SocketAddr) -> Option<SocketAddr> {
        Some(to)
    }

    fn sender(&self, _caller: Caller, from: SocketAddr) -> SocketAddr {
        from
    }
}
