//! A node: router, neighbours, tunnel device, local sockets.

use std::net::IpAddr;
use std::time::Duration;

use crate::stack::{Stack, Turn};
use crate::{Action, ClientId, ClientReport, ClientSpec, Frame, Link, Machine, Route, Server};

/// The network stack of a node.
///
/// Whoever drives it gives it what comes in and carries out the [`Action`]s that come back, in their order. Every frame that is
/// given to it comes back once: passed on, or ended. One that waits for a neighbour comes back from a later call.
pub struct Node(Stack);

impl Node {
    /// A node without links. The seed decides ports, sequence numbers and identifications.
    pub fn new(seed: u64) -> Self {
        Self(Stack::new(seed, true))
    }

    /// Adds a link, or replaces the one with its number.
    pub fn set_link(&mut self, link: Link) {
        self.0.set_link(link);
    }

    /// Removes a link. What waits for a neighbour on it is dropped with the next call.
    pub fn remove_link(&mut self, ifindex: u32) {
        self.0.remove_link(ifindex);
    }

    /// Sets the routes besides the connected ones, which follow from the addresses of the links. Among equals the first counts.
    pub fn set_routes(&mut self, routes: Vec<Route>) {
        self.0.set_routes(routes);
    }

    /// A frame that came in on a link and that the ingress program let pass to the stack. `accepted`: a program declared it to be for
    /// this node whatever its MAC says.
    pub fn receive(
        &mut self,
        now: Duration,
        ifindex: u32,
        frame: Frame,
        accepted: bool,
        machine: &mut dyn Machine,
    ) -> Vec<Action> {
        self.turn(now, machine, |stack, turn| stack.receive(turn, ifindex, frame, accepted))
    }

    /// A frame that a program redirected to a link's egress towards a next hop (`bpf_redirect_neigh`): the stack only finds the link
    /// layer addresses. Neither hop limit nor MTU is looked at.
    pub fn send_to_neighbour(
        &mut self,
        now: Duration,
        ifindex: u32,
        next: IpAddr,
        frame: Frame,
        machine: &mut dyn Machine,
    ) -> Vec<Action> {
        self.turn(now, machine, |stack, turn| stack.reach(turn, ifindex, next, frame))
    }

    /// What the VXLAN device does with a frame and its tunnel key: outer headers, then routing.
    ///
    /// As Linux by default: UDP checksum zero in both families, hop limit 64, source port by the inner flow. Over IPv4 it may be
    /// fragmented (DF clear); over IPv6 what is too long is dropped.
    pub fn encapsulate(
        &mut self,
        now: Duration,
        remote: IpAddr,
        vni: u32,
        frame: Frame,
        machine: &mut dyn Machine,
    ) -> Vec<Action> {
        self.turn(now, machine, |stack, turn| stack.encapsulate(turn, remote, vni, frame))
    }

    /// Runs local sockets, and the retries and timeouts of neighbours.
    pub fn poll(&mut self, now: Duration, machine: &mut dyn Machine) -> Vec<Action> {
        self.turn(now, machine, |_, _| ())
    }

    /// When [`Node::poll`] is due if nothing comes in.
    pub fn next_poll(&mut self, now: Duration) -> Option<Duration> {
        self.0.next(now)
    }

    /// Adds a server on all addresses of the node.
    pub fn serve(&mut self, server: Server) {
        self.0.serve(server);
    }

    /// Ends the server at a TCP port; its connections go on.
    pub fn close(&mut self, port: u16) {
        self.0.close(port);
    }

    /// Starts a client; it acts with the next [`Node::poll`], which is due at once.
    pub fn start(&mut self, now: Duration, client: ClientSpec) -> ClientId {
        self.0.start(now, client)
    }

    /// What came of a client so far.
    pub fn client(&self, id: ClientId) -> Option<&ClientReport> {
        self.0.client(id)
    }

    /// Ends a client; its report stays. What it still has to say goes out with the next [`Node::poll`], which is due at once.
    pub fn stop(&mut self, id: ClientId) {
        self.0.stop(id);
    }

    fn turn(
        &mut self,
        now: Duration,
        machine: &mut dyn Machine,
        act: impl FnOnce(&mut Stack, &mut Turn<'_>),
    ) -> Vec<Action> {
        let mut turn = Turn::new(now, machine);
        act(&mut self.0, &mut turn);
        self.0.run(&mut turn);
        turn.actions
    }
}
