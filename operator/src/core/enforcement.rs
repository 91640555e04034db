//! On which nodes policies are in force, by what the nodes' agents say.
//!
//! An agent says up to which version of each kind all objects are in force, and lists the exceptions; so one object a node is
//! enough, whatever the number of policies, and what is looked at for a policy are the nodes on which it is not in force.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_crd::meta::Condition;
use agent_crd::node_policy_status::Lax;
use agent_crd::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, ClusterNetworkPolicy, NodePolicyStatus, Object as _,
    ObjectMeta,
};

use super::event::Kind;
use super::table::{Change, Listing, Place, Table};

/// A policy.
pub(super) type PolicyKey = (Kind, Place);

/// How long a change of a policy may take until nodes that have not taken it in are named.
const GRACE: Duration = Duration::from_secs(10);

/// The same where only the status may have changed; agents do not hurry to tell of that.
const LONG_GRACE: Duration = Duration::from_secs(90);

/// The reason why a policy is not in force that only says what it would do.
pub(super) const STAGED: &str = "Staged";

/// The reason why a policy is said to be in force.
pub(super) const IN_FORCE: &str = "InForce";

/// The reason why nobody knows whether a policy is in force: nodes have more exceptions than they list.
const NOT_LISTED: &str = "NotListed";

/// Nodes that are named in a message.
const NAMED: usize = 3;

/// What a node says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Node {
    revisions: BTreeMap<Kind, u64>,
    exceptions: BTreeMap<PolicyKey, String>,
    staged: BTreeMap<PolicyKey, (u64, u64)>,
    /// Why no policy is enforced there.
    lax: Option<Lax>,
    unlisted: Option<Unlisted>,
    problem: String,
}

/// What a node with more exceptions than it lists does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unlisted {
    /// The last that it lists: kind, namespace, name. Those after it are not known.
    last: (String, String, String),
    /// Why.
    why: String,
}

impl Unlisted {
    fn of(status: &NodePolicyStatus) -> Option<Self> {
        let (kind, namespace, name) = status.listed_up_to()?;
        Some(Self { last: (kind.into(), namespace.into(), name.into()), why: status.why_unlisted() })
    }

    fn may_have(&self, (kind, (namespace, name)): &PolicyKey) -> bool {
        let (last_kind, last_namespace, last_name) = &self.last;
        (kind_name(*kind), namespace, name) > (last_kind, last_namespace, last_name)
    }
}

impl Node {
    fn revision(&self, kind: Kind) -> u64 {
        self.revisions.get(&kind).copied().unwrap_or_default()
    }
}

/// What a policy asks of the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The object, its generation, and whether it is staged: what makes another policy of it.
    uid: String,
    generation: i64,
    staged: bool,
    /// The first version that was seen of it.
    version: u64,
    /// From when on nodes that have not taken it in are named.
    named_from: Duration,
}

impl Asked {
    /// What the object asks for, and since when if it is `known`. `said`: what its status says of that already.
    pub(super) fn by(
        metadata: &ObjectMeta,
        said: Option<&Condition>,
        known: Option<&Self>,
        now: Duration,
    ) -> Self {
        let staged = metadata.is_staged();
        let (uid, generation) = (metadata.uid.clone(), metadata.generation);
        // Then the version may be that of its last status, of which nodes tell later.
        let is_said = said.is_some_and(|said| {
            said.observed_generation == Some(generation) && (said.reason == STAGED) == staged
        });
        match known.filter(|known| (&known.uid, known.generation, known.staged) == (&uid, generation, staged))
        {
            Some(known) => known.clone(),
            None => Self {
                version: metadata.resource_version.parse().unwrap_or_default(),
                named_from: now + if is_said { LONG_GRACE } else { GRACE },
                uid,
                generation,
                staged,
            },
        }
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) const fn generation(&self) -> i64 {
        self.generation
    }
}

