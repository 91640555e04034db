//! Peers of an entry.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::OracleError;
use crate::field::Field;
use crate::objects::cilium::Context;
use crate::objects::cilium::selector::{self, LabelSelector};
use crate::objects::selector::Selector;

/// Other ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// By their labels.
    Labels(LabelSelector),
    /// By their addresses.
    Cidr(Cidrs),
    /// By what they are.
    Entity(Entity),
    /// What is behind a service.
    Service(ServiceRef),
}

/// Addresses with exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cidrs {
    pub(crate) of: CidrSource,
    pub(crate) except: Vec<IpNet>,
}

/// Where addresses are said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CidrSource {
    Net(IpNet),
    /// The CIDR group of this name.
    Group(String),
    /// CIDR groups with these labels.
    Groups(Selector),
}

/// Kinds of ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entity {
    /// Everybody.
    All,
    /// Everybody outside.
    World,
    /// Everybody inside.
    Cluster,
    /// The own node.
    Host,
    /// Other nodes.
    RemoteNode,
    /// Whoever has an address of the API server.
    KubeApiserver,
    /// Kinds of which there are no ends here.
    Nobody,
}

const ENTITIES: &[(&str, Entity)] = &[
    ("all", Entity::All),
    ("world", Entity::World),
    ("cluster", Entity::Cluster),
    ("host", Entity::Host),
    ("remote-node", Entity::RemoteNode),
    ("kube-apiserver", Entity::KubeApiserver),
    ("init", Entity::Nobody),
    ("ingress", Entity::Nobody),
    ("unmanaged", Entity::Nobody),
    ("health", Entity::Nobody),
    ("none", Entity::Nobody),
];

/// Services, by name or labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceRef {
    /// Any namespace if it is none.
    pub(crate) namespace: Option<String>,
    pub(crate) which: WhichService,
}

/// Which services of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WhichService {
    Named(String),
    Labelled(Selector),
}

/// Reads an item of a member, named without `from` and `to`. None for what cannot be known here: names that a DNS proxy would have to learn, and groups
/// of a cloud. So they select nobody.
pub(super) fn read(
    member: &str,
    item: &Field<'_>,
    context: Context<'_>,
) -> Result<Option<Peer>, OracleError> {
    Ok(match member {
        "Endpoints" => Some(Peer::Labels(selector::of_peers(item, context.namespace, context.selects_init)?)),
        "Nodes" => Some(Peer::Labels(selector::of_nodes(item)?)),
        "CIDR" => Some(Peer::Cidr(Cidrs { of: CidrSource::Net(cidr(item)?), except: Vec::new() })),
        "CIDRSet" => Some(Peer::Cidr(cidr_rule(item)?)),
        "Entities" => Some(Peer::Entity(item.word(ENTITIES)?.ok_or_else(|| item.wrong("must be set"))?)),
        "Services" => Some(Peer::Service(service(item)?)),
        "FQDNs" => {
            fqdn(item)?;
            None
        }
        _ => None,
    })
}

/// A CIDR. An address alone stands for itself, and bits behind the prefix do not count.
pub(super) fn cidr(item: &Field<'_>) -> Result<IpNet, OracleError> {
    let text = item.required_text()?;
    text.parse::<IpNet>().or_else(|error| {
        text.parse::<IpAddr>().map(IpNet::from).map_err(|_| item.wrong(format!("{text:?}: {error}")))
    })
}

/// Exactly one of a CIDR, a name of a group, and a selector of groups; exceptions lie in the CIDR.
fn cidr_rule(item: &Field<'_>) -> Result<Cidrs, OracleError> {
    let list = item.at("except")?;
    let except: Vec<IpNet> = list.items()?.iter().map(cidr).collect::<Result<_, _>>()?;
    let (net, group, groups) = (item.at("cidr")?, item.at("cidrGroupRef")?, item.at("cidrGroupSelector")?);
    let has = |field: &Field<'_>| !matches!(field.text(), Ok(None | Some("")));
    let of = match (has(&net), has(&group), groups.is_present()) {
        (true, false, false) => CidrSource::Net(cidr(&net)?),
        (false, true, false) => CidrSource::Group(group.required_text()?.to_owned()),
        (false, false, true) => CidrSource::Groups(Selector::read(&groups)?),
        _ => return Err(item.wrong("must have one of cidr, cidrGroupRef and cidrGroupSelector")),
    };
    if let CidrSource::Net(net) = &of
        && let Some(outside) = except.iter().find(|except| !net.contains(*except))
    {
        return Err(list.wrong(format!("{outside} is not in {net}")));
    }
    Ok(Cidrs { of, except })
}

fn service(item: &Field<'_>) -> Result<ServiceRef, OracleError> {
    let (named, labelled) = (item.at("k8sService")?, item.at("k8sServiceSelector")?);
    let (place, which) = match (named.is_present(), labelled.is_present()) {
        (true, false) => {
            let name = named.at("serviceName")?.required_text()?.to_owned();
            (named, WhichService::Named(name))
        }
        (false, true) => {
            let selector = Selector::read(&labelled.at("selector")?)?;
            (labelled, WhichService::Labelled(selector))
        }
        _ => return Err(item.wrong("must have one of k8sService and k8sServiceSelector")),
    };
    let namespace = place.at("namespace")?.text()?.filter(|namespace| !namespace.is_empty());
    Ok(ServiceRef { namespace: namespace.map(str::to_owned), which })
}

/// A name or a pattern, of 255 characters at most.
fn fqdn(item: &Field<'_>) -> Result<(), OracleError> {
    let parts = [item.at("matchName")?, item.at("matchPattern")?];
    let mut said = false;
    for part in &parts {
        let text = part.text()?.unwrap_or_default();
        if text.len() > 255 {
            return Err(part.wrong("must have 255 characters at most"));
        }
        said |= !text.is_empty();
    }
    if said { Ok(()) } else { Err(item.wrong("must have a matchName or a matchPattern")) }
}
