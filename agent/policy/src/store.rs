//! The policy objects and what they refer to, as they are now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::error::Mistakes;
use crate::finding::Finding;
use crate::label::{LabelSet, NAMESPACE, source};
use crate::normal::{PolicyObject, normalise};
use crate::pool::Pool;
use crate::ports::Ports;
use crate::rule::{ObjectRef, PeerRef, Peers, Spec};
use crate::selector::{Requirement, Selector, Selectors};

/// A group of CIDRs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CidrGroup {
    /// Its labels, with source `cidrgroup`.
    pub labels: LabelSet,
    /// Its CIDRs.
    pub cidrs: BTreeSet<IpNet>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Its labels, with source `k8s`.
    pub labels: LabelSet,
    /// Which pods are behind it: keys and values of labels, in the order of keys; `None`: no selector says so.
    pub selector: Option<Box<[(String, String)]>>,
    /// Addresses of its endpoints. They count where there is no selector.
    pub addresses: BTreeSet<IpAddr>,
}

/// What is in force of an object, and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stored {
    pub(crate) specs: Box<[Arc<Spec>]>,
    pub(crate) findings: Box<[Finding]>,
}

/// Parts of rules. Those of many rules are equal: the pods of an application, port 443.
#[derive(Debug, Clone, Default)]
struct Shared {
    selectors: Pool<Selector>,
    peers: Pool<Peers>,
    ports: Pool<Ports>,
}

impl Shared {
    fn share(&mut self, spec: &mut Spec) {
        self.selectors.share(&mut spec.subject);
        for rule in &mut spec.rules {
            if let Some(peers) = Arc::get_mut(&mut rule.peers) {
                peers.selectors.share(&mut self.selectors);
            }
            self.peers.share(&mut rule.peers);
            self.ports.share(&mut rule.ports);
        }
    }
}

/// Objects by name.
#[derive(Debug, Clone, Default)]
pub struct Store {
    pub(crate) objects: BTreeMap<Arc<ObjectRef>, Stored>,
    pub(crate) groups: BTreeMap<String, CidrGroup>,
    pub(crate) services: BTreeMap<(String, String), Service>,
    shared: Shared,
    /// Objects that are not in force.
    staged: BTreeSet<Arc<ObjectRef>>,
}

impl Store {
    /// The rules in force, in order of objects.
    pub fn specs(&self) -> impl Iterator<Item = &Arc<Spec>> {
        self.objects.values().flat_map(|stored| &stored.specs)
    }

    /// A policy object as it is now. `cluster` is the name of the cluster.
    ///
    /// # Errors
    /// When it cannot be taken. What was in force of the object stays in force, and a finding says so.
    pub fn upsert(&mut self, object: PolicyObject<'_>, cluster: &str) -> Result<(), Mistakes> {
        let (name, after, result) = self.after(object, cluster);
        self.put(&name, after);
        result
    }

    /// A policy object is gone. Whether there was one.
    pub fn remove(&mut self, object: &ObjectRef) -> bool {
        self.staged.remove(object);
        self.objects.remove(object).is_some()
    }

    /// What is in force of an object when it is as given.
    pub(crate) fn after(
        &mut self,
        object: PolicyObject<'_>,
        cluster: &str,
    ) -> (Arc<ObjectRef>, Stored, Result<(), Mistakes>) {
        match normalise(object, cluster) {
            Ok(normal) => {
                let mut specs = normal.specs;
                specs.iter_mut().for_each(|spec| self.shared.share(spec));
                let name = specs.first().map(|spec| Arc::clone(&spec.object));
                let stored = Stored {
                    specs: specs.into_iter().map(Arc::new).collect(),
                    findings: normal.findings.into(),
                };
                (name.unwrap_or_else(|| Arc::new(object.name())), stored, Ok(()))
            }
            Err(error) => {
                let name = Arc::new(object.name());
                let specs = self.objects.get(&name).map(|stored| stored.specs.clone()).unwrap_or_default();
                let then =
                    if specs.is_empty() { "it is not in force" } else { "what was in force before stays" };
                let findings = [Finding::error(&name, format!("{error}: {then}"))].into();
                (name, Stored { specs, findings }, Err(error))
            }
        }
    }

