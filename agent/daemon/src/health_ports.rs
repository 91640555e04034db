//! Where load balancers outside ask a node whether it is worth their traffic: at each service's `healthCheckNodePort` whether the
//! node has endpoints of it, and at one address of the agent's own, as kube-proxy's `/healthz`, whether services are taken care of.
//!
//! Paths, codes, fields and the header are those of kube-proxy (Kubernetes, "Preserving the client source IP").

use agent_api::Timestamp;
use agent_control::ServiceHealth;
use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::control::Control;

/// What services have on this node.
pub(crate) type Healths = Vec<ServiceHealth>;

/// A port that is taken is tried again after this time.
const AGAIN: Duration = Duration::from_secs(10);

/// An agent that takes longer to say how it is, is not well.
const PATIENCE: Duration = Duration::from_secs(5);

/// By how much more of a service's traffic a node with more endpoints can be given.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";

/// Keeps the ports open that services ask for, until the process ends.
pub(crate) async fn run(mut wanted: watch::Receiver<Healths>) {
    let mut open: BTreeMap<u16, JoinHandle<()>> = BTreeMap::new();
    let mut refused: BTreeMap<u16, String> = BTreeMap::new();
    loop {
        let ports: BTreeMap<u16, String> = {
            let services = wanted.borrow_and_update();
            services
                .iter()
                .map(|health| (health.port, format!("{}/{}", health.service.namespace, health.service.name)))
                .collect()
        };
        open.retain(|port, server| {
            let stays = ports.contains_key(port) && !server.is_finished();
            if !stays {
                server.abort();
            }
            stays
        });
        refused.retain(|port, _| ports.contains_key(port));
        for (port, service) in ports {
            if open.contains_key(&port) {
                continue;
            }
            match listen(port).await {
                Ok(listener) => {
                    info!(service, port, "health port open");
                    refused.remove(&port);
                    open.insert(port, tokio::spawn(serve(listener, port, wanted.clone())));
                }
                Err(problem) => {
                    let problem = format!("{problem:#}");
                    if refused.get(&port) != Some(&problem) {
                        warn!(service, "{problem}; load balancers get no answer; it is tried again");
                    }
                    refused.insert(port, problem);
                }
            }
        }
        let again = async {
            if refused.is_empty() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(AGAIN).await;
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

/// Listens on all addresses of the node, of IPv4 alone where there is no IPv6.
async fn listen(port: u16) -> Result<TcpListener> {
    let every = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match TcpListener::bind(every).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
    .with_context(|| format!("cannot listen on health port {port}"))
}

async fn serve(listener: TcpListener, port: u16, services: watch::Receiver<Healths>) {
    let router = Router::new().fallback(get(service)).with_state((port, services));
    if let Err(problem) = axum::serve(listener, router).await {
        warn!("health port {port}: {problem}");
    }
}

#[derive(Serialize)]
struct Named<'a> {
    namespace: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfService<'a> {
    service: Named<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

/// Whether the node has endpoints of the service of a port.
async fn service(State((port, services)): State<(u16, watch::Receiver<Healths>)>) -> Response {
    let services = services.borrow();
    let Some(health) = services.iter().find(|health| health.port == port) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let code = if health.local_endpoints > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = OfService {
        service: Named { namespace: &health.service.namespace, name: &health.service.name },
        local_endpoints: health.local_endpoints,
        service_proxy_healthy: true,
    };
    (code, [(WEIGHT, health.local_endpoints.to_string())], axum::Json(body)).into_response()
}

/// Serves `/healthz` for services as a whole.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) async fn serve_proxy(addr: SocketAddr, control: Control) -> Result<()> {
    let listener = TcpListener::bind(addr).await.with_context(|| {
        format!(
            "cannot answer for services on {addr}; give another --kube-proxy-replacement-healthz-bind-address"
        )
    })?;
    let router = Router::new().route("/healthz", get(proxy)).with_state(control);
    tokio::spawn(async move {
        if let Err(problem) = axum::serve(listener, router).await {
            warn!("{addr}: {problem}");
        }
    });
    Ok(())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfProxy {
    /// When services were last known to be as they shall be.
    last_updated: Option<Timestamp>,
    current_time: Timestamp,
}

/// Whether services are taken care of: all are known, and the tables are written.
async fn proxy(State(control): State<Control>) -> Response {
    let asked = control.query(|view| view.agent.has_written_services());
    let is_well = matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(true)));
    let now = Timestamp::now();
    let code = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = OfProxy { last_updated: is_well.then_some(now), current_time: now };
    (code, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_control::ObjectName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    /// A port that nobody has now.
    async fn free_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    }

    async fn get(port: u16) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn until(port: u16, check: impl Fn(&std::io::Result<String>) -> bool) {
        let waits = async {
            while !check(&get(port).await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waits).await.expect("the answer comes");
    }

    #[tokio::test]
    async fn ports_open_answer_and_close_as_services_ask() {
        let port = free_port().await;
        let health = |local_endpoints| {
            let service = ObjectName::new("shop", "web");
            vec![ServiceHealth { service, port, local_endpoints }]
        };
        let (sender, receiver) = watch::channel(Vec::new());
        let server = tokio::spawn(run(receiver));
        sender.send_replace(health(2));
        let has = |text: &'static str| {
            move |answer: &std::io::Result<String>| answer.as_ref().is_ok_and(|answer| answer.contains(text))
        };
        until(port, has("200 OK")).await;
        let answer = get(port).await.unwrap();
        let body =
            r#"{"service":{"namespace":"shop","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}"#;
        assert!(answer.ends_with(body) && answer.contains("x-load-balancing-endpoint-weight: 2"), "{answer}");
        sender.send_replace(health(0));
        until(port, has("503 Service Unavailable")).await;
        sender.send_replace(Vec::new());
        until(port, Result::is_err).await;
        drop(sender);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_opened_when_it_is_free() {
        let taken = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let service = ObjectName::new("shop", "web");
        let (sender, receiver) = watch::channel(vec![ServiceHealth { service, port, local_endpoints: 1 }]);
        let server = tokio::spawn(run(receiver));
        tokio::task::yield_now().await;
        drop(taken);
        // Any news is a reason to try again, as is time.
        let again = async {
            while get(port).await.is_err() {
                sender.send_modify(|_| {});
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), again).await.expect("the port opens");
        drop(sender);
        server.await.unwrap();
    }
}
