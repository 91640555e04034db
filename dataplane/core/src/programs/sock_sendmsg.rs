//! `sock_sendmsg`: a process sends a datagram on a socket that is not connected.

use crate::service;
use crate::socket::{SocketHost, SocketVerdict};

/// Sends it to the backend of a service's frontend with which the socket stays.
#[inline(always)]
pub fn sock_sendmsg<H: SocketHost>(host: H) -> SocketVerdict {
    service::translate::<H, true>(host)
}
