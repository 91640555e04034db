//! The suites in the simulator: real agents and the real packet path in this process, asked by single packets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};
use sim_native::verdicts::{Outcome, Standing};
use sim_oracle::{Attempt, End, Family as OracleFamily, Options as Reading};
use sim_policy::connectivity::{self, PLACE, Who};
use sim_policy::suite::{self, Change, Pod};
use sim_scenario::model::Routing;

use super::objects::Reference;
use super::{connectivity as live, generated, network_policy, report};
use crate::cluster::Family;
use crate::report::{self as reports, Report};

/// What stands in the report for the API server's version.
const SERVER: &str = "simulated";
/// The nodes.
const NODES: [&str; 2] = ["node-1", "node-2"];

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How packets travel between nodes.
    pub routing: Routing,
    /// Families to ask in.
    pub families: Vec<Family>,
}

/// Runs cases of the network policy suite.
///
/// # Errors
/// When the cluster cannot be made.
pub fn run_network_policy(
    cases: &[(u64, suite::Case)],
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let mut session = Session::new(suite::objects(), options, |_| json!({}))?;
    let title = |case: &suite::Case| format!("{}: {}", case.name, case.shows);
    Ok(run(cases, network_policy::NAME, options, progress, title, |case| session.network_policy(case)))
}

/// Runs cases of the connectivity suite.
///
/// # Errors
/// When the cluster cannot be made.
pub fn run_connectivity(
    cases: &[(u64, connectivity::Case)],
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    // Nodes speak themselves here.
    let objects = connectivity::objects().into_iter().filter(|object| object["spec"]["hostNetwork"] != true);
    let mut session = Session::new(objects.collect(), options, |_| json!({}))?;
    let title = |case: &connectivity::Case| format!("{}: {}", case.name, case.shows);
    Ok(run(cases, live::NAME, options, progress, title, |case| session.connectivity(case)))
}

/// Runs random policies, a seed each, beside the oracle.
///
/// # Errors
/// When the cluster cannot be made.
pub fn run_generated(
    seeds: &[u64],
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let objects = generated::surroundings().context("no seed makes a cluster that is large enough")?;
    let mut session = Session::new(objects, options, generated::node_labels)?;
    let cases: Vec<(u64, u64)> = seeds.iter().map(|seed| (*seed, *seed)).collect();
    let title = |seed: &u64| format!("seed {seed}");
    Ok(run(&cases, generated::NAME, options, progress, title, |seed| session.generated(*seed)))
}

fn run<C>(
    cases: &[(u64, C)],
    name: &str,
    options: &Options,
    progress: &mut dyn FnMut(&str),
    title: impl Fn(&C) -> String,
    mut case: impl FnMut(&C) -> Result<(), String>,
) -> Report {
    let begin = Instant::now();
    let mut reports = Vec::new();
    for (number, one) in cases {
        let started = Instant::now();
        let reason = case(one).err();
        let report = report(*number, name, title(one), reason, started.elapsed());
        progress(&reports::case_line(&report));
        reports.push(report);
    }
    let nodes = NODES.map(str::to_owned).to_vec();
    Report::new(SERVER.to_owned(), options.families.clone(), nodes, reports, begin.elapsed().as_secs_f64())
}

struct Session {
    standing: Standing,
    /// As they are without cases.
    objects: Vec<Value>,
    families: Vec<Family>,
}

