//! `pods/portforward`: ports of a pod over `WebSocket`.
//!
//! Two forms: `v4.channel.k8s.io` (kube-rs) has two channels per port of the query, data and errors, each opened by
//! the port number. `SPDY/3.1+portforward.k8s.io` (kubectl) carries a SPDY session in which the client opens a pair
//! of streams for every connection.

use std::collections::BTreeMap;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::App;
use super::route::ResourceCall;
use super::spdy::{Decoder, Encoder, Frame};
use super::streams::{describe, frame, goodbye};
use crate::error::ApiError;
use crate::runtime::PodRef;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";
const QUEUE: usize = 32;
const CHUNK_BYTES: usize = 32 * 1024;

pub(super) fn answer(
    call: &ResourceCall,
    pod: PodRef,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let app = call.app.clone();
    let wanted = call.headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|v| v.to_str().ok()).unwrap_or("");
    if wanted.split(',').any(|p| p.trim() == TUNNEL) {
        return Ok(upgrade.protocols([TUNNEL]).on_upgrade(move |socket| tunnel(socket, app, pod)));
    }
    let ports: Option<Vec<u16>> =
        call.query.all("ports").iter().flat_map(|p| p.split(',')).map(|p| p.parse().ok()).collect();
    let ports = ports
        .filter(|p| !p.is_empty() && p.len() < 128)
        .ok_or_else(|| ApiError::bad_request("query parameter \"ports\" must list ports"))?;
    Ok(upgrade.protocols([CHANNELS]).on_upgrade(move |socket| channels(socket, app, pod, ports)))
}

/// One connection into the pod: bytes from `input` go there, `send` is called with what comes back. The error is what
/// the client is told.
async fn forward<F: Future<Output = bool>>(
    app: &App,
    pod: PodRef,
    port: u16,
    mut input: mpsc::Receiver<Bytes>,
    send: impl Fn(Bytes) -> F,
) -> Result<(), String> {
    let uid = pod.uid.clone();
    let connected = app.runtime.port_forward(pod, port).await;
    let stream =
        connected.map_err(|e| format!("error forwarding port {port} to pod {uid}: {}", describe(&e)))?;
    let (mut from_pod, mut to_pod) = tokio::io::split(stream);
    let up = async {
        while let Some(data) = input.recv().await {
            if to_pod.write_all(&data).await.is_err() {
                return;
            }
        }
        drop(to_pod.shutdown().await);
    };
    let down = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(n) = from_pod.read(&mut buffer).await {
            if n == 0 || !send(Bytes::copy_from_slice(&buffer[..n])).await {
                return;
            }
        }
    };
    // The connection lives until the pod closes it; the client may close its side before.
    tokio::pin!(up);
    tokio::select! {
        () = down => {}
        () = async { up.as_mut().await; std::future::pending::<()>().await } => {}
    }
    Ok(())
}

async fn channels(socket: WebSocket, app: App, pod: PodRef, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let (out, mut queue) = mpsc::channel::<Message>(QUEUE);
    let mut inputs: BTreeMap<u8, mpsc::Sender<Bytes>> = BTreeMap::new();
    let mut tasks = Vec::new();
    for (i, port) in ports.into_iter().enumerate() {
        let data = u8::try_from(2 * i).unwrap_or(0);
        let (input, received) = mpsc::channel(QUEUE);
        inputs.insert(data, input);
        let (app, pod, out) = (app.clone(), pod.clone(), out.clone());
        tasks.push(tokio::spawn(async move {
            for channel in [data, data + 1] {
                if out.send(frame(channel, &port.to_le_bytes())).await.is_err() {
                    return;
                }
            }
            let send = |bytes: Bytes| {
                let out = out.clone();
                async move { out.send(frame(data, &bytes)).await.is_ok() }
            };
            if let Err(message) = forward(&app, pod, port, received, send).await {
                drop(out.send(frame(data + 1, message.as_bytes())).await);
            }
        }));
    }
    drop(out);
    let reading = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => {
                    let Some((channel, payload)) = bytes.split_first() else { continue };
                    if let Some(input) = inputs.get(channel) {
                        // Closed inputs belong to connections that are over.
                        drop(input.send(Bytes::copy_from_slice(payload)).await);
                    }
                }
                Message::Close(_) => return,
                _ => {}
            }
        }
    };
    let writing = async {
        while let Some(message) = queue.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        drop(sink.send(goodbye()).await);
    };
    tokio::select! { () = reading => {} () = writing => {} }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Streams of a session that belong to one connection.
