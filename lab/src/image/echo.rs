//! `bristle/echo`: sends back what comes, over TCP and UDP, answers every HTTP request with 200 and every request for an SCTP
//! association.
//!
//! What [`crate::traffic`] speaks to. Once all ports listen, [`READY_FILE`] is there for a probe.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::response::IntoResponse;
use axum::serve::IncomingStream;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendto, socket,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use crate::sctp::{self, Message};

/// Exists once all ports listen.
pub const READY_FILE: &str = "/tmp/bristle-echo-ready";

/// Options of the server.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// TCP port that sends back what comes; may be given several times
    #[arg(long, value_name = "PORT")]
    tcp: Vec<u16>,
    /// UDP port that sends back what comes; may be given several times
    #[arg(long, value_name = "PORT")]
    udp: Vec<u16>,
    /// SCTP port at which associations may be had; may be given several times
    #[arg(long, value_name = "PORT")]
    sctp: Vec<u16>,
    /// TCP port that answers HTTP; may be given several times
    #[arg(long, value_name = "PORT")]
    http: Vec<u16>,
    /// Goes on for so long when it is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    linger: u64,
}

impl Options {
    /// For how long it goes on when it is told to end.
    pub fn linger(&self) -> Duration {
        Duration::from_secs(self.linger)
    }
}

/// The field of an answer's head that says who answers.
pub const SERVER: &str = "bristle-server";
/// The one that says whom the server sees.
pub const CALLER: &str = "bristle-caller";

/// Both ends of a connection, as the server has them.
#[derive(Debug, Clone, Copy)]
struct Ends {
    server: Option<IpAddr>,
    caller: IpAddr,
}

impl Connected<IncomingStream<'_, TcpListener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let server = stream.io().local_addr().ok().map(|address| address.ip().to_canonical());
        Self { server, caller: stream.remote_addr().ip().to_canonical() }
    }
}

/// Answers a request with who was asked by whom.
async fn answer_http(ConnectInfo(ends): ConnectInfo<Ends>, _body: Bytes) -> impl IntoResponse {
    let server = ends.server.map(|ip| ip.to_string()).unwrap_or_default();
    ([(SERVER, server), (CALLER, ends.caller.to_string())], "ok\n")
}

/// Serves all ports, on IPv4 and IPv6.
pub async fn serve(options: &Options) -> anyhow::Result<()> {
    let mut servers = JoinSet::new();
    for port in &options.tcp {
        servers.spawn(serve_tcp(super::listen_tcp(*port).await?));
    }
    for port in &options.udp {
        servers.spawn(serve_udp(listen_udp(*port).await?));
    }
    if !options.sctp.is_empty() {
        serve_sctp(&options.sctp)?;
    }
    for port in &options.http {
        let listener = super::listen_tcp(*port).await?;
        // The body is read to its end, because an unread one would be answered with a reset.
        let router = Router::new().fallback(answer_http).into_make_service_with_connect_info::<Ends>();
        servers.spawn(async move { axum::serve(listener, router).await.context("serve HTTP") });
    }
    std::fs::write(READY_FILE, "").context("say that the ports listen")?;
    println!("echo listens: {options:?}");
    match servers.join_next().await {
        Some(ended) => ended.context("server task")?,
        // A pod that serves nothing is still a pod.
        None => std::future::pending().await,
    }
}

/// Answers what comes over SCTP, from threads that end with the process.
fn serve_sctp(ports: &[u16]) -> anyhow::Result<()> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let socket = match socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp) {
            Ok(socket) => socket,
            // The node has no IPv6.
            Err(Errno::EAFNOSUPPORT) => continue,
            Err(errno) => return Err(errno).context("open a socket for SCTP"),
        };
        let ports = ports.to_vec();
        std::thread::spawn(move || answer_sctp(&socket, &ports));
    }
    Ok(())
}

fn answer_sctp(socket: &OwnedFd, ports: &[u16]) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Errors are those of clients that went away.
        let Ok((length, Some(client))) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer) else {
            continue;
        };
        let Some(from) = address(&client) else { continue };
        let message = sctp::payload(&from, &buffer[..length]).and_then(Message::read);
        if let Some(answer) = message.and_then(|message| message.answer(ports)) {
            let to = SockaddrStorage::from(SocketAddr::new(from.ip(), 0));
            let _ = sendto(socket.as_raw_fd(), &answer.bytes(), &to, MsgFlags::empty());
        }
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| SocketAddr::new(address.ip().into(), address.port()));
    v4.or_else(|| {
        storage.as_sockaddr_in6().map(|address| SocketAddr::new(address.ip().into(), address.port()))
    })
}

async fn listen_udp(port: u16) -> anyhow::Result<UdpSocket> {
    match UdpSocket::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(socket) => Ok(socket),
        Err(_) => UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("listen on UDP port {port}")),
    }
}

async fn serve_tcp(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        // Segments are answered one by one; none should wait for the next.
        drop(stream.set_nodelay(true));
        tokio::spawn(async move {
            let (mut from, mut to) = stream.split();
            // Ends with the client.
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    }
}

async fn serve_udp(socket: UdpSocket) -> anyhow::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Errors are those of clients that went away.
        if let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], client).await;
        }
    }
}
