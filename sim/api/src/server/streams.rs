//! `exec`, `attach` and `port-forward` over `WebSocket` (KEP-4006), with the channel protocols `v4.channel.k8s.io` and
//! `v5.channel.k8s.io`: the first byte of a message says to which stream it belongs.

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts as _, Request};
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::portforward;
use super::route::ResourceCall;
use crate::error::ApiError;
use crate::object::{annotation, list_at, name, namespace, str_at, uid};
use crate::resource::PODS;
use crate::runtime::{ExecRequest, ExecStreams, ExitStatus, PodRef, RuntimeError, TerminalSize};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5 only: the payload is the number of the stream that is at its end.
const CLOSE: u8 = 255;

/// Bytes that wait between the socket and a process.
const PIPE_BYTES: usize = 64 * 1024;
/// Messages that wait for the socket.
const QUEUE: usize = 16;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

/// The pod as the runtime knows it.
pub(super) fn pod_ref(pod: &Value) -> Result<PodRef, ApiError> {
    let node = str_at(pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", name(pod))));
    }
    Ok(PodRef {
        namespace: namespace(pod).to_owned(),
        name: name(pod).to_owned(),
        uid: uid(pod).to_owned(),
        node: node.to_owned(),
    })
}

/// The container a request means: the one it names, the pod's default, or the first.
pub(super) fn choose_container(pod: &Value, wanted: &str) -> Result<String, ApiError> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let mut names = lists.iter().flat_map(|l| list_at(pod, &["spec", l])).map(|c| str_at(c, &["name"]));
    if wanted.is_empty() {
        let chosen = annotation(pod, "kubectl.kubernetes.io/default-container").or_else(|| names.next());
        return chosen.map(str::to_owned).ok_or_else(|| ApiError::bad_request("the pod has no container"));
    }
    if names.any(|n| n == wanted) {
        Ok(wanted.to_owned())
    } else {
        Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {}", name(pod))))
    }
}

/// How a failure of the runtime is told.
pub(super) fn runtime_error(error: &RuntimeError) -> ApiError {
    match error {
        RuntimeError::NotRunning { .. } | RuntimeError::NoPrevious { .. } => {
            ApiError::bad_request(error.to_string())
        }
        other => ApiError::internal(describe(other)),
    }
}

/// An error with its cause.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

pub(super) async fn connect(call: ResourceCall, request: Request) -> Result<Response, ApiError> {
    let pod = call.app.store.get(&PODS, &call.target.namespace, &call.target.name)?;
    let target = pod_ref(&pod)?;
    if matches!(str_at(&pod, &["status", "phase"]), "Succeeded" | "Failed") {
        return Err(ApiError::bad_request(format!(
            "cannot exec into a container in a completed pod; current phase is {}",
            str_at(&pod, &["status", "phase"])
        )));
    }
    // What is wrong with the request comes before what is wrong with the transport: clients try another transport
    // when the first fails and show the error of the second.
    let container = choose_container(&pod, call.query.get("container"))?;
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade
        .map_err(|_| ApiError::bad_request("Upgrade request required: this server speaks WebSocket only"));
    if call.target.subresource == "portforward" {
        return portforward::answer(&call, target, upgrade?);
    }
    let attach = call.target.subresource == "attach";
    let tty = call.query.flag("tty");
    let exec = ExecRequest { container, command: call.query.all("command").to_vec(), tty };
    if exec.command.is_empty() && !attach {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    let wanted = Wanted {
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr") && !tty,
    };
    let runtime = call.app.runtime.clone();
    let upgrade = upgrade?.protocols([V5, V4]);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let (streams, ends) = wanted.streams();
        let run =
            if attach { runtime.attach(target, exec, streams) } else { runtime.exec(target, exec, streams) };
        serve(socket, run, ends).await;
    }))
}

#[derive(Clone, Copy)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

/// Our ends of the process's streams.
struct Ends {
    stdin: Option<DuplexStream>,
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
    resize: mpsc::Sender<TerminalSize>,
}

