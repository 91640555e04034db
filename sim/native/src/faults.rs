//! Faults that are going on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_control::ObjectKind;
use sim_scenario::model::{ApiFault, CniFault, Failures, Fault, FaultKind};

use crate::agents::Death;
use crate::cni::{Call, Wanted};
use crate::listen::OPERATOR;
use crate::queue::{NodeId, Task};
use crate::world::World;

/// Until then stands still what has no end.
const FOR_EVER: Duration = Duration::from_secs(u64::MAX / 4);

/// What is going on.
#[derive(Debug, Default)]
pub(crate) struct ClusterFaults {
    api: BTreeMap<NodeId, Vec<(u64, ApiFault)>>,
    cni: BTreeMap<NodeId, Vec<(u64, CniFault)>>,
    failures: BTreeMap<NodeId, Vec<(u64, Failures)>>,
    stale: BTreeMap<NodeId, usize>,
    partial: BTreeMap<NodeId, u32>,
    /// The same for lists of other objects than nodes.
    stale_kinds: BTreeMap<(NodeId, ObjectKind), usize>,
    partial_kinds: BTreeMap<(NodeId, ObjectKind), u32>,
    /// What lasts and has not ended, node by node.
    active: BTreeMap<(u64, NodeId), Active>,
    /// Of these, the faults that end by themselves.
    ending: BTreeSet<u64>,
    last: u64,
    /// Whether old states of state directories will be asked for.
    pub(crate) snapshots: bool,
    /// When the last fault of a node's wire ended.
    wire_ends: BTreeMap<NodeId, Duration>,
    /// Kinds that have begun, with how often.
    pub(crate) begun: BTreeMap<&'static str, u64>,
}

/// What must be undone when a fault ends.
#[derive(Debug, Clone, PartialEq)]
enum Active {
    Wire,
    Api,
    Cni,
    /// A table and the rows that it has room for.
    Table(String, u32),
    /// The records that the ring has room for.
    Ring(u32),
    /// Until when.
    Stall(Duration),
    Failures,
}

impl ClusterFaults {
    /// What is wrong with the API server for a node.
    pub(crate) fn api(&self, n: NodeId) -> &[(u64, ApiFault)] {
        self.api.get(&n).map(Vec::as_slice).unwrap_or_default()
    }

    /// What the runtime of a node does wrong.
    pub(crate) fn cni(&self, n: NodeId) -> Vec<CniFault> {
        self.cni.get(&n).into_iter().flatten().map(|(_, fault)| fault.clone()).collect()
    }

    /// With what probability a command of the agent of a node fails that is about a table, links, routes or state.
    pub(crate) fn failures(&self, n: NodeId, place: &str) -> f64 {
        let of = self.failures.get(&n).into_iter().flatten().filter(|(_, failures)| failures.affects(place));
        of.map(|(_, failures)| failures.probability).fold(0.0, f64::max)
    }

    /// By how many changes the next list of a node is behind.
    pub(crate) fn take_stale(&mut self, n: NodeId) -> usize {
        self.stale.remove(&n).unwrap_or(0)
    }

    /// Whether the next list of a node ends half way.
    pub(crate) fn take_partial(&mut self, n: NodeId) -> bool {
        self.partial.get_mut(&n).is_some_and(|left| {
            let any = *left > 0;
            *left = left.saturating_sub(1);
            any
        })
    }

    /// By how many changes the next list of a kind is behind.
    pub(crate) fn take_stale_kind(&mut self, who: NodeId, kind: ObjectKind) -> usize {
        self.stale_kinds.remove(&(who, kind)).unwrap_or(0)
    }

    /// Whether the next list of a kind ends half way.
    pub(crate) fn take_partial_kind(&mut self, who: NodeId, kind: ObjectKind) -> bool {
        self.partial_kinds.get_mut(&(who, kind)).is_some_and(|left| {
            let any = *left > 0;
            *left = left.saturating_sub(1);
            any
        })
    }

    /// Whether a fault that ends by itself has not ended.
    pub(crate) fn any_ends(&self) -> bool {
        !self.ending.is_empty()
    }

