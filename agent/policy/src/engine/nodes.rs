//! Nodes and API servers as peers.
//!
//! Other nodes are one peer, and those that are API servers another, until a rule in use selects nodes by their labels:
//! only then are nodes with other labels other peers, since each of them may need rows in each policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane_abi::Identity;
use ipnet::IpNet;

use super::{Policy, Prefix};
use crate::changes::Changes;
use crate::label::{CLUSTER, Label, LabelSet, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT, source};
use crate::matcher::Facts;
use crate::numbers::{Digest, Hash, Numbers};
use crate::peers::cidr_facts;
use crate::rows::{Direction, RowKey};

/// What selectors can know of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Labels of the Node object. Keys that tell where a pod is are left out: a node has no say in that.
    pub labels: BTreeMap<String, String>,
    /// One of its addresses is one of the API server's.
    pub api_server: bool,
}

impl Node {
    /// Labels by which rules for nodes select it, if it is the own node.
    pub fn subject_labels(&self) -> LabelSet {
        let own = self.labels.iter().map(|(key, value)| Label::k8s(key, value));
        own.chain([Label::reserved("host")]).collect()
    }

    /// Labels by which peers of rules select it, from the node itself (`own`) or from another one.
    pub fn peer_labels(&self, own: bool) -> LabelSet {
        let kind = if own { "host" } else { "remote-node" };
        let of_pods = |key: &&String| {
            [NAMESPACE, SERVICE_ACCOUNT, CLUSTER].contains(&key.as_str()) || key.starts_with(NAMESPACE_LABELS)
        };
        let own = self.labels.iter().filter(|(key, _)| !of_pods(key));
        own.map(|(key, value)| Label::new(source::NODE, key, value))
            .chain([Label::reserved(kind)])
            .chain(self.api_server.then(|| Label::reserved("kube-apiserver")))
            .collect()
    }

    /// Its identity while nodes are not told apart.
    fn kind(&self) -> Identity {
        if self.api_server { Identity::KUBE_APISERVER } else { Identity::REMOTE_NODE }
    }
}

impl Digest for LabelSet {
    fn digest(&self, hash: &mut Hash) {
        for label in self.iter() {
            for text in [&label.source, &label.key, &label.value] {
                hash.bytes(text.as_bytes());
            }
        }
    }
}

/// Nodes as they are now, and the identities that they have since the last commit.
pub(super) struct Nodes {
    remote: BTreeMap<String, Node>,
    told: BTreeMap<String, Identity>,
    /// Differ from what was told.
    changed: BTreeSet<String>,
    /// How often rules in use select nodes by labels.
    pub(super) selectors: usize,
    /// Nodes are told apart since the last commit.
    apart: bool,
    numbers: Numbers<LabelSet>,
    /// Addresses of API servers that are not those of nodes.
    api_server: BTreeSet<IpAddr>,
}

impl Nodes {
    pub(super) fn new() -> Self {
        Self {
            remote: BTreeMap::new(),
            told: BTreeMap::new(),
            changed: BTreeSet::new(),
            selectors: 0,
            apart: false,
            numbers: Numbers::new(Identity::LOCAL_NODE_MIN.0..=Identity::LOCAL_NODE_MAX.0),
            api_server: BTreeSet::new(),
        }
    }

    /// Nodes have the identities that the last commit gave them, and need no others.
    pub(super) fn is_told(&self) -> bool {
        self.changed.is_empty() && self.apart == (self.selectors > 0)
    }

    pub(super) fn settle(&mut self) {
        self.numbers.settle();
    }
}

impl Policy {
    /// The own node as it is now. It stays the host, whatever else it is.
    pub fn set_host(&mut self, node: &Node) {
        self.upsert_identity(Identity::HOST, node.peer_labels(true), &[]);
    }

    /// All other nodes as they are now, by name.
    pub fn set_nodes(&mut self, nodes: BTreeMap<String, Node>) {
        let before = std::mem::replace(&mut self.nodes.remote, nodes);
        let now = &self.nodes.remote;
        let names = before.keys().chain(now.keys());
        let changed = names.filter(|name| before.get(*name) != now.get(*name)).cloned();
        self.nodes.changed.extend(changed);
    }

