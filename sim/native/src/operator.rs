//! The operator: the real mind, its watches, and its calls to the API server.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use agent_crd::meta::Condition;
use agent_crd::{NodePolicyStatus, Object as _};
use bristle_operator::core::{Action, Command, Config, Event, Kind, Operator, Outcome, Seen};
use serde_json::{Value, json};
use sim_api::clock::rfc3339;
use sim_api::{DeleteOptions, Patch, Sub, WriteOptions};
use sim_scenario::model::ApiFault;

use crate::agents::Death;
use crate::kinds::{IDENTITIES, STATUSES, identity, policy_resource};
use crate::listen::{OPERATOR, Watches};
use crate::queue::Task;
use crate::run::Said;
use crate::world::World;

/// The operator's process.
#[derive(Debug, Default)]
pub(crate) struct OperatorProcess {
    mind: Option<Operator>,
    /// There is a process.
    pub(crate) alive: bool,
    /// How many lives before this one.
    pub(crate) life: u64,
    /// Its view of the API server.
    pub(crate) watches: Watches,
    inbox: VecDeque<Event>,
    due: Option<Duration>,
    /// Calls under way.
    calls: BTreeMap<u64, Action>,
    /// It stands still until then.
    pub(crate) stalled_until: Duration,
    /// It dies after so many more calls.
    left: Option<u32>,
    death: Death,
}

impl OperatorProcess {
    /// Why it is not at rest; empty: it is.
    pub(crate) fn restless(&self) -> &'static str {
        match &self.mind {
            None => "there is no operator",
            Some(_) if !self.inbox.is_empty() => "the operator is at work",
            Some(_) if !self.calls.is_empty() => "a call of the operator is under way",
            Some(mind) if !mind.is_settled() => "the operator has something left to do",
            Some(_) => "",
        }
    }
}

impl World {
    /// Starts the operator, if that life of it has not begun yet.
    pub(crate) fn start_operator(&mut self, life: u64) {
        if self.operator.alive || self.operator.life != life || !self.has_identities() {
            return;
        }
        let mut mind = Operator::new(Config::default());
        mind.handle(self.now, Event::Leading(true));
        self.operator.mind = Some(mind);
        self.operator.alive = true;
        self.note(0, "operator starts", life);
        self.begin_to_listen(OPERATOR);
        self.hear_statuses();
    }

    /// It lists what agents say of policies. Of this nothing is lost or late: what the operator says of policies is no more than
    /// what it hears, and everything else that it does rests on watches that have faults.
    fn hear_statuses(&mut self) {
        self.tell_operator(Event::ListStarted(Kind::NodeStatus));
        for object in self.store.list(&STATUSES, "") {
            self.hear_status(&object);
        }
        self.tell_operator(Event::ListSynced(Kind::NodeStatus));
    }

    /// An agent says something of policies.
    pub(crate) fn hear_status(&mut self, object: &Value) {
        if let Ok(status) = NodePolicyStatus::from_json(object.clone()) {
            self.tell_operator(Event::Upsert(Seen::NodeStatus(status)));
        }
    }

    /// Kills it: at once, or after so many more calls.
    pub(crate) fn kill_operator(&mut self, death: Death, after: Option<u32>) {
        if !self.operator.alive {
            return;
        }
        self.operator.death = death;
        match after {
            Some(calls) => self.operator.left = Some(calls.max(1)),
            None => self.operator_dies(),
        }
    }

    fn operator_dies(&mut self) {
        let OperatorProcess { life, death, .. } = std::mem::take(&mut self.operator);
        // What it has sent is done all the same; nobody hears of it.
        self.operator.life = life + 1;
        self.limit(OPERATOR);
        self.note(0, "operator died", life);
        self.after(death.restart_after, Task::StartOperator(life + 1));
    }

    /// It stood still, and goes on.
    pub(crate) fn operator_goes_on(&mut self) {
        self.operator.due = None;
        self.wake_operator(Duration::ZERO);
    }

    /// Its calls count no more towards its death.
    pub(crate) fn spare_operator(&mut self) {
        self.operator.left = None;
    }

    /// Tells it something.
    pub(crate) fn tell_operator(&mut self, event: Event) {
        if self.operator.alive {
            self.operator.inbox.push_back(event);
            let after = self.latency(Duration::from_millis(1));
            self.wake_operator(after);
        }
    }

    /// Makes it run soon.
    pub(crate) fn wake_operator(&mut self, after: Duration) {
        let at = (self.now + after).max(self.operator.stalled_until);
        if !self.operator.alive || self.operator.due.is_some_and(|due| due <= at) {
            return;
        }
        self.operator.due = Some(at);
        self.push(at, Task::Operator);
    }

