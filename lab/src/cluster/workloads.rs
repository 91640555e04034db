//! The pods that a lab starts with.

use serde_json::{Value, json};
use sim_api::object::condition_is_true;

/// Whether an object's condition `Ready` holds (pods and nodes have one).
pub fn is_ready(object: &Value) -> bool {
    condition_is_true(object, "Ready")
}

/// Whether a pod is one of those that a lab starts with.
pub fn is_ours(pod: &Value) -> bool {
    let label = |key: &str| pod["metadata"]["labels"][key].as_str();
    label("k8s-app") == Some("kube-dns") || matches!(label("app"), Some("client" | "echo"))
}

/// The cluster DNS: what is in `kube-system` of every cluster.
pub fn cluster_dns() -> Vec<Value> {
    let labels = json!({"k8s-app": "kube-dns"});
    vec![
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {"dnsPolicy": "Default", "terminationGracePeriodSeconds": 5, "containers": [{
                    "name": "dns", "image": "bristle/dns",
                    "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"}],
                    "readinessProbe": {"tcpSocket": {"port": 53}},
                }]},
            }},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {"selector": labels, "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]},
        }),
    ]
}

/// Pods to play with: a client, and an HTTP server on two nodes behind a service.
pub fn demo() -> Vec<Value> {
    let echo = json!({"app": "echo"});
    vec![
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client", "namespace": "default", "labels": {"app": "client"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "client", "image": "bristle/client"}]},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "echo", "namespace": "default", "labels": echo},
            "spec": {"replicas": 2, "selector": {"matchLabels": echo}, "template": {
                "metadata": {"labels": echo},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "containers": [{
                        "name": "echo", "image": "bristle/http-echo", "ports": [{"name": "http", "containerPort": 8080}],
                        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
                    }],
                    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
                        "weight": 100, "podAffinityTerm": {"labelSelector": {"matchLabels": echo}, "topologyKey": "kubernetes.io/hostname"}}]}},
                },
            }},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", "namespace": "default", "labels": echo},
            "spec": {"selector": echo, "ports": [{"name": "http", "port": 8080}]},
        }),
    ]
}
