//! Steps, one after the other, in real time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;
use sim_scenario::Outcome;
use sim_scenario::flows::AFTERMATH;
use sim_scenario::judge::longest;
use sim_scenario::model::{Action, Expect, Fault, FaultKind, Scenario, Until, Wait, time};

use super::flows::Monitors;
use super::traffic::Running;
use super::{ARM, Arm, agents, end, fault, objects};

/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long what is expected of agents may take to be seen: counters are read, not pushed.
const SOON: Duration = Duration::from_secs(2);

/// A run of a scenario.
pub(super) struct Run<'a> {
    arm: &'a Arm,
    scenario: &'a Scenario,
    progress: &'a dyn Fn(&str),
    start: Instant,
    traffic: BTreeMap<String, Running>,
    monitors: Monitors,
    failures: Vec<String>,
    /// Drops before the first step.
    first_drops: agents::Drops,
    /// Drops before which nothing counts for `no-drops`.
    forgiven: agents::Drops,
    /// When faults ended, or will end.
    healed: Vec<Instant>,
}

impl<'a> Run<'a> {
    pub(super) async fn begin(
        arm: &'a Arm,
        scenario: &'a Scenario,
        progress: &'a dyn Fn(&str),
    ) -> anyhow::Result<Self> {
        let monitors = Monitors::start(&arm.cluster);
        let drops = agents::drops(&arm.cluster).await?;
        Ok(Self {
            arm,
            scenario,
            progress,
            start: Instant::now(),
            traffic: BTreeMap::new(),
            monitors,
            failures: Vec::new(),
            first_drops: drops.clone(),
            forgiven: drops,
            healed: Vec::new(),
        })
    }

    /// Carries the steps out. After a wait that was in vain the rest makes no sense and is left out.
    pub(super) async fn steps(&mut self) -> anyhow::Result<()> {
        let scenario = self.scenario;
        for (index, step) in scenario.steps.iter().enumerate() {
            if let Some(at) = step.at {
                tokio::time::sleep_until((self.start + at).into()).await;
            }
            let what = describe(&step.action);
            (self.progress)(&format!("{:>6.1} s  {what}", self.start.elapsed().as_secs_f64()));
            if !self.step(index, &step.action).await? {
                break;
            }
        }
        Ok(())
    }

    fn fail(&mut self, index: usize, why: &str) {
        let why = format!("step {}: {why}", index + 1);
        (self.progress)(&format!("          {why}"));
        self.failures.push(why);
    }

    /// False when the steps shall end here.
    async fn step(&mut self, index: usize, action: &Action) -> anyhow::Result<bool> {
        let client = &self.arm.client;
        let done = match action {
            Action::Pod(pod) => objects::make_pod(&self.arm.cluster, pod),
            Action::DeletePod(name) => objects::delete_pod(client, name).await,
            Action::Delete(object) => objects::delete(client, object).await,
            Action::Apply(list) => {
                // Not in the name in which pods are made: of these it may name a part.
                let apply = |object: &Value| self.arm.cluster.apply_object_as("scenario", object.clone());
                list.iter().try_for_each(|object| Ok(apply(object)?))
            }
            Action::Traffic(traffic) => {
                self.monitors.ready().await;
                let running = Running::start(self.arm, traffic, self.scenario.cluster.family).await;
                self.traffic.insert(traffic.id.clone(), running);
                Ok(())
            }
            Action::Fault(fault) => self.fault(fault).await,
            Action::Request(request) => objects::request(client, request).await,
            Action::Wait(wait) => {
                let why = self.wait(wait).await?;
                if let Some(why) = &why {
                    self.fail(index, why);
                }
                return Ok(why.is_none());
            }
            Action::Expect(expect) => {
                if let Some(why) = self.expect(expect).await? {
                    self.fail(index, &why);
                }
                Ok(())
            }
        };
        // What the cluster refuses is for the scenario's author to know.
        if let Err(e) = done {
            self.fail(index, &format!("{e:#}"));
        }
        Ok(true)
    }

