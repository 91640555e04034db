//! Services with their endpoints: peers of policies, which say so by `toServices`, and what pods and processes call.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agent_policy::{Label, Service};

use crate::few::Few;
use crate::objects::{ObjectName, ServiceObject, SliceObject};

/// The service of the API servers.
pub(crate) fn api_server() -> ObjectName {
    ObjectName::new("default", "kubernetes")
}

/// Services and slices of endpoints, as they are now. A slice may be there before its service.
#[derive(Debug, Default)]
pub struct Services {
    by_name: BTreeMap<Arc<ObjectName>, ServiceObject>,
    slices: BTreeMap<Arc<ObjectName>, SliceObject>,
    /// Slices by the name of their service.
    of_service: BTreeMap<Arc<ObjectName>, Few<Arc<ObjectName>>>,
    /// Services of which something was heard, or of their slices, since somebody asked.
    touched: BTreeSet<Arc<ObjectName>>,
    /// Services with a health port.
    with_health: BTreeSet<Arc<ObjectName>>,
    /// Rises whenever something is heard of one of these.
    health_news: u64,
}

impl Services {
    /// Addresses of the API servers: those of the endpoints of the service that the control plane makes for itself.
    pub fn api_server(&self) -> BTreeSet<IpAddr> {
        self.addresses(&api_server()).collect()
    }

    /// Addresses and TCP ports of the endpoints of a service.
    pub(crate) fn sockets(&self, name: &ObjectName) -> impl Iterator<Item = SocketAddr> {
        let slices = self.of_service.get(name).into_iter().flatten();
        slices.filter_map(|slice| self.slices.get(slice)).flat_map(|slice| {
            let ports =
                move |address: IpAddr| slice.tcp_ports.iter().map(move |port| (address, *port).into());
            slice.addresses.iter().copied().flat_map(ports)
        })
    }

    /// Addresses of a service itself.
    pub(crate) fn cluster_ips(&self, name: &ObjectName) -> Few<IpAddr> {
        self.by_name.get(name).map(|service| service.cluster_ips.clone()).unwrap_or_default()
    }

    /// The services, by name.
    pub fn names(&self) -> impl Iterator<Item = &Arc<ObjectName>> {
        self.by_name.keys()
    }

    /// A service as it is now; `None`: it is gone.
    pub fn set_service(&mut self, name: &Arc<ObjectName>, service: Option<ServiceObject>) {
        self.touched.insert(Arc::clone(name));
        let had = self.with_health.remove(name);
        let has = service.as_ref().is_some_and(|service| service.health_port.is_some());
        self.health_news += u64::from(had || has);
        if has {
            self.with_health.insert(Arc::clone(name));
        }
        match service {
            Some(service) => drop(self.by_name.insert(Arc::clone(name), service)),
            None => drop(self.by_name.remove(name)),
        }
    }

    /// A slice as it is now; `None`: it is gone. The services that have other endpoints now.
    pub fn set_slice(&mut self, name: &Arc<ObjectName>, slice: Option<SliceObject>) -> Vec<Arc<ObjectName>> {
        if self.slices.get(name) == slice.as_ref() {
            return Vec::new();
        }
        let mut touched = Vec::new();
        if let Some(before) = self.slices.remove(name) {
            let service = self.name_of(before.namespace, before.service);
            if let Some(slices) = self.of_service.get_mut(&service) {
                slices.remove(name);
                if slices.is_empty() {
                    self.of_service.remove(&service);
                }
            }
            touched.push(service);
        }
        if let Some(slice) = slice {
            let service = self.name_of(slice.namespace.clone(), slice.service.clone());
            self.of_service.entry(Arc::clone(&service)).or_default().insert(Arc::clone(name));
            self.slices.insert(Arc::clone(name), slice);
            touched.push(service);
        }
        self.health_news += u64::from(touched.iter().any(|service| self.with_health.contains(service)));
        self.touched.extend(touched.iter().cloned());
        touched
    }

    /// A service's name as it is held already, if it is.
    fn name_of(&self, namespace: String, name: String) -> Arc<ObjectName> {
        let name = ObjectName::new(namespace, name);
        let known = self.by_name.get_key_value(&name).map(|(known, _)| known);
        let known = known.or_else(|| self.of_service.get_key_value(&name).map(|(known, _)| known));
        known.cloned().unwrap_or_else(|| Arc::new(name))
    }

    /// Services with a health port, each with that.
    pub(crate) fn with_health(&self) -> impl Iterator<Item = (&ObjectName, u16)> {
        self.with_health.iter().filter_map(|name| Some((&**name, self.by_name.get(name)?.health_port?)))
    }

    /// Another number than before: [`Services::with_health`] or endpoints of these may be others.
    pub(crate) const fn health_news(&self) -> u64 {
        self.health_news
    }

    /// A service.
    pub(crate) fn service(&self, name: &ObjectName) -> Option<&ServiceObject> {
        self.by_name.get(name)
    }

    /// Slices of a service, whether it is there or not.
    pub(crate) fn slices(&self, name: &ObjectName) -> impl Iterator<Item = &SliceObject> + Clone {
        self.of_service.get(name).into_iter().flatten().filter_map(|slice| self.slices.get(slice))
    }

    /// Services of which something was heard, or of their slices, since the last call.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<Arc<ObjectName>> {
        std::mem::take(&mut self.touched)
    }

    /// A service in the engine's words; `None`: there is none of that name.
    pub fn get(&self, name: &ObjectName) -> Option<Service> {
        let service = self.by_name.get(name)?;
        let labels = service.labels.iter().map(|(key, value)| Label::k8s(key, value)).collect();
        Some(if service.selector.is_empty() {
            Service { labels, selector: None, addresses: self.addresses(name).collect() }
        } else {
            let pairs = service.selector.iter().map(|(key, value)| (key.clone(), value.clone()));
            Service { labels, selector: Some(pairs.collect()), ..Service::default() }
        })
    }

    /// Addresses of the endpoints of a service, whether the service itself is there or not.
    pub(crate) fn addresses(&self, name: &ObjectName) -> impl Iterator<Item = IpAddr> {
        let slices = self.of_service.get(name).into_iter().flatten();
        slices.filter_map(|slice| self.slices.get(slice)).flat_map(|slice| slice.addresses.iter().copied())
    }
}
