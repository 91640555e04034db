//! Which node has a pod CIDR or an address that more than one claims.
//!
//! Precedence depends on the nodes alone, never on the order of events: the own node first, then the older Node object, then the name.
//! So the node that had the CIDR first keeps it, before and after a restart of the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Who claims; sorts by precedence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claimant {
    /// Not the own node (the own node sorts first).
    pub(crate) remote: bool,
    /// Creation of the Node object; unknown (0) sorts last.
    created_or_max: u64,
    /// Its name.
    pub(crate) name: String,
}

impl Claimant {
    pub(crate) fn new(remote: bool, created_s: u64, name: impl Into<String>) -> Self {
        Self { remote, created_or_max: if created_s == 0 { u64::MAX } else { created_s }, name: name.into() }
    }

    /// Creation of the Node object, 0 if it is not known.
    pub(crate) fn created_s(&self) -> u64 {
        if self.created_or_max == u64::MAX { 0 } else { self.created_or_max }
    }
}

/// Claims on pod CIDRs. Of CIDRs that overlap, in part or whole, only one claim holds.
#[derive(Debug, Default)]
pub(crate) struct CidrClaims {
    claims: BTreeMap<IpNet, BTreeSet<Claimant>>,
    holders: BTreeMap<IpNet, Claimant>,
}

impl CidrClaims {
    /// Adds or withdraws a claim and returns the CIDRs whose holder changed.
    pub(crate) fn change(&mut self, cidr: IpNet, claimant: &Claimant, add: bool) -> Vec<IpNet> {
        if add {
            self.claims.entry(cidr).or_default().insert(claimant.clone());
        }
        // All that can be touched: what overlaps the CIDR, what overlaps that, and so on.
        let mut component = BTreeSet::from([cidr]);
        let mut look = vec![cidr];
        while let Some(at) = look.pop() {
            for other in self.overlapping(at) {
                if component.insert(other) {
                    look.push(other);
                }
            }
        }
        if !add && let Some(claimants) = self.claims.get_mut(&cidr) {
            claimants.remove(claimant);
            if claimants.is_empty() {
                self.claims.remove(&cidr);
            }
        }
        let mut claims: Vec<(&Claimant, IpNet)> = component
            .iter()
            .filter_map(|cidr| self.claims.get(cidr).map(|claimants| (cidr, claimants)))
            .flat_map(|(cidr, claimants)| claimants.iter().map(|claimant| (claimant, *cidr)))
            .collect();
        claims.sort();
        let mut holders: BTreeMap<IpNet, Claimant> = BTreeMap::new();
        for (claimant, cidr) in claims {
            if !holders.keys().any(|held| overlap(held, &cidr)) {
                holders.insert(cidr, claimant.clone());
            }
        }
        let mut changed = Vec::new();
        for cidr in component {
            let holder = holders.remove(&cidr);
            if self.holders.get(&cidr) != holder.as_ref() {
                changed.push(cidr);
                match holder {
                    Some(holder) => self.holders.insert(cidr, holder),
                    None => self.holders.remove(&cidr),
                };
            }
        }
        changed
    }

    /// Who has the CIDR.
    pub(crate) fn holder(&self, cidr: &IpNet) -> Option<&Claimant> {
        self.holders.get(cidr)
    }

    /// Who has the CIDR that an address is in.
    pub(crate) fn around(&self, address: &IpAddr) -> Option<&Claimant> {
        let above = std::iter::successors(Some(IpNet::from(*address)), IpNet::supernet);
        above.into_iter().find_map(|net| self.holders.get(&net))
    }

    /// Whether a CIDR lies in one that somebody has, or is one.
    pub(crate) fn covers(&self, cidr: &IpNet) -> bool {
        std::iter::successors(Some(*cidr), IpNet::supernet).any(|net| self.holders.contains_key(&net))
    }

    /// Claims that do not hold, with the CIDR that stands against each and its holder.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (IpNet, &Claimant, Option<(IpNet, &Claimant)>)> {
        self.claims.iter().flat_map(move |(cidr, claimants)| {
            claimants.iter().filter(|claimant| self.holders.get(cidr) != Some(claimant)).map(
                move |claimant| {
                    let against = self
                        .overlapping(*cidr)
                        .find_map(|held| self.holders.get(&held).map(|holder| (held, holder)));
                    (*cidr, claimant, against)
                },
            )
        })
    }

    /// Claimed CIDRs that have an address in common with this one, itself among them.
    fn overlapping(&self, cidr: IpNet) -> impl Iterator<Item = IpNet> {
        let above = std::iter::successors(cidr.supernet(), IpNet::supernet)
            .filter(|net| self.claims.contains_key(net));
        let below = self.claims.range(cidr..=last_within(cidr)).map(|(net, _)| *net);
        above.chain(below.filter(move |net| overlap(net, &cidr)))
    }
}

