//! Traffic of a scenario: who sends, what became of it.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use sim_api::object::{at, list_at, name, namespace, str_at};
use sim_api::resource::{PODS, SERVICES};
use sim_net::{ClientId, ClientKind, ClientReport, ClientSpec};
use sim_scenario::answers::{Answers, Wanted, pod_name};
use sim_scenario::flows::{self, Flow, Packets};
use sim_scenario::model::{Families, Place, Traffic, TrafficKind, World as OutsideServer};
use sim_scenario::outcome::TrafficOutcome;

use crate::kubelet::SandboxId;
use crate::outside::SERVERS;
use crate::queue::{NodeId, Task};
use crate::world::World;

/// How often running traffic is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// Where a client runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// In a pod.
    Pod(NodeId, SandboxId),
    /// On a node.
    Node(NodeId),
}

/// A traffic that has begun.
#[derive(Debug)]
pub(crate) struct TrafficState {
    /// What it is.
    pub(crate) spec: Traffic,
    families: VecDeque<bool>,
    current: Option<(Sender, ClientId)>,
    /// The client's last report, while it runs.
    last: Option<ClientReport>,
    /// The sum over the families that are done.
    total: Counts,
    /// Answers over HTTP of the families that are done.
    answers: Answers,
    /// What they must be like.
    pub(crate) wanted: Wanted,
    /// It has ended.
    pub(crate) ended: bool,
    /// It could not begin, or an end of it went away.
    pub(crate) trouble: Option<String>,
    /// When something was answered last.
    pub(crate) last_answer: Option<Duration>,
    /// Nodes that it begins or ends on.
    pub(crate) nodes: BTreeSet<NodeId>,
    /// Since when its wires are whole; `None`: they are not. As it was when it ended, if it has.
    pub(crate) whole_since: Option<Duration>,
    /// Which packets are its own, for each family that has begun.
    pub(crate) packets: Vec<Packets>,
    /// What was told of them; `None`: not all is known.
    pub(crate) flows: Option<BTreeSet<Flow>>,
    /// When it ended.
    pub(crate) ended_at: Option<Duration>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Sent.
    pub(crate) sent: u32,
    /// Answered.
    pub(crate) answered: u32,
    /// Reset or refused connections.
    pub(crate) resets: u32,
    /// ICMP errors.
    pub(crate) refused: u32,
}

impl Counts {
    const fn add(&mut self, report: &ClientReport) {
        self.sent += report.sent;
        self.answered += report.answered;
        self.resets += report.resets;
        self.refused += report.refused;
    }
}

impl TrafficState {
    /// What has come of it until now.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = self.total;
        if let Some(report) = &self.last {
            counts.add(report);
        }
        counts
    }

    /// Who has answered until now.
    pub(crate) fn answers(&self) -> Answers {
        let mut answers = self.answers.clone();
        if let Some(report) = &self.last {
            take_in(&mut answers, report);
        }
        answers
    }

    /// The outcome in terms of all arms.
    pub(crate) fn outcome(&self) -> TrafficOutcome {
        let counts = self.counts();
        let verdict = if counts.sent > 0 && counts.answered == counts.sent {
            "ok"
        } else if counts.answered > 0 {
            "lost"
        } else if counts.resets + counts.refused > 0 {
            "refused"
        } else {
            "silent"
        };
        TrafficOutcome {
            sent: counts.sent,
            answered: counts.answered,
            resets: counts.resets + counts.refused,
            verdict: verdict.to_owned(),
            flows: self.flows.clone(),
        }
    }
}

fn take_in(answers: &mut Answers, report: &ClientReport) {
    for ((server, caller), count) in &report.answers {
        answers.add(*server, *caller, *count);
    }
}

impl World {
    /// What the answers to traffic must be like.
    fn wanted(&self, spec: &Traffic) -> Wanted {
        let addresses = |pod: &Value| -> Vec<IpAddr> {
            let ips = list_at(pod, &["status", "podIPs"]).iter();
            ips.filter_map(|ip| str_at(ip, &["ip"]).parse().ok()).collect()
        };
        let mut wanted = Wanted { by: spec.answered_by.clone(), ..Wanted::default() };
        if let Some(by) = &spec.answered_by {
            let named: Vec<String> = by.pods().iter().map(|pod| pod_name(pod)).collect();
            let mut pods: Vec<_> = self
                .store
                .list(&PODS, "")
                .iter()
                .map(|pod| (format!("{}/{}", namespace(pod), name(pod)), addresses(pod)))
                .collect();
            // Pods in a node's network share its address: it is of those that are named.
            pods.sort_by_key(|(name, _)| named.contains(name));
            for (name, addresses) in pods {
                wanted.servers.extend(addresses.into_iter().map(|ip| (ip, name.clone())));
            }
        }
        wanted.callers = spec.seen_as.as_ref().map(|place| match place {
            Place::Pod { namespace, name } => self
                .store
                .get(&PODS, namespace, name)
                .map(|pod| addresses(&pod).into_iter().collect())
                .unwrap_or_default(),
            Place::Node(name) => {
                let node = self.nodes.iter().find(|node| node.name == *name);
                node.map(|node| node.addresses.iter().copied().collect()).unwrap_or_default()
            }
            _ => BTreeSet::new(),
        });
        wanted
    }

