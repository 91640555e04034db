//! Create, update, patch, apply.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Object;
use super::core::Core;
use crate::admission;
use crate::admission::services::InUse;
use crate::error::{ApiError, Cause};
use crate::managed::{self, ApplyError, Writer};
use crate::object::{at, int_at, is_deleting, list_at, map_mut, name, namespace, remove, set, str_at};
use crate::options::{FieldValidation, Patch, Sub, WriteOptions};
use crate::patch::{json_patch, merge_patch, strategic_patch};
use crate::registry::ResourceDef;
use crate::resource::{Gr, NAMESPACES, SERVICES};
use crate::schema::check;

/// What a write did.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object now (or as it would be, in a dry run).
    pub object: Object,
    /// What the client should hear about its request.
    pub warnings: Vec<String>,
    /// True if the object is new.
    pub created: bool,
}

/// Metadata that stays as it was made.
const FIXED_METADATA: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

impl Core {
    pub(super) fn create(
        &mut self,
        r: &Gr,
        ns: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        self.create_as(r, ns, object, options, true)
    }

    fn create_as(
        &mut self,
        r: &Gr,
        ns: &str,
        mut object: Value,
        options: &WriteOptions,
        record: bool,
    ) -> Result<Written, ApiError> {
        let def = self.def(r)?;
        let api_version = type_meta(&def, &mut object)?;
        place(&def, ns, &mut object)?;
        if !str_at(&object, &["metadata", "resourceVersion"]).is_empty() {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let warnings = self.check_schema(&def, &mut object, options)?;
        if name(&object).is_empty() {
            let prefix = str_at(&object, &["metadata", "generateName"]).to_owned();
            if !prefix.is_empty() {
                let generated = format!("{prefix}{}", self.name_suffix());
                set(&mut object, &["metadata", "name"], json!(generated));
            }
        }
        if def.has_status() && def.kind != "Node" {
            remove(&mut object, &["status"]);
        }
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"] {
            remove(&mut object, &["metadata", field]);
        }
        let now = self.now();
        admission::defaults(&def.gr.group, &def.kind, &mut object);
        admission::prepare_create(&def.gr.group, &def.kind, &mut object, &now);
        self.namespace_takes(&def, ns)?;
        self.check_valid(&def, &object, None)?;
        if self.exists(r, ns, name(&object)) {
            return Err(ApiError::already_exists(r, name(&object)));
        }
        if *r == SERVICES {
            self.assign_service(&mut object, None)?;
        }
        let uid = self.new_uid();
        let metadata = map_mut(&mut object, &["metadata"]);
        metadata.insert("uid".into(), json!(uid));
        metadata.insert("creationTimestamp".into(), json!(now));
        if def.generation {
            metadata.insert("generation".into(), json!(1));
        }
        if let Some(manager) = options.field_manager.as_deref().filter(|_| record) {
            let writer = Writer { manager, api_version: &api_version, subresource: "", time: &now };
            remove(&mut object, &["metadata", "managedFields"]);
            managed::record_update(None, &mut object, def.schema(), &writer);
        }
        let object = if options.dry_run { Arc::new(object) } else { self.keep(&def, object) };
        Ok(Written { object, warnings, created: true })
    }

    pub(super) fn update(
        &mut self,
        r: &Gr,
        sub: Sub,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        if sub == Sub::Scale {
            return self.update_scale(r, &object, options);
        }
        self.update_as(r, sub, object, options, true)
    }