impl Session {
    fn new(
        objects: Vec<Value>,
        options: &Options,
        node_labels: impl Fn(usize) -> Value,
    ) -> anyhow::Result<Self> {
        let nodes = (0..NODES.len()).map(|node| {
            let addresses: Vec<Value> = Family::ALL
                .iter()
                .map(|family| json!({"type": "InternalIP", "address": node_address(node, *family)}))
                .collect();
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODES[node], "labels": node_labels(node)},
                "status": {"addresses": addresses}})
        });
        let mut pods = 0;
        let objects: Vec<Value> = objects
            .into_iter()
            .map(|mut object| {
                if object["kind"] == "Namespace" {
                    // The control plane sees to that.
                    let name = object["metadata"]["name"].clone();
                    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
                }
                if object["kind"] == "Pod" {
                    let place = object["metadata"]["annotations"][PLACE].as_str();
                    let node = place.and_then(|place| place.parse().ok()).unwrap_or(pods) % NODES.len();
                    object["spec"]["nodeName"] = json!(NODES[node]);
                    // The agents give others; these say that it shall have both.
                    object["status"] =
                        json!({"phase": "Running", "podIPs": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]});
                    pods += 1;
                }
                object
            })
            .collect();
        let standing = Standing::new(options.routing, nodes.chain(objects.iter().cloned()).collect())?;
        Ok(Self { standing, objects, families: options.families.clone() })
    }

    fn network_policy(&mut self, case: &suite::Case) -> Result<(), String> {
        // Blocks of addresses are of one family, so each has a round of its own.
        for family in self.families.clone() {
            let mut policies = BTreeSet::new();
            let mut wrong = Wrong::default();
            for step in &case.steps {
                let address = |pod: &Pod| self.standing.address(&end(pod), of_oracle(family));
                let changes = step.changes(address).map_err(|error| error.to_string())?;
                for change in changes {
                    self.change(change, &mut policies)?;
                }
                for expectation in &step.expect {
                    let port = Some(expectation.port);
                    for (from, to) in
                        suite::pods().flat_map(|from| suite::pods().map(move |to| (from.clone(), to)))
                    {
                        let Some(expected) = expectation.is_reachable(&from, &to) else { continue };
                        let (from, to, protocol) = (end(&from), end(&to), expectation.protocol);
                        let attempt = Attempt { from, to, family: of_oracle(family), protocol, port };
                        self.ask(&attempt, expected, &mut wrong)?;
                    }
                }
            }
            self.reset(policies)?;
            wrong.settle()?;
        }
        Ok(())
    }

    fn change(&mut self, change: Change, policies: &mut BTreeSet<Reference>) -> Result<(), String> {
        match change {
            Change::Apply(object) => {
                policies.insert(Reference::of(&object));
                self.set(&object)
            }
            Change::Delete(policy) => self.remove("NetworkPolicy", &policy.namespace, &policy.name),
            Change::LabelNamespace { name, labels } => self.label("Namespace", "", &name, &labels),
            Change::LabelPod { pod, labels } => self.label("Pod", &pod.namespace, &pod.name, &labels),
        }
    }

    fn label(&mut self, kind: &str, namespace: &str, name: &str, labels: &Value) -> Result<(), String> {
        let is_it = |object: &Value| {
            let own = Reference::of(object);
            own.kind == kind && own.namespace == namespace && own.name == name
        };
        let objects = self.standing.objects();
        let mut object =
            objects.into_iter().find(is_it).ok_or_else(|| format!("there is no {kind} {name}"))?;
        for (key, value) in labels.as_object().into_iter().flatten() {
            object["metadata"]["labels"][key] = value.clone();
        }
        self.set(&object)
    }

    fn connectivity(&mut self, case: &connectivity::Case) -> Result<(), String> {
        for family in self.families.clone() {
            let mut policies = BTreeSet::new();
            let mut wrong = Wrong::default();
            for step in &case.steps {
                let address = |who: &Who| match who {
                    Who::Pod(pod) => self.standing.address(&end(pod), of_oracle(family)),
                    Who::Node(node) => Some(node_address(*node, family)),
                    Who::World(number) => world_address(*number, family),
                };
                for object in step.objects(address).map_err(|error| error.to_string())? {
                    policies.insert(Reference::of(&object));
                    self.set(&object)?;
                }
                for tried in &step.expect {
                    for way in tried.ways().map_err(|error| error.to_string())? {
                        let world = |number| world_address(number, family);
                        let attempt = way
                            .attempt(of_oracle(family), |node| NODES[node].to_owned(), world)
                            .map_err(|error| error.to_string())?;
                        self.ask(&attempt, way.open, &mut wrong)?;
                    }
                }
            }
            self.reset(policies)?;
            wrong.settle()?;
        }
        Ok(())
    }

    fn generated(&mut self, seed: u64) -> Result<(), String> {
        let policies = generated::policies(seed);
        let mut set = BTreeSet::new();
        for policy in &policies {
            set.insert(Reference::of(policy));
            self.set(policy)?;
        }
        let mut oracle = sim_oracle::Cluster::with_options(Reading::by_identity());
        for object in self.standing.objects() {
            oracle.set(&object).map_err(|error| error.to_string())?;
        }
        let pods = self.objects.iter().filter(|object| object["kind"] == "Pod").map(|object| {
            let Reference { namespace, name, .. } = Reference::of(object);
            End::Pod { namespace, name }
        });
        let nodes = NODES.iter().map(|name| End::Node { name: (*name).to_owned() });
        let ends: Vec<End> = pods.chain(nodes).collect();
        let mut wrong = Wrong::default();
        for attempt in generated::attempts(seed, &ends, &self.families) {
            self.ask(&attempt, oracle.judge(&attempt).allowed, &mut wrong)?;
        }
        self.reset(set)?;
        wrong.settle()
    }

    fn set(&mut self, object: &Value) -> Result<(), String> {
        self.standing.set(object).map_err(|error| error.to_string())
    }

    fn remove(&mut self, kind: &str, namespace: &str, name: &str) -> Result<(), String> {
        self.standing.remove(kind, namespace, name).map_err(|error| error.to_string())
    }

    fn ask(&mut self, attempt: &Attempt, open: bool, wrong: &mut Wrong) -> Result<(), String> {
        let found = self.standing.send(attempt).map_err(|error| error.to_string())?;
        wrong.asked += 1;
        if open != (found == Outcome::Arrived) {
            let must = if open { "must arrive" } else { "must be dropped" };
            wrong.found.push(format!("{attempt} {must}, but: {found:?}"));
        }
        Ok(())
    }

    /// Policies go, and labels are as they were.
    fn reset(&mut self, policies: BTreeSet<Reference>) -> Result<(), String> {
        for policy in policies {
            self.remove(&policy.kind, &policy.namespace, &policy.name)?;
        }
        let now = self.standing.objects();
        for object in self.objects.clone() {
            let same = |other: &&Value| Reference::of(other) == Reference::of(&object);
            if now
                .iter()
                .find(same)
                .is_some_and(|now| now["metadata"]["labels"] != object["metadata"]["labels"])
            {
                self.set(&object)?;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Wrong {
    asked: usize,
    found: Vec<String>,
}

impl Wrong {
    fn settle(&self) -> Result<(), String> {
        if self.found.is_empty() {
            return Ok(());
        }
        let first: Vec<&str> = self.found.iter().take(3).map(String::as_str).collect();
        Err(format!("{} of {} wrong: {}", self.found.len(), self.asked, first.join("; ")))
    }
}

fn end(pod: &Pod) -> End {
    End::Pod { namespace: pod.namespace.clone(), name: pod.name.clone() }
}

const fn of_oracle(family: Family) -> OracleFamily {
    match family {
        Family::V4 => OracleFamily::V4,
        Family::V6 => OracleFamily::V6,
    }
}

fn node_address(node: usize, family: Family) -> IpAddr {
    let number = u8::try_from(node + 1).unwrap_or(u8::MAX);
    match family {
        Family::V4 => Ipv4Addr::new(172, 18, 0, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// Two addresses with little in common, as the lab's are.
fn world_address(number: usize, family: Family) -> Option<IpAddr> {
    Some(match (number, family) {
        (0, Family::V4) => Ipv4Addr::new(198, 51, 100, 10).into(),
        (0, Family::V6) => Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x10).into(),
        (1, Family::V4) => Ipv4Addr::new(203, 0, 113, 20).into(),
        (1, Family::V6) => Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x20).into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(report: &Report) -> Vec<String> {
        let failed = report.cases.iter().filter(|case| case.reason.is_some());
        failed.map(|case| format!("{}: {:?}", case.title, case.reason)).collect()
    }

    #[test]
    fn the_suites_pass() {
        for routing in [Routing::Vxlan, Routing::Native] {
            let options = Options { routing, families: Family::ALL.to_vec() };
            let cases = network_policy::select(None).expect("all");
            let report = run_network_policy(&cases, &options, &mut |_| {}).expect("a cluster");
            assert_eq!((report.cases.len(), failed(&report)), (48, Vec::new()));
            let cases = live::select(None).expect("all");
            let report = run_connectivity(&cases, &options, &mut |_| {}).expect("a cluster");
            assert_eq!((report.cases.len(), failed(&report)), (cases.len(), Vec::new()));
        }
    }

    #[test]
    fn random_policies_are_decided_as_the_oracle_says() {
        for (routing, seeds) in [(Routing::Vxlan, 1..=15), (Routing::Native, 16..=30)] {
            let options = Options { routing, families: Family::ALL.to_vec() };
            let seeds: Vec<u64> = seeds.collect();
            let report = run_generated(&seeds, &options, &mut |_| {}).expect("a cluster");
            assert_eq!((report.cases.len(), failed(&report)), (seeds.len(), Vec::new()));
        }
    }
}