    /// Traffic begins.
    pub(crate) fn begin_traffic(&mut self, spec: &Traffic) {
        let both = [true, false].into_iter();
        let families = match (spec.family, self.cluster.family) {
            (Some(Families::V4), _) => VecDeque::from([true]),
            (Some(Families::V6), _) => VecDeque::from([false]),
            (Some(Families::Dual), _) => both.collect(),
            (None, Families::V6) => VecDeque::from([false]),
            (None, _) => VecDeque::from([true]),
        };
        let state = TrafficState {
            spec: spec.clone(),
            families,
            current: None,
            last: None,
            total: Counts::default(),
            answers: Answers::default(),
            wanted: self.wanted(spec),
            ended: false,
            trouble: None,
            last_answer: None,
            nodes: BTreeSet::new(),
            whole_since: None,
            packets: Vec::new(),
            flows: self.odd.is_none().then(BTreeSet::new),
            ended_at: None,
        };
        self.traffic.insert(spec.id.clone(), state);
        self.go_on_with_traffic(&spec.id);
    }

    /// Looks at running traffic, begins its next family, or ends it.
    pub(crate) fn go_on_with_traffic(&mut self, id: &str) {
        let Some(state) = self.traffic.get(id) else { return };
        if state.ended {
            return;
        }
        if let Some((sender, client)) = state.current {
            let report = self.client(sender, client).cloned();
            let Some(state) = self.traffic.get_mut(id) else { return };
            if let Some(report) = report {
                state.last_answer = state.last_answer.max(report.last_answer);
                let finished = report.finished;
                state.last = Some(report);
                if !finished {
                    self.after(GLANCE, Task::Traffic(id.to_owned()));
                    return;
                }
            }
            self.end_family(id);
        }
        let Some(state) = self.traffic.get_mut(id) else { return };
        let Some(v4) = state.families.pop_front() else {
            self.end_traffic(id);
            return;
        };
        let spec = state.spec.clone();
        match self.start_client(&spec, v4) {
            Ok(current) => {
                let (Sender::Pod(n, _) | Sender::Node(n)) = current.0;
                let to = self.address_of(&spec.to, v4).ok().and_then(|to| self.node_of(to));
                if let Some(state) = self.traffic.get_mut(id) {
                    state.nodes.extend([n].into_iter().chain(to));
                    state.current = Some(current);
                }
                self.after(GLANCE, Task::Traffic(id.to_owned()));
            }
            Err(trouble) => {
                if let Some(state) = self.traffic.get_mut(id) {
                    state.trouble = Some(trouble);
                }
                self.end_traffic(id);
            }
        }
    }

    /// Since when the wires of the nodes of a traffic are whole; `None`: they are not.
    pub(crate) fn whole_since(&self, state: &TrafficState) -> Option<Duration> {
        if state.ended { state.whole_since } else { self.cluster_faults.wires_whole_since(&state.nodes) }
    }

    fn end_traffic(&mut self, id: &str) {
        if let Some(state) = self.traffic.get_mut(id) {
            state.ended = true;
            state.ended_at = Some(self.now);
            state.whole_since = self.cluster_faults.wires_whole_since(&state.nodes);
        }
    }

    fn end_family(&mut self, id: &str) {
        let Some(state) = self.traffic.get_mut(id) else { return };
        if let Some(report) = state.last.take() {
            state.total.add(&report);
            take_in(&mut state.answers, &report);
        }
        if let Some((sender, client)) = state.current.take() {
            match sender {
                Sender::Pod(n, sandbox) => {
                    let sandbox = self.nodes[n].kubelet.sandboxes.get_mut(&sandbox);
                    if let Some(host) = sandbox.and_then(|sandbox| sandbox.host.as_mut()) {
                        host.stop(client);
                    }
                }
                Sender::Node(n) => self.nodes[n].stack.stop(client),
            }
        }
    }

