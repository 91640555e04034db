//! At rest: who can open a connection to whom is exactly what the objects say.

use std::net::IpAddr;

use dataplane_native::Native;
use sim_oracle::{Attempt, Direction, End, Protocol, Reason};
use sim_scenario::rng::Rng;
use zerocopy::IntoBytes as _;

use super::firsts::{Came, Source, Tried, copy};
use super::staged;
use super::verdicts::pod_end;
use super::views::allows;
use crate::outside::SERVERS;
use crate::queue::NodeId;
use crate::world::World;

/// Of more attempts than this some are tried.
const MOST: usize = 400;
/// So many are tried once more.
const MOST_AGAIN: usize = 100;
/// A port at which no pod of most scenarios listens.
const CLOSED: u16 = 4444;

/// Who can be sent to: how the objects name it, where it is, and what is tried.
type Target = (End, Vec<IpAddr>, Vec<(Protocol, u16)>);

/// A pod that can send.
struct Pod {
    node: NodeId,
    name: String,
    addresses: Vec<IpAddr>,
    ports: Vec<(Protocol, u16)>,
}

impl World {
    /// The first attempt whose outcome is not what the objects say, or is not counted as they say.
    pub(super) fn check_pairs(&self) -> Option<String> {
        if !self.policies.any || !self.has_identities() {
            return None;
        }
        let mut copies: Vec<Native> = self.nodes.iter().map(|node| copy(&node.native)).collect();
        let mut attempts = self.attempts(|_, _| true);
        let mut rng = Rng::stream(self.seed, "pairs", self.stats.tasks);
        if attempts.len() > MOST {
            rng.shuffle(&mut attempts);
            attempts.truncate(MOST);
        }
        if let Some(wrong) = attempts.iter().find_map(|tried| self.check_first(&copies, tried)) {
            return Some(wrong);
        }
        // Everything is judged once more: what is known by now passes both ways, and is not counted again.
        copies.iter_mut().for_each(raise_revision);
        attempts.truncate(MOST_AGAIN);
        let again = attempts.iter().find_map(|tried| self.check_again(&copies, tried));
        copies.iter_mut().for_each(raise_revision);
        again.or_else(|| attempts.iter().find_map(|tried| self.check_answer(&copies, tried)))
    }

    /// Whether a connection that has begun is not counted again; if it is, a word on it.
    fn check_again(&self, copies: &[Native], (from, to, attempt): &Tried) -> Option<String> {
        let before = all_staged(copies);
        let came = self.send_first(copies, *from, *to, attempt)?;
        let is_counted = came == Came::Through && all_staged(copies) != before;
        is_counted.then(|| format!("{attempt}: a known connection is counted again for staged policies"))
    }

    /// Whether the answer to what gets through gets through too; if not, how.
    fn check_answer(&self, copies: &[Native], tried: &Tried) -> Option<String> {
        let attempt = &tried.2;
        if self.check.views.api_server.judge(&self.oracle, attempt) != [true; 2] {
            return None;
        }
        let (n, reason) = match self.send_answer(copies, tried)? {
            Came::Through => return None,
            Came::Stopped(n) => (n, "policy"),
            Came::Lost(n, reason) => (n, reason.text()),
        };
        Some(format!("{attempt} gets through, but {} drops the answer: {reason}", self.nodes[n].name))
    }

    /// Whether a first packet fares, and is counted, as the objects say; if not, how.
    fn check_first(&self, copies: &[Native], (from, to, attempt): &Tried) -> Option<String> {
        let before = self.policies.staged.then(|| all_staged(copies));
        let [egress, ingress] = self.check.views.api_server.judge(&self.oracle, attempt);
        let why = match self.send_first(copies, *from, *to, attempt)? {
            Came::Through if egress && ingress => None,
            Came::Stopped(_) if !(egress && ingress) => None,
            Came::Through => Some("gets through".to_owned()),
            Came::Stopped(n) => Some(format!("is dropped by policy on {}", self.nodes[n].name)),
            Came::Lost(n, reason) => {
                Some(format!("is dropped on {} as `{}`", self.nodes[n].name, reason.text()))
            }
        };
        if let Some(why) = why {
            return Some(format!("{attempt} {why}, but: {}", self.oracle.judge(attempt)));
        }
        let before = before?;
        let after = all_staged(copies);
        let counted = [after[0] - before[0], after[1] - before[1]];
        let wanted = self.would(attempt, *from, [egress, ingress]);
        (counted != wanted).then(|| {
            let (now, then) = (self.oracle.judge(attempt), self.oracle.judge_with_staged(attempt));
            format!(
                "{attempt}: that staged policies would allow and deny it is counted {counted:?} times, not {wanted:?}: {now}; with them {then}"
            )
        })
    }

