//! Pods and namespaces: which sets of labels are in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_crd::LabelFilter;
use agent_crd::identity_labels::{IdentityLabels, PodFacts};

use super::event::{Namespace, Pod};
use super::table::{Listing, Place, Table};

/// Pods, namespaces, and what follows from both for identities.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "pods are the main part of what it holds")]
pub(super) struct Pods {
    cluster: String,
    /// Which labels are part of identities.
    filter: LabelFilter,
    pods: Table<Pod>,
    namespaces: Table<Namespace>,
    /// Labels of the identity of each pod that needs one and whose namespace is known.
    labels: BTreeMap<Place, Arc<IdentityLabels>>,
    /// How many pods have these labels.
    users: BTreeMap<Arc<IdentityLabels>, usize>,
    /// Pods that need an identity and whose namespace is not known, by namespace.
    unplaced: BTreeMap<String, BTreeSet<String>>,
    /// Sets of labels whose number of users has gone from or to nothing.
    changed: BTreeSet<Arc<IdentityLabels>>,
}

impl Pods {
    pub(super) fn new(cluster: String, filter: LabelFilter) -> Self {
        Self {
            cluster,
            filter,
            pods: Table::default(),
            namespaces: Table::default(),
            labels: BTreeMap::new(),
            users: BTreeMap::new(),
            unplaced: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }

    pub(super) const fn listing_of_pods(&self) -> Listing {
        self.pods.listing()
    }

    pub(super) const fn listing_of_namespaces(&self) -> Listing {
        self.namespaces.listing()
    }

    pub(super) fn doubt(&mut self) {
        self.pods.doubt();
        self.namespaces.doubt();
    }

    /// Whether some pod has these labels.
    pub(super) fn use_labels(&self, labels: &IdentityLabels) -> bool {
        self.users.contains_key(labels)
    }

    /// Whether there is a pod in a namespace of that name whose labels cannot be told yet.
    pub(super) fn has_unplaced(&self, namespace: &str) -> bool {
        self.unplaced.contains_key(namespace)
    }

    /// Sets of labels to look at again.
    pub(super) fn take_changed(&mut self) -> BTreeSet<Arc<IdentityLabels>> {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn pods_list_started(&mut self) {
        self.pods.start();
    }

    pub(super) fn pods_list_synced(&mut self) {
        for pod in self.pods.sync() {
            self.derive(&(pod.namespace, pod.name));
        }
    }

    pub(super) fn namespaces_list_started(&mut self) {
        self.namespaces.start();
    }

    pub(super) fn namespaces_list_synced(&mut self) {
        for namespace in self.namespaces.sync() {
            self.derive_namespace(&namespace.name);
        }
    }

    pub(super) fn upsert(&mut self, pod: Pod) {
        let place = (pod.namespace.clone(), pod.name.clone());
        self.pods.upsert(place.clone(), pod);
        self.derive(&place);
    }

    pub(super) fn delete(&mut self, place: &Place) {
        self.pods.delete(place);
        self.derive(place);
    }

    pub(super) fn upsert_namespace(&mut self, namespace: Namespace) {
        let name = namespace.name.clone();
        self.namespaces.upsert((String::new(), name.clone()), namespace);
        self.derive_namespace(&name);
    }

    pub(super) fn delete_namespace(&mut self, name: &str) {
        self.namespaces.delete(&(String::new(), name.to_owned()));
        self.derive_namespace(name);
    }

    fn derive_namespace(&mut self, name: &str) {
        let from = (name.to_owned(), String::new());
        let places = self.pods.rows().range(from..).map(|(place, _)| place.clone());
        let places: Vec<Place> = places.take_while(|(namespace, _)| namespace == name).collect();
        places.iter().for_each(|place| self.derive(place));
    }

    /// Brings what follows from a pod up to date.
    fn derive(&mut self, place: &Place) {
        let (namespace, name) = place;
        let pod = self.pods.rows().get(place).filter(|pod| !pod.host_network && !pod.finished);
        let known = self.namespaces.rows().get(&(String::new(), namespace.clone()));
        let labels = match (pod, known) {
            (Some(pod), Some(known)) => Some(IdentityLabels::of_pod(&PodFacts {
                labels: &pod.labels,
                namespace,
                namespace_labels: &known.labels,
                service_account: &pod.service_account,
                cluster: &self.cluster,
                filter: &self.filter,
            })),
            _ => None,
        };
        if pod.is_some() && known.is_none() {
            self.unplaced.entry(namespace.clone()).or_default().insert(name.clone());
        } else if let Some(names) = self.unplaced.get_mut(namespace) {
            names.remove(name);
            if names.is_empty() {
                self.unplaced.remove(namespace);
            }
        }
        if self.labels.get(place).map(AsRef::as_ref) == labels.as_ref() {
            return;
        }
        if let Some(old) = self.labels.remove(place) {
            self.unuse(&old);
        }
        if let Some(labels) = labels {
            let labels = self
                .users
                .get_key_value(&labels)
                .map_or_else(|| Arc::new(labels), |(known, _)| Arc::clone(known));
            let users = self.users.entry(Arc::clone(&labels)).or_default();
            *users += 1;
            if *users == 1 {
                self.changed.insert(Arc::clone(&labels));
            }
            self.labels.insert(place.clone(), labels);
        }
    }

    fn unuse(&mut self, labels: &Arc<IdentityLabels>) {
        let Some(users) = self.users.get_mut(labels) else { return };
        *users -= 1;
        if *users == 0 {
            self.users.remove(labels);
            self.changed.insert(Arc::clone(labels));
        }
    }
}
