//! What must come out, said slowly: straight over the normal form of the objects, without selectors' indexes, rows or sets.

use std::net::IpAddr;

use agent_policy::{
    Action, Direction, Kind, LabelSet, NamedPort, Ports, Rule, Selector, Spec, Store, Tier, proto,
};
use ipnet::IpNet;

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) labels: LabelSet,
    pub(crate) address: Option<IpAddr>,
    /// Its address, if it is a pod.
    pub(crate) pod_address: Option<IpAddr>,
    pub(crate) named_ports: Vec<NamedPort>,
}

/// The end whose policy is asked.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) labels: LabelSet,
    pub(crate) host: bool,
    pub(crate) named_ports: Vec<NamedPort>,
    pub(crate) closed: bool,
}

/// CIDRs of the kinds of Kubernetes select pods too.
fn selects(selector: &Selector, peer: &Peer, kind: Kind) -> bool {
    let of_pod =
        peer.pod_address.filter(|_| matches!(kind, Kind::NetworkPolicy | Kind::ClusterNetworkPolicy));
    match selector {
        Selector::Labels(requirements) => requirements.iter().all(|r| r.matches(&peer.labels)),
        Selector::Cidr { net, except } => peer
            .address
            .or(of_pod)
            .map(IpNet::from)
            .is_some_and(|address| net.contains(&address) && !except.iter().any(|e| e.contains(&address))),
    }
}

fn matches(
    store: &Store,
    kind: Kind,
    rule: &Rule,
    direction: Direction,
    subject: &Subject,
    peer: &Peer,
    at: (u8, u16),
) -> bool {
    let by_peer = rule.peers.everybody
        || store.selectors(&rule.peers).iter().any(|selector| selects(selector, peer, kind));
    let named = if direction == Direction::Ingress { &subject.named_ports } else { &peer.named_ports };
    let by_port = match &*rule.ports {
        Ports::All => true,
        Ports::Some { ranges, names } => {
            ranges.iter().any(|range| range.has(at.0, at.1))
                || names.iter().any(|name| {
                    let protocol = name.proto.map_or(proto::ANY.contains(&at.0), |own| own == at.0);
                    protocol && named.iter().any(|p| p.name == name.name && p.proto == at.0 && p.port == at.1)
                })
        }
    };
    by_peer && by_port
}

/// Whether it passes, with staged policies in force or not.
pub(crate) fn passes(
    store: &Store,
    subject: &Subject,
    direction: Direction,
    peer: &Peer,
    at: (u8, u16),
    staged: bool,
) -> bool {
    let specs: Vec<&Spec> = store
        .specs()
        .map(|spec| &**spec)
        .filter(|spec| spec.host == subject.host && (staged || !spec.staged))
        .filter(|spec| spec.subject.matches(&subject.labels, None))
        .collect();
    let matched = |tier: Tier| {
        let mut found: Vec<(&Spec, &Rule)> = specs
            .iter()
            .filter(|spec| spec.tier == tier)
            .flat_map(|spec| spec.rules.iter().map(move |rule| (*spec, rule)))
            .filter(|(_, rule)| rule.section.direction() == direction)
            .filter(|(spec, rule)| matches(store, spec.object.kind, rule, direction, subject, peer, at))
            .collect();
        found.sort_by_key(|(spec, rule)| (spec.priority, spec.object.name.clone(), rule.index));
        found.into_iter().map(|(_, rule)| rule.action).collect::<Vec<Action>>()
    };
    match matched(Tier::Admin).first() {
        Some(Action::Allow) => return true,
        Some(Action::Deny | Action::Proxy) => return false,
        Some(Action::Pass) | None => {}
    }
    let network = matched(Tier::Network);
    if network.contains(&Action::Deny) {
        return false;
    }
    if network.contains(&Action::Allow) {
        return true;
    }
    let isolated = subject.closed || specs.iter().any(|spec| spec.isolates(direction));
    if isolated || network.contains(&Action::Proxy) {
        return false;
    }
    !matches!(matched(Tier::Baseline).first(), Some(Action::Deny | Action::Proxy))
}
