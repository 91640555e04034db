//! The interface of a pod: a veth pair whose one end is the pod's, with addresses and routes.
//!
//! The pod has its addresses as /32 and /128 and reaches everything by way of the router address, which is no neighbour in any subnet but a
//! route on the link: the dataplane answers for it on the host's end.

mod check;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::Address;
use crate::link::{Link, LinkChange, LinkSpec, LinkSpecKind, VethPeer};
use crate::mac::Mac;
use crate::netlink::{Netlink, NetlinkError};
use crate::netns::{Netns, NetnsError};
use crate::route::Route;
use crate::sysctl::{self, SysctlError};
use crate::{address, route};

pub use check::{CheckError, Difference, check};

/// An interface to be made.
#[derive(Debug, Clone)]
pub struct PodInterfaceSpec<'a> {
    /// Name of the host's end.
    pub host_name: &'a str,
    /// Name of the pod's end.
    pub pod_name: &'a str,
    /// Address of the host's end: the neighbour that the pod sees.
    pub host_mac: Mac,
    /// Address of the pod's end.
    pub pod_mac: Mac,
    /// MTU in bytes of both ends.
    pub mtu: u32,
    /// The pod's addresses, at most one of each family.
    pub addresses: &'a [PodAddress],
}

/// One address of a pod and the router for its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddress {
    /// The pod's address.
    pub ip: IpAddr,
    /// The next hop of its default route; same family.
    pub router: IpAddr,
}

/// An interface that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodInterface {
    /// Index of the host's end, in the node's namespace.
    pub host_index: u32,
    /// Index of the pod's end, in the pod's namespace.
    pub pod_index: u32,
    /// Address of the host's end.
    pub host_mac: Mac,
    /// Address of the pod's end.
    pub pod_mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
}

/// An interface that could not be made. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The pod has an interface of this name already, from an earlier ADD or from somebody else.
    #[error("the pod's network namespace has an interface {pod_name} already")]
    PodNameTaken {
        /// The name.
        pod_name: String,
    },
    /// The node has a link of the host end's name already: a leftover of the same container.
    #[error("the node has a link {host_name} already")]
    HostNameTaken {
        /// The name.
        host_name: String,
    },
    /// The pod's namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A netlink request failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A setting inside the pod could not be made.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// Makes the interface, both ends up, with addresses and routes.
///
/// `host` is a socket in the node's namespace. The host's end gets no addresses at all, not even link-local ones: the node's stack has
/// nothing to say on it.
///
/// # Errors
/// See [`CreateError`]; whatever was made until then is removed again.
pub fn create(
    host: &mut Netlink,
    netns: &Netns,
    spec: &PodInterfaceSpec<'_>,
) -> Result<PodInterface, CreateError> {
    add_pair(host, netns, spec)?;
    let made = finish(host, netns, spec);
    if made.is_err() {
        // Both ends go. What failed first is what the caller should hear of.
        drop(delete(host, spec.host_name, None));
    }
    made
}

fn add_pair(host: &mut Netlink, netns: &Netns, spec: &PodInterfaceSpec<'_>) -> Result<(), CreateError> {
    use std::os::fd::AsFd as _;
    let peer = VethPeer {
        mtu: Some(spec.mtu),
        mac: Some(spec.pod_mac),
        netns: Some(netns.as_fd()),
        ..VethPeer::new(spec.pod_name)
    };
    let pair = LinkSpec {
        mtu: Some(spec.mtu),
        mac: Some(spec.host_mac),
        ..LinkSpec::new(spec.host_name, LinkSpecKind::Veth(peer))
    };
    host.add_link(&pair).map_err(|error| {
        if !error.already_exists() {
            return error.into();
        }
        // The kernel does not say which of the two names it is.
        match host.find_link(spec.host_name) {
            Ok(Some(_)) => CreateError::HostNameTaken { host_name: spec.host_name.into() },
            Ok(None) => CreateError::PodNameTaken { pod_name: spec.pod_name.into() },
            Err(error) => error.into(),
        }
    })
}

fn finish(
    host: &mut Netlink,
    netns: &Netns,
    spec: &PodInterfaceSpec<'_>,
) -> Result<PodInterface, CreateError> {
    let host_end = prepare_host_end(host, spec.host_name)?;
    let pod_end = netns.run_here(|| prepare_pod_end(spec))??;
    Ok(PodInterface {
        host_index: host_end.index,
        pod_index: pod_end.index,
        host_mac: spec.host_mac,
        pod_mac: spec.pod_mac,
        mtu: spec.mtu,
    })
}

fn prepare_host_end(host: &mut Netlink, name: &str) -> Result<Link, CreateError> {
    let link = host.link(name)?;
    let quiet = LinkChange {
        // Packets come in here with sources whose route leads elsewhere (bristle_host); the dataplane checks sources itself.
        rp_filter: Some(0),
        link_local: sysctl::has_ipv6().then_some(false),
        ..LinkChange::default()
    };
    let requests = [&quiet, &LinkChange::up()].map(|change| crate::link::set_request(link.index, change));
    host.batch(requests.into()).into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(link)
}

/// Runs inside the pod's namespace.
fn prepare_pod_end(spec: &PodInterfaceSpec<'_>) -> Result<Link, CreateError> {
    let name = spec.pod_name;
    let mut netlink = Netlink::open()?;
    let link = netlink.link(name)?;
    let ipv6 = spec.addresses.iter().any(|address| address.ip.is_ipv6());
    if ipv6 {
        // Some runtimes make namespaces with IPv6 switched off.
        sysctl::ensure(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")?;
        // The allocator sees to it that addresses are unique, and nobody sends router advertisements.
        sysctl::ensure(&format!("net/ipv6/conf/{name}/accept_dad"), "0")?;
        sysctl::ensure(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
    } else {
        // Without an IPv6 address there is nobody to talk to: no link-local address, no router solicitations.
        ensure_if_there(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    }
    let mut requests = vec![crate::link::set_request(link.index, &LinkChange::up())];
    for pod in spec.addresses {
        requests.push(address::add(&Address { link: link.index, net: host_net(pod.ip) }));
        requests.extend(routes(pod, link.index).iter().map(route::replace));
    }
    netlink.batch(requests).into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(link)
}

/// The routes that a pod has for one of its addresses: its router on the link, everything else by way of it.
fn routes(pod: &PodAddress, link: u32) -> [Route; 2] {
    [Route::new(host_net(pod.router), link, None), Route::default_via(pod.router, link)]
}

/// The /32 or /128 of an address.
fn host_net(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

fn ensure_if_there(key: &str, value: &str) -> Result<(), SysctlError> {
    match sysctl::ensure(key, value) {
        Err(error) if !error.is_missing() => Err(error),
        _ => Ok(()),
    }
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It was there and is gone.
    Deleted,
    /// There was nothing.
    Missing,
    /// There is a link of the name, but it is another one than expected; it was left alone.
    AnotherLink {
        /// Its index.
        index: u32,
    },
}

/// Deletes the interface, both ends, by the name of the host's end and, if it is known, its index.
///
/// # Errors
/// When the kernel refuses.
pub fn delete(
    host: &mut Netlink,
    host_name: &str,
    host_index: Option<u32>,
) -> Result<Deletion, NetlinkError> {
    match host.find_link(host_name)? {
        None => Ok(Deletion::Missing),
        Some(link) if host_index.is_some_and(|index| index != link.index) => {
            Ok(Deletion::AnotherLink { index: link.index })
        }
        Some(link) => Ok(if host.delete_link(link.index)? { Deletion::Deleted } else { Deletion::Missing }),
    }
}
