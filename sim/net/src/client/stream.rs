//! Clients over TCP: requests over HTTP, and the echo.

use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::socket::tcp::{Socket, State};

use super::{ClientReport, ClientSpec, World};
use crate::ip;
use crate::tcp::Handle;

/// The head of an answer is no longer than this.
const MOST_HEAD: usize = 1024;
/// What a client's socket holds in each direction.
const LEAST_BUFFER: usize = 4096;
const MOST_BUFFER: usize = 16_384;
/// A client without end and interval does not spin.
const LEAST_INTERVAL: Duration = Duration::from_millis(1);

/// A connection with the port that it holds.
#[derive(Clone, Copy)]
struct Line {
    handle: Handle,
    port: u16,
    /// The other end.
    peer: SocketAddr,
}

impl Line {
    /// Seeks a connection; nothing if there is no way or no port.
    fn open(world: &mut World<'_>, spec: &ClientSpec, report: &mut ClientReport) -> Option<Self> {
        let caller = world.socket(ip::TCP);
        let peer = world.calls.connect(caller, SocketAddr::new(spec.to, spec.port))?;
        let from = world.net.source(peer.ip(), None)?;
        let port = world.port()?;
        report.local_port = Some(port);
        let ends = (SocketAddr::new(from, port), peer);
        let buffer = usize::from(spec.size).clamp(LEAST_BUFFER, MOST_BUFFER);
        let handle = world.tcp().connect(ends.0, ends.1, buffer);
        if handle.is_none() {
            world.ports.give_back(port);
        }
        Some(Self { handle: handle?, port, peer })
    }

    fn socket<'w>(&self, world: &'w mut World<'_>) -> &'w mut Socket<'static> {
        world.tcp().socket(self.handle)
    }

    fn close(self, world: &mut World<'_>) {
        world.tcp().close(self.handle, self.port);
    }

    fn abort(self, world: &mut World<'_>) {
        let now = world.now;
        world.tcp().abort(now, self.handle, self.port);
    }
}

/// Requests one after the other.
pub(super) struct Http {
    due: Duration,
    request: Option<Request>,
}

struct Request {
    line: Line,
    started: Duration,
    asked: bool,
    head: Vec<u8>,
    received: usize,
}

impl Http {
    pub(super) fn new(now: Duration) -> Self {
        Self { due: now, request: None }
    }

    pub(super) fn step(&mut self, world: &mut World<'_>, spec: &ClientSpec, report: &mut ClientReport) {
        let now = world.now;
        if let Some(request) = &mut self.request {
            let state = request.act(world, spec);
            match state {
                Progress::Answered => {
                    report.answer(request.started, now);
                    report.answered_by(&request.head);
                }
                Progress::Reset => report.resets += 1,
                Progress::Cut => {}
                Progress::Waiting if now >= request.started + spec.timeout => {}
                Progress::Waiting => return,
            }
            let line = request.line;
            self.request = None;
            if matches!(state, Progress::Waiting) { line.abort(world) } else { line.close(world) }
        }
        while self.request.is_none() && self.due <= now && !all_sent(spec, report) {
            let least = if spec.count == 0 { LEAST_INTERVAL } else { Duration::ZERO };
            self.due = now + spec.interval.max(least);
            report.sent = report.sent.saturating_add(1);
            match Line::open(world, spec, report) {
                Some(line) => {
                    let head = Vec::new();
                    self.request = Some(Request { line, started: now, asked: false, head, received: 0 });
                }
                None => report.refused += 1,
            }
        }
        report.finished = self.request.is_none() && all_sent(spec, report);
    }

    /// The other end of the connection, if there is one.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.request.as_ref().map(|request| request.line.peer)
    }

    pub(super) fn next(&self, spec: &ClientSpec) -> Duration {
        self.request.as_ref().map_or(self.due, |request| request.started + spec.timeout)
    }

    /// An ICMP error: it ends a connection that is only sought.
    pub(super) fn refused(&mut self, world: &mut World<'_>) {
        if let Some(request) = &self.request
            && request.line.socket(world).state() == State::SynSent
        {
            self.end(world);
        }
    }

    pub(super) fn end(&mut self, world: &mut World<'_>) {
        if let Some(request) = self.request.take() {
            request.line.abort(world);
        }
    }
}

enum Progress {
    Waiting,
    Answered,
    Reset,
    /// Ended by the other side before all was there.
    Cut,
}

