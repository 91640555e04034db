//! A scenario, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use sim_api::object::{at, condition_is_true, name, namespace, str_at};
use sim_api::resource::{NAMESPACES, PODS};
use sim_api::{DeleteOptions, Gr, Patch, Store, Sub, WriteOptions, server};
use sim_scenario::flows::AFTERMATH;
use sim_scenario::model::{Action, Expect, ObjectRef, Pod, Scenario, Step, TrafficExpect, Until, Wait, time};
use sim_scenario::object::is_never_ready;
use sim_scenario::outcome::EndState;

use crate::agents::Death;
use crate::objects::lingers;
use crate::queue::NodeId;
use crate::sim::Sim;
use crate::traffic::TrafficState;
use crate::world::World;

/// How long the cluster may take to come up.
const BOOT: Duration = Duration::from_mins(2);
/// How long agents may take to be at rest again after a restart.
const RESTART: Duration = Duration::from_secs(30);
/// Longer than anything but an established connection is kept.
const SILENCE: Duration = Duration::from_secs(75);
/// Conditions are looked at at least this often.
const GLANCE: Duration = Duration::from_millis(20);

/// Runs the steps of a scenario over a simulated cluster.
pub(crate) struct Runner<'a> {
    sim: &'a Sim,
    begun: Duration,
    drops_seen: u64,
    /// What was not as the scenario says.
    pub(crate) failures: Vec<String>,
}

impl<'a> Runner<'a> {
    /// A runner whose scenario has not begun.
    pub(crate) fn new(sim: &'a Sim) -> Self {
        Self { sim, begun: Duration::ZERO, drops_seen: 0, failures: Vec::new() }
    }

    /// Brings the cluster up and performs all steps; ends early when an invariant is broken.
    pub(crate) fn run(&mut self, scenario: &Scenario) {
        if !self.wait_until(BOOT, World::is_at_rest) {
            let why = self.sim.world().restless();
            self.fail(format!("the cluster does not come up: {why}"));
            return;
        }
        self.begun = self.sim.world().now;
        for (i, step) in scenario.steps.iter().enumerate() {
            if self.sim.world().is_over() {
                return;
            }
            self.step(i + 1, step);
        }
        self.end();
    }

    fn step(&mut self, number: usize, step: &Step) {
        if let Some(at) = step.at {
            self.sim.run_until(self.begun + at);
        }
        let result = match &step.action {
            Action::Pod(pod) => self.make_pod(pod),
            Action::DeletePod(pod) => self.delete_pod(pod),
            Action::Apply(objects) => objects.iter().try_for_each(|object| self.apply(object)),
            Action::Delete(object) => self.delete(object),
            Action::Wait(wait) => self.wait(wait),
            Action::Traffic(traffic) => {
                self.sim.world().begin_traffic(traffic);
                Ok(())
            }
            Action::Fault(fault) => {
                self.sim.world().begin_fault(fault);
                Ok(())
            }
            Action::Request(request) => {
                let (method, body) = (request.method, request.body.as_ref());
                let (status, answer) =
                    server::call(&self.store(), method.word(), &request.path, method.media_type(), body);
                request.wrong(status, &answer).map_or(Ok(()), Err)
            }
            Action::Expect(expect) => self.expect(expect),
        };
        self.sim.world().follow_store();
        if let Err(why) = result {
            self.fail(format!("step {number}: {why}"));
        }
    }

    fn fail(&mut self, why: String) {
        self.sim.world().violate("expectation", why.clone());
        self.failures.push(why);
    }

    /// Lets time go on until something is so; false if it takes longer.
    pub(crate) fn wait_until(&self, within: Duration, is_so: impl Fn(&World) -> bool) -> bool {
        let deadline = self.sim.world().now + within;
        loop {
            let next = {
                let world = self.sim.world();
                if world.is_over() {
                    return false;
                }
                if is_so(&world) {
                    return true;
                }
                if world.now >= deadline {
                    return false;
                }
                let next = world.next_at().unwrap_or(deadline);
                next.max(world.now + GLANCE).min(deadline)
            };
            self.sim.run_until(next);
        }
    }

