//! Who is at an address, and how packets get there.

use dataplane_abi::config::{NodeConfig, Routing};
use dataplane_abi::conntrack::{CtWay, WayKind};
use dataplane_abi::endpoints::{EndpointFlags, EndpointKey};
use dataplane_abi::ipcache::{IpCacheFlags, IpCacheKey};

use crate::conntrack::{End, Origin};
use crate::host::{Host, Maps};
use crate::ip::Ip;
use crate::policy::{Answer, Guard, Noted};

/// What kind of place an address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Place {
    /// A pod of this node.
    Pod,
    /// The node itself.
    Node,
    /// Anywhere else.
    Elsewhere,
}

impl End {
    /// Nobody.
    pub const NOBODY: Self = Self { identity: dataplane_abi::Identity::UNKNOWN, way: CtWay::NONE };
}

/// What is found out about a packet that is looked at closely. It does not lie on the stack, which has no room for it;
/// and of what a table holds the kernel's verifier knows nothing, so that it does not follow each outcome by itself.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Meeting {
    /// The sender.
    pub src: End,
    /// The receiver.
    pub dst: End,
    /// The sender's policy.
    pub src_guard: Guard,
    /// The receiver's policy.
    pub dst_guard: Guard,
    /// How the connection began, if it lives.
    pub origin: Origin,
    /// What a policy says of it.
    pub answer: Answer,
    /// What staged policies say of it.
    pub staged: Noted,
}

impl Meeting {
    /// Nothing known yet.
    pub const NONE: Self = Self {
        src: End::NOBODY,
        dst: End::NOBODY,
        src_guard: Guard::NONE,
        dst_guard: Guard::NONE,
        origin: Origin::UNKNOWN,
        answer: Answer::NONE,
        staged: Noted::NONE,
    };
}

/// Finds who is at an address, and of an endpoint its policy. A function of its own: only first packets need it.
#[inline(never)]
pub fn find<H: Host, F: Ip>(host: H, addr: &F::Addr, end: &mut End, guard: &mut Guard) -> Place {
    (*end, *guard) = (End::NOBODY, Guard::NONE);
    let place = find_here::<H, F>(host, *addr, end, guard);
    if place == Place::Elsewhere
        && let Some(config) = host.config()
    {
        find_elsewhere::<H, F>(host, config, *addr, end);
    }
    place
}

/// Finds who on this node is at an address.
#[inline(always)]
pub fn find_here<H: Maps, F: Ip>(host: H, addr: F::Addr, end: &mut End, guard: &mut Guard) -> Place {
    let Some(entry) = host.endpoint(&EndpointKey::new(F::to_abi(addr), F::FAMILY)) else {
        return Place::Elsewhere;
    };
    end.identity = entry.identity;
    *guard = Guard { policy: entry.policy, flags: entry.flags };
    if entry.flags.contains(EndpointFlags::HOST) {
        end.way = CtWay::stack();
        Place::Node
    } else {
        end.way = CtWay::local(entry.ifindex, entry.id, entry.mac, entry.node_mac);
        Place::Pod
    }
}

/// Finds who off this node is at an address, and the way there.
#[inline(always)]
fn find_elsewhere<H: Maps, F: Ip>(host: H, config: &NodeConfig, addr: F::Addr, end: &mut End) {
    end.way = CtWay::stack();
    let Some(entry) = host.ipcache(&IpCacheKey::host(F::to_abi(addr), F::FAMILY)) else {
        end.identity = F::world(config);
        return;
    };
    end.identity = entry.identity;
    if entry.node_family == 0 {
        return;
    }
    if config.routing == Routing::Native as u8 {
        end.way = CtWay::remote(WayKind::Neighbour, config.underlay_ifindex, entry.node, entry.node_family);
    } else if !entry.flags.contains(IpCacheFlags::SKIP_TUNNEL) {
        end.way = CtWay::remote(WayKind::Tunnel, config.overlay_ifindex, entry.node, entry.node_family);
    }
}
