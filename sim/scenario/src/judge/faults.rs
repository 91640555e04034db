//! Faults while they last.

use std::time::Duration;

use super::clock::{Clock, Moment};
use super::ends::Sides;
use crate::model::{ApiFault, CniFault, Fault, FaultKind};

/// What a fault can touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Packets between nodes.
    Links,
    /// Packets that need a row of conntrack or of fragments.
    Rows,
    /// What the agent writes.
    Tables,
    /// What the agent does, hears and is asked, and what it tells.
    Agent,
}

/// Tables that packets write.
pub(super) fn per_packet(table: &str) -> bool {
    matches!(table, "CT4" | "CT6" | "FRAGS4" | "FRAGS6" | "NAT4" | "NAT6")
}

/// TCP's timer has doubled for as long as the fault lasted: it fires once more within twice that time, and some.
pub(super) fn calm(lasted: Duration) -> Duration {
    lasted * 2 + Duration::from_secs(8)
}

#[derive(Debug)]
pub(super) struct Active<'a> {
    pub(super) kind: &'a FaultKind,
    pub(super) class: Class,
    pub(super) node: Option<String>,
    pub(super) lasts: Option<Duration>,
    begun: Moment,
    /// It may last still. If not, its aftermath may.
    pub(super) on: bool,
}

impl<'a> Active<'a> {
    pub(super) fn new(fault: &'a Fault, clock: &Clock) -> Self {
        let class = match &fault.kind {
            // An old list may lack nodes, or where their pods are: that is taken away until the watch has told the rest.
            FaultKind::Api(ApiFault::Stale(_)) => Class::Links,
            FaultKind::Link(_) | FaultKind::Partition => Class::Links,
            FaultKind::TableFull { table, .. } if per_packet(table) => Class::Rows,
            FaultKind::TableFull { .. } | FaultKind::Failures(_) => Class::Tables,
            FaultKind::Kill(_)
            | FaultKind::Stall
            | FaultKind::Skew(_)
            | FaultKind::Api(_)
            | FaultKind::Cni(_)
            | FaultKind::RingFull(_)
            | FaultKind::Heal => Class::Agent,
        };
        let on = crate::validate::fault::lasts(&fault.kind);
        Self {
            kind: &fault.kind,
            class,
            node: fault.node.clone(),
            lasts: fault.lasts,
            begun: clock.now(),
            on,
        }
    }

    /// What time alone has ended.
    pub(super) fn pass(&mut self, clock: &Clock) {
        if self.lasts.is_some_and(|lasts| clock.since(self.begun).least > lasts) {
            self.on = false;
        }
    }

    /// How long it has been there at most.
    pub(super) fn age(&self, clock: &Clock) -> Duration {
        let age = clock.since(self.begun).most;
        self.lasts.map_or(age, |lasts| lasts.min(age))
    }

    /// Whether packets of traffic between these can be lost by it.
    pub(super) fn touches(&self, sides: &Sides) -> bool {
        let [from, to] = &sides.nodes;
        let on_one =
            || self.node.is_none() || [from, to].into_iter().any(|node| node.is_none() || *node == self.node);
        match self.class {
            Class::Links => (from.is_none() || to.is_none() || from != to) && on_one(),
            Class::Rows => on_one(),
            Class::Tables | Class::Agent => false,
        }
    }

    /// How late DELs come by it.
    pub(super) const fn late_del(&self) -> Option<Duration> {
        match self.kind {
            FaultKind::Cni(CniFault::LateDel(by) | CniFault::RepeatDel(by)) => Some(*by),
            _ => None,
        }
    }
}
