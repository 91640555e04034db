//! Does a pod fit a node, as far as only the two matter?

use serde_json::Value;
use sim_api::Selector;
use sim_api::object::{at, bool_at, int_at, labels, list_at, name, str_at};
use sim_api::store::Object;

/// Checks node selector, node affinity and taints; the error is the reason as the scheduler words it, without number.
pub(crate) fn fits_node(pod: &Value, node: &Value) -> Result<(), String> {
    let wanted = at(pod, &["spec", "nodeSelector"]).as_object();
    let by_label = wanted.is_none_or(|w| Selector::from_map(w).matches_labels(labels(node)));
    let required =
        at(pod, &["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"]);
    let terms = list_at(required, &["nodeSelectorTerms"]);
    let by_affinity = required.is_null() || terms.iter().any(|t| matches_term(t, node));
    if !by_label || !by_affinity {
        return Err("node(s) didn't match Pod's node affinity/selector".into());
    }
    let taints = list_at(node, &["spec", "taints"]);
    // A cordoned node has the taint a moment later; this moment must not count.
    let unschedulable =
        serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    if bool_at(node, &["spec", "unschedulable"]) && !tolerates(pod, &unschedulable) {
        return Err("node(s) were unschedulable".into());
    }
    let hard = taints.iter().filter(|t| matches!(str_at(t, &["effect"]), "NoSchedule" | "NoExecute"));
    for taint in hard {
        if !tolerates(pod, taint) {
            return Err(format!(
                "node(s) had untolerated taint {{{}: {}}}",
                str_at(taint, &["key"]),
                str_at(taint, &["value"])
            ));
        }
    }
    Ok(())
}

/// All expressions of a node selector term; an empty term matches nothing.
fn matches_term(term: &Value, node: &Value) -> bool {
    let (expressions, fields) = (list_at(term, &["matchExpressions"]), list_at(term, &["matchFields"]));
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let by_field = fields.iter().all(|f| {
        let named = list_at(f, &["values"]).iter().any(|v| v == name(node));
        str_at(f, &["key"]) == "metadata.name" && named == (str_at(f, &["operator"]) == "In")
    });
    by_field && Selector::from_expressions(expressions).matches_labels(labels(node))
}

/// True if one of the pod's tolerations covers the taint.
fn tolerates(pod: &Value, taint: &Value) -> bool {
    list_at(pod, &["spec", "tolerations"]).iter().any(|t| {
        let (key, effect) = (str_at(t, &["key"]), str_at(t, &["effect"]));
        let same_key = key.is_empty() || key == str_at(taint, &["key"]);
        let same_effect = effect.is_empty() || effect == str_at(taint, &["effect"]);
        let exists = str_at(t, &["operator"]) == "Exists";
        same_key
            && same_effect
            && (exists || !key.is_empty() && str_at(t, &["value"]) == str_at(taint, &["value"]))
    })
}

/// Checks the number of pods and the ports on the host.
pub(super) fn has_room(pod: &Value, node: &Value, there: &[Object]) -> Result<(), String> {
    let limit = match at(node, &["status", "allocatable", "pods"]) {
        Value::String(s) => s.parse().ok(),
        other => other.as_u64(),
    };
    if limit.is_some_and(|l| there.len() as u64 >= l) {
        return Err("Too many pods".into());
    }
    let ports = |p: &Value| -> Vec<(i64, String)> {
        let all = list_at(p, &["spec", "containers"]).iter().flat_map(|c| list_at(c, &["ports"]));
        all.filter_map(|p| {
            Some((int_at(p, &["hostPort"]).filter(|n| *n > 0)?, str_at(p, &["protocol"]).to_owned()))
        })
        .collect()
    };
    let wanted = ports(pod);
    if !wanted.is_empty() && there.iter().any(|p| ports(p).iter().any(|x| wanted.contains(x))) {
        return Err("node(s) didn't have free ports for the requested pod ports".into());
    }
    Ok(())
}

/// Sum of the weights of preferred node affinities, less what soft taints cost.
pub(super) fn preference(pod: &Value, node: &Value) -> i64 {
    let preferred = list_at(
        pod,
        &["spec", "affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"],
    );
    let liked: i64 = preferred
        .iter()
        .filter(|p| matches_term(at(p, &["preference"]), node))
        .filter_map(|p| int_at(p, &["weight"]))
        .sum();
    let soft = list_at(node, &["spec", "taints"])
        .iter()
        .filter(|t| str_at(t, &["effect"]) == "PreferNoSchedule" && !tolerates(pod, t))
        .count();
    liked - 100 * i64::try_from(soft).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "calls of test tables read better with plain values")]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(pod_spec: Value, node: Value, expect: Result<(), &str>) {
        let got = fits_node(&json!({"spec": pod_spec}), &node);
        assert_eq!(
            got.as_ref().map_err(String::as_str),
            expect.as_ref().map(|()| &()).map_err(|e| *e),
            "{pod_spec:?}"
        );
    }

    #[test]
    fn selectors_affinity_and_taints() {
        let node = json!({"metadata": {"name": "a", "labels": {"zone": "1"}}, "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
        let ok = json!([{"key": "k", "operator": "Equal", "value": "v"}]);
        check(json!({"tolerations": ok, "nodeSelector": {"zone": "1"}}), node.clone(), Ok(()));
        check(
            json!({"tolerations": ok, "nodeSelector": {"zone": "2"}}),
            node.clone(),
            Err("node(s) didn't match Pod's node affinity/selector"),
        );
        check(json!({}), node.clone(), Err("node(s) had untolerated taint {k: v}"));
        check(json!({"tolerations": [{"operator": "Exists"}]}), node.clone(), Ok(()));
        let affinity = |terms: Value| json!({"tolerations": ok, "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        check(
            affinity(json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["1"]}]}])),
            node.clone(),
            Ok(()),
        );
        check(
            affinity(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}])),
            node.clone(),
            Err("node(s) didn't match Pod's node affinity/selector"),
        );
        check(affinity(json!([{}])), node, Err("node(s) didn't match Pod's node affinity/selector"));
        check(
            json!({}),
            json!({"metadata": {"name": "a"}, "spec": {"unschedulable": true}}),
            Err("node(s) were unschedulable"),
        );
    }
}
