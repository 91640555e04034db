//! What a change of policies would do, worked out on a copy of the rules: nothing of it comes into force.

use agent_api::policy::{Change, ObjectRef, WhatIf};
use agent_policy::Store;
use serde_json::Value;

use super::Agent;
use crate::objects::{Object, ObjectKind};

impl Agent {
    /// What becomes of a connection, as with [`Agent::explain_policy`], when objects are changed.
    ///
    /// # Errors
    /// As [`Agent::explain_policy`], and when an object is none that policies are made of, is not there, or would be refused;
    /// in one sentence.
    pub fn what_if(
        &self,
        from: &str,
        to: &str,
        proto: u8,
        port: u16,
        change: &Change,
    ) -> Result<WhatIf, String> {
        let now = self.explain_policy(from, to, proto, port)?;
        let mut rules = self.rules()?.clone();
        for object in &change.without {
            remove(&mut rules, object)?;
        }
        let cluster = self.config.policy.as_ref().map_or("", |policy| policy.engine.cluster.as_str());
        for object in &change.with {
            apply(&mut rules, object, cluster)?;
        }
        let then = self.explain_with(&rules, from, to, proto, port)?;
        Ok(WhatIf { changes: now.passes != then.passes, now, then })
    }
}

fn remove(rules: &mut Store, object: &ObjectRef) -> Result<(), String> {
    let ObjectRef { kind, namespace, name } = object;
    let is_it = |own: &&agent_policy::ObjectRef| {
        own.kind.name().eq_ignore_ascii_case(kind) && own.namespace == *namespace && own.name == *name
    };
    let found = rules.objects().find(is_it).cloned();
    let is_group = kind.eq_ignore_ascii_case(ObjectKind::CidrGroup.name()) && namespace.is_empty();
    let was_there = match &found {
        Some(found) => rules.remove(found),
        None => is_group && rules.set_group(name, None),
    };
    let place = if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") };
    was_there.then_some(()).ok_or_else(|| {
        format!("there is no {kind} {place}; `bristle policy list` shows the policies, with kinds in full")
    })
}

fn apply(rules: &mut Store, object: &Value, cluster: &str) -> Result<(), String> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let title = || {
        let parts = [text("/kind"), text("/metadata/namespace"), text("/metadata/name")];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    };
    let kind = ObjectKind::of(object).filter(|kind| kind.is_of_policy()).ok_or_else(|| {
        format!(
            "{} of {} is neither a policy nor a group of CIDRs; what else would change, files answer (-f)",
            title(),
            text("/apiVersion")
        )
    })?;
    let refused =
        |why: &dyn std::fmt::Display| format!("{} would be refused, so that nothing changes: {why}", title());
    let read = Object::read(kind, object).map_err(|error| refused(&error))?;
    match &read {
        Some(Object::CidrGroup(group)) => {
            let group = agent_policy::cidr_group(group).map_err(|error| refused(&error))?;
            rules.set_group(text("/metadata/name"), Some(group));
        }
        Some(object) => {
            if let Some(policy) = object.as_policy() {
                rules.upsert(policy, cluster).map_err(|error| refused(&error))?;
            }
        }
        None => {}
    }
    Ok(())
}
