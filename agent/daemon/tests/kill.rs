//! The agent's death is not noticed: under a running TCP stream and 100 pings per second in each family, the agents of
//! two nodes are killed fifty times with SIGKILL, at any moment of their start too. No connection and no packet is lost,
//! through the tunnel as by the nodes' own routes.
//!
//! Needs root and the built programs (`cargo xtask test` builds them); without either it says so and passes, unless
//! `BRISTLE_REQUIRE_ALL=1`.

#[path = "kill/ping.rs"]
mod ping;
#[path = "kill/stream.rs"]
mod stream;
#[path = "support/pods.rs"]
mod support;

use lab::plan::Routing;
use lab::{BlockingCluster, Cluster};
use ping::Ping;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use stream::Stream;
use support::{PATIENCE, can_run, start_pod};

const KILLS: usize = 50;

/// Kills the agent of one node and then the other's, with pauses from nothing to longer than a start takes.
fn kill_agents(cluster: &BlockingCluster) {
    for round in 0..KILLS {
        let node = &cluster.nodes()[round % cluster.nodes().len()];
        let agent = node.agent();
        let since = std::time::Instant::now();
        while !cluster.kill_agent(node.name()).expect("the node is there") {
            assert!(since.elapsed() < PATIENCE, "the agent of {} was not started again", node.name());
            std::thread::sleep(Duration::from_millis(5));
        }
        let starts = agent.starts();
        // 0 to 780 ms in an order that hits every stage of a start.
        std::thread::sleep(Duration::from_millis((round as u64 * 260 + round as u64 / 3 * 65) % 800));
        assert!(agent.starts() >= starts);
    }
}

/// One at a time: two clusters at once would make each other's starts slow, and with them the moments of the kills.
static ONE_CLUSTER: Mutex<()> = Mutex::new(());

#[test]
fn fifty_kills_lose_no_connection_and_no_packet() {
    kill_under_traffic(Routing::Vxlan);
}

#[test]
fn fifty_kills_lose_no_connection_and_no_packet_of_native_routing() {
    kill_under_traffic(Routing::Native);
}

fn kill_under_traffic(routing: Routing) {
    if !can_run("kill test") {
        return;
    }
    let _alone = ONE_CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::builder().nodes(2).routing(routing).blocking().expect("a cluster of two nodes");
    let nodes: Vec<String> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let client = start_pod(&cluster, "client", &nodes[0]);
    let server = start_pod(&cluster, "server", &nodes[1]);
    let neighbour = start_pod(&cluster, "neighbour", &nodes[0]);

    let mut streams = Vec::new();
    let mut pings = Vec::new();
    for peer in [&server, &neighbour] {
        assert_eq!(peer.ips.len(), 2, "one address of each family: {:?}", peer.ips);
        for &ip in &peer.ips {
            streams.push((ip, Stream::start(&client.netns, &peer.netns, ip)));
            pings.push((ip, Ping::start(&client.netns, ip)));
        }
    }

    kill_agents(&cluster);

    let starts: u64 = cluster.nodes().iter().map(|node| node.agent().starts()).sum();
    assert!(starts >= KILLS as u64, "agents were started {starts} times");
    for (ip, stream) in streams {
        let figures = stream.stop();
        eprintln!("TCP  {ip}: {} exchanges, longest {:?}", figures.exchanges, figures.longest);
        assert!(figures.exchanges > 1000, "the stream to {ip} stood still");
    }
    for (ip, ping) in pings {
        let figures = ping.stop();
        eprintln!("ping {ip}: {} sent, {} answered", figures.sent, figures.answered);
        assert!(figures.sent > 500, "pings to {ip} were not sent");
        assert_eq!(figures.sent - figures.answered, 0, "packets lost to {ip}");
    }
    // And the agents are well: a new pod gets its network and is reached.
    let late = start_pod(&cluster, "late", &nodes[1]);
    for &ip in &late.ips {
        let ping = Ping::start(&client.netns, ip);
        std::thread::sleep(Duration::from_millis(300));
        let figures = ping.stop();
        assert!(figures.sent > 10 && figures.sent == figures.answered, "{figures:?} to {ip} after the kills");
    }
}
