//! Rules that come and go, and the selectors that they need.

use std::collections::BTreeSet;
use std::sync::Arc;

use dataplane_abi::Identity;
use ipnet::IpNet;

use super::{Policy, Prefix, SpecId, SpecState, Used};
use crate::compile::PeerIds;
use crate::error::Mistakes;
use crate::matcher::SelectorId;
use crate::normal::PolicyObject;
use crate::rule::{ObjectRef, Spec};
use crate::selector::Selector;
use crate::store::Stored;

impl Policy {
    /// A policy object as it is now.
    ///
    /// # Errors
    /// When it cannot be taken. What was in force of the object stays in force, and a finding says so.
    pub fn upsert(&mut self, object: PolicyObject<'_>) -> Result<(), Mistakes> {
        let (name, after, result) = self.store.after(object, &self.config.cluster);
        self.set_object(&name, after);
        result
    }

    /// A policy object is gone.
    pub fn delete(&mut self, object: &ObjectRef) {
        self.set_object(&Arc::new(object.clone()), Stored::default());
    }

    /// What is in force of an object now. Nothing: it is gone.
    fn set_object(&mut self, object: &Arc<ObjectRef>, after: Stored) {
        let before = self.store.objects.get(object).map(|stored| stored.specs.clone()).unwrap_or_default();
        for at in 0..before.len().max(after.specs.len()) {
            let (old, new) = (before.get(at), after.specs.get(at));
            if old == new {
                continue;
            }
            if let Some(old) = old
                && let Some(id) = self.current.remove(&(Arc::clone(object), old.index))
            {
                self.drop_spec(id);
            }
            if let Some(new) = new {
                self.add_spec(Arc::clone(new));
            }
        }
        self.store.put(object, after);
    }

    fn add_spec(&mut self, spec: Arc<Spec>) {
        let id = SpecId(self.next_spec);
        self.next_spec += 1;
        let subject = self.subjects.acquire(&spec.subject);
        self.by_subject.entry(subject).or_default().insert(id);
        self.pending.endpoints.extend(self.subjects.members(subject));
        if spec.rules.iter().any(|rule| !rule.peers.refs.is_empty()) {
            self.with_refs.insert(id);
        }
        self.current.insert((Arc::clone(&spec.object), spec.index), id);
        self.specs.insert(id, SpecState { spec, subject, used: None, gone: false });
    }

    fn drop_spec(&mut self, id: SpecId) {
        let Some(state) = self.specs.get_mut(&id) else { return };
        state.gone = true;
        let subject = state.subject;
        let unused = state.used.is_none();
        self.pending.endpoints.extend(self.subjects.members(subject));
        if let Some(specs) = self.by_subject.get_mut(&subject) {
            specs.remove(&id);
            if specs.is_empty() {
                self.by_subject.remove(&subject);
            }
        }
        self.subjects.release(subject);
        self.with_refs.remove(&id);
        if unused {
            self.specs.remove(&id);
        }
    }

    /// A policy uses a rule from now on.
    pub(super) fn use_spec(&mut self, id: SpecId, number: u32) {
        let Some(state) = self.specs.get_mut(&id) else { return };
        if let Some(used) = &mut state.used {
            used.by.insert(number);
            return;
        }
        let spec = Arc::clone(&state.spec);
        let peers = self.resolve(id, &spec);
        if let Some(state) = self.specs.get_mut(&id) {
            state.used = Some(Box::new(Used { peers, by: BTreeSet::from([number]) }));
        }
    }

    /// A policy does not use a rule any more. Its selectors stay until the end of the commit.
    pub(super) fn leave_spec(&mut self, id: SpecId, number: u32) {
        let Some(state) = self.specs.get_mut(&id) else { return };
        let Some(mut used) = state.used.take() else { return };
        used.by.remove(&number);
        if !used.by.is_empty() {
            state.used = Some(used);
            return;
        }
        if state.gone {
            self.specs.remove(&id);
        }
        self.retire(id, used.peers);
    }

    /// Rules whose peers other objects name look at those objects again.
    pub(super) fn follow_refs(&mut self) {
        for id in self.with_refs.clone() {
            let Some(state) = self.specs.get_mut(&id) else { continue };
            let Some(mut used) = state.used.take() else { continue };
            let spec = Arc::clone(&state.spec);
            let before = std::mem::replace(&mut used.peers, self.resolve(id, &spec));
            let (same, by) = (used.peers == before, used.by.clone());
            self.retire(id, before);
            if let Some(state) = self.specs.get_mut(&id) {
                state.used = Some(used);
            }
            if !same {
                for number in by {
                    self.make_stale(number, None);
                }
            }
        }
    }

    /// The selectors of a rule's peers, one reference each.
    fn resolve(&mut self, id: SpecId, spec: &Spec) -> Vec<PeerIds> {
        let mut found = Vec::with_capacity(spec.rules.len());
        for rule in &spec.rules {
            let selectors = self.store.selectors(&rule.peers);
            let mut ids: Vec<SelectorId> = selectors.iter().map(|selector| self.acquire(selector)).collect();
            ids.sort_unstable();
            for selector in &ids {
                *self.by_peer.entry((*selector, id)).or_default() += 1;
            }
            found.push(PeerIds { everybody: rule.peers.everybody, selectors: ids });
        }
        found
    }

    fn acquire(&mut self, selector: &Arc<Selector>) -> SelectorId {
        // First the CIDRs, so that the selector finds them.
        for net in self.own_identity(selector) {
            self.acquire_cidr(net);
        }
        self.nodes.selectors += usize::from(selector.is_about_nodes());
        self.peers.matcher.acquire(selector)
    }

    /// CIDRs of a selector that get an identity. The one of all addresses has that of the world.
    fn own_identity(&self, selector: &Selector) -> Vec<IpNet> {
        let families = self.config.families;
        selector.prefixes().filter(|net| families.has(net) && net.prefix_len() > 0).collect()
    }

    fn retire(&mut self, id: SpecId, peers: Vec<PeerIds>) {
        for selector in peers.into_iter().flat_map(|peers| peers.selectors) {
            if let Some(count) = self.by_peer.get_mut(&(selector, id)) {
                *count -= 1;
                if *count == 0 {
                    self.by_peer.remove(&(selector, id));
                }
            }
            let about_nodes = self.peers.matcher.selector(selector).is_some_and(|own| own.is_about_nodes());
            self.nodes.selectors -= usize::from(about_nodes);
            self.pending.retired.push(selector);
        }
    }

    /// Lets go of the selectors that were retired, and of CIDRs that only they told apart.
    pub(super) fn release_retired(&mut self) {
        for id in std::mem::take(&mut self.pending.retired) {
            let Some(selector) = self.peers.matcher.selector(id) else { continue };
            for net in self.own_identity(&selector) {
                self.prefixes.release_value(&Prefix(net));
            }
            self.peers.matcher.release(id);
        }
        for number in self.prefixes.dead() {
            self.peers.matcher.remove(Identity(number));
            self.pending.gone.insert(Identity(number));
        }
    }
}
