//! In which order rows are forgotten: the kernel's way (`kernel/bpf/bpf_lru_list.c`), for one busy CPU.
//!
//! What matters of it to others:
//!
//! - A CPU does not take places one by one. When it has none left it takes a batch from the whole table; what the table
//!   lacks for a batch is made up by forgetting rows. So rows go several at a time, and already before the table is full
//!   when its size is no multiple of the batch.
//! - How many a batch are, is in [`Batches`].
//! - Rows that came since the last batch wait in a list of their CPU. With the next batch those that were used meanwhile
//!   become active, the others inactive. Inactive rows that are used become active; as long as there are more active than
//!   inactive ones, active rows that are not used become inactive. Each step looks at 128 rows at most.
//! - The oldest inactive rows that were not used go first. If there are none among those looked at, the oldest goes, used
//!   or not.
//!
//! Rows are known by slot numbers; what is in the slots is the table's affair. Nothing here grows beyond the number of rows.

/// Most places in a batch, and most rows that one step looks at (`LOCAL_FREE_TARGET`, `LOCAL_NR_SCANS`).
const BATCH: usize = 128;

/// How many places are taken at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Batches {
    /// 128, but at most half of a CPU's share of the table: Linux 6.17 and older kernels that have taken over its change.
    OfShare {
        /// CPUs that the machine may have; zero is taken for one.
        cpus: usize,
    },
    /// 128 always: older kernels. A table that is not larger forgets everything when it is full.
    Whole,
}

impl Batches {
    fn of(self, capacity: usize) -> usize {
        match self {
            Self::OfShare { cpus } => (capacity / cpus.max(1) / 2).clamp(1, BATCH),
            Self::Whole => BATCH,
        }
    }
}

/// No slot: the end of a list.
const NONE: u32 = u32::MAX;

/// The lists a row can be in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum List {
    Pending,
    Inactive,
    Active,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    newer: u32,
    older: u32,
    list: List,
    used: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    newest: u32,
    oldest: u32,
    len: usize,
}

/// The order of the rows of one table, and its free places.
#[derive(Debug)]
pub(super) struct Order {
    links: Vec<Link>,
    /// By [`List`].
    ends: [Ends; 3],
    /// Slots of rows that are gone, to be taken again.
    vacant: Vec<u32>,
    /// The inactive row at which the next search for used ones begins; [`NONE`]: at the oldest.
    hand: u32,
    /// Free places that the CPU has taken.
    own: usize,
    /// Free places that nobody has taken.
    shared: usize,
    capacity: usize,
    batches: Batches,
}

impl Order {
    pub(super) const fn new(capacity: usize, batches: Batches) -> Self {
        Self {
            links: Vec::new(),
            ends: [Ends { newest: NONE, oldest: NONE, len: 0 }; 3],
            vacant: Vec::new(),
            hand: NONE,
            own: 0,
            shared: capacity,
            capacity,
            batches,
        }
    }

