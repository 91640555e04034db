//! Where faults begin and end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sim_api::Faults;
use sim_api::faults::RuleId;
use tokio::task::AbortHandle;

use super::{ActiveFault, Fault, FaultError, FaultKind, api};
use crate::agent::AgentControl;
use crate::kubelet::{CniFault, Kubelets};
use crate::snapshot::Recorder;
use crate::switch::Switch;

/// What of a node can be broken.
#[derive(Debug)]
pub(crate) struct NodeParts {
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its agent.
    pub(crate) agent: AgentControl,
    /// Older states of its agent.
    pub(crate) recorder: Option<Recorder>,
}

/// All that can be broken in a cluster; faults end their own time with it.
#[derive(Debug)]
pub(crate) struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    nodes: BTreeMap<String, NodeParts>,
    switch: Option<Switch>,
    api: Faults,
    kubelets: Kubelets,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    active: Vec<Active>,
    next: u64,
}

#[derive(Debug)]
struct Active {
    id: u64,
    node: String,
    kind: FaultKind,
    ends: Option<Instant>,
    undo: Undo,
    timer: Option<AbortHandle>,
}

#[derive(Debug)]
enum Undo {
    Link,
    Partition,
    /// The task that starts the agent again.
    Kill(AbortHandle),
    Stall,
    Api(Vec<RuleId>),
    Cni(CniFault),
}

impl Desk {
    pub(crate) fn new(
        nodes: BTreeMap<String, NodeParts>,
        switch: Option<Switch>,
        api: Faults,
        kubelets: Kubelets,
    ) -> Self {
        Self(Arc::new(Inner { nodes, switch, api, kubelets, state: Mutex::default() }))
    }

    pub(crate) fn switch(&self) -> Option<&Switch> {
        self.0.switch.as_ref()
    }

    /// Breaks something. Nothing is broken if it is refused.
    pub(crate) async fn fault(&self, fault: &Fault) -> Result<(), FaultError> {
        let nodes = self.0.nodes_of(fault.node.as_deref())?;
        self.0.check(fault, &nodes)?;
        for node in nodes {
            if fault.kind == FaultKind::Gc {
                let why =
                    |e: crate::kubelet::GcError| FaultError::Gc { node: node.clone(), why: e.to_string() };
                self.0.kubelets.gc(&node).await.map_err(why)?;
                continue;
            }
            self.0.end(|active| active.node == node && active.kind.name() == fault.kind.name());
            let Some(undo) = self.0.begin(&node, &fault.kind) else { continue };
            self.keep(node, fault, undo);
        }
        Ok(())
    }

    /// Notes a fault that lasts and sets its end.
    fn keep(&self, node: String, fault: &Fault, undo: Undo) {
        let mut state = self.0.state();
        state.next += 1;
        let id = state.next;
        let lasts = match &fault.kind {
            FaultKind::Kill { restart_after, .. } => Some(*restart_after),
            _ => fault.lasts,
        };
        let timer = lasts.map(|lasts| {
            let inner = Arc::downgrade(&self.0);
            let timer = tokio::spawn(async move {
                tokio::time::sleep(lasts).await;
                if let Some(inner) = inner.upgrade() {
                    inner.expire(id);
                }
            });
            timer.abort_handle()
        });
        let ends = lasts.map(|lasts| Instant::now() + lasts);
        state.active.push(Active { id, node, kind: fault.kind.clone(), ends, undo, timer });
    }

    /// Ends everything that lasts, on one node or on all.
    pub(crate) fn heal(&self, node: Option<&str>) -> Result<(), FaultError> {
        self.0.nodes_of(node)?;
        self.0.end(|active| node.is_none_or(|node| node == active.node));
        Ok(())
    }

