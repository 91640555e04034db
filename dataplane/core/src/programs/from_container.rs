//! `from_container`: what a pod sends.

use dataplane_abi::DropReason;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::events::{EventHeader, TracePoint};
use dataplane_abi::program::Program;

use super::{NO_ANSWER, ended, with_config};
use crate::conntrack::{self, Hit};
use crate::ethernet;
use crate::flight::{Flight, Seen};
use crate::forward;
use crate::host::Host;
use crate::ip::{Ip, Kind, V4, V6};
use crate::learn::learn;
use crate::report;
use crate::verdict::Verdict;
use crate::{arp, nd};

const PROGRAM: u8 = Program::FromContainer as u8;

/// Decides about a packet that a pod sends.
#[inline(always)]
pub fn from_container<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |config, seen| {
        if host.is_tagged() {
            return Verdict::Drop(DropReason::VlanFiltered);
        }
        report::arrived::<H, PROGRAM>(host, config, TracePoint::FromEndpoint, seen);
        match ethernet::ethertype(host) {
            Some(ethernet::IPV4) => ip::<H, V4>(host, config, seen),
            Some(ethernet::IPV6) => {
                seen.flags = EventHeader::IPV6;
                ip::<H, V6>(host, config, seen)
            }
            Some(ethernet::ARP) => ended(arp::answer(host), Verdict::Egress { ifindex: host.ifindex() })
                .err()
                .unwrap_or(Verdict::Skip),
            _ => Verdict::Drop(DropReason::UnsupportedL3),
        }
    })
}

#[inline(always)]
fn ip<H: Host, F: Ip>(host: H, config: &NodeConfig, seen: &mut Seen) -> Verdict {
    let mut flight = Flight::<F>::new(low(host.ticks()));
    if let Err(reason) = F::parse(host, &mut flight.headers) {
        return Verdict::Drop(reason);
    }
    if flight.headers.kind == Kind::Control {
        let step = nd::answer(host, flight.headers.tcp_flags);
        return ended(step, Verdict::Egress { ifindex: host.ifindex() }).err().unwrap_or(Verdict::Skip);
    }
    // A gateway address that was learned before the device got its own is as good.
    host.accept();
    if conntrack::lookup(host, config, &mut flight, seen, host.ifindex()) == Hit::Unsure
        && let Err(end) = ended(learn::<H, F, PROGRAM>(host, &mut flight, seen), NO_ANSWER)
    {
        return end;
    }
    forward::send(host, config, &flight, seen)
}

/// The low half of a tick count; conntrack stamps are no longer.
#[inline(always)]
pub(super) const fn low(ticks: u64) -> u32 {
    let [a, b, c, d, ..] = ticks.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