    /// Changes the number of places. Rows beyond it stay.
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.own = 0;
        self.shared = capacity.saturating_sub(self.len());
    }

    fn len(&self) -> usize {
        self.ends.iter().map(|ends| ends.len).sum()
    }

    /// A slot for a new row. `forget` is told the rows that make room. `None`: there is no place at all.
    pub(super) fn take(&mut self, mut forget: impl FnMut(u32)) -> Option<u32> {
        if self.capacity == 0 {
            return None;
        }
        while self.own == 0 {
            if self.refill(&mut forget) == 0 {
                return None;
            }
        }
        self.own -= 1;
        let link = Link { newer: NONE, older: NONE, list: List::Pending, used: false };
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.links.len()).ok().filter(|slot| *slot != NONE)?;
                self.links.push(link);
                slot
            }
        };
        self.push(slot, List::Pending);
        Some(slot)
    }

    /// The row is used.
    pub(super) fn touch(&mut self, slot: u32) {
        self.link_mut(slot).used = true;
    }

    /// The row is gone.
    pub(super) fn release(&mut self, slot: u32) {
        let list = self.unlink(slot);
        self.vacant.push(slot);
        if self.own + self.shared + self.len() < self.capacity {
            // A row that came since the last batch gives its place back to its CPU.
            *(if list == List::Pending { &mut self.own } else { &mut self.shared }) += 1;
        }
    }

    /// Takes a batch. Returns how many places and rows it moved: zero if there is nothing left.
    fn refill(&mut self, forget: &mut impl FnMut(u32)) -> usize {
        self.settle();
        if self.ends(List::Inactive).len < self.ends(List::Active).len {
            self.age();
        }
        self.revive();
        let batch = self.batches.of(self.capacity);
        let free = self.shared.min(batch);
        self.shared -= free;
        self.own += free;
        if free == batch { free } else { free + self.shrink(batch - free, forget) }
    }

    /// Rows that came since the last batch become active or inactive.
    fn settle(&mut self) {
        while let Some(slot) = self.oldest(List::Pending) {
            let list = if self.link(slot).used { List::Active } else { List::Inactive };
            self.shift(slot, list);
        }
    }

    /// Active rows that were not used become inactive, the oldest first.
    fn age(&mut self) {
        for _ in 0..BATCH.min(self.ends(List::Active).len) {
            let Some(slot) = self.oldest(List::Active) else { return };
            let list = if self.link(slot).used { List::Active } else { List::Inactive };
            self.shift(slot, list);
        }
    }

    /// Inactive rows that were used become active, from where the last search ended.
    fn revive(&mut self) {
        let mut at = self.hand;
        for _ in 0..BATCH.min(self.ends(List::Inactive).len) {
            let slot = if at == NONE { self.ends(List::Inactive).oldest } else { at };
            at = self.link(slot).newer;
            if self.link(slot).used {
                self.shift(slot, List::Active);
            }
        }
        self.hand = at;
    }

    /// Forgets rows until `wanted` places are free, or as many as one step finds.
    fn shrink(&mut self, wanted: usize, forget: &mut impl FnMut(u32)) -> usize {
        let mut found = 0;
        let mut at = self.ends(List::Inactive).oldest;
        for _ in 0..BATCH {
            if at == NONE || found == wanted {
                break;
            }
            let slot = at;
            at = self.link(slot).newer;
            if self.link(slot).used {
                self.shift(slot, List::Active);
            } else {
                self.evict(slot, forget);
                found += 1;
            }
        }
        if found == 0
            && let Some(slot) = self.oldest(List::Inactive).or_else(|| self.oldest(List::Active))
        {
            self.evict(slot, forget);
            found = 1;
        }
        found
    }

    fn evict(&mut self, slot: u32, forget: &mut impl FnMut(u32)) {
        self.unlink(slot);
        self.vacant.push(slot);
        if self.own + self.shared + self.len() < self.capacity {
            self.own += 1;
        }
        forget(slot);
    }

    /// Moves a row to the new end of a list; it has to be used again to count as used.
    fn shift(&mut self, slot: u32, list: List) {
        self.unlink(slot);
        self.push(slot, list);
    }

    fn push(&mut self, slot: u32, list: List) {
        let ends = &mut self.ends[list as usize];
        let older = std::mem::replace(&mut ends.newest, slot);
        ends.len += 1;
        if older == NONE {
            ends.oldest = slot;
        } else {
            self.link_mut(older).newer = slot;
        }
        *self.link_mut(slot) = Link { newer: NONE, older, list, used: false };
    }

    fn unlink(&mut self, slot: u32) -> List {
        let Link { newer, older, list, .. } = *self.link(slot);
        if self.hand == slot {
            self.hand = newer;
        }
        let ends = &mut self.ends[list as usize];
        ends.len -= 1;
        if newer == NONE {
            ends.newest = older;
        }
        if older == NONE {
            ends.oldest = newer;
        }
        if newer != NONE {
            self.link_mut(newer).older = older;
        }
        if older != NONE {
            self.link_mut(older).newer = newer;
        }
        list
    }

    fn oldest(&self, list: List) -> Option<u32> {
        Some(self.ends(list).oldest).filter(|slot| *slot != NONE)
    }

    const fn ends(&self, list: List) -> &Ends {
        &self.ends[list as usize]
    }

    fn link(&self, slot: u32) -> &Link {
        &self.links[slot as usize]
    }

    fn link_mut(&mut self, slot: u32) -> &mut Link {
        &mut self.links[slot as usize]
    }
}