    fn wait(&self, wait: &Wait) -> Result<(), String> {
        let late = |what: &str, why: String| Err(format!("{what} after {}: {why}", time::text(wait.within)));
        match &wait.until {
            Until::Time(by) => {
                let until = self.sim.world().now + *by;
                self.sim.run_until(until);
            }
            Until::Ready => {
                if !self.wait_until(wait.within, World::is_ready) && !self.sim.world().is_over() {
                    return late("pods are not ready", self.sim.world().restless());
                }
            }
            Until::Rest => {
                if !self.wait_until(wait.within, World::is_at_rest) && !self.sim.world().is_over() {
                    return late("the cluster is not at rest", self.sim.world().restless());
                }
                self.sim.world().check_rest();
            }
            Until::Traffic(id) => {
                let ended = |world: &World| world.traffic.get(id).is_none_or(|traffic| traffic.ended);
                if !self.wait_until(wait.within, ended) && !self.sim.world().is_over() {
                    return late(&format!("traffic {id} has not ended"), "it still runs".to_owned());
                }
            }
        }
        Ok(())
    }

    fn make_pod(&self, pod: &Pod) -> Result<(), String> {
        let store = self.store();
        if store.get(&NAMESPACES, "", &pod.namespace).is_err() {
            let object =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": pod.namespace}});
            store.create(&NAMESPACES, "", object, &WriteOptions::default()).map_err(|e| e.to_string())?;
        }
        let made = store.create(&PODS, &pod.namespace, pod.to_object(), &WriteOptions::default());
        made.map(drop).map_err(|e| format!("pod {}/{}: {e}", pod.namespace, pod.name))
    }

    fn delete_pod(&self, pod: &str) -> Result<(), String> {
        let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
        let store = self.store();
        let found = store.get(&PODS, namespace, name).map_err(|e| format!("pod {namespace}/{name}: {e}"))?;
        let grace = if lingers(&found).is_zero() { Some(1) } else { None };
        let options = DeleteOptions { grace_period_s: grace, ..DeleteOptions::default() };
        let deleted = store.delete(&PODS, namespace, name, &options);
        deleted.map(drop).map_err(|e| format!("pod {namespace}/{name}: {e}"))
    }

    fn apply(&self, object: &Value) -> Result<(), String> {
        let store = self.store();
        let what = || format!("{} {}", str_at(object, &["kind"]), name(object));
        let gr = resource(&store, str_at(object, &["apiVersion"]), str_at(object, &["kind"]))?;
        let scoped = store.resource(&gr).is_some_and(|definition| definition.namespaced);
        let namespace = match (scoped, namespace(object)) {
            (false, _) => "",
            (true, "") => "default",
            (true, given) => given,
        };
        let options = WriteOptions {
            field_manager: Some("scenario".to_owned()),
            force: true,
            ..WriteOptions::default()
        };
        let applied =
            store.patch(&gr, namespace, name(object), Sub::Main, &Patch::Apply(object.clone()), &options);
        applied.map_err(|e| format!("{}: {e}", what()))?;
        let status = at(object, &["status"]).clone();
        if !status.is_null() {
            // As a controller would: the status is a resource of its own.
            let written =
                store.modify(&gr, namespace, name(object), Sub::Status, |found| found["status"] = status);
            written.map_err(|e| format!("status of {}: {e}", what()))?;
        }
        Ok(())
    }

    fn delete(&self, object: &ObjectRef) -> Result<(), String> {
        let store = self.store();
        let gr = resource(&store, &object.api_version, &object.kind)?;
        let scoped = store.resource(&gr).is_some_and(|definition| definition.namespaced);
        let namespace = if scoped { object.namespace.as_deref().unwrap_or("default") } else { "" };
        let deleted = store.delete(&gr, namespace, &object.name, &DeleteOptions::default());
        deleted.map(drop).map_err(|e| format!("{} {}: {e}", object.kind, object.name))
    }

    fn store(&self) -> Store {
        self.sim.world().store.clone()
    }

