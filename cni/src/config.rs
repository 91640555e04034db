//! The network configuration that comes by standard input (spec section 2, "Network configuration").

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use agent_api::cni::{
    Attachment, CONFIG_KEY_SOCKET, CONFIG_KEY_TIMEOUT, CniError, CniResult, DEFAULT_SOCKET,
    DEFAULT_TIMEOUT_S, ErrorCode,
};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::environment::is_identifier;
use crate::output::result_from_version;
use crate::version::Version;

/// More than any configuration needs; what comes by stdin ends up in one message to the agent.
const MAX_INPUT_BYTES: u64 = 1024 * 1024;

/// The reserved key of GC, and its misspelling that the reference library still writes.
const VALID_ATTACHMENTS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// A configuration whose version is known to be ours; the rest is looked at as the command needs it.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) version: Version,
    object: Map<String, Value>,
}

impl Config {
    /// Reads the whole input.
    ///
    /// # Errors
    /// Code 5 if it cannot be read, 6 if it is no JSON object, 1 if its version is not one of ours.
    pub(crate) fn read(input: &mut dyn Read) -> Result<Self, CniError> {
        let object = read_object(input)?;
        let version = match object.get("cniVersion") {
            None | Some(Value::Null) => Version::find("")?,
            Some(Value::String(text)) => Version::find(text)?,
            Some(other) => {
                let msg = format!("cniVersion must be a string, not {other}");
                return Err(CniError::new(ErrorCode::DECODING_FAILURE, msg));
            }
        };
        Ok(Self { version, object })
    }

    /// Name of the network.
    ///
    /// # Errors
    /// Code 7 if it is missing or has characters that the specification forbids.
    pub(crate) fn name(&self) -> Result<&str, CniError> {
        match self.object.get("name") {
            Some(Value::String(name)) if is_identifier(name) => Ok(name),
            Some(other) => Err(invalid(format!(
                "name {other} must begin with a letter or digit, followed by letters, digits, '_', '.' or '-'"
            ))),
            None => Err(invalid("the network configuration has no name".into())),
        }
    }

    /// Where the agent listens.
    ///
    /// # Errors
    /// Code 7 if the key is no absolute path.
    pub(crate) fn socket(&self) -> Result<PathBuf, CniError> {
        match self.object.get(CONFIG_KEY_SOCKET) {
            None | Some(Value::Null) => Ok(DEFAULT_SOCKET.into()),
            Some(Value::String(path)) if path.starts_with('/') => Ok(path.into()),
            Some(other) => Err(invalid(format!("{CONFIG_KEY_SOCKET} must be an absolute path, not {other}"))),
        }
    }

    /// How long to wait for the agent.
    ///
    /// # Errors
    /// Code 7 if the key is no positive whole number.
    pub(crate) fn timeout(&self) -> Result<Duration, CniError> {
        match self.object.get(CONFIG_KEY_TIMEOUT) {
            None | Some(Value::Null) => Ok(Duration::from_secs(DEFAULT_TIMEOUT_S)),
            Some(value) => match value.as_u64() {
                Some(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
                _ => Err(invalid(format!(
                    "{CONFIG_KEY_TIMEOUT} must be a number of seconds from 1 to 3600, not {value}"
                ))),
            },
        }
    }

    /// Refuses what ADD could not honour: silence would look like success.
    ///
    /// # Errors
    /// Code 2 for address management by another plugin, 7 for a place in a chain that is not the first.
    pub(crate) fn refuse_unsupported(&self) -> Result<(), CniError> {
        let ipam =
            self.object.get("ipam").filter(|ipam| ipam.as_object().is_some_and(|object| !object.is_empty()));
        if let Some(ipam) = ipam {
            let msg = format!(
                "ipam is not supported (value {ipam}): the agent gives out addresses from the node's pod CIDRs; remove the key"
            );
            return Err(CniError::new(ErrorCode::UNSUPPORTED_FIELD, msg));
        }
        if self.object.get("prevResult").is_some_and(|result| !result.is_null()) {
            return Err(invalid(
                "bristle-cni makes the pod's interface and must be the first plugin of its list".into(),
            ));
        }
        Ok(())
    }

    /// The result of the ADD in the shape of 1.1.0; `None` if the runtime sent none.
    ///
    /// # Errors
    /// Code 6 if it is not a result.
    pub(crate) fn prev_result(&self) -> Result<Option<CniResult>, CniError> {
        match self.object.get("prevResult") {
            None | Some(Value::Null) => Ok(None),
            Some(value) => result_from_version(value).map(Some).map_err(|error| {
                CniError::new(ErrorCode::DECODING_FAILURE, "prevResult is not a CNI result")
                    .with_details(error.to_string())
            }),
        }
    }

    /// The attachments that GC shall spare.
    ///
    /// # Errors
    /// Code 7 if the list is missing: taking that for an empty one would remove every pod's network. 6 if it is no list of attachments.
    pub(crate) fn valid_attachments(&self) -> Result<Vec<Attachment>, CniError> {
        let [key, _] = VALID_ATTACHMENTS;
        match VALID_ATTACHMENTS.iter().find_map(|key| self.object.get(*key)) {
            None => Err(invalid(format!("GC needs the list {key}; the container runtime has to pass it"))),
            // How Go writes an empty list.
            Some(Value::Null) => Ok(Vec::new()),
            Some(list) => Vec::<Attachment>::deserialize(list).map_err(|error| {
                CniError::new(ErrorCode::DECODING_FAILURE, format!("{key} is not a list of attachments"))
                    .with_details(error.to_string())
            }),
        }
    }

    /// What the agent gets to see: without the parts that are sent apart.
    pub(crate) fn for_agent(&self) -> Value {
        let apart = |key: &str| key == "prevResult" || VALID_ATTACHMENTS.contains(&key);
        self.object
            .iter()
            .filter(|(key, _)| !apart(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

/// Reads a JSON object.
fn read_object(input: &mut dyn Read) -> Result<Map<String, Value>, CniError> {
    let mut bytes = Vec::new();
    input.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes).map_err(|error| {
        CniError::new(ErrorCode::IO_FAILURE, "cannot read standard input").with_details(error.to_string())
    })?;
    let decoding = |msg: &str| CniError::new(ErrorCode::DECODING_FAILURE, msg);
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        return Err(decoding("the network configuration on standard input is longer than 1 MiB"));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(decoding(
            "standard input is empty; the container runtime has to pass the network configuration",
        ));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        decoding("the network configuration on standard input is not a JSON object")
            .with_details(error.to_string())
    })
}

/// The version that VERSION was asked with, as it is to be repeated; the reference library ignores the input of VERSION, so nothing here is
/// an error.
pub(crate) fn asked_version(input: &mut dyn Read) -> String {
    let version =
        read_object(input).ok().and_then(|object| object.get("cniVersion")?.as_str().map(str::to_owned));
    version.filter(|text| !text.is_empty()).unwrap_or_else(|| Version::LATEST.as_str().into())
}

fn invalid(msg: String) -> CniError {
    CniError::new(ErrorCode::INVALID_NETWORK_CONFIG, msg)
}
