//! A cluster that stands while its policies and labels change.

use std::net::IpAddr;

use agent_control::ObjectName;
use serde_json::Value;
use sim_oracle::{Attempt, End, Family, Options};
use sim_policy::PolicyCase;
use sim_scenario::model::Routing;

use super::cluster::Cluster;
use super::{Outcome, VerdictError};

/// Agents and their tables at rest after each change, asked by single packets as [`super::compare`] does.
pub struct Standing {
    cluster: Cluster,
    asked: usize,
}

impl Standing {
    /// Nodes, namespaces, pods and whatever else is there from the beginning. Pods name their node and which families they have.
    ///
    /// # Errors
    /// When an agent does not take it.
    pub fn new(routing: Routing, objects: Vec<Value>) -> Result<Self, VerdictError> {
        let case = PolicyCase { objects, attempts: Vec::new() };
        let routing = match routing {
            Routing::Vxlan => agent_control::Routing::Vxlan,
            Routing::Native => agent_control::Routing::Native,
        };
        let options = Options { host_policies: true, ..Options::by_identity() };
        Ok(Self { cluster: Cluster::new(routing, options, &case).map_err(failed)?, asked: 0 })
    }

    /// Sets an object, new or in place of its older self: anything but pods and nodes that were not there.
    ///
    /// # Errors
    /// When no agent reads such an object, or one does not come to rest.
    pub fn set(&mut self, object: &Value) -> Result<(), VerdictError> {
        self.cluster.set(object).map_err(failed)
    }

    /// Removes an object; one that is not there is as good as removed.
    ///
    /// # Errors
    /// When an agent does not come to rest.
    pub fn remove(&mut self, kind: &str, namespace: &str, name: &str) -> Result<(), VerdictError> {
        self.cluster.remove(kind, &ObjectName::new(namespace, name)).map_err(failed)
    }

    /// The objects, pods with the addresses that they have.
    pub fn objects(&self) -> Vec<Value> {
        self.cluster.objects()
    }

    /// The address of an end.
    pub fn address(&self, end: &End, family: Family) -> Option<IpAddr> {
        self.cluster.address(end, family == Family::V4)
    }

    /// Sends the packet that opens a connection of its own.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn send(&mut self, attempt: &Attempt) -> Result<Outcome, VerdictError> {
        self.asked += 1;
        self.cluster.send(self.asked, attempt).map_err(failed)
    }
}

fn failed(message: String) -> VerdictError {
    VerdictError { seed: 0, message }
}
