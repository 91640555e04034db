//! Who the ends of a judged connection are: asked of the control thread when a listener reads the event, and kept for a moment.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent_api::monitor::MonitorEvent;
use agent_control::PartyNames;
use dataplane_abi::Identity;

use crate::control::Control;

/// How long an answer holds. A released address rests for longer before another pod gets it.
const FRESH: Duration = Duration::from_secs(2);

/// Answers kept at most.
const MOST: usize = 4096;

type Who = (Identity, Option<IpAddr>);

/// Names, and when they were asked for.
type Known = (Instant, Arc<PartyNames>);

/// Names of parties, shared by all listeners.
#[derive(Clone, Debug)]
pub(crate) struct Parties {
    control: Control,
    known: Arc<Mutex<HashMap<Who, Known>>>,
}

impl Parties {
    /// Nothing is known yet.
    pub(crate) fn new(control: Control) -> Self {
        Self { control, known: Arc::default() }
    }

    /// The event with the names of both ends, if policy decided it.
    pub(crate) async fn named(&self, event: Arc<MonitorEvent>) -> Arc<MonitorEvent> {
        let Some(packet) = event.judged_packet() else { return event };
        let source = (Identity(packet.source_identity), packet.source);
        let destination = (Identity(packet.destination_identity), packet.destination);
        let (source, destination) = (self.name(source).await, self.name(destination).await);
        let mut named = MonitorEvent::clone(&event);
        if let Some(packet) = named.judged_packet_mut() {
            packet.source_labels.clone_from(&source.labels);
            packet.source_pod.clone_from(&source.pod);
            packet.destination_labels.clone_from(&destination.labels);
            packet.destination_pod.clone_from(&destination.pod);
        }
        Arc::new(named)
    }

    async fn name(&self, who: Who) -> Arc<PartyNames> {
        if let Some(name) = self.known(who) {
            return name;
        }
        // An agent that stops names nobody any more.
        let name = self.control.query(move |view| view.agent.party_names(who.0, who.1)).await;
        let name = Arc::new(name.unwrap_or_default());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(who, (Instant::now(), Arc::clone(&name)));
        name
    }

    fn known(&self, who: Who) -> Option<Arc<PartyNames>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&who).filter(|(since, _)| since.elapsed() < FRESH).map(|(_, name)| Arc::clone(name))
    }
}
