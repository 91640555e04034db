//! Addresses for pods, from the pod CIDRs of the own node.
//!
//! - Of each CIDR the network address, the first address (the router's) and, for IPv4, the broadcast address are never given out;
//!   nor is any address of the node itself.
//! - Addresses are given out in rising order and round robin, so that a released one comes back as late as possible.
//! - A released address is kept back for the quarantine, without exception: a pod that gets the address of one that has just gone
//!   receives that one's packets. When nothing else is left the answer is "try again later", which the kubelet does.
//! - An address belongs to an owner; only its owner can release it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::time::Now;

/// Who has an address: the id of an endpoint.
pub(crate) type Owner = u16;

/// No address of the family is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted {
    /// IPv4 or IPv6.
    pub(crate) v4: bool,
    /// Addresses in use.
    pub(crate) used: usize,
    /// Addresses in quarantine.
    pub(crate) quarantined: usize,
    /// When the first of those is free again.
    pub(crate) free_at: Option<Now>,
}

/// What outlives a restart, beside the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct IpamRecord {
    /// Last address given out of each CIDR.
    pub(crate) last: BTreeMap<IpNet, IpAddr>,
    /// Released addresses and when they were released.
    pub(crate) quarantine: BTreeMap<IpAddr, Now>,
}

/// The addresses of this node.
#[derive(Debug)]
pub(crate) struct Ipam {
    quarantine_for: Duration,
    pools: Vec<IpNet>,
    /// Addresses of the node itself: its own, and routers that pods still have in their routes.
    reserved: BTreeSet<IpAddr>,
    used: BTreeMap<IpAddr, Owner>,
    record: IpamRecord,
}

impl Ipam {
    pub(crate) fn new(quarantine_for: Duration, record: IpamRecord) -> Self {
        Self { quarantine_for, pools: Vec::new(), reserved: BTreeSet::new(), used: BTreeMap::new(), record }
    }

    /// These are the pod CIDRs now, and these addresses belong to the node. Addresses of other CIDRs stay with their owners until they are released.
    pub(crate) fn set_pools(&mut self, pools: Vec<IpNet>, reserved: BTreeSet<IpAddr>) {
        self.record.last.retain(|pool, _| pools.contains(pool));
        self.pools = pools;
        self.reserved = reserved;
    }

    /// An address of the family for `owner`.
    pub(crate) fn allocate(&mut self, now: Now, v4: bool, owner: Owner) -> Result<IpAddr, Exhausted> {
        self.end_quarantines(now);
        let pools: Vec<IpNet> =
            self.pools.iter().copied().filter(|pool| pool.addr().is_ipv4() == v4).collect();
        for pool in pools {
            if let Some(address) = self.next_free(pool) {
                self.record.last.insert(pool, address);
                self.used.insert(address, owner);
                return Ok(address);
            }
        }
        let of_family = |address: &&IpAddr| address.is_ipv4() == v4;
        Err(Exhausted {
            v4,
            used: self.used.keys().filter(of_family).count(),
            quarantined: self.record.quarantine.keys().filter(of_family).count(),
            free_at: self
                .record
                .quarantine
                .iter()
                .filter(|(a, _)| a.is_ipv4() == v4)
                .map(|(_, at)| at.plus(self.quarantine_for))
                .min(),
        })
    }

    /// Notes that `owner` has `address`, from a restored endpoint. False if someone else has it.
    #[must_use]
    pub(crate) fn restore(&mut self, address: IpAddr, owner: Owner) -> bool {
        if self.used.get(&address).is_some_and(|holder| *holder != owner) {
            return false;
        }
        self.record.quarantine.remove(&address);
        self.used.insert(address, owner);
        true
    }

    /// Takes `address` from `owner` and puts it into quarantine. If someone else has it, nothing happens.
    pub(crate) fn release(&mut self, now: Now, address: IpAddr, owner: Owner) {
        if self.used.get(&address) == Some(&owner) {
            self.used.remove(&address);
            self.record.quarantine.insert(address, now);
        }
    }

    /// Takes back an address that no packet has ever had: no quarantine.
    pub(crate) fn give_back(&mut self, address: IpAddr, owner: Owner) {
        if self.used.get(&address) == Some(&owner) {
            self.used.remove(&address);
        }
    }