    pub(crate) fn put(&mut self, name: &Arc<ObjectRef>, stored: Stored) {
        if stored.specs.iter().any(|spec| spec.staged) {
            self.staged.insert(Arc::clone(name));
        } else {
            self.staged.remove(name);
        }
        // The name goes too: the new rules hold one of their own.
        self.objects.remove(name);
        if stored != Stored::default() {
            self.objects.insert(Arc::clone(name), stored);
        }
    }

    /// The objects that are in force, or of which something is to be said.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.objects.keys().map(|object| &**object)
    }

    /// Whether an object only says what it would do.
    pub fn is_staged(&self, object: &ObjectRef) -> bool {
        self.staged.contains(object)
    }

    /// Those objects.
    pub fn staged(&self) -> impl Iterator<Item = &ObjectRef> {
        self.staged.iter().map(|object| &**object)
    }

    /// Whether there is such an object.
    pub fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// A group of CIDRs as it is now, `None`: it is gone.
    pub fn set_group(&mut self, name: &str, group: Option<CidrGroup>) -> bool {
        let before = match group {
            Some(group) => {
                if self.groups.get(name) == Some(&group) {
                    return false;
                }
                self.groups.insert(name.to_owned(), group);
                return true;
            }
            None => self.groups.remove(name),
        };
        before.is_some()
    }

    /// A service as it is now, `None`: it is gone.
    pub fn set_service(&mut self, namespace: &str, name: &str, service: Option<Service>) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        match service {
            Some(service) => {
                if self.services.get(&key) == Some(&service) {
                    return false;
                }
                self.services.insert(key, service);
                true
            }
            None => self.services.remove(&key).is_some(),
        }
    }

    /// The selectors of peers, with what they refer to as it is now.
    pub fn selectors(&self, peers: &Peers) -> Selectors {
        let mut selectors = peers.selectors.clone();
        for peer in &peers.refs {
            selectors.extend(self.follow(peer));
        }
        selectors
    }

    fn follow(&self, peer: &PeerRef) -> Vec<Selector> {
        let cidrs = |group: &CidrGroup, except: &[IpNet]| -> Vec<Selector> {
            group.cidrs.iter().map(|net| Selector::cidr(*net, except.iter().copied())).collect()
        };
        let all = |selector: &[Requirement], labels: &LabelSet| selector.iter().all(|r| r.matches(labels));
        match peer {
            PeerRef::Group { name, except } => {
                self.groups.get(name).map_or_else(Vec::new, |group| cidrs(group, except))
            }
            PeerRef::Groups { selector, except } => self
                .groups
                .values()
                .filter(|group| all(selector, &group.labels))
                .flat_map(|group| cidrs(group, except))
                .collect(),
            PeerRef::Service { namespace, name } => self
                .named(namespace.as_deref(), name)
                .flat_map(|(namespace, service)| behind(namespace, service))
                .collect(),
            PeerRef::Services { namespace, selector } => self
                .services
                .iter()
                .filter(|((own, _), service)| {
                    namespace.as_ref().is_none_or(|namespace| own == namespace)
                        && all(selector, &service.labels)
                })
                .flat_map(|((namespace, _), service)| behind(namespace, service))
                .collect(),
        }
    }

    /// Services of a name, of one namespace or of all, with their namespaces.
    fn named(&self, namespace: Option<&str>, name: &str) -> impl Iterator<Item = (&str, &Service)> {
        let of_one = namespace.and_then(|namespace| {
            let key = (namespace.to_owned(), name.to_owned());
            self.services.get_key_value(&key)
        });
        let of_all = self.services.iter().filter(move |((_, own), _)| namespace.is_none() && own == name);
        of_one.into_iter().chain(of_all).map(|((namespace, _), service)| (namespace.as_str(), service))
    }

    /// What a rule refers to and is not there.
    pub(crate) fn missing(&self, peer: &PeerRef) -> Option<String> {
        match peer {
            PeerRef::Group { name, .. } if !self.groups.contains_key(name) => {
                Some(format!("CiliumCIDRGroup {name} does not exist: it selects nobody"))
            }
            PeerRef::Service { namespace, name } => {
                let text = namespace.as_ref().map_or_else(|| name.clone(), |own| format!("{own}/{name}"));
                let mut found = self.named(namespace.as_deref(), name).peekable();
                if found.peek().is_none() {
                    return Some(format!("Service {text} does not exist: it selects nobody"));
                }
                let is_nobody =
                    |service: &Service| service.selector.is_none() && service.addresses.is_empty();
                found
                    .all(|(_, service)| is_nobody(service))
                    .then(|| format!("Service {text} has no selector and no endpoints: it selects nobody"))
            }
            _ => None,
        }
    }
}

