//! `sock_recvmsg`: a process is told who sent a datagram.

use crate::service;
use crate::socket::SocketHost;

/// Names the service's frontend that the process has sent to, in place of the backend that answers.
#[inline(always)]
pub fn sock_recvmsg<H: SocketHost>(host: H) {
    service::restore(host);
}
