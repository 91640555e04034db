//! What is known about a pod on its node, and its status as the API shows it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};
use sim_api::object::list_at;
use tokio::sync::Notify;

use super::context::timestamp;
use super::log::ContainerLog;
use super::spec::{PodSpec, RestartPolicy};
use crate::state::ProcessId;

/// A run of a container that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Exit code, 128 + signal.
    pub code: i32,
    /// `Completed`, `Error`, …
    pub reason: &'static str,
    /// Last output of a run that failed at its start.
    pub message: String,
    /// When it started.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Its id.
    pub id: String,
}

/// What a container does now.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Nothing yet, or not again yet.
    Waiting {
        /// `ContainerCreating`, `CrashLoopBackOff`, `ImagePullBackOff`, …
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
        /// Its shim.
        shim: ProcessId,
        /// Its id.
        id: String,
    },
    /// It has ended and does not run again.
    Ended(Ended),
}

/// A container of a pod.
#[derive(Debug, Clone)]
pub(crate) struct ContainerState {
    /// What it does.
    pub phase: Phase,
    /// The run before.
    pub last: Option<Ended>,
    /// How often it ran again.
    pub restarts: u32,
    /// Its startup probe has succeeded (or there is none and it runs).
    pub started: bool,
    /// Its readiness probe succeeds (or there is none and it runs).
    pub ready: bool,
    /// Log of this run, and of the one before.
    pub logs: [Option<Arc<ContainerLog>>; 2],
}

impl Default for ContainerState {
    fn default() -> Self {
        let phase = Phase::Waiting { reason: "ContainerCreating", message: String::new() };
        Self { phase, last: None, restarts: 0, started: false, ready: false, logs: [None, None] }
    }
}

/// Everything about a pod that changes.
#[derive(Debug, Default)]
pub(crate) struct PodState {
    /// Addresses of the pod.
    pub ips: Vec<IpAddr>,
    /// Its network is there.
    pub sandbox: bool,
    /// All init containers have succeeded.
    pub initialized: bool,
    /// When the kubelet saw it first.
    pub started: Option<Timestamp>,
    /// Containers and init containers by name.
    pub containers: BTreeMap<String, ContainerState>,
    /// Why the whole pod has failed, if it has.
    pub failure: Option<(&'static str, String)>,
}

/// A pod's state, shared by the tasks that work for it.
#[derive(Debug, Default)]
pub(crate) struct SharedState {
    state: Mutex<PodState>,
    changed: Notify,
}

impl SharedState {
    /// Reads or changes without telling anybody.
    pub(crate) fn lock(&self) -> MutexGuard<'_, PodState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes, and lets the status be written.
    pub(crate) fn change<T>(&self, work: impl FnOnce(&mut PodState) -> T) -> T {
        let result = work(&mut self.lock());
        self.changed.notify_one();
        result
    }

    /// Changes one container.
    pub(crate) fn container<T>(&self, name: &str, work: impl FnOnce(&mut ContainerState) -> T) -> T {
        self.change(|state| work(state.containers.entry(name.to_owned()).or_default()))
    }

