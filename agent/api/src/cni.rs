//! What `bristle-cni` and the agent say to each other, and nothing else.
//!
//! # Protocol
//!
//! The agent listens on a `SOCK_SEQPACKET` unix socket ([`DEFAULT_SOCKET`]).
//! One connection carries one exchange: the plugin sends one message holding a [`Request`] as JSON, the agent answers with one message
//! holding a [`Reply`] as JSON, and both close.
//! For ADD and CHECK, and for DEL when the namespace could still be opened, the request's message carries exactly one descriptor by
//! `SCM_RIGHTS`: the pod's network namespace, opened by the plugin. The agent needs no view of the runtime's mounts.
//! A message is at most [`MAX_MESSAGE_BYTES`] long; a longer one is refused by the sender.
//!
//! The agent always answers in terms of CNI 1.1.0 ([`CniResult`]); the plugin turns results of older versions into these types before it
//! sends them (`prev_result`) and turns the answer into the version that the runtime asked for.
//!
//! # When no agent listens
//!
//! ADD and CHECK fail with [`ErrorCode::TRY_AGAIN`], STATUS with [`ErrorCode::UNAVAILABLE`], GC with [`ErrorCode::TRY_AGAIN`].
//! DEL succeeds by leaving the request in the [`delete_queue`], which the agent replays at its start.

pub mod delete_queue;
mod error;
mod result;

pub use error::{CniError, ErrorCode};
pub use result::{CniResult, Dns, Interface, Ip, ResultRoute};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of this protocol. The agent refuses a request of another version with [`ErrorCode::TRY_AGAIN`]: the two are installed together,
/// so they differ only for the moment of an upgrade.
pub const PROTOCOL_VERSION: u32 = 1;

/// Directory of the agent's sockets, unless configured otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/bristle";

/// File name of the CNI socket inside the run directory.
pub const SOCKET_NAME: &str = "cni.sock";

/// Where the plugin looks for the agent unless the network configuration has [`CONFIG_KEY_SOCKET`].
pub const DEFAULT_SOCKET: &str = "/run/bristle/cni.sock";

/// Value of `type` in the network configuration, which is the name of the plugin's binary.
pub const PLUGIN_TYPE: &str = "bristle-cni";

/// Name of the network in the configuration that the agent writes.
pub const NETWORK_NAME: &str = "bristle";

/// Key of the plugin's configuration object: path of the agent's CNI socket (string).
/// The delete queue lies beside it, in `delete-queue`.
pub const CONFIG_KEY_SOCKET: &str = "agent-socket";

/// Key of the plugin's configuration object: how long the plugin waits for the agent's answer, in seconds (positive number).
pub const CONFIG_KEY_TIMEOUT: &str = "agent-timeout-seconds";

/// Default of [`CONFIG_KEY_TIMEOUT`]: below the two minutes after which kubelet gives up on a sandbox, so that our message is the one seen.
pub const DEFAULT_TIMEOUT_S: u64 = 90;

/// The longest message in either direction, in bytes.
/// It has to fit into the default socket buffer of 208 KiB together with the kernel's own bookkeeping; a GC list of 1000 attachments
/// needs about 110 KiB.
pub const MAX_MESSAGE_BYTES: usize = 192 * 1024;

/// Versions of the CNI specification that the plugin speaks, oldest first.
pub const SUPPORTED_VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// One container interface, the unit that CNI calls are about (spec: "attachment").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// The runtime's id of the container (`CNI_CONTAINERID`); checked by the plugin against the spec's character set.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Name of the interface inside the container (`CNI_IFNAME`), at most 15 bytes; checked by the plugin.
    pub ifname: String,
}

/// What the runtime wants, with the parameters that belong to it.
/// VERSION is missing because the plugin answers it alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "UPPERCASE")]
pub enum Operation {
    /// Make the interface. A namespace descriptor comes with it. Answered by [`Reply::Added`].
    Add {
        /// The interface to make.
        attachment: Attachment,
        /// `CNI_NETNS` as the runtime gave it; for the result's `sandbox` and for messages, never to be opened by the agent.
        netns: String,
    },
    /// Remove the interface and release its addresses; unknown attachments are a success. Answered by [`Reply::Done`].
    Del {
        /// The interface to remove.
        attachment: Attachment,
        /// `CNI_NETNS` if the runtime gave it. A descriptor comes only if it could be opened.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<String>,
        /// The result of the ADD, if the runtime still knows it. For information: the agent's own record decides.
        #[serde(default, rename = "prevResult", skip_serializing_if = "Option::is_none")]
        prev_result: Option<CniResult>,
    },
    /// Compare the interface with what ADD returned. A namespace descriptor comes with it. Answered by [`Reply::Done`].
    Check {
        /// The interface to look at.
        attachment: Attachment,
        /// `CNI_NETNS` as the runtime gave it.
        netns: String,
        /// The result of the ADD, possibly amended by plugins later in the chain.
        #[serde(rename = "prevResult")]
        prev_result: CniResult,
    },
    /// Free everything of this network that is not listed. Answered by [`Reply::Done`].
    Gc {
        /// The attachments that still exist as far as the runtime knows.
        #[serde(rename = "validAttachments")]
        valid_attachments: Vec<Attachment>,
    },
    /// Could an ADD be served now? Answered by [`Reply::Done`] or an error with code 50 or 51.
    Status,
}

