//! Which expectations of a scenario are right for every correct product, whatever the seed.
//!
//! A random scenario, or one that has lost steps while it was made smaller, must not fail because it asks for too much.
//! [`strongest`] says for each traffic the strongest expectation that is sure, [`doubts`] everything that a scenario asks for and that is not sure.
//! What is sure, in a word each; whoever is in doubt gets `any`:
//!
//! - **ok**: both ends were ready when it began (a sure wait stood between their making and it) and are not deleted before it has surely
//!   ended; no lossy fault (link, partition, stale list of nodes, conntrack or fragment table full) touches it; the conntrack and fragment tables are not made
//!   small; something answers. Deaths, stalls and clocks of agents, the API server, the container runtime and a full ring of events touch no packet.
//! - **survive**: a TCP stream that began undisturbed and had its connection when lossy faults touched it, if it surely goes on for long enough after the last of them
//!   ([`calm`]) for TCP's retransmission timer (RFC 6298, section 5.5: it doubles) to fire once more.
//! - **fail**: TCP, HTTP or UDP to a port of a pod that no pod of the scenario listens on.
//! - A lossy fault touches traffic whose ends are on different nodes, or whose nodes are unknown, if it is on one of these nodes.
//!   It is over with its time, a heal, or the rest after it; its aftermath (timers, neighbour entries) ends with the next sure wait for rest.
//! - A wait is sure if what can hold it up (faults, restarts, addresses in quarantine, traffic) is over well within its time.
//! - Large datagrams come in fragments, and receivers have few places to put them together: only one such traffic at a time is sure.
//! - While policies are there, and after that until a wait for rest, nothing gets through for sure; nor does it where all pods are isolated.
//! - Who answers, whom they see, what the API server answers, and that a call is refused at once is never sure.
//! - Services, the world, node ports and bare addresses are never sure.

mod clock;
mod ends;
mod faults;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{
    Action, Enforcement, Expect, Fault, FaultKind, Scenario, Step, Traffic, TrafficExpect, TrafficKind, Until,
};
use crate::validate::traffic::answered_by;
use clock::{Clock, Moment};
pub(crate) use ends::capacity;
use ends::{Pods, Sides};
use faults::{Active, Class, calm};

/// Something a scenario asks for that is not sure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doubt {
    /// What asks: `traffic t1`, `wait for ready`. The same after other steps were removed.
    pub subject: String,
    /// Why it is not sure.
    pub why: String,
}

/// For each traffic the strongest expectation that is sure.
pub fn strongest(scenario: &Scenario) -> BTreeMap<String, TrafficExpect> {
    let judge = Judge::of(scenario);
    judge.traffic.iter().map(|open| (open.traffic.id.clone(), open.verdict(scenario).0)).collect()
}

/// Everything a scenario asks for that is not sure; empty for generated ones.
pub fn doubts(scenario: &Scenario) -> BTreeSet<Doubt> {
    let mut judge = Judge::of(scenario);
    for open in &judge.traffic {
        let (sure, why) = open.verdict(scenario);
        let wanted = open.traffic.expect;
        let enough = match wanted {
            TrafficExpect::Any => true,
            TrafficExpect::Survive => matches!(sure, TrafficExpect::Ok | TrafficExpect::Survive),
            TrafficExpect::Ok | TrafficExpect::Fail => sure == wanted,
            TrafficExpect::Refused => false,
        };
        let asks_more = open.traffic.answered_by.is_some() || open.traffic.seen_as.is_some();
        if !enough || asks_more {
            judge.doubts.insert(Doubt { subject: format!("traffic {}", open.traffic.id), why });
        }
    }
    judge.doubts
}

