//! Watches: the change log as one client sees it.

use super::{Change, ChangeKind, Object, Store};
use crate::error::ApiError;
use crate::object::namespace;
use crate::resource::Gr;
use crate::selector::Selector;

/// An event for one client.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    /// What happened, as seen through the selector.
    pub kind: ChangeKind,
    /// The object.
    pub object: Object,
    /// Revision of the change.
    pub revision: u64,
}

/// A place in the change log with a filter. It holds nothing open; poll it as often or rarely as you like.
#[derive(Debug, Clone)]
pub struct Watcher {
    store: Store,
    resource: Gr,
    namespace: String,
    selector: Selector,
    seen: u64,
}

impl Watcher {
    pub(super) fn new(store: Store, resource: Gr, namespace: String, selector: Selector, after: u64) -> Self {
        Self { store, resource, namespace, selector, seen: after }
    }

    /// The revision up to which everything has been delivered.
    pub fn revision(&self) -> u64 {
        self.seen
    }

    /// The events since the last call.
    ///
    /// # Errors
    /// 410 if the log no longer goes back to where this watch stands.
    pub fn poll(&mut self) -> Result<Vec<WatchEvent>, ApiError> {
        let core = self.store.core();
        let mut events = Vec::new();
        for change in core.changes(self.seen)? {
            self.seen = change.revision;
            if change.resource == self.resource
                && (self.namespace.is_empty() || namespace(&change.object) == self.namespace)
            {
                events.extend(select(change, &self.selector));
            }
        }
        Ok(events)
    }
}

/// What a change means to a client that sees only selected objects: they come and go as they begin and cease to match.
fn select(change: &Change, selector: &Selector) -> Option<WatchEvent> {
    let is = change.kind != ChangeKind::Deleted && selector.matches(&change.object);
    let was = change.previous.as_ref().is_some_and(|p| selector.matches(p));
    let kind = match (was, is) {
        (false, true) => ChangeKind::Added,
        (true, true) => ChangeKind::Modified,
        (true, false) => ChangeKind::Deleted,
        (false, false) => return None,
    };
    Some(WatchEvent { kind, object: change.object.clone(), revision: change.revision })
}
