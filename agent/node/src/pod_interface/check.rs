//! Comparison of a pod's interface with what was made (CNI CHECK).

use std::fmt;
use std::net::IpAddr;

use super::{PodAddress, PodInterfaceSpec, host_net, routes};
use crate::link::Link;
use crate::mac::Mac;
use crate::netlink::{Netlink, NetlinkError};
use crate::netns::{Netns, NetnsError};
use crate::route::{Route, RouteFilter, TABLE_MAIN};

/// The comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The pod's namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A netlink request failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Something that is not as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The host's end is missing.
    HostEndMissing {
        /// Its name.
        name: String,
    },
    /// The pod's end is missing.
    PodEndMissing {
        /// Its name.
        name: String,
    },
    /// An end is down.
    Down {
        /// Its name.
        name: String,
    },
    /// The two links of the expected names are not ends of one pair.
    NotAPair {
        /// Name of the host's end.
        host_name: String,
        /// Name of the pod's end.
        pod_name: String,
    },
    /// The pod's end has another Ethernet address.
    Mac {
        /// Name of the pod's end.
        name: String,
        /// What it has.
        found: Option<Mac>,
        /// What it was given.
        expected: Mac,
    },
    /// An address is missing.
    AddressMissing {
        /// The address.
        ip: IpAddr,
    },
    /// A route is missing, or leads elsewhere.
    RouteMissing {
        /// The route that was made.
        route: Box<Route>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostEndMissing { name } => write!(f, "link {name} is missing on the node"),
            Self::PodEndMissing { name } => write!(f, "interface {name} is missing in the pod"),
            Self::Down { name } => write!(f, "{name} is down"),
            Self::NotAPair { host_name, pod_name } => {
                write!(f, "{pod_name} in the pod is not the peer of {host_name} on the node")
            }
            Self::Mac { name, found: Some(found), expected } => {
                write!(f, "{name} has address {found} instead of {expected}")
            }
            Self::Mac { name, found: None, expected } => {
                write!(f, "{name} has no address instead of {expected}")
            }
            Self::AddressMissing { ip } => write!(f, "address {ip} is missing in the pod"),
            Self::RouteMissing { route } => match route.via {
                Some(via) => write!(f, "route to {} via {via} is missing in the pod", route.destination),
                None => write!(f, "route to {} on the link is missing in the pod", route.destination),
            },
        }
    }
}

/// Compares an interface with its specification; an empty list means that all is well.
///
/// Further addresses, routes and another MTU are no differences: plugins later in a chain may have added them (CNI spec, CHECK).
///
/// # Errors
/// When namespace or kernel do not answer.
pub fn check(
    host: &mut Netlink,
    netns: &Netns,
    spec: &PodInterfaceSpec<'_>,
) -> Result<Vec<Difference>, CheckError> {
    let host_end = host.find_link(spec.host_name)?;
    let (pod_end, mut differences) = netns.run_here(|| check_pod_end(spec))??;
    match (&host_end, &pod_end) {
        (None, _) => differences.insert(0, Difference::HostEndMissing { name: spec.host_name.into() }),
        (Some(host_end), Some(pod_end))
            if host_end.peer != Some(pod_end.index) || pod_end.peer != Some(host_end.index) =>
        {
            differences.push(Difference::NotAPair {
                host_name: spec.host_name.into(),
                pod_name: spec.pod_name.into(),
            });
        }
        (Some(host_end), _) if !host_end.up => {
            differences.push(Difference::Down { name: spec.host_name.into() });
        }
        (Some(_), _) => {}
    }
    Ok(differences)
}

/// Runs inside the pod's namespace.
fn check_pod_end(spec: &PodInterfaceSpec<'_>) -> Result<(Option<Link>, Vec<Difference>), CheckError> {
    let name = || spec.pod_name.to_owned();
    let mut netlink = Netlink::open()?;
    let Some(link) = netlink.find_link(spec.pod_name)? else {
        return Ok((None, vec![Difference::PodEndMissing { name: name() }]));
    };
    let mut differences = Vec::new();
    if !link.up {
        differences.push(Difference::Down { name: name() });
    }
    if link.mac != Some(spec.pod_mac) {
        differences.push(Difference::Mac { name: name(), found: link.mac, expected: spec.pod_mac });
    }
    let addresses = netlink.addresses(Some(link.index))?;
    let found = netlink.routes(RouteFilter {
        table: Some(TABLE_MAIN),
        link: Some(link.index),
        ..RouteFilter::default()
    })?;
    for pod in spec.addresses {
        if !addresses.iter().any(|address| address.net == host_net(pod.ip)) {
            differences.push(Difference::AddressMissing { ip: pod.ip });
        }
        differences.extend(missing_routes(pod, link.index, &found));
    }
    Ok((Some(link), differences))
}

fn missing_routes(pod: &PodAddress, link: u32, found: &[Route]) -> impl Iterator<Item = Difference> {
    let same =
        |wanted: &Route, route: &Route| route.destination == wanted.destination && route.via == wanted.via;
    routes(pod, link)
        .into_iter()
        .filter(move |wanted| !found.iter().any(|route| same(wanted, route)))
        .map(|route| Difference::RouteMissing { route: Box::new(route) })
}
