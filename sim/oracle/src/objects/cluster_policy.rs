//! policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.

use ipnet::IpNet;

use crate::attempt::Protocol;
use crate::error::OracleError;
use crate::field::Field;
use crate::objects::policy::PortMatch;
use crate::objects::selector::Selector;
use crate::verdict::Direction;

/// When a policy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// Before all others.
    Admin,
    /// After all others.
    Baseline,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterPolicy {
    /// Whether it is only staged.
    pub(crate) staged: bool,
    pub(crate) tier: Tier,
    /// Lower ones are asked first.
    pub(crate) priority: u64,
    /// The pods that it is about.
    pub(crate) subject: Pods,
    ingress: Vec<ClusterRule>,
    egress: Vec<ClusterRule>,
}

/// Pods by namespaces and labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pods {
    pub(crate) namespaces: Selector,
    /// All pods of these namespaces if it is none.
    pub(crate) pods: Option<Selector>,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Accept,
    Deny,
    /// Leaves it to the next tier.
    Pass,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterRule {
    pub(crate) action: Action,
    pub(crate) scope: Scope,
}

/// What a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    Nothing,
    Everything,
    /// Traffic of one of the peers and one of the protocols; of all protocols if there is none.
    Traffic {
        peers: Vec<ClusterPeer>,
        protocols: Vec<ClusterProtocol>,
    },
}

/// Other ends of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClusterPeer {
    Pods(Pods),
    /// Nodes by their labels.
    Nodes(Selector),
    /// Addresses.
    Networks(Vec<IpNet>),
    /// Something that is not known here.
    Unknown,
}

/// A protocol of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterProtocol {
    /// Any that the named port has, if it is none.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) port: PortMatch,
}

/// As many rules, peers, protocols and networks a list may have.
const MOST: usize = 25;

impl ClusterPolicy {
    pub(crate) fn read(object: &Field<'_>) -> Result<Self, OracleError> {
        let spec = object.at("spec")?;
        let (tier, priority) = (spec.at("tier")?, spec.at("priority")?);
        let subject = spec.at("subject")?;
        Ok(Self {
            staged: crate::objects::is_staged(object)?,
            tier: tier
                .word(&[("Admin", Tier::Admin), ("Baseline", Tier::Baseline)])?
                .ok_or_else(|| tier.wrong("must be set"))?,
            priority: priority.number(0, 1000)?.ok_or_else(|| priority.wrong("must be set"))?,
            subject: pods(&subject)?.ok_or_else(|| subject.wrong("must have one of namespaces and pods"))?,
            ingress: rules(&spec.at("ingress")?, Direction::Ingress)?,
            egress: rules(&spec.at("egress")?, Direction::Egress)?,
        })
    }

    /// The rules for a direction.
    pub(crate) fn rules(&self, direction: Direction) -> &[ClusterRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

fn limited<'a>(list: &Field<'a>) -> Result<Vec<Field<'a>>, OracleError> {
    let items = list.items()?;
    if items.len() > MOST { Err(list.wrong(format!("must have {MOST} items at most"))) } else { Ok(items) }
}

/// Of a list that must have an item if it is there.
fn some<'a>(list: &Field<'a>) -> Result<Vec<Field<'a>>, OracleError> {
    let items = limited(list)?;
    if items.is_empty() { Err(list.wrong("must not be empty")) } else { Ok(items) }
}

/// `namespaces`, or `pods` with selectors of both; none if neither is there.
fn pods(field: &Field<'_>) -> Result<Option<Pods>, OracleError> {
    let (namespaces, pods) = (field.at("namespaces")?, field.at("pods")?);
    match (namespaces.is_present(), pods.is_present()) {
        (false, false) => Ok(None),
        (true, true) => Err(pods.wrong("must not stand beside namespaces")),
        (true, false) => Ok(Some(Pods { namespaces: Selector::read(&namespaces)?, pods: None })),
        (false, true) => {
            let selector = pods.at("podSelector")?;
            if !selector.is_present() {
                return Err(selector.wrong("must be set"));
            }
            Ok(Some(Pods {
                namespaces: Selector::read(&pods.at("namespaceSelector")?)?,
                pods: Some(Selector::read(&selector)?),
            }))
        }
    }
}

fn rules(list: &Field<'_>, direction: Direction) -> Result<Vec<ClusterRule>, OracleError> {
    limited(list)?.iter().map(|item| rule(item, direction)).collect()
}

