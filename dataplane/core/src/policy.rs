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
use dataplane_abi::policy::{
    BlockKey, Direction, L4Key, PolicyKey, PolicyMatch, PolicyVerdict, Staged, StagedKey,
};
use dataplane_abi::{Be16, DropReason, Identity};

use crate::conntrack::End;
use crate::flight::{Flight, Route};
use crate::host::{Host, Maps};
use crate::ip::Ip;
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
    /// Whether the packet goes from the responder to the initiator.
    pub is_reply: bool,
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
    /// Blocks of addresses that decide about pods; zero: none.
    pub blocks: u32,
}

impl Answer {
    /// Nothing said yet.
    pub const NONE: Self = Self { verdict: PolicyVerdict::NONE, matched: 0, reason: 0, blocks: 0 };
}

/// What staged policies say of a connection.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Noted {
    /// By the initiator's policy.
    pub egress: StagedKey,
    /// By the responder's.
    pub ingress: StagedKey,
    /// Whether it is a new connection.
    pub is_new: bool,
}

impl Noted {
    /// Nothing.
    pub const NONE: Self =
        Self { egress: StagedKey::new(0, 0), ingress: StagedKey::new(0, 0), is_new: false };

    /// Counts what they would have decided otherwise: that a new connection passes, or that a packet does not.
    ///
    /// A function of its own, and called at one place where all is decided, for the kernel's verifier follows each call.
    #[inline(never)]
    pub fn count<H: Maps>(&self, host: H, passes: bool, is_denied: bool) {
        let would = if passes && self.is_new {
            Staged::WouldDeny
        } else if is_denied {
            Staged::WouldAllow
        } else {
            return;
        };
        // A cookie of zero would be nobody's count.
        if self.egress.cookie != 0 && self.egress.staged == would as u8 {
            host.count_staged(&self.egress);
        }
        if self.ingress.cookie != 0 && self.ingress.staged == would as u8 {
            host.count_staged(&self.ingress);
        }
    }
}

/// Judges a connection: by the initiator's policy, then by the responder's. What is dropped is noted in `route`.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "a structure of them would lie on the stack, which has no room"
)]
pub fn judge<H: Host, F: Ip, const PROGRAM: u8>(
    host: H,
    flight: &Flight<F>,
    route: &mut Route,
    answer: &mut Answer,
    staged: &mut Noted,
    initiator: Side,
    responder: Side,
    service: Service,
) -> Step {
    let (from, to) = (initiator.guard, responder.guard);
    staged.is_new = service.is_new;
    // A pod may speak with itself.
    if initiator.endpoint == responder.endpoint && initiator.endpoint != 0 {
        return Step::Next;
    }
    if from.enforces(EndpointFlags::ENFORCE_EGRESS) {
        let own = Side { guard: from.of_initiator(), ..initiator };
        let egress = Question { own, peer: responder.identity, service };
        match side::<H, F, PROGRAM>(host, flight, route, answer, staged, &egress, Direction::Egress) {
            Step::Next => {}
            end => return end,
        }
    }
    // The node may speak with its pods, or nobody could ask them whether they are well.
    if to.enforces(EndpointFlags::ENFORCE_INGRESS) && !from.is_of_node() {
        let ingress = Question { own: responder, peer: initiator.identity, service };
        return side::<H, F, PROGRAM>(host, flight, route, answer, staged, &ingress, Direction::Ingress);
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
fn side<H: Host, F: Ip, const PROGRAM: u8>(
    host: H,
    flight: &Flight<F>,
    route: &mut Route,
    answer: &mut Answer,
    staged: &mut Noted,
    question: &Question,
    direction: Direction,
) -> Step {
    let Question { own, peer, service } = question;
    let asked = Asked { direction, proto: service.proto, port: service.port };
    ask(host, own.guard.policy, *peer, asked, answer);
    if answer.blocks != 0 && peer.is_pod() {
        let peer_receives = (direction == Direction::Egress) != service.is_reply;
        ask_block(host, flight, peer_receives, asked, answer);
    }
    let would = &answer.verdict;
    let noted = StagedKey::new(would.staged_cookie, would.staged);
    match direction {
        Direction::Egress => staged.egress = noted,
        Direction::Ingress => staged.ingress = noted,
    }
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
        answer.blocks = entry.blocks();
        verdict = host.policy_l4(&L4Key::exact(entry.l4, asked.proto, asked.port));
    }
    settle(answer, verdict, matched);
}

/// Asks the block in which a pod is.
#[inline(never)]
fn ask_block<H: Maps, F: Ip>(
    host: H,
    flight: &Flight<F>,
    peer_receives: bool,
    asked: Asked,
    answer: &mut Answer,
) {
    let addr = if peer_receives { flight.dst() } else { flight.src() };
    let entry = host.policy_block(&BlockKey::host(answer.blocks, F::to_abi(addr), F::FAMILY));
    match entry.map_or(0, |entry| entry.l4) {
        0 => settle(answer, entry.map(|entry| &entry.verdict), PolicyMatch::L3Only),
        set => {
            let verdict = host.policy_l4(&L4Key::exact(set, asked.proto, asked.port));
            settle(answer, verdict, PolicyMatch::L3L4);
        }
    }
}

#[inline(always)]
fn settle(answer: &mut Answer, verdict: Option<&PolicyVerdict>, matched: PolicyMatch) {
    match verdict {
        Some(verdict) => {
            answer.verdict = *verdict;
            answer.matched = matched as u8;
            answer.reason = verdict.denies().map_or(0, DropReason::number);
        }
        None => nothing_allows(answer),
    }
}

#[inline(always)]
const fn nothing_allows(answer: &mut Answer) {
    answer.verdict = PolicyVerdict::NONE;
    answer.matched = PolicyMatch::None as u8;
    answer.reason = DropReason::PolicyDenied.number();
}

const _: () = assert!(EndpointFlags::AUDIT_EGRESS.0 >> 1 == EndpointFlags::AUDIT.0);
