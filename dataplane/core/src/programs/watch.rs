//! `to_netdev` and `to_host`: hooks that only watch until there is something to translate there.

use dataplane_abi::events::TracePoint;
use dataplane_abi::program::Program;

use super::with_config;
use crate::host::Host;
use crate::report;
use crate::verdict::{Step, Verdict};

/// Watches what leaves by the underlay: packets to next hops, the tunnel's outer packets, the node's own. Never encapsulates.
#[inline(always)]
pub fn to_netdev<H: Host>(host: H) -> Verdict {
    const PROGRAM: u8 = Program::ToNetdev as u8;
    with_config::<H, PROGRAM>(host, |config, route| {
        report::arrived::<H, PROGRAM>(host, config, TracePoint::ToNetwork, route);
        Step::Skip
    })
}

/// Watches what arrives on `bristle_host`.
#[inline(always)]
pub fn to_host<H: Host>(host: H) -> Verdict {
    const PROGRAM: u8 = Program::ToHost as u8;
    with_config::<H, PROGRAM>(host, |config, route| {
        report::arrived::<H, PROGRAM>(host, config, TracePoint::ToHost, route);
        Step::Skip
    })
}
