//! Packets on their way: out of stacks, through the programs, by their verdicts to the next place.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use agent_control::ports::{HOST_LINK, NET_LINK, OVERLAY_LINK};
use dataplane_abi::clock::ClockEntry;
use dataplane_abi::program::Program;
use dataplane_abi::{Addr, Family};
use dataplane_core::Verdict;
use dataplane_native::{Frame as NativeFrame, Tunnel};
use sim_net::{Action, Frame, Machine};

use crate::calls::OWN_NETNS;
use crate::fabric::{Passage, Port};
use crate::kubelet::SandboxId;
use crate::node::{TICKS_PER_S, UNDERLAY, UPTIME};
use crate::queue::{NodeId, Task};
use crate::trace::{Hop, Origin};
use crate::view::View;
use crate::world::World;

/// How long a process takes to notice what came.
const APP: Duration = Duration::from_micros(15);
/// More steps than this on one node mean that a packet goes round and round.
const MAX_STEPS: usize = 64;

/// A packet at a place on a node.
#[derive(Debug)]
enum At {
    /// A program is to run.
    Program { program: Program, ifindex: u32, frame: Frame, tunnel: Option<Tunnel> },
    /// The stack gets it, in from a link.
    Stack { ifindex: u32, frame: Frame, accepted: bool },
    /// It has left by a link.
    Out { ifindex: u32, frame: Frame },
}

impl World {
    /// The stack of a pod is due.
    pub(crate) fn poll_pod(&mut self, n: NodeId, id: SandboxId, at: Duration) {
        let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get_mut(&id) else { return };
        if sandbox.due != Some(at) {
            return;
        }
        sandbox.due = None;
        let netns = OWN_NETNS + 1 + id.0;
        let frames = self.with_machine(n, netns, |kubelet, _, now, machine| {
            let host = kubelet.sandboxes.get_mut(&id)?.host.as_mut()?;
            Some(host.poll(now, machine))
        });
        let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get(&id) else { return };
        let netns = sandbox.netns.clone();
        let link = self.nodes[n].links.iter().find(|(_, link)| link.netns.as_deref() == Some(&*netns));
        let ifindex = link.map(|(ifindex, _)| *ifindex);
        let ends = self.nodes[n].memory.links().values().filter_map(|link| link.pod.as_ref());
        let mtu = ends.filter(|pod| pod.netns == netns).map(|pod| pod.mtu as usize).next().unwrap_or(0);
        for mut frame in frames.unwrap_or_default() {
            let more = self.make_odd(n, &mut frame, mtu);
            self.meet(&frame, Origin::Pod(n, id));
            self.tap(n, id, &frame);
            self.pod_sends(n, ifindex, frame);
            for frame in more {
                self.meet(&frame, Origin::Pod(n, id));
                self.pod_sends(n, ifindex, frame);
            }
        }
        self.plan_pod(n, id);
    }

    fn pod_sends(&mut self, n: NodeId, ifindex: Option<u32>, frame: Frame) {
        match ifindex {
            Some(ifindex) => {
                let program = Program::FromContainer;
                self.travel(n, At::Program { program, ifindex, frame, tunnel: None });
            }
            None => self.hop(frame.id, n, Hop::NoLink),
        }
    }

    /// Sees when the stack of a pod is due by itself.
    pub(crate) fn plan_pod(&mut self, n: NodeId, id: SandboxId) {
        let now = self.now;
        let sandbox = self.nodes[n].kubelet.sandboxes.get_mut(&id);
        let next = sandbox.and_then(|sandbox| sandbox.host.as_mut()?.next_poll(now));
        if let Some(next) = next {
            self.wake_pod(n, id, next.saturating_sub(now));
        }
    }

    /// Makes the stack of a pod run.
    pub(crate) fn wake_pod(&mut self, n: NodeId, id: SandboxId, after: Duration) {
        let at = self.now + after;
        let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get_mut(&id) else { return };
        if sandbox.host.is_none() || sandbox.due.is_some_and(|due| due <= at) {
            return;
        }
        sandbox.due = Some(at);
        self.push(at, Task::Pod(n, id));
    }

