//! `bristle/dns`: answers the names of the cluster and of the lab's outside world.
//!
//! A real cluster DNS watches Services and EndpointSlices through the API. This one reads the [`Zone`] that the lab's supervisor
//! writes whenever these change, because pods reach the API server only once the dataplane translates services and masquerades.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;

use message::{Answer, Question, Rcode};

pub mod message;

/// Name of the zone file in the lab's shared directory.
pub const ZONE_FILE: &str = "dns.json";
/// The cluster's domain.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// Seconds that clients may keep an answer; CoreDNS's default for the cluster's own names.
const TTL_S: u32 = 5;

/// All names with addresses, lower case, without the final dot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Name → addresses of either family.
    pub names: BTreeMap<String, Vec<IpAddr>>,
}

/// Options of the server.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// File with the names
    #[arg(long, default_value = concat!("/run/bristle-lab/", "dns.json"))]
    zone: PathBuf,
    /// UDP and TCP port
    #[arg(long, default_value_t = 53)]
    port: u16,
}

/// Answers queries over UDP and TCP.
pub async fn serve(options: &Options) -> anyhow::Result<()> {
    let tcp = super::listen_tcp(options.port).await?;
    let udp = UdpSocket::bind(tcp.local_addr().context("own address")?)
        .await
        .with_context(|| format!("listen on UDP port {}", options.port))?;
    println!("dns listens on {}", udp.local_addr().context("own address")?);
    let zone = Arc::new(ZoneFile::new(options.zone.clone()));
    tokio::select! {
        result = serve_udp(&udp, &zone) => result,
        result = serve_tcp(&tcp, &zone) => result,
    }
}

async fn serve_udp(socket: &UdpSocket, zone: &ZoneFile) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        // An ICMP error for an earlier answer shows up as an error of receive; it is no reason to end.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(answer) = answer(&buffer[..length], &zone.current(), message::MAX_UDP) {
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

async fn serve_tcp(listener: &tokio::net::TcpListener, zone: &Arc<ZoneFile>) -> anyhow::Result<()> {
    loop {
        let (mut stream, _): (_, SocketAddr) = listener.accept().await.context("accept")?;
        let zone = Arc::clone(zone);
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut query = vec![0; usize::from(length)];
                if stream.read_exact(&mut query).await.is_err() {
                    return;
                }
                let Some(answer) = answer(&query, &zone.current(), message::MAX_TCP) else { return };
                let Ok(length) = u16::try_from(answer.len()) else { return };
                if stream.write_u16(length).await.is_err() || stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The zone as the file has it now; read again only when the file is another.
#[derive(Debug)]
struct ZoneFile {
    path: PathBuf,
    cache: Mutex<(Option<SystemTime>, Arc<Zone>)>,
}

impl ZoneFile {
    fn new(path: PathBuf) -> Self {
        Self { path, cache: Mutex::default() }
    }

    fn current(&self) -> Arc<Zone> {
        let modified = std::fs::metadata(&self.path).and_then(|m| m.modified()).ok();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.0 != modified
            && let Some(zone) =
                std::fs::read(&self.path).ok().and_then(|text| serde_json::from_slice(&text).ok())
        {
            *cache = (modified, Arc::new(zone));
        }
        Arc::clone(&cache.1)
    }
}

/// The answer to a query; `None` when it is no query at all.
fn answer(query: &[u8], zone: &Zone, max_len: usize) -> Option<Vec<u8>> {
    let query = message::parse(query)?;
    let Some(question) = &query.question else {
        return Some(message::encode(&query, Rcode::FormErr, &[], max_len));
    };
    let (rcode, answers) = look_up(question, zone);
    Some(message::encode(&query, rcode, &answers, max_len))
}

fn look_up(question: &Question, zone: &Zone) -> (Rcode, Vec<Answer>) {
    let name = question.name.as_str();
    let Some(addresses) = zone.names.get(name) else {
        // A name above known ones exists, without addresses of its own (RFC 8020).
        let suffix = format!(".{name}");
        let exists = zone.names.keys().any(|known| known.ends_with(&suffix));
        return (if exists { Rcode::NoError } else { Rcode::NxDomain }, Vec::new());
    };
    let wanted = |ip: &&IpAddr| match question.kind {
        message::TYPE_A => ip.is_ipv4(),
        message::TYPE_AAAA => ip.is_ipv6(),
        message::TYPE_ANY => true,
        _ => false,
    };
    (
        Rcode::NoError,
        addresses.iter().filter(wanted).map(|ip| Answer { address: *ip, ttl_s: TTL_S }).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let names = [
            ("web.default.svc.cluster.local", vec!["10.0.0.1", "fd00::1"]),
            ("one.outside.test", vec!["198.51.100.10"]),
        ];
        Zone {
            names: names
                .into_iter()
                .map(|(n, a)| (n.to_owned(), a.iter().map(|a| a.parse().expect("an address")).collect()))
                .collect(),
        }
    }

    fn ask(name: &str, kind: u16) -> (Rcode, Vec<String>) {
        let (rcode, answers) = look_up(&Question { name: name.into(), kind }, &zone());
        (rcode, answers.iter().map(|a| a.address.to_string()).collect())
    }

    #[test]
    fn answers_by_family() {
        assert_eq!(
            ask("web.default.svc.cluster.local", message::TYPE_A),
            (Rcode::NoError, vec!["10.0.0.1".into()])
        );
        assert_eq!(
            ask("web.default.svc.cluster.local", message::TYPE_AAAA),
            (Rcode::NoError, vec!["fd00::1".into()])
        );
        assert_eq!(ask("one.outside.test", message::TYPE_AAAA), (Rcode::NoError, vec![]));
    }

    #[test]
    fn unknown_names_do_not_exist_but_names_above_known_ones_do() {
        assert_eq!(ask("nothing.default.svc.cluster.local", message::TYPE_A).0, Rcode::NxDomain);
        assert_eq!(ask("default.svc.cluster.local", message::TYPE_A), (Rcode::NoError, vec![]));
    }
}
