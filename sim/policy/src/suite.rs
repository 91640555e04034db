//! The cases of the Kubernetes network policy conformance suite, as data that every arm can run.
//!
//! An arm makes the cluster of [`objects`], then for each [`Case`] goes through its steps: applies what [`Step::changes`] says, lets every pod try every
//! other as each [`Expectation`] says, and compares with [`Expectation::is_reachable`]. In the end it deletes all NetworkPolicies and sets the labels of
//! [`objects`] again.
//!
//! The cases are in `suite/cases.yaml`, which says how to read them.

mod changes;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};
use sim_oracle::Protocol;

pub use changes::{Change, UnknownPod};

/// The namespaces of the cluster.
pub const NAMESPACES: &[&str] = &["x", "y", "z"];
/// The pods of each namespace.
pub const PODS: &[&str] = &["a", "b", "c"];
/// The ports of each pod, of TCP, UDP and SCTP each.
pub const PORTS: &[u16] = &[80, 81];

const CASES: &str = include_str!("suite/cases.yaml");

/// A case.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// What it shows, for people.
    pub shows: String,
    /// What an implementation must do for it that the documentation leaves open.
    #[serde(default)]
    pub needs: BTreeSet<Need>,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// Something that the documentation leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// `ipBlock` matches pods by their addresses.
    BlocksMatchPods,
}

/// Some changes, and what must be so afterwards.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    #[serde(default)]
    policies: Vec<Policy>,
    #[serde(default)]
    delete: Vec<Pod>,
    #[serde(default)]
    label_namespaces: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    label_pods: BTreeMap<Pod, BTreeMap<String, String>>,
    /// What every pod that tries every other must find.
    pub expect: Vec<Expectation>,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    r#in: String,
    name: String,
    spec: Value,
}

/// Which pod reaches which at a port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expectation {
    /// The port, one of [`PORTS`].
    pub port: u16,
    /// Its protocol.
    #[serde(with = "Word")]
    pub protocol: Protocol,
    #[serde(default)]
    blocked: Vec<Ways>,
    #[serde(default)]
    allowed: Vec<Ways>,
}

#[derive(Deserialize)]
#[serde(remote = "Protocol", rename_all = "UPPERCASE")]
enum Word {
    Tcp,
    Udp,
    Sctp,
    Icmp,
}

/// A pod, written `x/a`. Also any other object of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Ways from some pods to some others: `x/a > y/*`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Ways {
    from: Whom,
    to: Whom,
}

/// Some pods: `*`, `x/*` or `x/a`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Whom {
    namespace: Option<String>,
    name: Option<String>,
}

/// The cases are not what the format says.
#[derive(Debug, thiserror::Error)]
#[error("the cases of the conformance suite cannot be read: {0}")]
pub struct SuiteError(#[from] serde_yaml_ng::Error);

/// All cases, in the order of the suite.
pub fn cases() -> Result<Vec<Case>, SuiteError> {
    Ok(serde_yaml_ng::from_str(CASES)?)
}

/// All pods, namespace by namespace.
pub fn pods() -> impl Iterator<Item = Pod> {
    NAMESPACES.iter().flat_map(|namespace| PODS.iter().map(move |name| Pod::new(namespace, name)))
}

/// Namespaces and pods of the cluster. The pods have the image `bristle/echo` and no node yet.
pub fn objects() -> Vec<Value> {
    let namespaces = NAMESPACES.iter().map(|name| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"ns": name}}})
    });
    namespaces.chain(pods().map(|pod| pod.object())).collect()
}

impl Expectation {
    /// Whether `from` must reach `to`; nothing is said of a pod's way to itself.
    pub fn is_reachable(&self, from: &Pod, to: &Pod) -> Option<bool> {
        if from == to {
            return None;
        }
        let any = |ways: &[Ways]| ways.iter().any(|ways| ways.from.has(from) && ways.to.has(to));
        Some(!any(&self.blocked) || any(&self.allowed))
    }
}

impl Pod {
    /// A pod by namespace and name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn object(&self) -> Value {
        let served =
            || PORTS.iter().flat_map(|port| ["tcp", "udp", "sctp"].map(|protocol| (*port, protocol)));
        let ports: Vec<Value> = served()
            .map(|(port, protocol)| {
                json!({
                    "name": format!("serve-{port}-{protocol}"),
                    "containerPort": port,
                    "protocol": protocol.to_uppercase(),
                })
            })
            .collect();
        let args: Vec<String> =
            served().flat_map(|(port, protocol)| [format!("--{protocol}"), port.to_string()]).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": self.name, "labels": {"pod": self.name}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "bristle/echo", "args": args, "ports": ports}],
            },
        })
    }
}

impl TryFrom<String> for Pod {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) => Ok(Self::new(namespace, name)),
            None => Err(format!("{text:?} is not NAMESPACE/NAME")),
        }
    }
}

impl TryFrom<String> for Ways {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (from, to) = text.split_once(" > ").ok_or_else(|| format!("{text:?} is not FROM > TO"))?;
        Ok(Self { from: Whom::parse(from)?, to: Whom::parse(to)? })
    }
}

impl Whom {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self { namespace: None, name: None });
        }
        let pod = Pod::try_from(text.to_owned())?;
        let name = Some(pod.name).filter(|name| name != "*");
        let is_known = NAMESPACES.contains(&pod.namespace.as_str())
            && name.as_deref().is_none_or(|name| PODS.contains(&name));
        if is_known {
            Ok(Self { namespace: Some(pod.namespace), name })
        } else {
            Err(format!("{text:?} names no pod of the suite"))
        }
    }

    fn has(&self, pod: &Pod) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == pod.namespace)
            && self.name.as_ref().is_none_or(|name| *name == pod.name)
    }
}
