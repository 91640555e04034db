//! Programs run in containers that run already, and connections into pods.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus as ProcessStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sim_api::runtime::{ExecRequest, ExecStreams, ExitStatus, RuntimeError};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::process::Command;

use super::context::NodeContext;
use super::environment::default_env;
use super::pty::Pty;
use super::spec::Container;
use crate::ns::NsSet;
use crate::state::ProcessId;

/// How long output is still read after the program has ended, in case something it left behind holds the stream open.
const DRAIN: Duration = Duration::from_millis(500);

/// Where and as what a program runs.
#[derive(Debug, Clone)]
pub(crate) struct ExecTarget {
    /// The container's shim.
    pub shim: ProcessId,
    /// The pod's cgroup on the host.
    pub cgroup: Option<std::path::PathBuf>,
    /// The container's environment.
    pub env: BTreeMap<String, String>,
    /// The container's working directory.
    pub working_dir: String,
}

fn command(node: &NodeContext, target: &ExecTarget, argv: &[String], tty: bool) -> Command {
    let mut command = Command::new(&node.program);
    command.args(["node-exec", "--pid", &target.shim.pid.to_string(), "--cwd", &target.working_dir]);
    if let Some(cgroup) = &target.cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    if tty {
        command.arg("--tty");
    }
    command.arg("--").args(argv).env_clear().envs(&target.env).kill_on_drop(true);
    command
}

fn exit_status(status: ProcessStatus) -> ExitStatus {
    ExitStatus { code: status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1) }
}

/// Runs a program with the client's streams. Dropping the future ends the program.
pub(crate) async fn exec(
    node: Arc<NodeContext>,
    target: ExecTarget,
    request: ExecRequest,
    streams: ExecStreams,
) -> Result<ExitStatus, RuntimeError> {
    if request.tty {
        exec_tty(&node, target, &request, streams).await
    } else {
        exec_pipes(&node, &target, &request, streams).await
    }
}

async fn exec_pipes(
    node: &NodeContext,
    target: &ExecTarget,
    request: &ExecRequest,
    streams: ExecStreams,
) -> Result<ExitStatus, RuntimeError> {
    let mut command = command(node, target, &request.command, false);
    let piped = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
    command
        .stdin(piped(streams.stdin.is_some()))
        .stdout(piped(streams.stdout.is_some()))
        .stderr(piped(streams.stderr.is_some()));
    let mut child = command.spawn().map_err(|source| spawn_error(request, source))?;
    let input = child.stdin.take().zip(streams.stdin);
    // Input goes on until the program ends; the task must not outlive this future.
    let feed = tokio::spawn(async move {
        if let Some((mut to, mut from)) = input {
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        }
    });
    let _feed = AbortOnDrop(feed);
    let out = copy_opt(child.stdout.take(), streams.stdout);
    let err = copy_opt(child.stderr.take(), streams.stderr);
    let output = async { tokio::join!(out, err) };
    tokio::pin!(output);
    let status = tokio::select! {
        status = child.wait() => {
            let _ = tokio::time::timeout(DRAIN, &mut output).await;
            status
        }
        // All output closed, or the client gone: a write to it failed. The program will notice by itself (SIGPIPE) or end anyway.
        _ = &mut output => child.wait().await,
    };
    status.map(exit_status).map_err(|source| spawn_error(request, source))
}

async fn exec_tty(
    node: &NodeContext,
    mut target: ExecTarget,
    request: &ExecRequest,
    streams: ExecStreams,
) -> Result<ExitStatus, RuntimeError> {
    let failed = |source| spawn_error(request, source);
    let Pty { output, input: mut to_program, size: terminal, program } = Pty::open().map_err(failed)?;
    let end = || program.try_clone().map(Stdio::from);
    target.env.entry("TERM".into()).or_insert_with(|| "xterm".into());
    let mut command = command(node, &target, &request.command, true);
    command.stdin(end().map_err(failed)?).stdout(end().map_err(failed)?).stderr(end().map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    // The controlling end reads the end of the stream only when nobody else has the other end.
    drop((command, program));
    let mut resize = streams.resize;
    let feed = AbortOnDrop(tokio::spawn(async move {
        if let Some(mut from) = streams.stdin {
            let _ = tokio::io::copy(&mut from, &mut to_program).await;
            // End of input is a character on a terminal.
            let _ = to_program.write_all(&[4]).await;
        }
    }));
    let resizer = AbortOnDrop(tokio::spawn(async move {
        while let Some(size) = resize.recv().await {
            let _ = terminal.set(size.width, size.height);
        }
    }));
    let output = copy_opt(Some(output), streams.stdout);
    tokio::pin!(output);
    let status = tokio::select! {
        status = child.wait() => {
            let _ = tokio::time::timeout(DRAIN, &mut output).await;
            status
        }
        () = &mut output => child.wait().await,
    };
    drop((feed, resizer));
    status.map(exit_status).map_err(failed)
}

fn spawn_error(request: &ExecRequest, source: std::io::Error) -> RuntimeError {
    RuntimeError::Spawn { command: request.command.first().cloned().unwrap_or_default(), source }
}

async fn copy_opt(from: Option<impl AsyncRead + Unpin>, to: Option<impl AsyncWrite + Unpin>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs an exec probe; `Err` has the output.
pub(crate) async fn run_in_container(
    node: &NodeContext,
    shim: ProcessId,
    container: &Container,
    argv: &[String],
) -> Result<(), String> {
    let target = ExecTarget {
        shim,
        cgroup: None,
        env: default_env(&container.name),
        working_dir: container.working_dir.clone().unwrap_or_else(|| "/".into()),
    };
    let output =
        command(node, &target, argv, false).stdin(Stdio::null()).output().await.map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// Connects to a port of a pod's loopback interface, IPv4 first. `netns` is a path of the node; `None`: the node's own.
pub(crate) async fn connect_loopback(
    node: &NodeContext,
    netns: Option<&std::path::Path>,
    port: u16,
) -> std::io::Result<tokio::net::TcpStream> {
    let set = match netns {
        Some(path) => Arc::new(NsSet::of_netns(&node.file(path))?),
        None => Arc::clone(&node.ns),
    };
    let stream = set
        .run(move || {
            let connect = |ip: std::net::IpAddr| {
                TcpStream::connect_timeout(&SocketAddr::new(ip, port), Duration::from_secs(5))
            };
            connect(Ipv4Addr::LOCALHOST.into()).or_else(|_| connect(Ipv6Addr::LOCALHOST.into()))
        })
        .await
        .map_err(std::io::Error::other)??;
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}