    /// The stack of a node is due.
    pub(crate) fn poll_stack(&mut self, n: NodeId, at: Duration) {
        if self.nodes[n].stack_due != Some(at) {
            return;
        }
        self.nodes[n].stack_due = None;
        self.with_stack(n, |stack, now, machine| stack.poll(now, machine));
        self.plan_stack(n);
    }

    /// Sees when the stack of a node is due by itself.
    pub(crate) fn plan_stack(&mut self, n: NodeId) {
        let now = self.now;
        let Some(next) = self.nodes[n].stack.next_poll(now) else { return };
        let at = next.max(now + Duration::from_micros(1));
        let node = &mut self.nodes[n];
        if node.stack_due.is_some_and(|due| due <= at) {
            return;
        }
        node.stack_due = Some(at);
        self.push(at, Task::Stack(n));
    }

    /// Lets the stack of a node act, and follows what comes of it.
    pub(crate) fn with_stack(
        &mut self,
        n: NodeId,
        act: impl FnOnce(&mut sim_net::Node, Duration, &mut dyn Machine) -> Vec<Action>,
    ) {
        let mut work = VecDeque::new();
        self.stack_acts(n, &mut work, act);
        self.work_off(n, work);
    }

    fn stack_acts(
        &mut self,
        n: NodeId,
        work: &mut VecDeque<At>,
        act: impl FnOnce(&mut sim_net::Node, Duration, &mut dyn Machine) -> Vec<Action>,
    ) {
        let actions = self.with_machine(n, OWN_NETNS, |_, stack, now, machine| act(stack, now, machine));
        for action in actions {
            match action {
                Action::Transmit { ifindex, frame } => {
                    if self.trace.packet(frame.id.0).is_none() {
                        self.tap_node(n, &frame);
                    }
                    self.meet(&frame, Origin::Node(n));
                    work.push_back(self.egress(n, ifindex, frame));
                }
                Action::Tunnelled { ifindex, remote, vni, frame } => {
                    self.check_tunnelled(n, remote, vni, &frame);
                    let (node, family) = Addr::from_ip(remote);
                    let tunnel = Some(Tunnel { node: node.0, family: family as u8, key: vni });
                    work.push_back(At::Program { program: Program::FromOverlay, ifindex, frame, tunnel });
                }
                Action::Local { frame } => {
                    self.hop(frame.id, n, Hop::Local);
                    self.tap_node(n, &frame);
                    self.delivered_to_node(n, &frame);
                }
                Action::Dropped { frame, why } => {
                    self.hop(frame.id, n, Hop::StackDrop(why));
                    self.dropped_by_stack(n, &frame, why);
                }
            }
        }
        self.plan_stack(n);
    }

    /// What stands at the egress of a link.
    fn egress(&self, n: NodeId, ifindex: u32, frame: Frame) -> At {
        let link = self.nodes[n].links.get(&ifindex);
        let program = match link {
            Some(link) if link.name == HOST_LINK => Program::FromHost,
            Some(link) if link.netns.is_some() => Program::ToContainer,
            _ => Program::ToNetdev,
        };
        match link {
            Some(link) if link.has(program) => At::Program { program, ifindex, frame, tunnel: None },
            _ => At::Out { ifindex, frame },
        }
    }

    /// A frame comes out of the fabric.
    pub(crate) fn arrives(&mut self, port: Port, frame: Frame) {
        match port {
            Port::Node(n) => {
                self.hop(frame.id, n, Hop::Arrived);
                let program = Program::FromNetdev;
                self.travel(n, At::Program { program, ifindex: UNDERLAY, frame, tunnel: None });
            }
            Port::RouterInside | Port::RouterOutside | Port::Server(_) => self.outside_receives(port, frame),
        }
    }

    fn travel(&mut self, n: NodeId, at: At) {
        self.work_off(n, VecDeque::from([at]));
    }

