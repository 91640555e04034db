//! Policies of every kind one after the other on a few pods that stand, as data that every arm can run: what users of Cilium
//! know as the L3/L4 and deny tests of its connectivity check.
//!
//! An arm makes the objects of [`objects`], then for each [`Case`] goes through its steps: sets what [`Step::objects`] says, tries
//! what each [`Try`] says and compares with [`Try::ways`]. In the end it removes what the steps have set.
//!
//! The cases are in `connectivity/cases.yaml`, which says how to read them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use sim_oracle::{Attempt, End, Family, Protocol};

use crate::suite::Pod;

/// The ports of TCP and UDP at which each pod answers.
pub const PORTS: &[u16] = &[8080, 8081];
/// The namespace that policies are in.
pub const NAMESPACE: &str = "conn";
/// Number of nodes with pods.
pub const NODES: usize = 2;
/// Annotation of a pod: the number of its node, from 0.
pub const PLACE: &str = "bristle.io/place";

const CASES: &str = include_str!("connectivity/cases.yaml");

/// Namespace, name, node, service account and labels of a pod.
type PodRow = (&'static str, &'static str, usize, &'static str, &'static [(&'static str, &'static str)]);

/// The pods of all cases.
const PODS: [PodRow; 6] = [
    (NAMESPACE, "client", 0, "client", &[("kind", "client"), ("name", "client")]),
    (NAMESPACE, "client2", 0, "client2", &[("kind", "client"), ("name", "client2"), ("other", "client")]),
    (NAMESPACE, "client3", 1, "client", &[("kind", "client"), ("name", "client3")]),
    (
        NAMESPACE,
        "echo-same-node",
        0,
        "echo-same-node",
        &[("kind", "echo"), ("name", "echo-same-node"), ("first", "yes")],
    ),
    (NAMESPACE, "echo-other-node", 1, "echo-other-node", &[("kind", "echo"), ("name", "echo-other-node")]),
    ("far", "echo-far", 1, "default", &[("kind", "echo"), ("name", "echo-far")]),
];

/// A case.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// What it shows, for people.
    pub shows: String,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// Some policies more, and what must be so afterwards.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    #[serde(default)]
    set: Vec<Policy>,
    /// What is tried then.
    pub expect: Vec<Try>,
}

/// A case that nobody can run yet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why.
    pub because: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Policy {
    kind: Kind,
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    spec: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Knp,
    Cnp,
    Ccnp,
    CidrGroup,
}

/// A try of some ends at some others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Try {
    /// `tcp/8080`, `udp/8080`, `http/80`, `ping`.
    by: String,
    #[serde(default = "pods")]
    from: String,
    #[serde(default = "pods")]
    to: String,
    #[serde(default)]
    blocked: Vec<String>,
    #[serde(default)]
    allowed: Vec<String>,
}

fn pods() -> String {
    "pods".to_owned()
}

/// How an end is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A connection whose other end sends back what comes.
    Tcp(u16),
    /// A datagram that is sent back.
    Udp(u16),
    /// A request to a web server.
    Http(u16),
    /// An ICMP echo.
    Ping,
}

/// One end: a pod, a node, or one of the two servers outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A pod.
    Pod(Pod),
    /// The node with this number, from 0.
    Node(usize),
    /// The server with this number, from 0.
    World(usize),
}

/// One way to try, and whether it must be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Who tries.
    pub from: Who,
    /// Whom.
    pub to: Who,
    /// How.
    pub by: By,
    /// It must be answered; if not, nothing may come back.
    pub open: bool,
}

