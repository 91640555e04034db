//! What the agents say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use agent_api::status::AgentState;
use agent_api::{Endpoint, IpcacheEntry, Status, paths};
use anyhow::Context as _;
use dataplane_abi::drop_reason::DropReason;
use lab::Cluster;
use lab::cluster::Node;
use serde::de::DeserializeOwned;

/// How long an agent that has just been started again may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What pods' kernels send by themselves (router solicitations, group memberships) and no program lets through; the simulator's pods have
/// no such kernels.
const CHATTER: DropReason = DropReason::ForbiddenIcmp6;

/// Drops by reason's name, all nodes together.
pub(super) type Drops = BTreeMap<String, u64>;

/// Asks until the agent answers.
async fn ask<T>(node: &Node, ask: impl Fn(&Node) -> std::io::Result<T>) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask(node) {
            Ok(answer) => return Ok(answer),
            Err(e) if Instant::now() > end => {
                return Err(e).with_context(|| format!("ask the agent of {}", node.name()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn ask_json<T: DeserializeOwned>(node: &Node, path: &str) -> anyhow::Result<T> {
    ask(node, |node| node.ask_agent(path)).await
}

/// Drops so far.
pub(super) async fn drops(cluster: &Cluster) -> anyhow::Result<Drops> {
    let mut drops = Drops::new();
    for node in cluster.nodes() {
        let text = ask(node, |node| node.ask_agent_text(paths::METRICS)).await?;
        for (reason, packets) in counted(&text) {
            *drops.entry(reason).or_default() += packets;
        }
    }
    Ok(drops)
}

/// The drop counters among the metrics.
fn counted(metrics: &str) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let labels = line.strip_prefix("bristle_drop_count_total{")?;
        let text = labels.split_once("reason=\"")?.1.split_once('"')?.0;
        let packets = line.rsplit(' ').next()?.parse().ok()?;
        let reason = DropReason::ALL.iter().find(|reason| reason.text() == text)?;
        (*reason != CHATTER).then(|| (reason.name().to_owned(), packets))
    };
    metrics.lines().filter_map(line).collect()
}

/// What was dropped since; reasons without any are left out.
pub(super) fn since(before: &Drops, now: &Drops) -> Drops {
    let more = |(reason, packets): (&String, &u64)| {
        let more = packets.saturating_sub(before.get(reason).copied().unwrap_or(0));
        (more > 0).then(|| (reason.clone(), more))
    };
    now.iter().filter_map(more).collect()
}

/// Addresses that pods have, on all nodes together.
pub(super) async fn allocated(cluster: &Cluster) -> anyhow::Result<u64> {
    let mut used = 0;
    for node in cluster.nodes() {
        let status: Status = ask_json(node, paths::STATUS).await?;
        used += status.ipam.iter().map(|pool| pool.used).sum::<u64>();
    }
    Ok(used)
}

/// Endpoints of a node's agent as `namespace/name`.
pub(super) async fn endpoints(node: &Node) -> anyhow::Result<BTreeSet<String>> {
    let list: Vec<Endpoint> = ask_json(node, paths::ENDPOINTS).await?;
    Ok(list.iter().map(|endpoint| format!("{}/{}", endpoint.namespace, endpoint.pod)).collect())
}

/// For the other nodes the number of prefixes behind them in this node's ipcache: those within what belongs to the node.
pub(super) async fn ipcache(
    node: &Node,
    blocks: &BTreeMap<String, Vec<(IpAddr, u8)>>,
) -> anyhow::Result<BTreeMap<String, u32>> {
    let rows: Vec<IpcacheEntry> = ask_json(node, paths::IPCACHE).await?;
    let mut behind = BTreeMap::new();
    for row in rows {
        let (ip, bits) = (row.prefix.addr(), row.prefix.prefix_len());
        let owner = blocks.iter().find(|(_, blocks)| blocks.iter().any(|block| contains(*block, ip, bits)));
        if let Some((owner, _)) = owner.filter(|(owner, _)| *owner != node.name()) {
            *behind.entry(owner.clone()).or_default() += 1;
        }
    }
    Ok(behind)
}

fn contains((block, length): (IpAddr, u8), ip: IpAddr, bits: u8) -> bool {
    let shift = |most: u8| u32::from(most - length.min(most));
    let same = match (block, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
        }
        _ => false,
    };
    same && bits >= length
}

/// When each agent was last told something by the API server; agents that do not answer are left out.
pub(super) fn last_events(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut events = BTreeMap::new();
    for node in cluster.nodes() {
        if let Ok(status) = node.ask_agent::<Status>(paths::STATUS) {
            let last = status.kubernetes.last_event.map(|at| at.to_string());
            events.insert(node.name().to_owned(), last.unwrap_or_default());
        }
    }
    events
}

/// Why a node's agent is not at rest. Which endpoints it has is not asked: after a restored state it may know them without their names,
/// and of a pod whose DEL comes late it has one still.
pub(super) fn restless(cluster: &Cluster, node: &Node, seen: &BTreeMap<String, String>) -> Option<String> {
    let name = node.name();
    let say = |what: String| Some(format!("the agent of {name} {what}"));
    let status: Status = match node.ask_agent(paths::STATUS) {
        Ok(status) => status,
        Err(e) => return say(format!("does not answer ({e})")),
    };
    let last = status.kubernetes.last_event.map(|at| at.to_string()).unwrap_or_default();
    if !status.kubernetes.synced || seen.get(name).is_none_or(|before| *before == last) {
        return say("has not seen every object".to_owned());
    }
    if status.state != AgentState::Ready {
        return say(format!("is {:?}: {}", status.state, status.reason.unwrap_or_default()));
    }
    if status.reconcile.pending > 0 || status.reconcile.error.is_some() {
        return say(format!("has {} rows and links left to write", status.reconcile.pending));
    }
    if status.nodes != cluster.nodes().len() {
        return say(format!("knows {} nodes", status.nodes));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_by_their_names_without_chatter() {
        let text = "# TYPE bristle_drop_count_total counter\n\
            bristle_drop_count_total{direction=\"EGRESS\",reason=\"Invalid source ip\"} 3\n\
            bristle_drop_count_total{reason=\"Invalid source ip\",direction=\"INGRESS\"} 2\n\
            bristle_drop_count_total{reason=\"Forbidden ICMPv6 message\",direction=\"EGRESS\"} 9\n\
            bristle_drop_bytes_total{reason=\"Invalid source ip\",direction=\"EGRESS\"} 300\n";
        let name = || "INVALID_SOURCE_IP".to_owned();
        assert_eq!(counted(text), [(name(), 3), (name(), 2)]);
        let (before, now) = (Drops::from([(name(), 3)]), Drops::from([(name(), 5), ("OTHER".into(), 0)]));
        assert_eq!(since(&before, &now), Drops::from([(name(), 2)]));
        assert_eq!(since(&now, &now), Drops::new());
    }

    #[test]
    fn a_prefix_belongs_to_the_block_that_contains_it() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (block, length, address, bits, expected) in [
            ("10.11.1.0", 24, "10.11.1.0", 24, true),
            ("10.11.1.0", 24, "10.11.1.7", 32, true),
            ("10.11.1.0", 24, "10.11.0.0", 16, false),
            ("10.11.1.0", 24, "10.11.2.7", 32, false),
            ("10.0.0.1", 32, "10.0.0.1", 32, true),
            ("fd00::", 112, "fd00::ffff", 128, true),
            ("fd00::", 112, "fd00::1:0", 128, false),
            ("0.0.0.0", 0, "1.2.3.4", 32, true),
            ("0.0.0.0", 0, "fd00::", 128, false),
        ] {
            assert_eq!(contains((ip(block), length), ip(address), bits), expected, "{address}/{bits}");
        }
    }
}
