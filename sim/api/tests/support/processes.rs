//! A stand-in for kubelets: processes of this machine instead of processes in pods.

use std::process::Stdio;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, stream};
use sim_api::NodeRuntime;
use sim_api::runtime::{
    Duplex, ExecRequest, ExecStreams, ExitStatus, LogLine, LogRequest, PodRef, RuntimeError,
};

/// Runs commands on this machine, whatever the pod.
pub(super) struct Processes;

impl NodeRuntime for Processes {
    fn exec(
        &self,
        pod: PodRef,
        request: ExecRequest,
        mut streams: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>> {
        async move {
            let program = request.command.first().cloned().unwrap_or_default();
            let mut command = tokio::process::Command::new(&program);
            command
                .args(&request.command[1..])
                .env("POD_NAME", &pod.name)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true);
            let mut child =
                command.spawn().map_err(|source| RuntimeError::Spawn { command: program, source })?;
            let mut stdin = child.stdin.take().expect("piped");
            let (mut stdout, mut stderr) =
                (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
            let input = tokio::spawn(async move {
                if let Some(mut from) = streams.stdin {
                    drop(tokio::io::copy(&mut from, &mut stdin).await);
                }
            });
            let out = async {
                match &mut streams.stdout {
                    Some(to) => drop(tokio::io::copy(&mut stdout, to).await),
                    None => drop(tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await),
                }
            };
            let err = async {
                match &mut streams.stderr {
                    Some(to) => drop(tokio::io::copy(&mut stderr, to).await),
                    None => drop(tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await),
                }
            };
            tokio::join!(out, err);
            let status = child.wait().await.map_err(|e| RuntimeError::Other(e.to_string()))?;
            input.abort();
            Ok(ExitStatus { code: status.code().unwrap_or(137) })
        }
        .boxed()
    }

    fn attach(
        &self,
        _: PodRef,
        _: ExecRequest,
        mut streams: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>> {
        async move {
            if let (Some(input), Some(output)) = (&mut streams.stdin, &mut streams.stdout) {
                drop(tokio::io::copy(input, output).await);
            }
            Ok(ExitStatus { code: 0 })
        }
        .boxed()
    }

    fn logs(
        &self,
        pod: PodRef,
        request: LogRequest,
    ) -> BoxFuture<'static, Result<BoxStream<'static, LogLine>, RuntimeError>> {
        async move {
            if request.previous {
                return Err(RuntimeError::NoPrevious { pod: pod.name, container: request.container });
            }
            let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
            let line = move |i: u64| LogLine { at: start, text: format!("line {i}\n").into() };
            let skip = request.tail_lines.map_or(0, |n| 3_u64.saturating_sub(n));
            let old = stream::iter((1..=3).skip(usize::try_from(skip).expect("small")).map(line));
            if !request.follow {
                return Ok(old.boxed());
            }
            let new = stream::iter(4..=6).then(move |i| async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                line(i)
            });
            Ok(old.chain(new).boxed())
        }
        .boxed()
    }

    /// Answers every connection with what it sends, in capitals; port 1 refuses.
    fn port_forward(
        &self,
        pod: PodRef,
        port: u16,
    ) -> BoxFuture<'static, Result<Box<dyn Duplex>, RuntimeError>> {
        async move {
            if port == 1 {
                let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                return Err(RuntimeError::Connect { pod: pod.name, port, source });
            }
            let (ours, theirs) = tokio::io::duplex(4096);
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let (mut read, mut write) = tokio::io::split(theirs);
                let mut buffer = [0; 1024];
                while let Ok(n) = read.read(&mut buffer).await {
                    if n == 0 || write.write_all(&buffer[..n].to_ascii_uppercase()).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Box::new(ours) as Box<dyn Duplex>)
        }
        .boxed()
    }
}