    /// Whether nobody takes records out of the ring of a node.
    pub(crate) fn fills_ring(&self, n: NodeId) -> bool {
        self.at(n).any(|active| matches!(active, Active::Ring(_)))
    }

    /// Whether any fault lasts.
    pub(crate) fn any(&self) -> bool {
        !self.active.is_empty()
    }

    /// Since when the wires of all of these nodes are whole; `None`: some are not.
    pub(crate) fn wires_whole_since(&self, nodes: &BTreeSet<NodeId>) -> Option<Duration> {
        let is_broken = |n: &NodeId| self.at(*n).any(|active| *active == Active::Wire);
        let ends = nodes.iter().filter_map(|n| self.wire_ends.get(n)).copied();
        (!nodes.iter().any(is_broken)).then(|| ends.max().unwrap_or_default())
    }

    /// What goes on at a node.
    fn at(&self, n: NodeId) -> impl Iterator<Item = &Active> {
        self.active.iter().filter(move |((_, node), _)| *node == n).map(|(_, active)| active)
    }
}

impl World {
    /// Something breaks.
    pub(crate) fn begin_fault(&mut self, fault: &Fault) {
        fault.words().into_iter().for_each(|word| *self.cluster_faults.begun.entry(word).or_default() += 1);
        let named = fault.node.as_deref().and_then(|name| self.node_named(name));
        if fault.kind == FaultKind::Heal {
            self.heal(named);
            return;
        }
        let of_operator = fault.node.as_deref() == Some(sim_scenario::model::OPERATOR);
        let nodes: Vec<NodeId> = match (named, &fault.kind) {
            _ if of_operator => vec![OPERATOR],
            (Some(n), _) => vec![n],
            (None, FaultKind::Kill(_)) => {
                vec![usize::try_from(self.rng.below(self.nodes.len() as u64)).unwrap_or(0)]
            }
            // What is wrong with the API server for all is so for the operator.
            (None, FaultKind::Api(_)) => (0..self.nodes.len()).chain([OPERATOR]).collect(),
            (None, _) => (0..self.nodes.len()).collect(),
        };
        self.cluster_faults.last += 1;
        let id = self.cluster_faults.last;
        for n in nodes {
            let active =
                if n == OPERATOR { self.break_operator(id, fault) } else { self.break_node(n, id, fault) };
            if let Some(active) = active {
                self.cluster_faults.active.insert((id, n), active);
                if fault.lasts.is_some() {
                    self.cluster_faults.ending.insert(id);
                }
            }
            self.limit(n);
        }
        if let Some(lasts) = fault.lasts.filter(|_| self.cluster_faults.ending.contains(&id)) {
            self.after(lasts, Task::FaultEnds(id));
        }
    }

    fn break_operator(&mut self, id: u64, fault: &Fault) -> Option<Active> {
        match &fault.kind {
            FaultKind::Kill(kill) => {
                let death = Death { restart_after: kill.restart_after, snapshot_age: Duration::ZERO };
                self.kill_operator(death, kill.after_commands);
                None
            }
            FaultKind::Stall => Some(Active::Stall(fault.lasts.map_or(FOR_EVER, |lasts| self.now + lasts))),
            FaultKind::Api(fault) => self.break_api(OPERATOR, id, fault),
            // Nothing else can happen to it.
            _ => None,
        }
    }