    fn expect(&mut self, expect: &Expect) -> Result<(), String> {
        let world = self.sim.world();
        let wrong = |what: String| Err(what);
        match expect {
            Expect::PodsReady(wanted) => {
                let ready = world.ready_pods().values().map(BTreeSet::len).sum::<usize>();
                if ready != *wanted as usize {
                    return wrong(format!("{ready} pods are ready, {wanted} are expected"));
                }
            }
            Expect::Allocated(wanted) => {
                let allocated: u64 = (0..world.nodes.len()).map(|n| world.allocated(n)).sum();
                if allocated != u64::from(*wanted) {
                    return wrong(format!("{allocated} addresses are allocated, {wanted} are expected"));
                }
            }
            Expect::NoDrops => {
                let drops = world.check.unicast_drops;
                let new = drops - self.drops_seen;
                drop(world);
                self.drops_seen = drops;
                if new > 0 {
                    return wrong(format!("{new} packets were dropped, none is expected"));
                }
            }
            Expect::Drops { reason, at_least } => {
                let found = world.check.honest_drops.get(reason.as_str()).copied().unwrap_or(0);
                if found < *at_least {
                    return wrong(format!(
                        "{found} packets were dropped as {reason}, at least {at_least} are expected"
                    ));
                }
            }
            Expect::Lost { traffic, at_most } => {
                let counts = world.traffic.get(traffic).map(TrafficState::counts).unwrap_or_default();
                let lost = counts.sent - counts.answered;
                if lost > *at_most {
                    return wrong(format!("traffic {traffic} lost {lost}, at most {at_most} are expected"));
                }
            }
            Expect::NotReady(pod) => {
                let full = if pod.contains('/') { pod.clone() } else { format!("default/{pod}") };
                if world.running_pod(&full).is_some() {
                    return wrong(format!("pod {full} is ready, which it should not be"));
                }
            }
        }
        Ok(())
    }

    /// What is still to be judged when all steps are done.
    fn end(&mut self) {
        let mut failures = Vec::new();
        {
            let world = self.sim.world();
            for state in world.traffic.values() {
                failures.extend(world.judge_traffic(state));
            }
        }
        for failure in failures {
            self.fail(failure);
        }
        if self.wait_until(RESTART, World::is_at_rest) {
            self.collect_all();
            // A fault that has no end may keep agents from starting.
            if !self.sim.world().cluster_faults.any() {
                self.restart_all();
            }
        } else {
            // The scenario ends in the middle of something, and nothing can be said but that.
            let mut world = self.sim.world();
            if !world.is_over() {
                world.unrested = world.restless();
            }
        }
    }

    /// All agents die and come back at rest: nothing of what they find may be changed.
    fn restart_all(&self) {
        let nodes = self.sim.world().nodes.len();
        // What is known in the midst of a list is acted on, too.
        self.sim.world().one_by_one = true;
        for n in 0..nodes {
            self.sim.world().kill_agent(n, Death::default());
        }
        if !self.wait_until(RESTART, World::is_at_rest) {
            let mut world = self.sim.world();
            if !world.is_over() {
                let why = world.restless();
                world.violate(
                    "restart",
                    format!("agents that were restarted at rest do not come to rest: {why}"),
                );
            }
            return;
        }
        let mut world = self.sim.world();
        let changed = world.nodes.iter().find(|node| !node.listened && node.commands.rows_changed > 0);
        if let Some(node) = changed {
            let message = format!(
                "the agent of {} changed {} rows after a restart although nothing had changed",
                node.name, node.commands.rows_changed
            );
            world.violate("restart", message);
        }
        world.check_rest();
    }

    /// Long after the last packet, every agent looks for connections that are over: none may be left.
    fn collect_all(&self) {
        let until = self.sim.world().now + SILENCE;
        let revisions = self.sim.world().revisions();
        self.sim.run_until(until);
        if self.sim.world().revisions() != revisions {
            let message = "nothing happened, and a revision was raised".to_owned();
            self.sim.world().violate("tables", message);
        }
        {
            let mut world = self.sim.world();
            for n in 0..world.nodes.len() {
                world.tell_agent(n, agent_control::Event::CtGc);
            }
        }
        self.sim.run_until(until + Duration::from_secs(1));
        self.sim.world().check_collected();
    }
}

/// Whether a pod is ready, has ended, or runs and never becomes ready.
fn is_as_ready_as_it_gets(pod: &Value) -> bool {
    match str_at(pod, &["status", "phase"]) {
        "Failed" | "Succeeded" => true,
        "Running" if is_never_ready(pod) => true,
        _ => condition_is_true(pod, "Ready"),
    }
}

fn resource(store: &Store, api_version: &str, kind: &str) -> Result<Gr, String> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let found = store.resource_of_kind(group, kind);
    found
        .map(|definition| definition.gr.clone())
        .ok_or_else(|| format!("the cluster knows no kind {kind} in {api_version}"))
}

