//! Flows of traffic: what the agents tell of their rings of events.
//!
//! One task for each node follows the agent's monitor and asks again when the agent was killed. What is told while nobody follows is not
//! known; the comparison asks for flows only of traffic that nothing disturbs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agent_api::monitor::{DropEvent, MonitorEvent, PacketInfo, PolicyVerdictEvent, TraceEvent};
use agent_api::paths;
use lab::Cluster;
use sim_scenario::flows::{AFTERMATH, Flow, Observation, Packets, party};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// How long an agent that does not answer is left alone.
const RETRY: Duration = Duration::from_millis(50);
/// How long all agents may take to be followed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an agent takes to have its programs trace once it is followed.
const BEGINS: Duration = Duration::from_millis(200);
/// More events than these are not kept.
const MOST: usize = 500_000;

/// What was told, by which node and when.
#[derive(Debug, Default)]
struct Told {
    events: Vec<(Instant, String, MonitorEvent)>,
    /// When events were lost, or began to be left out.
    lost: Vec<Instant>,
}

/// Since when an agent is followed, if it is.
type Since = Arc<Mutex<Option<Instant>>>;

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows all agents; ends when dropped.
#[derive(Debug)]
pub(super) struct Monitors {
    told: Arc<Mutex<Told>>,
    followed: Vec<Since>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Monitors {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Monitors {
    /// Begins to follow the agents of a cluster.
    pub(super) fn start(cluster: &Cluster) -> Self {
        let told: Arc<Mutex<Told>> = Arc::default();
        let (mut followed, mut tasks) = (Vec::new(), Vec::new());
        for node in cluster.nodes() {
            let (name, socket) = (node.name().to_owned(), node.file(paths::API_SOCKET));
            let since = Since::default();
            tasks.push(tokio::spawn(follow(name, socket, Arc::clone(&told), Arc::clone(&since))));
            followed.push(since);
        }
        Self { told, followed, tasks }
    }

    /// Waits until all agents are followed, but not for an agent that is down.
    pub(super) async fn ready(&self) {
        let end = Instant::now() + PATIENCE;
        let begun = |since: &Since| locked(since).is_some_and(|at| at.elapsed() >= BEGINS);
        while !self.followed.iter().all(begun) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What was told of these packets between two moments, the second with what follows it; `None`: something was lost.
    pub(super) fn of(&self, packets: &[Packets], begun: Instant, ended: Instant) -> Option<BTreeSet<Flow>> {
        let time = begun..=ended + AFTERMATH;
        let told = locked(&self.told);
        if packets.is_empty() || told.lost.iter().any(|at| time.contains(at)) {
            return None;
        }
        let events = told.events.iter().filter(|(at, ..)| time.contains(at));
        Some(events.filter_map(|(_, node, event)| flow(node, event, packets)).collect())
    }
}

async fn follow(name: String, socket: PathBuf, told: Arc<Mutex<Told>>, followed: Since) {
    loop {
        // An end of the stream says that the agent has died, as does every error.
        let _ = read(&name, &socket, &told, &followed).await;
        *locked(&followed) = None;
        tokio::time::sleep(RETRY).await;
    }
}

async fn read(
    name: &str,
    socket: &PathBuf,
    told: &Mutex<Told>,
    followed: &Mutex<Option<Instant>>,
) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    // In version 1.0 there are no pieces to put together.
    stream.write_all(format!("GET {} HTTP/1.0\r\nHost: agent\r\n\r\n", paths::MONITOR).as_bytes()).await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        if locked(followed).is_none() {
            // After an empty line the head has ended.
            *locked(followed) = line.is_empty().then(Instant::now);
            continue;
        }
        let Ok(event) = serde_json::from_str::<MonitorEvent>(&line) else { continue };
        let (now, mut told) = (Instant::now(), locked(told));
        if matches!(event, MonitorEvent::Lost(_)) || told.events.len() >= MOST {
            told.lost.push(now);
        } else {
            told.events.push((now, name.to_owned(), event));
        }
    }
    Ok(())
}

/// The flow of an event, if its packet is one of these.
fn flow(node: &str, event: &MonitorEvent, packets: &[Packets]) -> Option<Flow> {
    let (what, packet) = match event {
        MonitorEvent::Drop(DropEvent { reason, direction, packet, .. }) => {
            (Observation::Drop(reason, direction), packet)
        }
        MonitorEvent::Trace(TraceEvent { point, packet, .. }) => (Observation::Trace(point), packet),
        MonitorEvent::PolicyVerdict(PolicyVerdictEvent { verdict, direction, packet, .. }) => {
            (Observation::PolicyVerdict(verdict, direction), packet)
        }
        MonitorEvent::Debug(_) | MonitorEvent::Lost(_) => return None,
    };
    let PacketInfo { source, destination, source_port, destination_port, protocol, .. } = packet;
    let ports = source_port.zip(*destination_port);
    let mut found =
        packets.iter().filter_map(|packets| packets.find(protocol, (*source)?, (*destination)?, ports));
    Some(Flow {
        node: node.to_owned(),
        event: what.to_string(),
        source: party(packet.source_identity),
        destination: party(packet.destination_identity),
        reply: found.next()?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use sim_scenario::model::TrafficKind;

    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn trace(from: u8, to: u8) -> MonitorEvent {
        MonitorEvent::Trace(TraceEvent {
            point: "to-endpoint".to_owned(),
            packet: PacketInfo {
                source: Some(ip(from)),
                destination: Some(ip(to)),
                protocol: "icmp".to_owned(),
                source_identity: 300,
                destination_identity: 2,
                ..PacketInfo::default()
            },
            ..TraceEvent::default()
        })
    }

    #[tokio::test]
    async fn flows_are_those_of_the_packets_in_their_time() {
        let begun = Instant::now();
        let ended = begun + Duration::from_secs(1);
        let events = vec![
            (ended, "node-1".to_owned(), trace(1, 2)),
            (ended, "node-1".to_owned(), trace(1, 3)),
            (ended + AFTERMATH * 2, "node-2".to_owned(), trace(2, 1)),
        ];
        let told = Told { events, lost: vec![ended + AFTERMATH * 2] };
        let monitors = Monitors { told: Arc::new(Mutex::new(told)), followed: Vec::new(), tasks: Vec::new() };
        let ping = Packets { kind: TrafficKind::Ping, from: Some(ip(1)), to: ip(2), port: None };
        let flows = monitors.of(std::slice::from_ref(&ping), begun, ended).expect("nothing was lost");
        let flow = Flow {
            node: "node-1".to_owned(),
            event: "trace to-endpoint".to_owned(),
            source: "pod".to_owned(),
            destination: "reserved 2".to_owned(),
            reply: false,
        };
        assert_eq!(flows, BTreeSet::from([flow]));
        assert_eq!(monitors.of(&[ping], begun, ended + AFTERMATH), None);
    }
}
