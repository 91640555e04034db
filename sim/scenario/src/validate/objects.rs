//! What exists at a step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::error::hint;
use crate::model::{ObjectRef, Pod, Serve};
use crate::validate::KnowsKind;

/// Namespace and name of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PodKey {
    namespace: String,
    name: String,
}

impl PodKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn of(pod: &Pod) -> Self {
        Self::new(&pod.namespace, &pod.name)
    }

    /// `namespace/name`, or a name in `default`.
    pub(crate) fn parse(text: &str) -> Self {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        Self::new(namespace, name)
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace == "default" {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// It is there; what listens in it, if that is known.
    Alive(Option<Vec<Serve>>),
    /// It has been deleted, and may be there still.
    Leaving,
    /// It is gone.
    Gone,
}

/// Kinds that make pods with names of their own.
const WORKLOADS: &[&str] = &["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "Job", "CronJob"];

#[derive(Debug)]
pub(super) struct Objects {
    nodes: u16,
    pods: BTreeMap<PodKey, State>,
    /// Applied objects by kind, namespace, name.
    applied: BTreeSet<(String, String, String)>,
    /// Services that were there once, by namespace and name.
    services: BTreeSet<(String, String)>,
    /// Kinds that steps define, by group and name.
    defined: BTreeSet<(String, String)>,
    /// Ids of traffic that has begun.
    pub(super) traffic: BTreeSet<String>,
}

impl Objects {
    pub(super) fn new(nodes: u16) -> Self {
        let (pods, applied) = (BTreeMap::new(), BTreeSet::new());
        let (services, defined) = (BTreeSet::new(), BTreeSet::new());
        Self { nodes, pods, applied, services, defined, traffic: BTreeSet::new() }
    }

    pub(super) fn node(&self, name: &str) -> Result<(), String> {
        let number =
            name.strip_prefix("node-").and_then(|n| n.parse::<u16>().ok().filter(|_| !n.starts_with('0')));
        match number {
            Some(n) if (1..=self.nodes).contains(&n) => Ok(()),
            _ if self.nodes == 1 => Err(format!("there is no node `{name}`: the only one is node-1")),
            _ => Err(format!("there is no node `{name}`: they are node-1 to node-{}", self.nodes)),
        }
    }

    pub(super) fn make_pod(&mut self, key: PodKey, serve: Option<Vec<Serve>>) -> Result<(), String> {
        match self.pods.get(&key) {
            Some(State::Alive(_)) => return Err(format!("pod `{key}` is there already")),
            Some(State::Leaving) => {
                return Err(format!(
                    "pod `{key}` may be there still: wait for `ready` or `rest` after its deletion"
                ));
            }
            Some(State::Gone) | None => {}
        }
        self.pods.insert(key, State::Alive(serve));
        Ok(())
    }

    pub(super) fn delete_pod(&mut self, key: &PodKey) -> Result<(), String> {
        self.pod(key)?;
        if let Some(state) = self.pods.get_mut(key) {
            *state = State::Leaving;
        }
        Ok(())
    }

    /// Is it there?
    pub(super) fn pod(&self, key: &PodKey) -> Result<(), String> {
        match self.pods.get(key) {
            Some(State::Alive(_)) => Ok(()),
            Some(State::Leaving | State::Gone) => {
                Err(format!("pod `{key}` has been deleted before this step"))
            }
            None if self.of_workload(key) => Ok(()),
            None => {
                let known: Vec<String> = self.pods.keys().map(ToString::to_string).collect();
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                Err(format!("there is no pod `{key}` at this step{}", hint(&key.to_string(), &known)))
            }
        }
    }

    /// Was it ever made?
    pub(super) fn has_known(&self, key: &PodKey) -> bool {
        self.pods.contains_key(key) || self.of_workload(key)
    }

    /// What listens in a pod, where that is known.
    pub(super) fn serves(&self, key: &PodKey) -> Option<&[Serve]> {
        match self.pods.get(key) {
            Some(State::Alive(serve)) => serve.as_deref(),
            _ => None,
        }
    }

    /// Pods that were made one by one and not deleted.
    pub(super) fn alive(&self) -> usize {
        self.pods.values().filter(|state| matches!(state, State::Alive(_))).count()
    }

    /// A wait has made sure that deleted pods are gone.
    pub(super) fn everything_settled(&mut self) {
        for state in self.pods.values_mut().filter(|state| **state == State::Leaving) {
            *state = State::Gone;
        }
    }

    pub(super) fn apply(&mut self, object: &Value) -> Result<(), String> {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str);
        let (Some(kind), Some(_)) = (text("/kind"), text("/apiVersion")) else {
            return Err("an object has `apiVersion` and `kind`".to_owned());
        };
        if kind == "List" {
            let items = object.get("items").and_then(Value::as_array);
            return items.into_iter().flatten().try_for_each(|item| self.apply(item));
        }
        let Some(name) = text("/metadata/name") else {
            return Err(format!("the {kind} has no `metadata.name`"));
        };
        let namespace = text("/metadata/namespace").unwrap_or("default");
        if kind == "Pod" {
            let key = PodKey::new(namespace, name);
            // To apply what is there already changes it.
            if !matches!(self.pods.get(&key), Some(State::Alive(_))) {
                self.make_pod(key, None)?;
            }
        }
        if kind == "Service" {
            self.services.insert((namespace.to_owned(), name.to_owned()));
        }
        self.applied.insert((kind.to_owned(), namespace.to_owned(), name.to_owned()));
        Ok(())
    }

    /// Is the kind of an object, or of those in a list, there? Definitions that steps apply bring more.
    pub(super) fn knows_kinds(&mut self, object: &Value, known: Option<KnowsKind>) -> Result<(), String> {
        let Some(known) = known else { return Ok(()) };
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("/apiVersion"), text("/kind"));
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        if kind == "List" {
            let items = object.get("items").and_then(Value::as_array);
            return items.into_iter().flatten().try_for_each(|item| self.knows_kinds(item, Some(known)));
        }
        if kind == "CustomResourceDefinition" {
            self.defined.insert((text("/spec/group").to_owned(), text("/spec/names/kind").to_owned()));
        }
        if known(group, kind) || self.defined.contains(&(group.to_owned(), kind.to_owned())) {
            Ok(())
        } else {
            Err(format!("the cluster knows no kind `{kind}` in `{api_version}`, and no step defines it"))
        }
    }

    pub(super) fn delete(&mut self, object: &ObjectRef) -> Result<(), String> {
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let name = object.name.as_str();
        match object.kind.as_str() {
            "Pod" => return self.delete_pod(&PodKey::new(namespace, name)),
            "Namespace" => {
                for (key, state) in &mut self.pods {
                    if key.namespace == name && matches!(state, State::Alive(_)) {
                        *state = State::Leaving;
                    }
                }
                self.applied.retain(|(kind, namespace, _)| namespace != name || kind == "Namespace");
                return Ok(());
            }
            // The cluster has its nodes before anybody applies one.
            "Node" if self.node(name).is_ok() => return Ok(()),
            _ => {}
        }
        let row = (object.kind.clone(), namespace.to_owned(), name.to_owned());
        if self.applied.remove(&row) {
            Ok(())
        } else {
            Err(format!("there is no {} `{namespace}/{name}` at this step: no step applied it", object.kind))
        }
    }

    /// Was it ever made? One that is gone is called at the address that it had.
    pub(super) fn has_service(&self, namespace: &str, name: &str) -> bool {
        self.services.contains(&(namespace.to_owned(), name.to_owned()))
    }

    /// Whether there may be pods that no step names.
    pub(super) fn workloads_applied(&self) -> bool {
        self.applied.iter().any(|(kind, ..)| WORKLOADS.contains(&kind.as_str()))
    }

    fn of_workload(&self, key: &PodKey) -> bool {
        self.applied.iter().any(|(kind, namespace, name)| {
            WORKLOADS.contains(&kind.as_str())
                && *namespace == key.namespace
                && key.name.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('-'))
        })
    }
}
