//! From the rules that select an endpoint to rows: one for each identity whose decision is not that of everybody.

use std::collections::{BTreeMap, BTreeSet};

use dataplane_abi::Identity;
use ipnet::IpNet;

use crate::decide::{Candidate, Decision, Isolation, decide};
use crate::matcher::{Matcher, SelectorId, supernets};
use crate::peers::{Families, all_addresses};
use crate::ports::{NamedPort, Ports};
use crate::rows::{Direction, Row};
use crate::rule::{Rule, Spec};
use crate::selector::Selector;
use crate::tables::{Scratch, Tables};

/// Whom an entry is about, by numbers of selectors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PeerIds {
    pub(crate) everybody: bool,
    pub(crate) selectors: Vec<SelectorId>,
}

/// Identities, and the ports that pods with them have given names.
pub(crate) struct Peers {
    pub(crate) families: Families,
    pub(crate) matcher: Matcher<Identity>,
    pub(crate) ports: BTreeMap<Identity, Vec<NamedPort>>,
    pub(crate) by_port_name: BTreeMap<String, BTreeSet<Identity>>,
}

/// An entry that is for the endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) rule: &'a Rule,
    pub(crate) peers: &'a PeerIds,
}

/// A block of addresses, and the entries that are about pods at them: sorted. Longer blocks inside of it have their own.
struct Block {
    net: IpNet,
    entries: Vec<usize>,
}

/// All that decides for one direction of some endpoints.
pub(crate) struct Compilation<'a> {
    direction: Direction,
    /// In the order of evaluation.
    entries: Vec<Entry<'a>>,
    blocks: Vec<Block>,
    /// Entries with blocks of addresses.
    with_blocks: BTreeSet<usize>,
    isolation: Isolation,
    /// Named ports of the endpoints.
    own_ports: &'a [NamedPort],
    peers: &'a Peers,
}

impl<'a> Compilation<'a> {
    /// `None`: nothing is judged in this direction.
    pub(crate) fn new(
        direction: Direction,
        specs: &[(&'a Spec, &'a [PeerIds])],
        closed: bool,
        own_ports: &'a [NamedPort],
        peers: &'a Peers,
    ) -> Option<Self> {
        let mut entries: Vec<Entry<'a>> = specs
            .iter()
            .flat_map(|(spec, ids)| {
                spec.rules.iter().zip(*ids).map(|(rule, peers)| Entry { spec, rule, peers })
            })
            .filter(|entry| entry.rule.section.direction() == direction)
            .collect();
        entries.sort_by(|a, b| {
            (a.spec.order(), a.rule.section, a.rule.index).cmp(&(
                b.spec.order(),
                b.rule.section,
                b.rule.index,
            ))
        });
        let isolating = |staged| {
            let mut origins: Vec<_> = specs
                .iter()
                .filter(|(spec, _)| spec.staged == staged && spec.isolates(direction))
                .map(|(spec, _)| spec.origin(None))
                .collect();
            origins.sort();
            origins
        };
        let isolation = Isolation { closed, by: isolating(false), staged_by: isolating(true) };
        let judged = isolation != Isolation::default() || !entries.is_empty();
        let (blocks, with_blocks) = blocks(&entries, peers.families);
        judged.then_some(Self { direction, entries, blocks, with_blocks, isolation, own_ports, peers })
    }

    /// The row of everybody.
    pub(crate) fn everybody(&self, tables: &mut Tables, scratch: &mut Scratch) -> Row {
        self.row(&[], &[], true, tables, scratch)
    }

    /// All rows of identities, sorted.
    pub(crate) fn all(
        &self,
        everybody: Row,
        tables: &mut Tables,
        scratch: &mut Scratch,
    ) -> Vec<(Identity, Row)> {
        // Whom an entry is about; and, with no entry, who may differ by the ports that it names.
        let mut meets: Vec<(Identity, Option<usize>)> = Vec::new();
        for (at, entry) in self.entries.iter().enumerate() {
            if entry.peers.everybody || self.with_blocks.contains(&at) {
                let names = entry.rule.ports.names().filter(|_| self.direction == Direction::Egress);
                let identities = names.filter_map(|name| self.peers.by_port_name.get(&name.name)).flatten();
                meets.extend(identities.map(|identity| (*identity, None)));
            }
            for selector in &entry.peers.selectors {
                meets.extend(self.peers.matcher.members(*selector).iter().map(|member| (*member, Some(at))));
            }
        }
        meets.sort_unstable();
        meets.dedup();
        // Identities that meet the same entries, and name the ports in question alike, have the same row.
        let mut known: BTreeMap<(Vec<usize>, Vec<NamedPort>, bool), Row> = BTreeMap::new();
        let mut rows = Vec::new();
        for group in meets.chunk_by(|a, b| a.0 == b.0) {
            let Some((identity, _)) = group.first() else { continue };
            let entries: Vec<usize> = group.iter().filter_map(|(_, at)| *at).collect();
            let ports = self.ports_in_question(*identity, &entries);
            let key = (entries, ports, identity.is_pod());
            let row = match known.get(&key) {
                Some(row) => *row,
                None => {
                    let row = self.row(&key.0, &key.1, key.2, tables, scratch);
                    known.insert(key, row);
                    row
                }
            };
            if row != everybody {
                rows.push((*identity, row));
            }
        }
        rows
    }

