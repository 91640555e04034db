//! The few calls to a lab's Kubernetes API that benchmarks need.
//!
//! Labs serve plain HTTP on loopback, so a few lines of HTTP/1.0 do (a server answers it without chunks and closes);
//! a whole client library would be measured along with what it is there to watch.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// The API server of a lab.
#[derive(Debug, Clone, Copy)]
pub struct Api {
    address: SocketAddr,
}

impl Api {
    /// The server that a lab's kubeconfig names.
    pub fn of_kubeconfig(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let address = server(&text).with_context(|| format!("no plain HTTP server in {}", path.display()))?;
        Ok(Self { address })
    }

    /// Reads an object or a list.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call("GET", path, None)
    }

    /// Creates an object.
    pub fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        self.call("POST", path, Some(object))
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.exchange(method, path, body).with_context(|| format!("{method} {path}"))
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut stream = TcpStream::connect_timeout(&self.address, LIMIT).context("connect")?;
        stream.set_read_timeout(Some(LIMIT)).context("set a time limit")?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).context("send")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("read the answer")?;
        parse(&answer)
    }
}

fn server(kubeconfig: &str) -> Option<SocketAddr> {
    let url = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("server: http://"))?;
    url.trim().trim_end_matches('/').parse().ok()
}

fn parse(answer: &[u8]) -> anyhow::Result<Value> {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the answer has no end of head")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    let body: Value = serde_json::from_slice(&answer[end + 4..]).context("the answer is not JSON")?;
    if !status.starts_with('2') {
        bail!("status {status}: {}", body["message"].as_str().unwrap_or("no message"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_found_in_a_kubeconfig() {
        let text = "clusters:\n- name: x\n  cluster:\n    server: http://127.0.0.1:16443\n";
        assert_eq!(server(text), Some(SocketAddr::from(([127, 0, 0, 1], 16443))));
        assert_eq!(server("server: https://127.0.0.1:6443"), None);
    }

    #[test]
    fn answers_are_told_from_refusals() {
        let value = parse(b"HTTP/1.0 201 Created\r\nX: y\r\n\r\n{\"kind\":\"Pod\"}").expect("an answer");
        assert_eq!(value["kind"], "Pod");
        let refused =
            parse(b"HTTP/1.0 409 Conflict\r\n\r\n{\"message\":\"already exists\"}").expect_err("refused");
        assert_eq!(refused.to_string(), "status 409: already exists");
        assert!(parse(b"HTTP/1.0 200 OK").is_err());
    }
}