/// What is to be said of a policy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing: no node has said anything.
    Nothing,
    /// Nothing before then.
    Later(Duration),
    /// This.
    So { status: &'static str, reason: &'static str, message: String },
}

/// Policies of which something else is to be said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) policies: BTreeSet<PolicyKey>,
    /// Those of a kind that ask for a version above the first and up to the second.
    pub(super) versions: Vec<(Kind, u64, u64)>,
}

impl Touched {
    fn everything(&mut self) {
        self.versions = POLICIES.iter().map(|kind| (*kind, 0, u64::MAX)).collect();
    }
}

const POLICIES: [Kind; 3] = [Kind::NamespacedPolicy, Kind::ClusterwidePolicy, Kind::ClusterPolicy];

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::NamespacedPolicy => CiliumNetworkPolicy::KIND,
        Kind::ClusterwidePolicy => CiliumClusterwideNetworkPolicy::KIND,
        _ => ClusterNetworkPolicy::KIND,
    }
}

fn kind_named(name: &str) -> Option<Kind> {
    match name {
        CiliumNetworkPolicy::KIND => Some(Kind::NamespacedPolicy),
        CiliumClusterwideNetworkPolicy::KIND => Some(Kind::ClusterwidePolicy),
        ClusterNetworkPolicy::KIND => Some(Kind::ClusterPolicy),
        _ => None,
    }
}

/// What all nodes say.
#[derive(Debug, Default)]
pub(super) struct Enforcement {
    nodes: Table<Node>,
    by_revision: BTreeMap<(Kind, u64), BTreeSet<String>>,
    exceptions: BTreeMap<PolicyKey, BTreeSet<String>>,
    staged: BTreeMap<PolicyKey, BTreeSet<String>>,
    /// Nodes that enforce no policy.
    lax: BTreeMap<String, Lax>,
    /// Nodes that do not list all exceptions.
    unlisted: BTreeMap<String, Unlisted>,
}

impl Enforcement {
    pub(super) const fn listing(&self) -> Listing {
        self.nodes.listing()
    }

    pub(super) fn doubt(&mut self) {
        self.nodes.doubt();
    }

    pub(super) fn list_started(&mut self) {
        self.nodes.start();
    }

    pub(super) fn list_synced(&mut self) -> Touched {
        let mut touched = Touched::default();
        let before: BTreeSet<Place> = self.nodes.rows().keys().cloned().collect();
        let rows = self.nodes.sync();
        let gone: Vec<Place> =
            before.into_iter().filter(|place| !self.nodes.rows().contains_key(place)).collect();
        // The table gives the rows that it has removed in their order.
        for ((_, name), node) in gone.iter().zip(&rows) {
            self.unlink(name, node, &mut touched);
        }
        // Before, nothing was said.
        touched.everything();
        touched
    }