/// Who is behind a service: pods, if a selector says which; else whoever has the addresses of its endpoints.
fn behind(namespace: &str, service: &Service) -> Vec<Selector> {
    match &service.selector {
        Some(labels) => {
            let own = labels.iter().map(|(key, value)| Requirement::equals(source::K8S, key, value));
            vec![Selector::labels(own.chain([Requirement::equals(source::K8S, NAMESPACE, namespace)]))]
        }
        None => service.addresses.iter().map(|address| Selector::cidr(IpNet::from(*address), [])).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::Label;

    #[test]
    fn groups_and_services_are_followed_as_they_are_now() {
        let mut store = Store::default();
        let net = |text: &str| -> IpNet { text.parse().unwrap() };
        let peers = Peers {
            refs: BTreeSet::from([
                PeerRef::Group { name: "a".into(), except: vec![net("10.1.0.0/16")] },
                PeerRef::Groups {
                    selector: vec![Requirement::equals(source::CIDR_GROUP, "team", "x")],
                    except: Vec::new(),
                },
                PeerRef::Service { namespace: Some("shop".into()), name: "web".into() },
            ]),
            ..Peers::default()
        };
        assert_eq!(store.selectors(&peers).iter().count(), 0);
        let group = CidrGroup {
            labels: [Label::new(source::CIDR_GROUP, "team", "x")].into_iter().collect(),
            cidrs: BTreeSet::from([net("10.0.0.0/8")]),
        };
        assert!(store.set_group("a", Some(group.clone())));
        assert!(!store.set_group("a", Some(group)));
        let service = Service {
            labels: LabelSet::default(),
            selector: Some([("app".to_owned(), "web".to_owned())].into()),
            ..Service::default()
        };
        assert!(store.set_service("shop", "web", Some(service)));
        let text: Vec<String> = store.selectors(&peers).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "k8s:app=web; k8s:io.kubernetes.pod.namespace=shop",
                "10.0.0.0/8",
                "10.0.0.0/8 without 10.1.0.0/16"
            ]
        );
        assert!(peers.refs.iter().all(|peer| store.missing(peer).is_none()));
        let service = Service {
            addresses: ["192.0.2.1", "2001:db8::1"].iter().map(|text| text.parse().unwrap()).collect(),
            ..Service::default()
        };
        assert!(store.set_service("shop", "web", Some(service)));
        let text: Vec<String> = store.selectors(&peers).iter().map(ToString::to_string).collect();
        assert_eq!(text[2..], ["192.0.2.1/32", "2001:db8::1/128"]);
        assert!(peers.refs.iter().all(|peer| store.missing(peer).is_none()));
        store.set_service("shop", "web", Some(Service::default()));
        assert!(peers.refs.iter().any(|peer| store.missing(peer).is_some()));
        assert!(store.set_group("a", None) && !store.set_group("a", None));
        assert!(peers.refs.iter().any(|peer| store.missing(peer).is_some()));
    }
}
