//! Who talks to whom.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::pods::Live;
use super::{Generator, percent};
use crate::judge::longest;
use crate::model::{Action, Families, Place, ServeKind, Traffic, TrafficKind, Until, World};

/// No pod listens here.
const CLOSED: u16 = 4444;

fn place(pod: &Live) -> Place {
    Place::Pod { namespace: pod.namespace.to_owned(), name: pod.name.clone() }
}

impl Generator<'_> {
    fn new_traffic(&mut self, from: Place, to: Place, kind: TrafficKind, port: Option<u16>) -> Traffic {
        self.traffic_made += 1;
        let mut traffic = Traffic::new(&format!("t{}", self.traffic_made), from, to, kind);
        traffic.port = port;
        if self.cluster.family == Families::Dual {
            let families = [None, Some(Families::V4), Some(Families::V6), Some(Families::Dual)];
            traffic.family = self.rng.pick(&families).copied().flatten();
        }
        traffic
    }

    /// A pod; mostly one that is ready.
    fn some_pod(&mut self) -> Option<Live> {
        let ready: Vec<Live> = self.pods.iter().filter(|pod| pod.ready).cloned().collect();
        let any = self.rng.chance(0.1) || ready.is_empty();
        let pods = if any { self.pods.clone() } else { ready };
        self.rng.pick(&pods).cloned()
    }

    fn some_node(&mut self) -> Place {
        Place::Node(format!("node-{}", self.rng.range(1..=u64::from(self.cluster.nodes))))
    }

    pub(super) fn some_traffic(&mut self) {
        let (from, to) = (self.some_pod(), self.some_pod());
        let (Some(from), Some(to)) = (from, to) else {
            return;
        };
        let mut traffic = match self.rng.below(10) {
            0 => {
                let node = self.some_node();
                self.new_traffic(place(&from), node, TrafficKind::Ping, None)
            }
            1 => {
                let node = self.some_node();
                self.new_traffic(node, place(&to), TrafficKind::Ping, None)
            }
            2 => {
                let (one, other) = (self.some_node(), self.some_node());
                if one == other {
                    return;
                }
                self.new_traffic(one, other, TrafficKind::Ping, None)
            }
            3 if self.policed => {
                let world = if self.rng.chance(0.5) { World::First } else { World::Second };
                let node = self.cluster.host_firewall && self.rng.chance(0.5);
                let from = if node { self.some_node() } else { place(&from) };
                self.new_traffic(from, Place::World(world), TrafficKind::Http, Some(80))
            }
            _ if from.name == to.name => return,
            _ if percent(&mut self.rng, self.profile.odd) => return self.odd(&from, &to),
            _ => {
                let (kind, port) = self.spoken(&to);
                self.new_traffic(place(&from), place(&to), kind, port)
            }
        };
        traffic.count = u32::try_from(self.rng.range(1..=10)).unwrap_or(1);
        traffic.interval = Duration::from_millis(self.rng.range(5..=200));
        traffic.size = u16::try_from(self.rng.range(0..=1000)).unwrap_or(0);
        traffic.timeout = Duration::from_secs(2);
        self.push(Action::Traffic(traffic));
    }

    /// Somebody who is ready pings the pod that was made last, and is pinged by it.
    pub(super) fn speak_with_the_last_pod(&mut self) {
        let Some(last) = self.pods.last().cloned() else { return };
        let ready: Vec<Live> = self.pods.iter().filter(|pod| pod.ready).cloned().collect();
        let Some(other) = self.rng.pick(&ready).cloned() else { return };
        for (from, to) in [(&last, &other), (&other, &last)] {
            let mut traffic = self.new_traffic(place(from), place(to), TrafficKind::Ping, None);
            (traffic.count, traffic.interval) = (5, Duration::from_millis(50));
            traffic.timeout = Duration::from_secs(1);
            self.push(Action::Traffic(traffic));
        }
    }

    /// Something that the pod answers.
    fn spoken(&mut self, to: &Live) -> (TrafficKind, Option<u16>) {
        let mut spoken = vec![(TrafficKind::Ping, None)];
        spoken.extend(to.serve.iter().map(|serve| {
            let kind = match serve.kind {
                ServeKind::Http => TrafficKind::Http,
                ServeKind::Tcp => TrafficKind::Tcp,
                ServeKind::Udp => TrafficKind::Udp,
            };
            (kind, Some(serve.port))
        }));
        self.rng.pick(&spoken).copied().unwrap_or((TrafficKind::Ping, None))
    }

    /// A closed port, or datagrams larger than a packet.
    fn odd(&mut self, from: &Live, to: &Live) {
        if self.rng.chance(0.5) {
            let kinds = [TrafficKind::Http, TrafficKind::Tcp, TrafficKind::Udp];
            let kind = self.rng.pick(&kinds).copied().unwrap_or(TrafficKind::Tcp);
            let mut traffic = self.new_traffic(place(from), place(to), kind, Some(CLOSED));
            traffic.timeout = Duration::from_secs(1);
            self.push(Action::Traffic(traffic));
            return;
        }
        let (kind, port) = match to.serve.iter().find(|serve| serve.kind == ServeKind::Udp) {
            Some(serve) if self.rng.chance(0.5) => (TrafficKind::Udp, Some(serve.port)),
            _ => (TrafficKind::Ping, None),
        };
        let mut traffic = self.new_traffic(place(from), place(to), kind, port);
        let most = if self.rng.chance(0.2) { 65_000 } else { 9_000 };
        traffic.size = u16::try_from(self.rng.range(1_400..=most)).unwrap_or(1_400);
        traffic.count = u32::try_from(self.rng.range(1..=3)).unwrap_or(1);
        traffic.timeout = Duration::from_secs(3);
        let id = traffic.id.clone();
        self.push(Action::Traffic(traffic));
        // One at a time: receivers have few places to put fragments together.
        self.wait(Until::Traffic(id));
    }

    /// A long connection with many small segments, beside everything else.
    pub(super) fn stream(&mut self, count: RangeInclusive<u64>) {
        let tcp =
            |pod: &Live| pod.serve.iter().find(|serve| serve.kind == ServeKind::Tcp).map(|serve| serve.port);
        let ready: Vec<Live> = self.pods.iter().filter(|pod| pod.ready).cloned().collect();
        let (Some(from), Some(to)) = (self.rng.pick(&ready).cloned(), self.rng.pick(&ready).cloned()) else {
            return;
        };
        let Some(port) = tcp(&to).filter(|_| from.name != to.name) else {
            return;
        };
        let mut traffic = self.new_traffic(place(&from), place(&to), TrafficKind::Tcp, Some(port));
        if traffic.family == Some(Families::Dual) {
            traffic.family = None;
        }
        traffic.count = u32::try_from(self.rng.range(count)).unwrap_or(50);
        traffic.interval = Duration::from_millis(self.rng.range(40..=200));
        traffic.size = u16::try_from(self.rng.range(1..=400)).unwrap_or(1);
        traffic.timeout = Duration::from_secs(2);
        traffic.background = true;
        debug_assert!(longest(&traffic) < super::LONG, "a wait for it must be sure");
        for pod in &mut self.pods {
            pod.anchor |= pod.name == from.name || pod.name == to.name;
        }
        self.streams.push((traffic.id.clone(), [from.name, to.name]));
        self.push(Action::Traffic(traffic));
    }

    /// A last ping between two pods.
    pub(super) fn ping(&mut self, from: usize, to: usize) {
        let (from, to) = (place(&self.pods[from]), place(&self.pods[to]));
        let traffic = self.new_traffic(from, to, TrafficKind::Ping, None);
        self.push(Action::Traffic(traffic));
    }
}
