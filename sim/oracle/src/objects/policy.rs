//! networking.k8s.io/v1 NetworkPolicy.

use ipnet::IpNet;

use crate::attempt::Protocol;
use crate::error::OracleError;
use crate::field::Field;
use crate::objects::PROTOCOLS;
use crate::objects::selector::Selector;
use crate::verdict::Direction;

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Whether it is only staged.
    pub(crate) staged: bool,
    /// The pods of its namespace that it applies to.
    pub(crate) pods: Selector,
    /// Rules for ingress; none if the policy does not affect ingress.
    ingress: Option<Vec<Rule>>,
    /// Rules for egress; none if the policy does not affect egress.
    egress: Option<Vec<Rule>>,
}

/// A rule: it allows what matches a peer and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The other ends that it allows; empty for all.
    pub(crate) peers: Vec<Peer>,
    /// The ports that it allows; empty for all, of all protocols.
    pub(crate) ports: Vec<PortRule>,
}

/// Other ends of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Pods by their labels.
    Pods {
        /// The namespaces they are in; none for that of the policy.
        namespaces: Option<Selector>,
        /// The pods in these namespaces; none for all.
        pods: Option<Selector>,
    },
    /// Addresses.
    Block {
        /// The addresses that match,
        cidr: IpNet,
        /// but not these of them.
        except: Vec<IpNet>,
    },
}

/// An entry of a rule's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortRule {
    pub(crate) protocol: Protocol,
    pub(crate) port: PortMatch,
}

/// Which port an entry means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortMatch {
    /// All of the protocol.
    Any,
    /// From the first to the last, both included.
    Range(u16, u16),
    /// The port of this name at the destination pod.
    Named(String),
}

impl Policy {
    pub(crate) fn read(object: &Field<'_>) -> Result<Self, OracleError> {
        let spec = object.at("spec")?;
        let ingress = rules(&spec.at("ingress")?, "from")?;
        let egress = rules(&spec.at("egress")?, "to")?;
        let affected = affected(&spec.at("policyTypes")?, &egress)?;
        Ok(Self {
            staged: crate::objects::is_staged(object)?,
            pods: Selector::read(&spec.at("podSelector")?)?,
            ingress: affected.contains(&Direction::Ingress).then_some(ingress),
            egress: affected.contains(&Direction::Egress).then_some(egress),
        })
    }

    /// The rules for a direction; none if the policy does not affect it.
    pub(crate) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// Without policyTypes a policy affects ingress always, and egress if it has a rule for it. (So one that shall forbid all egress must say so.)
fn affected(types: &Field<'_>, egress: &[Rule]) -> Result<Vec<Direction>, OracleError> {
    let mut directions = Vec::new();
    for item in types.items()? {
        let word = item.word(&[("Ingress", Direction::Ingress), ("Egress", Direction::Egress)])?;
        directions.push(word.ok_or_else(|| item.wrong("must be set"))?);
    }
    if directions.is_empty() {
        directions.push(Direction::Ingress);
        if !egress.is_empty() {
            directions.push(Direction::Egress);
        }
    }
    Ok(directions)
}

fn rules(list: &Field<'_>, peers: &str) -> Result<Vec<Rule>, OracleError> {
    list.items()?
        .iter()
        .map(|rule| {
            Ok(Rule {
                peers: rule.at(peers)?.items()?.iter().map(peer).collect::<Result<_, _>>()?,
                ports: rule.at("ports")?.items()?.iter().map(port).collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

/// A peer has selectors or a block, never both and never neither.
fn peer(peer: &Field<'_>) -> Result<Peer, OracleError> {
    let namespaces = peer.at("namespaceSelector")?.present();
    let pods = peer.at("podSelector")?.present();
    match (peer.at("ipBlock")?.present(), namespaces, pods) {
        (None, None, None) => Err(peer.wrong("must have a selector or an ipBlock")),
        (Some(block), None, None) => self::block(&block),
        (Some(block), _, _) => Err(block.wrong("must not stand beside a selector")),
        (None, namespaces, pods) => Ok(Peer::Pods {
            namespaces: namespaces.as_ref().map(Selector::read).transpose()?,
            pods: pods.as_ref().map(Selector::read).transpose()?,
        }),
    }
}

/// Every `except` is a true part of the block.
fn block(block: &Field<'_>) -> Result<Peer, OracleError> {
    let cidr = block.at("cidr")?;
    let cidr: IpNet = cidr.parsed()?.ok_or_else(|| cidr.wrong("must be set"))?;
    let list = block.at("except")?;
    let except: Vec<IpNet> = list.all_parsed()?;
    match except.iter().find(|net| !cidr.contains(*net) || net.prefix_len() == cidr.prefix_len()) {
        Some(net) => Err(list.wrong(format!("{net} is not a part of {cidr}"))),
        None => Ok(Peer::Block { cidr, except }),
    }
}

/// The protocol is TCP unless said; no port means all ports of the protocol; endPort needs a port that is a number and not above it.
fn port(entry: &Field<'_>) -> Result<PortRule, OracleError> {
    let protocol = entry.at("protocol")?.word(PROTOCOLS)?.unwrap_or(Protocol::Tcp);
    let port = entry.at("port")?;
    let end = entry.at("endPort")?;
    let port = if port.is_text() {
        if end.is_present() {
            return Err(end.wrong("must not stand beside a named port"));
        }
        PortMatch::Named(port.required_text()?.to_owned())
    } else {
        match (port.port()?, end.port()?) {
            (None, None) => PortMatch::Any,
            (None, Some(_)) => return Err(end.wrong("must not stand without port")),
            (Some(first), None) => PortMatch::Range(first, first),
            (Some(first), Some(last)) if first <= last => PortMatch::Range(first, last),
            (Some(_), Some(_)) => return Err(end.wrong("must not be below port")),
        }
    };
    Ok(PortRule { protocol, port })
}