/// The greatest network within `cidr`, in the order of networks.
fn last_within(cidr: IpNet) -> IpNet {
    match cidr {
        IpNet::V4(net) => IpNet::V4(Ipv4Net::from(net.broadcast())),
        IpNet::V6(net) => IpNet::V6(Ipv6Net::from(net.broadcast())),
    }
}

/// Whether two networks have an address in common.
pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Claims on single addresses. All claimants are remembered; the first holds it.
#[derive(Debug, Default)]
pub(crate) struct AddressClaims {
    claims: BTreeMap<IpAddr, BTreeSet<Claimant>>,
}

impl AddressClaims {
    /// Adds or withdraws a claim; whether the holder changed.
    pub(crate) fn change(&mut self, address: IpAddr, claimant: &Claimant, add: bool) -> bool {
        let before = self.holder(&address).cloned();
        if add {
            self.claims.entry(address).or_default().insert(claimant.clone());
        } else if let Some(claimants) = self.claims.get_mut(&address) {
            claimants.remove(claimant);
            if claimants.is_empty() {
                self.claims.remove(&address);
            }
        }
        self.holder(&address) != before.as_ref()
    }

    /// Who has the address.
    pub(crate) fn holder(&self, address: &IpAddr) -> Option<&Claimant> {
        self.claims.get(address).and_then(BTreeSet::first)
    }

    /// Claims that do not hold, with the holder.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (IpAddr, &Claimant, &Claimant)> {
        self.claims.iter().flat_map(|(address, claimants)| {
            claimants.iter().skip(1).filter_map(|claimant| Some((*address, claimant, claimants.first()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_older_node_keeps_an_overlapping_cidr() {
        let (old, young) = (Claimant::new(true, 10, "b"), Claimant::new(true, 20, "a"));
        for order in [
            [(&old, "10.0.0.0/16"), (&young, "10.0.1.0/24")],
            [(&young, "10.0.1.0/24"), (&old, "10.0.0.0/16")],
        ] {
            let mut claims = CidrClaims::default();
            for (who, cidr) in order {
                claims.change(net(cidr), who, true);
            }
            assert_eq!(claims.holder(&net("10.0.0.0/16")), Some(&old));
            assert_eq!(claims.holder(&net("10.0.1.0/24")), None);
            assert_eq!(claims.refused().count(), 1);
            let changed = claims.change(net("10.0.0.0/16"), &old, false);
            assert_eq!(changed, [net("10.0.0.0/16"), net("10.0.1.0/24")]);
            assert_eq!(claims.holder(&net("10.0.1.0/24")), Some(&young));
        }
    }

    #[test]
    fn what_lies_in_a_held_cidr_is_found() {
        let mut claims = CidrClaims::default();
        claims.change(net("10.0.0.0/16"), &Claimant::new(true, 1, "a"), true);
        assert_eq!(claims.around(&"10.0.3.4".parse().unwrap()).map(|held| held.name.as_str()), Some("a"));
        assert_eq!(claims.around(&"10.1.3.4".parse().unwrap()), None);
        assert!(claims.covers(&net("10.0.0.0/16")) && claims.covers(&net("10.0.9.0/24")));
        assert!(!claims.covers(&net("10.0.0.0/8")) && !claims.covers(&net("fd00::/64")));
    }

    #[test]
    fn own_node_first_then_age_then_name() {
        let mut sorted = [
            Claimant::new(true, 0, "unknown-age"),
            Claimant::new(true, 5, "b"),
            Claimant::new(true, 5, "a"),
            Claimant::new(false, 900, "own"),
        ];
        sorted.sort();
        let names: Vec<_> = sorted.iter().map(|claimant| claimant.name.as_str()).collect();
        assert_eq!(names, ["own", "a", "b", "unknown-age"]);
    }

    #[test]
    fn chains_of_overlaps_are_judged_together() {
        let (a, b, c) =
            (Claimant::new(true, 1, "a"), Claimant::new(true, 2, "b"), Claimant::new(true, 3, "c"));
        let mut claims = CidrClaims::default();
        claims.change(net("fd00::/48"), &b, true);
        claims.change(net("fd00:0:0:1::/64"), &c, true);
        assert_eq!(claims.holder(&net("fd00:0:0:1::/64")), None);
        claims.change(net("fd00:0:0:2::/64"), &a, true);
        assert_eq!(claims.holder(&net("fd00::/48")), None, "an older node has a part of it");
        assert_eq!(claims.holder(&net("fd00:0:0:1::/64")), Some(&c), "what stood against it no longer holds");
    }
}
