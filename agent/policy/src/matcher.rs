//! Which selectors select which things, kept up to date: peers by identity, and endpoints.
//!
//! A thing that comes meets only selectors that ask for a label that it has (or, for a CIDR, for a CIDR around it);
//! a selector that comes meets only things that have a label it asks for. Selectors that ask for no label at all are
//! kept in a list that everything meets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use crate::label::LabelSet;
use crate::selector::{Op, Requirement, Selector};

/// Number of a selector. It has no meaning beyond one matcher and one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SelectorId(u32);

/// What selectors look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    pub(crate) labels: LabelSet,
    /// The CIDR that it stands for.
    pub(crate) prefix: Option<IpNet>,
}

/// A thing came to a selector, or left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changed<M> {
    pub(crate) selector: SelectorId,
    pub(crate) member: M,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum IndexKey {
    Label(String, String),
    Key(String),
    Cidr(IpNet),
    Rest,
}

struct Entry<M> {
    selector: Arc<Selector>,
    refs: u32,
    /// Sorted.
    members: Vec<M>,
    index: Vec<IndexKey>,
}

/// Selectors and things.
pub(crate) struct Matcher<M> {
    things: BTreeMap<M, Facts>,
    by_label: BTreeMap<String, BTreeMap<String, BTreeSet<M>>>,
    by_prefix: BTreeMap<IpNet, M>,
    selectors: BTreeMap<SelectorId, Entry<M>>,
    ids: BTreeMap<Arc<Selector>, SelectorId>,
    index: BTreeMap<IndexKey, BTreeSet<SelectorId>>,
    next: u32,
}

impl<M: Copy + Ord> Matcher<M> {
    pub(crate) fn new() -> Self {
        Self {
            things: BTreeMap::new(),
            by_label: BTreeMap::new(),
            by_prefix: BTreeMap::new(),
            selectors: BTreeMap::new(),
            ids: BTreeMap::new(),
            index: BTreeMap::new(),
            next: 0,
        }
    }

    pub(crate) fn facts(&self, member: M) -> Option<&Facts> {
        self.things.get(&member)
    }

    /// Sorted.
    pub(crate) fn members(&self, id: SelectorId) -> &[M] {
        self.selectors.get(&id).map_or(&[], |entry| &entry.members)
    }

    pub(crate) fn has(&self, id: SelectorId, member: M) -> bool {
        self.members(id).binary_search(&member).is_ok()
    }

    /// The selectors that select a thing.
    pub(crate) fn selecting(&self, member: M) -> Vec<SelectorId> {
        let Some(facts) = self.things.get(&member) else { return Vec::new() };
        self.candidates(facts).into_iter().filter(|id| self.has(*id, member)).collect()
    }

    /// The thing with the longest CIDR around this one, itself not counted.
    pub(crate) fn parent(&self, prefix: &IpNet) -> Option<M> {
        supernets(prefix).skip(1).find_map(|around| self.by_prefix.get(&around)).copied()
    }

    /// A thing as it is now. Gives the selectors that it came to or left.
    pub(crate) fn upsert(&mut self, member: M, facts: Facts) -> Vec<Changed<M>> {
        if self.things.get(&member) == Some(&facts) {
            return Vec::new();
        }
        let before = self.forget(member);
        let after: BTreeSet<SelectorId> = self
            .candidates(&facts)
            .into_iter()
            .filter(|id| {
                self.selectors
                    .get(id)
                    .is_some_and(|entry| entry.selector.matches(&facts.labels, facts.prefix.as_ref()))
            })
            .collect();
        for label in facts.labels.iter() {
            self.by_label
                .entry(label.key.clone())
                .or_default()
                .entry(label.value.clone())
                .or_default()
                .insert(member);
        }
        if let Some(prefix) = facts.prefix {
            self.by_prefix.insert(prefix, member);
        }
        self.things.insert(member, facts);
        for id in after.difference(&before) {
            if let Some(entry) = self.selectors.get_mut(id)
                && let Err(at) = entry.members.binary_search(&member)
            {
                entry.members.insert(at, member);
            }
        }
        for id in before.difference(&after) {
            self.leave(*id, member);
        }
        before.symmetric_difference(&after).map(|id| Changed { selector: *id, member }).collect()
    }

    /// A thing is gone. Gives the selectors that it left.
    pub(crate) fn remove(&mut self, member: M) -> Vec<Changed<M>> {
        let before = self.forget(member);
        for id in &before {
            self.leave(*id, member);
        }
        before.into_iter().map(|selector| Changed { selector, member }).collect()
    }

    fn leave(&mut self, id: SelectorId, member: M) {
        if let Some(entry) = self.selectors.get_mut(&id)
            && let Ok(at) = entry.members.binary_search(&member)
        {
            entry.members.remove(at);
        }
    }

