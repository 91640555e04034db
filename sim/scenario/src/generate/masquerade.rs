//! Pods speak with the world, and their nodes do too; random numbers of their own, so that nothing else shifts.

use std::time::Duration;

use super::Generator;
use crate::model::{Action, Families, Place, Traffic, TrafficKind, World};
use crate::rng::Rng;

/// In so many clusters pods are masqueraded.
const OF_CLUSTERS: f64 = 0.5;
/// No server outside listens here: its stack complains.
const CLOSED: u16 = 4444;

/// Whether pods of a scenario are masqueraded.
pub(super) fn decide(seed: u64) -> bool {
    Rng::stream(seed, "masquerade", 0).chance(OF_CLUSTERS)
}

impl Generator<'_> {
    /// Some call the world, where pods are masqueraded.
    pub(super) fn calls_of_world(&mut self) {
        if !self.cluster.masquerade {
            return;
        }
        let mut rng = std::mem::replace(&mut self.of_world, Rng::stream(0, "", 0));
        for _ in 0..rng.range(0..=2) {
            self.call_world(&mut rng);
        }
        self.of_world = rng;
    }

    fn call_world(&mut self, rng: &mut Rng) {
        let ready: Vec<_> = self.pods.iter().filter(|pod| pod.ready).cloned().collect();
        let from = match rng.pick(&ready) {
            Some(pod) if rng.chance(0.85) => {
                Place::Pod { namespace: pod.namespace.to_owned(), name: pod.name.clone() }
            }
            _ => Place::Node(format!("node-{}", rng.range(1..=u64::from(self.cluster.nodes)))),
        };
        let world = if rng.chance(0.7) { World::First } else { World::Second };
        let kinds = [
            (TrafficKind::Http, Some(80)),
            (TrafficKind::Http, Some(443)),
            (TrafficKind::Ping, None),
            (TrafficKind::Ping, None),
            (TrafficKind::Udp, Some(CLOSED)),
        ];
        let (kind, port) = rng.pick(&kinds).copied().unwrap_or((TrafficKind::Ping, None));
        self.world_called += 1;
        let mut traffic = Traffic::new(&format!("w{}", self.world_called), from, Place::World(world), kind);
        traffic.port = port;
        if self.cluster.family == Families::Dual {
            traffic.family = rng.pick(&[None, Some(Families::V6), Some(Families::Dual)]).copied().flatten();
        }
        traffic.count = u32::try_from(rng.range(1..=8)).unwrap_or(1);
        traffic.interval = Duration::from_millis(rng.range(5..=400));
        // Pings in fragments too.
        let most = if kind == TrafficKind::Ping && rng.chance(0.2) { 4000 } else { 600 };
        traffic.size = u16::try_from(rng.range(0..=most)).unwrap_or(0);
        traffic.timeout = Duration::from_secs(2);
        self.push(Action::Traffic(traffic));
    }
}
