//! Calls of processes, on their way through the programs of their node.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use dataplane_abi::program::SocketProgram;
use dataplane_core::SocketVerdict;
use dataplane_native::{Native, SocketCall};
use sim_net::{Caller, Calls, Machine, Node, PacketId};

use crate::kubelet::Kubelet;
use crate::node::SimNode;
use crate::queue::NodeId;
use crate::world::World;

/// A call that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Called {
    /// The socket.
    pub(crate) caller: Caller,
    /// Each datagram is a call, and all of a socket are one conversation.
    pub(crate) datagram: bool,
    /// Whom the process called.
    pub(crate) to: SocketAddr,
    /// Whom it speaks with; nobody if the call failed.
    pub(crate) became: Option<SocketAddr>,
    /// Whom it is told that it speaks with.
    pub(crate) told: Option<SocketAddr>,
}

/// The programs of a node.
struct Programs<'a> {
    native: &'a Native,
    /// They are in place.
    on: bool,
    /// The network namespace of those who call.
    netns: u64,
    made: RefCell<Vec<Called>>,
}

impl Programs<'_> {
    fn run(&self, programs: [SocketProgram; 2], caller: Caller, addr: SocketAddr) -> Option<SocketAddr> {
        let [four, six] = programs;
        let (protocol, cookie) = (u32::from(caller.protocol), caller.socket);
        let mut call = SocketCall { addr, protocol, cookie, netns: self.netns };
        match self.native.run_socket(if addr.is_ipv4() { four } else { six }, &mut call) {
            SocketVerdict::Pass => Some(call.addr),
            SocketVerdict::Refuse | SocketVerdict::Taken => None,
        }
    }

    fn call(&self, datagram: bool, caller: Caller, to: SocketAddr) -> Option<SocketAddr> {
        if !self.on {
            return Some(to);
        }
        let (there, back) = if datagram {
            (
                [SocketProgram::Sendmsg4, SocketProgram::Sendmsg6],
                [SocketProgram::Recvmsg4, SocketProgram::Recvmsg6],
            )
        } else {
            (
                [SocketProgram::Connect4, SocketProgram::Connect6],
                [SocketProgram::Getpeername4, SocketProgram::Getpeername6],
            )
        };
        let became = self.run(there, caller, to);
        let told = became.and_then(|peer| self.run(back, caller, peer));
        self.made.borrow_mut().push(Called { caller, datagram, to, became, told });
        became
    }
}

impl Calls for Programs<'_> {
    fn connect(&self, caller: Caller, to: SocketAddr) -> Option<SocketAddr> {
        self.call(false, caller, to)
    }

    fn send(&self, caller: Caller, to: SocketAddr) -> Option<SocketAddr> {
        self.call(true, caller, to)
    }

    fn sender(&self, caller: Caller, from: SocketAddr) -> SocketAddr {
        let recvmsg = [SocketProgram::Recvmsg4, SocketProgram::Recvmsg6];
        let told = if self.on { self.run(recvmsg, caller, from) } else { None };
        told.unwrap_or(from)
    }
}

/// A node while stacks on it act.
struct Around<'a> {
    next: u64,
    programs: Programs<'a>,
}

impl Machine for Around<'_> {
    fn id(&mut self) -> PacketId {
        self.next += 1;
        PacketId(self.next)
    }

    fn calls(&self) -> &dyn Calls {
        &self.programs
    }
}

/// The network namespace of a node's own processes.
pub(crate) const OWN_NETNS: u64 = 1;

impl World {
    /// Lets stacks of a node act; `netns` is the one of those whose stack it is.
    pub(crate) fn with_machine<T>(
        &mut self,
        n: NodeId,
        netns: u64,
        act: impl FnOnce(&mut Kubelet, &mut Node, Duration, &mut dyn Machine) -> T,
    ) -> T {
        self.set_clock(n);
        let (now, next) = (self.now, self.last_packet);
        let SimNode { native, memory, kubelet, stack, .. } = &mut self.nodes[n];
        let programs = Programs { native, on: memory.sockets(), netns, made: RefCell::default() };
        let mut around = Around { next, programs };
        let done = act(kubelet, stack, now, &mut around);
        self.last_packet = around.next;
        for called in around.programs.made.into_inner() {
            self.check_call(n, called);
        }
        done
    }
}
