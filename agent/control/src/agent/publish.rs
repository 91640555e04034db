//! What the agent tells the cluster of its endpoints: one `CiliumEndpoint` for each pod of this node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use agent_crd::cilium_endpoint::{
    AddressPair, EndpointIdentifiers, EndpointIdentity, EndpointNetworking, EndpointPolicy,
    EndpointPolicyDirection, EndpointState, EndpointStatus, NamedPort,
};
use agent_crd::meta::OwnerReference;
use agent_crd::{CiliumEndpoint, ObjectMeta};
use agent_policy::proto;
use dataplane_abi::endpoints::EndpointFlags;

use super::Agent;
use crate::objects::{ObjectKind, ObjectName};
use crate::state::endpoints::{EndpointRecord, Phase};
use crate::state::policy::InForce;

impl Agent {
    /// The objects that this node's pods shall have, by namespace and name: a function of what is in force now.
    /// A pod has one once its object is known and its rows are written. Empty while identities are off or not known yet.
    pub fn published(&self) -> BTreeMap<ObjectName, CiliumEndpoint> {
        if !self.state.policy.enabled() || self.state.policy.engine().is_none() {
            return BTreeMap::new();
        }
        let ready = self.state.endpoints.iter().filter(|endpoint| endpoint.phase == Phase::Ready);
        ready
            .filter_map(|endpoint| {
                let object = self.published_endpoint(&endpoint.record)?;
                Some((ObjectName::new(&object.metadata.namespace, &object.metadata.name), object))
            })
            .collect()
    }

    fn published_endpoint(&self, record: &EndpointRecord) -> Option<CiliumEndpoint> {
        let pod = self.state.policy.pod(record.id)?;
        let in_force = self.state.policy.of_endpoint(record.id)?;
        let mut metadata = ObjectMeta::named(&pod.name);
        metadata.namespace.clone_from(&pod.namespace);
        metadata.labels.clone_from(&pod.labels);
        metadata.owner_references = vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            controller: None,
        }];
        let address = |v4: bool| {
            record.addresses.iter().find(|address| address.is_ipv4() == v4).map(ToString::to_string)
        };
        let node = self.plan.node_v4.map(IpAddr::V4).or(self.plan.node_v6.map(IpAddr::V6));
        let labels = self.state.policy.engine().and_then(|engine| engine.labels(in_force.identity));
        let container = record.attachment.as_ref();
        let status = EndpointStatus {
            id: Some(i64::from(record.id)),
            identity: Some(EndpointIdentity {
                id: Some(i64::from(in_force.identity.0)),
                labels: labels
                    .into_iter()
                    .flat_map(agent_policy::LabelSet::iter)
                    .map(ToString::to_string)
                    .collect(),
            }),
            networking: Some(EndpointNetworking {
                addressing: vec![AddressPair { ipv4: address(true), ipv6: address(false) }],
                node: node.map(|node| node.to_string()),
            }),
            policy: Some(policy(in_force)),
            state: Some(if in_force.identity == dataplane_abi::Identity::INIT {
                EndpointState::WaitingForIdentity
            } else {
                EndpointState::Ready
            }),
            external_identifiers: Some(EndpointIdentifiers {
                cni_attachment_id: container.map(|c| format!("{}:{}", c.container_id, c.ifname)),
                container_id: container.map(|c| c.container_id.clone()),
                k8s_namespace: Some(pod.namespace.clone()),
                k8s_pod_name: Some(pod.name.clone()),
                pod_name: Some(format!("{}/{}", pod.namespace, pod.name)),
                ..EndpointIdentifiers::default()
            }),
            named_ports: pod
                .named_ports
                .iter()
                .map(|port| NamedPort {
                    name: port.name.clone(),
                    port: port.port,
                    protocol: proto::name(port.proto).unwrap_or_default().to_owned(),
                })
                .collect(),
            service_account: Some(pod.service_account.clone()).filter(|account| !account.is_empty()),
            ..EndpointStatus::default()
        };
        Some(CiliumEndpoint { metadata, status })
    }

    /// The latest `resourceVersion` of a policy up to which all policies are in force on this node; 0 before the first, or when policy is off.
    pub fn policy_revision(&self) -> u64 {
        self.state.policy.revision()
    }

    /// The same for each kind of policy by itself; kinds of which nothing has come are left out.
    ///
    /// Watches of two kinds may lag behind each other, so only this says of an object whether it is in force here.
    pub fn policy_revisions(&self) -> &BTreeMap<ObjectKind, u64> {
        self.state.policy.revisions()
    }

    /// Whether every kind of object that policy rests on has been heard whole, or policy is off.
    pub fn policies_synced(&self) -> bool {
        self.state.policy.synced()
    }

    /// The policy engine, for those who look: explanations, names of rules. `None` before all that it needs has been heard.
    pub fn policy(&self) -> Option<&agent_policy::Policy> {
        self.state.policy.engine()
    }
}

fn policy(in_force: InForce) -> EndpointPolicy {
    let direction = |flag: EndpointFlags| {
        let enforcing = in_force.flags.contains(flag);
        Some(EndpointPolicyDirection {
            enforcing,
            state: Some(if enforcing { "enforcing" } else { "disabled" }.to_owned()),
            ..EndpointPolicyDirection::default()
        })
    };
    EndpointPolicy {
        ingress: direction(EndpointFlags::ENFORCE_INGRESS),
        egress: direction(EndpointFlags::ENFORCE_EGRESS),
    }
}
