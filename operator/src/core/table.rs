//! Objects of one kind by namespace and name, through lists and watches.

use std::collections::{BTreeMap, BTreeSet};

/// Namespace and name.
pub(super) type Place = (String, String);

/// What is known of the completeness of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Listing {
    /// No complete list has been seen.
    #[default]
    Never,
    /// A complete list has been seen, and a new one is under way: objects may be missing.
    Again,
    /// Everything that exists is in the table, as far as the watch has told.
    Complete,
}

/// What an upsert did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change<T> {
    New,
    Replaced(T),
}

#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    rows: BTreeMap<Place, T>,
    listing: Listing,
    /// Objects of the list that is under way.
    listed: Option<BTreeSet<Place>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), listing: Listing::Never, listed: None }
    }
}

impl<T> Table<T> {
    pub(super) const fn listing(&self) -> Listing {
        self.listing
    }

    pub(super) const fn rows(&self) -> &BTreeMap<Place, T> {
        &self.rows
    }

    pub(super) fn get_mut(&mut self, place: &Place) -> Option<&mut T> {
        self.rows.get_mut(place)
    }

    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = (&Place, &mut T)> {
        self.rows.iter_mut()
    }

    /// What has been seen stays, but does not count as complete before a list that begins later.
    pub(super) fn doubt(&mut self) {
        self.listing = Listing::Never;
        self.listed = None;
    }

    pub(super) fn start(&mut self) {
        self.listed = Some(BTreeSet::new());
        if self.listing == Listing::Complete {
            self.listing = Listing::Again;
        }
    }

    pub(super) fn upsert(&mut self, place: Place, row: T) -> Change<T> {
        if let Some(listed) = &mut self.listed {
            listed.insert(place.clone());
        }
        self.rows.insert(place, row).map_or(Change::New, Change::Replaced)
    }

    pub(super) fn delete(&mut self, place: &Place) -> Option<T> {
        if let Some(listed) = &mut self.listed {
            listed.remove(place);
        }
        self.rows.remove(place)
    }

    /// The list is complete: what it did not have is removed and returned. Without a beginning it is none.
    pub(super) fn sync(&mut self) -> Vec<T> {
        let Some(listed) = self.listed.take() else { return Vec::new() };
        self.listing = Listing::Complete;
        self.rows.extract_if(.., |place, _| !listed.contains(place)).map(|(_, row)| row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> Place {
        (String::new(), name.to_owned())
    }

    #[test]
    fn only_a_complete_list_removes() {
        let mut table = Table::default();
        table.start();
        table.upsert(place("a"), 1);
        table.upsert(place("b"), 2);
        assert_eq!(table.listing(), Listing::Never);
        assert_eq!(table.sync(), Vec::<i32>::new());
        assert_eq!(table.listing(), Listing::Complete);
        table.start();
        table.upsert(place("b"), 3);
        assert_eq!(table.listing(), Listing::Again);
        table.start();
        assert_eq!(table.rows().len(), 2, "a list that was cut short removes nothing");
        table.upsert(place("a"), 1);
        assert_eq!(table.sync(), [3]);
        assert_eq!(table.sync(), Vec::<i32>::new(), "an end without a beginning is none");
    }

    #[test]
    fn doubt_lasts_until_a_list_that_begins_later() {
        let mut table = Table::default();
        table.start();
        table.upsert(place("a"), 1);
        table.doubt();
        assert_eq!(table.sync(), Vec::<i32>::new());
        assert_eq!(table.listing(), Listing::Never);
    }
}
