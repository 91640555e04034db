//! Scenarios in Rust, for tests.
//!
//! ```
//! use sim_scenario::Scenario;
//! use sim_scenario::builder::{ms, secs};
//!
//! let scenario = Scenario::builder("restart")
//!     .nodes(2)
//!     .pod("a", |p| p.node("node-1"))
//!     .pod("b", |p| p.node("node-2").serve("tcp:9000"))
//!     .wait_ready()
//!     .traffic("stream", "pod/a", "pod/b", |t| t.tcp(9000).count(50).every(ms(100)))
//!     .kill("node-1", |k| k.restart_after(secs(1)))
//!     .wait_rest()
//!     .build()
//!     .unwrap();
//! assert_eq!(scenario.steps.len(), 6);
//! ```

mod parts;

use std::time::Duration;

use crate::error::{Invalid, Problem};
use crate::model::{
    Action, Cluster, Enforcement, Expect, FORMAT, Families, Fault, FaultKind, Kill, ObjectRef, Place,
    Routing, Scenario, Step, Traffic, TrafficKind, Until, Wait,
};
use crate::path::Path;
use crate::validate::Known;
pub use parts::{FaultBuilder, KillBuilder, PodBuilder, TrafficBuilder};

/// So many milliseconds.
pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// So many seconds.
pub const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

impl Scenario {
    /// Begins a scenario.
    pub fn builder(name: &str) -> Builder {
        let scenario = Self {
            bristle: FORMAT.to_owned(),
            name: name.to_owned(),
            description: String::new(),
            cluster: Cluster::default(),
            steps: Vec::new(),
        };
        Builder { scenario, at: None, problems: Vec::new() }
    }
}

/// A scenario in the making. Steps happen in the order of the calls.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    scenario: Scenario,
    /// Of the next step.
    at: Option<Duration>,
    problems: Vec<Problem>,
}

impl Builder {
    /// What it shows.
    pub fn description(mut self, text: &str) -> Self {
        text.clone_into(&mut self.scenario.description);
        self
    }

    /// Number of nodes.
    pub const fn nodes(mut self, nodes: u16) -> Self {
        self.scenario.cluster.nodes = nodes;
        self
    }

    /// IP families.
    pub const fn family(mut self, family: Families) -> Self {
        self.scenario.cluster.family = family;
        self
    }

    /// How packets travel between nodes.
    pub const fn routing(mut self, routing: Routing) -> Self {
        self.scenario.cluster.routing = routing;
        self
    }

    /// MTU of the underlay, in bytes.
    pub const fn mtu(mut self, bytes: u16) -> Self {
        self.scenario.cluster.mtu = bytes;
        self
    }

    /// Prefix length of a node's IPv4 pod CIDR.
    pub const fn pod_cidr_bits(mut self, bits: u8) -> Self {
        self.scenario.cluster.pod_cidr_bits = bits;
        self
    }

    /// A table that is smaller than usual.
    pub fn table(mut self, name: &str, rows: u32) -> Self {
        self.scenario.cluster.tables.insert(name.to_owned(), rows);
        self
    }

    /// Policies for nodes are in force.
    pub const fn host_firewall(mut self) -> Self {
        self.scenario.cluster.host_firewall = true;
        self
    }

    /// Which pods are isolated.
    pub const fn enforcement(mut self, enforcement: Enforcement) -> Self {
        self.scenario.cluster.enforcement = enforcement;
        self
    }

    /// What policies deny passes, and is only told of.
    pub const fn audit(mut self) -> Self {
        self.scenario.cluster.audit = true;
        self
    }

    /// Calls to services go to their endpoints.
    pub const fn kube_proxy_replacement(mut self) -> Self {
        self.scenario.cluster.kube_proxy_replacement = true;
        self
    }

    /// The next step is not before this time after the start.
    pub const fn at(mut self, at: Duration) -> Self {
        self.at = Some(at);
        self
    }

    /// Makes a pod.
    pub fn pod(mut self, name: &str, with: impl FnOnce(PodBuilder) -> PodBuilder) -> Self {
        let PodBuilder { pod, wrong } = with(PodBuilder::new(name));
        self.wrong("pod", wrong);
        self.step(Action::Pod(pod))
    }

