//! EndpointSlices and Endpoints of services with a selector.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};
use sim_api::object::{at, bool_at, int_at, is_deleting, list_at, name, namespace, remove, set, str_at};
use sim_api::resource::{ENDPOINTS, ENDPOINTSLICES, PODS, SERVICES};
use sim_api::store::Object;
use sim_api::{DeleteOptions, Selector, Sub, WriteOptions};

use crate::event::hash;
use crate::pods::{controller_reference, has_ended, is_controlled_by, is_ready, label};
use crate::{Context, tried};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Endpoints in one slice.
const MAX_IN_SLICE: usize = 100;

pub(crate) fn run(ctx: &Context<'_>) {
    for service in ctx.store.list(&SERVICES, "") {
        let selector = at(&service, &["spec", "selector"]).as_object().filter(|s| !s.is_empty());
        if let Some(selector) = selector
            && !is_deleting(&service)
            && str_at(&service, &["spec", "type"]) != "ExternalName"
        {
            let selector = Selector::from_map(selector);
            let pods: Vec<Object> = ctx
                .store
                .list(&PODS, namespace(&service))
                .into_iter()
                .filter(|p| selector.matches(p) && !has_ended(p))
                .collect();
            slices(ctx, &service, &pods);
            endpoints(ctx, &service, &pods);
        }
    }
    // Endpoints carry the name of their service and no owner.
    for endpoints in ctx.store.list(&ENDPOINTS, "") {
        let ours = label(&endpoints, "endpoints.kubernetes.io/managed-by") == "endpoint-controller";
        if ours && ctx.store.get(&SERVICES, namespace(&endpoints), name(&endpoints)).is_err() {
            tried(
                "endpoints",
                ctx.store.delete(
                    &ENDPOINTS,
                    namespace(&endpoints),
                    name(&endpoints),
                    &DeleteOptions::default(),
                ),
            );
        }
    }
}

/// The pod's address of a family.
fn address(pod: &Value, v4: bool) -> Option<IpAddr> {
    let listed = list_at(pod, &["status", "podIPs"])
        .iter()
        .map(|p| str_at(p, &["ip"]))
        .chain([str_at(pod, &["status", "podIP"])]);
    listed.filter_map(|a| a.parse::<IpAddr>().ok()).find(|a| a.is_ipv4() == v4)
}

/// The service's ports on this pod: numbers as they are, names looked up in the pod's containers. A name that the pod
/// does not have leaves the port out.
fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let containers =
        || list_at(pod, &["spec", "containers"]).iter().chain(list_at(pod, &["spec", "initContainers"]));
    list_at(service, &["spec", "ports"])
        .iter()
        .filter_map(|p| {
            let target = at(p, &["targetPort"]);
            let protocol = str_at(p, &["protocol"]);
            let number = match target.as_str() {
                Some(wanted) => containers()
                    .flat_map(|c| list_at(c, &["ports"]))
                    .find(|c| str_at(c, &["name"]) == wanted && str_at(c, &["protocol"]) == protocol)
                    .and_then(|c| int_at(c, &["containerPort"]))?,
                None => target.as_i64().or_else(|| int_at(p, &["port"]))?,
            };
            let mut port = json!({"name": str_at(p, &["name"]), "port": number, "protocol": protocol});
            let app = at(p, &["appProtocol"]);
            if !app.is_null() {
                port["appProtocol"] = app.clone();
            }
            Some(port)
        })
        .collect()
}

fn target_reference(pod: &Value) -> Value {
    json!({"kind": "Pod", "name": name(pod), "namespace": namespace(pod), "uid": pod["metadata"]["uid"]})
}