    /// It takes what waits for it and issues its commands.
    pub(crate) fn run_operator(&mut self, at: Duration) {
        if self.operator.due != Some(at) {
            return;
        }
        self.operator.due = None;
        if self.operator.stalled_until > self.now {
            self.wake_operator(Duration::ZERO);
            return;
        }
        let now = self.now;
        let Some(mut mind) = self.operator.mind.take() else { return };
        for event in self.operator.inbox.drain(..) {
            mind.handle(now, event);
        }
        mind.handle(now, Event::Tick);
        let commands = mind.commands(now);
        let deadline = mind.deadline();
        self.operator.mind = Some(mind);
        for Command { id, action } in commands {
            self.operator.calls.insert(id, action.clone());
            let after = self.latency(Duration::from_millis(20));
            let life = self.operator.life;
            self.after(after, Task::OperatorCall(life, id, Box::new(action)));
            if let Some(left) = &mut self.operator.left {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.operator_dies();
                    return;
                }
            }
        }
        if let Some(deadline) = deadline {
            self.wake_operator(deadline.saturating_sub(now).max(Duration::from_millis(1)));
        }
    }

    /// A call of some life of it reaches the API server.
    pub(crate) fn operator_calls(&mut self, life: u64, id: u64, action: &Action) {
        let faults = self.cluster_faults.api(OPERATOR);
        let refused = faults.iter().any(|(_, fault)| matches!(fault, ApiFault::Down | ApiFault::Error(_)));
        let slow = faults.iter().find_map(|(_, fault)| match fault {
            ApiFault::Slow(by) => Some(*by),
            _ => None,
        });
        // Some calls are done although their answer is lost.
        let outcome = if refused && self.rng.chance(0.7) {
            Outcome::Failed("no answer".to_owned())
        } else {
            let outcome = self.perform_call(action);
            if refused { Outcome::Failed("the answer is lost".to_owned()) } else { outcome }
        };
        let after = self.latency(Duration::from_millis(20)) + slow.unwrap_or_default();
        self.after(after, Task::OperatorHears(life, id, Box::new(outcome)));
    }

    /// The answer to a call reaches the life that made it, if that goes on.
    pub(crate) fn operator_hears(&mut self, life: u64, id: u64, outcome: Outcome) {
        if self.operator.life == life && self.operator.calls.remove(&id).is_some() {
            self.tell_operator(Event::Outcome { id, outcome });
        }
    }

    fn perform_call(&mut self, action: &Action) -> Outcome {
        let options =
            WriteOptions { field_manager: Some("bristle-operator".to_owned()), ..WriteOptions::default() };
        match action {
            Action::CreateIdentity(wanted) => {
                match self.store.create(&IDENTITIES, "", wanted.to_json(), &options) {
                    Ok(made) => Outcome::Created(identity(&made)),
                    Err(error) if error.code == 409 => {
                        match self.store.get(&IDENTITIES, "", &wanted.metadata.name) {
                            Ok(there) => Outcome::Exists(identity(&there)),
                            Err(error) => Outcome::Failed(error.to_string()),
                        }
                    }
                    Err(error) => Outcome::Failed(error.to_string()),
                }
            }
            Action::DeleteIdentity { name, uid, resource_version } => {
                let options = DeleteOptions {
                    uid: Some(uid.clone()),
                    resource_version: Some(resource_version.clone()),
                    ..DeleteOptions::default()
                };
                done(self.store.delete(&IDENTITIES, "", name, &options).map(drop))
            }
            Action::WriteConditions { key, resource_version, conditions } => {
                let mut conditions = conditions.clone();
                for condition in &mut conditions {
                    condition.last_transition_time.get_or_insert_with(|| rfc3339(self.store.now()));
                }
                let patch: Value = json!({
                    "metadata": {"resourceVersion": resource_version}, "status": {"conditions": conditions},
                });
                let resource = policy_resource(key.kind);
                let written = self.store.patch(
                    &resource,
                    &key.namespace,
                    &key.name,
                    Sub::Status,
                    &Patch::Merge(patch),
                    &options,
                );
                if let Some(Condition { status, reason, message, .. }) =
                    conditions.iter().find(|condition| condition.kind == "Enforced" && written.is_ok())
                {
                    self.said.push(Said {
                        at: self.now,
                        policy: format!("{}/{}", key.namespace, key.name),
                        condition: (status.clone(), reason.clone(), message.clone()),
                    });
                }
                done(written.map(drop))
            }
        }
    }
}

fn done(result: Result<(), sim_api::ApiError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) if error.code == 404 => Outcome::Gone,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}