    /// Addresses of API servers that are not on nodes. They belong to the world, and to the cluster too.
    pub fn set_api_server(&mut self, addresses: BTreeSet<IpAddr>) {
        let families = self.config.families;
        let before = std::mem::replace(&mut self.nodes.api_server, addresses);
        let now = self.nodes.api_server.clone();
        for address in before.symmetric_difference(&now).copied() {
            let net = IpNet::from(address);
            if !families.has(&net) {
                continue;
            }
            let identity = if now.contains(&address) {
                self.acquire_cidr(net)
            } else {
                let Some(identity) = self.prefixes.number(&Prefix(net)) else { continue };
                self.prefixes.release_value(&Prefix(net));
                Identity(identity)
            };
            let changed = self.peers.matcher.upsert(identity, self.facts_of_cidr(net));
            self.peers_changed(&changed);
        }
    }

    /// The identity of a CIDR, with one reference more.
    pub(super) fn acquire_cidr(&mut self, net: IpNet) -> Identity {
        let identity = Identity(self.prefixes.acquire(Prefix(net)));
        if self.peers.matcher.facts(identity).is_none() {
            self.pending.gone.remove(&identity);
            let changed = self.peers.matcher.upsert(identity, self.facts_of_cidr(net));
            self.peers_changed(&changed);
        }
        identity
    }

    fn facts_of_cidr(&self, net: IpNet) -> Facts {
        let facts = cidr_facts(self.config.families, net);
        if net.prefix_len() < net.max_prefix_len() || !self.nodes.api_server.contains(&net.addr()) {
            return facts;
        }
        let labels = facts.labels.iter().cloned().chain([Label::reserved("kube-apiserver")]).collect();
        Facts { labels, ..facts }
    }

    /// The identity of another node since the last commit; before the first one, and without a node of that name, that of any.
    pub fn node(&self, name: &str) -> Identity {
        self.nodes.told.get(name).copied().unwrap_or(Identity::REMOTE_NODE)
    }

    /// Gives nodes their identities: of their own if the rules in use now tell nodes apart.
    pub(super) fn tell_nodes_apart(&mut self, changes: &mut Changes) {
        let apart = self.nodes.selectors > 0;
        let mut names = std::mem::take(&mut self.nodes.changed);
        if std::mem::replace(&mut self.nodes.apart, apart) != apart {
            names.extend(self.nodes.remote.keys().cloned());
        }
        for name in names {
            let node = self.nodes.remote.get(&name).cloned();
            let before = self.nodes.told.get(&name).copied();
            let identity = match &node {
                Some(node) if apart => {
                    let had = before.unwrap_or_else(|| node.kind());
                    Some(self.own_identity_of(node.peer_labels(false), had, changes))
                }
                node => node.as_ref().map(Node::kind),
            };
            if let Some(before) = before.filter(|before| before.is_local()) {
                self.nodes.numbers.release(before.0);
            }
            if identity == before {
                continue;
            }
            match identity {
                Some(identity) => drop(self.nodes.told.insert(name.clone(), identity)),
                None => drop(self.nodes.told.remove(&name)),
            }
            changes.nodes.extend(identity.map(|identity| (name, identity)));
        }
        self.nodes.numbers.publish();
    }

    /// The identity of nodes with these labels. One that is new begins with the rows of the one that its node has had.
    fn own_identity_of(&mut self, labels: LabelSet, had: Identity, changes: &mut Changes) -> Identity {
        let identity = Identity(self.nodes.numbers.acquire(labels.clone()));
        if self.peers.matcher.facts(identity).is_some() {
            return identity;
        }
        self.pending.gone.remove(&identity);
        let changed = self.peers.matcher.upsert(identity, Facts { labels, prefix: None });
        self.peers_changed(&changed);
        for (number, policy) in &mut self.policies {
            for direction in Direction::BOTH {
                let rows = &mut policy.rows[direction as usize];
                let Some(row) = rows.get(had) else { continue };
                if let Err(at) = rows.identities.binary_search_by_key(&identity, |(own, _)| *own) {
                    rows.identities.insert(at, (identity, row));
                    self.tables.retain(row);
                    changes.split.push((RowKey { policy: *number, direction, identity }, row));
                }
            }
            // Where nothing selects it, it may still differ from the one that it begins as.
            self.pending.policies.insert(*number);
            super::stale_for(&mut policy.stale, Some(identity));
        }
        identity
    }

    /// Identities that no node has any more.
    pub(super) fn release_nodes(&mut self) {
        for number in self.nodes.numbers.dead().collect::<Vec<_>>() {
            self.peers.matcher.remove(Identity(number));
            self.pending.gone.insert(Identity(number));
        }
        self.nodes.numbers.sweep();
    }
}
