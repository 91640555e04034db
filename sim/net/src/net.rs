//! Links, addresses and routes: where a packet goes, and from which address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use crate::Mac;
use crate::ip;

/// How long a path MTU that somebody told of is believed: what Linux takes.
const PATH_MTU_LIFE: Duration = Duration::from_secs(600);
/// What every link takes (RFC 791): a header with all options, and something behind it.
const LEAST_MTU: u32 = 68;
/// Path MTUs that are remembered.
const MOST_PATH_MTUS: usize = 256;

/// A device of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number; routes name it.
    pub ifindex: u32,
    /// Its address.
    pub mac: Mac,
    /// Most bytes of an IP packet.
    pub mtu: u32,
    /// How it finds its neighbours.
    pub kind: LinkKind,
    /// Addresses with their prefixes; a prefix shorter than the address is a route to the link.
    pub addresses: Vec<IpNet>,
}

/// What a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Ethernet: neighbours are asked for by ARP and neighbour discovery.
    Underlay,
    /// A VXLAN device that takes remote and VNI from each packet. No neighbours.
    Overlay,
    /// A device without ARP (`IFF_NOARP`): frames go to the device's own address, as in Linux.
    Host,
    /// The node's end of a pod's link: known neighbours, and those are not asked for; others are.
    Pod {
        /// The neighbours that are known.
        neighbours: Vec<(IpAddr, Mac)>,
    },
}

/// A route as a stack sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub dst: IpNet,
    /// The next hop; it need not be on the link by any prefix. Nothing: the destination itself.
    pub gateway: Option<IpAddr>,
    /// The link.
    pub ifindex: u32,
    /// Most bytes of an IP packet on this way, if less than the link takes.
    pub mtu: Option<u32>,
    /// The address that the stack's own packets come from.
    pub source: Option<IpAddr>,
}

/// The next step of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) ifindex: u32,
    pub(crate) next: IpAddr,
    pub(crate) mtu: u32,
    source: Option<IpAddr>,
}

/// Routes by prefix, longest first.
#[derive(Default)]
struct Table {
    lengths: BTreeMap<u8, BTreeMap<IpAddr, Route>>,
}

impl Table {
    /// Of two routes with one prefix the first counts.
    fn insert(&mut self, route: Route) {
        let of_length = self.lengths.entry(route.dst.prefix_len()).or_default();
        of_length.entry(route.dst.network()).or_insert(route);
    }

    fn lookup(&self, to: IpAddr) -> Option<&Route> {
        self.lengths.iter().rev().find_map(|(length, routes)| {
            let network = IpNet::new(to, *length).ok()?.network();
            routes.get(&network)
        })
    }
}

/// Everything that routing looks at.
#[derive(Default)]
pub(crate) struct Net {
    pub(crate) links: BTreeMap<u32, Link>,
    own: BTreeSet<(IpAddr, u32)>,
    connected: Table,
    given: Table,
    path_mtus: BTreeMap<IpAddr, (u32, Duration)>,
}

impl Net {
    pub(crate) fn set_link(&mut self, link: Link) {
        self.forget_link(link.ifindex);
        for address in &link.addresses {
            self.own.insert((address.addr(), link.ifindex));
        }
        self.own.insert((ip::link_local(link.mac).into(), link.ifindex));
        self.links.insert(link.ifindex, link);
        self.connect();
    }

    pub(crate) fn remove_link(&mut self, ifindex: u32) {
        self.forget_link(ifindex);
        self.connect();
    }

    fn forget_link(&mut self, ifindex: u32) {
        if self.links.remove(&ifindex).is_some() {
            self.own.retain(|(_, of)| *of != ifindex);
        }
    }

    fn connect(&mut self) {
        self.connected = Table::default();
        for link in self.links.values() {
            for address in &link.addresses {
                if address.prefix_len() < address.max_prefix_len() {
                    self.connected.insert(Route {
                        dst: address.trunc(),
                        gateway: None,
                        ifindex: link.ifindex,
                        mtu: None,
                        source: Some(address.addr()),
                    });
                }
            }
        }
    }

    pub(crate) fn set_routes(&mut self, routes: Vec<Route>) {
        self.given = Table::default();
        routes.into_iter().for_each(|route| self.given.insert(route));
    }

