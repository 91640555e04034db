//! The Linux side of a node: links, addresses, routes, neighbours, network namespaces, sysctls, and the pod's interface made of them.
//!
//! Everything is synchronous. Netlink answers within microseconds, the agent's control thread calls one operation after the other anyway,
//! and a pod's interface must be there within a few milliseconds; an async runtime would only add hops.
//!
//! This crate must not know what the things are for: it holds no policy, no names of ours and no state. Each operation is safe to repeat
//! unless its documentation says otherwise, and errors name the object and the operation.
//!
//! Start reading at [`Netlink`] (one socket, bound to one network namespace), then [`pod_interface`].

pub mod address;
pub mod ethtool;
pub mod facts;
pub mod link;
mod mac;
pub mod mount;
pub mod neighbour;
pub mod netlink;
pub mod netns;
mod packet_socket;
pub mod pod_interface;
pub mod route;
pub mod sysctl;

pub use mac::{Mac, ParseMacError};
pub use netlink::{Netlink, NetlinkError};
pub use netns::{NamedNetns, Netns, NetnsError, NetnsId};
pub use packet_socket::PacketSocket;
