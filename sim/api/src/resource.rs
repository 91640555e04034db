//! Names of resources.

use std::borrow::Cow;
use std::fmt;

/// A resource of the API: group and plural name, without version ("pods", "deployments.apps").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gr {
    /// API group, empty for the core group.
    pub group: Cow<'static, str>,
    /// Plural, lower-case name as it stands in paths.
    pub resource: Cow<'static, str>,
}

impl Gr {
    /// A resource whose names are known when the program is built.
    pub const fn new(group: &'static str, resource: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), resource: Cow::Borrowed(resource) }
    }

    /// A resource whose names come from a request or a CRD.
    pub fn of(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: Cow::Owned(group.into()), resource: Cow::Owned(resource.into()) }
    }
}

impl fmt::Display for Gr {
    /// `deployments.apps`; the core group adds nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

macro_rules! resources {
    ($($(#[$doc:meta])* $name:ident = $group:literal, $resource:literal;)*) => {
        $($(#[$doc])* pub const $name: Gr = Gr::new($group, $resource);)*
    };
}

resources! {
    /// core/v1 Pod.
    PODS = "", "pods";
    /// core/v1 Node.
    NODES = "", "nodes";
    /// core/v1 Service.
    SERVICES = "", "services";
    /// core/v1 Endpoints.
    ENDPOINTS = "", "endpoints";
    /// core/v1 Namespace.
    NAMESPACES = "", "namespaces";
    /// core/v1 ConfigMap.
    CONFIGMAPS = "", "configmaps";
    /// core/v1 Secret.
    SECRETS = "", "secrets";
    /// core/v1 ServiceAccount.
    SERVICEACCOUNTS = "", "serviceaccounts";
    /// core/v1 Event (events.k8s.io shows the same objects).
    EVENTS = "", "events";
    /// apps/v1 Deployment.
    DEPLOYMENTS = "apps", "deployments";
    /// apps/v1 ReplicaSet.
    REPLICASETS = "apps", "replicasets";
    /// apps/v1 DaemonSet.
    DAEMONSETS = "apps", "daemonsets";
    /// apps/v1 ControllerRevision.
    CONTROLLERREVISIONS = "apps", "controllerrevisions";
    /// discovery.k8s.io/v1 EndpointSlice.
    ENDPOINTSLICES = "discovery.k8s.io", "endpointslices";
    /// coordination.k8s.io/v1 Lease.
    LEASES = "coordination.k8s.io", "leases";
    /// networking.k8s.io/v1 NetworkPolicy.
    NETWORKPOLICIES = "networking.k8s.io", "networkpolicies";
    /// apiextensions.k8s.io/v1 CustomResourceDefinition.
    CUSTOMRESOURCEDEFINITIONS = "apiextensions.k8s.io", "customresourcedefinitions";
    /// policy/v1 PodDisruptionBudget.
    PODDISRUPTIONBUDGETS = "policy", "poddisruptionbudgets";
}
