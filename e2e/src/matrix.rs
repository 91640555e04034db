//! The matrix as data: workloads, policies, packet profiles and cases, read from `matrix.yaml`.
//!
//! Everything is checked when it is read, so that the rest of the crate can rely on it: names refer to something,
//! ids are unique, and the number of cases is the number that the file states.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The matrix that is compiled into the program.
pub const BUILT_IN: &str = include_str!("../matrix.yaml");

/// Why a matrix file was refused.
#[derive(Debug, Error)]
pub enum MatrixError {
    /// It is not the YAML that is expected.
    #[error("read the matrix")]
    Syntax(#[source] serde_yaml_ng::Error),
    /// It is, but something in it cannot be.
    #[error("matrix, case {case}: {what}")]
    Case {
        /// The id of the case.
        case: CaseId,
        /// What is wrong with it.
        what: String,
    },
    /// The number of cases is not what the file states.
    #[error("matrix: {stated} cases stated, {found} found in {part}")]
    Count {
        /// `groups` or `extra-groups`.
        part: &'static str,
        /// What the file states.
        stated: usize,
        /// What it holds.
        found: usize,
    },
}

/// A case's id: a number for the counted cases, a word (`x1`) for the extra ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CaseId {
    /// One of the counted cases, from 1.
    Number(u16),
    /// One of the extra cases.
    Name(String),
}

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Where a target lies as seen from the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A pod on the sender's node.
    SameNode,
    /// A pod on another node.
    CrossNode,
    /// The sender's own node.
    LocalNode,
    /// Another node.
    RemoteNode,
    /// Outside the cluster.
    Outside,
}

/// What the command of a case must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// An HTTP answer of the echo server.
    HttpOk,
    /// Any HTTP answer below 400.
    #[serde(rename = "http-below-400")]
    HttpBelow400,
    /// An echo reply.
    EchoReply,
    /// The command must fail.
    NoAnswer,
    /// Policies are in force on every agent; no traffic.
    Applied,
    /// All policies are gone on every agent; no traffic.
    Removed,
}

impl Expect {
    /// Whether the case sends anything.
    pub const fn is_traffic(self) -> bool {
        !matches!(self, Self::Applied | Self::Removed)
    }
}

/// Which end drops the traffic of a case that must not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The sender's egress.
    Source,
    /// The receiver's ingress.
    Target,
}

/// What a case is addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A pod by its address.
    Pod(String),
    /// A service by its short name.
    Service(String),
    /// An echo service's node port on the node of this letter.
    NodePort(String),
    /// The node of this letter by its address.
    Node(String),
    /// An outside name: the first or the second of the topology.
    World(Outside),
    /// No traffic: every agent of the cluster.
    Agents,
}

/// One of the two outside names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// The name that policies may allow.
    First,
    /// The name that no policy allows by itself.
    Second,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod/{name}"),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::NodePort(node) => write!(f, "node-port/{node}"),
            Self::Node(node) => write!(f, "node/{node}"),
            Self::World(Outside::First) => f.write_str("world/first"),
            Self::World(Outside::Second) => f.write_str("world/second"),
            Self::Agents => f.write_str("agents"),
        }
    }
}

/// A packet kind that a profile names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Token {
    /// TCP with SYN and no ACK, to the target.
    Syn,
    /// TCP with SYN and ACK, from the target.
    SynAck,
    /// TCP with FIN, either way.
    Fin,
    /// TCP with RST, either way.
    Rst,
    /// ICMP 8 or `ICMPv6` 128, to the target.
    EchoRequest,
    /// ICMP 0 or `ICMPv6` 129, from the target.
    EchoReply,
    /// To port 53, UDP or TCP.
    DnsQuery,
    /// From port 53, UDP or TCP.
    DnsAnswer,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syn => "SYN",
            Self::SynAck => "SYN-ACK",
            Self::Fin => "FIN",
            Self::Rst => "RST",
            Self::EchoRequest => "echo request",
            Self::EchoReply => "echo reply",
            Self::DnsQuery => "DNS query",
            Self::DnsAnswer => "DNS answer",
        })
    }
}

