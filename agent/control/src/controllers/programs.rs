//! Which program is attached to which link.

use crate::plan::Plan;
use crate::ports::{HOST_LINK, OVERLAY_LINK, Program};
use crate::state::endpoints::Endpoint;

/// Programs of the links that every node has.
pub(crate) fn base(plan: &Plan) -> Vec<((String, Program), u32)> {
    let (Some(facts), Some(underlay)) = (&plan.base, &plan.underlay) else { return Vec::new() };
    let on = |link: &str, program, ifindex| ((link.to_owned(), program), ifindex);
    let mut programs = vec![
        on(HOST_LINK, Program::FromHost, facts.host.ifindex),
        on(HOST_LINK, Program::ToHost, facts.host.ifindex),
        on(&underlay.name, Program::FromNetdev, underlay.ifindex),
        on(&underlay.name, Program::ToNetdev, underlay.ifindex),
    ];
    programs.extend(facts.overlay.map(|overlay| on(OVERLAY_LINK, Program::FromOverlay, overlay.ifindex)));
    programs
}

/// Programs of a pod's link.
pub(crate) const OF_POD: [Program; 2] = [Program::FromContainer, Program::ToContainer];

/// Index of the endpoint's link if programs shall be on it.
pub(crate) fn of_endpoint(endpoint: &Endpoint) -> Option<u32> {
    endpoint.has_programs().then_some(endpoint.record.ifindex)
}
