//! What the documentation leaves to implementations, or what they read in different ways.

/// How a cluster's implementation reads the documentation. The default is the documentation's plain word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Options {
    /// What of the traffic between a pod and the node it runs on is allowed whatever policies say. Default: both directions.
    pub own_node: OwnNode,
    /// `ipBlock`, and `networks` of ClusterNetworkPolicy, also match pods by their addresses. The documentation of the first says only that blocks should
    /// be of addresses outside the cluster, and some implementations with identities match no pod by address. Default: true.
    pub blocks_match_pods: bool,
    /// They also match nodes by their addresses, with the same freedom. Default: true.
    pub blocks_match_nodes: bool,
    /// CIDR rules of Cilium's policies also match nodes (Cilium's `policy-cidr-match-mode: nodes`). They never match pods. Default: false.
    pub cidrs_match_nodes: bool,
    /// Selectors of the kinds of Kubernetes see only those labels of pods that are relevant to identities, as those of Cilium's kinds always do. Default: false.
    pub identity_labels_alone: bool,
    /// Rules with `nodeSelector` (Cilium's host policies) are in force and judge nodes. Default: false, then nodes are never judged.
    pub host_policies: bool,
    /// Which pods are judged. Default: those that policies select.
    pub enforcement: Enforcement,
    /// What would be forbidden gets through and is only told of (Cilium's `policy-audit-mode`). Default: false.
    pub audit: bool,
}

/// What of the traffic between a pod and its own node is always allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnNode {
    /// Both directions: so the documentation of NetworkPolicy says it, without conditions.
    Both,
    /// From the node to the pod alone, so that kubelet can probe; the pod's egress to its node is judged.
    ToPod,
    /// Nothing: it is judged as any other.
    Judged,
}

/// Which pods are judged (Cilium's `enable-policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// Those that policies select.
    Default,
    /// All: every pod is isolated in both directions, even without policies.
    Always,
    /// None: no policy is enforced.
    Never,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            own_node: OwnNode::Both,
            blocks_match_pods: true,
            blocks_match_nodes: true,
            cidrs_match_nodes: false,
            identity_labels_alone: false,
            host_policies: false,
            enforcement: Enforcement::Default,
            audit: false,
        }
    }
}

impl Options {
    /// As implementations with identities read it: addresses match no nodes, selectors see no other labels than those of identities, and a pod's egress to its own node is judged while the node may always reach its pods.
    pub fn by_identity() -> Self {
        Self {
            own_node: OwnNode::ToPod,
            blocks_match_nodes: false,
            identity_labels_alone: true,
            ..Self::default()
        }
    }
}
