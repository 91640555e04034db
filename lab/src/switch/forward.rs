//! The thread that moves frames.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use agent_node::{Netns, PacketSocket};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::frame::{self, Address};
use super::link::{Choices, pass};
use super::{Port, PortKind, Shared};

/// Frames read from one port before the others have their turn.
const BATCH: usize = 64;
/// How long it sleeps at most.
const IDLE: Duration = Duration::from_secs(60);
/// Frames that may be held back, all links together; more are lost.
const MOST_HELD: usize = 100_000;

/// A frame that is on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Instant,
    /// Frames due at once leave in the order in which they came.
    number: u64,
    port: usize,
    frame: Vec<u8>,
}

/// The state of the thread.
pub(super) struct Forwarder {
    shared: Arc<Shared>,
    sockets: Vec<PacketSocket>,
    exempt: Vec<IpAddr>,
    choices: Choices,
    /// Where a station was last heard.
    stations: BTreeMap<Address, usize>,
    held: BinaryHeap<Reverse<Held>>,
    number: u64,
}

impl Forwarder {
    pub(super) fn new(
        shared: Arc<Shared>,
        sockets: Vec<PacketSocket>,
        exempt: Vec<IpAddr>,
        seed: u64,
    ) -> Self {
        let choices = Choices::new(seed);
        Self {
            shared,
            sockets,
            exempt,
            choices,
            stations: BTreeMap::new(),
            held: BinaryHeap::new(),
            number: 0,
        }
    }

    /// Forwards until the switch is told to stop. The namespace is only held.
    pub(super) fn run(mut self, _netns: &Netns) {
        let mut buffer = vec![0; 1 << 16];
        while !self.shared.stop.load(Ordering::Acquire) {
            let readable = self.wait();
            for port in readable {
                self.read(port, &mut buffer);
            }
            self.deliver(Instant::now());
        }
    }

    /// Sleeps until a frame arrives or one is due; returns the ports with frames.
    fn wait(&self) -> Vec<usize> {
        let due = self.held.peek().map(|Reverse(held)| held.due);
        let sleep = due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()).min(IDLE));
        let mut fds: Vec<PollFd<'_>> =
            self.sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        fds.push(PollFd::new(self.shared.wake_fd(), PollFlags::POLLIN));
        // Interrupted or not: whoever has frames is asked again.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(sleep)), None);
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        (0..self.sockets.len()).filter(|port| ready(&fds[*port])).collect()
    }

    fn read(&mut self, port: usize, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            match self.sockets[port].receive(buffer) {
                Ok(Some(length)) if length <= buffer.len() => self.forward(port, &buffer[..length]),
                Ok(Some(_)) => self.shared.ports()[port].counters.too_large += 1,
                Ok(None) => return,
                // The link's other end went away; the lab is ending.
                Err(error) => {
                    tracing::debug!(port, %error, "the switch cannot read");
                    std::thread::sleep(Duration::from_millis(1));
                    return;
                }
            }
        }
    }

    fn forward(&mut self, from: usize, bytes: &[u8]) {
        let Some((destination, source)) = frame::addresses(bytes) else { return };
        if !frame::is_group(source) {
            self.stations.insert(source, from);
        }
        let to = match self.stations.get(&destination) {
            Some(port) if *port == from => return,
            Some(port) => *port..*port + 1,
            None => 0..self.sockets.len(),
        };
        let exempt =
            frame::ip_ends(bytes).is_some_and(|ends| ends.iter().any(|end| self.exempt.contains(end)));
        let shared = Arc::clone(&self.shared);
        let mut ports = shared.ports();
        let first = cross(&mut ports[from], &mut self.choices, exempt, bytes.to_vec());
        let now = Instant::now();
        for (delay, frame) in first {
            for port in to.clone().filter(|port| *port != from) {
                if !exempt && apart(&ports[from], &ports[port]) {
                    ports[port].counters.lost += 1;
                    continue;
                }
                let second = cross(&mut ports[port], &mut self.choices, exempt, frame.clone());
                for (more, frame) in second {
                    self.send(port, now, delay + more, frame);
                }
            }
        }
    }

    /// Sends a frame at once, or holds it until its time.
    fn send(&mut self, port: usize, now: Instant, delay: Duration, frame: Vec<u8>) {
        if delay.is_zero() {
            self.put(port, &frame);
        } else if self.held.len() < MOST_HELD {
            self.number += 1;
            self.held.push(Reverse(Held { due: now + delay, number: self.number, port, frame }));
        }
    }

    fn deliver(&mut self, now: Instant) {
        while self.held.peek().is_some_and(|Reverse(held)| held.due <= now) {
            if let Some(Reverse(held)) = self.held.pop() {
                self.put(held.port, &held.frame);
            }
        }
    }

    fn put(&self, port: usize, frame: &[u8]) {
        if let Err(error) = self.sockets[port].send(frame) {
            // As on a wire: who misses it asks again.
            tracing::debug!(port, length = frame.len(), %error, "the switch lost a frame");
        }
    }
}

/// A frame on one port's link, either way.
fn cross(port: &mut Port, choices: &mut Choices, exempt: bool, frame: Vec<u8>) -> Vec<super::link::Delivery> {
    port.counters.frames += 1;
    if !port.connected {
        port.counters.lost += 1;
        return Vec::new();
    }
    match &port.fault {
        Some(fault) if !exempt => pass(fault, choices, &mut port.counters, frame),
        _ => vec![(Duration::ZERO, frame)],
    }
}

/// Whether a partition lies between two ports.
fn apart(a: &Port, b: &Port) -> bool {
    a.kind == PortKind::Node && b.kind == PortKind::Node && (a.partitioned || b.partitioned)
}
