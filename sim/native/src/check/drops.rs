//! What is dropped, is dropped for a reason that the state explains.

use std::time::Duration;

use dataplane_abi::DropReason;
use dataplane_abi::program::Program;
use sim_net::{Frame, StackDrop};

use crate::queue::NodeId;
use crate::trace::Passport;
use crate::view::{ICMP, ICMP6, TCP, UDP, View};
use crate::world::World;

/// How long after a change of its ends a packet may still be judged by what was before.
const SETTLING: Duration = Duration::from_millis(5);

impl World {
    /// A program drops a packet.
    pub(crate) fn dropped(&mut self, n: NodeId, program: Program, frame: &Frame, reason: DropReason) {
        self.stats.dropped += 1;
        let Some(passport) = self.trace.packet(frame.id.0).cloned() else { return };
        if passport.spoiled {
            return;
        }
        let view = View::of(&frame.bytes);
        // Errors about no connection are sent to see that they do not arrive.
        let unrelated = reason == DropReason::UnknownCtState;
        if passport.honest
            && passport.own_mac
            && !unrelated
            && view.as_ref().is_some_and(|view| !view.is_to_many() && !view.is_of_link())
        {
            self.check.unicast_drops += 1;
        }
        let explained = match (reason, &view) {
            (DropReason::PolicyDenied | DropReason::PolicyDenyRule, Some(view)) => {
                self.policies.any && self.is_forbidden(n, view, &passport)
            }
            _ => self.explains(n, &passport, view.as_ref(), &frame.bytes, reason),
        };
        if !explained {
            let message = format!(
                "{} on {} drops a packet as `{}`, which the state does not explain",
                program.name(),
                self.nodes[n].name,
                reason.text()
            );
            self.violate_packet("drop", frame.id.0, &message);
        }
    }

    fn explains(
        &self,
        n: NodeId,
        passport: &Passport,
        view: Option<&View>,
        frame: &[u8],
        reason: DropReason,
    ) -> bool {
        let Some(view) = view else {
            return match frame.get(12..14) {
                Some([0x08, 0x06]) => false,
                Some([0x08, 0x00] | [0x86, 0xdd]) => reason == DropReason::InvalidPacket,
                _ => reason == DropReason::UnsupportedL3,
            };
        };
        match reason {
            DropReason::InvalidSourceIp | DropReason::InvalidSourceMac => {
                !passport.honest || !passport.own_mac
            }
            DropReason::ForbiddenIcmp6 => {
                view.proto == ICMP6
                    && view.ports.is_some_and(|(kind, _)| matches!(kind, 130..=133 | 137 | 143))
            }
            DropReason::UnknownTarget => {
                view.is_to_many()
                    || view.is_of_link()
                    || !self.is_settled_on(n, view)
                    || self.is_lost(view.dst)
            }
            DropReason::EncapProhibited => view.is_for_tunnel() && self.owner(view.dst).is_none(),
            DropReason::NoServiceBackend => self.may_be_without_backends(n, view),
            DropReason::NatNoMapping => self.speaks_with_backends(n, view) || self.has_no_port(n, view),
            DropReason::NatUnsupportedProtocol => {
                self.cluster.masquerade && !matches!(view.proto, ICMP | ICMP6 | TCP | UDP)
            }
            DropReason::CtCreateFailed => self.check.was_full.contains(&n),
            DropReason::UnknownCtState => view.is_icmp_error() && !self.quotes_known(n, view),
            DropReason::FragmentNotFound => {
                view.later_fragment && (self.check.wires_were_disturbed || self.check.was_full.contains(&n))
            }
            _ => false,
        }
    }

    /// Whether a packet to the world needs no port, or there may be none: it is an answer, or an error about nothing that left.
    fn has_no_port(&self, n: NodeId, view: &View) -> bool {
        let is_answer = view.is_icmp_error() || matches!(view.echo, Some((false, _)));
        self.cluster.masquerade
            && (is_answer || self.check.was_full.contains(&n) || self.may_lack_ports(n, view))
    }

    /// Whether the destination has been a running pod of this node, or the node itself, for some time.
    fn is_settled_on(&self, n: NodeId, view: &View) -> bool {
        let pod = self.owner(view.dst).is_some_and(|(m, _, since)| m == n && self.now > since + SETTLING);
        pod || self.node_at(view.dst) == Some(n)
    }

    /// Whether the tables of the node have the connection that an ICMP error is about, and it is not over.
    pub(super) fn quotes_known(&self, n: NodeId, view: &View) -> bool {
        let Some(quoted) = &view.quotes else { return false };
        !quoted.later_fragment && self.has_live_connection(n, quoted)
    }

    /// The stack of a node drops a packet.
    pub(crate) fn dropped_by_stack(&mut self, n: NodeId, frame: &Frame, why: StackDrop) {
        self.stats.dropped_by_stacks += 1;
        let Some(passport) = self.trace.packet(frame.id.0).cloned() else { return };
        let Some(view) = View::of(&frame.bytes) else { return };
        if passport.spoiled || view.is_to_many() || view.is_of_link() || self.check.wires_were_disturbed {
            return;
        }
        let pod = self.owner(view.dst);
        let reachable = match pod {
            Some((_, _, since)) => self.now > since + SETTLING && self.is_known_everywhere(),
            None => false,
        };
        let excused = matches!(why, StackDrop::HopLimit | StackDrop::TooBig);
        let sender_lives = self.owner(view.src).is_some() || self.node_at(view.src).is_some();
        if reachable && sender_lives && !excused {
            let message =
                format!("the stack of {} drops a packet for a running pod ({why:?})", self.nodes[n].name);
            self.violate_packet("drop", frame.id.0, &message);
        }
    }

    /// Whether every agent lives and knows all nodes.
    pub(crate) fn is_known_everywhere(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.agent.alive && node.agent.watch.following && node.agent.watch.position == self.node_log.len()
        })
    }
}
