//! The port sets, sets of blocks and cookies that rows point to, counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::decide::Decision;
use crate::numbers::{Digest, Hash, Numbers};
use crate::rows::{Blocks, L4Prefix, L4Set, Outcome, Row, Staged, Verdict};
use crate::rule::{ObjectRef, Origin};

/// The origins of a decision, sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origins(pub(crate) Vec<Origin>);

/// Cookies, and what they stand for now; `None`: nothing any more, and no table holds them.
pub type CookieChanges = BTreeMap<u32, Option<Vec<Origin>>>;

/// Sets, blocks and cookies. A set holds the cookies of its verdicts, blocks hold what their rows point to.
pub(crate) struct Tables {
    pub(crate) blocks: Numbers<Blocks>,
    pub(crate) sets: Numbers<L4Set>,
    pub(crate) cookies: Numbers<Origins>,
    /// What has become of cookies since somebody asked; `None`: nobody wants to know.
    followed: Option<CookieChanges>,
}

/// Holds what a compilation makes until rows hold it.
#[derive(Default)]
pub(crate) struct Scratch {
    blocks: Vec<u32>,
    sets: Vec<u32>,
    cookies: Vec<u32>,
}

/// What nothing points to any more.
pub(crate) struct Removed {
    pub(crate) blocks: Vec<(u32, Arc<Blocks>)>,
    pub(crate) sets: Vec<(u32, Arc<L4Set>)>,
}

impl Tables {
    pub(crate) fn new() -> Self {
        Self {
            blocks: Numbers::new(1..=u32::MAX),
            sets: Numbers::new(1..=u32::MAX),
            cookies: Numbers::new(1..=u32::MAX),
            followed: None,
        }
    }

    /// From now on what becomes of cookies is noted, beginning with all that tables may hold now; or not any more.
    pub(crate) fn follow_cookies(&mut self, follow: bool) {
        let all = || self.cookies.late().chain(self.cookies.iter());
        self.followed =
            follow.then(|| all().map(|(number, origins)| (number, Some(origins.0.clone()))).collect());
    }

