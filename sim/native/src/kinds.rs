//! Objects that identity and policy rest on, as those who watch them hear of them: of each kind all changes since the beginning.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use agent_control::{Event, Object, ObjectKind, ObjectName};
use agent_crd::cilium_network_policy::PolicyStatus;
use agent_crd::{
    CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy,
    ClusterNetworkPolicy, NodePolicyStatus, Object as _, ObjectMeta,
};
use bristle_operator::core::validity::Validity;
use bristle_operator::core::{self as operator, Key, Kind, Seen};
use serde_json::Value;
use sim_api::Gr;
use sim_api::object::{at, label_map, name, namespace, resource_version, str_at};
use sim_api::resource::{ENDPOINTSLICES, NAMESPACES, NETWORKPOLICIES, PODS, SERVICES};

/// Definitions of the kinds that Kubernetes does not have by itself.
pub(crate) static DEFINITIONS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let mut definitions = agent_crd::crd::needed();
    definitions.push(agent_crd::crd::cluster_network_policy());
    definitions
});

/// `CiliumEndpoint`.
pub(crate) const ENDPOINTS: Gr = Gr::new(CiliumEndpoint::GROUP, CiliumEndpoint::PLURAL);
/// `NodePolicyStatus`.
pub(crate) const STATUSES: Gr = Gr::new(NodePolicyStatus::GROUP, NodePolicyStatus::PLURAL);
/// `CiliumIdentity`.
pub(crate) const IDENTITIES: Gr = Gr::new(CiliumIdentity::GROUP, CiliumIdentity::PLURAL);

const RESOURCES: [(ObjectKind, Gr); 11] = [
    (ObjectKind::Pod, PODS),
    (ObjectKind::Namespace, NAMESPACES),
    (ObjectKind::Identity, IDENTITIES),
    (ObjectKind::Endpoint, ENDPOINTS),
    (ObjectKind::CidrGroup, Gr::new(CiliumCIDRGroup::GROUP, CiliumCIDRGroup::PLURAL)),
    (ObjectKind::NetworkPolicy, NETWORKPOLICIES),
    (ObjectKind::CiliumNetworkPolicy, Gr::new(CiliumNetworkPolicy::GROUP, CiliumNetworkPolicy::PLURAL)),
    (
        ObjectKind::CiliumClusterwideNetworkPolicy,
        Gr::new(CiliumClusterwideNetworkPolicy::GROUP, CiliumClusterwideNetworkPolicy::PLURAL),
    ),
    (ObjectKind::ClusterNetworkPolicy, Gr::new(ClusterNetworkPolicy::GROUP, ClusterNetworkPolicy::PLURAL)),
    (ObjectKind::Service, SERVICES),
    (ObjectKind::EndpointSlice, ENDPOINTSLICES),
];

/// The kind of a resource, if it is one of these.
pub(crate) fn kind_of(resource: &Gr) -> Option<ObjectKind> {
    RESOURCES.iter().find(|(_, gr)| gr == resource).map(|(kind, _)| *kind)
}

/// The resource of a kind of policy that the operator has a word on.
pub(crate) fn policy_resource(kind: Kind) -> Gr {
    let kind = match kind {
        Kind::ClusterwidePolicy => ObjectKind::CiliumClusterwideNetworkPolicy,
        Kind::ClusterPolicy => ObjectKind::ClusterNetworkPolicy,
        _ => ObjectKind::CiliumNetworkPolicy,
    };
    RESOURCES.iter().find(|(other, _)| *other == kind).map_or(PODS, |(_, gr)| gr.clone())
}

/// Resources of all kinds of policies.
pub(crate) fn policy_resources() -> impl Iterator<Item = Gr> {
    let kinds = RESOURCES.into_iter().filter(|(kind, _)| kind.name().ends_with("NetworkPolicy"));
    kinds.map(|(_, gr)| gr)
}

/// The operator's word for a kind, if it watches it.
pub(crate) const fn of_operator(kind: ObjectKind) -> Option<Kind> {
    Some(match kind {
        ObjectKind::Pod => Kind::Pod,
        ObjectKind::Namespace => Kind::Namespace,
        ObjectKind::Identity => Kind::Identity,
        ObjectKind::Endpoint => Kind::Endpoint,
        ObjectKind::CiliumNetworkPolicy => Kind::NamespacedPolicy,
        ObjectKind::CiliumClusterwideNetworkPolicy => Kind::ClusterwidePolicy,
        ObjectKind::ClusterNetworkPolicy => Kind::ClusterPolicy,
        ObjectKind::CidrGroup
        | ObjectKind::NetworkPolicy
        | ObjectKind::Service
        | ObjectKind::EndpointSlice => return None,
    })
}

/// One change of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    kind: ObjectKind,
    pub(crate) name: ObjectName,
    /// When.
    pub(crate) at: Duration,
    /// The node of a pod.
    pub(crate) node: String,
    deleted: bool,
    version: u64,
    /// As agents read it, if it is of any concern to them, or why they cannot.
    read: Result<Option<Object>, String>,
    /// As the operator reads it.
    seen: Option<Seen>,
}

impl Change {
    /// What an agent hears, if anything.
    pub(crate) fn event(&self) -> Option<Event> {
        let (kind, name, version) = (self.kind, self.name.clone(), self.version);
        Some(match &self.read {
            _ if self.deleted => Event::Delete { kind, name, version },
            Ok(object) => Event::Upsert { object: Box::new(object.clone()?), version },
            Err(error) => Event::Unreadable { kind, name, error: error.clone() },
        })
    }

