//! Rows of deployments, replica sets, daemon sets, stateful sets, jobs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::{age, between};
use super::{Column, column};
use crate::object::{at, bool_at, int_at, list_at, name};
use crate::store::selector_text;

pub(super) fn columns(kind: &str) -> Vec<Column> {
    let names: &[&str] = match kind {
        "Deployment" => &["Name", "Ready", "Up-to-date", "Available", "Age"],
        "ReplicaSet" | "ReplicationController" => &["Name", "Desired", "Current", "Ready", "Age"],
        "DaemonSet" => {
            &["Name", "Desired", "Current", "Ready", "Up-to-date", "Available", "Node Selector", "Age"]
        }
        "Job" => &["Name", "Status", "Completions", "Duration", "Age"],
        "CronJob" => &["Name", "Schedule", "Timezone", "Suspend", "Active", "Last Schedule", "Age"],
        _ => &["Name", "Ready", "Age"],
    };
    let mut all: Vec<Column> = names.iter().map(|n| column(n, 0)).collect();
    all.extend(["Containers", "Images"].map(|n| column(n, 1)));
    if kind != "StatefulSet" {
        all.push(column("Selector", 1));
    }
    all
}

pub(super) fn cells(kind: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    let status = |key: &str| int_at(object, &["status", key]).unwrap_or(0);
    let spec = |key: &str| int_at(object, &["spec", key]).unwrap_or(0);
    let age = json!(age(at(object, &["metadata", "creationTimestamp"]), now));
    let mut cells = vec![json!(name(object))];
    let mut template = at(object, &["spec", "template", "spec"]);
    match kind {
        "Deployment" => cells.extend([
            json!(format!("{}/{}", status("readyReplicas"), spec("replicas"))),
            json!(status("updatedReplicas")),
            json!(status("availableReplicas")),
        ]),
        "ReplicaSet" | "ReplicationController" => {
            cells.extend([
                json!(spec("replicas")),
                json!(status("replicas")),
                json!(status("readyReplicas")),
            ]);
        }
        "DaemonSet" => {
            let selector = at(object, &["spec", "template", "spec", "nodeSelector"]);
            let selector = if selector.as_object().is_none_or(serde_json::Map::is_empty) {
                "<none>".to_owned()
            } else {
                selector_text(selector)
            };
            cells.extend(
                [
                    "desiredNumberScheduled",
                    "currentNumberScheduled",
                    "numberReady",
                    "updatedNumberScheduled",
                    "numberAvailable",
                ]
                .map(|k| json!(status(k))),
            );
            cells.push(json!(selector));
        }
        "Job" => {
            let complete = crate::object::condition_is_true(object, "Complete");
            let failed = crate::object::condition_is_true(object, "Failed");
            let word = if complete {
                "Complete"
            } else if failed {
                "Failed"
            } else {
                "Running"
            };
            cells.extend([
                json!(word),
                json!(format!("{}/{}", status("succeeded"), spec("completions"))),
                json!(between(
                    at(object, &["status", "startTime"]),
                    at(object, &["status", "completionTime"]),
                    now
                )),
            ]);
        }
        "CronJob" => {
            template = at(object, &["spec", "jobTemplate", "spec", "template", "spec"]);
            let zone = crate::object::str_at(object, &["spec", "timeZone"]);
            let last = at(object, &["status", "lastScheduleTime"]);
            cells.extend([
                object["spec"]["schedule"].clone(),
                json!(if zone.is_empty() { "<none>" } else { zone }),
                json!(if bool_at(object, &["spec", "suspend"]) { "True" } else { "False" }),
                json!(list_at(object, &["status", "active"]).len()),
                json!(if last.is_null() { "<none>".to_owned() } else { super::age(last, now) }),
            ]);
        }
        _ => cells.push(json!(format!("{}/{}", status("readyReplicas"), spec("replicas")))),
    }
    cells.push(age);
    let containers = list_at(template, &["containers"]);
    let join =
        |key: &str| containers.iter().map(|c| crate::object::str_at(c, &[key])).collect::<Vec<_>>().join(",");
    cells.extend([json!(join("name")), json!(join("image"))]);
    if kind != "StatefulSet" {
        cells.push(json!(selector_text(at(object, &["spec", "selector"]))));
    }
    cells
}
