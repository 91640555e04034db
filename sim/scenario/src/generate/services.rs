//! Services: they come and go, and pods and nodes call them.
//!
//! What a call must come to is not said by the scenario: endpoints come and go, and the checker knows at each moment who may answer.

use std::time::Duration;

use serde_json::{Value, json};

use super::Generator;
use super::pods::Live;
use super::policies::NAMESPACES;
use crate::model::{Action, Families, ObjectRef, Place, Traffic, TrafficKind, Translation};
use crate::profile::Breakage;
use crate::rng::Rng;

/// Of clusters with identities so many have services.
const OF_CLUSTERS: f64 = 0.5;
/// More services than this at a time teach nothing.
const MOST: usize = 3;
/// Label by which services select pods.
pub(super) const LABEL: &str = "role";
/// Its values.
const ROLES: [&str; 2] = ["front", "back"];

/// First of the node ports that are asked for; each service has ten of its own.
const NODE_PORT: u64 = 30_100;

/// Whether a scenario has services.
pub(super) fn decide(seed: u64, policy: bool) -> bool {
    Rng::stream(seed, "services", 0).chance(OF_CLUSTERS) && policy
}

/// Where calls are translated.
pub(super) fn translation(seed: u64, services: bool) -> Translation {
    let all = [Translation::Socket, Translation::Packet, Translation::Packet, Translation::Both];
    let drawn = Rng::stream(seed, "service translation", 0).pick(&all).copied();
    drawn.filter(|_| services).unwrap_or_default()
}

/// The role of a pod, by its number.
pub(super) fn role(seed: u64, pod: u32) -> &'static str {
    let mut rng = Rng::stream(seed, "roles", u64::from(pod));
    rng.pick(&ROLES).copied().unwrap_or(ROLES[0])
}