    fn break_node(&mut self, n: NodeId, id: u64, fault: &Fault) -> Option<Active> {
        match &fault.kind {
            FaultKind::Link(link) => {
                self.check.wires_were_disturbed = true;
                self.fabric.begin(n, id, link.clone());
                Some(Active::Wire)
            }
            FaultKind::Partition => {
                self.check.wires_were_disturbed = true;
                self.fabric.part(n, id);
                Some(Active::Wire)
            }
            FaultKind::Kill(kill) => {
                let death = Death { restart_after: kill.restart_after, snapshot_age: kill.snapshot_age };
                match kill.after_commands {
                    Some(commands) => {
                        self.nodes[n].agent.death = death;
                        self.nodes[n].commands.left = Some(commands.max(1));
                    }
                    None => self.kill_agent(n, death),
                }
                None
            }
            FaultKind::Stall => Some(Active::Stall(fault.lasts.map_or(FOR_EVER, |lasts| self.now + lasts))),
            FaultKind::Skew(by) => {
                self.nodes[n].skew += *by;
                None
            }
            FaultKind::Api(fault) => self.break_api(n, id, fault),
            FaultKind::Cni(CniFault::Gc) => {
                self.collect_garbage(n);
                None
            }
            FaultKind::Cni(fault) => {
                self.cluster_faults.cni.entry(n).or_default().push((id, fault.clone()));
                Some(Active::Cni)
            }
            FaultKind::TableFull { table, rows } => {
                if matches!(table.as_str(), "CT4" | "CT6" | "FRAGS4" | "FRAGS6" | "NAT4" | "NAT6") {
                    self.check.table_was_full(n);
                }
                self.nodes[n].troubled = true;
                Some(Active::Table(table.clone(), *rows))
            }
            FaultKind::RingFull(records) => Some(Active::Ring(*records)),
            FaultKind::Failures(failures) => {
                self.nodes[n].troubled = true;
                self.cluster_faults.failures.entry(n).or_default().push((id, failures.clone()));
                Some(Active::Failures)
            }
            FaultKind::Heal => None,
        }
    }

    fn break_api(&mut self, n: NodeId, id: u64, fault: &ApiFault) -> Option<Active> {
        match fault {
            ApiFault::Cut => {
                let forget = self.rng.chance(0.5);
                self.cut_watch(n, forget);
                return None;
            }
            ApiFault::Stale(changes) => {
                let lag = usize::try_from(*changes).unwrap_or(0);
                self.cluster_faults.stale.insert(n, lag);
                let kinds = ObjectKind::ALL.into_iter().map(|kind| ((n, kind), lag));
                self.cluster_faults.stale_kinds.extend(kinds);
                self.cut_watch(n, true);
                return None;
            }
            ApiFault::PartialList => {
                *self.cluster_faults.partial.entry(n).or_default() += 1;
                for kind in ObjectKind::ALL {
                    *self.cluster_faults.partial_kinds.entry((n, kind)).or_default() += 1;
                }
                self.cut_watch(n, true);
                return None;
            }
            ApiFault::Down | ApiFault::Error(_) => {
                let forget = self.rng.chance(0.5);
                self.cut_watch(n, forget);
            }
            ApiFault::Duplicate => {
                self.wake_all_listens(n);
                if n != OPERATOR {
                    self.wake_watch(n, Duration::from_millis(1));
                }
            }
            ApiFault::Slow(_) | ApiFault::Coalesce | ApiFault::Reorder => {}
        }
        self.cluster_faults.api.entry(n).or_default().push((id, fault.clone()));
        Some(Active::Api)
    }

    /// Makes a node as slow and as small as what goes on there says: of faults of one kind the longest, or the narrowest, counts.
    pub(crate) fn limit(&mut self, n: NodeId) {
        let stalls = self.cluster_faults.at(n).filter_map(|active| match active {
            Active::Stall(until) => Some(*until),
            _ => None,
        });
        let until = stalls.max().unwrap_or(Duration::ZERO);
        if n == OPERATOR {
            self.operator.stalled_until = until;
            return;
        }
        self.nodes[n].agent.stalled_until = until;
        let rings = self.cluster_faults.at(n).filter_map(|active| match active {
            Active::Ring(records) => Some(*records),
            _ => None,
        });
        let ring = rings.chain(self.cluster.tables.get("EVENTS").copied()).min();
        let mut full: BTreeMap<&str, u32> = BTreeMap::new();
        for active in self.cluster_faults.at(n) {
            if let Active::Table(table, rows) = active {
                let least = full.entry(table).or_insert(*rows);
                *least = (*least).min(*rows);
            }
        }
        let tables = self.nodes[n].native.tables_mut();
        tables.set_capacity("EVENTS", ring);
        for (table, rows) in full {
            tables.set_capacity(table, Some(rows));
        }
    }