/// A peer that is not known fails closed: the rule then accepts nothing, or denies everything if it is not one that accepts.
fn rule(item: &Field<'_>, direction: Direction) -> Result<ClusterRule, OracleError> {
    let name = item.at("name")?;
    if name.text()?.unwrap_or_default().len() > 100 {
        return Err(name.wrong("must have 100 characters at most"));
    }
    let action = item.at("action")?;
    let action = action
        .word(&[("Accept", Action::Accept), ("Deny", Action::Deny), ("Pass", Action::Pass)])?
        .ok_or_else(|| action.wrong("must be set"))?;
    let list = item.at(if direction == Direction::Ingress { "from" } else { "to" })?;
    let peers: Vec<ClusterPeer> =
        some(&list)?.iter().map(|peer| self::peer(peer, direction)).collect::<Result<_, _>>()?;
    let list = item.at("protocols")?;
    let protocols: Vec<ClusterProtocol> = match list.clone().present() {
        None => Vec::new(),
        Some(list) => some(&list)?.iter().map(protocol).collect::<Result<_, _>>()?,
    };
    let has_names = peers.iter().all(|peer| matches!(peer, ClusterPeer::Pods(_)));
    if !has_names && protocols.iter().any(|protocol| protocol.protocol.is_none()) {
        return Err(list.wrong("names of ports must not stand beside peers without such names"));
    }
    let is_unknown = peers.contains(&ClusterPeer::Unknown);
    Ok(match action {
        Action::Accept if is_unknown => ClusterRule { action, scope: Scope::Nothing },
        Action::Deny | Action::Pass if is_unknown => {
            ClusterRule { action: Action::Deny, scope: Scope::Everything }
        }
        action => ClusterRule { action, scope: Scope::Traffic { peers, protocols } },
    })
}

/// Exactly one member. Nodes and networks are for egress alone. Names of domains would have to be learned by a DNS proxy, so they count as not known.
fn peer(item: &Field<'_>, direction: Direction) -> Result<ClusterPeer, OracleError> {
    let mut found = pods(item)?.map(ClusterPeer::Pods);
    if direction == Direction::Egress {
        let (nodes, networks) = (item.at("nodes")?, item.at("networks")?);
        for (member, is_nodes) in [(nodes, true), (networks, false)] {
            if !member.is_present() {
                continue;
            }
            if found.is_some() {
                return Err(member.wrong("must not stand beside another kind of peer"));
            }
            found = Some(if is_nodes {
                ClusterPeer::Nodes(Selector::read(&member)?)
            } else {
                some(&member)?;
                ClusterPeer::Networks(member.all_parsed()?)
            });
        }
        let names = item.at("domainNames")?;
        if names.is_present() && found.is_some() {
            return Err(names.wrong("must not stand beside another kind of peer"));
        }
    }
    Ok(found.unwrap_or(ClusterPeer::Unknown))
}

/// Exactly one member: a protocol with ports, or the name of a port.
fn protocol(item: &Field<'_>) -> Result<ClusterProtocol, OracleError> {
    let mut found = None;
    for (member, protocol) in [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)] {
        let member = item.at(member)?;
        if !member.is_present() {
            continue;
        }
        if found.is_some() {
            return Err(member.wrong("must not stand beside another protocol"));
        }
        let port = port(&member.at("destinationPort")?)?;
        found = Some(ClusterProtocol { protocol: Some(protocol), port });
    }
    let name = item.at("destinationNamedPort")?;
    match (found, name.text()?.filter(|name| !name.is_empty())) {
        (Some(_), Some(_)) => Err(name.wrong("must not stand beside another protocol")),
        (Some(found), None) => Ok(found),
        (None, Some(port)) => Ok(ClusterProtocol { protocol: None, port: PortMatch::Named(port.to_owned()) }),
        (None, None) => Err(item.wrong("must have one of tcp, udp, sctp and destinationNamedPort")),
    }
}

/// A number, or a range whose start is below its end.
fn port(field: &Field<'_>) -> Result<PortMatch, OracleError> {
    let (number, range) = (field.at("number")?.port()?, field.at("range")?);
    match (number, range.clone().present()) {
        (Some(number), None) => Ok(PortMatch::Range(number, number)),
        (None, Some(range)) => {
            let (start, end) = (range.at("start")?.required_port()?, range.at("end")?.required_port()?);
            if start < end {
                Ok(PortMatch::Range(start, end))
            } else {
                Err(range.wrong("start must be below end"))
            }
        }
        (Some(_), Some(_)) => Err(range.wrong("must not stand beside number")),
        (None, None) => Err(field.wrong("must have one of number and range")),
    }
}
