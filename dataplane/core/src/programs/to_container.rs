//! `to_container`: what the node's stack, or `from_host`, sends to a pod.

use dataplane_abi::DropReason;
use dataplane_abi::events::TracePoint;
use dataplane_abi::program::Program;

use super::with_config;
use crate::closer::{look_closer, put_away};
use crate::conntrack::{self, Hit};
use crate::ethernet;
use crate::flight::{Flight, Kind, Route};
use crate::host::Host;
use crate::ip::{Ip, V4, V6};
use crate::verdict::{Step, Verdict};

const PROGRAM: u8 = Program::ToContainer as u8;

/// Decides about a packet that is about to leave for a pod.
#[inline(always)]
pub fn to_container<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |_, route| {
        if host.is_tagged() {
            return Step::Drop(DropReason::VlanFiltered);
        }
        let step = match ethernet::ethertype(host) {
            Some(ethernet::IPV4) => {
                let step = ip::<H, V4>(host, route);
                look_closer::<H, V4, PROGRAM>(host, route, step)
            }
            Some(ethernet::IPV6) => {
                route.is_v6 = true;
                let step = ip::<H, V6>(host, route);
                look_closer::<H, V6, PROGRAM>(host, route, step)
            }
            // What the stack says on the link.
            _ => Step::Skip,
        };
        if step != Step::Next {
            return step;
        }
        // A row whose way leads elsewhere is of a pod that had this address before.
        if route.to.way.ifindex != host.ifindex() {
            return Step::Drop(DropReason::UnknownTarget);
        }
        route.point = TracePoint::ToEndpoint as u8;
        Step::Pass
    })
}

/// Everything that depends on the family.
#[inline(never)]
fn ip<H: Host, F: Ip>(host: H, route: &mut Route) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let mut flight = Flight::<F>::new(host.ticks(), config);
    if let Err(reason) = F::parse(host, &mut flight) {
        return Step::Drop(reason);
    }
    if flight.kind == Kind::Control {
        return Step::Skip;
    }
    match conntrack::lookup::<H, F, PROGRAM>(host, config, &mut flight, route, 0) {
        Hit::Known => Step::Next,
        hit => put_away(host, &flight, route, hit),
    }
}
