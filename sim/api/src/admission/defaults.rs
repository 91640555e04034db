//! Default values of built-in kinds, as the API reference documents them.

use serde_json::{Value, json};

use crate::object::{at, bool_at, list_at, map_mut, set, set_default, str_at};

/// Fills in the defaults of a kind.
pub(crate) fn defaults(group: &str, kind: &str, object: &mut Value) {
    match (group, kind) {
        ("", "Pod") => {
            pod_spec(&mut object["spec"]);
            set_default(object, &["spec", "enableServiceLinks"], json!(true));
        }
        ("", "Service") => service(object),
        ("", "Namespace") => {
            let name = crate::object::name(object).to_owned();
            map_mut(object, &["metadata", "labels"])
                .insert("kubernetes.io/metadata.name".into(), json!(name));
        }
        ("", "Secret") => secret(object),
        ("", "Endpoints") => {
            for subset in list_mut(object, &["subsets"]) {
                list_mut(subset, &["ports"])
                    .iter_mut()
                    .for_each(|p| set_default(p, &["protocol"], json!("TCP")));
            }
        }
        ("", "ReplicationController") => {
            set_default(object, &["spec", "replicas"], json!(1));
            pod_spec(&mut object["spec"]["template"]["spec"]);
        }
        ("", "PersistentVolumeClaim") => set_default(object, &["spec", "volumeMode"], json!("Filesystem")),
        ("apps", "Deployment") => deployment(object),
        ("apps", "ReplicaSet") => {
            set_default(object, &["spec", "replicas"], json!(1));
            template(object);
        }
        ("apps", "DaemonSet") => {
            set_default(object, &["spec", "updateStrategy", "type"], json!("RollingUpdate"));
            if str_at(object, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
                set_default(object, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"], json!(1));
                set_default(object, &["spec", "updateStrategy", "rollingUpdate", "maxSurge"], json!(0));
            }
            set_default(object, &["spec", "revisionHistoryLimit"], json!(10));
            template(object);
        }
        ("apps", "StatefulSet") => {
            set_default(object, &["spec", "replicas"], json!(1));
            set_default(object, &["spec", "podManagementPolicy"], json!("OrderedReady"));
            set_default(object, &["spec", "updateStrategy", "type"], json!("RollingUpdate"));
            set_default(object, &["spec", "revisionHistoryLimit"], json!(10));
            template(object);
        }
        ("batch", "Job") => job(&mut object["spec"]),
        ("batch", "CronJob") => {
            set_default(object, &["spec", "concurrencyPolicy"], json!("Allow"));
            set_default(object, &["spec", "suspend"], json!(false));
        }
        ("networking.k8s.io", "NetworkPolicy") => network_policy(object),
        ("discovery.k8s.io", "EndpointSlice") => {
            for port in list_mut(object, &["ports"]) {
                set_default(port, &["name"], json!(""));
                set_default(port, &["protocol"], json!("TCP"));
            }
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            set_default(object, &["roleRef", "apiGroup"], json!("rbac.authorization.k8s.io"));
            for subject in list_mut(object, &["subjects"]) {
                if matches!(str_at(subject, &["kind"]), "User" | "Group") {
                    set_default(subject, &["apiGroup"], json!("rbac.authorization.k8s.io"));
                }
            }
        }
        _ => {}
    }
}

fn list_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut [Value] {
    let mut here = value;
    for key in path {
        match here.get_mut(*key) {
            Some(next) => here = next,
            None => return &mut [],
        }
    }
    here.as_array_mut().map_or(&mut [], Vec::as_mut_slice)
}

fn template(object: &mut Value) {
    if at(object, &["spec", "template"]).is_object() {
        pod_spec(&mut object["spec"]["template"]["spec"]);
    }
}

fn deployment(object: &mut Value) {
    set_default(object, &["spec", "replicas"], json!(1));
    set_default(object, &["spec", "strategy", "type"], json!("RollingUpdate"));
    if str_at(object, &["spec", "strategy", "type"]) == "RollingUpdate" {
        set_default(object, &["spec", "strategy", "rollingUpdate", "maxUnavailable"], json!("25%"));
        set_default(object, &["spec", "strategy", "rollingUpdate", "maxSurge"], json!("25%"));
    }
    set_default(object, &["spec", "revisionHistoryLimit"], json!(10));
    set_default(object, &["spec", "progressDeadlineSeconds"], json!(600));
    template(object);
}

fn job(spec: &mut Value) {
    for (key, value) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
    ] {
        set_default(spec, &[key], value);
    }
    pod_spec(&mut spec["template"]["spec"]);
}

fn secret(object: &mut Value) {
    use base64::Engine as _;
    set_default(object, &["type"], json!("Opaque"));
    let Some(Value::Object(plain)) = crate::object::remove(object, &["stringData"]) else { return };
    let data = map_mut(object, &["data"]);
    for (key, value) in plain {
        let text = value.as_str().unwrap_or("");
        data.insert(key, json!(base64::engine::general_purpose::STANDARD.encode(text)));
    }
}

