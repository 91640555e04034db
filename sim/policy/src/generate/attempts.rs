//! What to try.

use std::net::IpAddr;

use sim_oracle::{Attempt, End, Family, Protocol};

use super::cluster::World;
use super::selectors::PORTS;
use super::{Draw, Feature};

/// An end with its addresses.
struct Place<'a> {
    end: End,
    addresses: &'a [IpAddr],
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pod,
    Node,
    Outside,
}

/// Most are between pods. Ends that are never judged are not tried with each other.
pub(super) fn draw(draw: &mut Draw<'_>, world: &World, count: usize) -> Vec<Attempt> {
    let places = places(world);
    let mut attempts = Vec::with_capacity(count);
    // Most draws are an attempt; the bound is for plans under which none can be.
    for _ in 0..count.saturating_mul(50) {
        if attempts.len() == count {
            break;
        }
        attempts.extend(attempt(draw, &places));
    }
    attempts
}

fn places(world: &World) -> Vec<Place<'_>> {
    let pods = world.pods.iter().map(|pod| Place {
        end: End::Pod { namespace: pod.namespace.clone(), name: pod.name.clone() },
        addresses: &pod.addresses,
        kind: if pod.host_network { Kind::Node } else { Kind::Pod },
    });
    let nodes = world.nodes.iter().map(|node| Place {
        end: End::Node { name: node.name.clone() },
        addresses: &node.addresses,
        kind: Kind::Node,
    });
    let outside = world.outside.iter().map(|address| Place {
        end: End::Outside(*address),
        addresses: std::slice::from_ref(address),
        kind: Kind::Outside,
    });
    pods.chain(nodes).chain(outside).collect()
}

fn attempt(draw: &mut Draw<'_>, places: &[Place<'_>]) -> Option<Attempt> {
    let (from, to) = (end(draw, places)?, end(draw, places)?);
    let is_judged = |kind: Kind| match kind {
        Kind::Pod => true,
        Kind::Node => draw.has(Feature::HostPolicies),
        Kind::Outside => false,
    };
    if !is_judged(from.kind) && !is_judged(to.kind) {
        return None;
    }
    let family = draw.pick(&[Family::V4, Family::V6]);
    let has = |place: &Place<'_>| place.addresses.iter().any(|address| Family::of(*address) == family);
    if !has(from) || !has(to) {
        return None;
    }
    let (protocol, port) = what(draw, family);
    Some(Attempt { from: from.end.clone(), to: to.end.clone(), family, protocol, port: Some(port) })
}

/// A kind first, as pods are many.
fn end<'p, 'a>(draw: &mut Draw<'_>, places: &'p [Place<'a>]) -> Option<&'p Place<'a>> {
    let kind = draw.weighted(&[(Kind::Pod, 7, None), (Kind::Node, 1, None), (Kind::Outside, 2, None)]);
    let places: Vec<&Place<'a>> = places.iter().filter(|place| place.kind == kind).collect();
    if places.is_empty() { None } else { Some(draw.pick(&places)) }
}

fn what(draw: &mut Draw<'_>, family: Family) -> (Protocol, u16) {
    if draw.has(Feature::Icmp) && draw.percent(8) {
        let kinds: &[u16] = if family == Family::V4 { &[8, 8, 3, 0] } else { &[128, 128, 129] };
        return (Protocol::Icmp, draw.pick(kinds));
    }
    let (protocol, mut port) = draw.pick(PORTS);
    if draw.percent(10) {
        port = draw.pick(&[1, 79, 82, 8079, 8081, 65535]);
    }
    let protocol = match protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => Protocol::Sctp,
    };
    (protocol, port)
}
