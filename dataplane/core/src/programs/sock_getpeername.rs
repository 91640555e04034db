//! `sock_getpeername`: a process asks to whom a socket is connected.

use crate::service;
use crate::socket::SocketHost;

/// Names the service's frontend that the process has connected to.
#[inline(always)]
pub fn sock_getpeername<H: SocketHost>(host: H) {
    service::restore(host);
}
