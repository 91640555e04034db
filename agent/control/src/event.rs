//! Everything that changes the agent's mind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use agent_api::EndpointConfigChange;
use serde::{Deserialize, Serialize};

use crate::cni::CniRequest;
use crate::objects::{Object, ObjectKind, ObjectName};

/// One thing that happened. The daemon turns what it hears into these and does nothing else with it.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "events are handed on one by one, never kept")]
pub enum Event {
    /// A list of all Node objects begins: a start, or a new list after a broken watch.
    /// Objects that do not come again before [`Event::NodeListSynced`] are gone. A list that is cut short (no `NodeListSynced`) removes nothing.
    NodeListStarted,
    /// A Node object as it is now, from a list or a watch. The own node comes this way too.
    NodeUpsert(NodeObject),
    /// A Node object was deleted.
    NodeDelete {
        /// Its name.
        name: String,
    },
    /// The list that began with [`Event::NodeListStarted`] is complete.
    NodeListSynced,
    /// A list of all objects of a kind begins, as with nodes.
    ListStarted(ObjectKind),
    /// An object as it is now, from a list or a watch.
    Upsert {
        /// The object.
        object: Box<Object>,
        /// Its `resourceVersion` as a number, 0 if it is none.
        version: u64,
    },
    /// An object that cannot be read: what was in force of it stays.
    Unreadable {
        /// Its kind.
        kind: ObjectKind,
        /// Its name.
        name: ObjectName,
        /// What is wrong with it.
        error: String,
    },
    /// An object was deleted.
    Delete {
        /// Its kind.
        kind: ObjectKind,
        /// Its name.
        name: ObjectName,
        /// `resourceVersion` of its deletion as a number, 0 if it is none.
        version: u64,
    },
    /// The list that began with [`Event::ListStarted`] is complete.
    ListSynced(ObjectKind),
    /// The device that carries traffic between nodes, as it is now. Sent at start and whenever one of the facts changes.
    Underlay(DeviceFacts),
    /// Addresses and ports by which the agent itself reaches the API server. Policies for nodes must not cut them off unasked.
    ApiServer(BTreeSet<SocketAddr>),
    /// A request of the container runtime. Every request gets exactly one [`crate::Reply`] with its id, here or from a later `reconcile`.
    Cni(CniRequest),
    /// Something is to be set for one endpoint alone. One that is not there has nothing to set.
    EndpointConfig {
        /// Its number.
        id: u16,
        /// What is to be another.
        change: EndpointConfigChange,
    },
    /// Whether anybody listens to events now. Without a listener the programs tell of drops only: what nobody reads
    /// would still cost each new connection the writing of its records.
    Listeners(bool),
    /// Search the conntrack tables now, whatever the interval.
    CtGc,
    /// Time has passed; sent at [`crate::Agent::next_deadline`].
    Tick,
}

/// What the agent reads of a core/v1 Node. The strings are as in the object: what is wrong in them is reported, never refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeObject {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp` in seconds since 1970, 0 if it is not there. Of two nodes that claim one address the older one has it.
    pub created_s: u64,
    /// `spec.podCIDRs`, or `spec.podCIDR` alone where only that is set.
    pub pod_cidrs: Vec<String>,
    /// `status.addresses` of type `InternalIP`, in order.
    pub internal_ips: Vec<String>,
    /// `metadata.labels`, by which policies select nodes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Name of the device.
    pub name: String,
    /// Its index in the node's network namespace.
    pub ifindex: u32,
    /// Its MAC address, zero for a device without one.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses of global scope.
    pub addresses: Vec<IpAddr>,
}
