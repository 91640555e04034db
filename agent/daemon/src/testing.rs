//! What tests of several modules start.

use sim_api::{Faults, ServerConfig, ServerHandle, Store};
use std::sync::Arc;

use crate::control::Control;
use crate::metrics::Metrics;
use crate::watch::{Connector, WatchStatus};

/// A simulated API server, and how an agent reaches it. It ends with this.
pub(crate) struct ApiServer {
    pub(crate) store: Store,
    pub(crate) faults: Faults,
    pub(crate) status: WatchStatus,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connector: Arc<Connector>,
    _server: ServerHandle,
    _dir: tempfile::TempDir,
}

impl ApiServer {
    /// With what the store has.
    pub(crate) fn start(store: Store) -> Self {
        let config = ServerConfig::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let faults = config.faults.clone();
        let server = sim_api::server::start(store.clone(), config).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        sim_api::kubeconfig::write_kubeconfig(&kubeconfig, "test", &server.url()).unwrap();
        let metrics: Arc<Metrics> = Arc::default();
        let status = WatchStatus::new(Arc::clone(&metrics));
        let connector = Arc::new(Connector::new(Some(kubeconfig), status.clone(), Control::nobody()));
        Self { store, faults, status, metrics, connector, _server: server, _dir: dir }
    }
}