    fn work_off(&mut self, n: NodeId, mut work: VecDeque<At>) {
        // A large datagram that waited for a neighbour leaves in dozens of fragments at once.
        let (mut steps, mut most) = (0, 0);
        while let Some(at) = work.pop_front() {
            steps += 1;
            most = most.max(work.len() + 1);
            if steps > MAX_STEPS * most {
                self.violate("path", format!("packets go round and round on {}", self.nodes[n].name));
                return;
            }
            match at {
                At::Program { program, ifindex, frame, tunnel } => {
                    self.program(n, program, ifindex, frame, tunnel, &mut work);
                }
                At::Stack { ifindex, frame, accepted } => {
                    self.stack_acts(n, &mut work, |stack, now, machine| {
                        stack.receive(now, ifindex, frame, accepted, machine)
                    });
                }
                At::Out { ifindex, frame } => self.leaves(n, ifindex, frame, &mut work),
            }
        }
    }

    /// A frame is on the far side of a link.
    fn leaves(&mut self, n: NodeId, ifindex: u32, frame: Frame, work: &mut VecDeque<At>) {
        if ifindex == UNDERLAY {
            self.onto_wire(Port::Node(n), &frame);
            return;
        }
        let Some(link) = self.nodes[n].links.get(&ifindex) else {
            self.hop(frame.id, n, Hop::NoLink);
            return;
        };
        if link.name == HOST_LINK {
            let other = self.nodes[n].link(NET_LINK).map(|(ifindex, _)| ifindex);
            if let Some(ifindex) = other {
                work.push_back(At::Stack { ifindex, frame, accepted: false });
            }
            return;
        }
        self.deliver(n, ifindex, frame);
    }

    /// Onto the wire, from any port.
    pub(crate) fn onto_wire(&mut self, from: Port, frame: &Frame) {
        self.trace.capture(self.now, frame);
        let passages = self.fabric.send(self.now, from, frame);
        if let Port::Node(n) = from {
            self.hop(frame.id, n, Hop::Wire);
        }
        for passage in passages {
            match passage {
                Passage::Arrives { at, when, frame, spoiled } => {
                    if spoiled {
                        self.spoil(frame.id);
                    }
                    self.push(when, Task::Arrive(at, frame));
                }
                Passage::Lost { at, why } => {
                    self.stats.lost_on_wire += 1;
                    self.check_lost_on_wire(from, at, frame, why);
                }
            }
        }
    }

