//! At rest: who can open a connection to whom is exactly what the objects say.
//!
//! First packets run through the real programs on copies of the tables, so that nothing of it stays behind.

use std::collections::BTreeSet;
use std::net::IpAddr;

use agent_control::ports::{HOST_LINK, OVERLAY_LINK, Table};
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};
use dataplane_abi::policy::{Direction as PolicyDirection, PolicyKey};
use dataplane_abi::program::Program;
use dataplane_abi::{Addr, DropReason};
use dataplane_core::Verdict;
use dataplane_native::craft::Craft;
use dataplane_native::{Frame, Native, Tables, Tunnel};
use ipnet::IpNet;
use sim_oracle::{Attempt, Direction, End, Protocol, Reason};
use sim_scenario::model::Routing;
use sim_scenario::rng::Rng;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::staged;
use super::verdicts::pod_end;
use super::views::allows;
use crate::node::{LinkView, UNDERLAY};
use crate::outside::SERVERS;
use crate::queue::NodeId;
use crate::world::World;

/// Of more attempts than this some are tried.
const MOST: usize = 400;
/// So many are tried once more.
const MOST_AGAIN: usize = 100;
/// How often a row that an agent writes, and that may matter, is followed by a look at what is between it and its next command.
const BETWEEN: f64 = 0.6;
/// Attempts of such a look.
const MOST_BETWEEN: usize = 16;
/// The port of who opens.
const OWN_PORT: u16 = 33_333;

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

/// Who sends: a node and an address of its or of a pod of its; no node: somebody outside.
type Source = (Option<NodeId>, IpAddr);

/// What is tried: from where, to which address, and how the objects name it.
type Tried = (Source, IpAddr, Attempt);

/// Who can be sent to: how the objects name it, where it is, and what is tried.
type Target = (End, Vec<IpAddr>, Vec<(Protocol, u16)>);

/// A pod that can send.
struct Pod {
    node: NodeId,
    name: String,
    addresses: Vec<IpAddr>,
    ports: Vec<(Protocol, u16)>,
}

/// What a row that was written is about.
enum Written {
    /// Whose packets meet it: those of senders, or to receivers, whose peers it is for.
    Policy(PolicyKey, BTreeSet<IpAddr>),
    /// Addresses.
    Net(IpNet),
}

impl Written {
    /// Whether a first packet from here to there meets it, by the tables as they are.
    fn is_met_by(&self, tables: &Tables, source: IpAddr, to: IpAddr) -> bool {
        let (key, own) = match self {
            Self::Net(net) => return net.contains(&source) || net.contains(&to),
            Self::Policy(key, own) => (key, own),
        };
        let (end, peer) =
            if key.direction == PolicyDirection::Egress as u8 { (source, to) } else { (to, source) };
        let (address, family) = Addr::from_ip(peer);
        let row = tables.lookup("IPCACHE", IpCacheKey::host(address, family).as_bytes());
        let row = row.and_then(|row| IpCacheEntry::read_from_bytes(&row).ok());
        let identity = row.map_or(PolicyKey::EVERYBODY, |row| row.identity);
        let own_row = PolicyKey { identity, ..*key };
        let falls_to_all = || tables.lookup("POLICY", own_row.as_bytes()).is_none();
        own.contains(&end)
            && (key.identity == identity || (key.identity == PolicyKey::EVERYBODY && falls_to_all()))
    }
}

impl World {
    /// What the row with this key is about; `None`: no packet meets it.
    fn written(&self, n: NodeId, table: Table, key: &[u8]) -> Option<Written> {
        let tables = self.nodes[n].native.tables();
        if table == Table::Endpoints {
            return Some(Written::Net(EndpointKey::read_from_bytes(key).ok()?.ip()?.into()));
        }
        if table == Table::Ipcache {
            let (address, len) = IpCacheKey::read_from_bytes(key).ok()?.to_prefix()?;
            return Some(Written::Net(IpNet::new(address, len).ok()?));
        }
        let key = PolicyKey::read_from_bytes(key).ok()?;
        let own: BTreeSet<IpAddr> = tables
            .dump("ENDPOINTS")
            .unwrap_or_default()
            .into_iter()
            .filter(|(_, row)| EndpointEntry::read_from_bytes(row).is_ok_and(|row| row.policy == key.policy))
            .filter_map(|(address, _)| EndpointKey::read_from_bytes(&address).ok()?.ip())
            .collect();
        (!own.is_empty()).then_some(Written::Policy(key, own))
    }

