//! What load balancers outside ask of a node: whether it has endpoints of a service whose traffic stays on the node that it
//! comes to (`externalTrafficPolicy: Local`).

use super::Agent;
use crate::objects::ObjectName;

/// A service with a health port, and what its node has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceHealth {
    /// The service.
    pub service: ObjectName,
    /// Where it is asked for (`healthCheckNodePort`).
    pub port: u16,
    /// Endpoints on this node that take new connections. One of both families counts once.
    pub local_endpoints: usize,
}

impl Agent {
    /// Services with a health port, by name. `None`: not all services and endpoints have been heard of yet, or they are another
    /// proxy's matter; to say that there are no endpoints would send traffic elsewhere.
    pub fn service_health(&self) -> Option<Vec<ServiceHealth>> {
        self.service_health_news()?;
        let services = self.state.policy.services();
        let health = services.with_health().map(|(service, port)| {
            let here = services
                .slices(service)
                .flat_map(|slice| &slice.endpoints)
                .filter(|endpoint| endpoint.ready && *endpoint.node == *self.config.node_name);
            let mut families = [0; 2];
            let mut addresses: Vec<_> = here.map(|endpoint| endpoint.address).collect();
            // An endpoint may be in two slices for a while.
            addresses.sort_unstable();
            addresses.dedup();
            for address in addresses {
                families[usize::from(address.is_ipv6())] += 1;
            }
            ServiceHealth { service: service.clone(), port, local_endpoints: families[0].max(families[1]) }
        });
        Some(health.collect())
    }

    /// Whether calls to services go where they shall: all are known, and the tables say so.
    pub fn has_written_services(&self) -> bool {
        let (services, backends) = (&self.outside.services, &self.outside.backends);
        let fails = services.failures().next().is_some() || backends.failures().next().is_some();
        self.service_health_news().is_some() && !fails
    }

    /// Another answer than before: [`Agent::service_health`] may be another.
    pub fn service_health_news(&self) -> Option<u64> {
        let known = self.config.kube_proxy_replacement && self.state.policy.services_synced();
        known.then(|| self.state.policy.services().health_news())
    }
}
