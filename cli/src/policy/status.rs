//! On which nodes policies are in force, by what the nodes' agents have told the cluster.

use agent_control::{Object, ObjectKind};
use agent_crd::meta::STAGED;
use agent_crd::{NodePolicyStatus, Object as _};
use agent_policy::{Config, normalise};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::documents::{Document, Key};
use crate::table::Table;

/// What agents say, by policy and by node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The policies that are in the files beside what agents say, as far as they are wanted.
    pub(crate) policies: Vec<PolicyStatus>,
    /// The nodes.
    pub(crate) nodes: Vec<NodeStatus>,
}

/// Where a policy is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PolicyStatus {
    /// `KIND/NAMESPACE/NAME`.
    pub(crate) policy: String,
    /// The version of the object in the files.
    pub(crate) version: u64,
    /// It is only staged, and in force nowhere.
    pub(crate) staged: bool,
    /// Nodes on which that version is in force.
    pub(crate) in_force: Vec<String>,
    /// The other nodes, with why it is not.
    pub(crate) not_in_force: BTreeMap<String, String>,
    /// Parts of it that no agent enforces as they are written.
    pub(crate) unenforced: Vec<String>,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    /// Its node.
    pub(crate) node: String,
    /// By kind, the version up to which all objects are in force there.
    pub(crate) revisions: BTreeMap<String, u64>,
    /// Policies that are not enforced as they are written.
    pub(crate) not_enforced: u32,
    /// Why no policy is enforced there; null: as far as that goes all are.
    pub(crate) lax: Option<String>,
    /// Why newer versions are not in force; empty: nothing is known to be in the way.
    pub(crate) problem: String,
    /// Those policies, as far as they are wanted and listed.
    pub(crate) exceptions: Vec<Exception>,
    /// The last policy that it lists, by kind, namespace and name, and why it lists no more; null: it lists all.
    pub(crate) unlisted: Option<Unlisted>,
    /// What staged policies would have decided otherwise, of those that are wanted.
    pub(crate) staged: Vec<Staged>,
}

/// A node has more exceptions than it lists: of policies after the last one it does not say whether they are in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unlisted {
    /// Kind, namespace and name of the last that is listed.
    pub(crate) last: (String, String, String),
    /// Why there are no more.
    pub(crate) why: String,
}

/// A policy that is not enforced as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exception {
    /// `KIND/NAMESPACE/NAME`.
    pub(crate) policy: String,
    /// What is wrong, and what holds instead.
    pub(crate) message: String,
}

/// A staged policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Staged {
    /// `KIND/NAMESPACE/NAME`.
    pub(crate) policy: String,
    /// Packets that were dropped, and that it would let through.
    pub(crate) would_allow: u64,
    /// Connections that passed, and that it would deny.
    pub(crate) would_deny: u64,
}

impl Unlisted {
    fn may_have(&self, key: &Key) -> bool {
        let (kind, namespace, name) = &self.last;
        (&key.kind, &key.namespace, &key.name) > (kind, namespace, name)
    }
}

/// Which policies are asked for: `NAME`, `NAMESPACE/NAME` or `KIND/…`; all if none is.
fn is_wanted(wanted: &[String], policy: &str) -> bool {
    let is_end_of = |text: &String| policy == *text || policy.ends_with(&format!("/{text}"));
    wanted.is_empty() || wanted.iter().any(is_end_of)
}

/// What the agents say.
///
/// # Errors
/// When the files have nothing of it, or it cannot be read.
pub(crate) fn status(documents: &[Document], wanted: &[String]) -> Result<Status> {
    let nodes = nodes(documents, wanted)?;
    let of_policies = documents.iter().filter(|document| is_policy(&document.key.kind));
    let wanted = of_policies.filter(|document| is_wanted(wanted, &document.key.to_string()));
    Ok(Status { policies: wanted.map(|document| policy(document, &nodes)).collect(), nodes })
}

fn is_policy(kind: &str) -> bool {
    kind.ends_with("NetworkPolicy")
}

/// Where a policy is in force. Up to the version that an agent names for its kind all are, but for the exceptions.
fn policy(document: &Document, nodes: &[NodeStatus]) -> PolicyStatus {
    let (policy, metadata) = (document.key.to_string(), &document.object["metadata"]);
    let version = metadata["resourceVersion"].as_str().and_then(|version| version.parse().ok()).unwrap_or(0);
    let staged = metadata["annotations"][STAGED].as_str() == Some("true");
    let mut status = PolicyStatus {
        policy,
        version,
        staged,
        in_force: Vec::new(),
        not_in_force: BTreeMap::new(),
        unenforced: unenforced(document),
    };
    for node in nodes {
        let revision = node.revisions.get(&document.key.kind).copied().unwrap_or(0);
        let exception = node.exceptions.iter().find(|exception| exception.policy == status.policy);
        let unlisted = node.unlisted.as_ref().filter(|unlisted| unlisted.may_have(&document.key));
        let unlisted = unlisted.map(|unlisted| unlisted.why.as_str());
        let why = match exception {
            Some(exception) => exception.message.clone(),
            None if staged => "staged".to_owned(),
            None if node.lax.is_some() => node.lax.clone().unwrap_or_default(),
            None if unlisted.is_some() => format!("not known: {}", unlisted.unwrap_or_default()),
            None if revision >= version => {
                status.in_force.push(node.node.clone());
                continue;
            }
            None if node.problem.is_empty() => format!("in force up to version {revision}"),
            None => format!("in force up to version {revision}: {}", node.problem),
        };
        status.not_in_force.insert(node.node.clone(), why);
    }
    status
}

