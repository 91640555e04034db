//! Objects to spoil: valid ones, and a way to replace parts of them at random.

use serde_json::{Map, Value, json};
use sim_api::Gr;
use sim_api::resource::{
    CUSTOMRESOURCEDEFINITIONS, DAEMONSETS, DEPLOYMENTS, ENDPOINTSLICES, EVENTS, NAMESPACES, NETWORKPOLICIES,
    NODES, PODS, SERVICES,
};

/// xorshift64: the same seed gives the same run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below n")
    }

    pub(crate) fn value(&mut self, depth: usize) -> Value {
        const KEYS: &[&str] = &[
            "name",
            "spec",
            "metadata",
            "$patch",
            "labels",
            "type",
            "port",
            "containers",
            "$retainKeys",
            "",
        ];
        const TEXTS: &[&str] =
            &["", "x", "None", "25%", "1.2.3.4", "::", "TCP", "2026-01-01T00:00:00Z", "ü/\\~1", "delete"];
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.next().is_multiple_of(2)),
            2 => json!(self.next().cast_signed()),
            3 => json!(-1.5),
            4 | 5 => json!(TEXTS[self.below(TEXTS.len())]),
            6 => (0..self.below(3)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let pairs = (0..self.below(4))
                    .map(|_| (KEYS[self.below(KEYS.len())].to_owned(), self.value(depth - 1)));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    /// Replaces one place of a value.
    pub(crate) fn spoil(&mut self, value: &mut Value) {
        let deeper = self.below(5) > 0;
        match value {
            Value::Object(map) if deeper && !map.is_empty() => {
                let i = self.below(map.len());
                let child = map.values_mut().nth(i).expect("below the length");
                self.spoil(child);
            }
            Value::Array(list) if deeper && !list.is_empty() => {
                let i = self.below(list.len());
                self.spoil(&mut list[i]);
            }
            other => *other = self.value(3),
        }
    }
}

/// An object of every kind that matters, named `o` where its name is free, with its namespace.
pub(crate) fn samples() -> Vec<(Gr, &'static str, Value)> {
    let container = json!({"name": "c", "image": "i:1", "ports": [{"containerPort": 80, "name": "http"}], "env": [{"name": "A", "value": "b"}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}}, "resources": {"limits": {"cpu": "1"}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}],
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, "topologyKey": "t"}]}}});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": spec});
    let meta = json!({"name": "o", "labels": {"a": "b"}, "annotations": {"x": "y"}, "finalizers": ["a.b/c"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]});
    let crd = json!({"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            "additionalPrinterColumns": [{"name": "S", "type": "string", "jsonPath": ".spec['a'][0].b\\"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["b"], "items": {"type": "object", "properties": {"b": {"type": "string"}}}}}}}}}}]});
    let widgets = Gr::new("example.com", "widgets");
    vec![
        (CUSTOMRESOURCEDEFINITIONS, "", json!({"metadata": {"name": "widgets.example.com"}, "spec": crd})),
        (widgets, "default", json!({"metadata": meta, "spec": {"a": [{"b": "c"}], "replicas": 1}})),
        (
            PODS,
            "default",
            json!({"metadata": meta, "spec": spec, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}}}]}}),
        ),
        (
            DEPLOYMENTS,
            "default",
            json!({"metadata": meta, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template, "strategy": {"rollingUpdate": {"maxSurge": "25%"}}}}),
        ),
        (
            DAEMONSETS,
            "default",
            json!({"metadata": meta, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}),
        ),
        (
            SERVICES,
            "default",
            json!({"metadata": meta, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "http"}], "ipFamilyPolicy": "PreferDualStack"}}),
        ),
        (
            NODES,
            "",
            json!({"metadata": meta, "spec": {"podCIDRs": ["10.0.0.0/24"], "taints": [{"key": "k", "effect": "NoSchedule"}]}, "status": {"addresses": [{"type": "InternalIP", "address": "1.2.3.4"}], "conditions": [{"type": "Ready", "status": "True"}]}}),
        ),
        (NAMESPACES, "", json!({"metadata": meta, "spec": {"finalizers": ["kubernetes"]}})),
        (
            NETWORKPOLICIES,
            "default",
            json!({"metadata": meta, "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}]}}),
        ),
        (
            ENDPOINTSLICES,
            "default",
            json!({"metadata": meta, "addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4"]}], "ports": [{"port": 80}]}),
        ),
        (
            EVENTS,
            "default",
            json!({"metadata": meta, "involvedObject": {"kind": "Pod", "name": "p"}, "reason": "R", "message": "m", "source": {"component": "c"}, "count": 1}),
        ),
    ]
}
