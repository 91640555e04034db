//! What a step changes, with addresses of pods put in.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Pod, Step};

/// A change to the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A NetworkPolicy is applied, new or in place of its older self.
    Apply(Value),
    /// A NetworkPolicy is deleted, by namespace and name.
    Delete(Pod),
    /// A namespace gets labels in addition to what it has.
    LabelNamespace {
        /// The namespace.
        name: String,
        /// The labels, as a JSON object.
        labels: Value,
    },
    /// A pod gets labels in addition to what it has.
    LabelPod {
        /// The pod.
        pod: Pod,
        /// The labels, as a JSON object.
        labels: Value,
    },
}

/// A policy speaks of the address of a pod that has none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} speaks of a pod without an address")]
pub struct UnknownPod {
    /// What the policy says.
    pub text: String,
}

impl Step {
    /// What is to be done, in this order. Policies may speak of the addresses of pods.
    pub fn changes(&self, address: impl Fn(&Pod) -> Option<IpAddr>) -> Result<Vec<Change>, UnknownPod> {
        let mut changes = Vec::new();
        for policy in &self.policies {
            let mut spec = policy.spec.clone();
            put_addresses(&mut spec, &address)?;
            changes.push(Change::Apply(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": policy.r#in, "name": policy.name},
                "spec": spec,
            })));
        }
        changes.extend(self.delete.iter().cloned().map(Change::Delete));
        changes.extend(
            self.label_namespaces
                .iter()
                .map(|(name, labels)| Change::LabelNamespace { name: name.clone(), labels: json!(labels) }),
        );
        changes.extend(
            self.label_pods
                .iter()
                .map(|(pod, labels)| Change::LabelPod { pod: pod.clone(), labels: json!(labels) }),
        );
        Ok(changes)
    }
}

/// Every `${NAMESPACE/NAME}` becomes a network.
fn put_addresses(value: &mut Value, address: &impl Fn(&Pod) -> Option<IpAddr>) -> Result<(), UnknownPod> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| put_addresses(item, address)),
        Value::Object(fields) => fields.values_mut().try_for_each(|field| put_addresses(field, address)),
        Value::String(text) if text.starts_with("${") => {
            let net = network(text, address).ok_or_else(|| UnknownPod { text: text.clone() })?;
            *text = net.to_string();
            Ok(())
        }
        _ => Ok(()),
    }
}

fn network(text: &str, address: &impl Fn(&Pod) -> Option<IpAddr>) -> Option<IpNet> {
    let (pod, length) = text.strip_prefix("${")?.split_once('}')?;
    let address = address(&Pod::try_from(pod.to_owned()).ok()?)?;
    match length.strip_prefix('/') {
        Some(length) => Some(IpNet::new(address, length.parse().ok()?).ok()?.trunc()),
        None => Some(address.into()),
    }
}