    /// Takes a thing out of the indexes, and tells which selectors have it.
    fn forget(&mut self, member: M) -> BTreeSet<SelectorId> {
        let Some(facts) = self.things.remove(&member) else { return BTreeSet::new() };
        for label in facts.labels.iter() {
            if let Some(values) = self.by_label.get_mut(&label.key) {
                if let Some(members) = values.get_mut(&label.value) {
                    members.remove(&member);
                    if members.is_empty() {
                        values.remove(&label.value);
                    }
                }
                if values.is_empty() {
                    self.by_label.remove(&label.key);
                }
            }
        }
        if let Some(prefix) = facts.prefix
            && self.by_prefix.get(&prefix) == Some(&member)
        {
            self.by_prefix.remove(&prefix);
        }
        self.candidates(&facts).into_iter().filter(|id| self.has(*id, member)).collect()
    }

    /// Selectors that may select such a thing.
    fn candidates(&self, facts: &Facts) -> BTreeSet<SelectorId> {
        let labels = facts.labels.iter().flat_map(|label| {
            [IndexKey::Label(label.key.clone(), label.value.clone()), IndexKey::Key(label.key.clone())]
        });
        let cidrs = facts.prefix.iter().flat_map(supernets).map(IndexKey::Cidr);
        labels
            .chain(cidrs)
            .chain([IndexKey::Rest])
            .filter_map(|key| self.index.get(&key))
            .flatten()
            .copied()
            .collect()
    }

    /// The number of a selector, with one reference more.
    pub(crate) fn acquire(&mut self, selector: &Arc<Selector>) -> SelectorId {
        if let Some(id) = self.ids.get(selector) {
            let id = *id;
            if let Some(entry) = self.selectors.get_mut(&id) {
                entry.refs += 1;
            }
            return id;
        }
        let id = SelectorId(self.next);
        self.next += 1;
        let index = self.index_keys(selector);
        for key in &index {
            self.index.entry(key.clone()).or_default().insert(id);
        }
        let members = self.search(selector);
        self.ids.insert(Arc::clone(selector), id);
        self.selectors.insert(id, Entry { selector: Arc::clone(selector), refs: 1, members, index });
        id
    }

    pub(crate) fn selector(&self, id: SelectorId) -> Option<Arc<Selector>> {
        self.selectors.get(&id).map(|entry| Arc::clone(&entry.selector))
    }

    /// One reference less; the selector goes with the last one.
    pub(crate) fn release(&mut self, id: SelectorId) {
        let Some(entry) = self.selectors.get_mut(&id) else { return };
        entry.refs -= 1;
        if entry.refs > 0 {
            return;
        }
        let Some(entry) = self.selectors.remove(&id) else { return };
        self.ids.remove(&entry.selector);
        for key in &entry.index {
            if let Some(ids) = self.index.get_mut(key) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.index.remove(key);
                }
            }
        }
    }

    /// Where to keep a selector: at the label that has the fewest selectors so far.
    fn index_keys(&self, selector: &Selector) -> Vec<IndexKey> {
        let requirements = match selector {
            Selector::Cidr { net, .. } => return vec![IndexKey::Cidr(*net)],
            Selector::Labels(requirements) => requirements,
        };
        let keys = |requirement: &Requirement| -> Option<Vec<IndexKey>> {
            match &requirement.op {
                Op::In(values) => Some(
                    values
                        .iter()
                        .map(|value| IndexKey::Label(requirement.key.clone(), value.to_owned()))
                        .collect(),
                ),
                Op::Exists => Some(vec![IndexKey::Key(requirement.key.clone())]),
                Op::NotIn(_) | Op::Absent => None,
            }
        };
        let load = |keys: &Vec<IndexKey>| -> (bool, usize) {
            let with_value = keys.iter().all(|key| matches!(key, IndexKey::Label(..)));
            (!with_value, keys.iter().map(|key| 1 + self.index.get(key).map_or(0, BTreeSet::len)).sum())
        };
        requirements.iter().filter_map(keys).min_by_key(load).unwrap_or_else(|| vec![IndexKey::Rest])
    }

    /// The things that a new selector selects.
    fn search(&self, selector: &Selector) -> Vec<M> {
        let selects = |member: &M| {
            self.things
                .get(member)
                .is_some_and(|facts| selector.matches(&facts.labels, facts.prefix.as_ref()))
        };
        let requirements = match selector {
            Selector::Cidr { net, .. } => {
                let inside =
                    self.by_prefix.range(net..).take_while(|(prefix, _)| net.contains(&prefix.addr()));
                let mut found: Vec<M> = inside.map(|(_, member)| *member).filter(selects).collect();
                found.sort_unstable();
                return found;
            }
            Selector::Labels(requirements) => requirements,
        };
        let with = |requirement: &Requirement| -> Option<Vec<&BTreeSet<M>>> {
            let values = self.by_label.get(&requirement.key);
            match &requirement.op {
                Op::In(wanted) => Some(
                    values
                        .map_or_else(Vec::new, |v| wanted.iter().filter_map(|value| v.get(value)).collect()),
                ),
                Op::Exists => Some(values.map_or_else(Vec::new, |v| v.values().collect())),
                Op::NotIn(_) | Op::Absent => None,
            }
        };
        let fewest = requirements
            .iter()
            .filter_map(with)
            .min_by_key(|sets| sets.iter().map(|set| set.len()).sum::<usize>());
        match fewest {
            Some(sets) => {
                let mut found: Vec<M> = sets.into_iter().flatten().copied().filter(selects).collect();
                found.sort_unstable();
                found.dedup();
                found
            }
            None => self.things.keys().copied().filter(selects).collect(),
        }
    }
}

