//! Commands become calls to the API server.

use std::time::Duration;

use agent_crd::meta::Condition;
use agent_crd::{CiliumIdentity, Object as _};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::http::Shared;
use super::objects;
use crate::core::{Action, Key, Outcome};

/// Name under which the operator writes.
pub(super) const MANAGER: &str = "bristle-operator";

/// Longest time for a call.
const PATIENCE: Duration = Duration::from_secs(8);

/// Carries out one command, but not beyond the `fence`: somebody else may lead then.
pub(super) async fn perform(
    client: &Client,
    action: Action,
    fence: Option<Instant>,
    shared: &Shared,
) -> Outcome {
    let patience = Instant::now() + PATIENCE;
    let until = fence.map_or(patience, |fence| fence.min(patience));
    let name = match &action {
        Action::CreateIdentity(_) => "create_identity",
        Action::DeleteIdentity { .. } => "delete_identity",
        Action::WriteConditions { .. } => "write_conditions",
    };
    let outcome = match timeout_at(until, call(client, action)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(chain(&error)),
        Err(_elapsed) => Outcome::Failed("no answer in time".to_owned()),
    };
    if let Outcome::Failed(why) = &outcome {
        warn!(command = name, "{why}; trying again");
    }
    shared.command(name, !matches!(outcome, Outcome::Failed(_)));
    outcome
}

async fn call(client: &Client, action: Action) -> kube::Result<Outcome> {
    match action {
        Action::CreateIdentity(identity) => create(client, &identity).await,
        Action::DeleteIdentity { name, uid, resource_version } => {
            delete(client, &name, uid, resource_version).await
        }
        Action::WriteConditions { key, resource_version, conditions } => {
            write_conditions(client, &key, &resource_version, conditions).await
        }
    }
}

fn identities(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &objects::resource::<CiliumIdentity>())
}

async fn create(client: &Client, identity: &CiliumIdentity) -> kube::Result<Outcome> {
    let api = identities(client);
    let name = &identity.metadata.name;
    let object: DynamicObject =
        serde_json::from_value(identity.to_json()).map_err(kube::Error::SerdeError)?;
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &object).await {
        Ok(made) => {
            info!(identity = name, labels = identity.labels().to_list().join(","), "identity created");
            Ok(Outcome::Created(objects::read_identity(&made)))
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let there = api.get(name).await?;
            Ok(Outcome::Exists(objects::read_identity(&there)))
        }
        Err(error) => Err(error),
    }
}

async fn delete(client: &Client, name: &str, uid: String, resource_version: String) -> kube::Result<Outcome> {
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid), resource_version: Some(resource_version) }),
        ..DeleteParams::default()
    };
    match identities(client).delete(name, &params).await {
        Ok(_) => {
            info!(identity = name, "unused identity deleted");
            Ok(Outcome::Done)
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Outcome::Gone),
        Err(error) => Err(error),
    }
}

async fn write_conditions(
    client: &Client,
    key: &Key,
    resource_version: &str,
    mut conditions: Vec<Condition>,
) -> kube::Result<Outcome> {
    for condition in &mut conditions {
        condition
            .last_transition_time
            .get_or_insert_with(|| jiff::Timestamp::now().strftime("%FT%TZ").to_string());
    }
    let resource = objects::policy_resource(key.kind);
    let api: Api<DynamicObject> = if key.namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), &key.namespace, &resource)
    };
    let patch =
        json!({"metadata": {"resourceVersion": resource_version}, "status": {"conditions": conditions}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_status(&key.name, &params, &Patch::Merge(patch)).await {
        Ok(_) => {
            let of = |kind| {
                let condition = conditions.iter().find(|condition| condition.kind == kind);
                condition.map_or(("", ""), |c| (c.status.as_str(), c.message.as_str()))
            };
            let ((valid, finding), (enforced, where_not)) = (of("Valid"), of("Enforced"));
            info!(
                policy = key.name,
                namespace = key.namespace,
                valid,
                finding,
                enforced,
                where_not,
                "policy checked"
            );
            Ok(Outcome::Done)
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Outcome::Gone),
        Err(error) => Err(error),
    }
}

/// An error with all its causes, each said once.
pub(super) fn chain(problem: &dyn std::error::Error) -> String {
    let mut text = problem.to_string();
    let mut cause = problem.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}
