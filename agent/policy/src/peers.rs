//! Peers that have a name of their own: reserved identities, entities, CIDR identities.

use dataplane_abi::Identity;
use ipnet::IpNet;

use crate::label::{CLUSTER, Label, LabelSet, source};
use crate::matcher::Facts;
use crate::selector::{Requirement, Selector};

/// Which address families are in use. With both the world is split by family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Whether addresses of the CIDR are in use.
    pub const fn has(self, net: &IpNet) -> bool {
        match net {
            IpNet::V4(_) => self.v4,
            IpNet::V6(_) => self.v6,
        }
    }

    /// The identity of addresses of a family about which nothing else is known.
    pub const fn world(self, v4: bool) -> Identity {
        match (self.v4 && self.v6, v4) {
            (false, _) => Identity::WORLD,
            (true, true) => Identity::WORLD_IPV4,
            (true, false) => Identity::WORLD_IPV6,
        }
    }
}

/// The label of whoever is outside of the cluster.
const WORLD: &str = "world";

/// Reserved identities with their labels. What stands for the rest of the world stands for the CIDR of all addresses too.
pub(crate) fn reserved(families: Families) -> impl Iterator<Item = (Identity, Facts)> {
    let numbers = (1..=Identity::WORLD_IPV6.0).map(Identity);
    numbers.filter_map(move |identity| {
        let name = identity.reserved_name()?;
        let prefix = [true, false].into_iter().find_map(|v4| {
            let all = all_addresses(v4);
            (families.has(&all) && families.world(v4) == identity).then_some(all)
        });
        let also = match identity {
            // Of API servers those on nodes have a reserved identity: addresses outside have that of their CIDR.
            Identity::KUBE_APISERVER => Some("remote-node"),
            // Who selects the world means all of it, whatever families there are.
            Identity::WORLD_IPV4 | Identity::WORLD_IPV6 => Some(WORLD),
            _ => None,
        };
        let labels = [name].into_iter().chain(also).map(Label::reserved).collect();
        Some((identity, Facts { labels, prefix }))
    })
}

pub(crate) fn all_addresses(v4: bool) -> IpNet {
    if v4 { IpNet::V4(ipnet::Ipv4Net::default()) } else { IpNet::V6(ipnet::Ipv6Net::default()) }
}

/// What is known of the identity of a CIDR: it belongs to the world.
pub(crate) fn cidr_facts(families: Families, net: IpNet) -> Facts {
    let of_family = families.world(matches!(net, IpNet::V4(_))).reserved_name().unwrap_or(WORLD);
    let reserved = [WORLD, of_family].map(Label::reserved);
    let cidr = Label::new(source::CIDR, net.to_string(), "");
    let labels: LabelSet = reserved.into_iter().chain([cidr]).collect();
    Facts { labels, prefix: Some(net) }
}

/// Kinds of peers that rules name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// Everybody.
    All,
    /// Whoever is outside of the cluster.
    World,
    /// Whoever is outside, by IPv4.
    WorldIpv4,
    /// Whoever is outside, by IPv6.
    WorldIpv6,
    /// Everybody in the cluster.
    Cluster,
    /// The own node.
    Host,
    /// Other nodes.
    RemoteNode,
    /// Endpoints whose labels are not known yet.
    Init,
    /// Health endpoints.
    Health,
    /// Pods that are not ours.
    Unmanaged,
    /// The ingress proxies.
    Ingress,
    /// The API servers.
    KubeApiServer,
    /// Nobody.
    None,
}

impl Entity {
    /// The selectors of the kind, of which any may select. `None`: it is everybody.
    pub fn selectors(self, cluster: &str) -> Option<Vec<Selector>> {
        let reserved = |names: &[&str]| -> Vec<Selector> {
            names
                .iter()
                .map(|name| Selector::labels([Requirement::exists(source::RESERVED, *name)]))
                .collect()
        };
        Some(match self {
            Self::All => return None,
            Self::None => Vec::new(),
            Self::World => reserved(&[WORLD]),
            Self::WorldIpv4 => reserved(&["world-ipv4"]),
            Self::WorldIpv6 => reserved(&["world-ipv6"]),
            Self::Host => reserved(&["host"]),
            Self::RemoteNode => reserved(&["remote-node"]),
            Self::Init => reserved(&["init"]),
            Self::Health => reserved(&["health"]),
            Self::Unmanaged => reserved(&["unmanaged"]),
            Self::Ingress => reserved(&["ingress"]),
            Self::KubeApiServer => reserved(&["kube-apiserver"]),
            Self::Cluster => {
                let mut selectors = reserved(&[
                    "host",
                    "remote-node",
                    "init",
                    "ingress",
                    "health",
                    "unmanaged",
                    "kube-apiserver",
                ]);
                selectors.push(Selector::labels([Requirement::equals(source::K8S, CLUSTER, cluster)]));
                selectors
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn selected(entity: Entity, facts: &Facts) -> bool {
        entity.selectors("default").is_none_or(|selectors| {
            selectors.iter().any(|selector| selector.matches(&facts.labels, facts.prefix.as_ref()))
        })
    }

    fn reserved_facts(families: Families, wanted: Identity) -> Facts {
        reserved(families).find(|(identity, _)| *identity == wanted).unwrap().1
    }

    const DUAL: Families = Families { v4: true, v6: true };
    const V4: Families = Families { v4: true, v6: false };

    #[rstest]
    #[case(Entity::All, Identity::HOST, true)]
    #[case(Entity::None, Identity::HOST, false)]
    #[case(Entity::Cluster, Identity::HOST, true)]
    #[case(Entity::Cluster, Identity::REMOTE_NODE, true)]
    #[case(Entity::Cluster, Identity::WORLD, false)]
    #[case(Entity::World, Identity::WORLD_IPV6, true)]
    #[case(Entity::World, Identity::WORLD, true)]
    #[case(Entity::WorldIpv4, Identity::WORLD_IPV4, true)]
    #[case(Entity::WorldIpv4, Identity::WORLD_IPV6, false)]
    #[case(Entity::World, Identity::HOST, false)]
    #[case(Entity::Unmanaged, Identity::UNMANAGED, true)]
    fn entities(#[case] entity: Entity, #[case] identity: Identity, #[case] expected: bool) {
        assert_eq!(selected(entity, &reserved_facts(DUAL, identity)), expected);
    }

    #[test]
    fn the_world_has_every_cidr_of_its_family() {
        let net: IpNet = "10.0.0.0/8".parse().unwrap();
        assert!(selected(Entity::World, &cidr_facts(DUAL, net)));
        assert!(selected(Entity::WorldIpv4, &cidr_facts(DUAL, net)));
        assert!(!selected(Entity::WorldIpv6, &cidr_facts(DUAL, net)));
        assert!(!selected(Entity::Cluster, &cidr_facts(DUAL, net)));
        assert!(selected(Entity::World, &cidr_facts(V4, net)));
    }

    #[test]
    fn the_rest_of_the_world_stands_for_all_addresses() {
        let all: IpNet = "0.0.0.0/0".parse().unwrap();
        assert_eq!(reserved_facts(V4, Identity::WORLD).prefix, Some(all));
        assert_eq!(reserved_facts(DUAL, Identity::WORLD).prefix, None);
        assert_eq!(reserved_facts(DUAL, Identity::WORLD_IPV4).prefix, Some(all));
        assert_eq!(reserved_facts(V4, Identity::WORLD_IPV6).prefix, None);
    }
}
