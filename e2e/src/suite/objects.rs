//! Objects of any kind, as JSON.

use std::collections::BTreeMap;

use anyhow::Context as _;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::discovery::Scope;
use kube::{Api, Client};
use serde_json::{Value, json};

/// Name under which objects are applied.
const MANAGER: &str = "bristle-e2e";

/// The cluster's objects; each kind is looked up once.
pub(super) struct Objects {
    client: Client,
    kinds: BTreeMap<(String, String), (ApiResource, bool)>,
}

/// The name of an object: kind and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    pub(super) api_version: String,
    pub(super) kind: String,
    /// Empty for objects of the cluster.
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Reference {
    pub(super) fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        let [api_version, kind, namespace, name] = [api_version, kind, namespace, name].map(str::to_owned);
        Self { api_version, kind, namespace, name }
    }

    pub(super) fn of(object: &Value) -> Self {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        Self::new(text("/apiVersion"), text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, namespace, name, .. } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

impl Objects {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone(), kinds: BTreeMap::new() }
    }

    /// Applies an object and returns its new `resourceVersion`.
    pub(super) async fn apply(&mut self, object: &Value) -> anyhow::Result<u64> {
        let params = PatchParams::apply(MANAGER).force();
        self.patch(&Reference::of(object), &params, &Patch::Apply(object)).await
    }

    /// Sets labels in addition to what there are; null takes one away.
    pub(super) async fn label(&mut self, object: &Reference, labels: &Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        self.patch(object, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Deletes an object; one that is not there is as good as deleted.
    pub(super) async fn delete(&mut self, object: &Reference) -> anyhow::Result<()> {
        let api = self.api(object).await?;
        match api.delete(&object.name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error).with_context(|| format!("delete {object}")),
        }
    }

    /// All objects of a kind, in all namespaces, with their kind written into each.
    pub(super) async fn list(&mut self, api_version: &str, kind: &str) -> anyhow::Result<Vec<Value>> {
        let (resource, _) = self.kind(api_version, kind).await?;
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let list = api.list(&ListParams::default()).await.with_context(|| format!("list {kind}"))?;
        let whole = |object: &DynamicObject| {
            let mut object = serde_json::to_value(object)?;
            object["apiVersion"] = json!(api_version);
            object["kind"] = json!(kind);
            Ok(object)
        };
        list.items.iter().map(whole).collect()
    }

    async fn patch(
        &mut self,
        object: &Reference,
        params: &PatchParams,
        patch: &Patch<impl serde::Serialize + std::fmt::Debug>,
    ) -> anyhow::Result<u64> {
        let api = self.api(object).await?;
        let new = api.patch(&object.name, params, patch).await.with_context(|| format!("set {object}"))?;
        new.metadata.resource_version.unwrap_or_default().parse().context("read a resourceVersion")
    }

    async fn api(&mut self, object: &Reference) -> anyhow::Result<Api<DynamicObject>> {
        let (resource, namespaced) = self.kind(&object.api_version, &object.kind).await?;
        let client = self.client.clone();
        Ok(if namespaced {
            Api::namespaced_with(client, &object.namespace, &resource)
        } else {
            Api::all_with(client, &resource)
        })
    }

    async fn kind(&mut self, api_version: &str, kind: &str) -> anyhow::Result<(ApiResource, bool)> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self.kinds.get(&key) {
            return Ok(known.clone());
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let found = kube::discovery::pinned_kind(&self.client, &gvk).await;
        let (resource, capabilities) = found.with_context(|| format!("look up {kind} of {api_version}"))?;
        let known = (resource, capabilities.scope == Scope::Namespaced);
        self.kinds.insert(key, known.clone());
        Ok(known)
    }
}