/// The CIDR and all around it, from long to short.
pub(crate) fn supernets(prefix: &IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(Some(*prefix), IpNet::supernet)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::label::Label;

    fn requirement() -> impl Strategy<Value = Requirement> {
        let values = || proptest::collection::vec("[xy]", 1..3).prop_map(|values| values.iter().collect());
        let op = prop_oneof![
            values().prop_map(Op::In),
            values().prop_map(Op::NotIn),
            Just(Op::Exists),
            Just(Op::Absent)
        ];
        ("[abc]", prop_oneof![Just("any"), Just("k8s"), Just("node")], op)
            .prop_map(|(key, source, op)| Requirement { key, source: source.to_owned(), op })
    }

    fn net() -> impl Strategy<Value = IpNet> {
        (0_u8..4, 0_u8..4, prop_oneof![Just(0_u8), Just(8), Just(16), Just(24), Just(32)])
            .prop_map(|(a, b, len)| IpNet::new([10, a, b, 0].into(), len).unwrap().trunc())
    }

    fn selector() -> impl Strategy<Value = Selector> {
        prop_oneof![
            proptest::collection::vec(requirement(), 0..3).prop_map(Selector::labels),
            (net(), proptest::collection::vec(net(), 0..2))
                .prop_map(|(net, except)| Selector::cidr(net, except)),
        ]
    }

    fn facts() -> impl Strategy<Value = Facts> {
        prop_oneof![
            proptest::collection::vec(("[abc]", prop_oneof![Just("k8s"), Just("node")], "[xyz]"), 0..4)
                .prop_map(|labels| Facts {
                    labels: labels
                        .into_iter()
                        .map(|(key, source, value)| Label::new(source, key, value))
                        .collect(),
                    prefix: None,
                }),
            net().prop_map(|prefix| Facts { labels: LabelSet::default(), prefix: Some(prefix) }),
        ]
    }

    #[derive(Debug, Clone)]
    enum Step {
        Upsert(u8, Facts),
        Remove(u8),
        Acquire(Selector),
        Release(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..8, facts()).prop_map(|(n, facts)| Step::Upsert(n, facts)),
            1 => (0_u8..8).prop_map(Step::Remove),
            3 => selector().prop_map(Step::Acquire),
            1 => (0_usize..8).prop_map(Step::Release),
        ]
    }

    proptest! {
        #[test]
        fn members_are_what_each_selector_selects(steps in proptest::collection::vec(step(), 1..60)) {
            let mut matcher = Matcher::<u8>::new();
            let mut things: BTreeMap<u8, Facts> = BTreeMap::new();
            let mut held: Vec<(SelectorId, Selector)> = Vec::new();
            for step in steps {
                let before: Vec<Vec<u8>> = held.iter().map(|(id, _)| matcher.members(*id).to_vec()).collect();
                let mut changed = None;
                match step {
                    Step::Upsert(n, facts) => {
                        // One thing for each CIDR, as their owner has it.
                        if things.iter().any(|(other, f)| *other != n && f.prefix.is_some() && f.prefix == facts.prefix) {
                            continue;
                        }
                        things.insert(n, facts.clone());
                        changed = Some(matcher.upsert(n, facts));
                    }
                    Step::Remove(n) => {
                        things.remove(&n);
                        changed = Some(matcher.remove(n));
                    }
                    Step::Acquire(selector) => held.push((matcher.acquire(&Arc::new(selector.clone())), selector)),
                    Step::Release(n) if n < held.len() => matcher.release(held.swap_remove(n).0),
                    Step::Release(_) => {}
                }
                for (id, selector) in &held {
                    let expected: Vec<u8> = things
                        .iter()
                        .filter(|(_, facts)| selector.matches(&facts.labels, facts.prefix.as_ref()))
                        .map(|(n, _)| *n)
                        .collect();
                    prop_assert_eq!(matcher.members(*id), &expected[..], "{}", selector);
                }
                if let Some(changed) = changed {
                    for ((id, _), before) in held.iter().zip(before) {
                        let told = changed.iter().any(|change| change.selector == *id);
                        prop_assert_eq!(told, before != matcher.members(*id));
                    }
                }
            }
            for (id, _) in held {
                matcher.release(id);
            }
            prop_assert!(matcher.index.is_empty() && matcher.ids.is_empty() && matcher.selectors.is_empty());
        }
    }
}