    /// What the operator hears.
    pub(crate) fn operator_event(&self) -> Option<operator::Event> {
        if self.deleted {
            let kind = of_operator(self.kind)?;
            let ObjectName { namespace, name } = self.name.clone();
            return Some(operator::Event::Deleted(Key { kind, namespace, name }));
        }
        self.seen.clone().map(operator::Event::Upsert)
    }
}

/// All changes of the objects of a kind.
#[derive(Debug, Default)]
pub(crate) struct KindLog {
    pub(crate) changes: Vec<Change>,
    present: BTreeMap<ObjectName, usize>,
}

impl KindLog {
    /// Takes a change in; false if nobody can tell it from what was before.
    pub(crate) fn add(&mut self, kind: ObjectKind, object: &Value, deleted: bool, at: Duration) -> bool {
        let change = read(kind, object, deleted, at);
        if deleted {
            self.present.remove(&change.name);
        } else {
            let old = self.present.insert(change.name.clone(), self.changes.len());
            if let Some(old) = old {
                let known = &self.changes[old];
                if (&known.read, &known.seen, &known.node) == (&change.read, &change.seen, &change.node) {
                    self.present.insert(change.name, old);
                    return false;
                }
            }
        }
        self.changes.push(change);
        true
    }

    /// How many changes there have been.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether an object is there after the first `position` changes.
    pub(crate) fn has(&self, name: &ObjectName, position: usize) -> bool {
        let before = &self.changes[..position.min(self.changes.len())];
        before.iter().rev().find(|change| change.name == *name).is_some_and(|change| !change.deleted)
    }

    /// When the object that has this name now was made; `None`: nobody has it.
    pub(crate) fn made(&self, name: &ObjectName) -> Option<Duration> {
        let mut versions = self.changes.iter().rev().filter(|change| change.name == *name);
        let mut made = None;
        while let Some(change) = versions.next().filter(|change| !change.deleted) {
            made = Some(change.at);
        }
        made
    }

    /// The objects after the first `position` changes.
    pub(crate) fn at(&self, position: usize) -> Vec<Change> {
        let mut objects = BTreeMap::new();
        for change in &self.changes[..position.min(self.changes.len())] {
            if change.deleted {
                objects.remove(&change.name);
            } else {
                objects.insert(&change.name, change);
            }
        }
        objects.into_values().cloned().collect()
    }
}

fn read(kind: ObjectKind, object: &Value, deleted: bool, at: Duration) -> Change {
    let node = match kind {
        ObjectKind::Pod => str_at(object, &["spec", "nodeName"]).to_owned(),
        _ => String::new(),
    };
    Change {
        kind,
        name: ObjectName::new(namespace(object), name(object)),
        at,
        node,
        deleted,
        version: resource_version(object),
        read: Object::read(kind, object).map_err(|error| error.to_string()),
        seen: for_operator(kind, object),
    }
}

fn metadata(object: &Value) -> ObjectMeta {
    serde_json::from_value(object["metadata"].clone()).unwrap_or_default()
}

/// An identity. One that cannot be read has no labels, but its number is taken all the same.
pub(crate) fn identity(object: &Value) -> CiliumIdentity {
    CiliumIdentity::from_json(object.clone())
        .unwrap_or_else(|_| CiliumIdentity { metadata: metadata(object), ..CiliumIdentity::default() })
}

fn policy(kind: Kind, object: &Value, validity: Validity) -> Seen {
    Seen::Policy(operator::Policy {
        kind,
        metadata: metadata(object),
        validity,
        status: serde_json::from_value::<PolicyStatus>(object["status"].clone()).unwrap_or_default(),
    })
}

/// As the operator's process reads objects.
fn for_operator(kind: ObjectKind, object: &Value) -> Option<Seen> {
    Some(match of_operator(kind)? {
        Kind::Pod => Seen::Pod(operator::Pod {
            namespace: namespace(object).to_owned(),
            name: name(object).to_owned(),
            labels: label_map(object),
            service_account: str_at(object, &["spec", "serviceAccountName"]).to_owned(),
            host_network: at(object, &["spec", "hostNetwork"]).as_bool().unwrap_or(false),
            finished: matches!(str_at(object, &["status", "phase"]), "Succeeded" | "Failed"),
        }),
        Kind::Namespace => {
            Seen::Namespace(operator::Namespace { name: name(object).to_owned(), labels: label_map(object) })
        }
        Kind::Identity => Seen::Identity(identity(object)),
        Kind::Endpoint => Seen::Endpoint(operator::Endpoint {
            namespace: namespace(object).to_owned(),
            name: name(object).to_owned(),
            identity: at(object, &["status", "identity", "id"])
                .as_u64()
                .and_then(|number| u32::try_from(number).ok()),
        }),
        kind @ Kind::NamespacedPolicy => policy(kind, object, Validity::of_namespaced(object.clone())),
        kind @ Kind::ClusterwidePolicy => policy(kind, object, Validity::of_clusterwide(object.clone())),
        kind @ Kind::ClusterPolicy => policy(kind, object, Validity::of_cluster(object.clone())),
        // Told by `World::hear_statuses`: agents do not watch it.
        Kind::NodeStatus => return None,
    })
}
