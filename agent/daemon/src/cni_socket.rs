//! The CNI socket: one connection, one request with the pod's network namespace, one answer (see [`agent_api::cni`]).

use crate::control::{self, Control, Numbers};
use agent_api::cni::delete_queue::{self, DeleteQueue};
use agent_api::cni::{CniError, ErrorCode, MAX_MESSAGE_BYTES, PROTOCOL_VERSION, Reply, Request};
use anyhow::{Context as _, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tracing::{debug, info, warn};

/// A plugin that connected has this long to send its request; it does so at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a DEL that could not be replayed waits before it is tried again.
const REPLAY_PAUSE: Duration = Duration::from_secs(5);

/// The listening socket and the delete queue beside it.
#[derive(Debug)]
pub(crate) struct CniSocket {
    listener: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl CniSocket {
    /// Listens at `path`, in the place of a socket that an earlier agent left. From now on plugins wait instead of failing.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn listen(path: &Path) -> Result<Self> {
        let make = || -> io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            drop(std::fs::remove_file(path));
            rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            // 250 pods may start at once; beyond the backlog connect() of the plugin waits, it does not fail.
            rustix::net::listen(&socket, 1024)?;
            Ok(socket)
        };
        let socket = make().with_context(|| format!("cannot listen on {}", path.display()))?;
        let listener = watched(socket).context("cannot watch the CNI socket")?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Replays the DELs that came while no agent listened, then serves until the process ends.
    pub(crate) async fn serve(self, control: Control) {
        let numbers = Arc::new(Numbers::default());
        if !replayed(&self.path, &control, &numbers).await {
            // Nobody asks again for what a plugin was told would be done.
            let (path, control, numbers) = (self.path.clone(), control.clone(), Arc::clone(&numbers));
            tokio::spawn(async move { replay_the_rest(&path, &control, &numbers, REPLAY_PAUSE).await });
        }
        loop {
            match self.accept().await {
                Ok(connection) => {
                    let (control, numbers) = (control.clone(), Arc::clone(&numbers));
                    tokio::spawn(async move {
                        if let Err(problem) = exchange(connection, &control, &numbers).await {
                            debug!("CNI connection: {problem:#}");
                        }
                    });
                }
                Err(problem) => {
                    // Out of descriptors, as a rule: wait for some to come back instead of spinning.
                    warn!("CNI socket: accept: {problem}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<OwnedFd> {
        loop {
            let mut guard = self.listener.readable().await?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match guard.try_io(|listener| Ok(rustix::net::accept_with(listener.get_ref(), flags)?)) {
                Ok(Err(problem)) if problem.kind() == io::ErrorKind::ConnectionAborted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

/// Replays the queue after each pause until nothing is left in it.
async fn replay_the_rest(socket: &Path, control: &Control, numbers: &Numbers, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        if replayed(socket, control, numbers).await {
            return;
        }
    }
}

/// Replays the queue; false if something stays in it.
async fn replayed(socket: &Path, control: &Control, numbers: &Numbers) -> bool {
    replay(socket, control, numbers).await.unwrap_or_else(|problem| {
        warn!("delete queue: {problem:#}; it is tried again");
        false
    })
}

async fn replay(socket: &Path, control: &Control, numbers: &Numbers) -> Result<bool> {
    let dir = delete_queue::dir_for_socket(socket);
    // The lock is held by a plugin only while it writes one file, so waiting for it on a worker is short.
    let queue = tokio::task::spawn_blocking(move || DeleteQueue::lock(&dir)).await??;
    let mut empty = true;
    for entry in queue.entries()? {
        let deleted = match &entry.content {
            Ok(queued) if queued.attachment().is_some() => {
                let request = control::request(numbers, queued.request.clone(), false);
                match control.cni(request, None).await? {
                    Reply::Error { error } => {
                        warn!(file = %entry.path.display(), "queued DEL failed and stays in the queue: {error}");
                        empty = false;
                        continue;
                    }
                    Reply::Added { .. } | Reply::Done => {
                        queued.attachment().map(|it| it.container_id.clone())
                    }
                }
            }
            Ok(_) => None,
            Err(problem) => {
                warn!(file = %entry.path.display(), "unreadable file in the delete queue removed: {problem}");
                None
            }
        };
        if let Some(container) = deleted {
            info!(container, "DEL replayed that came while no agent ran");
        }
        queue.remove(&entry)?;
    }
    Ok(empty)
}

/// Registers a socket with the runtime.
#[expect(
    deprecated,
    reason = "the successor is unsafe for types whose number may change; an OwnedFd keeps its number until it is dropped, with the AsyncFd"
)]
fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(socket)
}

/// One request, one answer.
async fn exchange(connection: OwnedFd, control: &Control, numbers: &Numbers) -> Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(&connection).context("peer credentials")?;
    let connection = watched(connection)?;
    let reply = if peer.uid.is_root() {
        let (message, netns) = tokio::time::timeout(REQUEST_TIMEOUT, receive(&connection))
            .await
            .context("no request came")??;
        answer(&message, netns, control, numbers).await?
    } else {
        warn!(uid = peer.uid.as_raw(), "CNI request refused: only root may send one");
        CniError::new(
            ErrorCode::INVALID_ENVIRONMENT,
            "only root may use the agent's CNI socket; run the runtime and bristle-cni as root",
        )
        .into()
    };
    send(&connection, &serde_json::to_vec(&reply)?).await
}

async fn answer(
    message: &[u8],
    netns: Option<OwnedFd>,
    control: &Control,
    numbers: &Numbers,
) -> Result<Reply> {
    /// Enough to tell a plugin of another version from garbage.
    #[derive(serde::Deserialize)]
    struct Envelope {
        protocol: u32,
    }
    match serde_json::from_slice::<Envelope>(message) {
        Ok(Envelope { protocol: PROTOCOL_VERSION }) => {}
        Ok(Envelope { protocol }) => {
            let text = format!(
                "bristle-cni speaks protocol {protocol}, this agent {PROTOCOL_VERSION}; install bristle-cni of the agent's version"
            );
            return Ok(CniError::new(ErrorCode::TRY_AGAIN, text).into());
        }
        Err(problem) => return Ok(undecodable(&problem)),
    }
    let request = match serde_json::from_slice::<Request>(message) {
        Ok(request) => request,
        Err(problem) => return Ok(undecodable(&problem)),
    };
    debug!(command = request.operation.command(), netns = netns.is_some(), "CNI request");
    let request = control::request(numbers, request, netns.is_some());
    Ok(control.cni(request, netns).await?)
}

fn undecodable(problem: &serde_json::Error) -> Reply {
    CniError::new(
        ErrorCode::DECODING_FAILURE,
        "the agent cannot read the plugin's request; install bristle-cni of the agent's version",
    )
    .with_details(problem.to_string())
    .into()
}

/// One message and the first descriptor that came with it; further ones are closed.
async fn receive(connection: &AsyncFd<OwnedFd>) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    loop {
        let mut guard = connection.readable().await?;
        match guard.try_io(|connection| receive_now(connection.get_ref())) {
            Ok(result) => return result.context("receive"),
            Err(_would_block) => {}
        }
    }
}

fn receive_now(connection: &OwnedFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    // The length first: a buffer for the longest message in each of 250 connections would be 48 MiB.
    let (_, length) = rustix::net::recv(connection, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::TRUNC)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a request of {length} bytes")));
    }
    let mut message = vec![0; length];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(
        connection,
        &mut [IoSliceMut::new(&mut message)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    message.truncate(got.bytes);
    let mut netns = None;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            for descriptor in descriptors {
                netns.get_or_insert(descriptor);
            }
        }
    }
    Ok((message, netns))
}

async fn send(connection: &AsyncFd<OwnedFd>, message: &[u8]) -> Result<()> {
    loop {
        let mut guard = connection.writable().await?;
        match guard
            .try_io(|connection| Ok(rustix::net::send(connection.get_ref(), message, SendFlags::NOSIGNAL)?))
        {
            Ok(result) => return result.map(drop).context("send"),
            Err(_would_block) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::cni::delete_queue::QueuedDelete;
    use agent_api::cni::{Attachment, Operation};
    use std::sync::Mutex;

    fn del(container: &str) -> QueuedDelete {
        let attachment = Attachment { container_id: container.to_owned(), ifname: "eth0".to_owned() };
        QueuedDelete {
            request: Request {
                protocol: PROTOCOL_VERSION,
                cni_version: "1.1.0".to_owned(),
                network: "bristle".to_owned(),
                args: std::collections::BTreeMap::new(),
                config: serde_json::json!({}),
                operation: Operation::Del { attachment, netns: None, prev_result: None },
            },
        }
    }

    /// A run directory with DELs in its queue.
    fn queued(containers: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cni.sock");
        let queue = DeleteQueue::lock(&delete_queue::dir_for_socket(&socket)).unwrap();
        for container in containers {
            queue.push(&del(container)).unwrap();
        }
        (dir, socket)
    }

    fn left(socket: &Path) -> Vec<String> {
        let queue = DeleteQueue::lock(&delete_queue::dir_for_socket(socket)).unwrap();
        let name = |entry: delete_queue::QueueEntry| {
            entry.content.unwrap().attachment().map(|it| it.container_id.clone()).unwrap()
        };
        queue.entries().unwrap().into_iter().map(name).collect()
    }

    /// An agent that refuses the first `failures` requests for `stubborn`. Also what it was asked, in order.
    fn agent(stubborn: &'static str, failures: usize) -> (Control, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let control = Control::answered_by(move |request| {
            let name = request.operation.attachment().unwrap().container_id.clone();
            let mut log = log.lock().unwrap();
            let before = log.iter().filter(|earlier| **earlier == name).count();
            log.push(name.clone());
            if name == stubborn && before < failures {
                CniError::new(ErrorCode::TRY_AGAIN, "the link cannot be removed yet").into()
            } else {
                Reply::Done
            }
        });
        (control, asked)
    }

    #[tokio::test]
    async fn a_queued_del_that_fails_stays_and_the_others_do_not_wait_for_it() {
        let (_dir, socket) = queued(&["a", "b", "c"]);
        let (control, asked) = agent("b", 1);
        let numbers = Numbers::default();
        assert!(!replayed(&socket, &control, &numbers).await);
        assert_eq!(left(&socket), ["b"]);
        assert!(replayed(&socket, &control, &numbers).await);
        assert_eq!(left(&socket), [""; 0]);
        assert_eq!(*asked.lock().unwrap(), ["a", "b", "c", "b"], "what was done is not done again");
    }

    #[tokio::test]
    async fn a_queued_del_is_tried_until_it_succeeds_and_then_no_more() {
        let (_dir, socket) = queued(&["b"]);
        let (control, asked) = agent("b", 3);
        replay_the_rest(&socket, &control, &Numbers::default(), Duration::ZERO).await;
        assert_eq!(left(&socket), [""; 0]);
        assert_eq!(asked.lock().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn an_agent_that_stops_leaves_the_queue_to_the_next_one() {
        let (_dir, socket) = queued(&["a"]);
        let control = Control::nobody();
        assert!(!replayed(&socket, &control, &Numbers::default()).await);
        assert_eq!(left(&socket), ["a"]);
    }

    #[tokio::test]
    async fn a_socket_that_listens_serves_the_queue_it_finds() {
        let (_dir, socket) = queued(&["a"]);
        let (control, asked) = agent("", 0);
        let served = tokio::spawn(CniSocket::listen(&socket).unwrap().serve(control));
        while asked.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The lock is free again when all of the queue was looked at.
        assert_eq!(tokio::task::spawn_blocking(move || left(&socket)).await.unwrap(), [""; 0]);
        served.abort();
    }
}
