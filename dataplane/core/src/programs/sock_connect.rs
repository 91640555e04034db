//! `sock_connect`: a process connects a socket.

use crate::service;
use crate::socket::{SocketHost, SocketVerdict};

/// Connects it to a backend instead of a service's frontend. From then on it is a connection to the backend like any other.
#[inline(always)]
pub fn sock_connect<H: SocketHost>(host: H) -> SocketVerdict {
    service::translate::<H, false>(host)
}