    /// How often the first packet of a connection is to be counted as one that staged policies would allow, or deny. `passes`: egress and
    /// ingress by the policies that are in force.
    fn would(&self, attempt: &Attempt, from: Source, passes: [bool; 2]) -> [u64; 2] {
        let (now, then) = (self.oracle.judge(attempt), self.oracle.judge_with_staged(attempt));
        // What no rule decides with them is nobody's count: a staged rule has only passed it on.
        let is_somebodys = |direction| {
            then.why.iter().any(|why| why.direction == direction && why.reason != Reason::NotIsolated)
        };
        let differs = |direction| {
            let (now, then) = (allows(&now, direction), allows(&then, direction));
            let counts = |would| u64::from(would && is_somebodys(direction));
            [counts(!now && then), counts(now && !then)]
        };
        let (egress, ingress) = (differs(Direction::Egress), differs(Direction::Ingress));
        let to = match &attempt.to {
            End::Pod { namespace, name } => self.running_pod(&format!("{namespace}/{name}")).map(|(n, _)| n),
            End::Node { name } => self.node_named(name),
            End::Outside(_) => None,
        };
        let together = from.0 == to;
        match passes {
            [false, _] => [egress[0], 0],
            // Where both are asked at once, what is dropped is not also a connection that would be denied.
            [true, false] => [ingress[0], if together { 0 } else { egress[1] }],
            [true, true] => [0, egress[1] + ingress[1]],
        }
    }

    /// What can be tried from and to addresses that are `wanted`: sender, destination, and how the objects name it.
    pub(super) fn attempts(&self, wanted: impl Fn(Source, IpAddr) -> bool) -> Vec<Tried> {
        let mut pods = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            for sandbox in node.kubelet.sandboxes.values().filter(|sandbox| sandbox.host.is_some()) {
                let work = node.kubelet.pods.get(&sandbox.uid);
                let serve = work.map(|work| work.serve.as_slice()).unwrap_or_default();
                let mut ports: Vec<(Protocol, u16)> = serve
                    .iter()
                    .map(|serve| {
                        let udp = serve.kind == sim_scenario::model::ServeKind::Udp;
                        (if udp { Protocol::Udp } else { Protocol::Tcp }, serve.port)
                    })
                    .collect();
                ports.extend([(Protocol::Tcp, CLOSED), (Protocol::Icmp, 0)]);
                pods.push(Pod {
                    node: n,
                    name: sandbox.pod.clone(),
                    addresses: sandbox.addresses.clone(),
                    ports,
                });
            }
        }
        let mut ends: Vec<Target> =
            pods.iter().map(|pod| (pod_end(&pod.name), pod.addresses.clone(), pod.ports.clone())).collect();
        let some = vec![(Protocol::Tcp, 80), (Protocol::Icmp, 0)];
        for node in &self.nodes {
            ends.push((End::Node { name: node.name.clone() }, node.addresses.clone(), some.clone()));
        }
        for address in SERVERS.iter().flatten() {
            ends.push((End::Outside(*address), vec![*address], some.clone()));
        }
        let mut senders: Vec<(Option<NodeId>, End, Vec<IpAddr>)> =
            pods.iter().map(|pod| (Some(pod.node), pod_end(&pod.name), pod.addresses.clone())).collect();
        if self.cluster.host_firewall {
            let end = |name: &String| End::Node { name: name.clone() };
            let nodes = self.nodes.iter().enumerate();
            senders.extend(nodes.map(|(n, node)| (Some(n), end(&node.name), node.addresses.clone())));
        }
        let outside = SERVERS.iter().flatten();
        senders.extend(outside.map(|address| (None, End::Outside(*address), vec![*address])));
        let mut attempts = Vec::new();
        for (node, from, addresses) in &senders {
            // Nobody carries what goes from outside to outside, and nodes are judged only where they have policies.
            let comes = |to: &End| match to {
                End::Pod { .. } => true,
                End::Node { .. } => self.cluster.host_firewall,
                End::Outside(_) => false,
            };
            let meets = |to: &End| *from != *to && (node.is_some() || comes(to));
            for source in addresses {
                for (to, addresses, ports) in ends.iter().filter(|(to, ..)| meets(to)) {
                    for address in addresses.iter().filter(|ip| ip.is_ipv4() == source.is_ipv4()) {
                        if !wanted((*node, *source), *address)
                            || self.is_lost(*source)
                            || self.is_lost(*address)
                        {
                            continue;
                        }
                        for (protocol, port) in ports {
                            let request = if source.is_ipv4() { 8 } else { 128 };
                            let attempt = Attempt {
                                from: from.clone(),
                                to: to.clone(),
                                family: crate::world::family(*source),
                                protocol: *protocol,
                                port: Some(if *protocol == Protocol::Icmp { request } else { *port }),
                            };
                            attempts.push(((*node, *source), *address, attempt));
                        }
                    }
                }
            }
        }
        attempts
    }
}

/// What all nodes have counted of staged policies.
fn all_staged(copies: &[Native]) -> [u64; 2] {
    let sums = copies.iter().map(|copy| staged::sums(copy.tables()));
    sums.fold([0; 2], |all, sums| [all[0] + sums[0], all[1] + sums[1]])
}

/// Makes every connection be judged again.
fn raise_revision(native: &mut Native) {
    let Some(mut config) = native.tables().config.get(0).copied() else { return };
    config.revision = config.revision.wrapping_add(1);
    // The row is there, and as large.
    let _ = native.tables_mut().update("CONFIG", &0_u32.to_ne_bytes(), config.as_bytes());
}
