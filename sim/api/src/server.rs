//! HTTP in front of the store.
//!
//! Plain HTTP/1.1 with upgrades and HTTP/2 with prior knowledge; no authentication, everybody may do everything.

mod answer;
mod discovery;
mod events;
mod logs;
mod openapi;
mod pods;
mod portforward;
mod request;
mod reviews;
mod route;
mod shape;
mod spdy;
mod streams;
mod verbs;
mod watches;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::serve::ListenerExt as _;
use futures::FutureExt as _;
use http::header;
use http_body_util::BodyExt as _;
use serde_json::Value;
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

/// What every request handler needs.
#[derive(Clone)]
struct App {
    store: Store,
    runtime: Arc<dyn NodeRuntime>,
    faults: Faults,
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

/// Answers one request as a server does that has no processes and no faults, without a connection: the status, and the object or the
/// Status of a refusal. `path` has the query. Nothing of it waits, so simulated clusters can ask in between.
pub fn call(store: &Store, method: &str, path: &str, media_type: &str, body: Option<&Value>) -> (u16, Value) {
    let bytes = body.map(Value::to_string).unwrap_or_default();
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media_type)
        .body(Body::from(bytes));
    let Ok(request) = request else { return (400, Value::Null) };
    let app = App { store: store.clone(), runtime: Arc::new(NoRuntime), faults: Faults::default() };
    let answered = async {
        let response = route::handle(app, request).await;
        let status = response.status().as_u16();
        let body =
            response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    };
    answered.now_or_never().unwrap_or((504, Value::Null))
}

/// Starts serving; must be called within a tokio runtime.
///
/// # Errors
/// A listener cannot be used.
pub fn start(store: Store, config: ServerConfig) -> io::Result<ServerHandle> {
    let app = App { store, runtime: config.runtime, faults: config.faults };
    let router = Router::new()
        .fallback(|State(app): State<App>, request: Request| async move { route::handle(app, request).await })
        .with_state(app);
    let mut handle = ServerHandle { addresses: Vec::new(), tasks: Vec::new() };
    for listener in config.listeners {
        listener.set_nonblocking(true)?;
        handle.addresses.push(listener.local_addr()?);
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
            // Watch events are small writes that nobody should wait for.
            drop(stream.set_nodelay(true));
        });
        let service = router.clone().into_make_service_with_connect_info::<SocketAddr>();
        handle.tasks.push(tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, service).await {
                tracing::warn!(%error, "API server listener ended");
            }
        }));
    }
    Ok(handle)
}