/// Gives every wait the time that it may need, and every traffic the strongest expectation that is sure then.
pub fn settle(scenario: &mut Scenario) {
    let needed = Judge::of(scenario).needed;
    for (index, needed) in needed {
        if let Some(Step { action: Action::Wait(wait), .. }) = scenario.steps.get_mut(index) {
            // In half minutes, which are easier to read.
            wait.within = Duration::from_secs(needed.as_secs().div_ceil(30).saturating_add(1) * 30);
        }
    }
    let strongest = strongest(scenario);
    for step in &mut scenario.steps {
        if let Action::Traffic(traffic) = &mut step.action {
            traffic.expect = strongest.get(&traffic.id).copied().unwrap_or(TrafficExpect::Any);
            (traffic.answered_by, traffic.seen_as) = (None, None);
        }
    }
}

/// Whether it is only about Node objects of machines that the cluster does not have, which no traffic of a scenario meets.
fn is_about_far_nodes(action: &Action) -> bool {
    let far = |kind: &str, name: &str| kind == "Node" && !name.starts_with("node-");
    match action {
        Action::Apply(objects) => objects.iter().all(|object| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            far(&text(&object["kind"]), &text(&object["metadata"]["name"]))
        }),
        Action::Delete(object) => far(&object.kind, &object.name),
        _ => false,
    }
}

/// Whether it is only about policies, and about labels of what is there already: no pod comes or goes by it.
fn is_about_policies(action: &Action) -> bool {
    let kind =
        |kind: &str| kind.ends_with("NetworkPolicy") || matches!(kind, "CiliumCIDRGroup" | "Namespace");
    match action {
        Action::Apply(objects) => objects.iter().all(|object| {
            let of = object["kind"].as_str().unwrap_or_default();
            kind(of) || (matches!(of, "Pod" | "Node") && object.get("spec").is_none())
        }),
        Action::Delete(object) => object.kind != "Namespace" && kind(&object.kind),
        _ => false,
    }
}

/// Whether it is only about services: no pod comes or goes by it, and traffic between pods does not meet them.
fn is_about_services(action: &Action) -> bool {
    match action {
        Action::Apply(objects) => objects.iter().all(|object| object["kind"] == "Service"),
        Action::Delete(object) => object.kind == "Service",
        _ => false,
    }
}

/// The policies that it applies (true) or deletes, by kind, namespace and name.
fn policies_of(action: &Action) -> Vec<(bool, (String, String, String))> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    match action {
        Action::Apply(objects) => objects
            .iter()
            .map(|object| {
                let meta = &object["metadata"];
                (true, (text(&object["kind"]), text(&meta["namespace"]), text(&meta["name"])))
            })
            .filter(|(_, (kind, ..))| kind.ends_with("NetworkPolicy"))
            .collect(),
        Action::Delete(object) => {
            let namespace = object.namespace.clone().unwrap_or_default();
            vec![(false, (object.kind.clone(), namespace, object.name.clone()))]
        }
        _ => Vec::new(),
    }
}

/// Whether pods may come of it that the scenario does not name. Node objects and namespaces bring none.
fn may_make_pods(action: &Action) -> bool {
    match action {
        Action::Apply(objects) => objects.iter().any(|object| {
            !matches!(object.get("kind").and_then(serde_json::Value::as_str), Some("Node" | "Namespace"))
                && !is_about_policies(action)
                && !is_about_services(action)
        }),
        _ => false,
    }
}

/// The longest that traffic can take: every one waits for its time.
pub fn longest(traffic: &Traffic) -> Duration {
    let runs = if traffic.family == Some(crate::model::Families::Dual) { 2 } else { 1 };
    (traffic.interval + traffic.timeout).saturating_mul(traffic.count).saturating_mul(runs)
}

/// What has gone on for so long undisturbed has its connection, and knows the way.
const ESTABLISHED: Duration = Duration::from_millis(100);

/// Traffic and what has happened to it so far.
struct Open<'a> {
    traffic: &'a Traffic,
    sides: Sides,
    begun: Moment,
    ended: bool,
    /// Why it is neither ok nor surviving.
    spoilt: Option<String>,
    /// Why it is not ok although it may survive.
    lossy: Option<String>,
    /// Lossy faults that touch it and have no end yet.
    endless: u32,
    /// So long after its beginning it must still go on to count as surviving.
    must_last: Duration,
}

