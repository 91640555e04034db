//! Which objects of a kind are there: what a list leaves out is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::objects::{ObjectKind, ObjectName};

/// What has been heard of a kind.
#[derive(Debug, Default)]
struct List {
    /// Objects that are there, and during which list they were heard last.
    known: BTreeMap<Arc<ObjectName>, u32>,
    /// Number of the list that is under way, or was last.
    number: u32,
    under_way: bool,
    /// A whole list has been heard.
    synced: bool,
}

/// All kinds.
#[derive(Debug)]
pub(super) struct Lists(BTreeMap<ObjectKind, List>);

impl Lists {
    pub(super) fn new() -> Self {
        Self(ObjectKind::ALL.into_iter().map(|kind| (kind, List::default())).collect())
    }

    /// Kinds of which no whole list has been heard.
    pub(super) fn missing(&self) -> impl Iterator<Item = ObjectKind> {
        self.0.iter().filter(|(_, list)| !list.synced).map(|(kind, _)| *kind)
    }

    /// Whether a whole list of a kind has been heard.
    pub(super) fn has_heard(&self, kind: ObjectKind) -> bool {
        self.0.get(&kind).is_some_and(|list| list.synced)
    }

    /// A list begins.
    pub(super) fn started(&mut self, kind: ObjectKind) {
        let list = self.0.entry(kind).or_default();
        list.number = list.number.wrapping_add(1);
        list.under_way = true;
    }

    /// A list is complete. Gives the objects that were not heard in it.
    pub(super) fn synced(&mut self, kind: ObjectKind) -> Vec<Arc<ObjectName>> {
        let list = self.0.entry(kind).or_default();
        list.synced = true;
        if !std::mem::take(&mut list.under_way) {
            return Vec::new();
        }
        let gone = list.known.iter().filter(|(_, heard)| **heard != list.number);
        gone.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// An object is there. Gives its name as all shall hold it, for there are many of them.
    pub(super) fn heard(&mut self, kind: ObjectKind, name: ObjectName) -> Arc<ObjectName> {
        let list = self.0.entry(kind).or_default();
        let name = match list.known.get_key_value(&name) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(name),
        };
        list.known.insert(Arc::clone(&name), list.number);
        name
    }

    /// An object is gone.
    pub(super) fn forget(&mut self, kind: ObjectKind, name: &ObjectName) {
        self.0.entry(kind).or_default().known.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(lists: &mut Lists) -> Vec<String> {
        lists.synced(ObjectKind::Pod).iter().map(|name| name.name.clone()).collect()
    }

    #[test]
    fn what_a_whole_list_leaves_out_is_gone() {
        let mut lists = Lists::new();
        let pod = |name: &str| ObjectName::new("n", name);
        let kind = ObjectKind::Pod;
        lists.started(kind);
        let first = lists.heard(kind, pod("a"));
        lists.heard(kind, pod("b"));
        assert!(lists.missing().any(|missing| missing == kind));
        assert!(gone(&mut lists).is_empty() && !lists.missing().any(|missing| missing == kind));
        assert!(gone(&mut lists).is_empty(), "no list was under way");

        lists.started(kind);
        let again = lists.heard(kind, pod("a"));
        assert!(Arc::ptr_eq(&first, &again), "one name, held once");
        // The list breaks off and begins again.
        lists.started(kind);
        lists.heard(kind, pod("c"));
        lists.heard(kind, pod("d"));
        lists.forget(kind, &pod("d"));
        assert_eq!(gone(&mut lists), ["a", "b"]);
    }
}
