//! The hosts' side of a simulated network: what a kernel's network stack does around the dataplane.
//!
//! [`Host`] is an end host with one device (a pod), [`Node`] a router with links of several kinds, a tunnel device and local sockets.
//! Both are faces of one stack that takes frames and virtual time and gives frames back. Everything is a function of its input and
//! a seed: no clock, no threads, no randomness of the machine. Virtual time is a [`core::time::Duration`] since the start.
//!
//! It must not know the agent, the dataplane or Kubernetes. Start reading at [`node`], then `stack`.
//!
//! TCP is smoltcp's; the layers below it are our own, so that neighbours, fragments, path MTU and ICMP errors follow Linux, and an
//! idle host costs next to nothing. Deliberately absent: group membership, router and duplicate address discovery, redirects, options
//! of IPv4 headers beyond passing them on, the ageing of resolved neighbours, ICMP rate limits, congestion and ECN marks,
//! ICMP errors about packets that stay incomplete. Other than in Linux, a lost TCP segment is sent again after a second at least, and
//! no connection waits in `TIME-WAIT`.
#![forbid(unsafe_code)]

mod calls;
pub mod checksum;
mod client;
mod fragment;
mod frame;
mod icmp;
mod ip;
mod net;
pub mod node;
pub mod packet;
pub mod pcap;
pub mod pod;
mod ports;
mod sockets;
mod stack;
mod tcp;

pub use calls::{AsIs, Caller, Calls, Machine};
pub use client::{ClientId, ClientKind, ClientReport, ClientSpec};
pub use frame::{Frame, Mac, PacketId};
pub use net::{Link, LinkKind, Route};
pub use node::Node;
pub use packet::Summary;
pub use pod::{Host, HostConfig};
pub use sockets::{Server, ServerKind};
pub use stack::{Action, StackDrop};