impl Open<'_> {
    fn verdict(&self, scenario: &Scenario) -> (TrafficExpect, String) {
        let Traffic { kind, count, interval, .. } = self.traffic;
        if let Some(port) = self.traffic.port.filter(|_| self.sides.to_pod) {
            let anybody = scenario.steps.iter().any(|step| {
                matches!(&step.action, Action::Pod(pod) if pod.serve.iter().any(|serve| serve.port == port))
            });
            if !anybody && !scenario.steps.iter().any(|step| may_make_pods(&step.action)) {
                return (TrafficExpect::Fail, "nothing listens on the port".to_owned());
            }
        }
        if let Some(why) = &self.spoilt {
            return (TrafficExpect::Any, why.clone());
        }
        let Some(why) = &self.lossy else {
            return (TrafficExpect::Ok, "nothing touches it".to_owned());
        };
        let least = interval.saturating_mul(count.saturating_sub(1));
        if *kind == TrafficKind::Tcp && self.endless == 0 && least >= self.must_last {
            return (TrafficExpect::Survive, why.clone());
        }
        (TrafficExpect::Any, why.clone())
    }
}

/// Whether pods that no policy selects are isolated too.
fn isolates_all(scenario: &Scenario) -> bool {
    scenario.cluster.enforcement == Enforcement::Always
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Judge<'a> {
    scenario: &'a Scenario,
    clock: Clock,
    pods: Pods<'a>,
    faults: Vec<Active<'a>>,
    traffic: Vec<Open<'a>>,
    doubts: BTreeSet<Doubt>,
    /// Objects were applied of which nothing is known here.
    strangers: bool,
    /// Policies that are there.
    policies: BTreeSet<(String, String, String)>,
    /// Policies may be in force, perhaps only still.
    policed: bool,
    /// Nothing has changed since a sure wait for rest.
    rested: bool,
    /// The longest that a killed agent is away.
    longest_restart: Duration,
    /// A table of the agent was full since the last rest: what was refused is tried again late.
    refused: bool,
    /// DELs may come until this moment has been left so far behind.
    late_dels: Option<(Moment, Duration)>,
    /// How long each wait may take, by step.
    needed: Vec<(usize, Duration)>,
}

impl<'a> Judge<'a> {
    fn of(scenario: &'a Scenario) -> Self {
        let mut judge = Self {
            scenario,
            clock: Clock::default(),
            pods: Pods::new(&scenario.cluster),
            faults: Vec::new(),
            traffic: Vec::new(),
            doubts: BTreeSet::new(),
            strangers: false,
            policies: BTreeSet::new(),
            policed: isolates_all(scenario),
            rested: false,
            longest_restart: Duration::ZERO,
            refused: false,
            late_dels: None,
            needed: Vec::new(),
        };
        for (index, step) in scenario.steps.iter().enumerate() {
            if let Some(at) = step.at {
                judge.clock.at(at);
            }
            judge.pass();
            judge.step(index, &step.action);
        }
        judge
    }

    fn doubt(&mut self, subject: impl Into<String>, why: impl Into<String>) {
        self.doubts.insert(Doubt { subject: subject.into(), why: why.into() });
    }

    /// What time alone has ended.
    fn pass(&mut self) {
        let clock = self.clock;
        for open in self.traffic.iter_mut().filter(|open| !open.ended) {
            open.ended = clock.since(open.begun).least > longest(open.traffic) + Duration::from_secs(1);
        }
        for fault in &mut self.faults {
            fault.pass(&clock);
        }
        if self.late_dels.is_some_and(|(from, by)| clock.since(from).least > by + Duration::from_secs(1)) {
            self.late_dels = None;
        }
    }

