//! The CustomResourceDefinitions of the kinds here, made from the types.

use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::object::Object;
use crate::{
    CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy,
    ClusterNetworkPolicy, NodePolicyStatus, schema,
};

/// Label of a definition that says how new its schema is.
pub const SCHEMA_VERSION_LABEL: &str = "io.cilium.k8s.crd.schema.version";

/// How new the schemas are; the numbers are those of the objects that they are compatible with.
pub const SCHEMA_VERSION: &str = "1.32.6";

/// The definitions that Bristle needs: those of `cilium.io`, and its own.
pub fn needed() -> Vec<Value> {
    let own = Extras { short_names: &["nps"], columns: NODE_COLUMNS, labelled: true, ..NOTHING };
    let mut all = cilium();
    all.push(definition::<NodePolicyStatus>(&own));
    all
}

/// Those of the kinds of the group `cilium.io`, by name.
pub fn cilium() -> Vec<Value> {
    vec![
        definition::<CiliumCIDRGroup>(&Extras { short_names: &["ccg"], ..CILIUM }),
        definition::<CiliumClusterwideNetworkPolicy>(&Extras {
            short_names: &["ccnp"],
            categories: &["cilium", "ciliumpolicy"],
            columns: &[AGE, VALID, ENFORCED],
            status: true,
            ..CILIUM
        }),
        definition::<CiliumEndpoint>(&Extras {
            short_names: &["cep", "ciliumep"],
            columns: ENDPOINT_COLUMNS,
            ..CILIUM
        }),
        definition::<CiliumIdentity>(&Extras {
            short_names: &["ciliumid"],
            columns: &[IDENTITY_NAMESPACE, AGE],
            status: true,
            ..CILIUM
        }),
        definition::<CiliumNetworkPolicy>(&Extras {
            short_names: &["cnp", "ciliumnp"],
            categories: &["cilium", "ciliumpolicy"],
            columns: &[AGE, VALID, ENFORCED],
            status: true,
            ..CILIUM
        }),
    ]
}

/// The definition of ClusterNetworkPolicy, for clusters that have none: it belongs to the Kubernetes network policy
/// project, whose own definition is to be preferred.
pub fn cluster_network_policy() -> Value {
    let mut definition = definition::<ClusterNetworkPolicy>(&Extras {
        // `cnp`, its own short name, is taken by CiliumNetworkPolicy where both are installed.
        short_names: &[],
        categories: &[],
        columns: &[TIER, PRIORITY, AGE],
        status: true,
        labelled: false,
    });
    // Names below *.k8s.io need a word on who approved them.
    definition["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api/pull/93"});
    definition
}

/// What a definition has beside its schema.
struct Extras {
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    columns: &'static [Column],
    /// Whether the status is written by itself.
    status: bool,
    /// Whether it says how new its schema is.
    labelled: bool,
}

const NOTHING: Extras =
    Extras { short_names: &[], categories: &[], columns: &[], status: false, labelled: false };
const CILIUM: Extras = Extras { categories: &["cilium"], labelled: true, ..NOTHING };

/// A column of `kubectl get`.
struct Column {
    name: &'static str,
    kind: &'static str,
    path: &'static str,
    description: &'static str,
    /// Shown with `-o wide` only.
    wide: bool,
}

const fn column(
    name: &'static str,
    kind: &'static str,
    path: &'static str,
    description: &'static str,
) -> Column {
    Column { name, kind, path, description, wide: false }
}

const AGE: Column = column("Age", "date", ".metadata.creationTimestamp", "Time since it was created");
const VALID: Column = column(
    "Valid",
    "string",
    ".status.conditions[?(@.type=='Valid')].status",
    "Whether the policy could be understood",
);
const ENFORCED: Column = column(
    "Enforced",
    "string",
    ".status.conditions[?(@.type=='Enforced')].status",
    "Whether the policy is in force on every node",
);
const NODE_COLUMNS: &[Column] = &[
    column("Not enforced", "integer", ".notEnforced", "Policies that are not enforced as they are written"),
    column(
        "NetworkPolicy",
        "integer",
        ".revisions.NetworkPolicy",
        "Version up to which NetworkPolicy objects are in force",
    ),
    column(
        "CiliumNetworkPolicy",
        "integer",
        ".revisions.CiliumNetworkPolicy",
        "Version up to which CiliumNetworkPolicy objects are in force",
    ),
    column("Enforcement", "string", ".enforcement", "Where it is not as policies say"),
    column("Audit", "boolean", ".audit", "What is denied passes and is told of"),
    column("Problem", "string", ".problem", "Why newer ones are not"),
    AGE,
];
const IDENTITY_NAMESPACE: Column = column(
    "Namespace",
    "string",
    r".metadata.labels.io\.kubernetes\.pod\.namespace",
    "Namespace of the pods that have the identity",
);
const TIER: Column = column("Tier", "string", ".spec.tier", "Before or after the policies of namespaces");
const PRIORITY: Column =
    column("Priority", "string", ".spec.priority", "Lower numbers come first in their tier");
const ENDPOINT_COLUMNS: &[Column] = &[
    column("Security Identity", "integer", ".status.identity.id", "Number of its identity"),
    Column {
        wide: true,
        ..column(
            "Ingress Enforcement",
            "string",
            ".status.policy.ingress.state",
            "How policy is enforced on what comes in",
        )
    },
    Column {
        wide: true,
        ..column(
            "Egress Enforcement",
            "string",
            ".status.policy.egress.state",
            "How policy is enforced on what goes out",
        )
    },
    column("Endpoint State", "string", ".status.state", "Where it is in its life"),
    column("IPv4", "string", ".status.networking.addressing[0].ipv4", "Its IPv4 address"),
    column("IPv6", "string", ".status.networking.addressing[0].ipv6", "Its IPv6 address"),
];

impl Column {
    fn to_json(&self) -> Value {
        let mut column = json!({"description": self.description, "jsonPath": self.path, "name": self.name, "type": self.kind});
        if self.wide {
            column["priority"] = 1.into();
        }
        column
    }
}

fn definition<T: Object + JsonSchema>(extras: &Extras) -> Value {
    let mut names = json!({
        "kind": T::KIND,
        "listKind": format!("{}List", T::KIND),
        "plural": T::PLURAL,
        "singular": T::KIND.to_lowercase(),
    });
    if !extras.categories.is_empty() {
        names["categories"] = extras.categories.into();
    }
    if !extras.short_names.is_empty() {
        names["shortNames"] = extras.short_names.into();
    }
    let mut version = json!({
        "name": T::VERSION,
        "schema": {"openAPIV3Schema": schema::of::<T>()},
        "served": true,
        "storage": true,
    });
    if !extras.columns.is_empty() {
        version["additionalPrinterColumns"] = extras.columns.iter().map(Column::to_json).collect();
    }
    if extras.status {
        version["subresources"] = json!({"status": {}});
    }
    let mut metadata = json!({"name": format!("{}.{}", T::PLURAL, T::GROUP)});
    if extras.labelled {
        metadata["labels"] = json!({SCHEMA_VERSION_LABEL: SCHEMA_VERSION});
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": T::GROUP,
            "names": names,
            "scope": if T::NAMESPACED { "Namespaced" } else { "Cluster" },
            "versions": [version],
        },
    })
}