impl Operation {
    /// The command's name as in `CNI_COMMAND`.
    pub const fn command(&self) -> &'static str {
        match self {
            Self::Add { .. } => "ADD",
            Self::Del { .. } => "DEL",
            Self::Check { .. } => "CHECK",
            Self::Gc { .. } => "GC",
            Self::Status => "STATUS",
        }
    }

    /// The attachment the command is about; GC and STATUS have none.
    pub const fn attachment(&self) -> Option<&Attachment> {
        match self {
            Self::Add { attachment, .. } | Self::Del { attachment, .. } | Self::Check { attachment, .. } => {
                Some(attachment)
            }
            Self::Gc { .. } | Self::Status => None,
        }
    }
}

/// One request of the plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub protocol: u32,
    /// Version of the CNI specification that the runtime speaks; for information, the plugin does all conversion.
    #[serde(rename = "cniVersion")]
    pub cni_version: String,
    /// Name of the network (`name` in the configuration).
    pub network: String,
    /// `CNI_ARGS` taken apart; of a repeated key the last value stands.
    #[serde(default)]
    pub args: BTreeMap<String, String>,
    /// The plugin's configuration object as the runtime sent it, without `prevResult` and the list of valid attachments.
    pub config: Value,
    /// What to do.
    #[serde(flatten)]
    pub operation: Operation,
}

impl Request {
    /// The pod named in `CNI_ARGS`, as every Kubernetes runtime passes it; `None` if namespace or name are missing.
    pub fn pod(&self) -> Option<PodRef> {
        PodRef::from_args(&self.args)
    }
}

/// A Kubernetes pod as runtimes name it in `CNI_ARGS`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`; older runtimes leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl PodRef {
    /// Reads the conventional keys; `None` unless both namespace and name are there and not empty.
    pub fn from_args(args: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key: &str| args.get(key).filter(|value| !value.is_empty()).cloned();
        Some(Self {
            namespace: get("K8S_POD_NAMESPACE")?,
            name: get("K8S_POD_NAME")?,
            uid: get("K8S_POD_UID"),
        })
    }
}

/// The agent's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "lowercase")]
pub enum Reply {
    /// ADD succeeded.
    Added {
        /// In terms of CNI 1.1.0.
        result: CniResult,
    },
    /// DEL, CHECK, GC or STATUS succeeded.
    Done,
    /// The command failed; passed on to the runtime as it is.
    Error {
        /// Code, message, details.
        error: CniError,
    },
}

impl From<CniError> for Reply {
    fn from(error: CniError) -> Self {
        Self::Error { error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment() -> Attachment {
        Attachment { container_id: "c1".into(), ifname: "eth0".into() }
    }

    #[test]
    fn request_reads_back_and_is_flat() {
        let args = BTreeMap::from([
            ("K8S_POD_NAME".to_owned(), "a".to_owned()),
            ("K8S_POD_NAMESPACE".to_owned(), "default".to_owned()),
        ]);
        let request = Request {
            protocol: PROTOCOL_VERSION,
            cni_version: "1.1.0".into(),
            network: NETWORK_NAME.into(),
            args,
            config: serde_json::json!({"type": PLUGIN_TYPE}),
            operation: Operation::Add { attachment: attachment(), netns: "/run/netns/x".into() },
        };
        let text = serde_json::to_string(&request).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["command"], "ADD");
        assert_eq!(value["attachment"], serde_json::json!({"containerID": "c1", "ifname": "eth0"}));
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        assert_eq!(request.pod(), Some(PodRef { namespace: "default".into(), name: "a".into(), uid: None }));
    }

    #[test]
    fn every_operation_reads_back() {
        let operations = [
            Operation::Add { attachment: attachment(), netns: "/n".into() },
            Operation::Del { attachment: attachment(), netns: None, prev_result: None },
            Operation::Check {
                attachment: attachment(),
                netns: "/n".into(),
                prev_result: CniResult::default(),
            },
            Operation::Gc { valid_attachments: vec![attachment()] },
            Operation::Status,
        ];
        for operation in operations {
            let value = serde_json::to_value(&operation).unwrap();
            assert_eq!(value["command"], operation.command());
            assert_eq!(serde_json::from_value::<Operation>(value).unwrap(), operation);
        }
    }

    #[test]
    fn replies_read_back() {
        for reply in [
            Reply::Done,
            Reply::Added { result: CniResult::default() },
            CniError::new(ErrorCode::TRY_AGAIN, "wait").into(),
        ] {
            let text = serde_json::to_string(&reply).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
        }
    }

    #[test]
    fn pod_needs_namespace_and_name() {
        let args = BTreeMap::from([
            ("K8S_POD_NAME".to_owned(), "a".to_owned()),
            ("K8S_POD_NAMESPACE".to_owned(), String::new()),
        ]);
        assert_eq!(PodRef::from_args(&args), None);
    }
}