    fn step(&mut self, index: usize, action: &'a Action) {
        match action {
            Action::Pod(pod) => {
                self.rested = false;
                self.pods.make(pod);
            }
            Action::DeletePod(name) => {
                self.rested = false;
                let key = self.pods.delete(name);
                for open in
                    self.traffic.iter_mut().filter(|open| !open.ended && open.sides.pods.contains(&key))
                {
                    open.spoilt.get_or_insert_with(|| format!("pod `{key}` is deleted meanwhile"));
                }
            }
            Action::Apply(_) | Action::Delete(_)
                if is_about_far_nodes(action) || is_about_services(action) =>
            {
                self.rested = false;
            }
            Action::Apply(_) | Action::Delete(_) if is_about_policies(action) => {
                self.rested = false;
                for (applied, policy) in policies_of(action) {
                    if applied {
                        self.policies.insert(policy);
                        self.policed = true;
                    } else {
                        self.policies.remove(&policy);
                    }
                }
                if self.policed {
                    for open in self.traffic.iter_mut().filter(|open| !open.ended) {
                        open.spoilt.get_or_insert_with(|| "policies may forbid it".to_owned());
                    }
                }
            }
            Action::Apply(_) | Action::Delete(_) | Action::Request(_) => {
                self.rested = false;
                self.strangers = true;
                self.pods.none_is_ready();
                for open in self.traffic.iter_mut().filter(|open| !open.ended) {
                    open.spoilt.get_or_insert_with(|| {
                        "objects of which nothing is known here change meanwhile".to_owned()
                    });
                }
            }
            Action::Wait(wait) => self.wait(index, wait),
            Action::Traffic(traffic) => self.begin(traffic),
            Action::Fault(fault) => self.fault(fault),
            Action::Expect(expect) => self.expect(expect),
        }
    }

    fn begin(&mut self, traffic: &'a Traffic) {
        let sides = self.pods.sides(traffic);
        let mut open = Open {
            traffic,
            spoilt: sides.doubt.clone().or_else(|| self.small_tables()),
            sides,
            begun: self.clock.now(),
            ended: false,
            lossy: None,
            endless: 0,
            must_last: Duration::ZERO,
        };
        if let (Some(port), Some(serves)) = (traffic.port, &open.sides.serves)
            && !answered_by(serves, traffic.kind, port)
        {
            open.spoilt.get_or_insert_with(|| format!("nothing answers at port {port}"));
        }
        if let Some(fault) = self.faults.iter().find(|fault| fault.touches(&open.sides)) {
            open.spoilt.get_or_insert_with(|| format!("it begins under the fault `{}`", fault.kind.word()));
        }
        if self.policed {
            open.spoilt.get_or_insert_with(|| "policies may forbid it".to_owned());
        }
        self.fragments(&mut open);
        self.traffic.push(open);
    }