    /// Waits for the next change. One change is remembered if nobody waits.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl PodState {
    /// The status as core/v1 PodStatus. `pod` is the object as it is now (conditions of others are kept), `deleting` tells that
    /// the pod is being ended.
    pub(crate) fn status(&self, pod: &Value, spec: &PodSpec, host_ips: &[IpAddr], now: Timestamp) -> Value {
        let phase = self.phase(spec);
        let unready: Vec<&str> = spec
            .containers
            .iter()
            .filter(|c| !self.containers.get(&c.name).is_some_and(|s| s.ready))
            .map(|c| c.name.as_str())
            .collect();
        let ready = unready.is_empty() && phase == "Running";
        let why_not = match phase {
            "Succeeded" => ("PodCompleted", String::new()),
            "Failed" => ("PodFailed", String::new()),
            _ => ("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
        };
        let mut conditions: Vec<Value> = list_at(pod, &["status", "conditions"]).to_vec();
        let mut set = |kind: &str, value: bool, why: Option<(&str, &str)>| {
            set_condition(&mut conditions, kind, value, why, now);
        };
        set("PodReadyToStartContainers", self.sandbox, None);
        set(
            "Initialized",
            self.initialized,
            (!self.initialized).then_some(("ContainersNotInitialized", "init containers have not completed")),
        );
        let because = (!ready).then_some((why_not.0, why_not.1.as_str()));
        set("ContainersReady", ready, because);
        set("Ready", ready, because);
        set("PodScheduled", true, None);

        let statuses = |list: &[super::spec::Container]| -> Vec<Value> {
            list.iter()
                .map(|c| {
                    container_status(
                        &c.name,
                        &c.image,
                        self.containers.get(&c.name).unwrap_or(&ContainerState::default()),
                    )
                })
                .collect()
        };
        let mut status = json!({
            "phase": phase,
            "conditions": conditions,
            "hostIP": host_ips.first(),
            "hostIPs": host_ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
            "podIP": self.ips.first(),
            "podIPs": self.ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
            "startTime": self.started.map(timestamp),
            "containerStatuses": statuses(&spec.containers),
            "qosClass": "BestEffort",
            "reason": self.failure.as_ref().map(|f| f.0),
            "message": self.failure.as_ref().map(|f| &f.1),
        });
        if !spec.init_containers.is_empty() {
            status["initContainerStatuses"] = json!(statuses(&spec.init_containers));
        }
        status
    }

    /// The pod's phase (core/v1 PodPhase).
    pub(crate) fn phase(&self, spec: &PodSpec) -> &'static str {
        if self.failure.is_some() {
            return "Failed";
        }
        let state = |name: &str| self.containers.get(name);
        let failed_init = spec
            .init_containers
            .iter()
            .any(|c| matches!(state(&c.name).map(|s| &s.phase), Some(Phase::Ended(e)) if e.code != 0));
        if failed_init && spec.restart_policy == RestartPolicy::Never {
            return "Failed";
        }
        let mut ended = 0;
        let mut failed = false;
        let mut begun = false;
        for container in &spec.containers {
            match state(&container.name).map(|s| (&s.phase, &s.last)) {
                Some((Phase::Ended(e), _)) => {
                    ended += 1;
                    failed |= e.code != 0;
                    begun = true;
                }
                Some((Phase::Running { .. }, _) | (Phase::Waiting { .. }, Some(_))) => begun = true,
                _ => {}
            }
        }
        match (ended == spec.containers.len() && ended > 0, failed) {
            (true, true) => "Failed",
            (true, false) => "Succeeded",
            (false, _) if begun => "Running",
            (false, _) => "Pending",
        }
    }
}

fn set_condition(
    conditions: &mut Vec<Value>,
    kind: &str,
    value: bool,
    why: Option<(&str, &str)>,
    now: Timestamp,
) {
    let word = if value { "True" } else { "False" };
    let old = conditions.iter().position(|c| c.get("type").and_then(Value::as_str) == Some(kind));
    let since = old
        .map(|at| &conditions[at])
        .filter(|c| c.get("status").and_then(Value::as_str) == Some(word))
        .and_then(|c| c.get("lastTransitionTime").cloned())
        .unwrap_or_else(|| json!(timestamp(now)));
    let mut condition =
        json!({"type": kind, "status": word, "lastProbeTime": null, "lastTransitionTime": since});
    if let Some((reason, message)) = why {
        condition["reason"] = json!(reason);
        if !message.is_empty() {
            condition["message"] = json!(message);
        }
    }
    match old {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

fn ended_json(ended: &Ended) -> Value {
    let mut value = json!({"terminated": {
        "exitCode": ended.code, "reason": ended.reason, "startedAt": timestamp(ended.started), "finishedAt": timestamp(ended.finished),
        "containerID": ended.id,
    }});
    if !ended.message.is_empty() {
        value["terminated"]["message"] = json!(ended.message);
    }
    value
}

fn container_status(name: &str, image: &str, state: &ContainerState) -> Value {
    let (now, id) = match &state.phase {
        Phase::Waiting { reason, message } if message.is_empty() => {
            (json!({"waiting": {"reason": reason}}), None)
        }
        Phase::Waiting { reason, message } => {
            (json!({"waiting": {"reason": reason, "message": message}}), None)
        }
        Phase::Running { since, id, .. } => (json!({"running": {"startedAt": timestamp(*since)}}), Some(id)),
        Phase::Ended(ended) => (ended_json(ended), Some(&ended.id)),
    };
    let id = id.or(state.last.as_ref().map(|l| &l.id));
    json!({
        "name": name, "image": image, "imageID": format!("bristle-lab://{image}"),
        "ready": state.ready, "started": state.started, "restartCount": state.restarts,
        "state": now,
        "lastState": state.last.as_ref().map_or_else(|| json!({}), ended_json),
        "containerID": id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(policy: &str) -> PodSpec {
        PodSpec::of(
            &json!({"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}], "restartPolicy": policy}}),
        )
    }

    fn ended(code: i32) -> Phase {
        let at = Timestamp::UNIX_EPOCH;
        Phase::Ended(Ended {
            code,
            reason: "Error",
            message: String::new(),
            started: at,
            finished: at,
            id: "x".into(),
        })
    }

    fn state(phases: [Option<Phase>; 2]) -> PodState {
        let mut state = PodState::default();
        for (name, phase) in ["a", "b"].into_iter().zip(phases) {
            if let Some(phase) = phase {
                state.containers.insert(name.into(), ContainerState { phase, ..ContainerState::default() });
            }
        }
        state
    }

    #[test]
    fn phases_follow_the_api() {
        let running = Phase::Running {
            since: Timestamp::UNIX_EPOCH,
            shim: ProcessId { pid: 1, start_time: 1 },
            id: "x".into(),
        };
        let cases = [
            ([None, None], "Pending"),
            ([Some(running.clone()), None], "Running"),
            ([Some(running), Some(ended(1))], "Running"),
            ([Some(ended(0)), Some(ended(0))], "Succeeded"),
            ([Some(ended(0)), Some(ended(3))], "Failed"),
        ];
        for (phases, want) in cases {
            assert_eq!(state(phases).phase(&spec("Never")), want);
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let pod = json!({"status": {"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": "Other", "status": "True"}]}});
        let status = state([None, None]).status(&pod, &spec("Always"), &[], Timestamp::UNIX_EPOCH);
        let conditions = status["conditions"].as_array().expect("a list");
        let ready = conditions.iter().find(|c| c["type"] == "Ready").expect("Ready");
        assert_eq!(ready["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert!(conditions.iter().any(|c| c["type"] == "Other"));
    }
}
