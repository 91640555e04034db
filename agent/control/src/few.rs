//! Sets and maps of a few things, of which there are many: sorted lists without room for more.
//!
//! The smallest node of a tree has room for eleven, which is most of what an agent with many services would need memory for.
//! Changing a large one costs a copy; nothing here is both large and changed bit by bit.

use std::borrow::Borrow;

/// A sorted set.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Few<T>(Box<[T]>);

/// A map, sorted by key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FewMap<K, V>(Box<[(K, V)]>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<K, V> Default for FewMap<K, V> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(&self.0).finish()
    }
}

impl<K: std::fmt::Debug, V: std::fmt::Debug> std::fmt::Debug for FewMap<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(key, value)| (key, value))).finish()
    }
}

impl<T: Ord> Few<T> {
    /// Its elements, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// How many they are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The greatest.
    pub const fn last(&self) -> Option<&T> {
        self.0.last()
    }

    /// Whether it is one of them.
    pub fn contains<Q: Ord + ?Sized>(&self, element: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        self.find(element).is_ok()
    }

    /// Those that `other` does not have.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a T> {
        self.iter().filter(|element| !other.contains(*element))
    }

    /// Puts it in; whether it is new.
    pub fn insert(&mut self, element: T) -> bool {
        let Err(place) = self.find(&element) else { return false };
        self.change(|all| all.insert(place, element));
        true
    }

    /// Takes it out; whether it was there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, element: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        let Ok(place) = self.find(element) else { return false };
        self.change(|all| drop(all.remove(place)));
        true
    }

    fn find<Q: Ord + ?Sized>(&self, element: &Q) -> Result<usize, usize>
    where
        T: Borrow<Q>,
    {
        self.0.binary_search_by(|its| its.borrow().cmp(element))
    }

    fn change(&mut self, how: impl FnOnce(&mut Vec<T>)) {
        let mut all = std::mem::take(&mut self.0).into_vec();
        all.reserve_exact(1);
        how(&mut all);
        self.0 = all.into_boxed_slice();
    }
}

impl<K: Ord, V> FewMap<K, V> {
    /// Keys with what they stand for, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + ExactSizeIterator {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Keys, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + ExactSizeIterator {
        self.0.iter().map(|(key, _)| key)
    }

    /// How many they are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a key stands for.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let place = self.0.binary_search_by(|(its, _)| its.borrow().cmp(key)).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }
}

impl<T: Ord> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut all: Vec<T> = elements.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        Self(all.into_boxed_slice())
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for FewMap<K, V> {
    /// Of equal keys the last one counts, as in other maps.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut all: Vec<(K, V)> = pairs.into_iter().collect();
        all.reverse();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all.dedup_by(|(one, _), (other, _)| one == other);
        Self(all.into_boxed_slice())
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for Few<T> {
    fn from(elements: [T; N]) -> Self {
        elements.into_iter().collect()
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for FewMap<K, V> {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<'a, T: Ord> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_is_as_a_tree_would_be(acts in prop::collection::vec((any::<bool>(), 0_u8..12), 0..40)) {
            let (mut few, mut tree) = (Few::default(), BTreeSet::new());
            for (is_in, element) in acts {
                if is_in {
                    prop_assert_eq!(few.insert(element), tree.insert(element));
                } else {
                    prop_assert_eq!(few.remove(&element), tree.remove(&element));
                }
                prop_assert!(few.iter().eq(&tree));
                prop_assert_eq!((few.len(), few.is_empty(), few.last()), (tree.len(), tree.is_empty(), tree.last()));
            }
            let other = BTreeSet::from([1, 3, 5]);
            let few_other: Few<u8> = other.iter().copied().collect();
            prop_assert!(few.difference(&few_other).eq(tree.difference(&other)));
            prop_assert!((0..12).all(|element| few.contains(&element) == tree.contains(&element)));
        }

        #[test]
        fn a_map_is_as_a_tree_would_be(pairs in prop::collection::vec((0_u8..12, any::<u8>()), 0..40)) {
            let tree: BTreeMap<u8, u8> = pairs.iter().copied().collect();
            let few: FewMap<u8, u8> = pairs.into_iter().collect();
            prop_assert!(few.iter().eq(&tree) && few.keys().eq(tree.keys()));
            prop_assert!((0..12).all(|key| few.get(&key) == tree.get(&key)));
            prop_assert_eq!((few.len(), few.is_empty()), (tree.len(), tree.is_empty()));
        }
    }
}
