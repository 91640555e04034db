//! The world outside the cluster: a machine with two addresses, each with a name and a web server on ports 80 and 443.
//!
//! The certificate is signed by itself; it is written to the lab's shared directory, so that clients can be told to trust it
//! (`curl --cacert /run/bristle-lab/outside.pem`).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::response::Json;
use axum::serve::{IncomingStream, Listener};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

use crate::fabric;
use crate::machine::Machine;
use crate::plan::Plan;

/// Name of the certificate in the lab's shared directory.
pub const CERTIFICATE: &str = "outside.pem";
/// A client that does not get through the handshake in this time is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves until the returned set is dropped; must be called within a tokio runtime. The tasks are the supervisor's, only their
/// sockets are outside.
pub fn serve(plan: &Plan, outside: &Machine, share: &Path) -> io::Result<JoinSet<()>> {
    let tls = certificate(plan, share)?;
    let mut servers = JoinSet::new();
    for (name, addresses) in plan.outside_names.iter().zip(plan.outside_servers()) {
        for address in addresses {
            let http = bind(outside, SocketAddr::new(address, 80))?;
            let https = bind(outside, SocketAddr::new(address, 443))?;
            let router = router(name.clone(), address).into_make_service_with_connect_info::<Client>();
            let for_https = router.clone();
            servers.spawn(async move {
                if let Err(e) = axum::serve(http, router).await {
                    tracing::error!(%address, error = %e, "outside web server ended");
                }
            });
            let listener = TlsListener::start(https, tls.clone())?;
            servers.spawn(async move {
                if let Err(e) = axum::serve(listener, for_https).await {
                    tracing::error!(%address, error = %e, "outside TLS server ended");
                }
            });
        }
    }
    Ok(servers)
}

fn bind(outside: &Machine, address: SocketAddr) -> io::Result<TcpListener> {
    let listener = fabric::listen(outside, address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Makes a certificate for the names and addresses outside and writes it for clients.
fn certificate(plan: &Plan, share: &Path) -> io::Result<TlsAcceptor> {
    let addresses = plan.outside_servers().concat();
    let names = plan
        .outside_names
        .iter()
        .cloned()
        .chain(addresses.iter().map(ToString::to_string))
        .collect::<Vec<_>>();
    let own = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    std::fs::write(share.join(CERTIFICATE), own.cert.pem())?;
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key))
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The client's address, with and without TLS.
#[derive(Debug, Clone, Copy)]
struct Client(SocketAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Client {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Client {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Connections that are through their handshake. Handshakes run beside each other, so that one slow client stops nobody.
struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    _accept: JoinSet<()>,
}

impl TlsListener {
    fn start(listener: TcpListener, tls: TlsAcceptor) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (done, ready) = mpsc::channel(16);
        let mut accept = JoinSet::new();
        accept.spawn(async move {
            loop {
                let Ok((stream, client)) = listener.accept().await else { continue };
                let (tls, done) = (tls.clone(), done.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                        let _ = done.send((stream, client)).await;
                    }
                });
            }
        });
        Ok(Self { address, ready, _accept: accept })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

fn router(name: String, address: IpAddr) -> Router {
    Router::new().fallback(move |ConnectInfo(Client(client)): ConnectInfo<Client>| {
        let answer = json!({"server": name, "address": address.to_string(), "client": client.ip().to_canonical().to_string()});
        async move { Json(answer) }
    })
}