impl Request {
    fn act(&mut self, world: &mut World<'_>, spec: &ClientSpec) -> Progress {
        let socket = self.line.socket(world);
        if socket.may_send() && !self.asked {
            let target = if spec.size == 0 { String::new() } else { spec.size.to_string() };
            let host = SocketAddr::new(spec.to, spec.port);
            let text = format!("GET /{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            self.asked = socket.send_slice(text.as_bytes()) == Ok(text.len());
        }
        while socket.can_recv() {
            let (head, received) = (&mut self.head, &mut self.received);
            let taken = socket.recv(|bytes| {
                let room = MOST_HEAD.saturating_sub(head.len()).min(bytes.len());
                head.extend_from_slice(&bytes[..room]);
                *received += bytes.len();
                (bytes.len(), ())
            });
            if taken.is_err() {
                break;
            }
        }
        match socket.state() {
            State::Closed => Progress::Reset,
            State::CloseWait if self.is_whole() => Progress::Answered,
            State::CloseWait => Progress::Cut,
            _ => Progress::Waiting,
        }
    }

    /// The head says success, and as many bytes as it announces have come.
    fn is_whole(&self) -> bool {
        let Some(end) = self.head.windows(4).position(|window| window == b"\r\n\r\n") else {
            return false;
        };
        let text = String::from_utf8_lossy(&self.head[..end]);
        let length =
            text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
        text.starts_with("HTTP/1.1 200 ") && length == Some(self.received - (end + 4))
    }
}

/// Segments over one connection.
pub(super) struct Echo {
    line: Option<Line>,
    /// Bytes that are to go out, and of them those that the socket took.
    wanted: u64,
    written: u64,
    received: u64,
    /// The segment that is awaited: when it was sent, and with how many bytes back it is whole.
    awaited: Option<(Duration, u64)>,
    due: Duration,
}

impl Echo {
    pub(super) fn new(now: Duration) -> Self {
        Self { line: None, wanted: 0, written: 0, received: 0, awaited: None, due: now }
    }

    pub(super) fn step(&mut self, world: &mut World<'_>, spec: &ClientSpec, report: &mut ClientReport) {
        let now = world.now;
        if let Some(line) = self.line {
            self.read(line.socket(world));
        }
        if let Some((sent, whole)) = self.awaited {
            let back = self.received >= whole;
            if back && now < sent + spec.timeout {
                report.answer(sent, now);
            }
            if back || now >= sent + spec.timeout {
                self.awaited = None;
                let least = if spec.count == 0 { LEAST_INTERVAL } else { Duration::ZERO };
                self.due = now + spec.interval.max(least);
            }
        }
        if let Some(line) = self.line {
            match line.socket(world).state() {
                State::Closed => {
                    report.resets += 1;
                    report.finished = true;
                    return;
                }
                State::CloseWait => {
                    report.finished = true;
                    return;
                }
                _ => {}
            }
        }
        if self.awaited.is_none() && all_sent(spec, report) {
            report.finished = true;
            return;
        }
        if self.awaited.is_none() && self.due <= now {
            report.sent = report.sent.saturating_add(1);
            if self.line.is_none() {
                self.line = Line::open(world, spec, report);
            }
            if self.line.is_none() {
                report.refused += 1;
                report.finished = true;
                return;
            }
            self.wanted += u64::from(spec.size.max(1));
            self.awaited = Some((now, self.wanted));
        }
        if let Some(line) = self.line {
            self.write(line.socket(world));
        }
    }

    fn read(&mut self, socket: &mut Socket<'_>) {
        while socket.can_recv() {
            match socket.recv(|bytes| (bytes.len(), bytes.len())) {
                Ok(count) => self.received += count as u64,
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, socket: &mut Socket<'_>) {
        while self.written < self.wanted && socket.can_send() {
            let chunk = usize::try_from(self.wanted - self.written).unwrap_or(MOST_BUFFER).min(MOST_BUFFER);
            match socket.send_slice(&vec![b'e'; chunk]) {
                Ok(count) => self.written += count as u64,
                Err(_) => return,
            }
        }
    }

    /// The other end of the connection, if there is one.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.line.map(|line| line.peer)
    }

    pub(super) fn next(&self, spec: &ClientSpec) -> Duration {
        self.awaited.map_or(self.due, |(sent, _)| sent + spec.timeout)
    }

    /// An ICMP error; true if that ends it.
    pub(super) fn refused(&mut self, world: &mut World<'_>) -> bool {
        self.line.is_some_and(|line| line.socket(world).state() == State::SynSent)
    }

    pub(super) fn end(&mut self, world: &mut World<'_>) {
        if let Some(line) = self.line.take() {
            line.close(world);
        }
    }
}

fn all_sent(spec: &ClientSpec, report: &ClientReport) -> bool {
    spec.count != 0 && report.sent >= spec.count
}