    pub(super) fn upsert(&mut self, status: &NodePolicyStatus) -> Touched {
        let key = |kind: &str, namespace: &str, name: &str| -> Option<PolicyKey> {
            Some((kind_named(kind)?, (namespace.to_owned(), name.to_owned())))
        };
        let exceptions = status.exceptions.iter();
        let staged = status.staged.iter();
        let node = Node {
            revisions: status.revisions.iter().filter_map(|(k, v)| Some((kind_named(k)?, *v))).collect(),
            exceptions: exceptions
                .filter_map(|e| Some((key(&e.kind, &e.namespace, &e.name)?, e.message.clone())))
                .collect(),
            staged: staged
                .filter_map(|s| Some((key(&s.kind, &s.namespace, &s.name)?, (s.would_allow, s.would_deny))))
                .collect(),
            lax: status.lax(),
            unlisted: Unlisted::of(status),
            problem: status.problem.clone(),
        };
        let name = status.metadata.name.clone();
        let mut touched = Touched::default();
        self.link(&name, &node);
        let old = match self.nodes.upsert((String::new(), name.clone()), node) {
            Change::New => None,
            Change::Replaced(old) => Some(old),
        };
        let Some(new) = self.nodes.rows().get(&(String::new(), name.clone())) else { return touched };
        for kind in POLICIES {
            let (from, to) = match &old {
                // Who was not there before is behind with what is newer.
                None => (new.revision(kind), u64::MAX),
                Some(old) if old.problem != new.problem => (old.revision(kind), u64::MAX),
                Some(old) => (old.revision(kind), new.revision(kind)),
            };
            if from != to {
                touched.versions.push((kind, from.min(to), from.max(to)));
            }
        }
        touched.policies.extend(new.exceptions.keys().chain(new.staged.keys()).cloned());
        let is_first = self.nodes.rows().len() == 1 && old.is_none();
        let is_other = |old: &Node| (old.lax, &old.unlisted) != (new.lax, &new.unlisted);
        let says_of_all = new.lax.is_some() || new.unlisted.is_some();
        if is_first || old.as_ref().map_or(says_of_all, is_other) {
            touched.everything();
        }
        if let Some(old) = old {
            touched.policies.extend(old.exceptions.keys().chain(old.staged.keys()).cloned());
            self.unlink_old(&name, &old);
        }
        touched
    }

    pub(super) fn delete(&mut self, name: &str) -> Touched {
        let mut touched = Touched::default();
        if let Some(node) = self.nodes.delete(&(String::new(), name.to_owned())) {
            self.unlink(name, &node, &mut touched);
        }
        touched
    }

    fn link(&mut self, name: &str, node: &Node) {
        for kind in POLICIES {
            self.by_revision.entry((kind, node.revision(kind))).or_default().insert(name.to_owned());
        }
        for key in node.exceptions.keys() {
            self.exceptions.entry(key.clone()).or_default().insert(name.to_owned());
        }
        for key in node.staged.keys() {
            self.staged.entry(key.clone()).or_default().insert(name.to_owned());
        }
        self.lax.extend(node.lax.map(|lax| (name.to_owned(), lax)));
        self.unlisted.extend(node.unlisted.clone().map(|unlisted| (name.to_owned(), unlisted)));
    }

    /// Takes out what a node has said before and does not say now.
    fn unlink_old(&mut self, name: &str, old: &Node) {
        fn remove<K: Ord>(index: &mut BTreeMap<K, BTreeSet<String>>, key: &K, name: &str) {
            if let Some(names) = index.get_mut(key) {
                names.remove(name);
                if names.is_empty() {
                    index.remove(key);
                }
            }
        }
        let now = self.nodes.rows().get(&(String::new(), name.to_owned()));
        for kind in POLICIES {
            if now.is_none_or(|now| now.revision(kind) != old.revision(kind)) {
                remove(&mut self.by_revision, &(kind, old.revision(kind)), name);
            }
        }
        for key in old.exceptions.keys().filter(|key| now.is_none_or(|n| !n.exceptions.contains_key(*key))) {
            remove(&mut self.exceptions, key, name);
        }
        for key in old.staged.keys().filter(|key| now.is_none_or(|now| !now.staged.contains_key(*key))) {
            remove(&mut self.staged, key, name);
        }
        if now.is_none_or(|now| now.lax.is_none()) {
            self.lax.remove(name);
        }
        if now.is_none_or(|now| now.unlisted.is_none()) {
            self.unlisted.remove(name);
        }
    }

    fn unlink(&mut self, name: &str, node: &Node, touched: &mut Touched) {
        self.unlink_old(name, node);
        touched.policies.extend(node.exceptions.keys().chain(node.staged.keys()).cloned());
        touched.versions.extend(POLICIES.iter().map(|kind| (*kind, node.revision(*kind), u64::MAX)));
        if node.lax.is_some() || node.unlisted.is_some() {
            touched.everything();
        }
    }

    fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.rows().get(&(String::new(), name.to_owned()))
    }

    /// What is to be said of a policy that asks for this.
    pub(super) fn says(&self, policy: &PolicyKey, asked: &Asked, now: Duration) -> Said {
        let all = self.nodes.rows().len();
        if all == 0 || self.nodes.listing() == Listing::Never {
            return Said::Nothing;
        }
        if asked.staged {
            return Said::So { status: "False", reason: STAGED, message: self.would(policy) };
        }
        let mut not: BTreeMap<&str, String> = BTreeMap::new();
        for name in self.exceptions.get(policy).into_iter().flatten() {
            let message = self.node(name).and_then(|node| node.exceptions.get(policy));
            not.insert(name, message.cloned().unwrap_or_default());
        }
        let is_refused = !not.is_empty();
        for (name, lax) in &self.lax {
            not.entry(name).or_insert_with(|| lax.why().to_owned());
        }
        let is_off = self.lax.values().any(|lax| *lax == Lax::Never);
        let behind = self
            .by_revision
            .range((policy.0, 0)..(policy.0, asked.version))
            .flat_map(|(_, names)| names)
            .filter(|name| !self.exceptions.get(policy).is_some_and(|names| names.contains(*name)));
        if now < asked.named_from {
            if !is_refused && behind.clone().next().is_some() {
                return Said::Later(asked.named_from);
            }
        } else {
            for name in behind {
                let problem = self.node(name).map(|node| node.problem.as_str()).unwrap_or_default();
                let separator = if problem.is_empty() { "" } else { ": " };
                not.entry(name)
                    .or_insert_with(|| format!("it has not been taken in there yet{separator}{problem}"));
            }
        }
        if not.is_empty() {
            return self.says_if_listed(policy, all);
        }
        let message = format!("not in force on {} of {all} nodes: {}", not.len(), some_of(&not));
        let reason = match () {
            () if is_refused || is_off => "NotEnforced",
            () if !self.lax.is_empty() => "Audited",
            () => "Behind",
        };
        Said::So { status: "False", reason, message }
    }

    /// What is to be said of a policy that is in force on every node that lists all its exceptions.
    fn says_if_listed(&self, policy: &PolicyKey, all: usize) -> Said {
        let unlisted = self.unlisted.iter().filter(|(_, unlisted)| unlisted.may_have(policy));
        let why: BTreeMap<&str, String> =
            unlisted.map(|(name, unlisted)| (name.as_str(), unlisted.why.clone())).collect();
        if why.is_empty() {
            return Said::So {
                status: "True",
                reason: IN_FORCE,
                message: "in force on every node".to_owned(),
            };
        }
        let message = format!("perhaps not in force on {} of {all} nodes: {}", why.len(), some_of(&why));
        Said::So { status: "Unknown", reason: NOT_LISTED, message }
    }

    /// What a staged policy would have decided otherwise.
    fn would(&self, policy: &PolicyKey) -> String {
        let names = self.staged.get(policy);
        let counts: Vec<(u64, u64)> = names
            .into_iter()
            .flatten()
            .filter_map(|name| self.node(name)?.staged.get(policy).copied())
            .collect();
        let (allow, deny) = counts.iter().fold((0_u64, 0_u64), |(allow, deny), (more_allow, more_deny)| {
            (allow.saturating_add(*more_allow), deny.saturating_add(*more_deny))
        });
        if allow == 0 && deny == 0 {
            return "staged, and nothing so far would have been decided otherwise".to_owned();
        }
        format!(
            "staged: it would have denied {deny} connections that passed, and allowed {allow} packets that were dropped, on {} nodes",
            counts.len()
        )
    }
}

/// Some nodes with why, and how many there are beside them.
fn some_of(nodes: &BTreeMap<&str, String>) -> String {
    let named: Vec<String> = nodes.iter().take(NAMED).map(|(name, why)| format!("{name} ({why})")).collect();
    let more = nodes.len() - named.len();
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    format!("{}{more}", named.join(", "))
}