    fn update_as(
        &mut self,
        r: &Gr,
        sub: Sub,
        mut object: Value,
        options: &WriteOptions,
        record: bool,
    ) -> Result<Written, ApiError> {
        let def = self.def(r)?;
        let api_version = type_meta(&def, &mut object)?;
        if !def.namespaced {
            remove(&mut object, &["metadata", "namespace"]);
        }
        let (ns, object_name) = (namespace(&object).to_owned(), name(&object).to_owned());
        let old = self.get(r, &ns, &object_name)?;
        let given = str_at(&object, &["metadata", "resourceVersion"]);
        if !given.is_empty() && given != "0" && given != str_at(&old, &["metadata", "resourceVersion"]) {
            return Err(ApiError::conflict(
                r,
                &object_name,
                "the object has been modified; please apply your changes to the latest version and try again",
            ));
        }
        let given = crate::object::uid(&object);
        if !given.is_empty() && given != crate::object::uid(&old) {
            return Err(ApiError::conflict(
                r,
                &object_name,
                &format!(
                    "Precondition failed: UID in precondition: {given}, UID in object meta: {}",
                    crate::object::uid(&old)
                ),
            ));
        }
        let warnings = self.check_schema(&def, &mut object, options)?;
        let mut new = combine(&def, sub, &old, object)?;
        let now = self.now();
        if sub == Sub::Main {
            admission::defaults(&def.gr.group, &def.kind, &mut new);
            admission::prepare_update(&def.gr.group, &def.kind, &mut new, &old, &now);
        }
        for field in FIXED_METADATA {
            match at(&old, &["metadata", field]) {
                Value::Null => drop(remove(&mut new, &["metadata", field])),
                value => set(&mut new, &["metadata", field], value.clone()),
            }
        }
        if is_deleting(&old) {
            check_finalizers(&def, &old, &new)?;
        }
        // Only what the change touches is checked, so that a status can be written whatever the rest is like.
        if sub == Sub::Main || sub == Sub::EphemeralContainers {
            self.check_valid(&def, &new, Some(&old))?;
        }
        if *r == SERVICES && sub == Sub::Main {
            self.assign_service(&mut new, Some(&old))?;
        }
        set(&mut new, &["metadata", "resourceVersion"], old["metadata"]["resourceVersion"].clone());
        if def.generation && wanted_state_differs(&def, &old, &new) {
            let generation = int_at(&old, &["metadata", "generation"]).unwrap_or(0) + 1;
            set(&mut new, &["metadata", "generation"], json!(generation));
        }
        if record {
            match options.field_manager.as_deref() {
                Some(manager) => {
                    let subresource = match sub {
                        Sub::Status => "status",
                        Sub::Scale => "scale",
                        Sub::EphemeralContainers => "ephemeralcontainers",
                        Sub::Resize => "resize",
                        Sub::Main | Sub::Finalize => "",
                    };
                    let writer = Writer { manager, api_version: &api_version, subresource, time: &now };
                    managed::record_update(Some(&old), &mut new, def.schema(), &writer);
                }
                None => match at(&old, &["metadata", "managedFields"]) {
                    Value::Null => drop(remove(&mut new, &["metadata", "managedFields"])),
                    fields => set(&mut new, &["metadata", "managedFields"], fields.clone()),
                },
            }
        }
        if list_at(&new, &["metadata", "finalizers"]).is_empty() {
            remove(&mut new, &["metadata", "finalizers"]);
        }
        if new == *old {
            return Ok(Written { object: old, warnings, created: false });
        }
        if options.dry_run {
            return Ok(Written { object: Arc::new(new), warnings, created: false });
        }
        let held = !list_at(&new, &["metadata", "finalizers"]).is_empty()
            || *r == NAMESPACES && !list_at(&new, &["spec", "finalizers"]).is_empty()
            || int_at(&new, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) > 0;
        let object = self.keep(&def, new);
        if is_deleting(&old) && !held {
            self.discard(&def, &ns, &object_name);
            self.finish_crds(r);
        }
        Ok(Written { object, warnings, created: false })
    }

    fn update_scale(&mut self, r: &Gr, scale: &Value, options: &WriteOptions) -> Result<Written, ApiError> {
        let def = self.def(r)?;
        let paths = def.storage_version().scale.clone().ok_or_else(ApiError::no_such_path)?;
        let old = self.get(r, namespace(scale), name(scale))?;
        let replicas = int_at(scale, &["spec", "replicas"]).unwrap_or(0);
        if replicas < 0 {
            let cause =
                Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
            return Err(ApiError::invalid("autoscaling", "Scale", name(scale), &[cause]));
        }
        let mut new = (*old).clone();
        set(&mut new, &super::scale::path(&paths.spec), json!(replicas));
        set(&mut new, &["metadata", "resourceVersion"], at(scale, &["metadata", "resourceVersion"]).clone());
        let mut written = self.update_as(r, Sub::Main, new, options, true)?;
        if !options.dry_run {
            written.object = Arc::new(self.scale(r, namespace(scale), name(scale))?);
        }
        Ok(written)
    }

