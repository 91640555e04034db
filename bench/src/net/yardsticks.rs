//! What ours is compared with: the direct veth pair, and what the kernel does by itself as others set it up.

use std::net::{Ipv4Addr, SocketAddr};

use super::contender::Topology;
use super::netns::{Netns, command};
use crate::traffic::PORT;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 3);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 10, 2, 3);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);
const REMOTE_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 2, 1);
const HOST_MAC: &str = "ee:ee:ee:ee:ee:ee";
const MTU_BYTES: u32 = 1500;
const OVERLAY_MTU_BYTES: u32 = 1450;

/// Builds a topology for the contender of this name.
pub type SetUp = fn(&str) -> anyhow::Result<Topology>;

/// All yardsticks in the order of the tables.
pub const ALL: [(&str, SetUp); 5] = [
    ("limit", limit),
    ("kernel-routing", routed),
    ("bridge", bridge),
    ("host-gw", host_gw),
    ("flannel-vxlan", flannel_vxlan),
];

fn topology(client: Netns, server: Netns, address: Ipv4Addr, nodes: Vec<Netns>) -> Topology {
    let mut owned = vec![];
    let paths = (client.path(), server.path());
    owned.extend([client, server]);
    owned.extend(nodes);
    let target = SocketAddr::from((address, PORT));
    Topology { client: paths.0, client_cgroup: None, server: paths.1, target, owned }
}

/// Two pods on one veth pair and nothing between.
pub fn limit(name: &str) -> anyhow::Result<Topology> {
    let (client, server) = (Netns::new(name, "client")?, Netns::new(name, "server")?);
    veth(&client, "eth0", &server, "eth0", MTU_BYTES, "")?;
    client.ip(&[&format!("addr add {CLIENT}/24 dev eth0")])?;
    server.ip(&[&format!("addr add {SERVER}/24 dev eth0")])?;
    Ok(topology(client, server, SERVER, vec![]))
}

/// Two pods with /32 addresses behind a node that forwards: the plain kernel without rules. The node is the last of its
/// namespaces.
pub fn routed(name: &str) -> anyhow::Result<Topology> {
    let node = node(name, "node")?;
    let client = routed_pod(name, &node, "client", CLIENT)?;
    let server = routed_pod(name, &node, "server", SERVER)?;
    Ok(topology(client, server, SERVER, vec![node]))
}

/// Two pods on a Linux bridge, as the `bridge` plugin sets it up.
fn bridge(name: &str) -> anyhow::Result<Topology> {
    let node = node(name, "node")?;
    add_bridge(&node, GATEWAY, MTU_BYTES)?;
    let client = bridge_pod(name, &node, "client", CLIENT, GATEWAY, MTU_BYTES)?;
    let server = bridge_pod(name, &node, "server", SERVER, GATEWAY, MTU_BYTES)?;
    Ok(topology(client, server, SERVER, vec![node]))
}

/// Two nodes as flannel's host-gw backend sets them up: bridges, and a route to the other node's block.
fn host_gw(name: &str) -> anyhow::Result<Topology> {
    let (first, second, client, server) = bridged_nodes(name, MTU_BYTES)?;
    first.ip(&["route add 10.10.2.0/24 via 192.168.50.2 dev wire"])?;
    second.ip(&["route add 10.10.1.0/24 via 192.168.50.1 dev wire"])?;
    Ok(topology(client, server, REMOTE, vec![first, second]))
}

/// Two nodes as flannel's vxlan backend sets them up: no learning, one static neighbour and FDB entry per node.
fn flannel_vxlan(name: &str) -> anyhow::Result<Topology> {
    let (first, second, client, server) = bridged_nodes(name, OVERLAY_MTU_BYTES)?;
    for (node, me, other) in [(&first, 1, 2), (&second, 2, 1)] {
        let mac = |n: u8| format!("02:00:00:00:00:{n:02x}");
        node.ip(&[
            &format!(
                "link add flannel.1 address {} mtu {OVERLAY_MTU_BYTES} type vxlan id 1 dev wire \
                 local 192.168.50.{me} dstport 8472 nolearning noudpcsum",
                mac(me)
            ),
            &format!("addr add 10.10.{me}.0/32 dev flannel.1"),
            "link set flannel.1 up",
            &format!("neigh add 10.10.{other}.0 lladdr {} dev flannel.1 nud permanent", mac(other)),
            &format!("route add 10.10.{other}.0/24 via 10.10.{other}.0 dev flannel.1 onlink"),
        ])?;
        let remote = format!("192.168.50.{other}");
        let entry = ["fdb", "add", &mac(other), "dev", "flannel.1", "dst", &remote, "self", "permanent"];
        command("bridge", &[&["-n", node.name()][..], &entry[..]].concat(), None)?;
    }
    Ok(topology(client, server, REMOTE, vec![first, second]))
}