    /// The address is one of ours, on whatever link.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.own.range((address, 0)..=(address, u32::MAX)).next().is_some()
    }

    /// The address is one of ours on this link.
    pub(crate) fn is_own_on(&self, address: IpAddr, ifindex: u32) -> bool {
        self.own.contains(&(address, ifindex))
    }

    /// The way to a destination. One of a single link is sought on the link `via`.
    pub(crate) fn route(&self, to: IpAddr, via: Option<u32>) -> Option<Hop> {
        if ip::is_link_local(to) || (to.is_ipv6() && to.is_multicast()) {
            let link = match via {
                Some(ifindex) => self.links.get(&ifindex)?,
                None => self.links.values().next()?,
            };
            return Some(Hop { ifindex: link.ifindex, next: to, mtu: link.mtu.max(LEAST_MTU), source: None });
        }
        let usable = |route: &&Route| self.links.contains_key(&route.ifindex);
        let connected = self.connected.lookup(to).filter(usable);
        let given = self.given.lookup(to).filter(usable);
        let length = |route: Option<&Route>| route.map(|route| route.dst.prefix_len());
        let route = if length(given) > length(connected) { given? } else { connected.or(given)? };
        let link = self.links.get(&route.ifindex)?;
        let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        let mtu = mtu.max(LEAST_MTU);
        Some(Hop { ifindex: route.ifindex, next: route.gateway.unwrap_or(to), mtu, source: route.source })
    }

    /// The address that our own packets to a destination come from.
    pub(crate) fn source(&self, to: IpAddr, via: Option<u32>) -> Option<IpAddr> {
        if self.is_own(to) {
            return Some(to);
        }
        let hop = self.route(to, via)?;
        if let Some(source) = hop.source.filter(|source| self.is_own(*source)) {
            return Some(source);
        }
        self.source_on(hop.ifindex, hop.next, to)
    }

    /// The address of a link that suits a destination best, otherwise one of another link.
    pub(crate) fn source_on(&self, ifindex: u32, next: IpAddr, to: IpAddr) -> Option<IpAddr> {
        let link = self.links.get(&ifindex)?;
        if ip::is_link_local(to) {
            return Some(ip::link_local(link.mac).into());
        }
        let fits =
            |address: &&IpNet| address.addr().is_ipv4() == to.is_ipv4() && !ip::is_link_local(address.addr());
        let near = link.addresses.iter().filter(fits).find(|address| address.contains(&next));
        let here = near.or_else(|| link.addresses.iter().find(fits));
        let elsewhere = || self.links.values().flat_map(|link| &link.addresses).find(fits);
        let last = || to.is_ipv6().then(|| IpAddr::from(ip::link_local(link.mac)));
        here.or_else(elsewhere).map(IpNet::addr).or_else(last)
    }

    /// The most bytes that our own packets to a destination may have.
    pub(crate) fn path_mtu(&self, now: Duration, to: IpAddr, hop: &Hop) -> u32 {
        match self.path_mtus.get(&to) {
            Some((mtu, until)) if *until > now => hop.mtu.min(*mtu),
            _ => hop.mtu,
        }
    }

    /// Somebody says that packets to a destination may not be longer than this. What is below the least of the protocol is not
    /// believed.
    pub(crate) fn learn_path_mtu(&mut self, now: Duration, to: IpAddr, mtu: u32) {
        let least = if to.is_ipv4() { 552 } else { 1280 };
        self.path_mtus.retain(|_, (_, until)| *until > now);
        if self.path_mtus.len() < MOST_PATH_MTUS || self.path_mtus.contains_key(&to) {
            self.path_mtus.insert(to, (mtu.max(least), now + PATH_MTU_LIFE));
        }
    }

    /// The destination is everybody of a subnet of ours.
    pub(crate) fn is_broadcast(&self, to: IpAddr) -> bool {
        let IpAddr::V4(to) = to else {
            return false;
        };
        let of = |address: &IpNet| match address {
            IpNet::V4(net) => net.prefix_len() < 31 && net.broadcast() == to,
            IpNet::V6(_) => false,
        };
        to.is_broadcast() || self.links.values().flat_map(|link| &link.addresses).any(of)
    }
}

