//! The part of the Container Runtime Interface (runtime.v1) that a kubelet uses for sandboxes: gRPC over a unix socket, with the messages
//! written out by hand, because they are few and no code generator has to be installed for them.
//! Field numbers: `staging/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto` of Kubernetes.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VersionRequest {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VersionResponse {
    #[prost(string, tag = "2")]
    pub(crate) runtime_name: String,
    #[prost(string, tag = "3")]
    pub(crate) runtime_version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    pub(crate) conditions: Vec<RuntimeCondition>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RuntimeCondition {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(bool, tag = "2")]
    pub(crate) status: bool,
    #[prost(string, tag = "3")]
    pub(crate) reason: String,
    #[prost(string, tag = "4")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    pub(crate) cgroup_parent: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "2")]
    pub(crate) hostname: String,
    #[prost(message, optional, tag = "8")]
    pub(crate) linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) config: Option<PodSandboxConfig>,
}

/// Also the requests of Stop, Remove and Status, which begin with the same field.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SandboxId {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodIp {
    #[prost(string, tag = "1")]
    pub(crate) ip: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxNetworkStatus {
    #[prost(string, tag = "1")]
    pub(crate) ip: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) additional_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxStatus {
    /// 0 is ready.
    #[prost(int32, tag = "3")]
    pub(crate) state: i32,
    #[prost(message, optional, tag = "5")]
    pub(crate) network: Option<PodSandboxNetworkStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<PodSandboxStatus>,
    /// With `verbose`: `info` holds JSON.
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) info: BTreeMap<String, String>,
}

/// A call that the runtime refused.
#[derive(Debug)]
pub(crate) struct CallError {
    pub(crate) method: String,
    pub(crate) message: String,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.method, self.message)
    }
}

/// A connection to the runtime.
#[derive(Clone)]
pub(crate) struct Cri(SendRequest<Full<Bytes>>);

impl Cri {
    pub(crate) async fn connect(socket: &Path) -> std::io::Result<Self> {
        let stream = tokio::net::UnixStream::connect(socket).await?;
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// One unary call of the runtime service.
    pub(crate) async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<A, CallError> {
        let error = |message: String| CallError { method: method.to_owned(), message };
        // gRPC over HTTP/2: a flag for compression, the length, the message.
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(request.encoded_len()).expect("requests are short"));
        request.encode(&mut body).expect("the buffer grows");
        let request = hyper::Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))
            .expect("the request is well formed");
        let response = self.0.clone().send_request(request).await.map_err(|e| error(e.to_string()))?;
        let headers = response.headers().clone();
        let collected = response.into_body().collect().await.map_err(|e| error(e.to_string()))?;
        // An error without any message comes in the headers, everything else in the trailers.
        let trailers = collected.trailers().unwrap_or(&headers);
        let text = |name: &str| {
            trailers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        match text("grpc-status").as_deref() {
            Some("0") => {}
            status => {
                return Err(error(format!(
                    "status {status:?}: {}",
                    text("grpc-message").unwrap_or_default()
                )));
            }
        }
        let bytes = collected.to_bytes();
        A::decode(bytes.get(5..).unwrap_or_default()).map_err(|e| error(e.to_string()))
    }

    pub(crate) async fn run_pod_sandbox(&self, name: &str, cgroup_parent: &str) -> Result<String, CallError> {
        let metadata =
            PodSandboxMetadata { name: name.into(), uid: format!("{name}-uid"), namespace: "default".into() };
        let linux = LinuxPodSandboxConfig { cgroup_parent: cgroup_parent.into() };
        let config = PodSandboxConfig { metadata: Some(metadata), hostname: name.into(), linux: Some(linux) };
        let answer: SandboxId =
            self.call("RunPodSandbox", &RunPodSandboxRequest { config: Some(config) }).await?;
        Ok(answer.id)
    }

    pub(crate) async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CallError> {
        self.call::<_, Empty>("StopPodSandbox", &SandboxId { id: id.into(), verbose: false }).await.map(drop)
    }

    pub(crate) async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CallError> {
        self.call::<_, Empty>("RemovePodSandbox", &SandboxId { id: id.into(), verbose: false })
            .await
            .map(drop)
    }

    pub(crate) async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse, CallError> {
        self.call("PodSandboxStatus", &SandboxId { id: id.into(), verbose: true }).await
    }

    /// The condition `NetworkReady`: true, or the runtime's words.
    pub(crate) async fn network_ready(&self) -> Result<(), CallError> {
        let answer: StatusResponse = self.call("Status", &StatusRequest {}).await?;
        let conditions = answer.status.unwrap_or_default().conditions;
        match conditions.into_iter().find(|condition| condition.kind == "NetworkReady") {
            Some(condition) if condition.status => Ok(()),
            other => Err(CallError { method: "Status".into(), message: format!("{other:?}") }),
        }
    }
}
