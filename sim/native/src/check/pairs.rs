//! At rest: who can open a connection to whom is exactly what the objects say.
//!
//! First packets run through the real programs on copies of the tables, so that nothing of it stays behind.

use std::net::IpAddr;

use agent_control::ports::OVERLAY_LINK;
use dataplane_abi::program::Program;
use dataplane_abi::{Addr, DropReason};
use dataplane_core::Verdict;
use dataplane_native::craft::Craft;
use dataplane_native::{Frame, Native, Tables, Tunnel};
use sim_oracle::{Attempt, End, Protocol};
use sim_scenario::rng::Rng;

use super::verdicts::pod_end;
use crate::node::UNDERLAY;
use crate::outside::SERVERS;
use crate::queue::NodeId;
use crate::world::World;

/// Of more attempts than this some are tried.
const MOST: usize = 400;

/// A port at which no pod of most scenarios listens.
const CLOSED: u16 = 4444;

/// Where a first packet came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// It is not for policy to say: it has left the cluster, or reached its end.
    Through,
    /// Policy dropped it, on that node.
    Stopped(NodeId),
    /// Something else dropped it.
    Lost(NodeId, DropReason),
}

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
    /// The first attempt whose outcome is not what the objects say.
    pub(super) fn check_pairs(&self) -> Option<String> {
        if !self.has_policies || self.is_bulk() {
            return None;
        }
        let copies: Vec<Native> = self.nodes.iter().map(|node| copy(&node.native)).collect();
        let mut attempts = self.attempts();
        let mut rng = Rng::stream(self.seed, "pairs", self.stats.tasks);
        if attempts.len() > MOST {
            rng.shuffle(&mut attempts);
            attempts.truncate(MOST);
        }
        attempts.iter().find_map(|(from, to, attempt)| {
            let verdict = self.oracle.judge(attempt);
            let came = self.send_first(&copies, *from, *to, attempt)?;
            let why = match came {
                Came::Through if verdict.allowed => return None,
                Came::Stopped(_) if !verdict.allowed => return None,
                Came::Through => "gets through".to_owned(),
                Came::Stopped(n) => format!("is dropped by policy on {}", self.nodes[n].name),
                Came::Lost(n, reason) => {
                    format!("is dropped on {} as `{}`", self.nodes[n].name, reason.text())
                }
            };
            Some(format!("{attempt} {why}, but: {verdict}"))
        })
    }

    /// What can be tried: sender, destination, and how the objects name it.
    fn attempts(&self) -> Vec<((NodeId, IpAddr), IpAddr, Attempt)> {
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
        let mut attempts = Vec::new();
        for pod in &pods {
            for source in &pod.addresses {
                for (to, addresses, ports) in &ends {
                    for address in addresses.iter().filter(|ip| ip.is_ipv4() == source.is_ipv4()) {
                        if address == source || self.is_lost(*source) || self.is_lost(*address) {
                            continue;
                        }
                        for (protocol, port) in ports {
                            let request = if source.is_ipv4() { 8 } else { 128 };
                            let attempt = Attempt {
                                from: pod_end(&pod.name),
                                to: to.clone(),
                                family: crate::world::family(*source),
                                protocol: *protocol,
                                port: Some(if *protocol == Protocol::Icmp { request } else { *port }),
                            };
                            attempts.push(((pod.node, *source), *address, attempt));
                        }
                    }
                }
            }
        }
        attempts
    }

    /// Sends a first packet; `None` if its sender has no interface.
    fn send_first(
        &self,
        copies: &[Native],
        (n, source): (NodeId, IpAddr),
        to: IpAddr,
        attempt: &Attempt,
    ) -> Option<Came> {
        let node = &self.nodes[n];
        let (ifindex, link) = node.links.iter().find(|(_, link)| link.pod_addresses.contains(&source))?;
        let craft = Craft::new(source, to).macs(link.pod_mac, link.mac);
        let port = attempt.port.unwrap_or_default();
        let bytes = match attempt.protocol {
            Protocol::Udp => craft.udp(33_333, port, b"first"),
            Protocol::Icmp => craft.echo(true, 7, 1, b"first"),
            _ => craft.tcp(33_333, port, 2, &[]),
        };
        let mut frame = Frame::new(bytes, *ifindex);
        frame.accepted = true;
        let verdict = copies[n].run(Program::FromContainer, &mut frame);
        let (m, program, mut next) = match verdict {
            Verdict::Tunnel { .. } => {
                let to = frame.to_tunnel?;
                let remote = Addr(to.node).to_ip(dataplane_abi::Family::from_number(to.family)?);
                let m = self.node_at(remote)?;
                let outer = node.addresses.iter().find(|ip| ip.is_ipv4() == remote.is_ipv4())?;
                let (own, family) = Addr::from_ip(*outer);
                let (overlay, _) = self.nodes[m].link(OVERLAY_LINK)?;
                let mut next = Frame::new(frame.bytes, overlay);
                next.from_tunnel = Some(Tunnel { node: own.0, family: family as u8, key: to.key });
                (m, Program::FromOverlay, next)
            }
            Verdict::Neighbour { .. } => {
                let Some(m) = self.owner(to).map(|(m, ..)| m) else { return Some(Came::Through) };
                let mut bytes = frame.bytes;
                bytes.get_mut(..6)?.copy_from_slice(&self.nodes[m].mac);
                (m, Program::FromNetdev, Frame::new(bytes, UNDERLAY))
            }
            verdict => return Some(came(n, verdict)),
        };
        next.accepted = true;
        Some(came(m, copies[m].run(program, &mut next)))
    }
}

fn came(n: NodeId, verdict: Verdict) -> Came {
    match verdict {
        Verdict::Drop(DropReason::PolicyDenied | DropReason::PolicyDenyRule) => Came::Stopped(n),
        Verdict::Drop(reason) => Came::Lost(n, reason),
        _ => Came::Through,
    }
}

/// The same tables without connections and counters.
fn copy(native: &Native) -> Native {
    let mut tables = Tables::default();
    for name in ["CONFIG", "ENDPOINTS", "IPCACHE", "POLICY", "POLICY_BLOCKS", "POLICY_L4"] {
        for (key, value) in native.tables().dump(name).unwrap_or_default() {
            // They fit where they come from a table of the same size.
            let _ = tables.update(name, &key, &value);
        }
    }
    let copy = Native::with_tables(tables);
    copy.set_clock(native.clock());
    copy
}
