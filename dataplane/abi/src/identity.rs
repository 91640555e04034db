//! Security identities. Numbers as Cilium and Hubble have them.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A security identity: the number that stands for a set of labels, for a CIDR or for a kind of peer.
///
/// 1–255 are reserved, 256–65535 are given out cluster-wide, `0x0100_0001…` are node-local CIDR identities
/// and `0x0200_0001…` node-local remote-node identities. Local ones never go on the wire.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Identity(pub u32);

impl Identity {
    /// Not known.
    pub const UNKNOWN: Self = Self(0);
    /// `reserved:host`: this node.
    pub const HOST: Self = Self(1);
    /// `reserved:world`: outside the cluster, when one family is on.
    pub const WORLD: Self = Self(2);
    /// `reserved:unmanaged`: in the cluster, but not an endpoint of ours.
    pub const UNMANAGED: Self = Self(3);
    /// `reserved:health`.
    pub const HEALTH: Self = Self(4);
    /// `reserved:init`: an endpoint whose labels are not known yet.
    pub const INIT: Self = Self(5);
    /// `reserved:remote-node`: another node of the cluster.
    pub const REMOTE_NODE: Self = Self(6);
    /// `reserved:kube-apiserver`.
    pub const KUBE_APISERVER: Self = Self(7);
    /// `reserved:ingress`.
    pub const INGRESS: Self = Self(8);
    /// `reserved:world-ipv4`, when both families are on.
    pub const WORLD_IPV4: Self = Self(9);
    /// `reserved:world-ipv6`, when both families are on.
    pub const WORLD_IPV6: Self = Self(10);

    /// First identity that is given out cluster-wide.
    pub const CLUSTER_MIN: Self = Self(256);
    /// Last identity that is given out cluster-wide.
    pub const CLUSTER_MAX: Self = Self(65535);
    /// First node-local CIDR identity.
    pub const LOCAL_CIDR_MIN: Self = Self(0x0100_0001);
    /// Last node-local CIDR identity.
    pub const LOCAL_CIDR_MAX: Self = Self(0x01FF_FFFF);
    /// First node-local remote-node identity.
    pub const LOCAL_NODE_MIN: Self = Self(0x0200_0001);
    /// Last node-local remote-node identity.
    pub const LOCAL_NODE_MAX: Self = Self(0x02FF_FFFF);

    /// Whether it is one of the reserved ones (1–255).
    pub const fn is_reserved(self) -> bool {
        matches!(self.0, 1..=255)
    }

    /// Whether it has meaning on this node only and so may not be sent.
    pub const fn is_local(self) -> bool {
        self.0 > 0x00FF_FFFF
    }

    /// Whether it is that of a node-local CIDR.
    pub const fn is_local_cidr(self) -> bool {
        self.0 >> 24 == 1
    }

    /// Whether it is that of other nodes with certain labels, which has meaning on this node only.
    pub const fn is_local_node(self) -> bool {
        self.0 >> 24 == 2
    }

    /// Whether it is that of another node, whatever else is known of it.
    #[inline(always)]
    pub const fn is_remote_node(self) -> bool {
        matches!(self, Self::REMOTE_NODE | Self::KUBE_APISERVER) || self.is_local_node()
    }

    /// Whether it is that of somebody outside the cluster of whom no more is known.
    #[inline(always)]
    pub const fn is_world(self) -> bool {
        matches!(self, Self::WORLD | Self::WORLD_IPV4 | Self::WORLD_IPV6)
    }

    /// Whether it is one that pods have: given out in the cluster, or what pods are before that and without it.
    #[inline(always)]
    pub const fn is_pod(self) -> bool {
        matches!(self, Self::UNMANAGED | Self::HEALTH | Self::INIT) || (self.0 > 255 && !self.is_local())
    }

    /// Label of a reserved identity, without the `reserved:` prefix.
    pub const fn reserved_name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "unknown",
            1 => "host",
            2 => "world",
            3 => "unmanaged",
            4 => "health",
            5 => "init",
            6 => "remote-node",
            7 => "kube-apiserver",
            8 => "ingress",
            9 => "world-ipv4",
            10 => "world-ipv6",
            _ => return None,
        })
    }

    /// What the receiver makes of the identity in a tunnel key (24 bits): a sender's own host is a remote node here.
    #[inline(always)]
    pub const fn from_vni(vni: u32) -> Self {
        match vni {
            1 => Self::REMOTE_NODE,
            n => Self(n),
        }
    }

    /// The tunnel key that carries it. Identities that have meaning on this node only go as world.
    #[inline(always)]
    pub const fn to_vni(self) -> u32 {
        if self.is_local() { Self::WORLD.0 } else { self.0 }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reserved_name() {
            Some(name) => write!(f, "reserved:{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}
