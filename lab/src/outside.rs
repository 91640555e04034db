//! The world outside the cluster: a machine with two addresses, each with a name and a web server.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::Json;
use serde_json::json;
use tokio::task::JoinSet;

use crate::fabric;
use crate::machine::Machine;
use crate::plan::Plan;

/// Serves HTTP on port 80 of every outside address until the returned set is dropped; must be called within a tokio runtime.
/// The tasks are the supervisor's, only their sockets are outside.
pub fn serve(plan: &Plan, outside: &Machine) -> std::io::Result<JoinSet<()>> {
    let mut servers = JoinSet::new();
    for (name, addresses) in plan.outside_names.iter().zip(plan.outside_servers()) {
        for address in addresses {
            let listener = fabric::listen(outside, SocketAddr::new(address, 80))?;
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let router = router(name.clone(), address).into_make_service_with_connect_info::<SocketAddr>();
            servers.spawn(async move {
                if let Err(e) = axum::serve(listener, router).await {
                    tracing::error!(%address, error = %e, "outside web server ended");
                }
            });
        }
    }
    Ok(servers)
}

fn router(name: String, address: IpAddr) -> Router {
    Router::new().fallback(move |ConnectInfo(client): ConnectInfo<SocketAddr>| {
        let answer = json!({"server": name, "address": address.to_string(), "client": client.ip().to_canonical().to_string()});
        async move { Json(answer) }
    })
}