impl Wanted {
    fn streams(self) -> (ExecStreams, Ends) {
        let pipe = |wanted: bool| wanted.then(|| tokio::io::duplex(PIPE_BYTES)).unzip();
        let ((stdin, their_stdin), (stdout, their_stdout), (stderr, their_stderr)) =
            (pipe(self.stdin), pipe(self.stdout), pipe(self.stderr));
        let (resize, sizes) = mpsc::channel(4);
        let streams = ExecStreams {
            stdin: their_stdin.map(|s| Box::new(s) as _),
            stdout: their_stdout.map(|s| Box::new(s) as _),
            stderr: their_stderr.map(|s| Box::new(s) as _),
            resize: sizes,
        };
        (streams, Ends { stdin, stdout, stderr, resize })
    }
}

pub(super) fn frame(channel: u8, payload: &[u8]) -> Message {
    let mut out = BytesMut::with_capacity(payload.len() + 1);
    out.put_u8(channel);
    out.put_slice(payload);
    Message::Binary(out.freeze())
}

/// The end of a session that went as it should; clients take a close without a code for a failure.
pub(super) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))
}

/// Copies one output of the process to the socket until its end.
fn pump(channel: u8, stream: Option<DuplexStream>, out: mpsc::Sender<Message>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let Some(mut stream) = stream else { return };
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(n) = stream.read(&mut buffer).await {
            if n == 0 || out.send(frame(channel, &buffer[..n])).await.is_err() {
                return;
            }
        }
    })
}

async fn serve(socket: WebSocket, run: impl Future<Output = Result<ExitStatus, RuntimeError>>, ends: Ends) {
    let (mut sink, mut source) = socket.split();
    let (out, mut queue) = mpsc::channel::<Message>(QUEUE);
    let writer = tokio::spawn(async move {
        while let Some(message) = queue.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        drop(sink.close().await);
    });
    let outputs = [pump(STDOUT, ends.stdout, out.clone()), pump(STDERR, ends.stderr, out.clone())];
    let input = async {
        let (mut stdin, resize) = (ends.stdin, ends.resize);
        while let Some(Ok(message)) = source.next().await {
            let Message::Binary(data) = message else {
                if matches!(message, Message::Close(_)) {
                    return;
                }
                continue;
            };
            receive(&data, &mut stdin, &resize).await;
        }
    };
    let ended = tokio::select! {
        ended = run => ended,
        // The client is gone; dropping the future ends the process.
        () = input => {
            writer.abort();
            outputs.iter().for_each(JoinHandle::abort);
            return;
        }
    };
    for output in outputs {
        drop(output.await);
    }
    let status = status(&ended);
    drop(out.send(frame(ERROR, status.to_string().as_bytes())).await);
    drop(out.send(goodbye()).await);
    drop(out);
    drop(writer.await);
}

async fn receive(data: &Bytes, stdin: &mut Option<DuplexStream>, resize: &mpsc::Sender<TerminalSize>) {
    let Some((channel, payload)) = data.split_first() else { return };
    match *channel {
        STDIN => {
            if let Some(pipe) = stdin
                && pipe.write_all(payload).await.is_err()
            {
                // The process has closed its end; what else comes goes nowhere.
                *stdin = None;
            }
        }
        CLOSE if payload.first() == Some(&STDIN) => *stdin = None,
        RESIZE => {
            let size: Option<Value> = serde_json::from_slice(payload).ok();
            let side = |key: &str| {
                size.as_ref()
                    .and_then(|s| s.get(key))
                    .and_then(Value::as_u64)
                    .and_then(|n| u16::try_from(n).ok())
            };
            if let (Some(width), Some(height)) = (side("Width"), side("Height")) {
                // A full queue means that nobody looks at sizes.
                let _ = resize.try_send(TerminalSize { width, height });
            }
        }
        _ => {}
    }
}

/// The status message at the end of the error channel.
fn status(ended: &Result<ExitStatus, RuntimeError>) -> Value {
    match ended {
        Ok(ExitStatus { code: 0 }) => json!({"metadata": {}, "status": "Success"}),
        Ok(ExitStatus { code }) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => {
            let message = describe(error);
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500})
        }
    }
}
