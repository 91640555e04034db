//! Fields that only the server sets, at creation and at updates.

use serde_json::{Value, json};

use crate::object::{at, list_at, map_mut, set, set_default, str_at};

/// Sets what the server decides when an object is created.
pub(crate) fn prepare_create(group: &str, kind: &str, object: &mut Value, now: &str) {
    match (group, kind) {
        ("", "Pod") => pod(object),
        ("", "Namespace") => {
            set_default(object, &["spec", "finalizers"], json!(["kubernetes"]));
            set(object, &["status"], json!({"phase": "Active"}));
        }
        ("", "Node") => {
            // A new node takes no pods until its controller has seen it ready.
            let ready = crate::object::condition_is_true(object, "Ready");
            let mut taints = list_at(object, &["spec", "taints"]).to_vec();
            if !ready && !taints.iter().any(|t| str_at(t, &["key"]) == "node.kubernetes.io/not-ready") {
                taints.push(json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}));
            }
            if !taints.is_empty() {
                set(object, &["spec", "taints"], Value::Array(taints));
            }
            map_mut(object, &["spec"]);
        }
        ("", "Event") => {
            set_default(object, &["reportingComponent"], json!(""));
            set_default(object, &["reportingInstance"], json!(""));
        }
        ("apps", "Deployment") => {
            set(object, &["status"], json!({}));
        }
        ("apps", "ReplicaSet") => {
            set(object, &["status"], json!({"replicas": 0}));
        }
        ("apps", "DaemonSet") => {
            set(
                object,
                &["status"],
                json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}),
            );
        }
        ("apps", "StatefulSet") => {
            set(object, &["status"], json!({"replicas": 0, "availableReplicas": 0}));
        }
        ("", "Service") => {
            set_default(object, &["status"], json!({"loadBalancer": {}}));
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::registry::establish(object, now),
        _ => {}
    }
}

/// Keeps or renews what the server decides when an object is replaced.
pub(crate) fn prepare_update(group: &str, kind: &str, object: &mut Value, old: &Value, now: &str) {
    match (group, kind) {
        // Templates may leave out what was decided at creation.
        ("", "Namespace") => {
            set(object, &["spec"], old["spec"].clone());
        }
        ("", "Node") => {
            map_mut(object, &["spec"]);
            // Once given out, pod CIDRs stay, also when a client writes back an older state.
            for key in ["podCIDR", "podCIDRs"] {
                let value = at(old, &["spec", key]);
                if !value.is_null() {
                    set(object, &["spec", key], value.clone());
                }
            }
        }
        ("", "Pod") => {
            for key in ["nodeName", "serviceAccountName", "serviceAccount"] {
                let value = at(old, &["spec", key]);
                if !value.is_null() {
                    set_default(object, &["spec", key], value.clone());
                }
            }
        }
        ("", "Service") if str_at(object, &["spec", "type"]) != "ExternalName" => {
            // A client that writes back without the addresses keeps them.
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let unset = at(object, &["spec", key]).is_null()
                    || key == "clusterIP" && str_at(object, &["spec", key]).is_empty();
                let value = at(old, &["spec", key]);
                if unset && !value.is_null() {
                    set(object, &["spec", key], value.clone());
                }
            }
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::registry::establish(object, now),
        _ => {}
    }
}

fn pod(pod: &mut Value) {
    set_default(pod, &["spec", "serviceAccountName"], json!("default"));
    let account = pod["spec"]["serviceAccountName"].clone();
    set_default(pod, &["spec", "serviceAccount"], account);
    set_default(pod, &["spec", "priority"], json!(0));
    set_default(pod, &["spec", "preemptionPolicy"], json!("PreemptLowerPriority"));
    // Admission plugin DefaultTolerationSeconds.
    let mut tolerations = list_at(pod, &["spec", "tolerations"]).to_vec();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = |t: &Value| {
            let (k, effect) = (str_at(t, &["key"]), str_at(t, &["effect"]));
            (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        };
        if !tolerations.iter().any(tolerated) {
            tolerations.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
    set(pod, &["spec", "tolerations"], Value::Array(tolerations));
    let qos = qos_class(pod);
    set(pod, &["status"], json!({"phase": "Pending", "qosClass": qos}));
}

/// Quality of service class (Kubernetes documentation, "Pod Quality of Service Classes").
fn qos_class(pod: &Value) -> &'static str {
    let containers =
        || list_at(pod, &["spec", "containers"]).iter().chain(list_at(pod, &["spec", "initContainers"]));
    let amount = |c: &Value, kind: &str, resource: &str| at(c, &["resources", kind, resource]).clone();
    let mut any = containers().flat_map(|c| {
        ["requests", "limits"]
            .into_iter()
            .flat_map(move |k| ["cpu", "memory"].into_iter().map(move |r| amount(c, k, r)))
    });
    if any.all(|v| v.is_null()) {
        return "BestEffort";
    }
    let guaranteed = containers().all(|c| {
        ["cpu", "memory"].iter().all(|r| {
            let limit = amount(c, "limits", r);
            !limit.is_null() && limit == amount(c, "requests", r)
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}