/// Joins a node to somebody by devices that are called `wire` on both sides.
pub fn wire(node: &Netns, other: &Netns) -> anyhow::Result<()> {
    veth(node, "wire", other, "wire", MTU_BYTES, "")
}

fn node(contender: &str, role: &str) -> anyhow::Result<Netns> {
    let node = Netns::new(contender, role)?;
    node.set("net/ipv4/ip_forward", "1")?;
    node.set("net/ipv4/conf/all/rp_filter", "0")?;
    node.set("net/ipv4/conf/default/rp_filter", "0")?;
    Ok(node)
}

fn veth(a: &Netns, a_link: &str, b: &Netns, b_link: &str, mtu: u32, address: &str) -> anyhow::Result<()> {
    a.ip(&[
        &format!(
            "link add {a_link} {address} mtu {mtu} type veth peer name {b_link} mtu {mtu} netns {}",
            b.name()
        ),
        &format!("link set {a_link} up"),
    ])?;
    b.ip(&[&format!("link set {b_link} up")])
}

/// A pod with a /32 and a link-local gateway, as routing plugins make them.
fn routed_pod(contender: &str, node: &Netns, role: &str, address: Ipv4Addr) -> anyhow::Result<Netns> {
    let pod = Netns::new(contender, role)?;
    let host = format!("v{role}");
    veth(node, &host, &pod, "eth0", MTU_BYTES, &format!("address {HOST_MAC}"))?;
    pod.ip(&[
        &format!("addr add {address}/32 dev eth0"),
        &format!("neigh add 169.254.1.1 lladdr {HOST_MAC} dev eth0 nud permanent"),
        "route add 169.254.1.1 dev eth0 scope link",
        &format!("route add default via 169.254.1.1 dev eth0 src {address}"),
    ])?;
    node.ip(&[&format!("route add {address}/32 dev {host} scope link")])?;
    Ok(pod)
}

fn add_bridge(node: &Netns, gateway: Ipv4Addr, mtu: u32) -> anyhow::Result<()> {
    node.ip(&[
        &format!("link add cni0 mtu {mtu} type bridge"),
        "link set cni0 up",
        &format!("addr add {gateway}/24 dev cni0"),
    ])
}

fn bridge_pod(
    contender: &str,
    node: &Netns,
    role: &str,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
    mtu: u32,
) -> anyhow::Result<Netns> {
    let pod = Netns::new(contender, role)?;
    let host = format!("v{role}");
    veth(node, &host, &pod, "eth0", mtu, "")?;
    node.ip(&[&format!("link set {host} master cni0")])?;
    pod.ip(&[&format!("addr add {address}/24 dev eth0"), &format!("route add default via {gateway}")])?;
    Ok(pod)
}

fn bridged_nodes(contender: &str, mtu: u32) -> anyhow::Result<(Netns, Netns, Netns, Netns)> {
    let (first, second) = (node(contender, "n1")?, node(contender, "n2")?);
    wire(&first, &second)?;
    first.ip(&["addr add 192.168.50.1/24 dev wire"])?;
    second.ip(&["addr add 192.168.50.2/24 dev wire"])?;
    add_bridge(&first, GATEWAY, mtu)?;
    add_bridge(&second, REMOTE_GATEWAY, mtu)?;
    let client = bridge_pod(contender, &first, "client", CLIENT, GATEWAY, mtu)?;
    let server = bridge_pod(contender, &second, "server", REMOTE, REMOTE_GATEWAY, mtu)?;
    Ok((first, second, client, server))
}
