//! The way to the API server, shared by all who speak to it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agent_control::Event;
use anyhow::{Context as _, Result, bail};
use axum::http::header::USER_AGENT;
use axum::http::{HeaderValue, Uri};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::Mutex;

use super::{WatchStatus, transport};
use crate::control::Control;

/// Makes clients: one for all, and a new one when that one fails.
#[derive(Debug)]
pub(crate) struct Connector {
    kubeconfig: Option<PathBuf>,
    status: WatchStatus,
    control: Control,
    current: Mutex<Option<Numbered>>,
}

struct Numbered {
    number: u64,
    client: Client,
}

impl std::fmt::Debug for Numbered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Numbered").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Connector {
    /// By the kubeconfig at this path, else by `$KUBECONFIG`, else as the pod that the agent runs in.
    pub(crate) fn new(kubeconfig: Option<PathBuf>, status: WatchStatus, control: Control) -> Self {
        Self { kubeconfig, status, control, current: Mutex::new(None) }
    }

    /// How all is.
    pub(crate) fn status(&self) -> &WatchStatus {
        &self.status
    }

    /// A client with its number. It is another one than the client of the number `failed` (0: none has failed):
    /// the configuration is read again for it.
    ///
    /// # Errors
    /// When there is no configuration, or it is of no use.
    pub(crate) async fn client(&self, failed: u64) -> Result<(u64, Client)> {
        let mut current = self.current.lock().await;
        if let Some(Numbered { number, client }) = &*current
            && *number > failed
        {
            return Ok((*number, client.clone()));
        }
        let client = self.connect().await?;
        let number = current.as_ref().map_or(1, |last| last.number + 1).max(failed + 1);
        *current = Some(Numbered { number, client: client.clone() });
        Ok((number, client))
    }

    async fn connect(&self) -> Result<Client> {
        let mut config = configuration(self.kubeconfig.as_deref()).await?;
        config.headers.push((
            USER_AGENT,
            HeaderValue::from_static(concat!("bristle-agent/", env!("CARGO_PKG_VERSION"))),
        ));
        self.status.server(&config.cluster_url.to_string());
        let servers = addresses(&config.cluster_url).await;
        // A name that cannot be resolved now says nothing about where it was.
        if !servers.is_empty() {
            self.control.event(Event::ApiServer(servers));
        }
        transport::client(config).context("cannot make a client for the API server from the kubeconfig")
    }
}

/// The client for one watch: what is answered to it shows in the status.
///
/// A watch that is taken up again is silent until an object changes, so its success shows in the answer's head alone.
pub(super) fn observed(client: Client, status: WatchStatus, what: &'static str) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: axum::http::Request<Body>| {
        let (client, status) = (client.clone(), status.clone());
        async move {
            let response = client.send(request).await?;
            if response.status().is_success() {
                status.answered(what);
            }
            Ok::<_, kube::Error>(response)
        }
    });
    Client::new(service, namespace)
}

/// Where the server of a URL is.
async fn addresses(url: &Uri) -> BTreeSet<SocketAddr> {
    let Some(host) = url.host() else { return BTreeSet::new() };
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
    let host = host.trim_start_matches('[').trim_end_matches(']');
    tokio::net::lookup_host((host, port)).await.map(Iterator::collect).unwrap_or_default()
}

/// By flag, by `$KUBECONFIG`, or as the pod that the agent runs in.
async fn configuration(kubeconfig: Option<&Path>) -> Result<Config> {
    let path = kubeconfig
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    if let Some(path) = path {
        let describe = || format!("kubeconfig {}", path.display());
        let kubeconfig = Kubeconfig::read_from(&path).with_context(describe)?;
        return Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .with_context(describe);
    }
    match Config::incluster() {
        Ok(config) => Ok(config),
        Err(problem) => bail!(
            "no way to the API server: give --kubeconfig FILE (or BRISTLE_KUBECONFIG), or run in a pod with a service account ({problem})"
        ),
    }
}