/// The cases are not what the format says.
#[derive(Debug, thiserror::Error)]
pub enum ConnectivityError {
    /// Not in the format at all.
    #[error("the cases of the connectivity suite cannot be read: {0}")]
    Format(#[from] serde_yaml_ng::Error),
    /// Words that nothing is known of.
    #[error("{0:?} is no end, way or try of the connectivity suite")]
    Word(String),
    /// A policy speaks of the address of an end that has none.
    #[error("{0:?} speaks of an end without an address")]
    NoAddress(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    cases: Vec<Case>,
    left_out: Vec<LeftOut>,
}

/// All cases that can be run, in order.
///
/// # Errors
/// When they are not in their format.
pub fn cases() -> Result<Vec<Case>, ConnectivityError> {
    Ok(serde_yaml_ng::from_str::<File>(CASES)?.cases)
}

/// Those that cannot.
///
/// # Errors
/// When they are not in their format.
pub fn left_out() -> Result<Vec<LeftOut>, ConnectivityError> {
    Ok(serde_yaml_ng::from_str::<File>(CASES)?.left_out)
}

/// Namespaces and pods. The pods have the image `bristle/echo` and, in the annotation [`PLACE`], the number of their node.
/// There is a pod of the host's network on each node, named as [`host_pod`] says.
pub fn objects() -> Vec<Value> {
    let namespaces = [NAMESPACE, "far"].map(|name| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"ns": name}}})
    });
    let pods = PODS.iter().map(|(namespace, name, node, account, labels)| {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        let args: Vec<String> = PORTS
            .iter()
            .flat_map(|port| ["--tcp".to_owned(), port.to_string(), "--udp".to_owned(), port.to_string()])
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": labels, "annotations": {PLACE: node.to_string()}},
            "spec": {
                "terminationGracePeriodSeconds": 0, "serviceAccountName": account,
                "containers": [{"name": "main", "image": "bristle/echo", "args": args, "ports": [
                    {"name": "web", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "web-other", "containerPort": 8081, "protocol": "TCP"},
                ]}],
            },
        })
    });
    let hosts = (0..NODES).map(|node| {
        let Pod { namespace, name } = host_pod(node);
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "annotations": {PLACE: node.to_string()}},
            "spec": {
                "terminationGracePeriodSeconds": 0, "hostNetwork": true,
                "containers": [{"name": "main", "image": "bristle/echo", "args": []}],
            },
        })
    });
    namespaces.into_iter().chain(pods).chain(hosts).collect()
}

/// The pod of a node's own network.
pub fn host_pod(node: usize) -> Pod {
    Pod::new(NAMESPACE, &format!("host-{node}"))
}

impl Case {
    /// Whether its policies speak of addresses, so that each family needs a run of its own.
    pub fn has_addresses(&self) -> bool {
        self.steps.iter().flat_map(|step| &step.set).any(|policy| policy.spec.to_string().contains("${"))
    }
}

impl Step {
    /// The objects that are set, in this order. They may speak of the addresses of ends.
    ///
    /// # Errors
    /// When they speak of an end without an address.
    pub fn objects(&self, address: impl Fn(&Who) -> Option<IpAddr>) -> Result<Vec<Value>, ConnectivityError> {
        self.set.iter().map(|policy| policy.object(&address)).collect()
    }
}

impl Policy {
    fn object(&self, address: &impl Fn(&Who) -> Option<IpAddr>) -> Result<Value, ConnectivityError> {
        let (version, kind, namespaced) = match self.kind {
            Kind::Knp => ("networking.k8s.io/v1", "NetworkPolicy", true),
            Kind::Cnp => ("cilium.io/v2", "CiliumNetworkPolicy", true),
            Kind::Ccnp => ("cilium.io/v2", "CiliumClusterwideNetworkPolicy", false),
            Kind::CidrGroup => ("cilium.io/v2", "CiliumCIDRGroup", false),
        };
        let mut spec = self.spec.clone();
        put_addresses(&mut spec, address)?;
        let mut metadata = json!({"name": self.name, "labels": self.labels});
        if namespaced {
            metadata["namespace"] = json!(NAMESPACE);
        }
        Ok(json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}))
    }
}

/// `${END}` becomes the address with its full length, `${END}/N` the network of that length around it.
fn put_addresses(
    value: &mut Value,
    address: &impl Fn(&Who) -> Option<IpAddr>,
) -> Result<(), ConnectivityError> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| put_addresses(item, address)),
        Value::Object(fields) => fields.values_mut().try_for_each(|field| put_addresses(field, address)),
        Value::String(text) if text.starts_with("${") => {
            let net = network(text, address).ok_or_else(|| ConnectivityError::NoAddress(text.clone()))?;
            *text = net.to_string();
            Ok(())
        }
        _ => Ok(()),
    }
}

fn network(text: &str, address: &impl Fn(&Who) -> Option<IpAddr>) -> Option<IpNet> {
    let (end, length) = text.strip_prefix("${")?.split_once('}')?;
    let who = ends("*").into_iter().find(|who| who.word() == end)?;
    let address = address(&who)?;
    // The lengths in the cases are those of IPv4; IPv6 has as many bits behind them.
    let length = match length.strip_prefix('/') {
        Some("0") => 0,
        Some(length) => (if address.is_ipv4() { 0 } else { 96 }) + length.parse::<u8>().ok()?,
        None => return Some(address.into()),
    };
    Some(IpNet::new(address, length).ok()?.trunc())
}

