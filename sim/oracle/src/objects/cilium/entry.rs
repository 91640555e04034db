//! An entry of a list of rules: some peers and some of their traffic.

use crate::error::OracleError;
use crate::field::Field;
use crate::objects::cilium::Context;
use crate::objects::cilium::peer::{self, Peer};
use crate::objects::cilium::port::{self, Traffic};
use crate::verdict::Direction;

/// An entry: it is about what matches a peer and the traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) peers: Peers,
    pub(crate) traffic: Traffic,
    /// The ends would have to authenticate, which nobody can here: it allows nothing by itself.
    pub(crate) needs_proxy: bool,
}

/// The other ends of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peers {
    /// All.
    All,
    /// What one of these says; nobody if there is none.
    These(Vec<Peer>),
}

impl Entry {
    pub(crate) fn read(entry: &Field<'_>, context: Context<'_>) -> Result<Self, OracleError> {
        let traffic = port::traffic(entry, context)?;
        let peers = match peers(entry, context)? {
            Some(peers) => Peers::These(peers),
            // Without peers, ports or ICMP types are those of everybody. An entry without anything is about nothing: it only isolates.
            None if traffic == Traffic::All => Peers::These(Vec::new()),
            None => Peers::All,
        };
        let authentication = entry.at("authentication.mode")?.word(&[
            ("disabled", true),
            ("required", false),
            ("test-always-fail", false),
        ])?;
        let needs_proxy = !context.denies && !authentication.unwrap_or(true);
        Ok(Self { peers, traffic, needs_proxy })
    }
}

/// The members of an entry that can name peers, without `from` and `to`.
const MEMBERS: &[&str] =
    &["Endpoints", "CIDR", "CIDRSet", "Entities", "Groups", "Nodes", "Services", "FQDNs"];

/// The peers of an entry; none if no member is there. An empty list is there and names nobody. At most one member may name somebody.
fn peers(entry: &Field<'_>, context: Context<'_>) -> Result<Option<Vec<Peer>>, OracleError> {
    let begin = match context.direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let required = entry.at(&format!("{begin}Requires"))?;
    if !required.items()?.is_empty() {
        return Err(required.wrong("must be empty"));
    }
    let mut found: Option<Vec<Peer>> = None;
    let mut used: Option<String> = None;
    for member in MEMBERS {
        let only_egress = matches!(*member, "Services" | "FQDNs");
        // The schema has no names in what is denied, and drops them.
        if (only_egress && context.direction == Direction::Ingress) || (*member == "FQDNs" && context.denies)
        {
            continue;
        }
        let name = format!("{begin}{member}");
        let list = entry.at(&name)?;
        if !list.is_present() {
            continue;
        }
        let items = list.items()?;
        if !items.is_empty() {
            if let Some(used) = used {
                return Err(list.wrong(format!("must not stand beside {used}")));
            }
            used = Some(name);
        }
        let peers = found.get_or_insert_default();
        for item in items {
            peers.extend(peer::read(member, &item, context)?);
        }
    }
    Ok(found)
}