    /// Deletes a pod by `namespace/name`, or by name in `default`.
    pub fn delete_pod(self, name: &str) -> Self {
        self.step(Action::DeletePod(name.to_owned()))
    }

    /// Applies Kubernetes objects.
    pub fn apply(self, objects: Vec<serde_json::Value>) -> Self {
        self.step(Action::Apply(objects))
    }

    /// Deletes a Kubernetes object of the core API in `default`.
    pub fn delete(self, kind: &str, name: &str) -> Self {
        let (api_version, namespace) = ("v1".to_owned(), None);
        self.step(Action::Delete(ObjectRef {
            api_version,
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace,
        }))
    }

    /// Waits until all pods are ready and deleted ones are gone.
    pub fn wait_ready(self) -> Self {
        self.step(Action::Wait(Wait::new(Until::Ready)))
    }

    /// Waits until nothing is left to do.
    pub fn wait_rest(self) -> Self {
        self.step(Action::Wait(Wait::new(Until::Rest)))
    }

    /// Waits until one traffic has ended.
    pub fn wait_traffic(self, id: &str) -> Self {
        self.step(Action::Wait(Wait::new(Until::Traffic(id.to_owned()))))
    }

    /// Lets time pass.
    pub fn wait(self, time: Duration) -> Self {
        self.step(Action::Wait(Wait::new(Until::Time(time))))
    }

    /// The wait before this may take so long.
    pub fn within(mut self, within: Duration) -> Self {
        match self.scenario.steps.last_mut() {
            Some(Step { action: Action::Wait(wait), .. }) => wait.within = within,
            _ => self.wrong("", vec![(String::new(), "`within` comes right after a wait".to_owned())]),
        }
        self
    }

    /// Sends traffic; a ping unless `with` says something else.
    pub fn traffic(
        mut self,
        id: &str,
        from: &str,
        to: &str,
        with: impl FnOnce(TrafficBuilder) -> TrafficBuilder,
    ) -> Self {
        let from = self.read("traffic", "from", from);
        let to = self.read("traffic", "to", to);
        let (Some(from), Some(to)) = (from, to) else {
            return self;
        };
        let TrafficBuilder(traffic) = with(TrafficBuilder(Traffic::new(id, from, to, TrafficKind::Ping)));
        self.step(Action::Traffic(traffic))
    }

    /// Breaks something; on all nodes and until a heal unless `with` says something else.
    pub fn fault(self, kind: FaultKind, with: impl FnOnce(FaultBuilder) -> FaultBuilder) -> Self {
        let FaultBuilder(fault) = with(FaultBuilder(Fault { node: None, lasts: None, kind }));
        self.step(Action::Fault(fault))
    }

    /// Kills the agent of a node.
    pub fn kill(self, node: &str, with: impl FnOnce(KillBuilder) -> KillBuilder) -> Self {
        let KillBuilder(kill) = with(KillBuilder(Kill::default()));
        self.fault(FaultKind::Kill(kill), |f| f.node(node))
    }

    /// Ends every fault that lasts.
    pub fn heal(self) -> Self {
        self.fault(FaultKind::Heal, |f| f)
    }

    /// Says what must be so now.
    pub fn expect(self, expect: Expect) -> Self {
        self.step(Action::Expect(expect))
    }

    /// The scenario, judged with the words of [`Known::default`].
    ///
    /// # Errors
    /// Everything that is not possible, by step.
    pub fn build(self) -> Result<Scenario, Invalid> {
        if !self.problems.is_empty() {
            return Err(Invalid { problems: self.problems });
        }
        self.scenario.validate(&Known::default())?;
        Ok(self.scenario)
    }

    fn step(mut self, action: Action) -> Self {
        self.scenario.steps.push(Step { at: self.at.take(), action });
        self
    }

    fn read(&mut self, part: &str, field: &str, text: &str) -> Option<Place> {
        match text.parse() {
            Ok(place) => Some(place),
            Err(message) => {
                self.wrong(part, vec![(field.to_owned(), message)]);
                None
            }
        }
    }

    fn wrong(&mut self, part: &str, messages: Vec<(String, String)>) {
        for (field, message) in messages {
            let path = [part, &field].into_iter().filter(|part| !part.is_empty());
            let path = path.fold(Path::step(self.scenario.steps.len()), Path::field);
            self.problems.push(Problem::new(path, message));
        }
    }
}
