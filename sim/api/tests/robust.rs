//! No input, however odd, may panic or break the store: objects with subtrees replaced at random go through every
//! write, and whatever is kept can be listed, shown and watched.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::{Map, Value, json};
use sim_api::resource::{
    CUSTOMRESOURCEDEFINITIONS, DAEMONSETS, DEPLOYMENTS, ENDPOINTSLICES, EVENTS, NAMESPACES, NETWORKPOLICIES,
    NODES, PODS, SERVICES,
};
use sim_api::store::StoreOptions;
use sim_api::{DeleteOptions, Gr, Patch, Selector, ServerConfig, Store, Sub, WriteOptions};

/// xorshift64: the same seed gives the same run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn value(&mut self, depth: usize) -> Value {
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
            1 => json!(self.next() % 2 == 0),
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
    fn spoil(&mut self, value: &mut Value) {
        let deeper = self.below(5) > 0;
        match value {
            Value::Object(map) if deeper && !map.is_empty() => {
                let i = self.below(map.len());
                let child = map.values_mut().nth(i).unwrap();
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

fn samples() -> Vec<(Gr, &'static str, Value)> {
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

#[test]
fn spoiled_objects_are_refused_or_kept_but_never_panic() {
    let manager = WriteOptions { field_manager: Some("m".into()), force: true, ..WriteOptions::default() };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut kept = 0;
    for round in 0..150 {
        let store = Store::new(StoreOptions::default());
        let mut watcher = store.watch(&PODS, "", Selector::everything(), store.revision());
        for (r, ns, sample) in samples() {
            let mut first = sample.clone();
            if round % 3 != 0 {
                random.spoil(&mut first);
            }
            kept += usize::from(store.create(&r, ns, first, &manager).is_ok());
            for _ in 0..4 {
                let mut other = sample.clone();
                random.spoil(&mut other);
                random.spoil(&mut other);
                let patch = match random.below(4) {
                    0 => Patch::Merge(other),
                    1 => Patch::Strategic(other),
                    2 => Patch::Apply(other),
                    _ => Patch::Json(
                        json!([{"op": "add", "path": "/spec/x/0", "value": 1}, {"op": "replace", "path": "/metadata/labels", "value": random.value(2)}, random.value(2)]),
                    ),
                };
                let sub = [
                    Sub::Main,
                    Sub::Status,
                    Sub::Scale,
                    Sub::Finalize,
                    Sub::EphemeralContainers,
                    Sub::Resize,
                ][random.below(6)];
                kept += usize::from(store.patch(&r, ns, "o", sub, &patch, &manager).is_ok());
            }
            if random.below(3) == 0 {
                drop(store.delete(&r, ns, "o", &DeleteOptions::default()));
            }
        }
        watcher.poll().unwrap();
    }
    assert!(kept > 1000, "only {kept} writes went through: the samples are no good");
}

/// Sends bytes as they are and returns the whole answer.
fn raw(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn odd_requests_get_an_answer() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _guard = runtime.enter();
    let store = Store::new(StoreOptions::default());
    let mut random = Random(7);
    for (r, ns, mut sample) in samples() {
        // Whatever is kept must be shown, spoiled or not.
        drop(store.create(&r, ns, sample.clone(), &WriteOptions::default()));
        for _ in 0..20 {
            random.spoil(&mut sample);
            drop(store.patch(
                &r,
                ns,
                "o",
                Sub::Status,
                &Patch::Merge(sample.clone()),
                &WriteOptions::default(),
            ));
        }
    }
    let server =
        sim_api::server::start(store.clone(), ServerConfig::new(TcpListener::bind("127.0.0.1:0").unwrap()))
            .unwrap();
    let address = server.addresses()[0];
    let check = |method: &str, path: &str, headers: &str, body: &[u8], expect: u16| {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        let answer = raw(address, &[head.as_bytes(), body].concat());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expect} ")),
            "{method} {path}: {}",
            answer.lines().next().unwrap_or("nothing")
        );
    };
    let table = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io\r\n";
    for def in store.resources() {
        let base = if def.gr.group.is_empty() {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{}/{}", def.gr.group, def.storage)
        };
        check("GET", &format!("{base}/{}", def.gr.resource), table, b"", 200);
        check("GET", &format!("{base}/{}?limit=1&includeObject=Object", def.gr.resource), table, b"", 200);
    }
    check("GET", "/nothing", "", b"", 404);
    check("GET", "/api/v1/things", "", b"", 404);
    check("GET", "/api/v1/pods?limit=x", "", b"", 400);
    check("GET", "/api/v1/pods?labelSelector=%28%29%20in", "", b"", 400);
    check("GET", "/api/v1/pods?fieldSelector=spec.color%3Dred", "", b"", 400);
    check("GET", "/api/v1/pods?continue=x", "", b"", 400);
    check("GET", "/api/v1/pods?watch=1&resourceVersion=999999999", "", b"", 410);
    check("GET", "/api/v1/pods", "Accept: image/png\r\n", b"", 406);
    check("GET", "/api/v1/namespaces/default/pods/p/exec?command=x", "", b"", 404);
    check("GET", "/api/v1/namespaces/default/pods/%ff%zz/log", "", b"", 404);
    check("POST", "/api/v1/namespaces/default/pods", "Content-Type: application/json\r\n", b"{", 400);
    check(
        "POST",
        "/api/v1/namespaces/default/pods",
        "Content-Type: application/vnd.kubernetes.protobuf\r\n",
        b"k8s\0\x12\xff",
        400,
    );
    check("POST", "/api/v1/namespaces/default/pods", "Content-Type: text/html\r\n", b"x", 415);
    check("POST", "/api/v1/namespaces/default/pods", "", b"", 400);
    check("PATCH", "/api/v1/nodes/o", "Content-Type: application/json\r\n", b"{}", 415);
    check("PATCH", "/api/v1/nodes/o", "Content-Type: application/json-patch+json\r\n", b"{}", 400);
    check("PUT", "/api/v1/nodes/o", "", b"7", 400);
    check("DELETE", "/api/v1/nodes/o/status", "", b"", 405);
    check("BREW", "/api/v1/nodes/o", "", b"", 405);
}
