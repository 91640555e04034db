//! `to_host`: a hook that only watches until there is something to translate there.

use dataplane_abi::events::TracePoint;
use dataplane_abi::program::Program;

use super::with_config;
use crate::host::Host;
use crate::report;
use crate::verdict::{Step, Verdict};

/// Watches what arrives on `bristle_host`.
#[inline(always)]
pub fn to_host<H: Host>(host: H) -> Verdict {
    const PROGRAM: u8 = Program::ToHost as u8;
    with_config::<H, PROGRAM>(host, |config, route| {
        report::arrived::<H, PROGRAM>(host, config, TracePoint::ToHost, route);
        Step::Skip
    })
}
