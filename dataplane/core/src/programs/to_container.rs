//! `to_container`: what the node's stack, or `from_host`, sends to a pod.

use dataplane_abi::DropReason;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::events::{EventHeader, TracePoint};
use dataplane_abi::program::Program;

use super::from_container::low;
use super::{NO_ANSWER, ended, with_config};
use crate::conntrack::{self, Hit};
use crate::ethernet;
use crate::flight::{Flight, Seen};
use crate::host::Host;
use crate::ip::{Ip, Kind, V4, V6};
use crate::learn::learn;
use crate::verdict::Verdict;

const PROGRAM: u8 = Program::ToContainer as u8;

/// Decides about a packet that is about to leave for a pod.
#[inline(always)]
pub fn to_container<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |config, seen| {
        if host.is_tagged() {
            return Verdict::Drop(DropReason::VlanFiltered);
        }
        match ethernet::ethertype(host) {
            Some(ethernet::IPV4) => ip::<H, V4>(host, config, seen),
            Some(ethernet::IPV6) => {
                seen.flags = EventHeader::IPV6;
                ip::<H, V6>(host, config, seen)
            }
            // What the stack says on the link.
            _ => Verdict::Skip,
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
        return Verdict::Skip;
    }
    if conntrack::lookup(host, config, &mut flight, seen, 0) == Hit::Unsure
        && let Err(end) = ended(learn::<H, F, PROGRAM>(host, &mut flight, seen), NO_ANSWER)
    {
        return end;
    }
    // A row whose way leads elsewhere is of a pod that had this address before.
    if flight.way.ifindex != host.ifindex() {
        return Verdict::Drop(DropReason::UnknownTarget);
    }
    seen.point = TracePoint::ToEndpoint as u8;
    Verdict::Pass
}