fn network_policy(object: &mut Value) {
    if list_at(object, &["spec", "policyTypes"]).is_empty() {
        let mut types = vec![json!("Ingress")];
        if !list_at(object, &["spec", "egress"]).is_empty() {
            types.push(json!("Egress"));
        }
        set(object, &["spec", "policyTypes"], Value::Array(types));
    }
    set_default(object, &["spec", "podSelector"], json!({}));
    for direction in ["ingress", "egress"] {
        for rule in list_mut(object, &["spec", direction]) {
            list_mut(rule, &["ports"]).iter_mut().for_each(|p| set_default(p, &["protocol"], json!("TCP")));
        }
    }
}

fn service(object: &mut Value) {
    set_default(object, &["spec", "type"], json!("ClusterIP"));
    set_default(object, &["spec", "sessionAffinity"], json!("None"));
    let kind = str_at(object, &["spec", "type"]).to_owned();
    for port in list_mut(object, &["spec", "ports"]) {
        set_default(port, &["protocol"], json!("TCP"));
        // 0 means "not given", as the zero value does in the wire form of the original.
        if at(port, &["targetPort"]).is_null()
            || port["targetPort"] == json!(0)
            || port["targetPort"] == json!("")
        {
            port["targetPort"] = port["port"].clone();
        }
    }
    if kind == "ExternalName" {
        return;
    }
    set_default(object, &["spec", "internalTrafficPolicy"], json!("Cluster"));
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        set_default(object, &["spec", "externalTrafficPolicy"], json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        set_default(object, &["spec", "allocateLoadBalancerNodePorts"], json!(true));
    }
    if str_at(object, &["spec", "sessionAffinity"]) == "ClientIP" {
        set_default(object, &["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"], json!(10800));
    }
}

/// Defaults of a pod's spec, in a pod or a template.
fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("securityContext", json!({})),
        ("schedulerName", json!("default-scheduler")),
    ] {
        set_default(spec, &[key], value);
    }
    if !str_at(spec, &["serviceAccountName"]).is_empty() {
        let account = spec["serviceAccountName"].clone();
        set_default(spec, &["serviceAccount"], account);
    } else if !str_at(spec, &["serviceAccount"]).is_empty() {
        spec["serviceAccountName"] = spec["serviceAccount"].clone();
    }
    let host_network = bool_at(spec, &["hostNetwork"]);
    for list in ["initContainers", "containers"] {
        list_mut(spec, &[list]).iter_mut().for_each(|c| container(c, host_network));
    }
    for volume in list_mut(spec, &["volumes"]) {
        for (source, mode) in [
            ("configMap", "defaultMode"),
            ("secret", "defaultMode"),
            ("projected", "defaultMode"),
            ("downwardAPI", "defaultMode"),
        ] {
            if volume.get(source).is_some() {
                set_default(volume, &[source, mode], json!(420));
            }
        }
        if at(volume, &["hostPath"]).is_object() {
            set_default(volume, &["hostPath", "type"], json!(""));
        }
        if volume.as_object().is_some_and(|v| v.len() == 1) {
            volume["emptyDir"] = json!({});
        }
    }
}

fn container(container: &mut Value, host_network: bool) {
    let image = str_at(container, &["image"]);
    // A tag "latest", or none, is pulled again every time.
    let tag = image.rsplit('/').next().unwrap_or("").split_once(':').map(|(_, t)| t);
    let policy =
        if !image.contains('@') && matches!(tag, None | Some("latest")) { "Always" } else { "IfNotPresent" };
    for (key, value) in [
        ("imagePullPolicy", json!(policy)),
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
        ("resources", json!({})),
    ] {
        set_default(container, &[key], value);
    }
    for port in list_mut(container, &["ports"]) {
        set_default(port, &["protocol"], json!("TCP"));
        if host_network {
            let number = port["containerPort"].clone();
            set_default(port, &["hostPort"], number);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) else { continue };
        for (key, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            set_default(probe, &[key], json!(value));
        }
        if at(probe, &["httpGet"]).is_object() {
            set_default(probe, &["httpGet", "path"], json!("/"));
            set_default(probe, &["httpGet", "scheme"], json!("HTTP"));
        }
    }
    // Limits count as requests where none are given.
    if let Some(limits) = at(container, &["resources", "limits"]).as_object().cloned() {
        for (resource, amount) in limits {
            set_default(container, &["resources", "requests", &resource], amount);
        }
    }
    for env in list_mut(container, &["env"]) {
        if at(env, &["valueFrom", "fieldRef"]).is_object() {
            set_default(env, &["valueFrom", "fieldRef", "apiVersion"], json!("v1"));
        }
    }
}
