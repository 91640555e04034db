//! Probes of containers, executed from the node as a kubelet does it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::context::NodeContext;
use super::exec::run_in_container;
use super::spec::{Container, HttpGet, Probe};
use crate::state::ProcessId;

/// Until a container is ready for the first time it is probed at least this often, also when its period is longer, so that a
/// server that needs some milliseconds to listen does not wait a whole period.
const FIRST_PERIOD: Duration = Duration::from_millis(500);

/// Result of a probe, told whenever it changes by the thresholds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Enough successes in a row.
    Success,
    /// Enough failures in a row; the last one's reason.
    Failure(String),
}

/// Who is probed.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The node that probes.
    pub node: Arc<NodeContext>,
    /// The container.
    pub container: Container,
    /// Its shim.
    pub shim: ProcessId,
    /// Address of the pod.
    pub ip: Option<IpAddr>,
}

/// Probes for ever; `report` is told each change and, for failures, each repetition.
pub(crate) async fn watch(target: Target, probe: Probe, mut report: impl FnMut(Outcome)) {
    let period = Duration::from_secs(probe.period_seconds.max(1));
    sleep(Duration::from_secs(probe.initial_delay_seconds)).await;
    let (mut successes, mut failures) = (0, 0);
    let mut has_succeeded = false;
    loop {
        let next = Instant::now() + if has_succeeded { period } else { period.min(FIRST_PERIOD) };
        match once(&target, &probe).await {
            Ok(()) => {
                (successes, failures) = (successes + 1, 0);
                if successes == probe.success_threshold.max(1) {
                    has_succeeded = true;
                    report(Outcome::Success);
                }
            }
            Err(why) => {
                (successes, failures) = (0, failures + 1);
                // Before the first success the quicker beat must not use up the failures that the spec allows.
                let allowed = if has_succeeded {
                    probe.failure_threshold.max(1)
                } else {
                    slow_threshold(&probe, period)
                };
                if failures >= allowed {
                    report(Outcome::Failure(why));
                    failures = 0;
                }
            }
        }
        sleep_until(next).await;
    }
}

/// As many quick failures as fit into the time that `failureThreshold` periods take.
fn slow_threshold(probe: &Probe, period: Duration) -> u32 {
    let per_period = period.as_millis().div_ceil(period.min(FIRST_PERIOD).as_millis().max(1));
    probe.failure_threshold.max(1).saturating_mul(u32::try_from(per_period).unwrap_or(u32::MAX))
}

async fn once(target: &Target, probe: &Probe) -> Result<(), String> {
    let limit = Duration::from_secs(probe.timeout_seconds.max(1));
    let attempt = async {
        if let Some(http) = &probe.http_get {
            http_get(target, http, limit).await
        } else if let Some(tcp) = probe.tcp_socket.as_ref().or(probe.grpc.as_ref()) {
            connect(target, &tcp.port, tcp.host.as_deref(), limit).await.map(drop)
        } else if let Some(exec) = &probe.exec {
            run_in_container(&target.node, target.shim, &target.container, &exec.command).await
        } else {
            Ok(())
        }
    };
    timeout(limit, attempt).await.unwrap_or_else(|_| Err(format!("timeout after {limit:?}")))
}

async fn connect(
    target: &Target,
    port: &Value,
    host: Option<&str>,
    limit: Duration,
) -> Result<(tokio::net::TcpStream, SocketAddr), String> {
    let port = target.container.port(port).ok_or_else(|| format!("the container has no port {port}"))?;
    let ip = match host {
        Some(host) => host.parse().map_err(|_| format!("\"{host}\" is no IP address"))?,
        None => target.ip.ok_or("the pod has no address")?,
    };
    let address = SocketAddr::new(ip, port);
    let dialed = target
        .node
        .ns
        .run(move || TcpStream::connect_timeout(&address, limit))
        .await
        .map_err(|e| e.to_string())?;
    let stream = dialed.map_err(|e| format!("dial tcp {address}: {e}"))?;
    let stream = stream
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpStream::from_std(stream))
        .map_err(|e| e.to_string())?;
    Ok((stream, address))
}

async fn http_get(target: &Target, probe: &HttpGet, limit: Duration) -> Result<(), String> {
    let (mut stream, address) = connect(target, &probe.port, probe.host.as_deref(), limit).await?;
    if probe.scheme.as_deref() == Some("HTTPS") {
        // The certificate would not be verified anyway; that somebody listens is what can be told without a TLS library.
        return Ok(());
    }
    let path = probe.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe/1.33\r\nAccept: */*\r\nConnection: close\r\n"
    );
    for header in &probe.http_headers {
        // Writing to a String cannot fail.
        let _ = write!(request, "{}: {}\r\n", header.name, header.value.as_deref().unwrap_or_default());
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 512];
    while answer.len() < 64 && !answer.contains(&b'\n') {
        match stream.read(&mut chunk).await.map_err(|e| e.to_string())? {
            0 => break,
            n => answer.extend_from_slice(&chunk[..n]),
        }
    }
    match status_code(&answer) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err("the answer is not HTTP".to_owned()),
    }
}

fn status_code(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.split(|b| *b == b'\r').next()?).ok()?;
    line.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_lines() {
        assert_eq!(status_code(b"HTTP/1.1 204 No Content\r\nX: y"), Some(204));
        assert_eq!(status_code(b"SSH-2.0-x\r\n"), None);
        assert_eq!(status_code(b""), None);
    }

    #[test]
    fn quick_probes_at_the_start_allow_as_much_time() {
        assert_eq!(slow_threshold(&Probe::default(), Duration::from_secs(10)), 60);
        let probe = Probe { failure_threshold: 1, ..Probe::default() };
        assert_eq!(slow_threshold(&probe, Duration::from_secs(1)), 2);
    }
}
