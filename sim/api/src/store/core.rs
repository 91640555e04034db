//! The state under the store's lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Change, ChangeKind, Object, StoreOptions};
use crate::admission::services::{Allocator, hash};
use crate::clock::{Clock, rfc3339};
use crate::error::ApiError;
use crate::object::{name, namespace, set};
use crate::registry::{Registry, ResourceDef, definition_from_crd};
use crate::resource::{CUSTOMRESOURCEDEFINITIONS, Gr};

/// Namespace and name.
pub(super) type Key = (String, String);

pub(super) struct Core {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) registry: Registry,
    pub(super) allocator: Allocator,
    pub(super) objects: BTreeMap<Gr, BTreeMap<Key, Object>>,
    log: VecDeque<Change>,
    log_capacity: usize,
    revision: u64,
    seed: u64,
    made: u64,
}

impl Core {
    pub(super) fn new(options: StoreOptions) -> Self {
        Self {
            clock: options.clock,
            registry: Registry::builtin(),
            allocator: Allocator { cidrs: options.service_cidrs, node_ports: options.node_ports },
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            log_capacity: options.log_capacity.max(1),
            revision: 0,
            seed: options.seed,
            made: 0,
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn now(&self) -> String {
        rfc3339(self.clock.now())
    }

    pub(super) fn def(&self, r: &Gr) -> Result<Arc<ResourceDef>, ApiError> {
        self.registry.get(r).cloned().ok_or_else(ApiError::no_such_path)
    }

    /// Changes after `after`; 410 if they are no longer all there.
    pub(super) fn changes(&self, after: u64) -> Result<impl DoubleEndedIterator<Item = &Change>, ApiError> {
        let oldest = self.log.front().map_or(self.revision + 1, |c| c.revision);
        if after + 1 < oldest {
            return Err(ApiError::expired(format!("too old resource version: {after} ({oldest})")));
        }
        // Revisions in the log are consecutive, so that the place of a revision is known.
        let skip = usize::try_from(after + 1 - oldest).unwrap_or(usize::MAX).min(self.log.len());
        Ok(self.log.range(skip..))
    }

    pub(super) fn exists(&self, r: &Gr, namespace: &str, name: &str) -> bool {
        self.objects.get(r).is_some_and(|o| o.contains_key(&(namespace.to_owned(), name.to_owned())))
    }

    pub(super) fn get(&self, r: &Gr, namespace: &str, name: &str) -> Result<Object, ApiError> {
        self.def(r)?;
        let found = self.objects.get(r).and_then(|o| o.get(&(namespace.to_owned(), name.to_owned())));
        found.cloned().ok_or_else(|| ApiError::not_found(r, name))
    }

    /// Five letters and digits that are easy to read aloud, as generated names have them.
    pub(super) fn name_suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut n = self.random();
        (0..5)
            .map(|_| {
                let letter = LETTERS[usize::try_from(n % LETTERS.len() as u64).unwrap_or(0)];
                n /= LETTERS.len() as u64;
                char::from(letter)
            })
            .collect()
    }

    pub(super) fn new_uid(&mut self) -> String {
        let (a, b) = (self.random(), self.random());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | (b >> 48 & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }

    /// A value nobody guesses but that repeats with the same seed and history (splitmix64).
    fn random(&mut self) -> u64 {
        self.made += 1;
        let mut z = hash(&format!("{}/{}", self.seed, self.made));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Keeps an object under the next revision.
    pub(super) fn keep(&mut self, def: &ResourceDef, mut object: Value) -> Object {
        self.revision += 1;
        set(&mut object, &["metadata", "resourceVersion"], json!(self.revision.to_string()));
        let object: Object = Arc::new(object);
        let key = (namespace(&object).to_owned(), name(&object).to_owned());
        let previous = self.objects.entry(def.gr.clone()).or_default().insert(key, object.clone());
        let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        self.record(def, kind, object.clone(), previous);
        object
    }

    /// Takes an object out under the next revision.
    pub(super) fn discard(&mut self, def: &ResourceDef, namespace: &str, name: &str) -> Option<Object> {
        let previous = self.objects.get_mut(&def.gr)?.remove(&(namespace.to_owned(), name.to_owned()))?;
        self.revision += 1;
        let mut last = (*previous).clone();
        set(&mut last, &["metadata", "resourceVersion"], json!(self.revision.to_string()));
        let last: Object = Arc::new(last);
        self.record(def, ChangeKind::Deleted, last.clone(), Some(previous));
        Some(last)
    }

    fn record(&mut self, def: &ResourceDef, kind: ChangeKind, object: Object, previous: Option<Object>) {
        if self.log.len() >= self.log_capacity {
            self.log.pop_front();
        }
        if def.gr == CUSTOMRESOURCEDEFINITIONS {
            self.crd_changed(kind, &object);
        }
        self.log.push_back(Change {
            revision: self.revision,
            resource: def.gr.clone(),
            kind,
            object,
            previous,
        });
    }

    fn crd_changed(&mut self, kind: ChangeKind, crd: &Value) {
        let names = crate::object::at(crd, &["spec", "names"]);
        let gr =
            Gr::of(crate::object::str_at(crd, &["spec", "group"]), crate::object::str_at(names, &["plural"]));
        match definition_from_crd(crd).filter(|_| kind != ChangeKind::Deleted) {
            Some(def) => self.registry.insert(def),
            None => self.registry.remove(&gr),
        }
    }
}
