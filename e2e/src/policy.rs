//! Policies of the matrix in the cluster: applied, waited for, taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client};

use crate::matrix::{Case, Expect, Matrix};
use crate::workloads::{self, POLICY_GROUP, POLICY_KIND, POLICY_VERSION};

/// Node annotation in which an agent reports the policy revision that its dataplane has.
pub const REVISION_ANNOTATION: &str = "bristle.io/policy-revision";
/// How long agents may take to catch up.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(15);

/// The policies that are in force now.
pub struct Policies<'m> {
    client: Client,
    matrix: &'m Matrix,
    /// Why the cluster cannot do policy, if it cannot.
    missing: Option<String>,
    applied: BTreeSet<String>,
    ever_applied: BTreeSet<String>,
}

impl<'m> Policies<'m> {
    /// Finds out whether the cluster can do policy.
    pub async fn probe(client: &Client, matrix: &'m Matrix) -> Self {
        let missing = why_missing(client).await;
        let policies = Self {
            client: client.clone(),
            matrix,
            missing: missing.map(|why| format!("policy is not implemented: {why}")),
            applied: BTreeSet::new(),
            ever_applied: BTreeSet::new(),
        };
        if policies.missing.is_none() {
            policies.sweep().await;
        }
        policies
    }

    /// Removes what an earlier run that was killed left in force.
    async fn sweep(&self) {
        for name in self.matrix.policies.keys() {
            match self.api().delete(name, &DeleteParams::default()).await {
                Ok(_) => tracing::warn!(policy = name, "removed, an earlier run had left it behind"),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => tracing::warn!(policy = name, %error, "cannot be removed"),
            }
        }
    }

    /// Brings the cluster into the state that a case starts from; the reason why it cannot run if that fails.
    ///
    /// A case that proves that a policy is gone is worth nothing if that policy was never in force; so it is put in
    /// force first where no earlier case of the run did.
    pub async fn prepare(&mut self, case: &Case) -> Result<(), String> {
        if case.policies.is_empty() && case.proves_gone.is_empty() {
            return self.set(&[]).await;
        }
        if let Some(why) = &self.missing {
            return Err(why.clone());
        }
        if case.proves_gone.iter().any(|name| !self.ever_applied.contains(name)) {
            self.set(&case.proves_gone).await?;
        }
        if case.expect == Expect::Applied {
            self.set(&[]).await?;
        }
        self.set(&case.policies).await
    }

    /// Takes everything away.
    pub async fn clear(&mut self) -> Result<(), String> {
        self.set(&[]).await
    }

    async fn set(&mut self, wanted: &[String]) -> Result<(), String> {
        let wanted: BTreeSet<String> = wanted.iter().cloned().collect();
        if wanted == self.applied {
            return Ok(());
        }
        let before = revisions(&self.client).await?;
        let policies = self.api();
        for name in self.applied.difference(&wanted) {
            policies
                .delete(name, &DeleteParams::default())
                .await
                .map_err(|error| format!("policy {name} cannot be deleted: {error}"))?;
        }
        let mut least = 0;
        for name in wanted.difference(&self.applied) {
            let namespace = &self.matrix.topology.namespace;
            let object = workloads::policy(name, namespace, &self.matrix.policies[name]);
            let applied = policies
                .patch(name, &PatchParams::apply("bristle-e2e").force(), &Patch::Apply(&object))
                .await
                .map_err(|error| format!("policy {name} cannot be applied: {error}"))?;
            let version = applied.metadata.resource_version.and_then(|version| version.parse().ok());
            least = least.max(version.unwrap_or(0));
        }
        self.ever_applied.extend(wanted.iter().cloned());
        self.applied = wanted;
        wait_for_agents(&self.client, &before, least).await
    }

    fn api(&self) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: POLICY_GROUP.into(),
            version: "v2".into(),
            api_version: POLICY_VERSION.into(),
            kind: POLICY_KIND.into(),
            plural: "ciliumnetworkpolicies".into(),
        };
        Api::namespaced_with(self.client.clone(), &self.matrix.topology.namespace, &resource)
    }
}

/// Waits until every agent reports a newer revision than before, and at least `least`: of several policies all, not only the first.
pub(crate) async fn wait_for_agents(
    client: &Client,
    before: &BTreeMap<String, u64>,
    least: u64,
) -> Result<(), String> {
    let deadline = Instant::now() + CATCH_UP_LIMIT;
    loop {
        let now = revisions(client).await?;
        let behind: Vec<&str> = before
            .iter()
            .filter(|(node, old)| now.get(*node).is_none_or(|new| new <= *old || *new < least))
            .map(|(node, _)| node.as_str())
            .collect();
        if behind.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let limit = CATCH_UP_LIMIT.as_secs();
            return Err(format!("no newer policy revision within {limit} s on {}", behind.join(", ")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn why_missing(client: &Client) -> Option<String> {
    let resources = match client.list_api_group_resources(POLICY_VERSION).await {
        Ok(list) => list.resources,
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Some(format!("the API group cilium.io/v2 cannot be read: {error}")),
    };
    if !resources.iter().any(|resource| resource.name == "ciliumnetworkpolicies") {
        return Some(
            "the cluster has no CustomResourceDefinition ciliumnetworkpolicies.cilium.io".to_owned(),
        );
    }
    revisions(client).await.err()
}

/// The policy revision of every node's agent.
pub(crate) async fn revisions(client: &Client) -> Result<BTreeMap<String, u64>, String> {
    let nodes = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
        .map_err(|error| format!("the nodes cannot be listed: {error}"))?;
    nodes.items.into_iter().map(|node| revision(&node)).collect()
}

fn revision(node: &Node) -> Result<(String, u64), String> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let text = node.metadata.annotations.as_ref().and_then(|all| all.get(REVISION_ANNOTATION));
    let text = text.ok_or_else(|| {
        format!("node {name} reports no policy revision (annotation {REVISION_ANNOTATION})")
    })?;
    let revision = text.parse().map_err(|_| format!("node {name} reports the policy revision `{text}`"))?;
    Ok((name, revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn revisions_are_read_from_the_node_and_missed_by_name() {
        let node = |annotations| -> Node {
            serde_json::from_value(json!({"metadata": {"name": "node-1", "annotations": annotations}}))
                .expect("a node")
        };
        assert_eq!(revision(&node(json!({REVISION_ANNOTATION: "7"}))), Ok(("node-1".into(), 7)));
        assert_eq!(
            revision(&node(json!({}))),
            Err("node node-1 reports no policy revision (annotation bristle.io/policy-revision)".into())
        );
        assert!(revision(&node(json!({REVISION_ANNOTATION: "new"}))).is_err());
    }
}
