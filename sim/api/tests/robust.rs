//! No input, however odd, may panic or break the store: objects with subtrees replaced at random go through every
//! write, and whatever is kept can be listed, shown and watched.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

#[path = "support/spoil.rs"]
mod spoil;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::json;
use sim_api::resource::PODS;
use sim_api::store::StoreOptions;
use sim_api::{DeleteOptions, Patch, Selector, ServerConfig, Store, Sub, WriteOptions};
use spoil::{Random, samples};

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