    /// Who has the address.
    pub(crate) fn owner(&self, address: &IpAddr) -> Option<Owner> {
        self.used.get(address).copied()
    }

    /// All addresses in use.
    pub(crate) fn used(&self) -> impl Iterator<Item = (&IpAddr, Owner)> {
        self.used.iter().map(|(address, owner)| (address, *owner))
    }

    /// What is to be kept in the state directory.
    pub(crate) fn record(&self) -> &IpamRecord {
        &self.record
    }

    /// Forgets quarantines that are over.
    pub(crate) fn end_quarantines(&mut self, now: Now) {
        let quarantine_for = self.quarantine_for;
        self.record.quarantine.retain(|_, released| {
            // A time in the future is from before a reboot: the quarantine begins now.
            *released = (*released).min(now);
            now.since(*released) < quarantine_for
        });
    }

    /// Capacity, used, quarantined of one pool.
    pub(crate) fn usage(&self, now: Now, pool: &IpNet) -> (u64, u64, u64) {
        let within = |address: &&IpAddr| pool.contains(*address);
        let quarantined = self
            .record
            .quarantine
            .iter()
            .filter(|(address, released)| {
                pool.contains(*address) && now.since(**released) < self.quarantine_for
            })
            .count();
        (capacity(pool), self.used.keys().filter(within).count() as u64, quarantined as u64)
    }

    fn next_free(&self, pool: IpNet) -> Option<IpAddr> {
        let (first, last) = usable(&pool)?;
        let start = match self.record.last.get(&pool) {
            Some(address) if pool.contains(address) => {
                number(*address).checked_add(1).filter(|n| *n <= last).unwrap_or(first)
            }
            _ => first,
        };
        let v4 = pool.addr().is_ipv4();
        let free = |n: &u128| {
            let address = address(*n, v4);
            !self.used.contains_key(&address)
                && !self.record.quarantine.contains_key(&address)
                && !self.reserved.contains(&address)
        };
        (start..=last).find(free).or_else(|| (first..start).find(free)).map(|n| address(n, v4))
    }
}

/// The router's address in a pool: the first after the network address. `None` if the pool is too small for pods.
pub(crate) fn router_of(pool: &IpNet) -> Option<IpAddr> {
    let (first, _) = usable(pool)?;
    Some(address(first - 1, pool.addr().is_ipv4()))
}

/// Addresses of the pool that pods may have.
pub(crate) fn capacity(pool: &IpNet) -> u64 {
    usable(pool).map_or(0, |(first, last)| u64::try_from(last - first + 1).unwrap_or(u64::MAX))
}