    pub(super) fn patch(
        &mut self,
        r: &Gr,
        ns: &str,
        object_name: &str,
        sub: Sub,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let def = self.def(r)?;
        if let Patch::Apply(config) = patch {
            return self.apply(&def, ns, object_name, sub, config.clone(), options);
        }
        let old = if sub == Sub::Scale {
            self.scale(r, ns, object_name)?
        } else {
            (*self.get(r, ns, object_name)?).clone()
        };
        let mut new = match patch {
            Patch::Json(p) => json_patch(&old, p)?,
            Patch::Merge(p) => {
                let mut new = old.clone();
                merge_patch(&mut new, p);
                new
            }
            Patch::Strategic(p) => {
                if def.custom {
                    return Err(ApiError::unsupported_media_type(
                        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                    ));
                }
                let mut new = old.clone();
                strategic_patch(&mut new, p, def.schema())?;
                new
            }
            Patch::Apply(_) => unreachable!("handled above"),
        };
        if name(&new) != object_name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({object_name})",
                name(&new)
            )));
        }
        if def.namespaced && namespace(&new) != ns {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if sub != Sub::Scale {
            // A patch may not turn the object into another kind.
            set(&mut new, &["kind"], old["kind"].clone());
        }
        self.update(r, sub, new, options)
    }

    fn apply(
        &mut self,
        def: &ResourceDef,
        ns: &str,
        object_name: &str,
        sub: Sub,
        mut config: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let manager = options.field_manager.as_deref().filter(|m| !m.is_empty());
        let manager = manager.ok_or_else(|| {
            ApiError::invalid(
                "meta.k8s.io",
                "PatchOptions",
                "",
                &[Cause::required("fieldManager", "is required for apply patch")],
            )
        })?;
        if !list_at(&config, &["metadata", "managedFields"]).is_empty() {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let api_version = type_meta(def, &mut config)?;
        set(&mut config, &["metadata", "name"], json!(object_name));
        place(def, ns, &mut config)?;
        let warnings = self.check_types(def, &mut config, options)?;
        let exists = self.exists(&def.gr, ns, object_name);
        if sub != Sub::Main && !exists {
            return Err(ApiError::not_found(&def.gr, object_name));
        }
        match sub {
            Sub::Main if def.has_status() => drop(remove(&mut config, &["status"])),
            Sub::Status => {
                if let Some(map) = config.as_object_mut() {
                    map.retain(|k, _| matches!(k.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
                }
            }
            _ => {}
        }
        let live = if exists { (*self.get(&def.gr, ns, object_name)?).clone() } else { Value::Null };
        let given = str_at(&config, &["metadata", "resourceVersion"]);
        if !given.is_empty() && given != str_at(&live, &["metadata", "resourceVersion"]) {
            return Err(ApiError::conflict(
                &def.gr,
                object_name,
                "the object has been modified; please apply your changes to the latest version and try again",
            ));
        }
        let now = self.now();
        let subresource = if sub == Sub::Status { "status" } else { "" };
        let writer = Writer { manager, api_version: &api_version, subresource, time: &now };
        let merged =
            managed::apply(&live, &config, def.schema(), &writer, options.force).map_err(conflict_error)?;
        let mut written = if exists {
            self.update_as(&def.gr, sub, merged, options, false)?
        } else {
            self.create_as(&def.gr, ns, merged, options, false)?
        };
        written.warnings.extend(warnings);
        Ok(written)
    }

    /// Types and unknown fields, for objects that are only a part.
    fn check_types(
        &self,
        def: &ResourceDef,
        object: &mut Value,
        options: &WriteOptions,
    ) -> Result<Vec<String>, ApiError> {
        let findings = check(object, def.schema(), false);
        self.report(def, object, options, &findings)
    }

    fn check_schema(
        &self,
        def: &ResourceDef,
        object: &mut Value,
        options: &WriteOptions,
    ) -> Result<Vec<String>, ApiError> {
        let findings = check(object, def.schema(), def.custom);
        self.report(def, object, options, &findings)
    }

    #[expect(clippy::unused_self, reason = "reads like the other steps of a write")]
    fn report(
        &self,
        def: &ResourceDef,
        object: &Value,
        options: &WriteOptions,
        findings: &crate::schema::Findings,
    ) -> Result<Vec<String>, ApiError> {
        if let Some(first) = findings.mistyped.first() {
            return Err(ApiError::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: json: {first}",
                def.kind,
                str_at(object, &["apiVersion"]),
                def.kind
            )));
        }
        let unknown = findings.unknown.iter().map(|f| format!("unknown field \"{f}\""));
        let warnings = match options.field_validation {
            FieldValidation::Strict if !findings.unknown.is_empty() => {
                let list: Vec<String> = unknown.collect();
                return Err(ApiError::bad_request(format!(
                    "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                    def.kind,
                    str_at(object, &["apiVersion"]),
                    def.kind,
                    list.join(", ")
                )));
            }
            FieldValidation::Warn => unknown.collect(),
            FieldValidation::Ignore | FieldValidation::Strict => Vec::new(),
        };
        if !findings.causes.is_empty() {
            return Err(ApiError::invalid(&def.gr.group, &def.kind, name(object), &findings.causes));
        }
        Ok(warnings)
    }

    #[expect(clippy::unused_self, reason = "reads like the other steps of a write")]
    fn check_valid(&self, def: &ResourceDef, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
        let (group, kind) = (def.gr.group.as_ref(), def.kind.as_str());
        let mut causes = admission::validate(group, kind, object);
        if let Some(old) = old {
            causes.extend(admission::validate_update(group, kind, object, old));
        }
        if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(group, kind, name(object), &causes)) }
    }

    /// New objects need a namespace that is there and not ending.
    fn namespace_takes(&self, def: &ResourceDef, ns: &str) -> Result<(), ApiError> {
        if !def.namespaced {
            return Ok(());
        }
        let home = self.get(&NAMESPACES, "", ns)?;
        if is_deleting(&home) {
            let why =
                format!("unable to create new content in namespace {ns} because it is being terminated");
            let cause = json!({"causes": [{"reason": "NamespaceTerminating", "message": format!("namespace {ns} is being terminated"), "field": "metadata.namespace"}]});
            return Err(ApiError::forbidden(&def.gr, "", &why).with_details(cause));
        }
        Ok(())
    }

    fn assign_service(&self, service: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
        let this = (namespace(service).to_owned(), name(service).to_owned());
        let others =
            self.objects.get(&SERVICES).into_iter().flatten().filter(|(k, _)| **k != this).map(|(_, o)| &**o);
        self.allocator.assign(service, old, &InUse::of(others))
    }
}

