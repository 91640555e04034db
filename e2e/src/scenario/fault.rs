//! From a scenario's faults to a lab's.

use std::time::Duration;

use lab::fault as on_lab;
use sim_scenario::model::{ApiFault, CniFault, Fault, FaultKind, Kill};

/// What the lab does for a fault; `None` for what ends faults and for what is refused beforehand. `chosen` is the node for a crash that
/// names none.
pub(super) fn of(fault: &Fault, chosen: &str) -> Option<on_lab::Fault> {
    let kind = match &fault.kind {
        FaultKind::Link(link) => on_lab::FaultKind::Link(on_lab::LinkFault {
            loss: link.loss,
            duplicate: link.duplicate,
            reorder: link.reorder,
            corrupt: link.corrupt,
            delay: link.delay,
            jitter: link.jitter,
            mtu: link.mtu,
        }),
        FaultKind::Partition => on_lab::FaultKind::Partition,
        FaultKind::Kill(Kill { restart_after, snapshot_age, .. }) => {
            on_lab::FaultKind::Kill { restart_after: *restart_after, snapshot_age: *snapshot_age }
        }
        FaultKind::Stall => on_lab::FaultKind::Stall,
        FaultKind::Api(api) => on_lab::FaultKind::Api(of_api(api)),
        FaultKind::Cni(cni) => of_cni(cni),
        FaultKind::Skew(_) | FaultKind::TableFull { .. } | FaultKind::RingFull(_) | FaultKind::Heal => {
            return None;
        }
    };
    let node = match (&fault.node, &kind) {
        (None, on_lab::FaultKind::Kill { .. }) => Some(chosen.to_owned()),
        (node, _) => node.clone(),
    };
    Some(on_lab::Fault { node, lasts: fault.lasts, kind })
}

const fn of_api(fault: &ApiFault) -> on_lab::ApiFault {
    match fault {
        ApiFault::Cut => on_lab::ApiFault::Cut,
        ApiFault::Down => on_lab::ApiFault::Down,
        ApiFault::Slow(lag) => on_lab::ApiFault::Slow(*lag),
        ApiFault::Coalesce => on_lab::ApiFault::Coalesce,
        ApiFault::Duplicate => on_lab::ApiFault::Duplicate,
        ApiFault::Stale(behind) => on_lab::ApiFault::Stale(*behind),
        ApiFault::PartialList => on_lab::ApiFault::PartialList,
        ApiFault::Error(status) => on_lab::ApiFault::Error(*status),
        ApiFault::Reorder => on_lab::ApiFault::Reorder,
    }
}

const fn of_cni(fault: &CniFault) -> on_lab::FaultKind {
    on_lab::FaultKind::Cni(match fault {
        CniFault::RepeatAdd => on_lab::CniFault::RepeatAdd,
        CniFault::RepeatDel(after) => on_lab::CniFault::RepeatDel(*after),
        CniFault::LateDel(after) => on_lab::CniFault::LateDel(*after),
        CniFault::DelFirst => on_lab::CniFault::DelFirst,
        CniFault::NetnsGone => on_lab::CniFault::NetnsGone,
        CniFault::Gc => return on_lab::FaultKind::Gc,
    })
}

/// How long after its beginning a fault ends by itself; `None` for one that lasts until it is healed.
pub(super) fn ends_after(fault: &on_lab::Fault) -> Option<Duration> {
    match &fault.kind {
        on_lab::FaultKind::Kill { restart_after, .. } => Some(*restart_after),
        kind if kind.is_momentary() => Some(Duration::ZERO),
        _ => fault.lasts,
    }
}
