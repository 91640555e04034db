//! The CustomResourceDefinitions: created, or brought up to date.

use std::time::Duration;

use agent_crd::crd::{self, SCHEMA_VERSION, SCHEMA_VERSION_LABEL};
use anyhow::{Context as _, Result, bail};
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::act::MANAGER;

/// How long a definition may take until it is served.
const PATIENCE: Duration = Duration::from_mins(1);

/// Times that a definition is written when somebody else writes at the same time.
const TRIES: usize = 5;

fn api(client: &Client) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    };
    Api::all_with(client.clone(), &resource)
}

/// Installs all definitions and waits until they are served.
///
/// # Errors
/// When one is refused, with what to do.
pub(super) async fn definitions(client: &Client) -> Result<()> {
    let api = api(client);
    let definitions = crd::needed();
    for definition in &definitions {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        install(&api, name, definition).await.with_context(|| {
            format!(
                "cannot install the definition {name}; apply deploy/operator-rbac.yaml, or apply deploy/crds and give --install-crds false"
            )
        })?;
    }
    let until = Instant::now() + PATIENCE;
    for definition in &definitions {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        while !is_established(
            &api.get(name).await.with_context(|| format!("cannot read the definition {name}"))?,
        ) {
            if Instant::now() > until {
                bail!("the API server does not serve {name}; `kubectl describe crd {name}` says why");
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

async fn install(api: &Api<DynamicObject>, name: &str, definition: &Value) -> Result<()> {
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    for _ in 0..TRIES {
        let there = api.get_opt(name).await?;
        let result = match &there {
            None => api.create(&params, &serde_json::from_value(definition.clone())?).await,
            Some(there) if is_newer(there) => {
                info!(definition = name, "a newer one is installed and stays");
                return Ok(());
            }
            Some(there) => {
                let wanted = updated(there, definition)?;
                api.replace(name, &params, &wanted).await
            }
        };
        match result {
            Ok(now) => {
                if there.is_none_or(|there| there.metadata.resource_version != now.metadata.resource_version)
                {
                    info!(definition = name, "installed");
                }
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                warn!(definition = name, "somebody else writes it too; trying again");
            }
            Err(error) => return Err(error.into()),
        }
    }
    bail!("somebody else writes it again and again")
}

/// The definition with what others have added to the one that is there: labels, annotations, and versions in which
/// objects may still be stored.
fn updated(there: &DynamicObject, definition: &Value) -> Result<DynamicObject> {
    let mut wanted: DynamicObject = serde_json::from_value(definition.clone())?;
    let labels = wanted.metadata.labels.take().unwrap_or_default();
    wanted.metadata = there.metadata.clone();
    wanted.metadata.managed_fields = None;
    wanted.metadata.labels.get_or_insert_default().extend(labels);
    if let Some(conversion) = there.data.pointer("/spec/conversion") {
        wanted.data["spec"]["conversion"] = conversion.clone();
    }
    let names = |data: &Value| -> Vec<Value> {
        data.pointer("/spec/versions").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let ours = names(&wanted.data);
    let others =
        names(&there.data).into_iter().filter(|old| ours.iter().all(|new| new["name"] != old["name"]));
    if let Some(versions) = wanted.data.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        versions.extend(others.map(|mut old| {
            old["storage"] = false.into();
            old
        }));
    }
    Ok(wanted)
}

/// Whether the definition says that it is newer than ours.
fn is_newer(there: &DynamicObject) -> bool {
    let version = there.metadata.labels.as_ref().and_then(|labels| labels.get(SCHEMA_VERSION_LABEL));
    version.is_some_and(|version| numbers(version) > numbers(SCHEMA_VERSION))
}

fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn is_established(definition: &DynamicObject) -> bool {
    let conditions = definition.data.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn there(version: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "x", "resourceVersion": "7", "labels": {SCHEMA_VERSION_LABEL: version, "mine": "1"}},
            "spec": {"versions": [{"name": "v2alpha1", "storage": true, "served": true}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_newer_definition_stays() {
        assert!(is_newer(&there("1.33.0")) && is_newer(&there("1.32.10")) && is_newer(&there("2")));
        assert!(!is_newer(&there(SCHEMA_VERSION)) && !is_newer(&there("1.31.9")) && !is_newer(&there("x")));
    }

    #[test]
    fn what_others_have_added_stays() {
        let wanted = updated(&there("1.0.0"), &crd::cilium()[0]).unwrap();
        let labels = wanted.metadata.labels.unwrap();
        assert_eq!(labels["mine"], "1");
        assert_eq!(labels[SCHEMA_VERSION_LABEL], SCHEMA_VERSION);
        assert_eq!(wanted.metadata.resource_version.as_deref(), Some("7"));
        let versions = wanted.data["spec"]["versions"].as_array().unwrap();
        let versions: Vec<_> =
            versions.iter().map(|v| (v["name"].as_str().unwrap(), v["storage"] == true)).collect();
        assert_eq!(versions, [("v2", true), ("v2alpha1", false)]);
    }
}
