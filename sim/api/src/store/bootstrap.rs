//! What every cluster has from the start.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::core::Core;
use crate::admission::services::first_address;
use crate::error::ApiError;
use crate::options::{Sub, WriteOptions};
use crate::resource::{ENDPOINTS, ENDPOINTSLICES, Gr, NAMESPACES, SERVICES};

pub(super) fn bootstrap(core: &mut Core) {
    let addresses: Vec<IpAddr> = core.allocator.cidrs.iter().map(first_address).take(1).collect();
    let mut objects = vec![];
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        objects.push((NAMESPACES, "", json!({"metadata": {"name": name}})));
    }
    if let Some(address) = addresses.first() {
        let service = json!({
            "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"clusterIP": address, "ports": [{"name": "https", "port": 443, "targetPort": 6443}]},
        });
        objects.push((SERVICES, "default", service));
    }
    for (name, value) in [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)]
    {
        let class = json!({"metadata": {"name": name}, "value": value, "description": "Used for system critical pods."});
        objects.push((Gr::new("scheduling.k8s.io", "priorityclasses"), "", class));
    }
    objects.push((
        Gr::new("rbac.authorization.k8s.io", "clusterroles"), "",
        json!({"metadata": {"name": "cluster-admin"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
    ));
    for (resource, namespace, object) in objects {
        // Odd service ranges may leave no address for the first service; the cluster then lives without.
        if let Err(error) = core.create(&resource, namespace, object, &WriteOptions::default()) {
            tracing::warn!(%error, %resource, "a first object of the cluster was refused");
        }
    }
}

pub(super) fn set_api_endpoints(core: &mut Core, addresses: &[IpAddr], port: u16) -> Result<(), ApiError> {
    let v4: Vec<&IpAddr> = addresses.iter().filter(|a| a.is_ipv4()).collect();
    let v6: Vec<&IpAddr> = addresses.iter().filter(|a| a.is_ipv6()).collect();
    let primary = if v4.is_empty() { &v6 } else { &v4 };
    let list: Vec<Value> = primary.iter().map(|a| json!({"ip": a})).collect();
    let endpoints = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": list, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    put(core, &ENDPOINTS, endpoints)?;
    let (kind, chosen) = if v4.is_empty() { ("IPv6", v6) } else { ("IPv4", v4) };
    let slice = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": kind,
        "endpoints": [{"addresses": chosen, "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    put(core, &ENDPOINTSLICES, slice)
}

fn put(core: &mut Core, r: &Gr, object: Value) -> Result<(), ApiError> {
    let options = WriteOptions::default();
    if core.exists(r, "default", "kubernetes") {
        core.update(r, Sub::Main, object, &options).map(drop)
    } else {
        core.create(r, "default", object, &options).map(drop)
    }
}
