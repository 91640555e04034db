//! Calls of the plugin and an agent to talk to.

use std::io::{IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use agent_api::cni::{MAX_MESSAGE_BYTES, Reply, Request};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use serde_json::{Value, json};

/// One call of the plugin.
#[derive(Debug)]
pub(crate) struct Call {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    input: String,
    stdout_closed: bool,
}

impl Call {
    pub(crate) fn bare() -> Self {
        Self { arguments: Vec::new(), variables: Vec::new(), input: String::new(), stdout_closed: false }
    }

    pub(crate) fn new(command: &str) -> Self {
        Self::bare().env("CNI_COMMAND", command)
    }

    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets a variable; the last value stands.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub(crate) fn attachment(self) -> Self {
        self.env("CNI_CONTAINERID", "c1").env("CNI_IFNAME", "eth0")
    }

    pub(crate) fn netns(self, path: &str) -> Self {
        self.env("CNI_NETNS", path)
    }

    pub(crate) fn stdin(mut self, text: &str) -> Self {
        self.input = text.into();
        self
    }

    pub(crate) fn stdout_closed(mut self) -> Self {
        self.stdout_closed = true;
        self
    }

    pub(crate) fn spawn(self) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bristle-cni"))
            .args(self.arguments)
            .env_clear()
            .envs(self.variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if self.stdout_closed {
            drop(child.stdout.take());
        }
        // A plugin that refuses the environment does not read the rest.
        drop(child.stdin.take().unwrap().write_all(self.input.as_bytes()));
        Running(child)
    }

    pub(crate) fn run(self) -> Outcome {
        self.spawn().wait()
    }
}

/// A plugin that runs.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn wait(self) -> Outcome {
        let output = self.0.wait_with_output().unwrap();
        Outcome {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The result of a call that must have succeeded with one.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// A call that must have succeeded with nothing to say.
    pub(crate) fn silent(&self) {
        assert_eq!((self.code, self.stdout.as_str(), self.stderr.as_str()), (0, "", ""));
    }

    /// The error object of a call that must have failed.
    pub(crate) fn error(&self) -> Value {
        assert_ne!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A run directory that goes away with the test.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.path().join("cni.sock")
    }

    /// A network configuration that leads here.
    pub(crate) fn config(&self, version: &str, extra: Value) -> String {
        let mut config = json!({"cniVersion": version, "name": "bristle", "type": "bristle-cni", "agent-socket": self.socket()});
        let Value::Object(extra) = extra else { panic!("{extra}") };
        config.as_object_mut().unwrap().extend(extra);
        config.to_string()
    }
}

/// A request as it came, and the inode of the descriptor that came with it.
type Received = (Request, Option<u64>);

/// Answers requests one after the other, until it is dropped.
pub(crate) struct FakeAgent {
    socket: Arc<OwnedFd>,
    requests: Arc<Mutex<Vec<Received>>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeAgent {
    /// `None` closes the connection without an answer.
    pub(crate) fn start(
        scratch: &Scratch,
        mut answer: impl FnMut(&Request) -> Option<Reply> + Send + 'static,
    ) -> Self {
        Self::start_raw(scratch, move |request| {
            answer(request).map(|reply| serde_json::to_vec(&reply).unwrap())
        })
    }

    pub(crate) fn start_raw(
        scratch: &Scratch,
        mut answer: impl FnMut(&Request) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        drop(std::fs::remove_file(scratch.socket()));
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(scratch.socket()).unwrap()).unwrap();
        rustix::net::listen(&socket, 16).unwrap();
        let (socket, requests) = (Arc::new(socket), Arc::new(Mutex::new(Vec::new())));
        let (listener, list) = (Arc::clone(&socket), Arc::clone(&requests));
        let thread = std::thread::spawn(move || {
            while let Ok(connection) = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC) {
                // A plugin that found nothing fit to send has closed again.
                let Some(received) = receive(&connection) else { continue };
                let reply = answer(&received.0);
                list.lock().unwrap().push(received);
                if let Some(reply) = reply {
                    // The plugin may have given up.
                    let _sent = rustix::net::send(&connection, &reply, SendFlags::NOSIGNAL);
                }
            }
        });
        Self { socket, requests, thread: Some(thread) }
    }

    /// Takes what has come so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        // Wakes the accept.
        let _woken = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let ended = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || ended.is_ok(), "the fake agent panicked");
    }
}

fn receive(connection: &OwnedFd) -> Option<Received> {
    let mut bytes = vec![0; MAX_MESSAGE_BYTES + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(
        connection,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let mut descriptors = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    assert!(descriptors.len() <= 1, "{descriptors:?}");
    let inode = descriptors.pop().map(|descriptor| rustix::fs::fstat(descriptor).unwrap().st_ino);
    (message.bytes > 0).then(|| (serde_json::from_slice(&bytes[..message.bytes]).unwrap(), inode))
}

/// The inode behind a path.
pub(crate) fn inode(path: &str) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

/// Runs something with the path of a network namespace that is not the test's own; skips it loudly where none can be made.
pub(crate) fn with_netns(test: &str, work: impl FnOnce(&str)) {
    // A process in a namespace of its own keeps it, and is reached by its number.
    let child = Command::new("unshare").args(["--net", "sleep", "60"]).stdin(Stdio::null()).spawn();
    let guard = child.ok().map(Guard);
    let own = inode("/proc/self/ns/net");
    let path = guard.as_ref().map(|guard| format!("/proc/{}/ns/net", guard.0.id()));
    let made = path.filter(|path| (0..100).any(|_| differs(path, own)));
    if let Some(path) = made {
        work(&path);
    } else {
        assert!(std::env::var_os("BRISTLE_REQUIRE_ALL").is_none(), "{test} needs root");
        eprintln!("SKIPPED: {test} needs root");
    }
}

/// True if the path shows another namespace than ours; waits a little if not.
fn differs(path: &str, own: u64) -> bool {
    let differs = Path::new(path).metadata().is_ok_and(|meta| meta.ino() != own);
    if !differs {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    differs
}

/// Ends the process.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
