//! Faults of the API server for the calls of one node.

use std::net::IpAddr;
use std::time::Duration;

use sim_api::Faults;
use sim_api::faults::{CallMatch, Effect, RuleId};

use super::ApiFault;

/// How long changes are gathered that shall be merged, repeated or reordered.
const GATHER: Duration = Duration::from_millis(500);

/// Begins a fault for calls from these addresses; returns the rules that end it.
pub(super) fn begin(faults: &Faults, peers: &[IpAddr], fault: ApiFault) -> Vec<RuleId> {
    let calls =
        |verb: Option<&'static str>| CallMatch { verb, peers: peers.to_vec(), ..CallMatch::default() };
    let rule = |verb, effect| faults.inject(calls(verb), effect, None);
    let rules = match fault {
        ApiFault::Cut => return relist(faults, peers, None),
        ApiFault::Stale(behind) => return relist(faults, peers, Some(&Effect::StaleList(behind.into()))),
        ApiFault::PartialList => return relist(faults, peers, Some(&Effect::PartialList)),
        ApiFault::Down => vec![rule(None, Effect::Unreachable)],
        ApiFault::Slow(lag) => vec![rule(Some("watch"), Effect::Lag(lag))],
        ApiFault::Coalesce => vec![rule(Some("watch"), Effect::Coalesce(GATHER))],
        ApiFault::Duplicate => vec![rule(Some("watch"), Effect::Again(GATHER))],
        ApiFault::Reorder => vec![rule(Some("watch"), Effect::Reorder(GATHER))],
        ApiFault::Error(410) => vec![rule(Some("watch"), Effect::Expired)],
        ApiFault::Error(code) => {
            vec![rule(Some("list"), Effect::Fail(code)), rule(Some("watch"), Effect::Fail(code))]
        }
    };
    // Watches that run began before the fault and would not notice it.
    faults.cut(&calls(None));
    rules
}

/// Ends a fault.
pub(super) fn end(faults: &Faults, peers: &[IpAddr], rules: &[RuleId]) {
    for rule in rules {
        faults.remove(*rule);
    }
    // Those that run began under the fault.
    if !rules.is_empty() {
        faults.cut(&CallMatch { peers: peers.to_vec(), ..CallMatch::default() });
    }
}

/// Makes the clients list again whatever they watch; the next list of each has this effect.
fn relist(faults: &Faults, peers: &[IpAddr], effect: Option<&Effect>) -> Vec<RuleId> {
    let all = CallMatch { peers: peers.to_vec(), ..CallMatch::default() };
    for resource in faults.watched(&all) {
        let once = |verb, effect| {
            let calls = CallMatch { verb: Some(verb), resource: Some(resource.clone()), ..all.clone() };
            faults.inject(calls, effect, Some(1));
        };
        once("watch", Effect::Expired);
        if let Some(effect) = effect {
            once("list", effect.clone());
        }
    }
    faults.cut(&all);
    Vec::new()
}
