//! Why something passes or does not: from objects alone, so also where no agent runs.
//!
//! Only policies speak here. What passes whatever they say (an endpoint to itself, a node to its own pods, replies) is the
//! dataplane's matter.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::decide::{Candidate, Isolation, judge};
use crate::label::LabelSet;
use crate::ports::NamedPort;
use crate::rows::{Direction, Outcome, Staged};
use crate::rule::{Origin, Spec};
use crate::store::Store;

/// An end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Party {
    /// Labels of its identity; for addresses outside of the cluster those of the world.
    pub labels: LabelSet,
    /// Its address, if it is neither a pod nor a node.
    pub address: Option<IpNet>,
    /// The address that the connection has at this end, if it is a pod: blocks of addresses select by it ([`Spec::blocks`]).
    pub pod_address: Option<IpAddr>,
    /// Ports that it has given names.
    pub named_ports: Vec<NamedPort>,
    /// It is a node, as far as rules select it.
    pub host: bool,
    /// It is isolated in both directions, whatever policies say.
    pub closed: bool,
}

/// What the policies of one end say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Whether anything is judged.
    pub judged: bool,
    /// What was decided.
    pub outcome: Outcome,
    /// Entries that decided it; if nothing allows it, the rules that isolate.
    pub decided_by: Vec<Origin>,
    /// Rules that isolate this end in this direction, whether that mattered or not.
    pub isolated_by: Vec<Origin>,
    /// What staged policies would change.
    pub staged: Staged,
    /// Entries that would decide then; empty if they change nothing.
    pub staged_by: Vec<Origin>,
}

/// What the policies of both ends say. An end outside of the cluster has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Those of the end that connects.
    pub egress: Option<Side>,
    /// Those of the end that is connected to.
    pub ingress: Option<Side>,
}

impl Explanation {
    /// Whether both let it pass.
    pub fn passes(&self) -> bool {
        self.egress.iter().chain(&self.ingress).all(|side| side.outcome.passes())
    }
}

/// Explains a connection to a port (or, for ICMP, a type) of `to`.
pub fn explain(store: &Store, from: &Party, to: &Party, proto: u8, port: u16) -> Explanation {
    let side = |own: &Party, direction, peer: &Party| {
        own.address.is_none().then(|| explain_side(store, own, direction, peer, proto, port))
    };
    Explanation { egress: side(from, Direction::Egress, to), ingress: side(to, Direction::Ingress, from) }
}

/// What the policies of one end say of the other end.
pub fn explain_side(
    store: &Store,
    own: &Party,
    direction: Direction,
    peer: &Party,
    proto: u8,
    port: u16,
) -> Side {
    let mut specs: Vec<&Spec> = store
        .specs()
        .map(|spec| &**spec)
        .filter(|spec| spec.host == own.host && spec.subject.matches(&own.labels, None))
        .collect();
    specs.sort_by(|a, b| a.order().cmp(&b.order()));
    let isolating = |staged| -> Vec<Origin> {
        let mut origins: Vec<Origin> = specs
            .iter()
            .filter(|spec| spec.staged == staged && spec.isolates(direction))
            .map(|spec| spec.origin(None))
            .collect();
        origins.sort();
        origins
    };
    let isolation = Isolation { closed: own.closed, by: isolating(false), staged_by: isolating(true) };
    let named = if direction == Direction::Ingress { &own.named_ports } else { &peer.named_ports };
    let pod_address = peer.pod_address.map(IpNet::from);
    let mut any_rule = false;
    let mut candidates = Vec::new();
    for spec in &specs {
        let mut rules: Vec<_> = spec.rules(direction).collect();
        rules.sort_by_key(|rule| (rule.section, rule.index));
        any_rule |= !rules.is_empty();
        let about = rules.into_iter().filter(|rule| {
            rule.peers.everybody
                || store
                    .selectors(&rule.peers)
                    .iter()
                    .any(|selector| selector.matches(&peer.labels, peer.address.as_ref()))
                || pod_address.is_some_and(|address| spec.blocks(rule).any(|block| block.has(&address)))
        });
        candidates.extend(about.map(|rule| Candidate { spec, rule, ports: rule.ports.resolve(named) }));
    }
    let now = judge(&candidates, &isolation, Some((proto, port)), false);
    let then = judge(&candidates, &isolation, Some((proto, port)), true);
    let staged = match (now.outcome.passes(), then.outcome.passes()) {
        (true, false) => Staged::WouldDeny,
        (false, true) => Staged::WouldAllow,
        _ => Staged::Nothing,
    };
    Side {
        judged: any_rule || isolation != Isolation::default(),
        outcome: now.outcome,
        decided_by: now.origins,
        isolated_by: isolation.by,
        staged,
        staged_by: if staged == Staged::Nothing { Vec::new() } else { then.origins },
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (direction, side) in [(Direction::Egress, &self.egress), (Direction::Ingress, &self.ingress)] {
            match side {
                Some(side) => writeln!(f, "{}: {side}", direction.name())?,
                None => {
                    writeln!(f, "{}: no policy, the address is outside of the cluster", direction.name())?;
                }
            }
        }
        write!(f, "{}", if self.passes() { "passes" } else { "does not pass" })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.judged, self.outcome) {
            (false, _) => "no policy",
            (true, Outcome::Allow) => "allowed",
            (true, Outcome::Deny) => "denied",
            (true, Outcome::NoRule) => "nothing allows it",
            (true, Outcome::Redirect) => "needs a proxy, which is not there",
        };
        write!(f, "{word}")?;
        let before = if self.outcome == Outcome::NoRule { ": " } else { " by " };
        list(f, before, &self.decided_by)?;
        match self.staged {
            Staged::Nothing => return Ok(()),
            Staged::WouldAllow => write!(f, "; with staged policies allowed")?,
            Staged::WouldDeny => write!(f, "; with staged policies it would not pass")?,
        }
        list(f, " by ", &self.staged_by)
    }
}

fn list(f: &mut fmt::Formatter<'_>, before: &str, origins: &[Origin]) -> fmt::Result {
    for (at, origin) in origins.iter().enumerate() {
        write!(f, "{}{origin}", if at == 0 { before } else { ", " })?;
    }
    Ok(())
}