    fn program(
        &mut self,
        n: NodeId,
        program: Program,
        ifindex: u32,
        frame: Frame,
        tunnel: Option<Tunnel>,
        work: &mut VecDeque<At>,
    ) {
        let node = &self.nodes[n];
        let Some(link) = node.links.get(&ifindex) else {
            self.hop(frame.id, n, Hop::NoLink);
            return;
        };
        let to_us = frame.bytes.first_chunk::<6>().is_some_and(|to| *to == link.mac || to[0] & 1 != 0);
        let accepted = to_us || link.name == OVERLAY_LINK;
        if !link.has(program) {
            work.push_back(if program.on_egress() {
                At::Out { ifindex, frame }
            } else {
                At::Stack { ifindex, frame, accepted }
            });
            return;
        }
        self.set_clock(n);
        // In a real packet's memory only the first bytes lie in one piece; the rest may be in fragments.
        let split = self.rng.chance(0.1);
        let id = frame.id;
        let mut native = NativeFrame::new(frame.bytes, ifindex);
        native.accepted = accepted;
        native.from_tunnel = tunnel;
        if split {
            native.at_hand = usize::try_from(self.rng.range(14..=80)).unwrap_or(usize::MAX);
        }
        let is_followed = self.tracks(program) || self.masquerades(program);
        let before = is_followed.then(|| native.bytes.clone());
        let node = &mut self.nodes[n];
        node.runs += 1;
        let verdict = node.native.run(program, &mut native);
        self.stats.packets += 1;
        self.after_program(n, program, id, &verdict);
        if let Some(before) = before {
            let frames = (&*before, &*native.bytes);
            let inner = self.check_masquerade(n, program, id.0, frames, &verdict);
            let (before, after) = inner.as_ref().map_or(frames, |(before, after)| (before, after));
            if self.tracks(program) {
                let sent_on = self.check_translation(n, program, id.0, before, after, &verdict);
                let tracked = if sent_on { after } else { before };
                self.check_connection(n, program, id.0, tracked, &verdict);
            }
        }
        if self.policies.staged {
            self.count_staged(n);
        }
        self.read_ring(n, program, id.0, &verdict);
        let to_tunnel = native.to_tunnel;
        let frame = Frame { id, bytes: native.bytes };
        let accepted = native.accepted;
        match verdict {
            Verdict::Drop(reason) => self.dropped(n, program, &frame, reason),
            Verdict::Pass | Verdict::Skip if program.on_egress() => {
                work.push_back(At::Out { ifindex, frame });
            }
            Verdict::Pass | Verdict::Skip => work.push_back(At::Stack { ifindex, frame, accepted }),
            Verdict::Peer { ifindex } => self.deliver(n, ifindex, frame),
            Verdict::Egress { ifindex } => work.push_back(self.egress(n, ifindex, frame)),
            Verdict::Ingress { ifindex } => work.push_back(At::Stack { ifindex, frame, accepted: true }),
            Verdict::Tunnel { .. } => {
                let Some(to) = to_tunnel else {
                    self.violate("tunnel", format!("{} sent a packet into no tunnel", program.name()));
                    return;
                };
                let Some(family) = Family::from_number(to.family) else {
                    self.violate("tunnel", format!("{} named no tunnel endpoint", program.name()));
                    return;
                };
                let remote: IpAddr = Addr(to.node).to_ip(family);
                self.check_tunnel(n, remote, to.key, &frame);
                self.stack_acts(n, work, |stack, now, machine| {
                    stack.encapsulate(now, remote, to.key, frame, machine)
                });
            }
            Verdict::Neighbour { ifindex, family, address } => {
                let Some(family) = Family::from_number(family) else {
                    self.violate("neighbour", format!("{} named no next hop", program.name()));
                    return;
                };
                let next = Addr(address).to_ip(family);
                if let Some(view) = View::of(&frame.bytes) {
                    self.check_hops(&view, &frame);
                }
                self.stack_acts(n, work, |stack, now, machine| {
                    stack.send_to_neighbour(now, ifindex, next, frame, machine)
                });
            }
        }
    }

    /// Into the pod behind a link.
    fn deliver(&mut self, n: NodeId, ifindex: u32, frame: Frame) {
        let link = self.nodes[n].links.get(&ifindex);
        let netns = link.and_then(|link| link.netns.clone());
        let Some(netns) = netns else {
            self.hop(frame.id, n, Hop::NoLink);
            self.check_into_nowhere(n, ifindex, &frame);
            return;
        };
        self.hop(frame.id, n, Hop::Delivered(ifindex));
        let Some((id, _)) = self.nodes[n].kubelet.sandbox_at(&netns) else { return };
        self.tap(n, id, &frame);
        self.delivered_to_pod(n, id, ifindex, &frame);
        if let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get_mut(&id)
            && let Some(host) = &mut sandbox.host
        {
            host.receive(frame);
            self.wake_pod(n, id, APP);
        }
    }

    /// Sets the clocks that the programs of a node read.
    pub(crate) fn set_clock(&mut self, n: NodeId) {
        let up = UPTIME + self.now;
        let ktime_ns = u64::try_from(up.as_nanos()).unwrap_or(u64::MAX);
        let ticks = u64::try_from(up.as_millis()).unwrap_or(u64::MAX) / u64::from(1000 / TICKS_PER_S);
        self.nodes[n].native.set_clock(ClockEntry { ticks, ktime_ns });
    }
}