impl World {
    /// Whether all pods are ready and deleted ones are gone.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_settled(false)
    }

    /// Whether all pods are what they shall become; with `lingering`, deleted ones may go on to serve.
    fn is_settled(&self, lingering: bool) -> bool {
        self.store.list(&PODS, "").iter().all(|pod| is_as_ready_as_it_gets(pod))
            && self.nodes.iter().all(|node| node.kubelet.is_settled(lingering))
    }

    /// Whether nothing has anything left to do.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.restless().is_empty()
    }

    /// Who still has something to do; empty: nobody.
    pub(crate) fn restless(&self) -> String {
        if self.cluster_faults.any_ends() {
            return "a fault goes on".to_owned();
        }
        // The cheap questions first: this is asked every few milliseconds.
        if let Some((id, _)) = self.traffic.iter().find(|(_, state)| !state.ended && !state.spec.background) {
            return format!("traffic {id} goes on");
        }
        // Where flows are noted, what follows may be of the same packets, and would be taken for them.
        let is_told = |state: &TrafficState| {
            state.flows.is_some() && state.ended_at.is_some_and(|at| self.now <= at + AFTERMATH)
        };
        if let Some((id, _)) = self.traffic.iter().find(|(_, state)| !state.spec.background && is_told(state))
        {
            return format!("flows of traffic {id} are still told");
        }
        for (n, node) in self.nodes.iter().enumerate() {
            if let Some(why) = self.restless_node(n) {
                return format!("{}: {why}", node.name);
            }
        }
        if self.controllers_are_due() {
            return "the controllers have something left to do".to_owned();
        }
        let under_way = self.under_way();
        if !under_way.is_empty() {
            return under_way.to_owned();
        }
        if !self.is_settled(true) {
            let pods = self.store.list(&PODS, "");
            let pod = pods.iter().find(|pod| !is_as_ready_as_it_gets(pod));
            return pod.map_or_else(
                || "a pod is not settled".to_owned(),
                |pod| {
                    let node = str_at(pod, &["spec", "nodeName"]);
                    format!("pod {}/{} is not ready on `{node}`", namespace(pod), name(pod))
                },
            );
        }
        String::new()
    }

    fn restless_node(&self, n: NodeId) -> Option<String> {
        let node = &self.nodes[n];
        if !node.registered {
            return Some("its object is not made yet".into());
        }
        let agent = &node.agent;
        let why = if !agent.alive {
            "there is no agent"
        } else if agent.running || !agent.inbox.is_empty() || !agent.idle {
            "the agent is at work"
        } else if !agent.watch.following || agent.watch.position < self.node_log.len() {
            "the agent has not seen all nodes"
        } else if !agent.calls.is_empty() || !node.delete_queue.is_empty() {
            "a CNI call waits"
        } else if node.kubelet.sandboxes.len()
            != node.kubelet.pods.values().filter(|work| work.sandbox.is_some()).count()
        {
            "a sandbox is being removed"
        } else {
            ""
        };
        let errors = agent.agent.as_ref().map(agent_control::Agent::failures).unwrap_or_default();
        let why = match (why, errors.is_empty()) {
            ("", true) => return None,
            ("", false) => "the agent will try again",
            (why, _) => why,
        };
        let error = errors.first().map(|(object, error)| format!(" ({object}: {error})")).unwrap_or_default();
        Some(format!("{why}{error}"))
    }

    /// Ready pods by node.
    pub(crate) fn ready_pods(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut ready: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pod in self.store.list(&PODS, "") {
            if condition_is_true(&pod, "Ready") && at(&pod, &["metadata", "deletionTimestamp"]).is_null() {
                let node = str_at(&pod, &["spec", "nodeName"]).to_owned();
                ready.entry(node).or_default().insert(format!("{}/{}", namespace(&pod), name(&pod)));
            }
        }
        ready
    }

    /// Addresses of pods that run, and of nodes.
    pub(crate) fn addresses(&self) -> BTreeMap<String, Vec<IpAddr>> {
        let of_nodes = self.nodes.iter().map(|node| (node.name.clone(), node.addresses.clone()));
        let of_pods = self.nodes.iter().flat_map(|node| {
            node.kubelet.sandboxes.values().map(|sandbox| (sandbox.pod.clone(), sandbox.addresses.clone()))
        });
        of_nodes.chain(of_pods.filter(|(_, addresses)| !addresses.is_empty())).collect()
    }

    /// The latest version of a policy that is in force on each node, as its agent says.
    pub(crate) fn policy_revisions(&self) -> BTreeMap<String, u64> {
        let known = |node: &crate::node::SimNode| {
            Some((node.name.clone(), node.agent.agent.as_ref()?.policy_revision()))
        };
        self.nodes.iter().filter_map(known).collect()
    }

    /// The latest version of the policies that are there.
    pub(crate) fn policy_version(&self) -> u64 {
        let version = |object: &sim_api::store::Object| -> u64 {
            str_at(object, &["metadata", "resourceVersion"]).parse().unwrap_or(0)
        };
        let all = crate::kinds::policy_resources().flat_map(|gr| self.store.list(&gr, ""));
        all.map(|object| version(&object)).max().unwrap_or(0)
    }

    /// The revision of each node's rows.
    fn revisions(&self) -> Vec<u32> {
        self.nodes
            .iter()
            .map(|node| node.native.tables().config.get(0).map_or(0, |row| row.revision))
            .collect()
    }

    /// Addresses in use, as the agent of a node has it.
    pub(crate) fn allocated(&self, n: NodeId) -> u64 {
        let Some(agent) = &self.nodes[n].agent.agent else { return 0 };
        agent.ipam(self.agent_now(n)).iter().map(|pool| pool.used).sum()
    }

    /// The end state in terms of all arms.
    pub(crate) fn end_state(&self) -> EndState {
        let mut end = EndState { pods: self.ready_pods(), ..EndState::default() };
        for node in &self.nodes {
            let Some(agent) = &node.agent.agent else { continue };
            let endpoints = agent.endpoints();
            let names = endpoints.iter().map(|endpoint| format!("{}/{}", endpoint.namespace, endpoint.pod));
            end.endpoints.insert(node.name.clone(), names.collect());
            let mut behind: BTreeMap<String, u32> = BTreeMap::new();
            for (_, value) in node.native.tables().dump("IPCACHE").unwrap_or_default() {
                let row =
                    <dataplane_abi::ipcache::IpCacheEntry as zerocopy::FromBytes>::read_from_bytes(&value);
                let remote = row.ok().and_then(|row| row.node_ip()).and_then(|ip| self.node_at(ip));
                if let Some(remote) = remote {
                    *behind.entry(self.nodes[remote].name.clone()).or_default() += 1;
                }
            }
            end.ipcache.insert(node.name.clone(), behind);
        }
        end
    }

    /// Whether traffic has an end at a node whose agent has found an older state directory, as far as its ends are known.
    fn is_of_restored(&self, state: &TrafficState) -> bool {
        let is_restored = |n: &NodeId| self.nodes[*n].restored;
        if state.nodes.is_empty() {
            return (0..self.nodes.len()).any(|n| is_restored(&n));
        }
        state.nodes.iter().any(is_restored)
    }

    /// What is wrong with traffic, by what is expected of it.
    pub(crate) fn judge_traffic(&self, state: &TrafficState) -> Vec<String> {
        let spec = &state.spec;
        let counts = state.counts();
        let subject = format!("traffic {} ({} → {})", spec.id, spec.from, spec.to);
        let told = format!(
            "{} sent, {} answered, {} reset, {} refused",
            counts.sent, counts.answered, counts.resets, counts.refused
        );
        let mut wrong = Vec::new();
        match spec.expect {
            TrafficExpect::Any => {}
            // Of nodes whose agent has found an older state directory nothing is asked.
            TrafficExpect::Ok if self.is_of_restored(state) => {}
            TrafficExpect::Ok => {
                if let Some(trouble) = &state.trouble {
                    wrong.push(format!("{subject} could not be sent: {trouble}"));
                }
                // What was sent a moment ago may still be under way.
                let open = u32::from(!state.ended);
                if counts.answered + open < counts.sent
                    || counts.resets + counts.refused > 0
                    || counts.sent == 0
                {
                    wrong.push(format!("{subject} should be answered: {told}"));
                }
            }
            TrafficExpect::Fail => {
                if counts.answered > 0 {
                    wrong.push(format!("{subject} should not be answered: {told}"));
                }
            }
            TrafficExpect::Refused => {
                let refused = counts.resets + counts.refused;
                if counts.answered > 0 || counts.sent == 0 || refused < counts.sent {
                    wrong.push(format!("{subject} should be refused: {told}"));
                }
            }
            TrafficExpect::Survive => {
                let lives = state
                    .last_answer
                    .is_some_and(|last| self.whole_since(state).is_none_or(|since| last >= since));
                if counts.resets > 0 || !lives {
                    wrong.push(format!("{subject} should survive: {told}"));
                }
            }
        }
        if let Some(why) = state.wanted.wrong(&state.answers()) {
            wrong.push(format!("{subject}: {why}"));
        }
        wrong
    }
}
