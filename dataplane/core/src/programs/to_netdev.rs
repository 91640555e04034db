//! `to_netdev`: what leaves by the underlay: packets to next hops, the tunnel's outer packets, the node's own, and what its stack routes
//! for others. Never encapsulates. The node's own are judged if they shall be; what pods send to the world is masqueraded if it shall be;
//! answers to callers outside the cluster come from the service that was called.

use core::hint::black_box;

use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::events::TracePoint;
use dataplane_abi::program::Program;

use super::with_config;
use crate::calls;
use crate::ethernet;
use crate::flight::Route;
use crate::host::Host;
use crate::ip::{Ip, V4, V6};
use crate::masquerade;
use crate::node;
use crate::report;
use crate::verdict::{Step, Verdict};

const PROGRAM: u8 = Program::ToNetdev as u8;

/// Decides about a packet that is about to leave by the underlay.
#[inline(always)]
pub fn to_netdev<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |config, route| {
        report::arrived::<H, PROGRAM>(host, config, TracePoint::ToNetwork, route);
        if host.is_tagged() {
            return Step::Skip;
        }
        match ethernet::ethertype(host) {
            Some(ethernet::IPV4) => ip::<H, V4>(host, config, route),
            Some(ethernet::IPV6) => {
                route.is_v6 = true;
                ip::<H, V6>(host, config, route)
            }
            _ => Step::Skip,
        }
    })
}

/// Everything that depends on the family. Outcomes are merged on the way, so that the kernel's verifier does not follow each.
#[inline(always)]
fn ip<H: Host, F: Ip>(host: H, config: &NodeConfig, route: &mut Route) -> Step {
    if config.flags.contains(ConfigFlags::HOST_FIREWALL) {
        match black_box(node::sends::<H, F, PROGRAM>(host, route)) {
            Step::Next => *route = Route { is_v6: route.is_v6, ..Route::NONE },
            end => return end,
        }
    }
    if !masquerade::is_on::<F>(config) && !calls::from_outside::<F>(config) {
        return Step::Skip;
    }
    match black_box(masquerade::read::<H, F, false>(host)) {
        Step::Next => masquerade::leave::<H, F, false>(host, route),
        end => end,
    }
}