/// Parts of a policy that no agent enforces. Of one that cannot be read agents say that they have not taken it.
fn unenforced(document: &Document) -> Vec<String> {
    let object =
        ObjectKind::of(&document.object).and_then(|kind| Object::read(kind, &document.object).ok()?);
    let normal = object.as_ref().and_then(Object::as_policy);
    let normal = normal.and_then(|policy| normalise(policy, &Config::default().cluster).ok());
    normal.map(|normal| normal.unenforced).unwrap_or_default()
}

fn nodes(documents: &[Document], wanted: &[String]) -> Result<Vec<NodeStatus>> {
    let mut nodes = BTreeMap::new();
    for document in documents.iter().filter(|document| document.key.kind == NodePolicyStatus::KIND) {
        let status = NodePolicyStatus::from_json(document.object.clone())?;
        let named = |kind: &str, namespace: &str, name: &str| {
            let key = Key { kind: kind.into(), namespace: namespace.into(), name: name.into() };
            Some(key.to_string()).filter(|policy| is_wanted(wanted, policy))
        };
        let exceptions = status.exceptions.iter().filter_map(|exception| {
            let policy = named(&exception.kind, &exception.namespace, &exception.name)?;
            Some(Exception { policy, message: exception.message.clone() })
        });
        let staged = status.staged.iter().filter_map(|staged| {
            let policy = named(&staged.kind, &staged.namespace, &staged.name)?;
            Some(Staged { policy, would_allow: staged.would_allow, would_deny: staged.would_deny })
        });
        let unlisted = status.listed_up_to().map(|(kind, namespace, name)| Unlisted {
            last: (kind.to_owned(), namespace.to_owned(), name.to_owned()),
            why: status.why_unlisted(),
        });
        let node = NodeStatus {
            unlisted,
            node: status.metadata.name.clone(),
            not_enforced: status.not_enforced,
            exceptions: exceptions.collect(),
            staged: staged.collect(),
            lax: status.lax().map(|lax| lax.why().to_owned()),
            revisions: status.revisions,
            problem: status.problem,
        };
        nodes.insert(status.metadata.name, node);
    }
    ensure!(
        !nodes.is_empty(),
        "the files have no NodePolicyStatus, which agents write: kubectl get nodepolicystatuses -o json"
    );
    Ok(nodes.into_values().collect())
}

/// For people: a line for each policy, one for each node, then what is not as it should be.
pub(crate) fn text(status: &Status) -> String {
    let Status { policies, nodes } = status;
    let mut by_policy = Table::new(&["POLICY", "VERSION", "IN FORCE", "NOT ON"]);
    for policy in policies {
        let all = policy.in_force.len() + policy.not_in_force.len();
        let in_force =
            if policy.staged { "staged".to_owned() } else { format!("{}/{all}", policy.in_force.len()) };
        let not = if policy.staged { BTreeMap::new() } else { policy.not_in_force.clone() };
        let not: Vec<String> = not.into_iter().map(|(node, why)| format!("{node} ({why})")).collect();
        by_policy.row([policy.policy.clone(), policy.version.to_string(), in_force, not.join(", ")]);
    }
    let mut table = Table::new(&["NODE", "REVISION", "NOT ENFORCED", "PROBLEM"]);
    for node in nodes {
        table.row([
            node.node.clone(),
            node.revisions.values().max().map(ToString::to_string).unwrap_or_default(),
            node.not_enforced.to_string(),
            node.problem.clone(),
        ]);
    }
    let mut text = if policies.is_empty() { String::new() } else { format!("{by_policy}\n") };
    text.push_str(&table.to_string());
    // Writing to a String does not fail.
    let mut add = |part: std::fmt::Arguments<'_>| text.write_fmt(part).expect("a String takes any text");
    for policy in policies {
        for part in &policy.unenforced {
            add(format_args!("{}: {part}\n", policy.policy));
        }
    }
    for node in nodes {
        if let Some(lax) = &node.lax {
            add(format_args!("{}: every policy: {lax}\n", node.node));
        }
        for exception in &node.exceptions {
            add(format_args!("{}: {}: {}\n", node.node, exception.policy, exception.message));
        }
        for staged in &node.staged {
            add(format_args!(
                "{}: {}: staged, would deny {} and allow {}\n",
                node.node, staged.policy, staged.would_deny, staged.would_allow
            ));
        }
    }
    text
}
