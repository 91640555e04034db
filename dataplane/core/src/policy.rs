//! Policy: whether a connection may be, by the policies of those of its ends that are pods of this node, or the node itself.
//!
//! Called by [`crate::learn`] alone: for first packets, and for a known connection when it must be judged again.
//! What is judged is the connection, in the direction in which it was opened, whichever way the packet goes.
//! [`dataplane_abi::policy`] says what the rows mean; there is no precedence here.
//!
//! Stack is what is scarce here: the look-ups and the event are functions of their own that call nothing, and what they are
//! asked fits registers.

use dataplane_abi::config::ConfigFlags;
use dataplane_abi::endpoints::EndpointFlags;
use dataplane_abi::events::EventHeader;
use dataplane_abi::policy::{Direction, L4Key, PolicyKey, PolicyMatch, PolicyVerdict};
use dataplane_abi::{Be16, DropReason, Identity};

use crate::conntrack::End;
use crate::flight::Route;
use crate::host::{Host, Maps};
use crate::report;
use crate::verdict::Step;

/// What the row of an endpoint says of its policy.
#[derive(Clone, Copy)]
pub struct Guard {
    /// Number of the policy; zero: none.
    pub policy: u32,
    /// Where it is in force.
    pub flags: EndpointFlags,
}

impl Guard {
    /// Of whom there is no policy.
    pub const NONE: Self = Self { policy: 0, flags: EndpointFlags(0) };

    /// Whether it has a say about connections of which all of these flags are true.
    #[inline(always)]
    const fn enforces(self, flags: EndpointFlags) -> bool {
        self.policy != 0 && self.flags.contains(flags)
    }

    /// As it is asked about connections that its endpoint opens. Without a branch: the kernel's verifier would follow both ways
    /// through all that comes after.
    #[inline(always)]
    #[must_use]
    pub const fn of_initiator(self) -> Self {
        let audits = self.flags.0 & EndpointFlags::AUDIT_EGRESS.0;
        Self { policy: self.policy, flags: EndpointFlags(self.flags.0 | (audits >> 1)) }
    }

    /// Whether it drops connections in that direction that nothing allows.
    #[inline(always)]
    pub const fn closes(self, direction: Direction) -> bool {
        let (guard, enforced) = match direction {
            Direction::Ingress => (self, EndpointFlags::ENFORCE_INGRESS),
            Direction::Egress => (self.of_initiator(), EndpointFlags::ENFORCE_EGRESS),
        };
        guard.enforces(enforced) && !guard.flags.contains(EndpointFlags::AUDIT)
    }

    /// Whether it is that of the node itself.
    #[inline(always)]
    pub const fn is_of_node(self) -> bool {
        self.flags.contains(EndpointFlags::HOST)
    }
}

/// What is opened.
#[derive(Clone, Copy)]
pub struct Service {
    /// Upper-layer protocol.
    pub proto: u8,
    /// Whether this is its first packet.
    pub is_new: bool,
    /// Port of the responder, or the type of the ICMP message that opened it.
    pub port: Be16,
}

/// One end of a connection.
#[derive(Clone, Copy)]
pub struct Side {
    /// Its identity.
    pub identity: Identity,
    /// Its endpoint, if it is a pod of this node; else zero.
    pub endpoint: u16,
    /// Its policy.
    pub guard: Guard,
}

impl Side {
    /// An end with its policy.
    #[inline(always)]
    pub const fn new(end: &End, guard: Guard) -> Self {
        Self { identity: end.identity, endpoint: end.way.endpoint, guard }
    }
}

/// What a policy says of a connection.
#[derive(Clone, Copy)]
pub struct Answer {
    /// What the tables say.
    pub verdict: PolicyVerdict,
    /// [`PolicyMatch`] as number.
    pub matched: u8,
    /// Number of the drop reason; zero: it may pass.
    pub reason: u8,
}

impl Answer {
    /// Nothing said yet.
    pub const NONE: Self = Self { verdict: PolicyVerdict::NONE, matched: 0, reason: 0 };
}

