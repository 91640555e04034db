//! Is the fault possible?

use super::Walk;
use crate::model::{Action, ApiFault, CniFault, Failures, Fault, FaultKind, LinkFault, OPERATOR};

/// Smallest MTU that IPv4 allows (RFC 791, section 3.2).
const LEAST_MTU: u16 = 68;
const STATUSES: [u16; 4] = [410, 429, 500, 503];

pub(super) fn check(walk: &mut Walk<'_>, index: usize, fault: &Fault) {
    match &fault.node {
        Some(node) if node == OPERATOR => of_operator(walk, &fault.kind),
        Some(node) => walk.node("fault.node", node),
        None => {}
    }
    lasting(walk, index, fault);
    match &fault.kind {
        FaultKind::Link(link) => check_link(walk, link),
        FaultKind::Skew(by) if by.is_zero() => walk.wrong("fault.skew", "a jump of nothing is none"),
        FaultKind::Api(ApiFault::Slow(by)) if by.is_zero() => {
            walk.wrong("fault.api.slow", "late by nothing is not late");
        }
        FaultKind::Api(ApiFault::Stale(0)) => {
            walk.wrong("fault.api.stale", "behind by 0 changes is not behind");
        }
        FaultKind::Api(ApiFault::Error(status)) if !STATUSES.contains(status) => {
            walk.wrong("fault.api.error", format!("{status} is not among the known: 410, 429, 500, 503"));
        }
        FaultKind::TableFull { table, .. } => walk.table("fault.table-full.table", table),
        FaultKind::Failures(failures) => check_failures(walk, failures),
        FaultKind::Kill(_)
        | FaultKind::Skew(_)
        | FaultKind::Api(_)
        | FaultKind::Cni(_)
        | FaultKind::Partition
        | FaultKind::Stall
        | FaultKind::RingFull(_)
        | FaultKind::Heal => {}
    }
}

fn check_failures(walk: &mut Walk<'_>, failures: &Failures) {
    let Failures { probability, of } = failures;
    if !(0.0..=0.9).contains(probability) {
        let message = format!("{probability} is no probability that leaves hope: 0 to 0.9");
        walk.wrong("fault.failures", message);
    }
    let Some(of) = of.as_ref().filter(|of| !Failures::PLACES.contains(&of.as_str())) else { return };
    if !walk.knows_table(of) {
        let places = Failures::PLACES.join(", ");
        walk.wrong("fault.failures.of", format!("`{of}` is neither {places} nor the name of a table"));
    }
}

/// The operator is a process that talks to the API server, and nothing else.
fn of_operator(walk: &mut Walk<'_>, kind: &FaultKind) {
    let possible = match kind {
        FaultKind::Kill(kill) => kill.snapshot_age.is_zero(),
        FaultKind::Stall | FaultKind::Api(_) => true,
        _ => false,
    };
    if !possible {
        let message = format!("`{}` cannot happen to the operator: kill, stall and api can", kind.word());
        walk.wrong("fault.node", message);
    }
}

/// `for` where it makes sense, and an end for what nothing can come to rest with.
fn lasting(walk: &mut Walk<'_>, index: usize, fault: &Fault) {
    let word = name(&fault.kind);
    match fault.lasts {
        Some(_) if !lasts(&fault.kind) => {
            walk.wrong("fault.for", format!("`for` makes no sense here: `{word}` happens at once"));
        }
        Some(time) if time.is_zero() => walk.wrong("fault.for", "a fault that lasts no time is none"),
        None if needs_end(&fault.kind) && !healed(walk, index, fault) => walk.wrong(
            "fault",
            format!("`for` is missing: no later `heal` ends this `{word}`, and nothing comes to rest before it ends"),
        ),
        _ => {}
    }
}

/// Whether the fault has a duration.
pub(crate) const fn lasts(kind: &FaultKind) -> bool {
    match kind {
        FaultKind::Link(_)
        | FaultKind::Partition
        | FaultKind::Stall
        | FaultKind::TableFull { .. }
        | FaultKind::RingFull(_)
        | FaultKind::Failures(_) => true,
        FaultKind::Kill(_) | FaultKind::Skew(_) | FaultKind::Heal => false,
        FaultKind::Api(api) => !matches!(api, ApiFault::Cut | ApiFault::Stale(_) | ApiFault::PartialList),
        FaultKind::Cni(cni) => !matches!(cni, CniFault::Gc),
    }
}

/// Whether an agent can have nothing left to do while it lasts.
const fn needs_end(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::Stall | FaultKind::Api(ApiFault::Down | ApiFault::Error(_)))
}

fn healed(walk: &Walk<'_>, index: usize, fault: &Fault) -> bool {
    walk.scenario.steps.iter().skip(index + 1).any(|step| match &step.action {
        Action::Fault(Fault { node, kind: FaultKind::Heal, .. }) => node.is_none() || *node == fault.node,
        _ => false,
    })
}

/// The fault's words, as in the file.
fn name(kind: &FaultKind) -> String {
    let part = match kind {
        FaultKind::Api(ApiFault::Cut) => "cut",
        FaultKind::Api(ApiFault::Down) => "down",
        FaultKind::Api(ApiFault::Stale(_)) => "stale",
        FaultKind::Api(ApiFault::PartialList) => "partial-list",
        FaultKind::Api(ApiFault::Error(_)) => "error",
        FaultKind::Cni(CniFault::Gc) => "gc",
        _ => return kind.word().to_owned(),
    };
    format!("{}: {part}", kind.word())
}

fn check_link(walk: &mut Walk<'_>, link: &LinkFault) {
    if *link == LinkFault::default() {
        walk.wrong(
            "fault.link",
            "the link has no fault: give it loss, duplicate, reorder, corrupt, delay, jitter or mtu",
        );
    }
    let probabilities = [
        ("loss", link.loss),
        ("duplicate", link.duplicate),
        ("reorder", link.reorder),
        ("corrupt", link.corrupt),
    ];
    for (field, p) in probabilities {
        if !(0.0..=1.0).contains(&p) {
            walk.wrong(&format!("fault.link.{field}"), format!("{p} is no probability: 0 to 1"));
        }
    }
    if let Some(mtu) = link.mtu.filter(|mtu| *mtu < LEAST_MTU) {
        walk.wrong("fault.link.mtu", format!("{mtu} is no possible MTU: at least {LEAST_MTU}"));
    }
}
