//! Whoever reads the ring of a node hears of every drop, with its reason.

use dataplane_abi::events::EventKind;
use dataplane_abi::program::Program;
use dataplane_core::Verdict;

use crate::queue::NodeId;
use crate::world::World;

impl World {
    /// Takes out of the ring what a program has told of a packet, as an agent does at once; while a fault fills the ring nobody does.
    pub(crate) fn read_ring(&mut self, n: NodeId, program: Program, packet: u64, verdict: &Verdict) {
        if self.cluster_faults.fills_ring(n) || self.cluster.tables.contains_key("EVENTS") {
            self.flows_are_lost();
            return;
        }
        let events = self.nodes[n].native.drain_events();
        if self.odd.is_none() {
            self.note_flows(n, &events);
        }
        let Verdict::Drop(reason) = verdict else { return };
        let told = events
            .iter()
            .any(|event| event.header.kind == EventKind::Drop as u8 && event.header.subtype == *reason as u8);
        if !told {
            let message = format!("{} drops it as `{}` without an event", program.name(), reason.text());
            self.violate_packet("event", packet, &message);
        }
    }
}
