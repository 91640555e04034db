//! Calls of CNI plugins as a container runtime makes them (CNI spec 1.1.0, section 3 and 4).

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ns::{NsError, NsSet};

/// Directory of network configurations on the node.
pub(crate) const CONF_DIR: &str = "/etc/cni/net.d";
/// Directory of plugins on the node.
pub(crate) const PLUGIN_DIR: &str = "/opt/cni/bin";
/// The first version with GC.
const GC_VERSION: &str = "1.1.0";
/// Name of the interface in pods.
pub(crate) const IFNAME: &str = "eth0";

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CniError {
    /// There is no configuration (yet).
    #[error("cni plugin not initialized: no network configuration in {CONF_DIR}")]
    NoConfiguration,
    /// The configuration cannot be used.
    #[error("network configuration {}: {why}", file.display())]
    BadConfiguration {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The plugin could not be run.
    #[error("run plugin {plugin}")]
    Spawn {
        /// Its name.
        plugin: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The node is gone.
    #[error(transparent)]
    Node(#[from] NsError),
    /// The plugin said no.
    #[error("plugin {plugin} failed ({command}): {message} (code {code})")]
    Plugin {
        /// Its name.
        plugin: String,
        /// ADD, DEL, GC or STATUS.
        command: &'static str,
        /// CNI error code; 0 when the plugin gave none.
        code: u64,
        /// Its words.
        message: String,
    },
}

/// A network configuration list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NetworkConfig {
    name: String,
    version: String,
    plugins: Vec<Value>,
}

/// The pod that a call is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Container id of the sandbox.
    pub container_id: String,
    /// Path of the network namespace on the node.
    pub netns: PathBuf,
    /// Pod's namespace.
    pub namespace: String,
    /// Pod's name.
    pub name: String,
    /// Pod's UID.
    pub uid: String,
}

impl NetworkConfig {
    /// The first configuration by file name in the node's directory, as runtimes choose it. `dir` is the directory as this
    /// process sees it.
    pub(crate) fn load(dir: &Path) -> Result<Self, CniError> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
            .map_err(|_| CniError::NoConfiguration)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "conflist" || e == "conf" || e == "json"))
            .collect();
        files.sort();
        let file = files.into_iter().next().ok_or(CniError::NoConfiguration)?;
        let bad = |why: String| CniError::BadConfiguration { file: file.clone(), why };
        let text = std::fs::read(&file).map_err(|e| bad(e.to_string()))?;
        let value: Value = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        Self::parse(&value).ok_or_else(|| bad("it has no name or no plugins".into()))
    }

    fn parse(value: &Value) -> Option<Self> {
        let name = value.get("name")?.as_str()?.to_owned();
        let version = value.get("cniVersion").and_then(Value::as_str).unwrap_or("0.2.0").to_owned();
        let plugins = match value.get("plugins") {
            Some(list) => list.as_array()?.clone(),
            None => vec![value.clone()],
        };
        (!plugins.is_empty()).then_some(Self { name, version, plugins })
    }

    /// Attaches a pod; returns the final result of the chain and how long it took.
    pub(crate) async fn add(
        &self,
        node: &Arc<NsSet>,
        pod: &Attachment,
    ) -> Result<(Value, Duration), CniError> {
        let start = Instant::now();
        let mut result = None;
        for plugin in &self.plugins {
            result = Some(self.call(node, "ADD", plugin, result.as_ref(), Some(pod)).await?);
        }
        Ok((result.unwrap_or_default(), start.elapsed()))
    }

    /// Detaches a pod; `previous` is the result of ADD if it is known.
    pub(crate) async fn del(
        &self,
        node: &Arc<NsSet>,
        pod: &Attachment,
        previous: Option<&Value>,
    ) -> Result<(), CniError> {
        for plugin in self.plugins.iter().rev() {
            self.call(node, "DEL", plugin, previous, Some(pod)).await?;
        }
        Ok(())
    }

    /// Asks whether the plugins can attach pods; always yes for versions that have no such question.
    pub(crate) async fn status(&self, node: &Arc<NsSet>) -> Result<(), CniError> {
        let version: Vec<u32> = self.version.split('.').filter_map(|n| n.parse().ok()).collect();
        if version < vec![1, 1, 0] {
            return Ok(());
        }
        for plugin in &self.plugins {
            self.call(node, "STATUS", plugin, None, None).await?;
        }
        Ok(())
    }

    /// Lets the plugins remove whatever is not among these attachments. As this is only asked for on purpose, it is called also where the
    /// configuration has a version without GC.
    pub(crate) async fn gc(&self, node: &Arc<NsSet>, valid: &[Attachment]) -> Result<(), CniError> {
        let list: Vec<Value> =
            valid.iter().map(|pod| json!({"containerID": pod.container_id, "ifname": IFNAME})).collect();
        for plugin in &self.plugins {
            let mut plugin = plugin.clone();
            plugin["cni.dev/valid-attachments"] = json!(list);
            self.call_as(node, GC_VERSION, "GC", &plugin, None, None).await?;
        }
        Ok(())
    }

    async fn call(
        &self,
        node: &Arc<NsSet>,
        command: &'static str,
        plugin: &Value,
        previous: Option<&Value>,
        pod: Option<&Attachment>,
    ) -> Result<Value, CniError> {
        self.call_as(node, &self.version, command, plugin, previous, pod).await
    }

    async fn call_as(
        &self,
        node: &Arc<NsSet>,
        version: &str,
        command: &'static str,
        plugin: &Value,
        previous: Option<&Value>,
        pod: Option<&Attachment>,
    ) -> Result<Value, CniError> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut config = plugin.clone();
        config["name"] = json!(self.name);
        config["cniVersion"] = json!(version);
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        let mut env = BTreeMap::from([
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_PATH", PLUGIN_DIR.to_owned()),
        ]);
        if let Some(pod) = pod {
            env.insert("CNI_CONTAINERID", pod.container_id.clone());
            env.insert("CNI_NETNS", pod.netns.display().to_string());
            env.insert("CNI_IFNAME", IFNAME.to_owned());
            env.insert(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
                    pod.namespace, pod.name, pod.container_id, pod.uid
                ),
            );
        }
        let program = Path::new(PLUGIN_DIR).join(&kind);
        let input = config.to_string();
        let output = node
            .run(move || -> io::Result<_> {
                let mut child = Command::new(program)
                    .env_clear()
                    .envs(env)
                    .current_dir("/")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()?;
                if let Some(mut stdin) = child.stdin.take() {
                    // A plugin that does not read its input says why with its exit code.
                    let _ = stdin.write_all(input.as_bytes());
                }
                child.wait_with_output()
            })
            .await?
            .map_err(|source| CniError::Spawn { plugin: kind.clone(), source })?;
        let value: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        if output.status.success() {
            return Ok(value.unwrap_or_default());
        }
        let text =
            |key: &str| value.as_ref().and_then(|v| v.get(key)).and_then(Value::as_str).unwrap_or_default();
        let message = match (text("msg"), text("details")) {
            ("", _) => format!("{} {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
            (msg, "") => msg.to_owned(),
            (msg, details) => format!("{msg}: {details}"),
        };
        let code = value.as_ref().and_then(|v| v.get("code")).and_then(Value::as_u64).unwrap_or(0);
        Err(CniError::Plugin { plugin: kind, command, code, message })
    }
}

/// The pod's addresses in a result of ADD, in its order.
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result.get("ips").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    ips.iter().filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_and_single_plugins() {
        let list = NetworkConfig::parse(
            &json!({"name": "n", "cniVersion": "1.1.0", "plugins": [{"type": "a"}, {"type": "b"}]}),
        );
        assert_eq!(list.map(|l| l.plugins.len()), Some(2));
        assert!(NetworkConfig::parse(&json!({"name": "n", "type": "a"})).is_some());
        assert!(NetworkConfig::parse(&json!({"name": "n", "plugins": []})).is_none());
        assert!(NetworkConfig::parse(&json!({"plugins": [{}]})).is_none());
    }

    #[test]
    fn addresses_come_without_prefix() {
        let result = json!({"ips": [{"address": "10.0.0.5/32"}, {"address": "fd00::5/128"}, {"address": 1}]});
        let want: Vec<IpAddr> = vec!["10.0.0.5".parse().expect("v4"), "fd00::5".parse().expect("v6")];
        assert_eq!(addresses(&result), want);
        assert!(addresses(&Value::Null).is_empty());
    }
}
