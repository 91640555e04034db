//! Flows of traffic: what programs tell in the rings of packets that belong to it.
//!
//! They are for the comparison with other arms, whose pods send nothing of their own accord; so they are noted where pods are plain.

use dataplane_abi::DropReason;
use dataplane_abi::events::{Event, EventHeader, EventKind, TracePoint};
use sim_scenario::flows::{AFTERMATH, Flow, Observation, party};

use crate::queue::NodeId;
use crate::view::{ICMP, ICMP6, TCP, UDP, View};
use crate::world::World;

const fn protocol(number: u8) -> &'static str {
    match number {
        TCP => "tcp",
        UDP => "udp",
        ICMP => "icmp",
        ICMP6 => "icmpv6",
        _ => "",
    }
}

/// What it is called in flows; `None`: it is for developers.
fn describe(header: &EventHeader) -> Option<String> {
    let direction = if header.flags & EventHeader::INGRESS == 0 { "egress" } else { "ingress" };
    let reason = DropReason::from_number(header.subtype).map_or("", DropReason::name);
    let told = match EventKind::from_number(header.kind)? {
        EventKind::Drop => Observation::Drop(reason, direction),
        EventKind::Trace => Observation::Trace(header.trace_point().map_or("", TracePoint::name)),
        EventKind::PolicyVerdict if header.subtype == 0 => Observation::PolicyVerdict("allowed", direction),
        EventKind::PolicyVerdict if header.policy_flags & EventHeader::AUDITED != 0 => {
            Observation::PolicyVerdict("audited", direction)
        }
        EventKind::PolicyVerdict => Observation::PolicyVerdict("denied", direction),
        EventKind::Debug => return None,
    };
    Some(told.to_string())
}

impl World {
    /// Takes in what a program has told.
    pub(crate) fn note_flows(&mut self, n: NodeId, events: &[Event]) {
        let now = self.now;
        for event in events {
            let header = &event.header;
            let captured = usize::from(header.len_cap).min(event.payload.len());
            let Some(view) = View::of_start(&event.payload[..captured]) else { continue };
            let Some(what) = describe(header) else { continue };
            for state in self.traffic.values_mut() {
                let is_over = state.ended_at.is_some_and(|at| now > at + AFTERMATH);
                let Some(flows) = state.flows.as_mut().filter(|_| !is_over) else { continue };
                let found = state
                    .packets
                    .iter()
                    .find_map(|packets| packets.find(protocol(view.proto), view.src, view.dst, view.ports));
                let Some(reply) = found else { continue };
                flows.insert(Flow {
                    node: self.nodes[n].name.clone(),
                    event: what.clone(),
                    source: party(header.src_identity.0),
                    destination: party(header.dst_identity.0),
                    reply,
                });
            }
        }
    }

    /// Events are lost from now on: of traffic that runs not all flows are known.
    pub(crate) fn flows_are_lost(&mut self) {
        let now = self.now;
        for state in self.traffic.values_mut() {
            if state.ended_at.is_none_or(|at| now <= at + AFTERMATH) {
                state.flows = None;
            }
        }
    }
}