/// Judges a connection: by the initiator's policy, then by the responder's. What is dropped is noted in `route`.
#[inline(always)]
pub fn judge<H: Host, const PROGRAM: u8>(
    host: H,
    route: &mut Route,
    answer: &mut Answer,
    initiator: Side,
    responder: Side,
    service: Service,
) -> Step {
    let (from, to) = (initiator.guard, responder.guard);
    // A pod may speak with itself.
    if initiator.endpoint == responder.endpoint && initiator.endpoint != 0 {
        return Step::Next;
    }
    if from.enforces(EndpointFlags::ENFORCE_EGRESS) {
        let own = Side { guard: from.of_initiator(), ..initiator };
        let egress = Question { own, peer: responder.identity, service };
        match side::<H, PROGRAM>(host, route, answer, &egress, Direction::Egress) {
            Step::Next => {}
            end => return end,
        }
    }
    // The node may speak with its pods, or nobody could ask them whether they are well.
    if to.enforces(EndpointFlags::ENFORCE_INGRESS) && !from.is_of_node() {
        let ingress = Question { own: responder, peer: initiator.identity, service };
        return side::<H, PROGRAM>(host, route, answer, &ingress, Direction::Ingress);
    }
    Step::Next
}

/// What one end's policy is asked.
struct Question {
    own: Side,
    peer: Identity,
    service: Service,
}

/// Judges a connection by the policy of one end.
#[inline(always)]
fn side<H: Host, const PROGRAM: u8>(
    host: H,
    route: &mut Route,
    answer: &mut Answer,
    question: &Question,
    direction: Direction,
) -> Step {
    let Question { own, peer, service } = question;
    ask(host, own.guard.policy, *peer, Asked { direction, proto: service.proto, port: service.port }, answer);
    let reason = answer.reason;
    let audited = reason != 0 && own.guard.flags.contains(EndpointFlags::AUDIT);
    let endpoint = own.endpoint;
    if service.is_new && host.config().is_some_and(|config| config.flags.contains(ConfigFlags::POLICY_EVENTS))
    {
        let whose = report::Whose { endpoint, direction, audited };
        report::judged::<H, PROGRAM>(host, route, answer, whose);
    }
    if reason == 0 || audited {
        return Step::Next;
    }
    route.endpoint = endpoint;
    route.arg = answer.verdict.cookie;
    if direction == Direction::Ingress {
        route.flags |= EventHeader::INGRESS;
    }
    if reason == DropReason::PolicyDenyRule.number() {
        Step::Drop(DropReason::PolicyDenyRule)
    } else {
        Step::Drop(DropReason::PolicyDenied)
    }
}

/// What is asked beside policy and peer.
#[derive(Clone, Copy)]
#[repr(C)]
struct Asked {
    direction: Direction,
    proto: u8,
    port: Be16,
}

/// Asks the tables. A function of its own: both ends need it.
#[inline(never)]
fn ask<H: Maps>(host: H, policy: u32, peer: Identity, asked: Asked, answer: &mut Answer) {
    *answer = Answer::NONE;
    let mut key = PolicyKey::new(policy, asked.direction, peer);
    let mut matched = PolicyMatch::L3Only;
    let mut entry = host.policy(&key);
    if entry.is_none() {
        matched = PolicyMatch::All;
        key.identity = PolicyKey::EVERYBODY;
        entry = host.policy(&key);
    }
    let mut verdict = entry.map(|entry| &entry.verdict);
    if let Some(entry) = entry
        && entry.l4 != 0
    {
        matched = if matched == PolicyMatch::All { PolicyMatch::L4Only } else { PolicyMatch::L3L4 };
        verdict = host.policy_l4(&L4Key::exact(entry.l4, asked.proto, asked.port));
    }
    match verdict {
        Some(verdict) => {
            answer.verdict = *verdict;
            answer.matched = matched as u8;
            answer.reason = verdict.denies().map_or(0, DropReason::number);
        }
        None => answer.reason = DropReason::PolicyDenied.number(),
    }
}

const _: () = assert!(EndpointFlags::AUDIT_EGRESS.0 >> 1 == EndpointFlags::AUDIT.0);