struct Pair {
    error: Option<u32>,
    port: u16,
}

async fn tunnel(socket: WebSocket, app: App, pod: PodRef) {
    let (mut sink, mut source) = socket.split();
    let (out, mut queue) = mpsc::channel::<Frame>(QUEUE);
    let writer = tokio::spawn(async move {
        let mut encoder = Encoder::new();
        while let Some(frame) = queue.recv().await {
            if sink.send(Message::Binary(encoder.encode(&frame))).await.is_err() {
                return;
            }
        }
        drop(sink.close().await);
    });
    let mut session =
        Session { app, pod, out, pairs: BTreeMap::new(), inputs: BTreeMap::new(), tasks: Vec::new() };
    let mut decoder = Decoder::new();
    'session: while let Some(Ok(message)) = source.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Close(_) => break,
            _ => continue,
        };
        decoder.push(&data);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => {
                    if !session.handle(frame).await {
                        break 'session;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "port-forward session broken");
                    break 'session;
                }
            }
        }
    }
    session.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    drop(session);
    writer.abort();
}

struct Session {
    app: App,
    pod: PodRef,
    out: mpsc::Sender<Frame>,
    pairs: BTreeMap<String, Pair>,
    inputs: BTreeMap<u32, mpsc::Sender<Bytes>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Session {
    /// False ends the session.
    async fn handle(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::SynStream { stream, headers, .. } => self.open(stream, &headers).await,
            Frame::Data { stream, data, fin } => {
                if !data.is_empty()
                    && let Some(input) = self.inputs.get(&stream)
                    && input.send(data).await.is_err()
                {
                    self.inputs.remove(&stream);
                }
                if fin {
                    self.inputs.remove(&stream);
                }
                true
            }
            Frame::Reset { stream, .. } => {
                self.inputs.remove(&stream);
                true
            }
            Frame::Ping { id } => self.out.send(Frame::Ping { id }).await.is_ok(),
            Frame::GoAway { .. } => false,
            Frame::SynReply { .. } | Frame::Other => true,
        }
    }

    async fn open(&mut self, stream: u32, headers: &[(String, String)]) -> bool {
        let header = |key: &str| {
            headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map_or("", |(_, v)| v.as_str())
        };
        let port = header("port").parse::<u16>().ok().filter(|p| *p > 0);
        let kind = header("streamtype");
        let (Some(port), "error" | "data") = (port, kind) else {
            // Protocol error, SPDY/3.1 section 2.4.2.
            return self.out.send(Frame::Reset { stream, status: 1 }).await.is_ok();
        };
        let request = header("requestid").to_owned();
        if self.out.send(Frame::SynReply { stream }).await.is_err() {
            return false;
        }
        if kind == "error" {
            self.pairs.insert(request, Pair { error: Some(stream), port });
            return true;
        }
        let pair = self.pairs.remove(&request).unwrap_or(Pair { error: None, port });
        let (input, received) = mpsc::channel(QUEUE);
        self.inputs.insert(stream, input);
        let (app, pod, out) = (self.app.clone(), self.pod.clone(), self.out.clone());
        self.tasks.retain(|t| !t.is_finished());
        self.tasks.push(tokio::spawn(async move {
            let send = |data: Bytes| {
                let out = out.clone();
                async move { out.send(Frame::Data { stream, data, fin: false }).await.is_ok() }
            };
            let failed = forward(&app, pod, pair.port, received, send).await.err();
            let end = |stream, data| Frame::Data { stream, data, fin: true };
            drop(out.send(end(stream, Bytes::new())).await);
            if let Some(error) = pair.error {
                drop(out.send(end(error, Bytes::from(failed.unwrap_or_default()))).await);
            }
        }));
        true
    }
}
