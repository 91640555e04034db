//! A pod, or any other end host with one Ethernet device.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::stack::{Stack, Turn};
use crate::{Action, ClientId, ClientReport, ClientSpec, Frame, Link, LinkKind, Mac, Machine, Route, Server};

/// The number of the one device.
const DEVICE: u32 = 1;

/// An end host. It does not forward.
///
/// While nothing is going on it costs a few hundred bytes and is never due.
pub struct Host {
    stack: Stack,
    inbound: VecDeque<Frame>,
}

/// What a host is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// The address of its device.
    pub mac: Mac,
    /// Most bytes of an IP packet.
    pub mtu: u32,
    /// Addresses; the link-local one follows from the MAC.
    pub addresses: Vec<IpNet>,
    /// Routes with their gateways, which need not be on the link by any prefix.
    pub routes: Vec<(IpNet, Option<IpAddr>)>,
    /// Decides ports, sequence numbers and identifications.
    pub seed: u64,
}

impl Host {
    /// From now on its clients take their source ports from so few, so that ports are used again soon.
    pub fn restrict_ports(&mut self, count: u16) {
        self.stack.restrict_ports(count);
    }

    /// A host that runs nothing yet.
    pub fn new(config: &HostConfig) -> Self {
        let mut stack = Stack::new(config.seed, false);
        stack.set_link(Link {
            ifindex: DEVICE,
            mac: config.mac,
            mtu: config.mtu,
            kind: LinkKind::Underlay,
            addresses: config.addresses.clone(),
        });
        let route = |(dst, gateway): &(IpNet, Option<IpAddr>)| Route {
            dst: *dst,
            gateway: *gateway,
            ifindex: DEVICE,
            mtu: None,
            source: None,
        };
        stack.set_routes(config.routes.iter().map(route).collect());
        Self { stack, inbound: VecDeque::new() }
    }

    /// Queues a frame from the wire; [`Host::poll`] is due at once.
    pub fn receive(&mut self, frame: Frame) {
        self.inbound.push_back(frame);
    }

    /// Runs stack and applications. Gives the frames to put on the wire, in order.
    pub fn poll(&mut self, now: Duration, machine: &mut dyn Machine) -> Vec<Frame> {
        let transmitted = |action| match action {
            Action::Transmit { frame, .. } => Some(frame),
            _ => None,
        };
        self.actions(now, machine).into_iter().filter_map(transmitted).collect()
    }

    /// As [`Host::poll`], but also says how what came in ended.
    pub fn actions(&mut self, now: Duration, machine: &mut dyn Machine) -> Vec<Action> {
        let mut turn = Turn::new(now, machine);
        while let Some(frame) = self.inbound.pop_front() {
            self.stack.receive(&mut turn, DEVICE, frame, false);
            self.stack.run(&mut turn);
        }
        self.stack.run(&mut turn);
        self.inbound.shrink_to_fit();
        turn.actions
    }

    /// When [`Host::poll`] is due if nothing comes in.
    pub fn next_poll(&mut self, now: Duration) -> Option<Duration> {
        if self.inbound.is_empty() { self.stack.next(now) } else { Some(now) }
    }

    /// Adds a server on all addresses.
    pub fn serve(&mut self, server: Server) {
        self.stack.serve(server);
    }

    /// Starts a client; it acts with the next [`Host::poll`], which is due at once.
    pub fn start(&mut self, now: Duration, client: ClientSpec) -> ClientId {
        self.stack.start(now, client)
    }

    /// What came of a client so far.
    pub fn client(&self, id: ClientId) -> Option<&ClientReport> {
        self.stack.client(id)
    }

    /// Ends a client; its report stays. What it still has to say goes out with the next [`Host::poll`], which is due at once.
    pub fn stop(&mut self, id: ClientId) {
        self.stack.stop(id);
    }
}
