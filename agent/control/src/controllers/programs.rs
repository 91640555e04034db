//! Which program is attached to which link.

use crate::config::Routing;
use crate::plan::Plan;
use crate::ports::{HOST_LINK, OVERLAY_LINK, POD_LINK_PREFIX, Program};
use crate::state::endpoints::Endpoint;

/// Programs of the links that every node has.
pub(crate) fn base(plan: &Plan) -> Vec<((String, Program), u32)> {
    let (Some(facts), Some(underlay)) = (&plan.base, &plan.underlay) else { return Vec::new() };
    let on = |link: &str, program, ifindex| ((link.to_owned(), program), ifindex);
    let mut programs = vec![
        on(HOST_LINK, Program::FromHost, facts.host.ifindex),
        on(HOST_LINK, Program::ToHost, facts.host.ifindex),
    ];
    programs.extend(of_underlay(plan).iter().map(|program| on(&underlay.name, *program, underlay.ifindex)));
    programs.extend(facts.overlay.map(|overlay| on(OVERLAY_LINK, Program::FromOverlay, overlay.ifindex)));
    programs
}

/// Programs that have work on the underlay device: every packet between nodes pays for each of them.
///
/// With native routing packets for pods come in there; behind the tunnel none do. Where pods are masqueraded or the node's own
/// connections are judged, and where calls from outside are translated, both directions are looked at.
fn of_underlay(plan: &Plan) -> &'static [Program] {
    match (plan.host_firewall || plan.masquerade || plan.outside_calls, plan.routing) {
        (true, _) => &[Program::FromNetdev, Program::ToNetdev],
        (false, Routing::Native) => &[Program::FromNetdev],
        (false, Routing::Vxlan) => &[],
    }
}

/// Programs that an earlier agent, with another mode or of another version, may have left on the underlay device; and those
/// among `attached` that it left on other devices: one that was the underlay then.
pub(crate) fn leftovers(plan: &Plan, attached: Vec<(String, u32, Program)>) -> Vec<(String, u32, Program)> {
    let Some(underlay) = &plan.underlay else { return Vec::new() };
    let mut leftovers: Vec<(String, u32, Program)> = [Program::FromNetdev, Program::ToNetdev]
        .into_iter()
        .filter(|program| !of_underlay(plan).contains(program))
        .map(|program| (underlay.name.clone(), underlay.ifindex, program))
        .collect();
    let base = base(plan);
    // Another program in a place that has one is replaced there, without a gap.
    let has_place = |link: &str, program: Program| {
        base.iter().any(|((on, wanted), _)| on == link && wanted.on_egress() == program.on_egress())
    };
    leftovers.extend(attached.into_iter().filter(|(link, _, program)| {
        *link != underlay.name && !link.starts_with(POD_LINK_PREFIX) && !has_place(link, *program)
    }));
    leftovers
}

/// Programs of a pod's link.
pub(crate) const OF_POD: [Program; 2] = [Program::FromContainer, Program::ToContainer];

/// Index of the endpoint's link if programs shall be on it.
pub(crate) fn of_endpoint(endpoint: &Endpoint) -> Option<u32> {
    endpoint.has_programs().then_some(endpoint.record.ifindex)
}
