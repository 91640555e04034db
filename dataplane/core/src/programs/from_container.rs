//! `from_container`: what a pod sends.

use dataplane_abi::DropReason;
use dataplane_abi::events::TracePoint;
use dataplane_abi::program::Program;

use super::with_config;
use crate::closer::{look_closer, put_away};
use crate::conntrack::{self, Hit};
use crate::ethernet;
use crate::flight::{Flight, Kind, Route};
use crate::forward;
use crate::host::Host;
use crate::ip::{Ip, V4, V6};
use crate::report;
use crate::verdict::{Step, Verdict};
use crate::{arp, nd};

const PROGRAM: u8 = Program::FromContainer as u8;

/// Decides about a packet that a pod sends.
#[inline(always)]
pub fn from_container<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |config, route| {
        if host.is_tagged() {
            return Step::Drop(DropReason::VlanFiltered);
        }
        report::arrived::<H, PROGRAM>(host, config, TracePoint::FromEndpoint, route);
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
            Some(ethernet::ARP) => arp::answer(host),
            _ => Step::Drop(DropReason::UnsupportedL3),
        };
        if step == Step::Next { forward::send(host, config, route) } else { step }
    })
}

/// Everything that depends on the family. A function of its own, so that the two do not share a stack frame.
#[inline(never)]
fn ip<H: Host, F: Ip>(host: H, route: &mut Route) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let mut flight = Flight::<F>::new(host.ticks(), config);
    if let Err(reason) = F::parse(host, &mut flight) {
        return Step::Drop(reason);
    }
    if flight.kind == Kind::Control {
        return nd::answer(host, flight.tcp_flags);
    }
    // A gateway address that was learned before the device got its own is as good.
    host.accept();
    route.hops = flight.hops;
    route.hop_word = flight.hop_word;
    match conntrack::lookup::<H, F, PROGRAM>(host, config, &mut flight, route, host.ifindex()) {
        Hit::Known => Step::Next,
        hit => put_away(host, &flight, route, hit),
    }
}