/// Fills in or checks `apiVersion` and `kind` and puts the storage version there; returns the version it came in.
fn type_meta(def: &ResourceDef, object: &mut Value) -> Result<String, ApiError> {
    if !object.is_object() {
        return Err(ApiError::bad_request("the object provided is unrecognized (must be of type map)"));
    }
    let storage = def.api_version(&def.storage);
    let (given, kind) = (str_at(object, &["apiVersion"]).to_owned(), str_at(object, &["kind"]).to_owned());
    if !kind.is_empty() && kind != def.kind {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind ({})",
            def.kind
        )));
    }
    let known = given.is_empty() || def.versions.iter().any(|v| def.api_version(&v.name) == given);
    if !known {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({storage})"
        )));
    }
    // These come first in the object, as everybody expects to read them.
    let map = object.as_object_mut().expect("checked above");
    let mut ordered = serde_json::Map::new();
    ordered.insert("apiVersion".into(), json!(storage));
    ordered.insert("kind".into(), json!(def.kind));
    for (key, value) in std::mem::take(map) {
        ordered.entry(key).or_insert(value);
    }
    *map = ordered;
    Ok(if given.is_empty() { storage } else { given })
}

/// Puts the object into the namespace of the call.
fn place(def: &ResourceDef, ns: &str, object: &mut Value) -> Result<(), ApiError> {
    if !def.namespaced {
        remove(object, &["metadata", "namespace"]);
        return Ok(());
    }
    if ns.is_empty() {
        return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
    }
    let given = namespace(object);
    if !given.is_empty() && given != ns {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    set(object, &["metadata", "namespace"], json!(ns));
    Ok(())
}

/// The new object from the old one and the part that may be written through `sub`.
fn combine(def: &ResourceDef, sub: Sub, old: &Value, mut given: Value) -> Result<Value, ApiError> {
    let take = |base: &mut Value, from: &Value, path: &[&str]| match at(from, path) {
        Value::Null => drop(remove(base, path)),
        value => set(base, path, value.clone()),
    };
    let mut new = old.clone();
    match sub {
        Sub::Main => {
            if def.has_status() {
                take(&mut given, old, &["status"]);
            }
            return Ok(given);
        }
        Sub::Status => {
            if !def.has_status() {
                return Err(ApiError::no_such_path());
            }
            take(&mut new, &given, &["status"]);
            if !def.custom {
                take(&mut new, &given, &["metadata", "labels"]);
                take(&mut new, &given, &["metadata", "annotations"]);
            }
        }
        Sub::Finalize => take(&mut new, &given, &["spec", "finalizers"]),
        Sub::EphemeralContainers => take(&mut new, &given, &["spec", "ephemeralContainers"]),
        Sub::Resize => take(&mut new, &given, &["spec", "containers"]),
        Sub::Scale => return Err(ApiError::method_not_allowed()),
    }
    take(&mut new, &given, &["metadata", "managedFields"]);
    Ok(new)
}

/// While an object is being deleted finalizers may only go away.
fn check_finalizers(def: &ResourceDef, old: &Value, new: &Value) -> Result<(), ApiError> {
    let before = list_at(old, &["metadata", "finalizers"]);
    let added: Vec<&Value> =
        list_at(new, &["metadata", "finalizers"]).iter().filter(|f| !before.contains(f)).collect();
    if added.is_empty() {
        return Ok(());
    }
    let cause = Cause::forbidden(
        "metadata.finalizers",
        &format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers {}",
            json!(added)
        ),
    );
    Err(ApiError::invalid(&def.gr.group, &def.kind, name(new), &[cause]))
}

/// True if something besides metadata and status differs.
fn wanted_state_differs(def: &ResourceDef, old: &Value, new: &Value) -> bool {
    let wanted = |o: &Value| {
        let mut o = o.clone();
        if let Some(map) = o.as_object_mut() {
            map.shift_remove("metadata");
            if def.has_status() {
                map.shift_remove("status");
            }
        }
        o
    };
    wanted(old) != wanted(new)
}

fn conflict_error(error: ApplyError) -> ApiError {
    let ApplyError::Conflicts(conflicts) = error;
    let word = |c: &managed::Conflict| {
        let using = if c.using.is_empty() { String::new() } else { format!(" using {}", c.using) };
        format!("conflict with \"{}\"{using}", c.manager)
    };
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|c| json!({"reason": "FieldManagerConflict", "message": word(c), "field": c.field}))
        .collect();
    let list: Vec<String> = conflicts.iter().map(|c| format!("{}: {}", word(c), c.field)).collect();
    let noun = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
    ApiError {
        code: 409,
        reason: "Conflict",
        message: format!("Apply failed with {} {noun}: {}", conflicts.len(), list.join("\n")),
        details: Some(Box::new(json!({"causes": causes}))),
        retry_after_s: None,
    }
}