impl Generator<'_> {
    /// Services come, change, go, and are called; not always.
    pub(super) fn services(&mut self) {
        if !self.cluster.kube_proxy_replacement {
            return;
        }
        let mut rng = std::mem::replace(&mut self.of_services, Rng::stream(0, "", 0));
        if self.services.is_empty() || (self.services.len() < MOST && rng.chance(0.3)) {
            self.services_made += 1;
            let name = format!("s{}", self.services_made);
            let namespace = NAMESPACES[usize::from(self.policed && rng.chance(0.3))];
            self.services.push((namespace, name));
            let index = self.services.len() - 1;
            self.apply_service(&mut rng, index);
        } else if rng.chance(0.2) {
            let index = rng.index(self.services.len());
            self.apply_service(&mut rng, index);
        } else if rng.chance(0.1) {
            let (namespace, name) = self.services.remove(rng.index(self.services.len()));
            self.push(Action::Delete(ObjectRef {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name,
                namespace: Some(namespace.to_owned()),
            }));
        }
        for _ in 0..rng.range(0..=2) {
            self.call(&mut rng);
        }
        self.of_services = rng;
        self.starts_amid_services();
    }

    /// An agent that has just been started works everything out anew, from lists that come in any order.
    fn starts_amid_services(&mut self) {
        let dies = self.profile.breakages.iter().any(|(breakage, _)| *breakage == Breakage::Kill);
        if dies && !self.services.is_empty() && self.of_outer_services.chance(0.2) {
            let node = self.of_outer_services.range(1..=u64::from(self.cluster.nodes));
            self.agent_dies(Some(format!("node-{node}")), Duration::ZERO);
        }
    }

    fn apply_service(&mut self, rng: &mut Rng, index: usize) {
        let (namespace, name) = self.services[index].clone();
        let role = rng.pick(&ROLES).copied().unwrap_or(ROLES[0]);
        let mut spec = json!({
            "selector": {LABEL: role},
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "tcp", "port": 9000},
                {"name": "udp", "port": 53, "targetPort": 5353, "protocol": "UDP"},
            ],
            "internalTrafficPolicy": if rng.chance(0.2) { "Local" } else { "Cluster" },
            "publishNotReadyAddresses": rng.chance(0.2),
        });
        if self.cluster.family == Families::Dual {
            spec["ipFamilyPolicy"] = json!("PreferDualStack");
        }
        spec["sessionAffinity"] = Value::from(if rng.chance(0.3) { "ClientIP" } else { "None" });
        self.open_to_outside(&name, &mut spec);
        self.push(Action::Apply(vec![json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        })]));
    }

    /// Services that are reached from outside too: at ports of nodes, at external addresses.
    fn open_to_outside(&mut self, name: &str, spec: &mut Value) {
        let rng = &mut self.of_outer_services;
        let number = number_of(name);
        let kind = rng.pick(&["ClusterIP", "NodePort", "LoadBalancer"]).copied().unwrap_or("ClusterIP");
        spec["type"] = Value::from(kind);
        if kind != "ClusterIP" {
            for (index, port) in (0..).zip(spec["ports"].as_array_mut().into_iter().flatten()) {
                port["nodePort"] = Value::from(node_port(number, index));
            }
        }
        let is_external = rng.chance(0.4);
        if is_external {
            spec["externalIPs"] = json!([external_ip(number)]);
        }
        if is_external || kind != "ClusterIP" {
            spec["externalTrafficPolicy"] = Value::from(if rng.chance(0.55) { "Local" } else { "Cluster" });
        }
    }

    /// Where a service may be called beside its own address, and at which port.
    fn outer_place(&mut self, name: &str, index: u64) -> Option<(Place, Option<u16>)> {
        let rng = &mut self.of_outer_services;
        let number = number_of(name);
        if rng.chance(0.5) {
            return None;
        }
        let is_v4 = self.cluster.family != Families::V6;
        if is_v4 && rng.chance(0.3) {
            return Some((Place::Address(external_ip(number).parse().ok()?), None));
        }
        let node = format!("node-{}", rng.range(1..=u64::from(self.cluster.nodes)));
        let port = u16::try_from(node_port(number, index)).ok()?;
        Some((Place::NodePort(node), Some(port)))
    }

    /// Somebody who is no node, at the port that a service has at nodes: that is no call to the service.
    fn stray(&self, name: &str, index: u64, ready: &[Live]) -> Option<(Place, Option<u16>)> {
        let mut rng = Rng::stream(self.seed, "strays", self.services_called.into());
        let pod = rng.pick(ready)?.clone();
        if !rng.chance(0.1) {
            return None;
        }
        let number = number_of(name);
        let place = Place::Pod { namespace: pod.namespace.to_owned(), name: pod.name };
        Some((place, u16::try_from(node_port(number, index)).ok()))
    }

    /// Somebody calls a service.
    fn call(&mut self, rng: &mut Rng) {
        let ready: Vec<_> = self.pods.iter().filter(|pod| pod.ready).cloned().collect();
        let Some((namespace, name)) = rng.pick(&self.services).cloned() else { return };
        let from = match rng.pick(&ready) {
            Some(pod) if rng.chance(0.8) => {
                Place::Pod { namespace: pod.namespace.to_owned(), name: pod.name.clone() }
            }
            _ => Place::Node(format!("node-{}", rng.range(1..=u64::from(self.cluster.nodes)))),
        };
        let kinds = [(TrafficKind::Http, 80), (TrafficKind::Tcp, 9000), (TrafficKind::Udp, 53)];
        let (kind, port) = rng.pick(&kinds).copied().unwrap_or((TrafficKind::Http, 80));
        self.services_called += 1;
        let index = kinds.iter().zip(0..).find(|(its, _)| its.1 == port).map_or(0, |(_, index)| index);
        let mut outer = self.outer_place(&name, index);
        if let Some(stray) = self.stray(&name, index, &ready).filter(|(to, _)| *to != from) {
            outer = Some(stray);
        }
        let has_its_family = matches!(outer, Some((Place::Address(_), _)));
        let service = Place::Service { namespace: namespace.to_owned(), name };
        let (to, outer_port) = outer.unwrap_or((service, None));
        let mut traffic = Traffic::new(&format!("c{}", self.services_called), from, to, kind);
        traffic.port = Some(outer_port.unwrap_or(port));
        // An address has one family.
        if self.cluster.family == Families::Dual && !has_its_family {
            traffic.family = rng.pick(&[None, Some(Families::V6)]).copied().flatten();
        }
        traffic.count = u32::try_from(rng.range(1..=20)).unwrap_or(1);
        traffic.interval = Duration::from_millis(rng.range(5..=400));
        traffic.timeout = Duration::from_secs(2);
        self.push(Action::Traffic(traffic));
    }
}

/// The number in the name of a service.
fn number_of(name: &str) -> u64 {
    name.trim_start_matches('s').parse().unwrap_or_default()
}

/// The port at nodes of a service's port with an index.
const fn node_port(number: u64, index: u64) -> u64 {
    NODE_PORT + number * 10 + index
}

/// The external address of a service.
fn external_ip(number: u64) -> String {
    format!("192.0.2.{}", number % 250 + 1)
}
