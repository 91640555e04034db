//! Just enough HTTP/1.1 over a unix socket: one request per connection, read to the end.
//!
//! The peer is always our own agent, so a client library with pools, TLS and a runtime would only make a start slower.

use agent_api::status::AgentState;
use agent_api::{ApiError, Status, paths};
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An agent that is busy answers within seconds; one that does not is stuck.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The agent at the other end of a socket.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

/// An answer whose body has not been read yet.
struct Response {
    code: u16,
    body: Body,
}

/// The body, by the two ways in which a server tells its end, or until the connection ends.
enum Body {
    Sized(std::io::Take<BufReader<UnixStream>>),
    Chunked(Chunks),
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Sized(body) => body.read(buffer),
            Self::Chunked(body) => body.read(buffer),
        }
    }
}

/// Chunked transfer coding (RFC 9112, section 7.1).
struct Chunks {
    stream: BufReader<UnixStream>,
    left: usize,
    ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            if line.is_empty() {
                // The agent went away in the middle of a stream.
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let digits = line.trim().split(';').next().unwrap_or_default();
            self.left = usize::from_str_radix(digits, 16)
                .map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "a chunk without a size"))?;
            if self.left == 0 {
                self.ended = true;
                return Ok(0);
            }
        }
        let room = buffer.len().min(self.left);
        let got = self.stream.read(&mut buffer[..room])?;
        if got == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= got;
        if self.left == 0 {
            self.stream.read_exact(&mut [0; 2])?;
        }
        Ok(got)
    }
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// One object.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask("GET", path, &[])
    }

    /// The answer to what is sent.
    pub(crate) fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        what: &impl Serialize,
    ) -> Result<T> {
        self.ask(method, path, &serde_json::to_vec(what)?)
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: &[u8]) -> Result<T> {
        let response = self.request(method, path, body, Some(TIMEOUT))?;
        let mut text = Vec::new();
        let Response { code, mut body } = response;
        body.read_to_end(&mut text).with_context(|| {
            format!("the agent at {} stopped in the middle of its answer", self.socket.display())
        })?;
        if code >= 400 {
            bail!("{}", refusal(code, &text));
        }
        serde_json::from_slice(&text).with_context(|| {
            format!("the answer to {path} is not what this version of bristle ({}) expects; use the one of the agent's version", env!("CARGO_PKG_VERSION"))
        })
    }

    /// Lines as they come.
    pub(crate) fn lines(&self, path: &str) -> Result<impl Iterator<Item = std::io::Result<String>> + use<>> {
        let Response { code, mut body } = self.request("GET", path, &[], None)?;
        if code >= 400 {
            let mut text = Vec::new();
            body.read_to_end(&mut text)?;
            bail!("{}", refusal(code, &text));
        }
        Ok(BufReader::new(body).lines())
    }

    /// The status; with `wait` when the agent serves, or as it is when the time is over.
    pub(crate) fn status(&self, wait: Option<Duration>) -> Result<Status> {
        let until = Instant::now() + wait.unwrap_or_default();
        loop {
            let status = self.get::<Status>(paths::STATUS);
            if status.as_ref().is_ok_and(is_serving) || Instant::now() >= until {
                return status;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn request(&self, method: &str, path: &str, body: &[u8], timeout: Option<Duration>) -> Result<Response> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|problem| self.unreachable(&problem))?;
        stream.set_read_timeout(timeout)?;
        let about = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: bristle\r\nAccept: application/json\r\n{about}Connection: close\r\n\r\n"
        );
        stream.write_all(&[request.as_bytes(), body].concat())?;
        let mut reader = BufReader::new(stream);
        head(&mut reader)
            .with_context(|| format!("no answer from {}; is it the agent's socket?", self.socket.display()))
            .map(|(code, chunked, length)| {
                let body = if chunked {
                    Body::Chunked(Chunks { stream: reader, left: 0, ended: false })
                } else {
                    Body::Sized(reader.take(length.unwrap_or(u64::MAX)))
                };
                Response { code, body }
            })
    }

    /// Why the socket cannot be used and what to do.
    fn unreachable(&self, problem: &std::io::Error) -> anyhow::Error {
        let socket = self.socket.display();
        match problem.kind() {
            ErrorKind::NotFound => anyhow::anyhow!(
                "there is no agent socket at {socket}; start bristle-agent on this node, or give its socket with --socket"
            ),
            ErrorKind::ConnectionRefused => anyhow::anyhow!(
                "nobody listens on {socket}: the agent has stopped; see its log and start it again (pods keep their network meanwhile)"
            ),
            ErrorKind::PermissionDenied => anyhow::anyhow!("no permission for {socket}; run bristle as root"),
            _ => anyhow::anyhow!("cannot connect to {socket}: {problem}"),
        }
    }
}

/// Pods can be added, if not everything is well.
pub(crate) fn is_serving(status: &Status) -> bool {
    matches!(status.state, AgentState::Ready | AgentState::Degraded)
}

/// The agent's own sentence, or the bare code.
fn refusal(code: u16, body: &[u8]) -> String {
    serde_json::from_slice::<ApiError>(body)
        .map_or_else(|_| format!("the agent answered with HTTP status {code}"), |error| error.error)
}

/// Status code, whether the body is chunked, and its length if it says.
fn head(reader: &mut impl BufRead) -> Result<(u16, bool, Option<u64>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let code =
        line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let code = code.context("the answer is not HTTP")?;
    let (mut chunked, mut length) = (false, None);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok((code, chunked, length));
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Client;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    /// An agent that answers one request with these bytes.
    fn agent(dir: &tempfile::TempDir, answer: &'static str) -> PathBuf {
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            drop(stream.read(&mut [0; 1024]));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        path
    }

    #[test]
    fn reads_sized_and_chunked_answers() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n[1,22]",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[1,\r\n3\r\n22]\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n[1,22]",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let numbers: Vec<u32> = Client::new(&agent(&dir, answer)).get("/v1/x").unwrap();
            assert_eq!(numbers, [1, 22]);
        }
    }

    #[test]
    fn an_error_is_the_agents_own_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let answer =
            "HTTP/1.1 404 Not Found\r\nContent-Length: 34\r\n\r\n{\"error\":\"there is no endpoint 7\"}";
        let error = Client::new(&agent(&dir, answer)).get::<u32>("/v1/endpoints/7").unwrap_err();
        assert!(error.to_string().starts_with("there is no endpoint 7"), "{error}");
    }

    #[test]
    fn a_stream_that_breaks_off_is_an_error_not_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\na\n\r\n";
        let lines: Vec<_> = Client::new(&agent(&dir, answer)).lines("/v1/monitor").unwrap().take(2).collect();
        assert_eq!(lines[0].as_ref().unwrap(), "a");
        assert!(lines[1].is_err());
    }

    #[test]
    fn a_missing_or_dead_socket_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let error = Client::new(&path).get::<u32>("/").unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("start bristle-agent"), "{error}");
        drop(UnixListener::bind(&path).unwrap());
        let error = Client::new(&path).get::<u32>("/").unwrap_err().to_string();
        assert!(error.contains("has stopped"), "{error}");
    }
}