/// First and last address that pods may have, as numbers.
fn usable(pool: &IpNet) -> Option<(u128, u128)> {
    let first = number(pool.network()).checked_add(2)?;
    let top = number(pool.broadcast());
    let last = if pool.addr().is_ipv4() { top.checked_sub(1)? } else { top };
    (first <= last).then_some((first, last))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(number).expect("a number between two IPv4 addresses is one")))
    } else {
        IpAddr::V6(Ipv6Addr::from(number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUARANTINE: Duration = Duration::from_secs(30);

    fn ipam(pools: &[&str]) -> Ipam {
        let mut ipam = Ipam::new(QUARANTINE, IpamRecord::default());
        ipam.set_pools(pools.iter().map(|pool| pool.parse().unwrap()).collect(), BTreeSet::new());
        ipam
    }

    #[test]
    fn bounds_of_pools() {
        for (pool, router, first, count) in [
            ("10.0.1.0/24", "10.0.1.1", "10.0.1.2", 253),
            ("10.0.1.4/30", "10.0.1.5", "10.0.1.6", 1),
            ("fd00::/126", "fd00::1", "fd00::2", 2),
            ("fd00::/112", "fd00::1", "fd00::2", 65534),
            ("fd00::/64", "fd00::1", "fd00::2", u64::MAX - 1),
        ] {
            let net: IpNet = pool.parse().unwrap();
            assert_eq!(router_of(&net), Some(router.parse().unwrap()), "{pool}");
            assert_eq!(capacity(&net), count, "{pool}");
            assert_eq!(
                ipam(&[pool]).allocate(Now::default(), net.addr().is_ipv4(), 1),
                Ok(first.parse().unwrap()),
                "{pool}"
            );
        }
        for pool in ["10.0.1.0/31", "10.0.1.0/32", "fd00::/127", "fd00::/128"] {
            let net: IpNet = pool.parse().unwrap();
            assert_eq!((router_of(&net), capacity(&net)), (None, 0), "{pool}");
        }
    }

    #[test]
    fn every_address_once_then_exhausted_then_quarantine_ends() {
        let mut ipam = ipam(&["10.0.1.0/29", "10.0.2.0/30"]);
        let now = Now::from_secs(1000);
        let given: Vec<String> =
            (1..=6).map(|owner| ipam.allocate(now, true, owner).unwrap().to_string()).collect();
        assert_eq!(given, ["10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5", "10.0.1.6", "10.0.2.2"]);
        let full = ipam.allocate(now, true, 7).unwrap_err();
        assert_eq!((full.used, full.quarantined, full.free_at), (6, 0, None));
        ipam.release(now, "10.0.1.4".parse().unwrap(), 3);
        let full = ipam.allocate(now, true, 7).unwrap_err();
        assert_eq!((full.used, full.quarantined, full.free_at), (5, 1, Some(now.plus(QUARANTINE))));
        assert_eq!(ipam.allocate(now.plus(QUARANTINE), true, 7), Ok("10.0.1.4".parse().unwrap()));
    }

    #[test]
    fn reuse_comes_late_even_after_the_quarantine() {
        let mut ipam = ipam(&["10.0.1.0/24"]);
        let first = ipam.allocate(Now::from_secs(1), true, 1).unwrap();
        ipam.release(Now::from_secs(2), first, 1);
        let second = ipam.allocate(Now::from_secs(9999), true, 1).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn only_the_owner_releases() {
        let mut ipam = ipam(&["10.0.1.0/24"]);
        let address = ipam.allocate(Now::default(), true, 1).unwrap();
        ipam.release(Now::default(), address, 2);
        assert_eq!(ipam.owner(&address), Some(1));
    }

    #[test]
    fn a_quarantine_from_before_a_reboot_begins_anew() {
        let released = Now::from_secs(1_000_000);
        let address = "10.0.1.2".parse().unwrap();
        let record = IpamRecord { last: BTreeMap::new(), quarantine: BTreeMap::from([(address, released)]) };
        let mut ipam = Ipam::new(QUARANTINE, record);
        ipam.set_pools(vec!["10.0.1.0/30".parse().unwrap()], BTreeSet::new());
        let now = Now::from_secs(5);
        assert!(ipam.allocate(now, true, 1).is_err());
        assert_eq!(ipam.allocate(now.plus(QUARANTINE), true, 1), Ok(address));
    }

    proptest! {
        /// An address has at most one owner, is never given out within its quarantine, and at the end nothing is left.
        #[test]
        fn one_owner_and_no_early_reuse(steps in prop::collection::vec((any::<bool>(), any::<bool>(), 1_u16..40, 0_u64..20), 1..300)) {
            let mut ipam = ipam(&["10.0.1.0/28", "fd00::/125", "10.0.2.0/29"]);
            let mut now = Now::from_secs(100);
            let mut held: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
            let mut released: BTreeMap<IpAddr, Now> = BTreeMap::new();
            for (add, v4, owner, pause) in steps {
                now = now.plus(Duration::from_secs(pause));
                if add {
                    if let Ok(address) = ipam.allocate(now, v4, owner) {
                        prop_assert!(!held.values().flatten().any(|other| *other == address));
                        if let Some(at) = released.get(&address) {
                            prop_assert!(now.since(*at) >= QUARANTINE);
                        }
                        held.entry(owner).or_default().push(address);
                    }
                } else {
                    for address in held.remove(&owner).unwrap_or_default() {
                        ipam.release(now, address, owner);
                        ipam.release(now, address, owner);
                        released.insert(address, now);
                    }
                }
            }
            for (owner, addresses) in held {
                for address in addresses {
                    ipam.release(now, address, owner);
                }
            }
            prop_assert_eq!(ipam.used().count(), 0);
            ipam.end_quarantines(now.plus(QUARANTINE));
            prop_assert!(ipam.record().quarantine.is_empty());
        }
    }
}
