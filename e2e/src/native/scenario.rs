//! A case as a scenario: the matrix's objects, the policies of its group, and one traffic.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use sim_native::Report;
use sim_scenario::Scenario;
use sim_scenario::model::{
    Action, Cluster, FORMAT, Families, ObjectRef, Place, Step, Traffic, TrafficExpect, TrafficKind, Until,
    Wait, World,
};

use crate::cluster::Family;
use crate::matrix::{Case, Expect, Matrix, Outside, Requirements, Target, Token};
use crate::profile::Flow;
use crate::workloads::{self, Images};

/// Id of the one traffic.
pub(super) const TRAFFIC: &str = "case";
/// As long as curl's connect timeout of the other arms.
const HTTP_LIMIT: Duration = Duration::from_secs(5);
/// As long as ping's deadline there.
const PING_LIMIT: Duration = Duration::from_secs(3);
/// What must not come has this time to come.
const LINGER: Duration = Duration::from_millis(100);
/// Node port of the first service; the next ones follow. Chosen here, as an object may, so that a scenario can name it.
const FIRST_NODE_PORT: u16 = 31_080;

/// A case in one family, with what it is run on.
pub(super) struct Plan<'a> {
    pub(super) matrix: &'a Matrix,
    /// Real nodes by letter.
    pub(super) nodes: &'a BTreeMap<String, String>,
    pub(super) cluster: Cluster,
    pub(super) case: &'a Case,
    pub(super) family: Family,
}

/// An end of the traffic at which frames are captured.
pub(super) struct End<'a> {
    pub(super) word: &'static str,
    /// Name of the tap.
    pub(super) tap: String,
    pub(super) requirements: Cow<'a, Requirements>,
}

