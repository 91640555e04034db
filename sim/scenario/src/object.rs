//! The Kubernetes object that a pod of a scenario stands for.

use serde_json::{Value, json};

use crate::model::{Pod, Serve, ServeKind};

impl Pod {
    /// The core/v1 Pod, with the image `bristle/echo` and what it serves as arguments.
    pub fn to_object(&self) -> Value {
        let args: Vec<String> = self.serve.iter().flat_map(|serve| flag(*serve)).collect();
        let mut spec = json!({
            // Nothing in it needs time to say good-bye.
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "bristle/echo", "args": args}],
        });
        if let Some(node) = &self.node {
            spec["nodeName"] = json!(node);
        }
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels},
            "spec": spec,
        })
    }
}

fn flag(serve: Serve) -> [String; 2] {
    let word = match serve.kind {
        ServeKind::Http => "--http",
        ServeKind::Tcp => "--tcp",
        ServeKind::Udp => "--udp",
    };
    [word.to_owned(), serve.port.to_string()]
}
