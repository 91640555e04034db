//! `from_host`: what the node's stack routes to `bristle_host`, that is: what it sends to pods, here or behind the tunnel.
//!
//! For a pod of this node, `to_container` on its device has the last word. There is no conntrack here: the node itself is not an endpoint.

use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::conntrack::WayKind;
use dataplane_abi::events::{Aggregation, EventHeader, TracePoint, TraceReason};
use dataplane_abi::program::Program;
use dataplane_abi::{DropReason, Identity, mark};

use super::{ended, with_config};
use crate::arp;
use crate::conntrack::End;
use crate::ends::{self, Place};
use crate::ethernet;
use crate::flight::Seen;
use crate::forward::link_addresses;
use crate::host::Host;
use crate::ip::{Ip, V4, V6};
use crate::report;
use crate::verdict::Verdict;

const PROGRAM: u8 = Program::FromHost as u8;

/// Decides about a packet that the stack sends to a pod.
#[inline(always)]
pub fn from_host<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |config, seen| {
        report::arrived::<H, PROGRAM>(host, config, TracePoint::FromHost, seen);
        match ethernet::ethertype(host) {
            Some(ethernet::IPV4) => ip::<H, V4>(host, config, seen),
            Some(ethernet::IPV6) => {
                seen.flags = EventHeader::IPV6;
                ip::<H, V6>(host, config, seen)
            }
            // Should the device not be without ARP: any answer will do, the addresses are rewritten here.
            Some(ethernet::ARP) => ended(arp::answer(host), Verdict::Ingress { ifindex: host.ifindex() })
                .err()
                .unwrap_or(Verdict::Skip),
            _ => Verdict::Skip,
        }
    })
}

#[inline(always)]
fn ip<H: Host, F: Ip>(host: H, config: &NodeConfig, seen: &mut Seen) -> Verdict {
    let Some((from, to)) = F::addresses(host) else { return Verdict::Drop(DropReason::InvalidPacket) };
    if F::is_group(to) {
        return Verdict::Skip;
    }
    let (mut src, mut dst) = (End::NOBODY, End::NOBODY);
    let place = ends::find::<H, F>(host, &to, &mut dst);
    let _: Place = ends::find::<H, F>(host, &from, &mut src);
    seen.src = mark::identity(host.mark()).unwrap_or(src.identity);
    seen.dst = dst.identity;
    seen.endpoint = src.way.endpoint;
    seen.dst_endpoint = dst.way.endpoint;
    seen.reason = TraceReason::Unknown as u8;
    // Without conntrack every packet is as good as the other; only those who want all of them get them.
    seen.report =
        config.flags.contains(ConfigFlags::TRACE_EVENTS) && config.aggregation < Aggregation::Medium as u8;
    match place {
        Place::Pod => {
            seen.point = TracePoint::ToEndpoint as u8;
            // `to_container` tells of it, with what conntrack knows.
            seen.report = false;
            if !host
                .load_or_pull::<[u32; 3]>(0)
                .is_some_and(|_| ethernet::store_addresses(host, link_addresses(&dst.way)))
            {
                return Verdict::Drop(DropReason::WriteError);
            }
            Verdict::Egress { ifindex: dst.way.ifindex }
        }
        Place::Node => Verdict::Skip,
        Place::Elsewhere if dst.way.kind == WayKind::Tunnel as u8 => {
            seen.point = TracePoint::ToOverlay as u8;
            let identity = if seen.src == Identity::UNKNOWN { config.host_identity } else { seen.src };
            if !host.set_tunnel(dst.way.data, dst.way.family, identity.to_vni()) {
                return Verdict::Drop(DropReason::NoTunnelEndpoint);
            }
            Verdict::Egress { ifindex: dst.way.ifindex }
        }
        Place::Elsewhere => Verdict::Drop(DropReason::UnknownTarget),
    }
}
