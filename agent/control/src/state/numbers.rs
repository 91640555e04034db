//! Numbers for what the tables name by number.
//!
//! A number comes from a hash of the name that it stands for, so that the same rows come about in whatever order it is heard of.
//! Where two names hash alike the later one takes the next free number; what is in the tables keeps its own over a restart.
//! A number that is given up stays taken until the tables no longer hold it.

use std::collections::{BTreeMap, BTreeSet};

/// Numbers by name, none of them zero.
#[derive(Debug)]
pub(crate) struct Numbers<K> {
    of: BTreeMap<K, u32>,
    taken: BTreeMap<u32, Holder<K>>,
    /// Names whose number was given up.
    left: BTreeMap<K, u32>,
    /// All numbers that were given up, and perhaps taken again.
    once_left: BTreeSet<u32>,
}

/// Who has a number.
#[derive(Debug, PartialEq, Eq)]
enum Holder<K> {
    Somebody,
    /// Nobody any more, but rows may have it. Who had it, if that is known, gets it back; else who asks for it because its rows have it.
    Left(Option<Box<K>>),
}

impl<K: Ord + Clone> Numbers<K> {
    /// None is taken.
    pub(crate) const fn new() -> Self {
        Self {
            of: BTreeMap::new(),
            taken: BTreeMap::new(),
            left: BTreeMap::new(),
            once_left: BTreeSet::new(),
        }
    }

    /// A row has this number, for a name if that can be told from it.
    pub(crate) fn found(&mut self, number: u32, name: Option<K>) {
        if number == 0 || self.taken.contains_key(&number) {
            return;
        }
        if let Some(name) = &name {
            self.left.insert(name.clone(), number);
        }
        self.taken.insert(number, Holder::Left(name.map(Box::new)));
        self.once_left.insert(number);
    }

    /// The number of a name: the one that it has or had, else `preferred` if only rows have it, else the first one from `hash` on that
    /// nobody has or had. Who has a number to prefer asks before those that have none.
    pub(crate) fn take(&mut self, name: &K, preferred: Option<u32>, hash: u32) -> u32 {
        if let Some(number) = self.of.get(name) {
            return *number;
        }
        let had = self.left.remove(name);
        let may_have = |number: &u32| matches!(self.taken.get(number), Some(Holder::Left(None)));
        let number = had.or_else(|| preferred.filter(may_have)).unwrap_or_else(|| self.free(hash));
        self.taken.insert(number, Holder::Somebody);
        self.of.insert(name.clone(), number);
        number
    }

    fn free(&self, hash: u32) -> u32 {
        // Tables have room for some ten thousand rows, so there is always one, and near.
        let mut number = hash.max(1);
        while !matches!(self.taken.get(&number), None | Some(Holder::Left(None))) {
            number = number.checked_add(1).unwrap_or(1);
        }
        number
    }

    /// Gives the number of a name up.
    pub(crate) fn leave(&mut self, name: &K) {
        if let Some(number) = self.of.remove(name) {
            self.left.insert(name.clone(), number);
            self.taken.insert(number, Holder::Left(Some(Box::new(name.clone()))));
            self.once_left.insert(number);
        }
    }

    /// The tables hold no number that was given up.
    pub(crate) fn forget_left(&mut self) {
        self.left.clear();
        for number in std::mem::take(&mut self.once_left) {
            if self.taken.get(&number) != Some(&Holder::Somebody) {
                self.taken.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_hash_alike_have_numbers_of_their_own() {
        let mut numbers = Numbers::new();
        assert_eq!(numbers.take(&"a", None, 7), 7);
        assert_eq!(numbers.take(&"b", None, 7), 8);
        assert_eq!(numbers.take(&"a", None, 7), 7);
        assert_eq!(numbers.take(&"c", None, u32::MAX), u32::MAX);
        assert_eq!(numbers.take(&"d", None, u32::MAX), 1, "zero is left out");
        assert_eq!(numbers.take(&"e", None, 0), 2);
    }

    #[test]
    fn what_is_given_up_comes_back_to_its_name_alone_until_it_is_forgotten() {
        let mut numbers = Numbers::new();
        numbers.take(&"a", None, 7);
        numbers.leave(&"a");
        assert_eq!(numbers.take(&"b", Some(7), 7), 8, "rows may still have it");
        assert_eq!(numbers.take(&"a", None, 9), 7);
        numbers.leave(&"a");
        numbers.forget_left();
        assert_eq!(numbers.take(&"c", None, 7), 7);
        assert_eq!(numbers.take(&"b", None, 7), 8);
    }

    #[test]
    fn what_rows_have_goes_on() {
        let mut numbers = Numbers::new();
        numbers.found(7, None);
        numbers.found(8, Some("b"));
        numbers.found(9, None);
        numbers.found(0, Some("zero"));
        assert_eq!(numbers.take(&"c", Some(7), 1), 7);
        assert_eq!(numbers.take(&"a", None, 7), 9, "rows of nobody who has asked are nobody's");
        assert_eq!(numbers.take(&"b", None, 1), 8);
        assert_eq!(numbers.take(&"zero", None, 1), 1);
    }
}