/// What one capture must show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// At least one packet of each.
    #[serde(default)]
    pub need: Vec<Token>,
    /// No packet of any.
    #[serde(default)]
    pub never: Vec<Token>,
}

/// What the captures of a case must show.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The profile in words.
    pub about: String,
    /// In the sending pod.
    pub source: Requirements,
    /// In the addressed pod or on the addressed node; none where the other end is not one machine.
    pub target: Option<Requirements>,
}

/// A policy object: a `CiliumNetworkPolicy` of the test namespace.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// The policy in words.
    pub about: String,
    /// The object's `spec`.
    pub spec: serde_json::Value,
}

/// Which built-in image a workload runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Image {
    /// Shell, curl, ping, nslookup, tcpdump; sleeps.
    Client,
    /// HTTP server that answers every GET with 200.
    Echo,
}

/// One workload of the topology, a Deployment of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Workload {
    /// Letter of the node it is pinned to.
    pub node: String,
    /// What it runs.
    pub image: Image,
    /// TCP port it serves.
    pub port: Option<u16>,
    /// Labels of its pod.
    pub labels: BTreeMap<String, String>,
    /// Workload whose node it must share (required pod affinity).
    pub near: Option<String>,
    /// Workload whose node it must not share (required pod anti-affinity).
    pub away_from: Option<String>,
}

/// One service of the topology.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Labels of the pods behind it.
    pub selector: BTreeMap<String, String>,
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
    /// Kubernetes service type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its port, and the pods'.
    pub port: u16,
}

/// The outside names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// Answers HTTP on 80 and TLS on 443.
    pub first: String,
    /// Answers HTTP on 80, at another address.
    pub second: String,
}

/// What is deployed before the first case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The namespace of everything.
    pub namespace: String,
    /// Letters that are bound to real nodes at run time.
    pub nodes: Vec<String>,
    /// Workloads by name.
    pub workloads: BTreeMap<String, Workload>,
    /// Services by name.
    pub services: BTreeMap<String, ServiceSpec>,
    /// Outside names.
    pub world: World,
}

/// One case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its id.
    pub id: CaseId,
    /// Its group.
    pub group: String,
    /// What kind of traffic it is.
    pub scenario: String,
    /// The sending workload; none for policy steps.
    pub from: Option<String>,
    /// What it is sent to.
    pub to: Target,
    /// TCP port where the target does not imply one.
    pub port: Option<u16>,
    /// Where the target lies.
    pub way: Option<Way>,
    /// What the command must come to.
    pub expect: Expect,
    /// Name of the packet profile; none for policy steps.
    pub profile: Option<String>,
    /// Which end drops, where no answer is expected.
    pub refused_at: Option<End>,
    /// Policies in force while it runs, in the order of the group.
    pub policies: Vec<String>,
    /// Policies that must have been in force before and be gone now.
    pub proves_gone: Vec<String>,
}

impl Case {
    /// One line for people: `pod-to-pod client → pod/echo-same-node (same-node)`.
    pub fn title(&self) -> String {
        match (&self.from, self.way) {
            (Some(from), Some(way)) => {
                let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
                format!("{} {from} → {}{port} ({})", self.scenario, self.to, word(way))
            }
            _ => format!(
                "{} ({})",
                self.scenario,
                if self.policies.is_empty() { "all policies" } else { &self.policies[0] }
            ),
        }
    }
}