/// The group in which the owner of an address is asked for (RFC 4291 section 2.7.1).
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xFF, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xFF, a, b, c])
}

/// The link layer address of a group (RFC 2464 section 7, RFC 1112 section 6.4).
pub(crate) fn group_mac(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(group) if group.is_broadcast() => crate::frame::BROADCAST,
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            [0x01, 0, 0x5E, b & 0x7F, c, d]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn net() -> Net {
        let mut net = Net::default();
        let link = |ifindex, addresses: &[&str], mtu| Link {
            ifindex,
            mac: [2, 0, 0, 0, 0, u8::try_from(ifindex).unwrap()],
            mtu,
            kind: LinkKind::Underlay,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        net.set_link(link(1, &["192.168.0.1/24", "fd00::1/64"], 1500));
        net.set_link(link(2, &["10.0.0.1/32"], 1450));
        net.set_link(link(3, &[], 9000));
        let route = |dst: &str, gateway: Option<&str>, ifindex, mtu, source: Option<&str>| Route {
            dst: dst.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            ifindex,
            mtu,
            source: source.map(|source| source.parse().unwrap()),
        };
        net.set_routes(vec![
            route("0.0.0.0/0", Some("192.168.0.254"), 1, None, None),
            route("10.0.0.0/8", Some("192.168.0.2"), 1, Some(1400), Some("10.0.0.1")),
            route("10.0.0.5/32", None, 3, None, None),
            route("10.9.0.0/16", None, 7, None, None),
            // A connected route of the same prefix comes first.
            route("192.168.0.0/24", Some("192.168.0.254"), 1, None, None),
        ]);
        net
    }

    #[rstest]
    #[case::connected("192.168.0.9", Some((1, "192.168.0.9", 1500)), Some("192.168.0.1"))]
    #[case::default("8.8.8.8", Some((1, "192.168.0.254", 1500)), Some("192.168.0.1"))]
    #[case::with_mtu_and_source("10.1.1.1", Some((1, "192.168.0.2", 1400)), Some("10.0.0.1"))]
    #[case::longest_and_an_address_of_another_link("10.0.0.5", Some((3, "10.0.0.5", 9000)), Some("192.168.0.1"))]
    #[case::no_such_way("fd01::1", None, None)]
    #[case::link_local("fe80::9", Some((1, "fe80::9", 1500)), Some("fe80::ff:fe00:1"))]
    fn ways(#[case] to: &str, #[case] hop: Option<(u32, &str, u32)>, #[case] source: Option<&str>) {
        let net = net();
        let to = to.parse().unwrap();
        let found = net.route(to, None).map(|hop| (hop.ifindex, hop.next, hop.mtu));
        assert_eq!(found, hop.map(|(ifindex, next, mtu)| (ifindex, next.parse().unwrap(), mtu)));
        assert_eq!(net.source(to, None), source.map(|source| source.parse().unwrap()));
    }

    #[test]
    fn a_removed_link_takes_its_addresses_and_ways_along() {
        let mut net = net();
        net.remove_link(1);
        assert_eq!(net.route("8.8.8.8".parse().unwrap(), None), None);
        assert!(!net.is_own("192.168.0.1".parse().unwrap()));
        assert!(net.is_own("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn no_link_is_so_narrow_that_nothing_passes() {
        let mut net = net();
        let mut link = net.links[&2].clone();
        (link.mtu, link.addresses) = (0, vec!["172.16.0.1/24".parse().unwrap()]);
        net.set_link(link);
        assert_eq!(net.route("172.16.0.2".parse().unwrap(), None).unwrap().mtu, 68);
    }

    #[test]
    fn a_path_mtu_is_believed_for_a_while() {
        let mut net = net();
        let to: IpAddr = "8.8.8.8".parse().unwrap();
        let hop = net.route(to, None).unwrap();
        net.learn_path_mtu(Duration::ZERO, to, 1300);
        assert_eq!(net.path_mtu(Duration::from_secs(599), to, &hop), 1300);
        assert_eq!(net.path_mtu(Duration::from_secs(600), to, &hop), 1500);
    }
}
