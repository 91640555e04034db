//! `sock_bind`: a process binds a socket to a port.

use crate::service;
use crate::socket::{Peer, SocketHost, SocketVerdict};

/// Keeps the node's processes from ports that services have at every node: nobody who calls such a port would reach them.
#[inline(always)]
pub fn sock_bind<H: SocketHost>(host: H) -> SocketVerdict {
    match Peer::of(host) {
        Some(bound) if host.is_of_node() && service::is_node_port(host, &bound) => SocketVerdict::Taken,
        _ => SocketVerdict::Pass,
    }
}
