//! A smaller case that fails the same way.
//!
//! Delta debugging (A. Zeller, R. Hildebrandt: "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28, 2002) over attempts and objects, then over
//! the parts of each object: rules, peers, ports, labels, whatever can be left out so that the object stays valid. Round after round until nothing helps.

use serde_json::Value;
use sim_oracle::Cluster;

use crate::case::PolicyCase;

/// At most so many candidates are tried.
pub const MOST_TRIES: u32 = 5000;

/// Makes `case`, which fails, smaller while `still_fails` says so. The same calls for the same answers.
pub fn shrink(case: PolicyCase, still_fails: &mut dyn FnMut(&PolicyCase) -> bool) -> PolicyCase {
    let mut shrinker = Shrinker { best: case, tries: 0, still_fails };
    loop {
        let before = shrinker.best.clone();
        shrinker.fewer_attempts();
        shrinker.fewer_objects();
        shrinker.smaller_objects();
        if shrinker.best == before || shrinker.tries >= MOST_TRIES {
            return shrinker.best;
        }
    }
}

struct Shrinker<'a> {
    best: PolicyCase,
    tries: u32,
    still_fails: &'a mut dyn FnMut(&PolicyCase) -> bool,
}

impl Shrinker<'_> {
    /// Tries a candidate, and goes on with it if it fails too.
    fn attempt(&mut self, candidate: PolicyCase) -> bool {
        if self.tries >= MOST_TRIES {
            return false;
        }
        self.tries += 1;
        let fails = (self.still_fails)(&candidate);
        if fails {
            self.best = candidate;
        }
        fails
    }

    fn fewer_attempts(&mut self) {
        self.fewer(|case| case.attempts.len(), |case, gone| drop(case.attempts.drain(gone)));
    }

    fn fewer_objects(&mut self) {
        self.fewer(|case| case.objects.len(), |case, gone| drop(case.objects.drain(gone)));
    }

    /// Leaves out chunks, large ones first, then single ones.
    fn fewer(
        &mut self,
        count: impl Fn(&PolicyCase) -> usize,
        remove: impl Fn(&mut PolicyCase, std::ops::Range<usize>),
    ) {
        let mut chunk = count(&self.best).div_ceil(2).max(1);
        loop {
            let mut end = count(&self.best);
            while end > 0 {
                let start = end.saturating_sub(chunk);
                let mut candidate = self.best.clone();
                remove(&mut candidate, start..end);
                self.attempt(candidate);
                end = start.min(count(&self.best));
            }
            if chunk == 1 {
                return;
            }
            chunk = chunk.div_ceil(2);
        }
    }

    /// Leaves out parts of objects, large ones first: what is outside comes before what is in it.
    fn smaller_objects(&mut self) {
        for index in 0..self.best.objects.len() {
            let mut place = 0;
            while let Some(path) = parts(&self.best.objects[index]).get(place) {
                let mut candidate = self.best.clone();
                let object = &mut candidate.objects[index];
                remove(object, path);
                // Where a part has gone the next has come to its place.
                let is_fair = is_valid(object) == is_valid(&self.best.objects[index]);
                if !is_fair || !self.attempt(candidate) {
                    place += 1;
                }
            }
        }
    }
}

/// What the documentation says of an object by itself.
fn is_valid(object: &Value) -> bool {
    Cluster::new().set(object).is_ok()
}

/// A member of an object, or an item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Member(String),
    Item(usize),
}

/// Ways to all parts of an object that may be missing. What makes it this object, and where pods and nodes are, stays.
fn parts(object: &Value) -> Vec<Vec<Key>> {
    let mut all = Vec::new();
    for start in
        [&["spec"][..], &["specs"], &["metadata", "labels"], &["metadata", "annotations"], &["endpoints"]]
    {
        let path: Vec<Key> = start.iter().map(|name| Key::Member((*name).to_owned())).collect();
        if let Some(value) = start.iter().try_fold(object, |value, name| value.get(name)) {
            collect(value, &path, &mut all);
        }
    }
    all
}

fn collect(value: &Value, path: &[Key], all: &mut Vec<Vec<Key>>) {
    let mut below = |key: Key, value: &Value| {
        let path: Vec<Key> = path.iter().cloned().chain([key]).collect();
        all.push(path.clone());
        collect(value, &path, all);
    };
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| below(Key::Item(index), item));
        }
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| below(Key::Member(name.clone()), member));
        }
        _ => {}
    }
}

fn remove(object: &mut Value, path: &[Key]) {
    match (object, path) {
        (Value::Object(members), [Key::Member(name)]) => drop(members.shift_remove(name)),
        (Value::Array(items), [Key::Item(index)]) if *index < items.len() => drop(items.remove(*index)),
        (Value::Object(members), [Key::Member(name), rest @ ..]) => {
            if let Some(member) = members.get_mut(name) {
                remove(member, rest);
            }
        }
        (Value::Array(items), [Key::Item(index), rest @ ..]) => {
            if let Some(item) = items.get_mut(*index) {
                remove(item, rest);
            }
        }
        _ => {}
    }
}