fn slices(ctx: &Context<'_>, service: &Value, pods: &[Object]) {
    let always = bool_at(service, &["spec", "publishNotReadyAddresses"]);
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    let families = list_at(service, &["spec", "ipFamilies"]).iter().filter_map(Value::as_str);
    for family in families {
        // Pods on which a port name means another number need slices of their own.
        let mut groups: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
        for pod in pods {
            let Some(ip) = address(pod, family == "IPv4") else { continue };
            let ports = ports(service, pod);
            let going = is_deleting(pod);
            let serving = is_ready(pod) || always;
            let endpoint = json!({
                "addresses": [ip],
                "conditions": {"ready": serving && !going || always, "serving": serving, "terminating": going},
                "nodeName": str_at(pod, &["spec", "nodeName"]), "targetRef": target_reference(pod),
            });
            let mut endpoint = endpoint;
            let hostname = str_at(pod, &["spec", "hostname"]);
            if !hostname.is_empty() && str_at(pod, &["spec", "subdomain"]) == name(service) {
                endpoint["hostname"] = json!(hostname);
            }
            let key = json!(ports).to_string();
            groups.entry(key).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
        }
        if groups.is_empty() {
            // An empty slice tells that the service has no endpoints, and not that nobody has looked yet.
            groups.insert(String::new(), (Vec::new(), Vec::new()));
        }
        for (key, (ports, endpoints)) in groups {
            let chunks: Vec<&[Value]> =
                if endpoints.is_empty() { vec![&[]] } else { endpoints.chunks(MAX_IN_SLICE).collect() };
            for (i, chunk) in chunks.into_iter().enumerate() {
                let suffix = format!("{:08x}", hash(&format!("{family}{key}{i}")) & 0xffff_ffff);
                let slice_name = format!("{}-{suffix}", name(service));
                wanted.insert(slice_name.clone(), slice(service, &slice_name, family, &ports, chunk));
            }
        }
    }
    let ns = namespace(service);
    let present = ctx.store.list(&ENDPOINTSLICES, ns);
    for old in present.iter().filter(|s| is_controlled_by(s, service) && label(s, MANAGED_BY) == MANAGER) {
        match wanted.remove(name(old)) {
            Some(new) => {
                let same =
                    ["endpoints", "ports", "addressType"].iter().all(|k| at(old, &[k]) == at(&new, &[k]));
                if !same {
                    let done = ctx.store.modify(&ENDPOINTSLICES, ns, name(old), Sub::Main, |s| {
                        for key in ["endpoints", "ports"] {
                            set(s, &[key], new[key].clone());
                        }
                    });
                    tried("endpoint slice", done);
                }
            }
            None => drop(tried(
                "endpoint slice",
                ctx.store.delete(&ENDPOINTSLICES, ns, name(old), &DeleteOptions::default()),
            )),
        }
    }
    for (_, new) in wanted {
        tried("endpoint slice", ctx.store.create(&ENDPOINTSLICES, ns, new, &WriteOptions::default()));
    }
}

fn slice(service: &Value, slice_name: &str, family: &str, ports: &[Value], endpoints: &[Value]) -> Value {
    let mut labels = json!({SERVICE_NAME: name(service), MANAGED_BY: MANAGER});
    for (key, value) in sim_api::object::labels(service).into_iter().flatten() {
        labels[key] = value.clone();
    }
    if str_at(service, &["spec", "clusterIP"]) == "None" {
        labels["service.kubernetes.io/headless"] = json!("");
    }
    json!({
        "metadata": {
            "name": slice_name, "generateName": format!("{}-", name(service)), "namespace": namespace(service), "labels": labels,
            "ownerReferences": [controller_reference(service)],
        },
        "addressType": family, "endpoints": endpoints, "ports": ports,
    })
}

/// Endpoints with the same ports: ready ones, the others, the ports.
type Subset = (Vec<Value>, Vec<Value>, Vec<Value>);

fn endpoints(ctx: &Context<'_>, service: &Value, pods: &[Object]) {
    let v4 = list_at(service, &["spec", "ipFamilies"]).first().is_none_or(|f| f == "IPv4");
    let always = bool_at(service, &["spec", "publishNotReadyAddresses"]);
    let mut groups: BTreeMap<String, Subset> = BTreeMap::new();
    for pod in pods.iter().filter(|p| !is_deleting(p) || always) {
        let Some(ip) = address(pod, v4) else { continue };
        let mut ports = ports(service, pod);
        ports.iter_mut().filter(|p| str_at(p, &["name"]).is_empty()).for_each(|p| drop(remove(p, &["name"])));
        let entry = json!({"ip": ip, "nodeName": str_at(pod, &["spec", "nodeName"]), "targetRef": target_reference(pod)});
        let key = json!(ports).to_string();
        let group = groups.entry(key).or_insert_with(|| (Vec::new(), Vec::new(), ports));
        if is_ready(pod) || always { group.0.push(entry) } else { group.1.push(entry) }
    }
    let subsets: Vec<Value> = groups
        .into_values()
        .map(|(ready, not_ready, ports)| {
            let mut subset = json!({"ports": ports});
            for (key, list) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
                if !list.is_empty() {
                    subset[key] = Value::Array(list);
                }
            }
            subset
        })
        .collect();
    let (ns, service_name) = (namespace(service), name(service));
    match ctx.store.get(&ENDPOINTS, ns, service_name) {
        Ok(old) if list_at(&old, &["subsets"]) == subsets => {}
        Ok(_) => drop(tried(
            "endpoints",
            ctx.store.modify(&ENDPOINTS, ns, service_name, Sub::Main, |e| {
                // An empty list is left out, as Kubernetes does.
                if subsets.is_empty() {
                    drop(remove(e, &["subsets"]));
                } else {
                    set(e, &["subsets"], Value::Array(subsets));
                }
            }),
        )),
        Err(_) => {
            let mut labels = at(service, &["metadata", "labels"]).clone();
            labels["endpoints.kubernetes.io/managed-by"] = json!("endpoint-controller");
            let mut object = json!({"metadata": {"name": service_name, "namespace": ns, "labels": labels}});
            if !subsets.is_empty() {
                object["subsets"] = Value::Array(subsets);
            }
            tried("endpoints", ctx.store.create(&ENDPOINTS, ns, object, &WriteOptions::default()));
        }
    }
}
