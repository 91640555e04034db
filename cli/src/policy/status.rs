//! On which nodes policies are in force, by what the nodes' agents have told the cluster.

use agent_crd::{NodePolicyStatus, Object as _};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::documents::{Document, Key};
use crate::table::Table;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    /// Its node.
    pub(crate) node: String,
    /// By kind, the version up to which all objects are in force there.
    pub(crate) revisions: BTreeMap<String, u64>,
    /// Policies that are not enforced as they are written.
    pub(crate) not_enforced: u32,
    /// Why newer versions are not in force; empty: nothing is known to be in the way.
    pub(crate) problem: String,
    /// Those policies, as far as they are wanted and listed.
    pub(crate) exceptions: Vec<Exception>,
    /// What staged policies would have decided otherwise, of those that are wanted.
    pub(crate) staged: Vec<Staged>,
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

/// Which policies are asked for: `NAME`, `NAMESPACE/NAME` or `KIND/…`; all if none is.
fn is_wanted(wanted: &[String], policy: &str) -> bool {
    let is_end_of = |text: &String| policy == *text || policy.ends_with(&format!("/{text}"));
    wanted.is_empty() || wanted.iter().any(is_end_of)
}

/// What the agents say, by node.
///
/// # Errors
/// When the files have nothing of it, or it cannot be read.
pub(crate) fn status(documents: &[Document], wanted: &[String]) -> Result<Vec<NodeStatus>> {
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
        let node = NodeStatus {
            node: status.metadata.name.clone(),
            not_enforced: status.not_enforced,
            exceptions: exceptions.collect(),
            staged: staged.collect(),
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

/// For people: a line for each node, then what is not as it should be.
pub(crate) fn text(nodes: &[NodeStatus]) -> String {
    let mut table = Table::new(&["NODE", "REVISION", "NOT ENFORCED", "PROBLEM"]);
    for node in nodes {
        table.row([
            node.node.clone(),
            node.revisions.values().max().map(ToString::to_string).unwrap_or_default(),
            node.not_enforced.to_string(),
            node.problem.clone(),
        ]);
    }
    let mut text = table.to_string();
    // Writing to a String does not fail.
    let mut add = |part: std::fmt::Arguments<'_>| text.write_fmt(part).expect("a String takes any text");
    for node in nodes {
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
