//! Our own contenders: pods of a lab with as many services as asked for, by its real agent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use lab::plan::Routing;
use serde_json::{Value, json};

use super::model::{NODE_PORT, PORT, Service, Size, services};
use crate::clusters::Lab;
use crate::net::contender::Topology;
use crate::net::netns::{self, Netns};
use crate::net::ours::{Pod, pod, restart_agent_on};

/// The contender that is called from outside.
pub const FROM_OUTSIDE: &str = "bristle-node-port";

const NAMESPACE: &str = "bench";
/// Addresses of services: those that the rule sets have.
const SERVICE_CIDR: &str = "10.96.0.0/16";
/// How long the agent may take to hear of all services and to write their rows.
const LIMIT: Duration = Duration::from_mins(2);
const WIRE: &str = "wire";
const OUTSIDE: &str = "192.168.60.2";

/// A lab with its services; dropping it removes it.
pub struct Ours {
    /// Client and server are pods of one node; the last service is called.
    pub inside: Option<Topology>,
    /// The same service at the node, from outside.
    pub outside: Option<Topology>,
    _lab: Lab,
}

/// Brings up a lab of one node with so many services; with `at_nodes` the last one has a port at the node, and there is
/// somebody outside to call it.
pub async fn up(size: &Size, at_nodes: bool, bin_dir: Option<&PathBuf>) -> anyhow::Result<Ours> {
    let cidr = SERVICE_CIDR.parse().context("read the block of services")?;
    let nobody = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT);
    let mut others = services(size.services, nobody, at_nodes);
    others.pop();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let objects = others.iter().flat_map(|service| [slice(service), object(service)]);
    let lab = Lab::build(size.ours, bin_dir, |builder| {
        let builder = builder.nodes(1).routing(Routing::Native).kube_proxy_replacement(true).dns(false);
        builder.service_cidrs([cidr]).objects([namespace]).objects(objects)
    })
    .await
    .with_context(|| format!("lab with {} services", size.services))?;
    let client = pod(&lab, size.ours, "client", 0)?;
    let server = pod(&lab, size.ours, "server", 0)?;
    let outside = if at_nodes {
        Some(outside(&lab, &server).await.context("join somebody outside to the node")?)
    } else {
        None
    };
    let IpAddr::V4(address) = server.address else { bail!("the server has no IPv4 address") };
    let all = services(size.services, SocketAddrV4::new(address, PORT), at_nodes);
    let called = all.last().context("there is a service")?;
    for object in [slice(called), object(called)] {
        lab.cluster.apply_object(object).context("create the service that is called")?;
    }
    wait_for_rows(&lab, &all)?;
    let inside = Topology {
        client: client.netns(),
        // Who is not in the node's control group is no process of it.
        client_cgroup: Some(client.cgroup()?),
        server: server.netns(),
        target: SocketAddr::from((called.address, called.port)),
        owned: Vec::new(),
    };
    Ok(Ours { inside: Some(inside), outside, _lab: lab })
}

/// Waits until the agent has written what the services come to: a row for each, and one for each endpoint.
fn wait_for_rows(lab: &Lab, all: &[Service]) -> anyhow::Result<()> {
    let wanted: usize = all.iter().map(|service| 1 + service.endpoints.len()).sum();
    let node = lab.cluster.nodes().first().context("the lab has a node")?;
    let deadline = Instant::now() + LIMIT;
    loop {
        crate::go_on()?;
        // One that has much to do may not answer in time.
        let maps: Vec<Value> = node.ask_agent("/v1/maps").unwrap_or_default();
        let services = maps.iter().find(|map| map["name"] == "SERVICES");
        let rows = services.and_then(|map| map["entries"].as_u64()).unwrap_or_default();
        if usize::try_from(rows).unwrap_or_default() >= wanted {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("the agent has written {rows} of {wanted} rows after {} s", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Somebody outside on a wire to the node, whose agent takes that for its underlay.
async fn outside(lab: &Lab, server: &Pod) -> anyhow::Result<Topology> {
    let node = lab.cluster.nodes().first().context("the lab has a node")?;
    let address =
        node.addresses().into_iter().find(IpAddr::is_ipv4).context("the node has an IPv4 address")?;
    let outside = Netns::new(FROM_OUTSIDE, "outside")?;
    let pid = node.machine().pid().to_string();
    let link = ["link", "add", WIRE, "mtu", "1500", "netns", &pid, "type", "veth"];
    let peer = ["peer", "name", WIRE, "mtu", "1500", "netns", outside.name()];
    netns::command("ip", &[&link[..], &peer].concat(), None)?;
    for args in [
        &["link", "set", WIRE, "up"][..],
        &["addr", "add", &address.to_string(), "peer", &format!("{OUTSIDE}/32"), "dev", WIRE],
    ] {
        crate::net::ours::on_node(node, args)?;
    }
    outside
        .ip(&[&format!("link set {WIRE} up"), &format!("addr add {OUTSIDE} peer {address}/32 dev {WIRE}")])?;
    restart_agent_on(node, WIRE).await?;
    Ok(Topology {
        client: outside.path(),
        client_cgroup: None,
        server: server.netns(),
        target: SocketAddr::new(address, NODE_PORT),
        owned: vec![outside],
    })
}

fn object(service: &Service) -> Value {
    let mut port = json!({"name": "http", "port": service.port, "protocol": "TCP"});
    if let Some(node_port) = service.node_port {
        port["nodePort"] = json!(node_port);
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": service.name},
        "spec": {
            "type": if service.node_port.is_some() { "NodePort" } else { "ClusterIP" },
            "clusterIP": service.address, "clusterIPs": [service.address],
            "ports": [port],
        },
    })
}

fn slice(service: &Service) -> Value {
    let endpoint = |to: &SocketAddrV4| json!({"addresses": [to.ip()], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": NAMESPACE, "name": format!("{}-bench", service.name),
            "labels": {"kubernetes.io/service-name": service.name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": service.endpoints.first().map(SocketAddrV4::port), "protocol": "TCP"}],
        "endpoints": service.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::two;
    use super::*;

    #[test]
    fn objects_say_what_rules_say() {
        let all = two();
        let (other, called) = (object(&all[0]), object(&all[1]));
        assert_eq!(other["spec"]["clusterIP"], "10.96.16.1");
        assert_eq!(
            (&other["spec"]["type"], &called["spec"]["type"]),
            (&json!("ClusterIP"), &json!("NodePort"))
        );
        assert_eq!(called["spec"]["ports"][0]["nodePort"], 30_500);
        let slice = slice(&all[0]);
        assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "service-1");
        assert_eq!(slice["ports"][0]["port"], 8080);
        assert_eq!(slice["endpoints"][1]["addresses"], json!(["10.21.0.1"]));
    }
}
