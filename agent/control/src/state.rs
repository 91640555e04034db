//! What the agent knows: the ground truth from which all rows are computed.

pub(crate) mod claims;
pub(crate) mod documents;
pub(crate) mod endpoints;
pub(crate) mod frontends;
pub(crate) mod host;
pub(crate) mod ipam;
pub(crate) mod nodes;
pub(crate) mod numbers;
pub(crate) mod policy;
pub(crate) mod services;

use std::net::IpAddr;

use agent_policy::{LabelSet, Node};

use crate::event::DeviceFacts;
use crate::ports::BaseFacts;
use endpoints::{Endpoint, Endpoints};
use frontends::Frontends;
use ipam::Ipam;
use nodes::Nodes;
use policy::PolicyState;

/// All of it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) nodes: Nodes,
    pub(crate) endpoints: Endpoints,
    pub(crate) ipam: Ipam,
    pub(crate) policy: PolicyState,
    pub(crate) frontends: Frontends,
    pub(crate) underlay: Option<DeviceFacts>,
    pub(crate) base: Option<BaseFacts>,
    /// Somebody listens to events.
    pub(crate) listeners: bool,
}

impl State {
    /// Labels by which policies for nodes select this one.
    pub(crate) fn host_labels(&self) -> LabelSet {
        let labels = self.nodes.own().map(|own| own.labels.clone()).unwrap_or_default();
        Node { labels, api_server: false }.subject_labels()
    }

    /// The endpoint that has this address and rows in the tables.
    pub(crate) fn endpoint_at(&self, address: &IpAddr) -> Option<&Endpoint> {
        let endpoint = self.endpoints.get(self.ipam.owner(address)?)?;
        endpoint.has_rows().then_some(endpoint)
    }
}
