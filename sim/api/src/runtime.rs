//! The way to the processes of pods: what a kubelet's server offers the API server.
//!
//! The API server speaks `WebSocket` and SPDY with its clients; behind it stands one [`NodeRuntime`] that knows
//! nothing of either. It is given plain byte streams.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// The pod a call is about. The API server has checked that it exists and is bound to `node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// Node the pod is bound to.
    pub node: String,
}

/// A byte stream towards the process.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;
/// A byte stream from the process.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Both directions in one.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Size of the client's terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// Container of the pod; the API server has filled in the default one.
    pub container: String,
    /// Program and arguments. Empty for `attach`.
    pub command: Vec<String>,
    /// True if a terminal is wanted: stdout and stderr are one stream then and `stderr` is `None`.
    pub tty: bool,
}

/// Streams of one `exec` or `attach`. A stream the client did not ask for is `None`.
/// Dropping `stdout` and `stderr` (or shutting them down) tells the client that they are at their end.
pub struct ExecStreams {
    /// Ends when the client closes its side.
    pub stdin: Option<Input>,
    /// The process's standard output.
    pub stdout: Option<Output>,
    /// The process's standard error.
    pub stderr: Option<Output>,
    /// New sizes of the client's terminal (only with `tty`).
    pub resize: mpsc::Receiver<TerminalSize>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code, 128 + number for a signal.
    pub code: i32,
}

/// Which lines of a container's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogRequest {
    /// Container of the pod.
    pub container: String,
    /// Keep going with new lines until the container ends.
    pub follow: bool,
    /// The run of the container before the present one.
    pub previous: bool,
    /// Only this many of the lines that are there already.
    pub tail_lines: Option<u64>,
    /// Only lines written at or after this moment.
    pub since: Option<Timestamp>,
}

/// One line of a container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub at: Timestamp,
    /// Its bytes with the newline, if the process wrote one.
    pub text: Bytes,
}

/// Why a call to a pod's processes failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The pod or container is not running on that node (yet, or any more).
    #[error("container {container} in pod {pod} is not running")]
    NotRunning {
        /// `namespace/name`.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// There was no earlier run of this container.
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious {
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// The program could not be started.
    #[error("cannot run {command}")]
    Spawn {
        /// The program.
        command: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// Nothing listens on that port of the pod, or it cannot be reached.
    #[error("cannot connect to port {port} of pod {pod}")]
    Connect {
        /// `namespace/name`.
        pod: String,
        /// Port asked for.
        port: u16,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Reaches the processes of all pods of the cluster; the lab's kubelets implement it.
///
/// Every future and stream may be dropped at any moment (the client went away): what it started must then be
/// ended, at the latest when its streams report the closed peer.
pub trait NodeRuntime: Send + Sync + 'static {
    /// Runs a command in the container's namespaces and returns its exit code when it has ended and its output
    /// has been written.
    fn exec(
        &self,
        pod: PodRef,
        request: ExecRequest,
        streams: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>>;

    /// Joins the streams of the container's main process; returns when the process ends.
    fn attach(
        &self,
        pod: PodRef,
        request: ExecRequest,
        streams: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>>;

    /// Lines of a container's log. The server adds timestamps and cuts by bytes; everything else in `request` is
    /// the implementation's to honour.
    fn logs(
        &self,
        pod: PodRef,
        request: LogRequest,
    ) -> BoxFuture<'static, Result<BoxStream<'static, LogLine>, RuntimeError>>;

    /// Connects to a TCP port on the pod's loopback interface.
    fn port_forward(
        &self,
        pod: PodRef,
        port: u16,
    ) -> BoxFuture<'static, Result<Box<dyn Duplex>, RuntimeError>>;
}

/// A runtime without any process: every call fails. For clusters of objects only.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRuntime;

fn nothing_runs<T: Send + 'static>() -> BoxFuture<'static, Result<T, RuntimeError>> {
    Box::pin(async { Err(RuntimeError::Other("this cluster runs no processes".into())) })
}

impl NodeRuntime for NoRuntime {
    fn exec(
        &self,
        _: PodRef,
        _: ExecRequest,
        _: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>> {
        nothing_runs()
    }
    fn attach(
        &self,
        _: PodRef,
        _: ExecRequest,
        _: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>> {
        nothing_runs()
    }
    fn logs(
        &self,
        _: PodRef,
        _: LogRequest,
    ) -> BoxFuture<'static, Result<BoxStream<'static, LogLine>, RuntimeError>> {
        nothing_runs()
    }
    fn port_forward(&self, _: PodRef, _: u16) -> BoxFuture<'static, Result<Box<dyn Duplex>, RuntimeError>> {
        nothing_runs()
    }
}
