//! Which traffic has the same flows on every arm.

use std::collections::BTreeSet;

use crate::model::{Action, FaultKind, Scenario, TrafficExpect, Until};
use crate::outcome::Outcome;
use crate::validate::fault::lasts;

/// Traffic, by id, that begins at rest and ends before anything else happens: nothing of its flows hangs on time. What of it gets
/// through must be sure, too. That it has ended is not enough: what is told of it a moment later counts as well, and rest comes after that.
pub(super) fn undisturbed(scenario: &Scenario) -> BTreeSet<&str> {
    let (mut found, mut open) = (BTreeSet::new(), BTreeSet::new());
    let (mut at_rest, mut broken) = (false, false);
    for step in &scenario.steps {
        match &step.action {
            Action::Pod(_)
            | Action::DeletePod(_)
            | Action::Apply(_)
            | Action::Delete(_)
            | Action::Request(_) => {
                at_rest = false;
                open.clear();
            }
            Action::Fault(fault) => {
                at_rest = false;
                open.clear();
                match &fault.kind {
                    FaultKind::Heal if fault.node.is_none() => broken = false,
                    kind => broken |= lasts(kind) && fault.lasts.is_none(),
                }
            }
            Action::Wait(wait) => match &wait.until {
                Until::Rest => {
                    found.append(&mut open);
                    at_rest = !broken;
                }
                Until::Traffic(_) => at_rest = false,
                Until::Ready | Until::Time(_) => {}
            },
            Action::Traffic(traffic) => {
                if !at_rest {
                    open.clear();
                }
                let is_sure = matches!(
                    traffic.expect,
                    TrafficExpect::Ok | TrafficExpect::Fail | TrafficExpect::Refused
                );
                if at_rest && is_sure && !traffic.background {
                    open.insert(traffic.id.as_str());
                }
            }
            Action::Expect(_) => {}
        }
    }
    found.append(&mut open);
    found
}

/// Observations that one arm alone has made, of traffic that both know all flows of.
pub(super) fn flows(a: &Outcome, b: &Outcome, scenario: &Scenario, found: &mut Vec<String>) {
    for id in undisturbed(scenario) {
        let of = |outcome: &'_ Outcome| outcome.traffic.get(id).and_then(|traffic| traffic.flows.clone());
        let (Some(in_a), Some(in_b)) = (of(a), of(b)) else { continue };
        for (these, those, arm, other) in [(&in_a, &in_b, &a.arm, &b.arm), (&in_b, &in_a, &b.arm, &a.arm)] {
            for flow in these.difference(those) {
                found.push(format!("traffic {id}: {flow}: seen on {arm}, not on {other}"));
            }
        }
    }
}