    /// The first attempt whose outcome is not what the objects say, or is not counted as they say.
    pub(super) fn check_pairs(&self) -> Option<String> {
        if !self.policies.any || !self.has_identities() {
            return None;
        }
        let mut copies: Vec<Native> = self.nodes.iter().map(|node| copy(&node.native)).collect();
        let mut attempts = self.attempts();
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

    /// What can be tried: sender, destination, and how the objects name it.
    fn attempts(&self) -> Vec<Tried> {
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
            let outside = SERVERS.iter().flatten();
            senders.extend(outside.map(|address| (None, End::Outside(*address), vec![*address])));
        }
        let mut attempts = Vec::new();
        for (node, from, addresses) in &senders {
            // Of what comes from outside only what is for nodes comes by itself.
            let meets = |to: &End| *from != *to && (node.is_some() || matches!(to, End::Node { .. }));
            for source in addresses {
                for (to, addresses, ports) in ends.iter().filter(|(to, ..)| meets(to)) {
                    for address in addresses.iter().filter(|ip| ip.is_ipv4() == source.is_ipv4()) {
                        if self.is_lost(*source) || self.is_lost(*address) {
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

    /// Sends a first packet; `None` if its sender has no interface.
    fn send_first(&self, copies: &[Native], from: Source, to: IpAddr, attempt: &Attempt) -> Option<Came> {
        let bytes = self.first(from, to, attempt);
        match from.0 {
            Some(n) => self.leave(copies, n, from.1, to, bytes),
            None => {
                let m = self.node_at(to)?;
                Some(came(m, run(&copies[m], Program::FromNetdev, UNDERLAY, bytes)))
            }
        }
    }

    /// Sends the answer to a first packet; `None` if nobody answers here.
    fn send_answer(&self, copies: &[Native], ((home, source), to, attempt): &Tried) -> Option<Came> {
        let n = self.node_of(*to)?;
        let craft = Craft::new(*to, *source);
        let craft = match self.link_of(n, *to) {
            Some((_, link)) => craft.macs(link.pod_mac, link.mac),
            None => craft.macs([2; 6], [2; 6]),
        };
        let port = attempt.port.unwrap_or_default();
        let bytes = match attempt.protocol {
            Protocol::Udp => craft.udp(port, OWN_PORT, b"answer"),
            Protocol::Icmp => craft.echo(false, 7, 1, b"first"),
            _ => craft.tcp(port, OWN_PORT, 0x12, &[]),
        };
        if home.is_none() {
            return Some(came(n, run(&copies[n], Program::ToNetdev, UNDERLAY, bytes)));
        }
        self.leave(copies, n, *to, *source, bytes)
    }

    /// The first packet of a connection.
    fn first(&self, (n, source): Source, to: IpAddr, attempt: &Attempt) -> Vec<u8> {
        let link = n.and_then(|n| self.link_of(n, source));
        let macs = link.map_or(([2; 6], [2; 6]), |(_, link)| (link.pod_mac, link.mac));
        let craft = Craft::new(source, to).macs(macs.0, macs.1);
        let port = attempt.port.unwrap_or_default();
        match attempt.protocol {
            Protocol::Udp => craft.udp(OWN_PORT, port, b"first"),
            Protocol::Icmp => craft.echo(true, 7, 1, b"first"),
            _ => craft.tcp(OWN_PORT, port, 2, &[]),
        }
    }

    /// The link of the pod of a node that has an address.
    fn link_of(&self, n: NodeId, address: IpAddr) -> Option<(u32, &LinkView)> {
        let mut links = self.nodes[n].links.iter();
        links.find(|(_, link)| link.pod_addresses.contains(&address)).map(|(ifindex, link)| (*ifindex, link))
    }

    /// The node that has an address, or a pod with it.
    fn node_of(&self, address: IpAddr) -> Option<NodeId> {
        self.owner(address).map(|(n, ..)| n).or_else(|| self.node_at(address))
    }

    /// A packet of a node, or of a pod of its.
    fn leave(
        &self,
        copies: &[Native],
        n: NodeId,
        source: IpAddr,
        to: IpAddr,
        bytes: Vec<u8>,
    ) -> Option<Came> {
        if self.node_at(source) == Some(n) {
            return self.sent_by_node(copies, n, to, bytes);
        }
        self.sent_by_pod(copies, n, self.link_of(n, source)?.0, to, bytes)
    }

    /// A state between two commands of the agent of a node: what its programs say of first packets must be what the objects say as
    /// they are or were.
    pub(crate) fn look_between(&mut self, n: NodeId, table: Table, key: &[u8]) {
        if !self.policies.any || !self.has_identities() || self.is_over() {
            return;
        }
        self.between += 1;
        let mut rng = Rng::stream(self.seed, "between", self.between);
        if !rng.chance(BETWEEN) {
            return;
        }
        let Some(written) = self.written(n, table, key) else { return };
        let mut attempts = self.attempts();
        let tables = self.nodes[n].native.tables();
        attempts
            .retain(|((home, source), to, _)| *home == Some(n) && written.is_met_by(tables, *source, *to));
        rng.shuffle(&mut attempts);
        attempts.truncate(MOST_BETWEEN);
        let copy = copy(&self.nodes[n].native);
        for ((home, source), to, attempt) in attempts {
            let bytes = self.first((home, source), to, &attempt);
            let Some(verdict) = self.first_step(&copy, n, source, to, bytes) else { continue };
            let here = self.node_of(to) == Some(n);
            let Some(possible) = self.check.views.possible(&attempt, [source, to], self.now) else {
                continue;
            };
            let wrong = match came(n, verdict) {
                Came::Through => !possible.passes(here),
                Came::Stopped(_) => !possible.is_stopped(here),
                Came::Lost(..) => false,
            };
            if wrong {
                let word = if matches!(verdict, Verdict::Drop(_)) { "drops" } else { "lets through" };
                let message = format!(
                    "between two commands of its agent {} {word} {attempt}: {}",
                    self.nodes[n].name,
                    self.oracle.judge(&attempt)
                );
                self.violate("policy", message);
                return;
            }
        }
    }

    /// What the first program says of a packet of a node, or of a pod of its.
    fn first_step(
        &self,
        native: &Native,
        n: NodeId,
        source: IpAddr,
        to: IpAddr,
        bytes: Vec<u8>,
    ) -> Option<Verdict> {
        let (program, ifindex) = if let Some((ifindex, _)) = self.link_of(n, source) {
            (Program::FromContainer, ifindex)
        } else if let Some((ifindex, _)) = self.link_of(n, to) {
            (Program::ToContainer, ifindex)
        } else if self.owner(to).is_some() && self.cluster.routing == Routing::Vxlan {
            (Program::FromHost, self.nodes[n].link(HOST_LINK)?.0)
        } else {
            (Program::ToNetdev, UNDERLAY)
        };
        Some(run(native, program, ifindex, bytes))
    }

    fn sent_by_pod(
        &self,
        copies: &[Native],
        n: NodeId,
        ifindex: u32,
        to: IpAddr,
        bytes: Vec<u8>,
    ) -> Option<Came> {
        let mut frame = Frame::new(bytes, ifindex);
        frame.accepted = true;
        let verdict = copies[n].run(Program::FromContainer, &mut frame);
        let by_netdev = |m: NodeId, mut bytes: Vec<u8>| {
            bytes.get_mut(..6)?.copy_from_slice(&self.nodes[m].mac);
            Some(came(m, run(&copies[m], Program::FromNetdev, UNDERLAY, bytes)))
        };
        match verdict {
            Verdict::Tunnel { .. } => {
                let tunnel = frame.to_tunnel?;
                let remote = Addr(tunnel.node).to_ip(dataplane_abi::Family::from_number(tunnel.family)?);
                self.tunnelled(copies, n, self.node_at(remote)?, tunnel.key, frame.bytes)
            }
            // Where nodes are not judged theirs are not looked at.
            Verdict::Neighbour { .. } | Verdict::Pass | Verdict::Skip => {
                let node = self.node_at(to).filter(|m| self.cluster.host_firewall && *m != n);
                let by_neighbour = matches!(verdict, Verdict::Neighbour { .. });
                let pod = self.owner(to).map(|(m, ..)| m).filter(|_| by_neighbour);
                node.or(pod).map_or_else(|| Some(came(n, verdict)), |m| by_netdev(m, frame.bytes))
            }
            verdict => Some(came(n, verdict)),
        }
    }

    /// A packet of a node's own: to its pods, to those elsewhere as packets of pods go there, to all others by the underlay.
    fn sent_by_node(&self, copies: &[Native], n: NodeId, to: IpAddr, bytes: Vec<u8>) -> Option<Came> {
        let node = &self.nodes[n];
        let pod = self.owner(to).map(|(m, ..)| m);
        if pod == Some(n) {
            let (ifindex, _) = self.link_of(n, to)?;
            return Some(came(n, run(&copies[n], Program::ToContainer, ifindex, bytes)));
        }
        if pod.is_some() && self.cluster.routing == Routing::Vxlan {
            let mut frame = Frame::new(bytes, node.link(HOST_LINK)?.0);
            return match copies[n].run(Program::FromHost, &mut frame) {
                Verdict::Tunnel { .. } => {
                    let tunnel = frame.to_tunnel?;
                    let remote = Addr(tunnel.node).to_ip(dataplane_abi::Family::from_number(tunnel.family)?);
                    self.tunnelled(copies, n, self.node_at(remote)?, tunnel.key, frame.bytes)
                }
                verdict => Some(came(n, verdict)),
            };
        }
        let left = came(n, run(&copies[n], Program::ToNetdev, UNDERLAY, bytes.clone()));
        match pod.or_else(|| self.node_at(to)) {
            Some(m) if left == Came::Through => {
                Some(came(m, run(&copies[m], Program::FromNetdev, UNDERLAY, bytes)))
            }
            _ => Some(left),
        }
    }

    /// A packet comes out of the tunnel between two nodes.
    fn tunnelled(&self, copies: &[Native], n: NodeId, m: NodeId, key: u32, bytes: Vec<u8>) -> Option<Came> {
        let v4 = self.nodes[m].addresses.first()?.is_ipv4();
        let outer = self.nodes[n].addresses.iter().find(|ip| ip.is_ipv4() == v4)?;
        let (own, family) = Addr::from_ip(*outer);
        let (overlay, _) = self.nodes[m].link(OVERLAY_LINK)?;
        let mut next = Frame::new(bytes, overlay);
        next.accepted = true;
        next.from_tunnel = Some(Tunnel { node: own.0, family: family as u8, key });
        Some(came(m, copies[m].run(Program::FromOverlay, &mut next)))
    }
}

fn run(native: &Native, program: Program, ifindex: u32, bytes: Vec<u8>) -> Verdict {
    let mut frame = Frame::new(bytes, ifindex);
    frame.accepted = true;
    native.run(program, &mut frame)
}

/// What all nodes have counted of staged policies.
fn all_staged(copies: &[Native]) -> [u64; 2] {
    let sums = copies.iter().map(|copy| staged::sums(copy.tables()));
    sums.fold([0; 2], |all, sums| [all[0] + sums[0], all[1] + sums[1]])
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

/// Makes every connection be judged again.
fn raise_revision(native: &mut Native) {
    let Some(mut config) = native.tables().config.get(0).copied() else { return };
    config.revision = config.revision.wrapping_add(1);
    // The row is there, and as large.
    let _ = native.tables_mut().update("CONFIG", &0_u32.to_ne_bytes(), config.as_bytes());
}