impl<'a> Plan<'a> {
    fn namespace(&self) -> &'a str {
        &self.matrix.topology.namespace
    }

    /// The place of a workload's pod.
    pub(super) fn pod(&self, workload: &str) -> Place {
        Place::Pod { namespace: self.namespace().to_owned(), name: workload.to_owned() }
    }

    fn sender(&self) -> Result<&'a str, String> {
        self.case.from.as_deref().ok_or_else(|| "the case has no sender".to_owned())
    }

    /// What the case sends.
    pub(super) fn traffic(&self) -> Result<Traffic, String> {
        let from = self.pod(self.sender()?);
        let (to, port) = match &self.case.to {
            Target::Pod(name) => (self.pod(name), self.matrix.topology.workloads[name].port),
            Target::Node(letter) => (Place::Node(self.nodes[letter].clone()), None),
            Target::Service(name) => {
                let place = Place::Service { namespace: self.namespace().to_owned(), name: name.clone() };
                (place, Some(self.matrix.topology.services[name].port))
            }
            Target::NodePort(letter) => {
                let service = self.service_on(letter)?;
                let ports = self.node_ports();
                (Place::NodePort(self.nodes[letter].clone()), Some(ports[service]))
            }
            Target::World(which) => {
                let place = match which {
                    Outside::First => World::First,
                    Outside::Second => World::Second,
                };
                (Place::World(place), Some(self.case.port.unwrap_or(80)))
            }
            Target::Agents => return Err("the case has no traffic".to_owned()),
        };
        let kind = if port.is_some() { TrafficKind::Http } else { TrafficKind::Ping };
        let mut traffic = Traffic::new(TRAFFIC, from, to, kind);
        traffic.port = port;
        traffic.family = Some(match self.family {
            Family::V4 => Families::V4,
            Family::V6 => Families::V6,
        });
        traffic.timeout = if port.is_some() { HTTP_LIMIT } else { PING_LIMIT };
        // Judged here, with the captures.
        traffic.expect = TrafficExpect::Any;
        Ok(traffic)
    }

    /// The echo service whose pod is on the node of that letter.
    pub(super) fn service_on(&self, letter: &str) -> Result<&'a str, String> {
        let workloads = &self.matrix.topology.workloads;
        let mut names = self.matrix.topology.services.keys();
        names
            .find(|name| workloads.get(*name).is_some_and(|workload| workload.node == letter))
            .map(String::as_str)
            .ok_or_else(|| format!("no service has its pod on node {letter}"))
    }

    fn node_ports(&self) -> BTreeMap<&'a str, u16> {
        self.matrix.topology.services.keys().map(String::as_str).zip(FIRST_NODE_PORT..).collect()
    }

    /// The two ends and what their captures must show.
    pub(super) fn ends(&self) -> Result<Vec<End<'a>>, String> {
        let profile = self.case.profile.as_ref().and_then(|name| self.matrix.profiles.get(name));
        let profile = profile.ok_or("the case has no profile")?;
        let tap = |workload: &str| format!("{}/{workload}", self.namespace());
        let mut source = Cow::Borrowed(&profile.source);
        let is_named = matches!(self.case.to, Target::Service(_) | Target::World(_));
        if is_named && self.case.expect != Expect::NoAnswer {
            // It is addressed by its address: there is no DNS to be asked for it. Where nobody is to answer only the DNS tells that
            // somebody was really asked for.
            source.to_mut().need.retain(|token| !matches!(token, Token::DnsQuery | Token::DnsAnswer));
        }
        let mut ends = vec![End { word: "source", tap: tap(self.sender()?), requirements: source }];
        let target = match &self.case.to {
            Target::Pod(name) => Some(tap(name)),
            Target::Node(letter) => Some(self.nodes[letter].clone()),
            Target::Service(_) | Target::NodePort(_) | Target::World(_) | Target::Agents => None,
        };
        if let (Some(tap), Some(requirements)) = (target, &profile.target) {
            ends.push(End { word: "target", tap, requirements: Cow::Borrowed(requirements) });
        }
        Ok(ends)
    }

    /// Whose packets count in the captures.
    pub(super) fn flow(&self, traffic: &Traffic, report: &Report) -> Option<Flow> {
        let address = |tap: &str| self.family.pick(report.addresses.get(tap)?);
        let ends = self.ends().ok()?;
        let source = address(&ends[0].tap)?;
        let target: Option<IpAddr> = match &self.case.to {
            Target::Pod(name) => Some(address(&format!("{}/{name}", self.namespace()))?),
            Target::Node(letter) => Some(address(&self.nodes[letter])?),
            Target::Service(_) | Target::NodePort(_) | Target::World(_) | Target::Agents => None,
        };
        let mut ports: Vec<u16> = traffic.port.into_iter().collect();
        if let Target::NodePort(letter) = &self.case.to {
            // The address may be translated before the capture or after it.
            ports.extend(self.service_on(letter).ok().map(|name| self.matrix.topology.services[name].port));
        }
        Some(Flow { source, target, ports })
    }

    /// The whole case: set-up, policies, traffic, and then nothing may be left to do.
    pub(super) fn scenario(&self, traffic: &Traffic) -> Scenario {
        let mut steps = self.set_up();
        steps.extend(self.policies());
        steps.extend([
            step(Action::Traffic(traffic.clone())),
            wait(Until::Traffic(traffic.id.clone())),
            wait(Until::Time(LINGER)),
            wait(Until::Rest),
        ]);
        self.with(steps)
    }

    /// Only the policies, coming or going.
    pub(super) fn policies_alone(&self) -> Scenario {
        let mut steps = self.set_up();
        steps.extend(self.policies());
        self.with(steps)
    }

    fn with(&self, steps: Vec<Step>) -> Scenario {
        Scenario {
            bristle: FORMAT.to_owned(),
            name: format!("case-{}-{}", self.case.id, self.family.word()),
            description: self.case.title(),
            cluster: self.cluster.clone(),
            steps,
        }
    }

    fn set_up(&self) -> Vec<Step> {
        let topology = &self.matrix.topology;
        let images = Images::default();
        let mut objects = vec![workloads::namespace_object(&topology.namespace)];
        for (name, workload) in &topology.workloads {
            let deployment = workloads::deployment(name, workload, &images, &self.nodes[&workload.node]);
            objects.push(self.one_pod(name, &deployment));
        }
        let ports = self.node_ports();
        for (name, spec) in &topology.services {
            let mut service = workloads::service(name, spec);
            service["metadata"]["namespace"] = json!(topology.namespace);
            service["spec"]["ports"][0]["nodePort"] = json!(ports[name.as_str()]);
            objects.push(service);
        }
        // Rest may come between a pod that is ready and the endpoint that it becomes of its service.
        let settle = wait(Until::Time(SETTLE));
        vec![step(Action::Apply(objects)), wait(Until::Ready), wait(Until::Rest), settle, wait(Until::Rest)]
    }

    /// The pod of a Deployment of one, under the Deployment's name: taps and traffic name pods.
    fn one_pod(&self, name: &str, deployment: &Value) -> Value {
        let template = &deployment["spec"]["template"];
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace(), "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
        })
    }

    /// What was in force comes and goes, and what is in force comes.
    fn policies(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.case.proves_gone.is_empty() {
            steps.extend([self.apply(&self.case.proves_gone), wait(Until::Rest)]);
            steps.extend(self.case.proves_gone.iter().map(|name| {
                step(Action::Delete(ObjectRef {
                    api_version: workloads::POLICY_VERSION.to_owned(),
                    kind: workloads::POLICY_KIND.to_owned(),
                    name: name.clone(),
                    namespace: Some(self.namespace().to_owned()),
                }))
            }));
        }
        if !self.case.policies.is_empty() {
            steps.push(self.apply(&self.case.policies));
        }
        if !steps.is_empty() {
            steps.push(wait(Until::Rest));
        }
        steps
    }

    fn apply(&self, policies: &[String]) -> Step {
        let object = |name: &String| workloads::policy(name, self.namespace(), &self.matrix.policies[name]);
        step(Action::Apply(policies.iter().map(object).collect()))
    }
}