    async fn fault(&mut self, of: &Fault) -> anyhow::Result<()> {
        let cluster = &self.arm.cluster;
        let number = self.arm.seed % u64::from(self.scenario.cluster.nodes.max(1)) + 1;
        match fault::of(of, &format!("node-{number}")) {
            Some(on_lab) => {
                cluster.fault(&on_lab).await?;
                if let Some(after) = fault::ends_after(&on_lab) {
                    self.healed.push(Instant::now() + after);
                }
            }
            None => {
                cluster.heal(of.node.as_deref())?;
                self.healed.push(Instant::now());
            }
        }
        Ok(())
    }

    /// Why it was in vain, if it was.
    async fn wait(&mut self, wait: &Wait) -> anyhow::Result<Option<String>> {
        if let Until::Time(time) = &wait.until {
            tokio::time::sleep(*time).await;
            return Ok(None);
        }
        let over = Instant::now() + wait.within;
        let mut seen = None;
        loop {
            let still = match &wait.until {
                Until::Time(_) => None,
                Until::Ready => self.not_ready(false).await?,
                Until::Traffic(id) => {
                    let ended = self.traffic.get(id).is_none_or(|running| running.progress().ended);
                    (!ended).then(|| format!("traffic {id} goes on"))
                }
                Until::Rest => self.restless(&mut seen).await?,
            };
            let Some(still) = still else { return Ok(None) };
            if Instant::now() >= over {
                return Ok(Some(format!("{still} after {}", time::text(wait.within))));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn not_ready(&self, lingering: bool) -> anyhow::Result<Option<String>> {
        let restless = objects::Pods::list(&self.arm.client).await?.restless(lingering);
        if let Some(pod) = restless.first() {
            return Ok(Some(format!("pod {pod} is not ready or not yet gone")));
        }
        let incomplete = objects::incomplete_workloads(&self.arm.client).await?;
        Ok(incomplete.first().map(|workload| format!("{workload} has not all of its pods")))
    }

    /// What is not at rest. `seen` is when agents were last told something before they are told something for this wait.
    async fn restless(
        &mut self,
        seen: &mut Option<BTreeMap<String, String>>,
    ) -> anyhow::Result<Option<String>> {
        if let Some(still) = self.not_ready(true).await? {
            return Ok(Some(still));
        }
        let goes_on = |running: &&Running| !running.traffic.background && !running.progress().ended;
        if let Some(running) = self.traffic.values().find(goes_on) {
            return Ok(Some(format!("traffic {} goes on", running.traffic.id)));
        }
        // What follows may be of the same packets, and would be taken for its flows.
        if let Some(running) = self.traffic.values().find(|running| running.progress().is_just_over()) {
            return Ok(Some(format!("flows of traffic {} are still told", running.traffic.id)));
        }
        let cluster = &self.arm.cluster;
        if let Some(fault) = cluster.active_faults().iter().find(|fault| fault.left.is_some()) {
            return Ok(Some(format!("the fault {} on {} has not ended", fault.name, fault.node)));
        }
        let Some(seen) = seen else {
            // An agent that is told of this change has been told of everything before it.
            *seen = Some(agents::last_events(cluster));
            let touches = self.arm.touches.fetch_add(1, Ordering::Relaxed);
            objects::touch_node(&self.arm.client, "node-1", touches).await?;
            return Ok(Some("the agents have not been asked".to_owned()));
        };
        for node in cluster.nodes() {
            // An agent that did not answer then has been started since, and has been told everything.
            seen.entry(node.name().to_owned()).or_default();
            if let Some(why) = agents::restless(cluster, node, seen) {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    /// What is not so, after a moment in which it may become so.
    async fn expect(&mut self, expect: &Expect) -> anyhow::Result<Option<String>> {
        let over = Instant::now() + SOON;
        loop {
            let wrong = self.wrong(expect).await?;
            if wrong.is_none() || Instant::now() >= over {
                return Ok(wrong);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn wrong(&mut self, expect: &Expect) -> anyhow::Result<Option<String>> {
        let (cluster, client) = (&self.arm.cluster, &self.arm.client);
        Ok(match expect {
            Expect::PodsReady(count) => {
                let ready: usize =
                    objects::Pods::list(client).await?.ready().values().map(BTreeSet::len).sum();
                (ready as u64 != u64::from(*count)).then(|| format!("{ready} pods are ready, not {count}"))
            }
            Expect::Allocated(count) => {
                let allocated = agents::allocated(cluster).await?;
                (allocated != u64::from(*count))
                    .then(|| format!("{allocated} addresses are allocated, not {count}"))
            }
            Expect::NoDrops => {
                let now = agents::drops(cluster).await?;
                let dropped = agents::since(&self.forgiven, &now);
                self.forgiven = now;
                (!dropped.is_empty()).then(|| format!("packets were dropped: {dropped:?}"))
            }
            Expect::Drops { reason, at_least } => {
                let now = agents::drops(cluster).await?;
                let dropped = agents::since(&self.first_drops, &now).get(reason).copied().unwrap_or(0);
                (dropped < *at_least)
                    .then(|| format!("{dropped} packets were dropped for {reason}, not {at_least}"))
            }
            Expect::Lost { traffic, at_most } => {
                let lost = self.traffic.get(traffic).map_or(0, Running::lost);
                (lost > *at_most).then(|| format!("traffic {traffic} lost {lost}, more than {at_most}"))
            }
            Expect::NotReady(pod) => {
                let name = if pod.contains('/') { pod.clone() } else { format!("default/{pod}") };
                let ready = objects::Pods::list(client).await?.ready();
                ready.values().any(|pods| pods.contains(&name)).then(|| format!("pod {name} is ready"))
            }
        })
    }

    /// Waits for what must end by itself, ends the rest, and reports.
    pub(super) async fn finish(mut self) -> anyhow::Result<Outcome> {
        if self.failures.is_empty() {
            for running in self.traffic.values().filter(|running| !running.traffic.background) {
                let over = Instant::now() + longest(&running.traffic) + SOON;
                while !running.progress().ended && Instant::now() < over {
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
        // What belongs to traffic that ends just now is told a little later.
        tokio::time::sleep(AFTERMATH).await;
        let mut outcome = Outcome {
            scenario: self.scenario.name.clone(),
            arm: ARM.to_owned(),
            seed: Some(self.arm.seed),
            ..Outcome::default()
        };
        for (id, running) in &self.traffic {
            outcome.traffic.insert(id.clone(), running.outcome(&self.monitors));
            self.failures.extend(running.failure(&self.healed));
        }
        let now = agents::drops(&self.arm.cluster).await?;
        outcome.drops = agents::since(&self.first_drops, &now);
        outcome.end = end::state(self.arm).await?;
        outcome.failures = self.failures;
        Ok(outcome)
    }
}

fn describe(action: &Action) -> String {
    match action {
        Action::Pod(pod) => format!("pod {}", pod.name),
        Action::DeletePod(name) => format!("delete pod {name}"),
        Action::Apply(list) => format!("apply {} objects", list.len()),
        Action::Delete(object) => format!("delete {} {}", object.kind, object.name),
        Action::Wait(wait) => match &wait.until {
            Until::Ready => "wait until all pods are ready".to_owned(),
            Until::Rest => "wait for rest".to_owned(),
            Until::Traffic(id) => format!("wait for the end of traffic {id}"),
            Until::Time(time) => format!("wait {}", time::text(*time)),
        },
        Action::Traffic(traffic) => format!("traffic {}: {} to {}", traffic.id, traffic.from, traffic.to),
        Action::Fault(Fault { kind: FaultKind::Heal, node, .. }) => {
            format!("heal {}", node.as_deref().unwrap_or("everything"))
        }
        Action::Fault(fault) => {
            format!("fault {} on {}", fault.kind.word(), fault.node.as_deref().unwrap_or("nodes"))
        }
        Action::Request(request) => format!("{} {}", request.method.word(), request.path),
        Action::Expect(expect) => format!("expect {expect:?}"),
    }
}
