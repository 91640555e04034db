//! Contenders whose services are kube-proxy's rules: two pods behind a node that forwards, and the rules on the node.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{Context as _, bail};

use super::model::{NODE_PORT, PORT, Place, Service, Size, services};
use super::{rules_iptables, rules_nft};
use crate::net::contender::Topology;
use crate::net::netns::Netns;
use crate::net::yardsticks;

/// Where the world meets the node.
const PLACE: Place = Place { pods: "10.10.0.0/16", node: Ipv4Addr::new(192, 168, 50, 1) };
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);

/// A mode of kube-proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// Verdict maps.
    Nftables,
    /// Lists of rules.
    Iptables,
}

impl Proxy {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nftables, Self::Iptables];

    /// As tables call it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }

    /// The contender with so many services.
    pub const fn contender(self, size: &Size) -> &'static str {
        match self {
            Self::Nftables => size.nftables,
            Self::Iptables => size.iptables,
        }
    }

    /// The contender that is called from outside.
    pub const fn from_outside(self) -> &'static str {
        match self {
            Self::Nftables => "nftables-node-port",
            Self::Iptables => "iptables-node-port",
        }
    }

    /// Whether tool and kernel can do it: one service's rules are loaded into a namespace that goes at once.
    pub fn try_out(self) -> anyhow::Result<()> {
        let node = Netns::new(self.word(), "try")?;
        self.load(&node, &services(1, SocketAddrV4::new(Ipv4Addr::new(10, 10, 1, 3), PORT), true))
    }

    fn load(self, node: &Netns, services: &[Service]) -> anyhow::Result<()> {
        let (program, rules): (&[&str], _) = match self {
            Self::Nftables => (&["nft", "-f", "-"], rules_nft::rules(services, &PLACE)),
            Self::Iptables => (&["iptables-restore"], rules_iptables::rules(services, &PLACE)),
        };
        node.exec(program, Some(&rules))
            .with_context(|| format!("load rules (Debian's package {} has {})", self.word(), program[0]))
    }

    /// Pods and node with the rules, and, if `at_nodes`, how the last service is called from outside.
    pub fn set_up(self, size: &Size, at_nodes: bool) -> anyhow::Result<(Topology, Option<Topology>)> {
        let mut topology = yardsticks::routed(self.contender(size))?;
        let SocketAddr::V4(server) = topology.target else { bail!("the server has no IPv4 address") };
        let all = services(size.services, server, at_nodes);
        let node = topology.owned.last().context("the node is the last namespace of a routed topology")?;
        let outside = at_nodes.then(|| self.outside(node, &topology)).transpose()?;
        self.load(node, &all)?;
        if at_nodes {
            // All who are masqueraded call one endpoint: with the usual two minutes their ports run out within seconds.
            node.set("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1")?;
        }
        let called = all.last().context("there is a service")?;
        topology.target = SocketAddr::from((called.address, called.port));
        Ok((topology, outside))
    }

    /// Somebody outside, on a wire of his own to the node.
    fn outside(self, node: &Netns, inside: &Topology) -> anyhow::Result<Topology> {
        let outside = Netns::new(self.from_outside(), "outside")?;
        yardsticks::wire(node, &outside)?;
        node.ip(&[&format!("addr add {}/24 dev wire", PLACE.node)])?;
        outside.ip(&[&format!("addr add {OUTSIDE}/24 dev wire")])?;
        Ok(Topology {
            client: outside.path(),
            client_cgroup: None,
            server: inside.server.clone(),
            target: SocketAddr::from((PLACE.node, NODE_PORT)),
            owned: vec![outside],
        })
    }
}
