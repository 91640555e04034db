//! The row of a pod.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::age;
use super::{Column, column};
use crate::object::{at, bool_at, int_at, is_deleting, list_at, name, str_at};

pub(super) fn columns() -> Vec<Column> {
    vec![
        column("Name", 0),
        column("Ready", 0),
        column("Status", 0),
        column("Restarts", 0),
        column("Age", 0),
        column("IP", 1),
        column("Node", 1),
        column("Nominated Node", 1),
        column("Readiness Gates", 1),
    ]
}

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let containers = list_at(pod, &["status", "containerStatuses"]);
    let ready = containers
        .iter()
        .filter(|c| bool_at(c, &["ready"]) && at(c, &["state", "running"]).is_object())
        .count();
    let total = list_at(pod, &["spec", "containers"]).len();
    let or_none = |s: &str| if s.is_empty() { json!("<none>") } else { json!(s) };
    let ip = list_at(pod, &["status", "podIPs"])
        .first()
        .map_or_else(|| str_at(pod, &["status", "podIP"]), |p| str_at(p, &["ip"]));
    vec![
        json!(name(pod)),
        json!(format!("{ready}/{total}")),
        json!(status(pod)),
        json!(restarts(containers, now)),
        json!(age(at(pod, &["metadata", "creationTimestamp"]), now)),
        or_none(ip),
        or_none(str_at(pod, &["spec", "nodeName"])),
        or_none(str_at(pod, &["status", "nominatedNodeName"])),
        json!("<none>"),
    ]
}

fn restarts(containers: &[Value], now: Timestamp) -> String {
    let count: i64 = containers.iter().filter_map(|c| int_at(c, &["restartCount"])).sum();
    let last = containers
        .iter()
        .map(|c| at(c, &["lastState", "terminated", "finishedAt"]))
        .filter(|v| v.is_string());
    match last.max_by(|a, b| a.as_str().cmp(&b.as_str())) {
        Some(when) if count > 0 => format!("{count} ({} ago)", age(when, now)),
        _ => count.to_string(),
    }
}

/// What a pod is doing, in one word: its phase, or the reason of the container that holds it up.
pub(super) fn status(pod: &Value) -> String {
    let mut word = Some(str_at(pod, &["status", "reason"]))
        .filter(|s| !s.is_empty())
        .unwrap_or_else(|| str_at(pod, &["status", "phase"]))
        .to_owned();
    let gated = list_at(pod, &["status", "conditions"])
        .iter()
        .any(|c| str_at(c, &["type"]) == "PodScheduled" && str_at(c, &["reason"]) == "SchedulingGated");
    if gated {
        word = "SchedulingGated".into();
    }
    let inits = list_at(pod, &["status", "initContainerStatuses"]);
    let mut initializing = false;
    for (i, c) in inits.iter().enumerate() {
        let terminated = at(c, &["state", "terminated"]);
        if terminated.is_object() && int_at(terminated, &["exitCode"]) == Some(0)
            || bool_at(c, &["started"]) && at(c, &["state", "running"]).is_object()
        {
            continue;
        }
        let waiting = str_at(c, &["state", "waiting", "reason"]);
        word = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", inits.len())
        };
        initializing = true;
        break;
    }
    if !initializing {
        let mut running = false;
        for c in list_at(pod, &["status", "containerStatuses"]).iter().rev() {
            let waiting = str_at(c, &["state", "waiting", "reason"]);
            let terminated = at(c, &["state", "terminated"]);
            if !waiting.is_empty() {
                waiting.clone_into(&mut word);
            } else if terminated.is_object() {
                word = ended(terminated);
            } else if bool_at(c, &["ready"]) && at(c, &["state", "running"]).is_object() {
                running = true;
            }
        }
        if word == "Completed" && running {
            word = if crate::object::condition_is_true(pod, "Ready") {
                "Running".into()
            } else {
                "NotReady".into()
            };
        }
    }
    if is_deleting(pod) && str_at(pod, &["status", "reason"]) == "NodeLost" {
        word = "Unknown".into();
    } else if is_deleting(pod) && !matches!(str_at(pod, &["status", "phase"]), "Succeeded" | "Failed") {
        word = "Terminating".into();
    }
    if word.is_empty() { "Unknown".into() } else { word }
}

fn ended(terminated: &Value) -> String {
    let reason = str_at(terminated, &["reason"]);
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match int_at(terminated, &["signal"]).filter(|s| *s != 0) {
        Some(signal) => format!("Signal:{signal}"),
        None => format!("ExitCode:{}", int_at(terminated, &["exitCode"]).unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words() {
        let check = |pod: Value, expect: &str| assert_eq!(status(&pod), expect, "{pod}");
        check(json!({"status": {"phase": "Pending"}}), "Pending");
        check(
            json!({"status": {"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
            "CrashLoopBackOff",
        );
        check(
            json!({"status": {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}}),
            "Completed",
        );
        check(
            json!({"status": {"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}}),
            "Init:0/1",
        );
        check(
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}}),
            "Terminating",
        );
        check(
            json!({"status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}}),
            "ExitCode:3",
        );
    }
}