impl Try {
    /// All ways that are tried, and which of them must be open: all but those that are blocked, and of these again what is allowed.
    ///
    /// # Errors
    /// When it is not in its format.
    pub fn ways(&self) -> Result<Vec<Way>, ConnectivityError> {
        let by = self.by()?;
        let (froms, tos) = (named(&self.from)?, named(&self.to)?);
        let (blocked, allowed) = (pairs(&self.blocked)?, pairs(&self.allowed)?);
        let mut ways = Vec::new();
        for (from, to) in froms.iter().flat_map(|from| tos.iter().map(move |to| (from, to))) {
            if from == to {
                continue;
            }
            let any = |pairs: &[(Vec<Who>, Vec<Who>)]| {
                pairs.iter().any(|(some, others)| some.contains(from) && others.contains(to))
            };
            let open = !any(&blocked) || any(&allowed);
            ways.push(Way { from: from.clone(), to: to.clone(), by, open });
        }
        Ok(ways)
    }

    fn by(&self) -> Result<By, ConnectivityError> {
        let word = || ConnectivityError::Word(self.by.clone());
        if self.by == "ping" {
            return Ok(By::Ping);
        }
        let (kind, port) = self.by.split_once('/').ok_or_else(word)?;
        let port = port.parse().map_err(|_| word())?;
        match kind {
            "tcp" => Ok(By::Tcp(port)),
            "udp" => Ok(By::Udp(port)),
            "http" => Ok(By::Http(port)),
            _ => Err(word()),
        }
    }
}

impl Way {
    /// As the oracle is asked. `node`: the name of a node by its number.
    pub fn attempt(
        &self,
        family: Family,
        node: impl Fn(usize) -> String,
        world: impl Fn(usize) -> Option<IpAddr>,
    ) -> Result<Attempt, ConnectivityError> {
        let end = |who: &Who| match who {
            Who::Pod(pod) => Ok(End::Pod { namespace: pod.namespace.clone(), name: pod.name.clone() }),
            Who::Node(number) => Ok(End::Node { name: node(*number) }),
            Who::World(number) => {
                world(*number).map(End::Outside).ok_or_else(|| ConnectivityError::NoAddress(who.word()))
            }
        };
        let (protocol, port) = match self.by {
            By::Tcp(port) | By::Http(port) => (Protocol::Tcp, port),
            By::Udp(port) => (Protocol::Udp, port),
            By::Ping => (Protocol::Icmp, if family == Family::V4 { 8 } else { 128 }),
        };
        Ok(Attempt { from: end(&self.from)?, to: end(&self.to)?, family, protocol, port: Some(port) })
    }
}

impl Who {
    /// As cases call it.
    pub fn word(&self) -> String {
        match self {
            Self::Pod(pod) => pod.name.clone(),
            Self::Node(number) => format!("node-{}", number + 1),
            Self::World(number) => format!("world-{}", number + 1),
        }
    }
}

/// Ends by a word with `*` at its end at most.
fn ends(word: &str) -> Vec<Who> {
    let pods = PODS.iter().map(|(namespace, name, ..)| Who::Pod(Pod::new(namespace, name)));
    let all = pods.chain((0..NODES).map(Who::Node)).chain((0..2).map(Who::World));
    let fits = |who: &Who| match word.strip_suffix('*') {
        Some(start) => who.word().starts_with(start),
        None => who.word() == word,
    };
    all.filter(fits).collect()
}

fn pods_that(are: impl Fn(&Pod) -> bool) -> Vec<Who> {
    ends("*").into_iter().filter(|who| matches!(who, Who::Pod(pod) if are(pod))).collect()
}

/// Ends by words with commas between; `pods`, and of the policies' namespace `conn` and of these the servers `echo`.
fn named(words: &str) -> Result<Vec<Who>, ConnectivityError> {
    let mut found = Vec::new();
    for word in words.split(',').map(str::trim) {
        let some = match word {
            "pods" => pods_that(|_| true),
            "conn" => pods_that(|pod| pod.namespace == NAMESPACE),
            "echo" => pods_that(|pod| pod.namespace == NAMESPACE && pod.name.starts_with("echo")),
            word => ends(word),
        };
        if some.is_empty() {
            return Err(ConnectivityError::Word(word.to_owned()));
        }
        found.extend(some);
    }
    Ok(found)
}

/// Those on the two ends of a way.
type Ends = (Vec<Who>, Vec<Who>);

fn pairs(ways: &[String]) -> Result<Vec<Ends>, ConnectivityError> {
    let pair = |way: &String| {
        let (from, to) = way.split_once(" > ").ok_or_else(|| ConnectivityError::Word(way.clone()))?;
        Ok((named(from)?, named(to)?))
    };
    ways.iter().map(pair).collect()
}
