//! Events as they happen: the ring buffer's one reader, and any number of listeners behind bounded queues.
//!
//! Nobody waits here: a full ring loses events in the dataplane (counted there), a slow listener loses events in its
//! own queue (counted and told to it), and without listeners only drops are told, counted and thrown away unread.

mod decode;
mod parties;
mod rules;

pub(crate) use parties::Parties;
pub(crate) use rules::NamesChanged;

use crate::control::Control;
use crate::metrics::{Metrics, count};
use agent_api::monitor::{LostEvent, MonitorEvent};
use agent_api::{Timestamp, monitor};
use agent_control::Event;
use anyhow::{Context as _, Result};
use dataplane_loader::EventReader;
use dataplane_loader::clock::monotonic_ns;
use rules::Rules;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::broadcast;
use tracing::{error, warn};

/// Events kept for a listener that is busy; at 300 bytes each well below a megabyte, shared by all listeners.
const QUEUE: usize = 2048;

/// The stream of events.
#[derive(Clone, Debug)]
pub(crate) struct Monitor {
    events: broadcast::Sender<Arc<MonitorEvent>>,
    metrics: Arc<Metrics>,
}

/// How long an event may wait in the ring before it is read.
const LOOK: Duration = Duration::from_millis(50);

impl Monitor {
    /// Starts the thread that reads the ring buffer, and tells `control` whether anybody listens. What cookies stand for comes
    /// by `names` while somebody does.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(
        reader: EventReader,
        control: Control,
        names: mpsc::Receiver<NamesChanged>,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let (events, _) = broadcast::channel(QUEUE);
        let monitor = Self { events, metrics };
        let this = monitor.clone();
        std::thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || this.read(reader, &control, Rules::new(names)))
            .context("cannot start the monitor thread")?;
        Ok(monitor)
    }

    /// A new listener; it hears what happens from now on.
    pub(crate) fn listen(&self, filter: Filter) -> Listener {
        Listener { events: self.events.subscribe(), filter, metrics: Arc::clone(&self.metrics) }
    }

    /// Listeners now.
    pub(crate) fn listeners(&self) -> usize {
        self.events.receiver_count()
    }

    /// Events read since the start.
    pub(crate) fn events(&self) -> u64 {
        self.metrics.events.load(Ordering::Relaxed)
    }

    fn read(self, mut reader: EventReader, control: &Control, mut rules: Rules) {
        let mut told = false;
        loop {
            let listened = self.listeners() > 0;
            if listened != told {
                told = listened;
                rules.forget();
                control.event(Event::Listeners(listened));
            }
            // The programs wake the reader only when the ring fills, so it looks by itself as well.
            match reader.wait(LOOK) {
                Ok(_) => {}
                Err(problem) => {
                    error!("ring buffer: {problem}; the monitor ends, the dataplane goes on");
                    return;
                }
            }
            let clock = decode::WallClock::now();
            rules.follow(monotonic_ns());
            while let Some(event) = reader.next() {
                count(&self.metrics.events);
                if self.events.receiver_count() > 0
                    && let Some(event) = decode::event(&event, clock, &mut rules)
                {
                    // Fails only when the last listener left just now.
                    drop(self.events.send(Arc::new(event)));
                }
            }
        }
    }
}

/// Which events a listener wants; empty lists mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Endpoints that took part.
    pub(crate) endpoints: Vec<u16>,
    /// Kinds by their names: `drop`, `trace`, `debug`.
    pub(crate) kinds: Vec<String>,
}

impl Filter {
    fn admits(&self, event: &MonitorEvent) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == event.kind());
        kind && (self.endpoints.is_empty() || self.endpoints.iter().any(|&id| event.concerns(id)))
    }
}

/// One listener's place in the stream.
#[derive(Debug)]
pub(crate) struct Listener {
    events: broadcast::Receiver<Arc<MonitorEvent>>,
    filter: Filter,
    metrics: Arc<Metrics>,
}

impl Listener {
    /// The next event that the listener wants, or how many it missed; `None` when the agent stops.
    pub(crate) async fn next(&mut self) -> Option<Arc<MonitorEvent>> {
        loop {
            match self.events.recv().await {
                Ok(event) if self.filter.admits(&event) => return Some(event),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    warn!(count, "a reader of the monitor is too slow and missed events");
                    self.metrics.reader_lost.fetch_add(count, Ordering::Relaxed);
                    let lost =
                        LostEvent { time: Timestamp::now(), count, place: monitor::PLACE_READER.to_owned() };
                    return Some(Arc::new(MonitorEvent::Lost(lost)));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;
    use agent_api::monitor::{DropEvent, MonitorEvent, PacketInfo, TraceEvent};

    #[test]
    fn filters_by_kind_and_by_either_endpoint() {
        let packet = PacketInfo { endpoint: 3, to_endpoint: 4, ..PacketInfo::default() };
        let drop = MonitorEvent::Drop(DropEvent { packet: packet.clone(), ..DropEvent::default() });
        let trace = MonitorEvent::Trace(TraceEvent { packet, ..TraceEvent::default() });
        let filter = |endpoints: &[u16], kinds: &[&str]| Filter {
            endpoints: endpoints.to_vec(),
            kinds: kinds.iter().map(|&kind| kind.to_owned()).collect(),
        };
        assert!(filter(&[], &[]).admits(&drop));
        assert!(filter(&[4], &["drop"]).admits(&drop));
        assert!(filter(&[9, 3], &[]).admits(&trace));
        assert!(!filter(&[9], &[]).admits(&trace));
        assert!(!filter(&[], &["drop"]).admits(&trace));
    }
}
