//! Policy: whether a connection may be, by the policies of those of its ends that are pods of this node.
//!
//! Called by [`crate::learn`] alone: for first packets, and for a known connection when it must be judged again.
//! What is judged is the connection, in the direction in which it was opened, whichever way the packet goes.
//! [`dataplane_abi::policy`] says what the rows mean; there is no precedence here.

use dataplane_abi::config::ConfigFlags;
use dataplane_abi::endpoints::EndpointFlags;
use dataplane_abi::events::EventHeader;
use dataplane_abi::policy::{Direction, L4Key, PolicyKey, PolicyMatch, PolicyVerdict};
use dataplane_abi::{Be16, DropReason, Identity};

use crate::flight::Route;
use crate::host::{Host, Maps};
use crate::report::{self, Judgement};
use crate::verdict::Step;

/// What the row of an endpoint says of its policy.
#[derive(Clone, Copy)]
pub struct Guard {
    /// Number of the policy; zero: none.
    pub policy: u32,
    /// Where it is in force.
    pub flags: EndpointFlags,
    /// Id of the endpoint.
    pub endpoint: u16,
}

impl Guard {
    /// Of whom there is no policy.
    pub const NONE: Self = Self { policy: 0, flags: EndpointFlags(0), endpoint: 0 };
}

/// One end of a connection.
#[derive(Clone, Copy)]
pub struct Side {
    /// Its identity.
    pub identity: Identity,
    /// Its policy.
    pub guard: Guard,
}

/// A connection that is to be judged.
#[derive(Clone, Copy)]
pub struct Case {
    /// Who opened it.
    pub initiator: Side,
    /// Who was called.
    pub responder: Side,
    /// Port of the responder, or the type of the ICMP message that opened it.
    pub port: Be16,
    /// Upper-layer protocol.
    pub proto: u8,
    /// Whether this is its first packet.
    pub is_new: bool,
}

/// Judges a connection: by the initiator's policy, then by the responder's.
#[inline(never)]
pub fn judge<H: Host, const PROGRAM: u8>(host: H, case: &Case, route: &mut Route) -> Step {
    let (from, to) = (&case.initiator.guard, &case.responder.guard);
    // A pod may speak with itself.
    if from.endpoint == to.endpoint && from.endpoint != 0 {
        return Step::Next;
    }
    if from.policy != 0 && from.flags.contains(EndpointFlags::ENFORCE_EGRESS) {
        match side::<H, PROGRAM>(host, case, Direction::Egress, route) {
            Step::Next => {}
            end => return end,
        }
    }
    // The node may speak with its pods, or nobody could ask them whether they are well.
    if to.policy == 0
        || !to.flags.contains(EndpointFlags::ENFORCE_INGRESS)
        || from.flags.contains(EndpointFlags::HOST)
    {
        return Step::Next;
    }
    side::<H, PROGRAM>(host, case, Direction::Ingress, route)
}

/// Judges a connection by the policy of one end. A function of its own: both ends need it.
#[inline(never)]
fn side<H: Host, const PROGRAM: u8>(host: H, case: &Case, direction: Direction, route: &mut Route) -> Step {
    let is_ingress = direction == Direction::Ingress;
    let (own, peer) =
        if is_ingress { (&case.responder, &case.initiator) } else { (&case.initiator, &case.responder) };
    let guard = own.guard;
    let key = PolicyKey::new(guard.policy, direction, peer.identity);
    let (verdict, matched) = look_up(host, key, case.proto, case.port);
    let denied = verdict.denies();
    let audited = denied.is_some() && guard.flags.contains(EndpointFlags::AUDIT);
    if case.is_new && host.config().is_some_and(|config| config.flags.contains(ConfigFlags::POLICY_EVENTS)) {
        let judgement = Judgement {
            verdict,
            endpoint: guard.endpoint,
            direction,
            matched,
            reason: denied.map_or(0, DropReason::number),
            flags: if audited { EventHeader::AUDITED } else { 0 },
        };
        report::judged::<H, PROGRAM>(host, route, &judgement);
    }
    match denied {
        Some(reason) if !audited => {
            route.endpoint = guard.endpoint;
            route.arg = verdict.cookie;
            route.flags |= if is_ingress { EventHeader::INGRESS } else { 0 };
            Step::Drop(reason)
        }
        _ => Step::Next,
    }
}

/// What the tables say of a peer, protocol and port, and which kind of row said it.
#[inline(always)]
pub fn look_up<H: Maps>(host: H, key: PolicyKey, proto: u8, port: Be16) -> (PolicyVerdict, PolicyMatch) {
    let mut key = key;
    let mut is_everybodys = false;
    let mut entry = host.policy(&key);
    if entry.is_none() {
        is_everybodys = true;
        key.identity = PolicyKey::EVERYBODY;
        entry = host.policy(&key);
    }
    let Some(entry) = entry else { return (PolicyVerdict::NONE, PolicyMatch::None) };
    if entry.l4 == 0 {
        return (entry.verdict, if is_everybodys { PolicyMatch::All } else { PolicyMatch::L3Only });
    }
    match host.policy_l4(&L4Key::exact(entry.l4, proto, port)) {
        Some(verdict) => (*verdict, if is_everybodys { PolicyMatch::L4Only } else { PolicyMatch::L3L4 }),
        None => (PolicyVerdict::NONE, PolicyMatch::None),
    }
}
