//! Kubernetes objects that the simulator makes, and what it reads of others.

use std::time::Duration;

use serde_json::{Value, json};
use sim_api::object::{list_at, str_at};
use sim_net::{Server, ServerKind};
use sim_scenario::model::{Serve, ServeKind};

use crate::node::SimNode;

/// A core/v1 Node that is ready.
pub(crate) fn node(node: &SimNode, now: &str) -> Value {
    let mut addresses: Vec<Value> =
        node.addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": node.name}));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux"}},
        "spec": {"podCIDR": node.pod_cidrs.first(), "podCIDRs": node.pod_cidrs},
        "status": {
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "500"},
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "500"},
            "addresses": addresses,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now, "lastTransitionTime": now}],
        },
    })
}

/// What listens in a pod, by the images that the lab has.
pub(crate) fn serves(pod: &Value) -> Vec<Serve> {
    let mut serves = Vec::new();
    for container in list_at(pod, &["spec", "containers"]) {
        let image = str_at(container, &["image"]).rsplit('/').next().unwrap_or_default();
        let image = image.split(':').next().unwrap_or_default();
        let args: Vec<&str> = list_at(container, &["args"]).iter().filter_map(Value::as_str).collect();
        match image {
            "http-echo" => {
                let port =
                    args.windows(2).find(|pair| pair[0] == "--port").and_then(|pair| pair[1].parse().ok());
                serves.push(Serve { kind: ServeKind::Http, port: port.unwrap_or(8080) });
            }
            "echo" => serves.extend(args.chunks(2).filter_map(|pair| match pair {
                [kind, port] => format!("{}:{port}", kind.trim_start_matches('-')).parse::<Serve>().ok(),
                _ => None,
            })),
            _ => {}
        }
    }
    serves
}

/// For how long a pod goes on to serve after it was deleted.
pub(crate) fn lingers(pod: &Value) -> Duration {
    let args =
        list_at(pod, &["spec", "containers"]).iter().flat_map(|container| list_at(container, &["args"]));
    let args: Vec<&str> = args.filter_map(Value::as_str).collect();
    let seconds = args.windows(2).find(|pair| pair[0] == "--linger").and_then(|pair| pair[1].parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// The server of a stack for it.
pub(crate) const fn server(serve: Serve) -> Server {
    let kind = match serve.kind {
        ServeKind::Http => ServerKind::Http,
        ServeKind::Tcp => ServerKind::TcpEcho,
        ServeKind::Udp => ServerKind::UdpEcho,
    };
    Server { kind, port: serve.port }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_serves_what_the_scenario_says() {
        let serve: Vec<Serve> =
            ["http:8080", "udp:53", "tcp:9000"].iter().map(|text| text.parse().unwrap()).collect();
        let pod = sim_scenario::model::Pod {
            serve: serve.clone(),
            linger: Duration::from_secs(7),
            ..sim_scenario::model::Pod::new("a")
        };
        assert_eq!(serves(&pod.to_object()), serve);
        assert_eq!(lingers(&pod.to_object()), Duration::from_secs(7));
    }

    #[test]
    fn images_of_the_lab_serve_what_they_serve_there() {
        let pod =
            json!({"spec": {"containers": [{"image": "bristle/http-echo:1"}, {"image": "bristle/client"}]}});
        assert_eq!(serves(&pod), ["http:8080".parse().unwrap()]);
    }
}
