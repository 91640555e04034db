//! The Kubernetes object that a pod of a scenario stands for.

use serde_json::{Value, json};

use crate::model::{Pod, Serve, ServeKind};

/// The command of a readiness probe that never succeeds.
const NEVER: [&str; 1] = ["false"];
/// How much longer than it wants to a pod may take to end.
const PATIENCE_S: u64 = 5;

impl Pod {
    /// The core/v1 Pod, with the image `bristle/echo` and what it serves as arguments.
    pub fn to_object(&self) -> Value {
        let mut args: Vec<String> = self.serve.iter().flat_map(|serve| flag(*serve)).collect();
        let mut container = json!({"name": "main", "image": "bristle/echo"});
        let lingers = self.linger.as_secs();
        if lingers != 0 {
            args.extend(["--linger".to_owned(), lingers.to_string()]);
        }
        container["args"] = json!(args);
        if !self.ports.is_empty() {
            container["ports"] = self.ports.iter().map(|(name, port)| self.named(name, *port)).collect();
        }
        if !self.ready {
            container["readinessProbe"] = json!({"exec": {"command": NEVER}, "periodSeconds": 1});
        }
        let mut spec = json!({
            // Nothing in it needs time to say good-bye unless it shall.
            "terminationGracePeriodSeconds": if lingers == 0 { 0 } else { lingers + PATIENCE_S },
            "containers": [container],
        });
        if let Some(node) = &self.node {
            spec["nodeName"] = json!(node);
        }
        if self.host_network {
            spec["hostNetwork"] = json!(true);
        }
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels},
            "spec": spec,
        })
    }

    /// A port with a name, as containers have it.
    fn named(&self, name: &str, port: u16) -> Value {
        let is_udp = |serve: &&Serve| serve.port == port && serve.kind == ServeKind::Udp;
        let protocol = if self.serve.iter().any(|serve| is_udp(&serve)) { "UDP" } else { "TCP" };
        json!({"name": name, "containerPort": port, "protocol": protocol})
    }
}

/// Whether a core/v1 Pod never becomes ready, as scenarios have such pods.
pub fn is_never_ready(pod: &Value) -> bool {
    pod["spec"]["containers"][0]["readinessProbe"]["exec"]["command"] == json!(NEVER)
}

fn flag(serve: Serve) -> [String; 2] {
    let word = match serve.kind {
        ServeKind::Http => "--http",
        ServeKind::Tcp => "--tcp",
        ServeKind::Udp => "--udp",
    };
    [word.to_owned(), serve.port.to_string()]
}