    /// What is broken now.
    pub(crate) fn active(&self) -> Vec<ActiveFault> {
        let now = Instant::now();
        let state = self.0.state();
        let show = |active: &Active| ActiveFault {
            node: active.node.clone(),
            name: active.kind.name().to_owned(),
            left: active.ends.map(|ends| ends.saturating_duration_since(now)),
        };
        state.active.iter().map(show).collect()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for active in self.0.state().active.drain(..) {
            if let Some(timer) = active.timer {
                timer.abort();
            }
            if let Undo::Kill(task) = active.undo {
                task.abort();
            }
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes_of(&self, node: Option<&str>) -> Result<Vec<String>, FaultError> {
        match node {
            None => Ok(self.nodes.keys().cloned().collect()),
            Some(node) if self.nodes.contains_key(node) => Ok(vec![node.to_owned()]),
            Some(node) => Err(FaultError::NoNode(node.to_owned())),
        }
    }

    fn check(&self, fault: &Fault, nodes: &[String]) -> Result<(), FaultError> {
        if fault.kind.is_momentary() && fault.lasts.is_some() {
            return Err(FaultError::NoDuration(fault.kind.name()));
        }
        match &fault.kind {
            FaultKind::Link(_) | FaultKind::Partition if self.switch.is_none() => Err(FaultError::NoSwitch),
            FaultKind::Link(link) => link.check().map_err(FaultError::Value),
            FaultKind::Api(super::ApiFault::Error(code)) if !(400..600).contains(code) => {
                Err(FaultError::Value(format!("an error has an HTTP status from 400 to 599, not {code}")))
            }
            FaultKind::Kill { snapshot_age, .. } if !snapshot_age.is_zero() => {
                let recorded = |node: &String| self.nodes[node].recorder.is_some();
                if nodes.iter().all(recorded) { Ok(()) } else { Err(FaultError::NotRecorded) }
            }
            FaultKind::Stall => match nodes.iter().find(|node| self.nodes[*node].agent.process().is_none()) {
                Some(node) => Err(FaultError::NoAgent(node.clone())),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Breaks it; returns how it ends, if it lasts.
    fn begin(&self, name: &str, kind: &FaultKind) -> Option<Undo> {
        let node = &self.nodes[name];
        let switch = self.switch.as_ref();
        match kind {
            FaultKind::Link(link) => {
                switch?.set_fault(name, Some(link.clone()));
                Some(Undo::Link)
            }
            FaultKind::Partition => {
                switch?.set_partitioned(name, true);
                Some(Undo::Partition)
            }
            FaultKind::Kill { restart_after, snapshot_age } => {
                Some(Undo::Kill(kill(name, node, *restart_after, *snapshot_age)))
            }
            FaultKind::Stall => {
                node.agent.stall(true);
                Some(Undo::Stall)
            }
            FaultKind::Api(fault) => {
                let rules = api::begin(&self.api, &node.addresses, *fault);
                (!kind.is_momentary()).then_some(Undo::Api(rules))
            }
            FaultKind::Cni(fault) => {
                self.set_cni(name, Some(*fault), None);
                Some(Undo::Cni(*fault))
            }
            // Called where it can be waited for.
            FaultKind::Gc => None,
        }
    }

    /// Ends the faults that are meant.
    fn end(&self, meant: impl Fn(&Active) -> bool) {
        let ended: Vec<Active> = {
            let mut state = self.state();
            let (ended, kept) = std::mem::take(&mut state.active).into_iter().partition(|a| meant(a));
            state.active = kept;
            ended
        };
        for active in ended {
            if let Some(timer) = &active.timer {
                timer.abort();
            }
            self.undo(active);
        }
    }

    /// Ends a fault whose time is over; called by its own timer.
    fn expire(&self, id: u64) {
        let ended = {
            let mut state = self.state();
            let at = state.active.iter().position(|active| active.id == id);
            at.map(|at| state.active.remove(at))
        };
        // The task that starts an agent again ends by itself.
        if let Some(active) = ended
            && !matches!(active.undo, Undo::Kill(_))
        {
            self.undo(active);
        }
    }

    fn undo(&self, active: Active) {
        let node = &self.nodes[&active.node];
        let switch = self.switch.as_ref();
        match active.undo {
            Undo::Link => drop(switch.map(|switch| switch.set_fault(&active.node, None))),
            Undo::Partition => drop(switch.map(|switch| switch.set_partitioned(&active.node, false))),
            Undo::Kill(task) => {
                task.abort();
                node.agent.resume();
            }
            Undo::Stall => drop(node.agent.stall(false)),
            Undo::Api(rules) => api::end(&self.api, &node.addresses, &rules),
            Undo::Cni(fault) => self.set_cni(&active.node, None, Some(fault)),
        }
    }

    /// What the node's runtime does wrong: what is kept, and one more or one less.
    fn set_cni(&self, node: &str, more: Option<CniFault>, less: Option<CniFault>) {
        let kept: Vec<CniFault> = self
            .state()
            .active
            .iter()
            .filter(|active| active.node == node)
            .filter_map(|active| if let Undo::Cni(fault) = active.undo { Some(fault) } else { None })
            .filter(|fault| Some(*fault) != less)
            .chain(more)
            .collect();
        self.kubelets.set_faults(node, kept);
    }
}

/// Kills an agent; the returned task starts it again.
fn kill(name: &str, node: &NodeParts, restart_after: Duration, age: Duration) -> AbortHandle {
    let died = Instant::now();
    let restorer = node.recorder.as_ref().filter(|_| !age.is_zero()).map(Recorder::restorer);
    let name = name.to_owned();
    let prepare = move || {
        let Some(restorer) = restorer else { return };
        if let Err(e) = restorer.restore(died.checked_sub(age).unwrap_or(died)) {
            tracing::error!(node = name, error = %e, "cannot restore the agent's state");
        }
    };
    node.agent.kill_for(restart_after, prepare).abort_handle()
}
