//! Checks of built-in objects, with the words the API server uses.

use serde_json::Value;

use crate::error::Cause;
use crate::object::{at, int_at, list_at, str_at};
use crate::selector::Selector;

/// RFC 1123 label: lower-case letters, digits, `-`, at most 63 characters.
fn is_dns_label(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// RFC 1123 subdomain: labels joined by dots, at most 253 characters.
fn is_dns_subdomain(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn is_label_value(value: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    value.is_empty()
        || value.len() <= 63
            && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && value.starts_with(ends)
            && value.ends_with(ends)
}

fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    prefix.is_none_or(|p| !p.is_empty() && is_dns_subdomain(p)) && !name.is_empty() && is_label_value(name)
}

/// What is wrong with an object of a built-in kind, metadata included.
pub(crate) fn validate(group: &str, kind: &str, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    metadata(group, kind, object, &mut causes);
    match (group, kind) {
        ("", "Pod") => pod_spec(at(object, &["spec"]), "spec", true, &mut causes),
        ("", "Service") => service(object, &mut causes),
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet") => {
            workload(kind, object, &mut causes);
        }
        ("batch", "Job") => {
            pod_spec(at(object, &["spec", "template", "spec"]), "spec.template.spec", false, &mut causes);
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crd(object, &mut causes),
        ("discovery.k8s.io", "EndpointSlice")
            if !matches!(str_at(object, &["addressType"]), "IPv4" | "IPv6" | "FQDN") =>
        {
            causes.push(Cause::required("addressType", ""));
        }
        _ => {}
    }
    causes
}

/// What is wrong with a change of an object of a built-in kind.
pub(crate) fn validate_update(group: &str, kind: &str, object: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut immutable = |path: &[&str]| {
        if at(object, path) != at(old, path) {
            causes.push(Cause::invalid(path.join("."), at(object, path), "field is immutable"));
        }
    };
    match (group, kind) {
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet") | ("batch", "Job") => {
            immutable(&["spec", "selector"]);
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => immutable(&["roleRef"]),
        ("", "Secret") => immutable(&["type"]),
        ("", "Service")
            if !at(old, &["spec", "clusterIP"]).is_null()
                && str_at(object, &["spec", "type"]) != "ExternalName" =>
        {
            immutable(&["spec", "clusterIP"]);
        }
        ("", "Pod") => pod_update(object, old, &mut causes),
        ("discovery.k8s.io", "EndpointSlice") => immutable(&["addressType"]),
        _ => {}
    }
    if matches!((group, kind), ("", "ConfigMap" | "Secret")) && at(old, &["immutable"]) == &Value::Bool(true)
    {
        for key in ["data", "binaryData"] {
            if at(object, &[key]) != at(old, &[key]) {
                causes.push(Cause::forbidden(key, "field is immutable when `immutable` is set"));
            }
        }
    }
    causes
}

/// Of a pod's spec only a few fields may change.
fn pod_update(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let fixed = |pod: &Value| {
        let mut spec = at(pod, &["spec"]).clone();
        if let Some(map) = spec.as_object_mut() {
            for key in [
                "activeDeadlineSeconds",
                "terminationGracePeriodSeconds",
                "tolerations",
                "schedulingGates",
                "ephemeralContainers",
                "nodeName",
            ] {
                map.shift_remove(key);
            }
        }
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(map) = container.as_object_mut() {
                    map.shift_remove("image");
                    map.shift_remove("resources");
                }
            }
        }
        spec
    };
    let node = |pod: &Value| str_at(pod, &["spec", "nodeName"]).to_owned();
    if fixed(object) != fixed(old) || !node(old).is_empty() && node(object) != node(old) {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` \
             (allow it to be set to 1 if it was previously negative)",
        ));
    }
}

fn metadata(group: &str, kind: &str, object: &Value, causes: &mut Vec<Cause>) {
    let name = crate::object::name(object);
    // RBAC names may hold almost anything.
    let free = group == "rbac.authorization.k8s.io";
    let label = matches!((group, kind), ("", "Namespace" | "Service"));
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if free {
        if name.contains('/') || name.contains('%') || matches!(name, "." | "..") {
            causes.push(Cause::invalid("metadata.name", &Value::from(name), "may not contain '/' or '%'"));
        }
    } else if label && !is_dns_label(name) {
        causes.push(Cause::invalid("metadata.name", &Value::from(name),
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
             alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"));
    } else if !is_dns_subdomain(name) {
        causes.push(Cause::invalid("metadata.name", &Value::from(name),
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with \
             an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"));
    }
    for (key, value) in crate::object::labels(object).into_iter().flatten() {
        if !is_qualified_name(key) {
            causes.push(Cause::invalid(
                "metadata.labels",
                &Value::from(key.as_str()),
                "name part must consist of alphanumeric characters, '-', '_' or '.'",
            ));
        }
        if !value.as_str().is_some_and(is_label_value) {
            causes.push(Cause::invalid("metadata.labels", value,
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                 with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                 '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"));
        }
    }
    for key in at(object, &["metadata", "annotations"]).as_object().into_iter().flatten().map(|(k, _)| k) {
        if !is_qualified_name(&key.to_lowercase()) {
            causes.push(Cause::invalid(
                "metadata.annotations",
                &Value::from(key.as_str()),
                "name part must consist of alphanumeric characters, '-', '_' or '.'",
            ));
        }
    }
}

fn pod_spec(spec: &Value, path: &str, is_pod: bool, causes: &mut Vec<Cause>) {
    let containers = list_at(spec, &["containers"]);
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut names: Vec<&str> = Vec::new();
    let all = [("initContainers", list_at(spec, &["initContainers"])), ("containers", containers)];
    for (list, i, container) in
        all.iter().flat_map(|(l, cs)| cs.iter().enumerate().map(move |(i, c)| (l, i, c)))
    {
        let here = format!("{path}.{list}[{i}]");
        let name = str_at(container, &["name"]);
        if name.is_empty() {
            causes.push(Cause::required(format!("{here}.name"), ""));
        } else if !is_dns_label(name) {
            causes.push(Cause::invalid(
                format!("{here}.name"),
                &Value::from(name),
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'",
            ));
        } else if names.contains(&name) {
            causes.push(Cause {
                field: format!("{here}.name"),
                reason: "FieldValueDuplicate",
                message: format!("Duplicate value: \"{name}\""),
            });
        }
        names.push(name);
        if str_at(container, &["image"]).is_empty() {
            causes.push(Cause::required(format!("{here}.image"), ""));
        }
        for (j, port) in list_at(container, &["ports"]).iter().enumerate() {
            check_port(at(port, &["containerPort"]), &format!("{here}.ports[{j}].containerPort"), causes);
            check_protocol(port, &format!("{here}.ports[{j}].protocol"), causes);
        }
        for (j, env) in
            list_at(container, &["env"]).iter().enumerate().filter(|(_, e)| str_at(e, &["name"]).is_empty())
        {
            let _ = env;
            causes.push(Cause::required(format!("{here}.env[{j}].name"), ""));
        }
        for (j, mount) in list_at(container, &["volumeMounts"]).iter().enumerate() {
            let volume = str_at(mount, &["name"]);
            if !list_at(spec, &["volumes"]).iter().any(|v| str_at(v, &["name"]) == volume) {
                causes.push(Cause {
                    field: format!("{here}.volumeMounts[{j}].name"),
                    reason: "FieldValueNotFound",
                    message: format!("Not found: \"{volume}\""),
                });
            }
        }
    }
    let policy = str_at(spec, &["restartPolicy"]);
    if is_pod && !matches!(policy, "Always" | "OnFailure" | "Never") {
        causes.push(not_supported(
            format!("{path}.restartPolicy"),
            policy,
            &["Always", "OnFailure", "Never"],
        ));
    }
}

fn not_supported(field: String, value: &str, allowed: &[&str]) -> Cause {
    let list: Vec<String> = allowed.iter().map(|a| format!("\"{a}\"")).collect();
    Cause {
        field,
        reason: "FieldValueNotSupported",
        message: format!("Unsupported value: \"{value}\": supported values: {}", list.join(", ")),
    }
}

fn check_port(port: &Value, field: &str, causes: &mut Vec<Cause>) {
    match port.as_i64() {
        None | Some(0) => causes.push(Cause::required(field, "")),
        Some(1..=65535) => {}
        Some(_) => causes.push(Cause::invalid(field, port, "must be between 1 and 65535, inclusive")),
    }
}

fn check_protocol(port: &Value, field: &str, causes: &mut Vec<Cause>) {
    let protocol = str_at(port, &["protocol"]);
    if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
        causes.push(not_supported(field.to_owned(), protocol, &["SCTP", "TCP", "UDP"]));
    }
}

fn service(service: &Value, causes: &mut Vec<Cause>) {
    let kind = str_at(service, &["spec", "type"]);
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        causes.push(not_supported(
            "spec.type".into(),
            kind,
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        ));
    }
    let ports = list_at(service, &["spec", "ports"]);
    let headless = str_at(service, &["spec", "clusterIP"]) == "None";
    if ports.is_empty() && kind != "ExternalName" && !headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    if kind == "ExternalName" && str_at(service, &["spec", "externalName"]).is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    for (i, port) in ports.iter().enumerate() {
        check_port(at(port, &["port"]), &format!("spec.ports[{i}].port"), causes);
        check_protocol(port, &format!("spec.ports[{i}].protocol"), causes);
        let name = str_at(port, &["name"]);
        if ports.len() > 1 && name.is_empty() {
            causes.push(Cause::required(format!("spec.ports[{i}].name"), ""));
        }
        let same = |p: &&Value| str_at(p, &["name"]) == name && !name.is_empty();
        if ports[..i].iter().any(|p| same(&p)) {
            causes.push(Cause {
                field: format!("spec.ports[{i}].name"),
                reason: "FieldValueDuplicate",
                message: format!("Duplicate value: \"{name}\""),
            });
        }
        let key = |p: &Value| (p["port"].clone(), p["protocol"].clone());
        if ports[..i].iter().any(|p| key(p) == key(port)) {
            causes.push(Cause {
                field: format!("spec.ports[{i}]"),
                reason: "FieldValueDuplicate",
                message: format!("Duplicate value: {port}"),
            });
        }
    }
}

fn workload(kind: &str, object: &Value, causes: &mut Vec<Cause>) {
    let selector = at(object, &["spec", "selector"]);
    let empty = selector.as_object().is_none_or(serde_json::Map::is_empty);
    if empty {
        causes.push(Cause::required("spec.selector", ""));
    }
    let template_labels = at(object, &["spec", "template", "metadata", "labels"]);
    if !empty && !Selector::from_label_selector(selector).matches_labels(template_labels.as_object()) {
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            template_labels,
            "`selector` does not match template `labels`",
        ));
    }
    if int_at(object, &["spec", "replicas"]).is_some_and(|r| r < 0) && kind != "DaemonSet" {
        causes.push(Cause::invalid(
            "spec.replicas",
            at(object, &["spec", "replicas"]),
            "must be greater than or equal to 0",
        ));
    }
    let spec = at(object, &["spec", "template", "spec"]);
    pod_spec(spec, "spec.template.spec", false, causes);
    let policy = str_at(spec, &["restartPolicy"]);
    if !policy.is_empty() && policy != "Always" {
        causes.push(not_supported("spec.template.spec.restartPolicy".into(), policy, &["Always"]));
    }
}

fn crd(crd: &Value, causes: &mut Vec<Cause>) {
    let (group, plural) = (str_at(crd, &["spec", "group"]), str_at(crd, &["spec", "names", "plural"]));
    for (value, field) in [
        (group, "spec.group"),
        (plural, "spec.names.plural"),
        (str_at(crd, &["spec", "names", "kind"]), "spec.names.kind"),
    ] {
        if value.is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let name = crate::object::name(crd);
    if name != format!("{plural}.{group}") {
        causes.push(Cause::invalid(
            "metadata.name",
            &Value::from(name),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    let scope = str_at(crd, &["spec", "scope"]);
    if !matches!(scope, "Cluster" | "Namespaced") {
        causes.push(not_supported("spec.scope".into(), scope, &["Cluster", "Namespaced"]));
    }
    let versions = list_at(crd, &["spec", "versions"]);
    if versions.iter().filter(|v| at(v, &["storage"]) == &Value::Bool(true)).count() != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            &Value::from(versions.len()),
            "must have exactly one version marked as storage version",
        ));
    }
    for (i, version) in versions.iter().enumerate() {
        if !at(version, &["schema", "openAPIV3Schema"]).is_object() {
            causes.push(Cause::required(
                format!("spec.versions[{i}].schema.openAPIV3Schema"),
                "schemas are required",
            ));
            continue;
        }
        let schema = at(version, &["schema", "openAPIV3Schema"]);
        let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
        let status = version["subresources"].get("status").is_some();
        causes.extend(crate::schema::structural::causes(schema, &path, status));
    }
}
