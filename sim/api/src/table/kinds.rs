//! Columns and rows of the built-in kinds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::age;
use super::{Column, column, pod, workloads};
use crate::object::{at, bool_at, int_at, is_deleting, list_at, name, str_at};
use crate::store::selector_text;

/// Names of columns; a `+` before the name means "only with -o wide".
fn names(group: &str, kind: &str) -> &'static [&'static str] {
    match (group, kind) {
        ("", "Node") => &[
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "+Internal-IP",
            "+External-IP",
            "+OS-Image",
            "+Kernel-Version",
            "+Container-Runtime",
        ],
        ("", "Service") => &["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "+Selector"],
        ("", "Namespace") => &["Name", "Status", "Age"],
        ("", "Endpoints") => &["Name", "Endpoints", "Age"],
        ("", "ConfigMap") => &["Name", "Data", "Age"],
        ("", "Secret") => &["Name", "Type", "Data", "Age"],
        ("", "ServiceAccount") => &["Name", "Secrets", "Age"],
        ("", "Event") => &[
            "Last Seen",
            "Type",
            "Reason",
            "Object",
            "+Subobject",
            "+Source",
            "Message",
            "+First Seen",
            "+Count",
            "+Name",
        ],
        ("discovery.k8s.io", "EndpointSlice") => &["Name", "AddressType", "Ports", "Endpoints", "Age"],
        ("networking.k8s.io", "NetworkPolicy") => &["Name", "Pod-Selector", "Age"],
        ("networking.k8s.io", "Ingress") => &["Name", "Class", "Hosts", "Address", "Ports", "Age"],
        ("networking.k8s.io", "IngressClass") => &["Name", "Controller", "Parameters", "Age"],
        ("coordination.k8s.io", "Lease") => &["Name", "Holder", "Age"],
        ("policy", "PodDisruptionBudget") => {
            &["Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age"]
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &["Name", "Created At"],
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => &["Name", "Created At"],
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => &["Name", "Role", "Age"],
        ("scheduling.k8s.io", "PriorityClass") => &["Name", "Value", "Global-Default", "Age"],
        ("storage.k8s.io", "StorageClass") => {
            &["Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"]
        }
        _ => &["Name", "Age"],
    }
}

fn is_workload(group: &str, kind: &str) -> bool {
    matches!(
        (group, kind),
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet")
            | ("batch", "Job" | "CronJob")
            | ("", "ReplicationController")
    )
}

pub(super) fn columns(group: &str, kind: &str) -> Vec<Column> {
    if (group, kind) == ("", "Pod") {
        return pod::columns();
    }
    if is_workload(group, kind) {
        return workloads::columns(kind);
    }
    names(group, kind)
        .iter()
        .map(|n| n.strip_prefix('+').map_or_else(|| column(n, 0), |n| column(n, 1)))
        .collect()
}

pub(super) fn cells(group: &str, kind: &str, o: &Value, now: Timestamp) -> Vec<Value> {
    if (group, kind) == ("", "Pod") {
        return pod::cells(o, now);
    }
    if is_workload(group, kind) {
        return workloads::cells(kind, o, now);
    }
    let name = json!(name(o));
    let old = json!(age(at(o, &["metadata", "creationTimestamp"]), now));
    let text = |path: &[&str]| json!(str_at(o, path));
    let count = |path: &[&str]| json!(at(o, path).as_object().map_or(0, serde_json::Map::len));
    match (group, kind) {
        ("", "Node") => node(o, old),
        ("", "Service") => service(o, old),
        ("", "Namespace") => vec![name, text(&["status", "phase"]), old],
        ("", "Endpoints") => vec![name, json!(endpoints(o)), old],
        ("", "ConfigMap") => {
            let n = |k: &str| at(o, &[k]).as_object().map_or(0, serde_json::Map::len);
            vec![name, json!(n("data") + n("binaryData")), old]
        }
        ("", "Secret") => vec![name, text(&["type"]), count(&["data"]), old],
        ("", "ServiceAccount") => vec![name, json!(list_at(o, &["secrets"]).len()), old],
        ("", "Event") => event(o, now),
        ("discovery.k8s.io", "EndpointSlice") => {
            let ports: Vec<String> =
                list_at(o, &["ports"]).iter().map(|p| at(p, &["port"]).to_string()).collect();
            let ends: Vec<&str> = list_at(o, &["endpoints"])
                .iter()
                .flat_map(|e| list_at(e, &["addresses"]))
                .filter_map(Value::as_str)
                .collect();
            vec![
                name,
                text(&["addressType"]),
                json!(few(&ports, "<unset>")),
                json!(few(&ends, "<unset>")),
                old,
            ]
        }
        ("networking.k8s.io", "NetworkPolicy") => {
            vec![name, json!(or_none(selector_text(at(o, &["spec", "podSelector"])))), old]
        }
        ("networking.k8s.io", "Ingress") => {
            let hosts: Vec<&str> = list_at(o, &["spec", "rules"])
                .iter()
                .map(|r| str_at(r, &["host"]))
                .filter(|h| !h.is_empty())
                .collect();
            let tls = !list_at(o, &["spec", "tls"]).is_empty();
            vec![
                name,
                json!(or_none(str_at(o, &["spec", "ingressClassName"]).to_owned())),
                json!(few(&hosts, "*")),
                json!(""),
                json!(if tls { "80, 443" } else { "80" }),
                old,
            ]
        }
        ("networking.k8s.io", "IngressClass") => {
            vec![name, text(&["spec", "controller"]), json!("<none>"), old]
        }
        ("coordination.k8s.io", "Lease") => vec![name, text(&["spec", "holderIdentity"]), old],
        ("policy", "PodDisruptionBudget") => {
            let show = |k: &str| match at(o, &["spec", k]) {
                Value::Null => json!("N/A"),
                Value::String(s) => json!(s),
                other => json!(other.to_string()),
            };
            vec![
                name,
                show("minAvailable"),
                show("maxUnavailable"),
                json!(int_at(o, &["status", "disruptionsAllowed"]).unwrap_or(0)),
                old,
            ]
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition")
        | ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => {
            vec![name, text(&["metadata", "creationTimestamp"])]
        }
        ("rbac.authorization.k8s.io", _) => {
            vec![
                name,
                json!(format!("{}/{}", str_at(o, &["roleRef", "kind"]), str_at(o, &["roleRef", "name"]))),
                old,
            ]
        }
        ("scheduling.k8s.io", "PriorityClass") => {
            vec![name, o["value"].clone(), json!(bool_at(o, &["globalDefault"])), old]
        }
        ("storage.k8s.io", "StorageClass") => vec![
            name,
            text(&["provisioner"]),
            text(&["reclaimPolicy"]),
            text(&["volumeBindingMode"]),
            json!(bool_at(o, &["allowVolumeExpansion"])),
            old,
        ],
        _ => vec![name, old],
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".into() } else { text }
}

/// Up to three of a list.
fn few<T: AsRef<str>>(list: &[T], empty: &str) -> String {
    let shown: Vec<&str> = list.iter().take(3).map(AsRef::as_ref).collect();
    match list.len() {
        0 => empty.into(),
        n if n > 3 => format!("{} + {} more...", shown.join(","), n - 3),
        _ => shown.join(","),
    }
}

fn node(o: &Value, old: Value) -> Vec<Value> {
    let ready = match crate::object::condition(o, "Ready").map(|c| str_at(c, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = if bool_at(o, &["spec", "unschedulable"]) { ",SchedulingDisabled" } else { "" };
    let labels = crate::object::labels(o);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"))
        .filter(|r| !r.is_empty())
        .collect();
    roles.sort_unstable();
    let address = |kind: &str| {
        let found = list_at(o, &["status", "addresses"]).iter().find(|a| str_at(a, &["type"]) == kind);
        json!(or_none(found.map_or("", |a| str_at(a, &["address"])).to_owned()))
    };
    let info = |key: &str| {
        let text = str_at(o, &["status", "nodeInfo", key]);
        json!(if text.is_empty() { "<unknown>" } else { text })
    };
    vec![
        json!(name(o)),
        json!(format!("{ready}{cordoned}")),
        json!(or_none(roles.join(","))),
        old,
        json!(str_at(o, &["status", "nodeInfo", "kubeletVersion"])),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn service(o: &Value, old: Value) -> Vec<Value> {
    let kind = str_at(o, &["spec", "type"]);
    let external = match kind {
        "ExternalName" => str_at(o, &["spec", "externalName"]).to_owned(),
        _ => {
            let mut ips: Vec<&str> =
                list_at(o, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
            let given = list_at(o, &["status", "loadBalancer", "ingress"]).iter();
            ips.extend(given.map(|i| {
                if str_at(i, &["ip"]).is_empty() { str_at(i, &["hostname"]) } else { str_at(i, &["ip"]) }
            }));
            match (ips.is_empty(), kind) {
                (false, _) => ips.join(","),
                (true, "LoadBalancer") => "<pending>".into(),
                (true, _) => "<none>".into(),
            }
        }
    };
    let ports: Vec<String> = list_at(o, &["spec", "ports"])
        .iter()
        .map(|p| {
            let (port, protocol) = (at(p, &["port"]), str_at(p, &["protocol"]));
            match int_at(p, &["nodePort"]).filter(|n| *n > 0) {
                Some(node_port) => format!("{port}:{node_port}/{protocol}"),
                None => format!("{port}/{protocol}"),
            }
        })
        .collect();
    vec![
        json!(name(o)),
        json!(kind),
        json!(or_none(str_at(o, &["spec", "clusterIP"]).to_owned())),
        json!(external),
        json!(or_none(ports.join(","))),
        old,
        json!(or_none(selector_text(at(o, &["spec", "selector"])))),
    ]
}

fn endpoints(o: &Value) -> String {
    let mut all: Vec<String> = Vec::new();
    for subset in list_at(o, &["subsets"]) {
        for address in list_at(subset, &["addresses"]) {
            let ip = str_at(address, &["ip"]);
            let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            let ports = list_at(subset, &["ports"]);
            all.extend(ports.iter().map(|p| format!("{ip}:{}", at(p, &["port"]))));
            if ports.is_empty() {
                all.push(ip);
            }
        }
    }
    few(&all, "<none>")
}

fn event(o: &Value, now: Timestamp) -> Vec<Value> {
    let first =
        [at(o, &["firstTimestamp"]), at(o, &["eventTime"]), at(o, &["metadata", "creationTimestamp"])];
    let first = first.into_iter().find(|v| v.is_string()).unwrap_or(&Value::Null);
    let last = [at(o, &["series", "lastObservedTime"]), at(o, &["lastTimestamp"]), first];
    let last = last.into_iter().find(|v| v.is_string()).unwrap_or(&Value::Null);
    let count = int_at(o, &["series", "count"]).or(int_at(o, &["count"])).unwrap_or(1);
    let about = at(o, &["involvedObject"]);
    let component = [str_at(o, &["source", "component"]), str_at(o, &["reportingComponent"])]
        .into_iter()
        .find(|s| !s.is_empty())
        .unwrap_or("");
    let host = str_at(o, &["source", "host"]);
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        json!(age(last, now)),
        json!(str_at(o, &["type"])),
        json!(str_at(o, &["reason"])),
        json!(format!("{}/{}", str_at(about, &["kind"]).to_lowercase(), str_at(about, &["name"]))),
        json!(str_at(about, &["fieldPath"])),
        json!(source),
        json!(str_at(o, &["message"]).trim()),
        json!(age(first, now)),
        json!(count),
        json!(if is_deleting(o) { "" } else { name(o) }),
    ]
}