    /// The row of one identity; `None`: that of everybody holds for it.
    pub(crate) fn one(
        &self,
        identity: Identity,
        everybody: Row,
        tables: &mut Tables,
        scratch: &mut Scratch,
    ) -> Option<Row> {
        self.peers.matcher.facts(identity)?;
        let entries: Vec<usize> = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| {
                entry.peers.selectors.iter().any(|selector| self.peers.matcher.has(*selector, identity))
            })
            .map(|(at, _)| at)
            .collect();
        let ports = self.ports_in_question(identity, &entries);
        if entries.is_empty() && ports.is_empty() {
            return None;
        }
        let row = self.row(&entries, &ports, identity.is_pod(), tables, scratch);
        (row != everybody).then_some(row)
    }

    /// The peer's named ports that entries about it name. Only for egress: on ingress names are the endpoint's own.
    fn ports_in_question(&self, identity: Identity, specific: &[usize]) -> Vec<NamedPort> {
        let Some(ports) = self.peers.ports.get(&identity).filter(|_| self.direction == Direction::Egress)
        else {
            return Vec::new();
        };
        let named = |port: &NamedPort| {
            self.entries.iter().enumerate().any(|(at, entry)| {
                let by_address = identity.is_pod() && self.with_blocks.contains(&at);
                (entry.peers.everybody || by_address || specific.binary_search(&at).is_ok())
                    && entry.rule.ports.names().any(|name| name.means(port))
            })
        };
        ports.iter().filter(|port| named(port)).cloned().collect()
    }

    /// The row of whoever meets these entries besides those that everybody meets, and of pods those about their addresses.
    fn row(
        &self,
        specific: &[usize],
        ports: &[NamedPort],
        is_pod: bool,
        tables: &mut Tables,
        scratch: &mut Scratch,
    ) -> Row {
        let decision = self.decide(specific, ports, tables, scratch);
        if !is_pod || self.blocks.is_empty() {
            return tables.row(decision, scratch);
        }
        let outside = tables.row(decision.clone(), scratch);
        let mut known: BTreeMap<Vec<usize>, Row> = BTreeMap::new();
        let mut rows: Vec<(IpNet, Row)> = Vec::new();
        // Those around the block at hand that have a row.
        let mut around: Vec<(IpNet, Row)> = Vec::new();
        for Block { net, entries } in &self.blocks {
            let mut entries: Vec<usize> = entries.iter().chain(specific).copied().collect();
            entries.sort_unstable();
            entries.dedup();
            let row = match known.get(&entries) {
                _ if entries.len() == specific.len() => outside,
                Some(row) => *row,
                None => {
                    let decision = self.decide(&entries, ports, tables, scratch);
                    let row = tables.row(decision, scratch);
                    known.insert(entries, row);
                    row
                }
            };
            while around.pop_if(|(outer, _)| !outer.contains(net)).is_some() {}
            if row != around.last().map_or(outside, |(_, row)| *row) {
                rows.push((*net, row));
                around.push((*net, row));
            }
        }
        if rows.is_empty() {
            return tables.row(decision, scratch);
        }
        // Outside of all blocks holds what holds for others, so that blocks that are not found let nothing pass.
        for all in [true, false].map(all_addresses).into_iter().filter(|all| self.peers.families.has(all)) {
            if rows.iter().all(|(block, _)| *block != all) {
                rows.push((all, outside));
            }
        }
        rows.sort_unstable();
        tables.row_with_blocks(decision, rows, scratch)
    }

    /// The decision for whoever meets these entries besides those that everybody meets.
    fn decide(
        &self,
        specific: &[usize],
        ports: &[NamedPort],
        tables: &mut Tables,
        scratch: &mut Scratch,
    ) -> Decision {
        let named = if self.direction == Direction::Ingress { self.own_ports } else { ports };
        let candidates: Vec<Candidate<'_>> = self
            .entries
            .iter()
            .enumerate()
            .filter(|(at, entry)| entry.peers.everybody || specific.binary_search(at).is_ok())
            .map(|(_, entry)| Candidate {
                spec: entry.spec,
                rule: entry.rule,
                ports: entry.rule.ports.resolve(named),
            })
            .collect();
        decide(&candidates, &self.isolation, &mut |origins| tables.cookie(origins, scratch))
    }
}

/// The blocks that entries name, and their exceptions, those around others first; and the entries that name any.
fn blocks(entries: &[Entry<'_>], families: Families) -> (Vec<Block>, BTreeSet<usize>) {
    let mut named: BTreeMap<IpNet, Vec<(usize, &Selector)>> = BTreeMap::new();
    let mut with_blocks = BTreeSet::new();
    for (at, entry) in entries.iter().enumerate() {
        for selector in entry.spec.blocks(entry.rule) {
            with_blocks.insert(at);
            // The block itself comes first.
            for (place, net) in selector.prefixes().filter(|net| families.has(net)).enumerate() {
                named.entry(net).or_default().extend((place == 0).then_some((at, selector)));
            }
        }
    }
    let about = |net: &IpNet| {
        let around = supernets(net).filter_map(|around| named.get(&around)).flatten();
        let entries: BTreeSet<usize> =
            around.filter(|(_, block)| block.has(net)).map(|(at, _)| *at).collect();
        Block { net: *net, entries: entries.into_iter().collect() }
    };
    // In this order a block is followed by those inside of it.
    (named.keys().map(about).collect(), with_blocks)
}

/// Whether an entry names ports of its peers.
pub(crate) fn names_peer_ports(spec: &Spec) -> bool {
    spec.rules(Direction::Egress)
        .any(|rule| matches!(&*rule.ports, Ports::Some { names, .. } if !names.is_empty()))
}