    /// What was noted since the last time.
    pub(crate) fn take_cookies(&mut self) -> CookieChanges {
        self.followed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The number that stands for origins; 0 for none.
    pub(crate) fn cookie(&mut self, origins: Vec<Origin>, scratch: &mut Scratch) -> u32 {
        if origins.is_empty() {
            return 0;
        }
        let cookie = self.cookies.acquire(Origins(origins));
        scratch.cookies.push(cookie);
        cookie
    }

    /// The row for a decision.
    pub(crate) fn row(&mut self, decision: Decision, scratch: &mut Scratch) -> Row {
        match decision {
            Decision::All(verdict) => Row::All(verdict),
            Decision::Set(set) => Row::Set(self.set(set, scratch)),
        }
    }

    fn set(&mut self, set: L4Set, scratch: &mut Scratch) -> u32 {
        if !self.sets.has(&set) {
            for (_, verdict) in &set.0 {
                self.each_cookie(verdict, Numbers::retain);
            }
        }
        let number = self.sets.acquire(set);
        scratch.sets.push(number);
        number
    }

    /// The row for a decision that for pods depends on their addresses.
    pub(crate) fn row_with_blocks(
        &mut self,
        decision: Decision,
        blocks: Vec<(IpNet, Row)>,
        scratch: &mut Scratch,
    ) -> Row {
        let set = match decision {
            Decision::All(verdict) => L4Set(vec![(L4Prefix::ANY, verdict)]),
            Decision::Set(set) => set,
        };
        let set = self.set(set, scratch);
        let blocks = Blocks(blocks);
        if !self.blocks.has(&blocks) {
            for (_, row) in &blocks.0 {
                self.retain(*row);
            }
        }
        let blocks = self.blocks.acquire(blocks);
        scratch.blocks.push(blocks);
        Row::Blocks { set, blocks }
    }

    /// A row holds what it points to.
    pub(crate) fn retain(&mut self, row: Row) {
        match row {
            Row::All(verdict) => self.each_cookie(&verdict, Numbers::retain),
            Row::Set(set) => self.sets.retain(set),
            Row::Blocks { set, blocks } => {
                self.sets.retain(set);
                self.blocks.retain(blocks);
            }
        }
    }

    /// A row is gone.
    pub(crate) fn release(&mut self, row: Row) {
        match row {
            Row::All(verdict) => self.each_cookie(&verdict, release),
            Row::Set(set) => release(&mut self.sets, set),
            Row::Blocks { set, blocks } => {
                release(&mut self.sets, set);
                release(&mut self.blocks, blocks);
            }
        }
    }

    /// What the rows hold is held by them alone from here on.
    pub(crate) fn drop_scratch(&mut self, scratch: Scratch) {
        for blocks in scratch.blocks {
            self.blocks.release(blocks);
        }
        for set in scratch.sets {
            self.sets.release(set);
        }
        for cookie in scratch.cookies {
            self.cookies.release(cookie);
        }
    }

    fn each_cookie(&mut self, verdict: &Verdict, mut act: impl FnMut(&mut Numbers<Origins>, u32)) {
        for cookie in [verdict.cookie, verdict.staged_cookie] {
            if cookie != 0 {
                act(&mut self.cookies, cookie);
            }
        }
    }

    /// Drops blocks, sets and cookies that nothing holds. Gives the blocks and sets that had been told of.
    pub(crate) fn sweep(&mut self) -> Removed {
        let blocks = self.blocks.sweep();
        for (_, row) in blocks.dropped.iter().flat_map(|blocks| &blocks.0) {
            self.release(*row);
        }
        let sets = self.sets.sweep();
        for set in &sets.dropped {
            for (_, verdict) in &set.0 {
                self.each_cookie(verdict, release);
            }
        }
        let fresh = self.cookies.publish();
        if let Some(followed) = &mut self.followed {
            followed.extend(fresh.into_iter().map(|(number, origins)| (number, Some(origins.0.clone()))));
        }
        self.cookies.sweep();
        Removed { blocks: blocks.removed, sets: sets.removed }
    }

    /// The dataplane's tables hold nothing any more that was swept.
    pub(crate) fn settle(&mut self) {
        self.blocks.settle();
        self.sets.settle();
        if let Some(followed) = &mut self.followed {
            followed.extend(self.cookies.late().map(|(number, _)| (number, None)));
        }
        self.cookies.settle();
    }
}

fn release<T: Ord + Digest>(numbers: &mut Numbers<T>, number: u32) {
    numbers.release(number);
}

impl Digest for ObjectRef {
    fn digest(&self, hash: &mut Hash) {
        hash.bytes(self.kind.name().as_bytes());
        hash.bytes(self.namespace.as_bytes());
        hash.bytes(self.name.as_bytes());
    }
}

impl Digest for Origins {
    fn digest(&self, hash: &mut Hash) {
        for origin in &self.0 {
            origin.object.digest(hash);
            hash.number(u64::from(origin.spec));
            match origin.entry {
                Some((section, index)) => {
                    hash.bytes(section.name().as_bytes());
                    hash.number(u64::from(index));
                }
                None => hash.bytes(b"isolates"),
            }
        }
    }
}

impl Digest for L4Set {
    fn digest(&self, hash: &mut Hash) {
        for (prefix, verdict) in &self.0 {
            hash.number(prefix.proto.map_or(u64::MAX, u64::from));
            hash.number(u64::from(prefix.bits));
            hash.number(u64::from(prefix.port));
            verdict.digest(hash);
        }
    }
}

impl Digest for Verdict {
    fn digest(&self, hash: &mut Hash) {
        hash.number(match self.outcome {
            Outcome::NoRule => 0,
            Outcome::Allow => 1,
            Outcome::Deny => 2,
            Outcome::Redirect => 4,
        });
        hash.number(match self.staged {
            Staged::Nothing => 0,
            Staged::WouldAllow => 1,
            Staged::WouldDeny => 2,
        });
        hash.number(u64::from(self.cookie));
        hash.number(u64::from(self.staged_cookie));
    }
}

impl Digest for Blocks {
    fn digest(&self, hash: &mut Hash) {
        for (block, row) in &self.0 {
            block.digest(hash);
            match row {
                Row::All(verdict) => verdict.digest(hash),
                Row::Set(set) => hash.number(u64::from(*set)),
                Row::Blocks { set, blocks } => {
                    hash.number(u64::from(*set));
                    hash.number(u64::from(*blocks));
                }
            }
        }
    }
}

impl Digest for IpNet {
    fn digest(&self, hash: &mut Hash) {
        match self {
            IpNet::V4(net) => hash.bytes(&net.addr().octets()),
            IpNet::V6(net) => hash.bytes(&net.addr().octets()),
        }
        hash.number(u64::from(self.prefix_len()));
    }
}