/// The kebab-case word that the matrix file uses for a value.
pub(crate) fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// The whole matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// What is deployed.
    pub topology: Topology,
    /// Policies by name.
    pub policies: BTreeMap<String, PolicySpec>,
    /// Packet profiles by name.
    pub profiles: BTreeMap<String, Profile>,
    /// The counted cases, in the order of the run.
    pub cases: Vec<Case>,
    /// The extra ones.
    pub extra: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    suite: usize,
    extra: usize,
    topology: Topology,
    policies: BTreeMap<String, PolicySpec>,
    profiles: BTreeMap<String, Profile>,
    groups: Vec<FileGroup>,
    extra_groups: Vec<FileGroup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileGroup {
    name: String,
    policies: Vec<String>,
    #[serde(default)]
    proves_gone: Vec<String>,
    cases: Vec<FileCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileCase {
    id: CaseId,
    scenario: String,
    from: Option<String>,
    to: Option<String>,
    port: Option<u16>,
    way: Option<Way>,
    expect: Expect,
    profile: Option<String>,
    refused_at: Option<End>,
}

impl Matrix {
    /// The matrix that is compiled in.
    pub fn built_in() -> Result<Self, MatrixError> {
        Self::parse(BUILT_IN)
    }

    /// Reads and checks a matrix file.
    pub fn parse(text: &str) -> Result<Self, MatrixError> {
        let file: File = serde_yaml_ng::from_str(text).map_err(MatrixError::Syntax)?;
        let mut matrix = Self {
            topology: file.topology,
            policies: file.policies,
            profiles: file.profiles,
            cases: Vec::new(),
            extra: Vec::new(),
        };
        matrix.cases = matrix.read_groups(file.groups)?;
        matrix.extra = matrix.read_groups(file.extra_groups)?;
        for (part, stated, found) in
            [("groups", file.suite, matrix.cases.len()), ("extra-groups", file.extra, matrix.extra.len())]
        {
            if stated != found {
                return Err(MatrixError::Count { part, stated, found });
            }
        }
        let mut seen = BTreeSet::new();
        for case in matrix.all() {
            if !seen.insert(case.id.clone()) {
                return Err(MatrixError::Case {
                    case: case.id.clone(),
                    what: "this id is there twice".into(),
                });
            }
        }
        Ok(matrix)
    }

    /// All cases, the counted ones first.
    pub fn all(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().chain(&self.extra)
    }

    /// The real outside name of a target.
    pub fn outside_name(&self, which: Outside) -> &str {
        match which {
            Outside::First => &self.topology.world.first,
            Outside::Second => &self.topology.world.second,
        }
    }

    /// Uses other outside names, in the policies too.
    pub fn set_world(&mut self, first: &str, second: &str) {
        let old = std::mem::replace(&mut self.topology.world.first, first.to_owned());
        second.clone_into(&mut self.topology.world.second);
        for policy in self.policies.values_mut() {
            rename_fqdn(&mut policy.spec, &old, first);
        }
    }

    fn read_groups(&self, groups: Vec<FileGroup>) -> Result<Vec<Case>, MatrixError> {
        let mut cases = Vec::new();
        for group in groups {
            for case in group.cases {
                let id = case.id.clone();
                let case = self
                    .read_case(&group.name, &group.policies, &group.proves_gone, case)
                    .map_err(|what| MatrixError::Case { case: id, what })?;
                cases.push(case);
            }
        }
        Ok(cases)
    }

    fn read_case(
        &self,
        group: &str,
        policies: &[String],
        gone: &[String],
        case: FileCase,
    ) -> Result<Case, String> {
        if let Some(name) = policies.iter().chain(gone).find(|name| !self.policies.contains_key(*name)) {
            return Err(format!("no policy {name}"));
        }
        let from = match case.from.as_deref() {
            // Which client it is does not matter; take always the same one.
            Some("any-client") => Some("client".to_owned()),
            Some(name) if self.topology.workloads.contains_key(name) => Some(name.to_owned()),
            Some(name) => return Err(format!("no workload {name}")),
            None => None,
        };
        let to = self.read_target(case.to.as_deref())?;
        if case.expect.is_traffic() {
            if from.is_none() || to == Target::Agents || case.way.is_none() {
                return Err("a case with traffic needs from, to and way".into());
            }
            match &case.profile {
                Some(name) if self.profiles.contains_key(name) => {}
                other => return Err(format!("no profile {other:?}")),
            }
            if (case.expect == Expect::NoAnswer) != case.refused_at.is_some() {
                return Err("refused-at belongs to no-answer, and to nothing else".into());
            }
            if matches!(to, Target::World(_)) != case.port.is_some() {
                return Err("port belongs to world targets, and to nothing else".into());
            }
        }
        Ok(Case {
            id: case.id,
            group: group.to_owned(),
            scenario: case.scenario,
            from,
            to,
            port: case.port,
            way: case.way,
            expect: case.expect,
            profile: case.profile,
            refused_at: case.refused_at,
            policies: policies.to_vec(),
            proves_gone: gone.to_vec(),
        })
    }

    fn read_target(&self, text: Option<&str>) -> Result<Target, String> {
        let Some(text) = text else { return Ok(Target::Agents) };
        let (kind, name) = text.split_once('/').ok_or_else(|| format!("target {text} has no kind"))?;
        let known =
            |found: bool, target: Target| found.then_some(target).ok_or_else(|| format!("no target {text}"));
        let owned = name.to_owned();
        match kind {
            "pod" => known(self.topology.workloads.contains_key(name), Target::Pod(owned)),
            "service" => known(self.topology.services.contains_key(name), Target::Service(owned)),
            "node" => known(self.topology.nodes.contains(&owned), Target::Node(owned)),
            "node-port" => known(self.topology.nodes.contains(&owned), Target::NodePort(owned)),
            "world" => match name {
                "first" => Ok(Target::World(Outside::First)),
                "second" => Ok(Target::World(Outside::Second)),
                _ => Err(format!("no target {text}")),
            },
            _ => Err(format!("no target {text}")),
        }
    }
}

/// Replaces a name in every `matchName` below a value.
fn rename_fqdn(value: &mut serde_json::Value, old: &str, new: &str) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                if key == "matchName" && value.as_str() == Some(old) {
                    *value = new.into();
                } else {
                    rename_fqdn(value, old, new);
                }
            }
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(|value| rename_fqdn(value, old, new)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> Matrix {
        Matrix::built_in().expect("the matrix that is compiled in can be read")
    }

    fn count(by: impl Fn(&Case) -> String) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for case in &matrix().cases {
            *counts.entry(by(case)).or_default() += 1;
        }
        counts
    }

    fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
        pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    #[test]
    fn there_are_69_cases_with_ids_1_to_69_and_4_extra_ones() {
        let matrix = matrix();
        let ids: Vec<CaseId> = matrix.cases.iter().map(|case| case.id.clone()).collect();
        assert_eq!(ids, (1..=69).map(CaseId::Number).collect::<Vec<_>>());
        assert_eq!(
            matrix.extra.iter().map(|case| case.id.to_string()).collect::<Vec<_>>(),
            ["x1", "x2", "x3", "x4"]
        );
    }

    #[test]
    fn groups_have_the_sizes_of_the_published_suite() {
        assert_eq!(
            count(|case| case.group.clone()),
            counts(&[
                ("no-policies", 23),
                ("allow-all", 24),
                ("client-egress-only-dns-with-allow-all", 4),
                ("policy-cleanup", 1),
                ("client-ingress-from-client2", 2),
                ("client-egress-only-dns", 4),
                ("no-policies-after-cleanup", 4),
                ("client-egress-to-echo", 4),
                ("client-egress-to-fqdns", 3),
            ])
        );
    }

    #[test]
    fn scenarios_have_the_sizes_of_the_published_suite() {
        assert_eq!(
            count(|case| case.scenario.clone()),
            counts(&[
                ("pod-to-pod", 24),
                ("pod-to-world", 9),
                ("pod-to-service", 8),
                ("pod-to-local-nodeport", 8),
                ("pod-to-host", 8),
                ("client-to-client", 6),
                ("pod-to-nodeport", 4),
                ("policy-apply", 1),
                ("policy-delete", 1),
            ])
        );
    }

    #[test]
    fn sixty_succeed_seven_are_refused_and_two_send_nothing() {
        assert_eq!(
            count(|case| word(case.expect)),
            counts(&[
                ("http-ok", 40),
                ("echo-reply", 13),
                ("http-below-400", 7),
                ("no-answer", 7),
                ("applied", 1),
                ("removed", 1),
            ])
        );
        let refused: Vec<_> = matrix()
            .cases
            .iter()
            .filter_map(|case| case.refused_at.map(|end| (case.id.to_string(), end)))
            .collect();
        let expected: Vec<_> = [
            ("53", End::Target),
            ("55", End::Source),
            ("56", End::Source),
            ("57", End::Source),
            ("58", End::Source),
            ("67", End::Source),
            ("69", End::Source),
        ]
        .map(|(id, end)| (id.to_owned(), end))
        .to_vec();
        assert_eq!(refused, expected);
    }

    #[test]
    fn one_to_six_and_twenty_to_twenty_three_are_the_plain_paths_without_policy() {
        let plain: Vec<String> = matrix()
            .cases
            .iter()
            .filter(|case| {
                case.group == "no-policies"
                    && ["pod-to-pod", "client-to-client", "pod-to-host"].contains(&case.scenario.as_str())
            })
            .map(|case| case.id.to_string())
            .collect();
        assert_eq!(plain, ["1", "2", "3", "4", "5", "6", "20", "21", "22", "23"]);
    }

    #[test]
    fn every_way_agrees_with_where_the_workloads_are_pinned() {
        let matrix = matrix();
        for case in matrix.all().filter(|case| case.expect.is_traffic()) {
            let from = &matrix.topology.workloads[case.from.as_ref().expect("traffic has a sender")].node;
            let (node, same, other) = match &case.to {
                Target::Pod(name) | Target::Service(name) => {
                    (&matrix.topology.workloads[name].node, Way::SameNode, Way::CrossNode)
                }
                Target::Node(node) | Target::NodePort(node) => (node, Way::LocalNode, Way::RemoteNode),
                Target::World(_) => continue,
                Target::Agents => panic!("case {} has traffic to no one", case.id),
            };
            assert_eq!(case.way, Some(if from == node { same } else { other }), "case {}", case.id);
        }
    }

    #[test]
    fn allow_all_is_in_force_from_24_to_51() {
        let in_force: Vec<u16> = matrix()
            .cases
            .iter()
            .filter(|case| case.policies.iter().any(|name| name == "allow-all"))
            .map(|case| match case.id {
                CaseId::Number(n) => n,
                CaseId::Name(_) => 0,
            })
            .collect();
        assert_eq!(in_force, (24..=51).collect::<Vec<_>>());
    }

    #[test]
    fn other_outside_names_reach_the_policies() {
        let mut matrix = matrix();
        matrix.set_world("one.test", "two.test");
        assert_eq!(matrix.outside_name(Outside::Second), "two.test");
        let spec =
            serde_json::to_string(&matrix.policies["client-egress-to-fqdns-google"].spec).expect("is JSON");
        assert!(spec.contains(r#"{"matchName":"one.test"}"#) && !spec.contains("google.com"), "{spec}");
    }

    #[test]
    fn unknown_names_are_refused_with_the_case_named() {
        for (find, put, what) in [
            ("id: 1,", "id: 2,", "matrix, case 2: this id is there twice"),
            ("to: pod/echo-same-node", "to: pod/echo", "matrix, case 1: no target pod/echo"),
            ("from: client,", "from: cleint,", "matrix, case 1: no workload cleint"),
            ("profile: tcp-both-ends}", "profile: tcp}", "matrix, case 1: no profile Some(\"tcp\")"),
            ("suite: 69", "suite: 70", "matrix: 70 cases stated, 69 found in groups"),
            ("policies: [allow-all]", "policies: [allow]", "matrix, case 24: no policy allow"),
        ] {
            let error = Matrix::parse(&BUILT_IN.replacen(find, put, 1)).expect_err("the file is wrong");
            assert_eq!(error.to_string(), what);
        }
    }
}
