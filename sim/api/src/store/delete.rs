//! Deletion: grace, finalizers, propagation.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::Object;
use super::core::Core;
use crate::clock::rfc3339;
use crate::error::ApiError;
use crate::object::{int_at, is_deleting, list_at, name, namespace, set, str_at};
use crate::options::{DeleteOptions, Propagation};
use crate::registry::ResourceDef;
use crate::resource::{CUSTOMRESOURCEDEFINITIONS, Gr, NAMESPACES, PODS};

/// Keeps an owner until its dependents are gone.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Keeps an owner until its dependents have forgotten it.
pub(super) const ORPHAN: &str = "orphan";
const CRD_CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

impl Core {
    pub(super) fn delete(
        &mut self,
        r: &Gr,
        ns: &str,
        object_name: &str,
        options: &DeleteOptions,
    ) -> Result<Option<Object>, ApiError> {
        let def = self.def(r)?;
        let old = self.get(r, ns, object_name)?;
        preconditions(r, &old, options)?;
        let mut new = (*old).clone();
        let grace = if *r == PODS { pod_grace(&old, options) } else { 0 };

        if *r == CUSTOMRESOURCEDEFINITIONS && !options.dry_run && !is_deleting(&old) {
            return self.delete_crd(&def, &old);
        }
        set_propagation(&mut new, options.propagation);
        let held = !list_at(&new, &["metadata", "finalizers"]).is_empty()
            || *r == NAMESPACES && !list_at(&new, &["spec", "finalizers"]).is_empty();
        if !held && grace == 0 {
            if !options.dry_run {
                self.discard(&def, ns, object_name);
            }
            return Ok(None);
        }
        if is_deleting(&old)
            && int_at(&old, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) <= grace
            && new == *old
        {
            return Ok(Some(old));
        }
        let end = self
            .clock
            .now()
            .saturating_add(SignedDuration::from_secs(grace))
            .unwrap_or_else(|_| self.clock.now());
        if !is_deleting(&old)
            || grace < int_at(&old, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0)
        {
            set(&mut new, &["metadata", "deletionTimestamp"], json!(rfc3339(end)));
            set(&mut new, &["metadata", "deletionGracePeriodSeconds"], json!(grace));
            if def.generation {
                let generation = int_at(&new, &["metadata", "generation"]).unwrap_or(0) + 1;
                set(&mut new, &["metadata", "generation"], json!(generation));
            }
        }
        if *r == NAMESPACES {
            set(&mut new, &["status", "phase"], json!("Terminating"));
        }
        if options.dry_run {
            return Ok(Some(std::sync::Arc::new(new)));
        }
        Ok(Some(self.keep(&def, new)))
    }

    /// A CRD takes its objects with it, and waits for those that finalizers hold.
    fn delete_crd(&mut self, def: &ResourceDef, old: &Value) -> Result<Option<Object>, ApiError> {
        let gr = Gr::of(str_at(old, &["spec", "group"]), str_at(old, &["spec", "names", "plural"]));
        let mut new = old.clone();
        set(&mut new, &["metadata", "deletionTimestamp"], json!(self.now()));
        set(&mut new, &["metadata", "deletionGracePeriodSeconds"], json!(0));
        let mut finalizers = list_at(&new, &["metadata", "finalizers"]).to_vec();
        if !finalizers.iter().any(|f| f == CRD_CLEANUP) {
            finalizers.push(json!(CRD_CLEANUP));
        }
        set(&mut new, &["metadata", "finalizers"], Value::Array(finalizers));
        let terminating = json!({
            "type": "Terminating", "status": "True", "reason": "InstanceDeletionInProgress",
            "message": "CustomResource deletion is in progress", "lastTransitionTime": self.now(),
        });
        if let Some(conditions) = new["status"]["conditions"].as_array_mut() {
            conditions.push(terminating);
        }
        let kept = self.keep(def, new);
        for object in self.list(&gr, "") {
            self.delete(&gr, namespace(&object), name(&object), &DeleteOptions::default())?;
        }
        self.finish_crds(&gr);
        let gone = !self.exists(&CUSTOMRESOURCEDEFINITIONS, "", name(old));
        Ok((!gone).then_some(kept))
    }

    /// Lets a CRD go that waited for its last object.
    pub(super) fn finish_crds(&mut self, gr: &Gr) {
        if self.registry.get(gr).is_none_or(|d| !d.custom) || !self.list(gr, "").is_empty() {
            return;
        }
        let crd_name = gr.to_string();
        let Ok(def) = self.def(&CUSTOMRESOURCEDEFINITIONS) else { return };
        let Ok(crd) = self.get(&CUSTOMRESOURCEDEFINITIONS, "", &crd_name) else { return };
        if !is_deleting(&crd) {
            return;
        }
        let mut new = (*crd).clone();
        let rest: Vec<Value> = list_at(&new, &["metadata", "finalizers"])
            .iter()
            .filter(|f| *f != CRD_CLEANUP)
            .cloned()
            .collect();
        if rest.is_empty() {
            self.discard(&def, "", &crd_name);
        } else if rest.len() < list_at(&crd, &["metadata", "finalizers"]).len() {
            set(&mut new, &["metadata", "finalizers"], Value::Array(rest));
            self.keep(&def, new);
        }
    }
}

fn preconditions(r: &Gr, old: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    let check = |what: &str, wanted: &Option<String>, have: &str| match wanted {
        Some(w) if w != have => Err(ApiError::conflict(
            r,
            name(old),
            &format!("Precondition failed: {what} in precondition: {w}, {what} in object meta: {have}"),
        )),
        _ => Ok(()),
    };
    check("UID", &options.uid, crate::object::uid(old))?;
    check("ResourceVersion", &options.resource_version, str_at(old, &["metadata", "resourceVersion"]))
}

/// Seconds a pod has to end: none if it never started or has ended already.
fn pod_grace(pod: &Value, options: &DeleteOptions) -> i64 {
    let ended = matches!(str_at(pod, &["status", "phase"]), "Succeeded" | "Failed");
    if str_at(pod, &["spec", "nodeName"]).is_empty() || ended {
        return 0;
    }
    let own = int_at(pod, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(30);
    let wanted = options.grace_period_s.unwrap_or(own).max(0);
    match int_at(pod, &["metadata", "deletionGracePeriodSeconds"]) {
        // A second deletion may only shorten the time.
        Some(running) if is_deleting(pod) => wanted.min(running),
        _ => wanted,
    }
}

fn set_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers: Vec<Value> = list_at(object, &["metadata", "finalizers"])
        .iter()
        .filter(|f| *f != FOREGROUND && *f != ORPHAN)
        .cloned()
        .collect();
    match propagation {
        Propagation::Foreground => finalizers.push(json!(FOREGROUND)),
        Propagation::Orphan => finalizers.push(json!(ORPHAN)),
        Propagation::Background => {}
    }
    if finalizers.is_empty() {
        crate::object::remove(object, &["metadata", "finalizers"]);
    } else {
        set(object, &["metadata", "finalizers"], Value::Array(finalizers));
    }
}
