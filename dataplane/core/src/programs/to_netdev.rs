//! `to_netdev`: what leaves by the underlay: packets to next hops, the tunnel's outer packets, the node's own. Never encapsulates.
//! Of these only the node's own are judged, and only if they shall be; for the rest it watches.

use dataplane_abi::config::ConfigFlags;
use dataplane_abi::events::TracePoint;
use dataplane_abi::program::Program;

use super::with_config;
use crate::ethernet;
use crate::host::Host;
use crate::ip::{V4, V6};
use crate::node;
use crate::report;
use crate::verdict::{Step, Verdict};

const PROGRAM: u8 = Program::ToNetdev as u8;

/// Decides about a packet that is about to leave by the underlay.
#[inline(always)]
pub fn to_netdev<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |config, route| {
        report::arrived::<H, PROGRAM>(host, config, TracePoint::ToNetwork, route);
        if !config.flags.contains(ConfigFlags::HOST_FIREWALL) || host.is_tagged() {
            return Step::Skip;
        }
        let step = match ethernet::ethertype(host) {
            Some(ethernet::IPV4) => node::sends::<H, V4, PROGRAM>(host, route),
            Some(ethernet::IPV6) => {
                route.is_v6 = true;
                node::sends::<H, V6, PROGRAM>(host, route)
            }
            _ => Step::Skip,
        };
        if step == Step::Next { Step::Skip } else { step }
    })
}