/// How long controllers have to make endpoints of pods that are ready.
const SETTLE: Duration = Duration::from_secs(1);

const fn step(action: Action) -> Step {
    Step { at: None, action }
}

const fn wait(until: Until) -> Step {
    step(Action::Wait(Wait::new(until)))
}

/// The traffic in words: what a command line is on the other arms.
pub(super) fn command(traffic: &Traffic) -> String {
    let family = match traffic.family {
        Some(Families::V6) => "-6",
        _ => "-4",
    };
    let port = traffic.port.map(|port| format!(":{port}")).unwrap_or_default();
    let what = match traffic.kind {
        TrafficKind::Http => "http",
        _ => "ping",
    };
    format!("{what} {family} {} → {}{port}", traffic.from, traffic.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_scenario::Known;

    fn scenario(id: &str) -> (Scenario, String) {
        let matrix = Matrix::built_in().expect("the matrix that is compiled in can be read");
        let nodes = [("a", "node-1"), ("b", "node-2")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        let case = matrix.all().find(|case| case.id.to_string() == id).expect("a case");
        let plan =
            Plan { matrix: &matrix, nodes: &nodes, cluster: Cluster::default(), case, family: Family::V6 };
        match plan.traffic() {
            Ok(traffic) => (plan.scenario(&traffic), command(&traffic)),
            Err(_) => (plan.policies_alone(), String::new()),
        }
    }

    #[test]
    fn every_case_is_a_valid_scenario() {
        let matrix = Matrix::built_in().expect("the matrix that is compiled in can be read");
        for case in matrix.all() {
            let (scenario, _) = scenario(&case.id.to_string());
            assert!(scenario.validate(&Known::default()).is_ok(), "{}", case.id);
        }
    }

    #[test]
    fn what_is_sent_is_told_like_a_command() {
        for (id, told) in [
            ("2", "http -6 pod/cilium-test/client → pod/cilium-test/echo-other-node:8080"),
            ("5", "ping -6 pod/cilium-test/client → pod/cilium-test/client2"),
        ] {
            assert_eq!(scenario(id).1, told);
        }
    }

    #[test]
    fn policies_that_must_be_gone_were_there_first() {
        let (scenario, _) = scenario("59");
        let words: Vec<&str> = scenario.steps[5..8]
            .iter()
            .map(|step| match &step.action {
                Action::Apply(_) => "apply",
                Action::Delete(object) => object.name.as_str(),
                Action::Wait(_) => "wait",
                _ => "other",
            })
            .collect();
        assert_eq!(words, ["apply", "wait", "client-egress-only-dns"]);
    }
}