    /// A fault that lasts is over.
    pub(crate) fn end_fault(&mut self, id: u64) {
        self.end_some(|fault, _| fault == id);
    }

    fn end_some(&mut self, which: impl Fn(u64, NodeId) -> bool) {
        let faults = &mut self.cluster_faults;
        let over: Vec<((u64, NodeId), Active)> =
            faults.active.extract_if(.., |(id, n), _| which(*id, *n)).collect();
        if over.is_empty() {
            return;
        }
        let ClusterFaults { active, ending, .. } = faults;
        ending.retain(|id| active.range((*id, 0)..=(*id, NodeId::MAX)).next().is_some());
        for ((id, n), active) in over {
            let faults = &mut self.cluster_faults;
            match &active {
                Active::Wire => {
                    faults.wire_ends.insert(n, self.now);
                    self.fabric.end(n, id);
                }
                Active::Api => faults.api.entry(n).or_default().retain(|(fault, _)| *fault != id),
                Active::Cni => faults.cni.entry(n).or_default().retain(|(fault, _)| *fault != id),
                Active::Failures => faults.failures.entry(n).or_default().retain(|(fault, _)| *fault != id),
                Active::Table(table, _) => {
                    let usual = self.cluster.tables.get(table).copied();
                    self.nodes[n].native.tables_mut().set_capacity(table, usual);
                }
                Active::Ring(_) | Active::Stall(_) => {}
            }
            self.limit(n);
            if matches!(active, Active::Ring(_)) && !self.cluster_faults.fills_ring(n) {
                // What is left in it is read.
                drop(self.nodes[n].native.drain_events());
            }
            if let Active::Stall(_) = active {
                self.goes_on(n);
            }
        }
    }

    /// Who stood still goes on, unless something else holds it.
    fn goes_on(&mut self, n: NodeId) {
        if n == OPERATOR {
            self.operator_goes_on();
            return;
        }
        // What it was due for while it stood still is due now.
        self.nodes[n].agent.due = None;
        self.wake_agent(n, Duration::ZERO);
    }

    fn heal(&mut self, of: Option<NodeId>) {
        self.end_some(|_, n| of.is_none_or(|of| of == n));
        if of.is_none() {
            self.spare_operator();
            self.after(Duration::ZERO, Task::StartOperator(self.operator.life));
        }
        let is_healed = |n: NodeId| of.is_none_or(|of| of == n);
        self.cluster_faults.stale_kinds.retain(|(n, _), _| !is_healed(*n));
        self.cluster_faults.partial_kinds.retain(|(n, _), _| !is_healed(*n));
        for n in 0..self.nodes.len() {
            if is_healed(n) {
                self.nodes[n].commands.left = None;
                // Who is dead starts now.
                self.after(Duration::ZERO, Task::StartAgent(n, self.nodes[n].agent.life));
                self.cluster_faults.stale.remove(&n);
                self.cluster_faults.partial.remove(&n);
            }
        }
    }

    /// The runtime asks for garbage collection with the attachments that it knows.
    pub(crate) fn collect_garbage(&mut self, n: NodeId) {
        let kubelet = &mut self.nodes[n].kubelet;
        let number = kubelet.next_call();
        // What is being added is in the list: a runtime does not call GC without it (CNI specification, GC).
        let known = kubelet.sandboxes.values().filter(|sandbox| !sandbox.forgotten);
        let valid = known.map(|sandbox| sandbox.attachment.clone()).collect();
        let call = Call {
            number,
            wanted: Wanted::Gc(valid),
            attachment: agent_api::cni::Attachment { container_id: String::new(), ifname: String::new() },
            netns: None,
            pod: None,
            result: None,
            queued: false,
            sandbox: None,
        };
        // At once: a list that is older than an ADD would be the runtime's own mistake.
        self.call_arrives(n, call);
    }
}
