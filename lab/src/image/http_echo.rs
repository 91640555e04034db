//! `bristle/http-echo`: answers every request with what it was asked.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Json;
use axum::routing::get;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

/// Options of the server.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// TCP port; may be given several times
    #[arg(long = "port", short = 'p', default_values_t = [8080], env = "PORT", value_delimiter = ',')]
    ports: Vec<u16>,
}

/// The routes: `/healthz`, `/hostname`, and the echo everywhere else.
pub fn router() -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/hostname", get(|| async { format!("{}\n", hostname()) }))
        .fallback(echo)
}

/// Listens on all ports, on IPv4 and IPv6.
pub async fn serve(options: &Options) -> anyhow::Result<()> {
    let mut servers = JoinSet::new();
    for port in &options.ports {
        let listener = super::listen_tcp(*port).await?;
        println!("http-echo listens on {}", listener.local_addr().context("own address")?);
        servers.spawn(async move {
            axum::serve(listener, router().into_make_service_with_connect_info::<SocketAddr>()).await
        });
    }
    match servers.join_next().await {
        Some(ended) => ended.context("server task")?.context("serve"),
        None => anyhow::bail!("no port was given"),
    }
}

fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

async fn echo(
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Json<Value> {
    let headers: Map<String, Value> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    Json(json!({
        "hostname": hostname(),
        "client": client.ip().to_canonical().to_string(),
        "clientPort": client.port(),
        "method": method.as_str(),
        "path": uri.path(),
        "query": uri.query().unwrap_or_default(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
}