    /// The pod that sends is ended: what its clients have said until now stands.
    pub(crate) fn traffic_loses_sender(&mut self, n: NodeId, sandbox: SandboxId) {
        let of = Sender::Pod(n, sandbox);
        let ids: Vec<String> = self
            .traffic
            .iter()
            .filter(|(_, state)| state.current.is_some_and(|(sender, _)| sender == of))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.go_on_with_traffic(&id);
            self.end_family(&id);
            if let Some(state) = self.traffic.get_mut(&id)
                && !state.ended
            {
                state.trouble = Some("the pod that sends was deleted".to_owned());
                self.end_traffic(&id);
            }
        }
    }

    /// What a client has to say.
    pub(crate) fn client(&self, sender: Sender, client: ClientId) -> Option<&ClientReport> {
        match sender {
            Sender::Pod(n, sandbox) => {
                self.nodes[n].kubelet.sandboxes.get(&sandbox)?.host.as_ref()?.client(client)
            }
            Sender::Node(n) => self.nodes[n].stack.client(client),
        }
    }

    fn start_client(&mut self, spec: &Traffic, v4: bool) -> Result<(Sender, ClientId), String> {
        self.remember_service(&spec.to);
        let to = self.address_of(&spec.to, v4)?;
        let from = flows::keep_sender(spec).then(|| self.address_of(&spec.from, v4)).transpose()?;
        let packets =
            flows::are_known(spec).then_some(Packets { kind: spec.kind, from, to, port: spec.port });
        self.expect_packets(&spec.id, packets);
        let client = ClientSpec {
            kind: match spec.kind {
                TrafficKind::Ping => ClientKind::Ping,
                TrafficKind::Http => ClientKind::Http,
                TrafficKind::Tcp => ClientKind::TcpEcho,
                TrafficKind::Udp => ClientKind::UdpEcho,
            },
            to,
            port: spec.port.unwrap_or(0),
            count: spec.count,
            interval: spec.interval,
            size: spec.size,
            timeout: spec.timeout,
        };
        let now = self.now;
        match &spec.from {
            Place::Pod { namespace, name } => {
                let (n, sandbox) = self
                    .running_pod(&format!("{namespace}/{name}"))
                    .ok_or_else(|| format!("{} does not run", spec.from))?;
                let host = self.nodes[n].kubelet.sandboxes.get_mut(&sandbox).and_then(|s| s.host.as_mut());
                let id = host.ok_or_else(|| format!("{} does not run", spec.from))?.start(now, client);
                self.wake_pod(n, sandbox, Duration::ZERO);
                Ok((Sender::Pod(n, sandbox), id))
            }
            Place::Node(name) => {
                let n = self.node_named(name).ok_or_else(|| format!("there is no {name}"))?;
                let id = self.nodes[n].stack.start(now, client);
                self.plan_stack(n);
                Ok((Sender::Node(n), id))
            }
            other => Err(format!("{other} cannot send")),
        }
    }

    /// Takes in the addresses of a service; what it has no more is still known.
    fn remember_service(&mut self, place: &Place) {
        let Place::Service { namespace, name } = place else { return };
        let Ok(service) = self.store.get(&SERVICES, namespace, name) else { return };
        let listed = list_at(&service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
        let all = listed.chain(at(&service, &["spec", "clusterIP"]).as_str());
        let ips: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
        if !ips.is_empty() {
            self.service_addresses.insert(format!("{namespace}/{name}"), ips);
        }
    }

    fn expect_packets(&mut self, id: &str, packets: Option<Packets>) {
        let Some(state) = self.traffic.get_mut(id) else { return };
        match packets {
            Some(packets) => state.packets.push(packets),
            None => state.flows = None,
        }
    }

    /// Where a pod runs.
    pub(crate) fn running_pod(&self, pod: &str) -> Option<(NodeId, SandboxId)> {
        self.nodes.iter().enumerate().find_map(|(n, node)| Some((n, node.kubelet.running(pod)?.1)))
    }

    /// The address of a place.
    fn address_of(&self, place: &Place, v4: bool) -> Result<IpAddr, String> {
        let pick = |addresses: &[IpAddr]| {
            let found = addresses.iter().find(|ip| ip.is_ipv4() == v4).copied();
            found.ok_or_else(|| format!("{place} has no address of that family"))
        };
        match place {
            Place::Pod { namespace, name } => {
                let (n, sandbox) = self
                    .running_pod(&format!("{namespace}/{name}"))
                    .ok_or_else(|| format!("{place} does not run"))?;
                pick(&self.nodes[n].kubelet.sandboxes[&sandbox].addresses)
            }
            Place::Node(name) | Place::NodePort(name) => {
                let n = self.node_named(name).ok_or_else(|| format!("there is no {name}"))?;
                pick(&self.nodes[n].addresses)
            }
            Place::Service { namespace, name } => {
                let name = format!("{namespace}/{name}");
                let ips =
                    self.service_addresses.get(&name).ok_or_else(|| format!("{place} has no address"))?;
                pick(ips)
            }
            Place::World(OutsideServer::First) => pick(&SERVERS[0]),
            Place::World(OutsideServer::Second) => pick(&SERVERS[1]),
            Place::Address(ip) => Ok(*ip),
        }
    }
}
