//! Which resources the server knows, with their names, versions and habits.

mod builtin;
mod crd;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::resource::Gr;
use crate::schema::Schema;

pub(crate) use crd::{definition_from_crd, establish};

/// One resource.
#[derive(Debug, Clone)]
pub struct ResourceDef {
    /// Group and plural name.
    pub gr: Gr,
    /// Kind of its objects.
    pub kind: String,
    /// Kind of its lists.
    pub list_kind: String,
    /// Lower-case singular.
    pub singular: String,
    /// Short names kubectl takes.
    pub short_names: Vec<String>,
    /// Categories kubectl takes, for example `all`.
    pub categories: Vec<String>,
    /// False: objects of the cluster.
    pub namespaced: bool,
    /// Versions, the preferred one first.
    pub versions: Vec<Version>,
    /// Name of the version objects are kept in.
    pub storage: String,
    /// True if `metadata.generation` counts changes of the wanted state.
    pub generation: bool,
    /// True if it comes from a CRD.
    pub custom: bool,
    /// Names of subresources that are neither `status` nor `scale`.
    pub extra: &'static [&'static str],
    /// Column names and JSON paths of fields that may stand in field selectors, beyond name and namespace.
    pub selectable: Vec<String>,
}

/// One version of a resource.
#[derive(Debug, Clone)]
pub struct Version {
    /// For example `v1`.
    pub name: String,
    /// The schema of its objects.
    pub schema: SchemaSource,
    /// True if status is a subresource.
    pub status: bool,
    /// Where the replica counts are, if scale is a subresource.
    pub scale: Option<ScalePaths>,
    /// Printer columns of a CRD.
    pub columns: Vec<CrdColumn>,
}

/// Where a schema is kept.
#[derive(Debug, Clone)]
pub enum SchemaSource {
    /// Among the built-in definitions, under this name.
    Builtin(&'static str),
    /// In the CRD.
    Custom(Arc<Value>),
    /// Nobody knows the fields: everything is kept.
    Open,
}

/// JSON paths of a scale subresource, without the leading dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// Wanted replicas.
    pub spec: String,
    /// Present replicas.
    pub status: String,
    /// The label selector as text, if there is one.
    pub selector: Option<String>,
}

/// A printer column of a CRD.
#[derive(Debug, Clone, PartialEq)]
pub struct CrdColumn {
    /// Header.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: String,
    /// Format, for example `int32`.
    pub format: String,
    /// What it means.
    pub description: String,
    /// 0: always shown; more: with `-o wide`.
    pub priority: i64,
    /// Where its value is.
    pub path: String,
}

impl ResourceDef {
    /// The version of this name, if it is served.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.name == name)
    }

    /// The version objects are kept in.
    pub fn storage_version(&self) -> &Version {
        self.version(&self.storage).or_else(|| self.versions.first()).expect("every resource has a version")
    }

    /// `apiVersion` of objects in this version.
    pub fn api_version(&self, version: &str) -> String {
        if self.gr.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.gr.group) }
    }

    /// True if the status is a subresource in the version objects are kept in.
    pub fn has_status(&self) -> bool {
        self.storage_version().status
    }

    /// The schema of the version objects are kept in.
    pub fn schema(&self) -> Schema<'_> {
        self.storage_version().schema()
    }
}

impl Version {
    /// The schema of objects in this version.
    pub fn schema(&self) -> Schema<'_> {
        match &self.schema {
            SchemaSource::Builtin(name) => Schema::builtin(name),
            SchemaSource::Custom(schema) => Schema::new(schema),
            SchemaSource::Open => Schema::open(),
        }
    }
}

/// All resources.
#[derive(Debug, Clone)]
pub struct Registry {
    resources: BTreeMap<Gr, Arc<ResourceDef>>,
}

impl Registry {
    /// The built-in resources.
    pub fn builtin() -> Self {
        Self { resources: builtin::definitions().into_iter().map(|d| (d.gr.clone(), Arc::new(d))).collect() }
    }

    /// The resource of this name.
    pub fn get(&self, gr: &Gr) -> Option<&Arc<ResourceDef>> {
        self.resources.get(gr)
    }

    /// The resource whose objects are of this kind.
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&Arc<ResourceDef>> {
        self.resources.values().find(|d| d.gr.group == group && d.kind == kind)
    }

    /// All resources by group and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.resources.values()
    }

    pub(crate) fn insert(&mut self, def: ResourceDef) {
        self.resources.insert(def.gr.clone(), Arc::new(def));
    }

    pub(crate) fn remove(&mut self, gr: &Gr) {
        self.resources.remove(gr);
    }
}
