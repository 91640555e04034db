//! HTTP in front of the store.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::faults::Faults;
use crate::runtime::{NoRuntime, NodeRuntime};
use crate::store::Store;

/// How a server is started.
pub struct ServerConfig {
    /// Bound sockets to serve on; they may have been bound in other network namespaces.
    pub listeners: Vec<TcpListener>,
    /// The way to the processes of pods.
    pub runtime: Arc<dyn NodeRuntime>,
    /// Anomalies on demand.
    pub faults: Faults,
}

impl ServerConfig {
    /// One listener, no processes, no faults.
    pub fn new(listener: TcpListener) -> Self {
        Self { listeners: vec![listener], runtime: Arc::new(NoRuntime), faults: Faults::default() }
    }
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct ServerHandle {
    addresses: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl ServerHandle {
    /// The addresses it listens on, in the order of the listeners.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// `http://` and the first address.
    pub fn url(&self) -> String {
        self.addresses.first().map(|a| format!("http://{a}")).unwrap_or_default()
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Starts serving; must be called within a tokio runtime.
///
/// # Errors
/// A listener cannot be used.
pub fn start(_store: Store, config: ServerConfig) -> io::Result<ServerHandle> {
    let mut handle = ServerHandle { addresses: Vec::new(), tasks: Vec::new() };
    for listener in config.listeners {
        listener.set_nonblocking(true)?;
        handle.addresses.push(listener.local_addr()?);
        let _listener = tokio::net::TcpListener::from_std(listener)?;
    }
    Ok(handle)
}