    /// Only one traffic of large datagrams at a time is sure.
    fn fragments(&mut self, open: &mut Open<'a>) {
        let mtu = self.scenario.cluster.mtu;
        if !in_fragments(open.traffic, mtu) {
            return;
        }
        let lost = |other: &&Open<'_>| {
            let lossy = other.spoilt.is_some() || other.lossy.is_some();
            lossy && in_fragments(other.traffic, mtu) && !other.sides.pods.is_disjoint(&open.sides.pods)
        };
        if let Some(other) = self.traffic.iter().find(lost) {
            let why = format!("fragments of {} may still lie about", other.traffic.id);
            open.spoilt.get_or_insert(why);
        }
        let why = || "several send fragments at once".to_owned();
        for other in self.traffic.iter_mut().filter(|other| !other.ended && in_fragments(other.traffic, mtu))
        {
            other.spoilt.get_or_insert_with(why);
            open.spoilt.get_or_insert_with(why);
        }
        if !open.sides.only_pods {
            open.spoilt.get_or_insert_with(|| "nodes and fragments are not sure".to_owned());
        }
    }

    fn small_tables(&self) -> Option<String> {
        let small = |name: &&String| faults::per_packet(name);
        self.scenario.cluster.tables.keys().find(small).map(|name| format!("the table {name} is small"))
    }

    fn fault(&mut self, fault: &'a Fault) {
        self.rested = false;
        if matches!(fault.kind, FaultKind::Heal) {
            for active in self.faults.iter_mut().filter(|active| active.on) {
                if fault.node.is_some() && fault.node != active.node {
                    continue;
                }
                active.on = false;
                let end = self.clock;
                outlast(&mut self.traffic, active, |begun| end.since(begun).most, active.age(&end));
                if active.lasts.is_none() {
                    for open in self.traffic.iter_mut().filter(|open| active.touches(&open.sides)) {
                        // What began after it is spoilt anyway.
                        open.endless = open.endless.saturating_sub(1);
                    }
                }
            }
            return;
        }
        if let FaultKind::Kill(kill) = &fault.kind {
            self.longest_restart = self.longest_restart.max(kill.restart_after);
        }
        let active = Active::new(fault, &self.clock);
        if active.class == Class::Tables {
            self.refused = true;
        }
        let clock = self.clock;
        for open in self.traffic.iter_mut().filter(|open| !open.ended && active.touches(&open.sides)) {
            open.lossy.get_or_insert_with(|| format!("the fault `{}` touches it", fault.kind.word()));
            if clock.since(open.begun).least < ESTABLISHED {
                open.spoilt.get_or_insert_with(|| {
                    format!("the fault `{}` may keep it from beginning", fault.kind.word())
                });
            }
            open.endless += u32::from(fault.lasts.is_none());
        }
        if let Some(lasts) = fault.lasts {
            outlast(&mut self.traffic, &active, |begun| clock.since(begun).most + lasts, lasts);
        }
        self.faults.push(active);
    }

    fn expect(&mut self, expect: &Expect) {
        let sure = match expect {
            Expect::PodsReady(count) => {
                !self.strangers && self.pods.all_ready() && u64::from(*count) == self.pods.alive() as u64
            }
            Expect::Allocated(count) => {
                let late =
                    self.late_dels.is_some() || self.faults.iter().any(|fault| fault.late_del().is_some());
                *count == 0 && !self.strangers && self.rested && self.pods.alive() == 0 && !late
            }
            Expect::Lost { traffic, at_most } => self.traffic.iter().any(|open| {
                open.traffic.id == *traffic
                    && (*at_most >= open.traffic.count || open.verdict(self.scenario).0 == TrafficExpect::Ok)
            }),
            Expect::NoDrops | Expect::Drops { .. } | Expect::NotReady(_) => false,
        };
        if !sure {
            let subject = match expect {
                Expect::PodsReady(_) => "expect pods-ready".to_owned(),
                Expect::Allocated(_) => "expect allocated".to_owned(),
                Expect::NoDrops => "expect no-drops".to_owned(),
                Expect::Drops { reason, .. } => format!("expect drops {reason}"),
                Expect::Lost { traffic, .. } => format!("expect lost {traffic}"),
                Expect::NotReady(pod) => format!("expect not-ready {pod}"),
            };
            self.doubt(subject, "it does not follow from the steps before");
        }
    }
}

/// A lossy fault that touches traffic is over at most so long after the traffic began: the traffic must go on for a while after that.
fn outlast(
    traffic: &mut [Open<'_>],
    fault: &Active<'_>,
    over: impl Fn(Moment) -> Duration,
    lasted: Duration,
) {
    for open in traffic.iter_mut().filter(|open| !open.ended && fault.touches(&open.sides)) {
        open.must_last = open.must_last.max(over(open.begun) + calm(lasted));
    }
}

/// Whether it is larger than what surely fits into one packet.
fn in_fragments(traffic: &Traffic, mtu: u16) -> bool {
    /// IPv6 header, VXLAN with its outer headers, and some.
    const HEADERS: u16 = 120;
    matches!(traffic.kind, TrafficKind::Ping | TrafficKind::Udp) && traffic.size > mtu.saturating_sub(HEADERS)
}

/// The word of a wait, for doubts.
fn word(until: &Until) -> String {
    match until {
        Until::Ready => "ready".to_owned(),
        Until::Rest => "rest".to_owned(),
        Until::Traffic(id) => format!("traffic {id}"),
        Until::Time(_) => "time".to_owned(),
    }
}
