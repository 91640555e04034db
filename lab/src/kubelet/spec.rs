//! The parts of a Pod that a kubelet acts on (core/v1 PodSpec).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A Pod's spec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub host_network: bool,
    pub restart_policy: RestartPolicy,
    pub termination_grace_period_seconds: Option<u64>,
    pub dns_policy: Option<String>,
    pub dns_config: Option<DnsConfig>,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    pub host_aliases: Vec<HostAlias>,
    pub volumes: Vec<Value>,
}

/// What happens when a container ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// Whether a container that ended with this code runs again.
    pub(crate) fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// A container of the spec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub name: String,
    pub image: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: Option<String>,
    pub env: Vec<EnvVar>,
    pub env_from: Vec<EnvFrom>,
    pub ports: Vec<Port>,
    pub volume_mounts: Vec<VolumeMount>,
    pub readiness_probe: Option<Probe>,
    pub liveness_probe: Option<Probe>,
    pub startup_probe: Option<Probe>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EnvVar {
    pub name: String,
    pub value: Option<String>,
    pub value_from: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EnvFrom {
    pub prefix: String,
    pub config_map_ref: Option<NameRef>,
    pub secret_ref: Option<NameRef>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct NameRef {
    pub name: String,
    pub optional: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    pub name: Option<String>,
    pub container_port: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VolumeMount {
    pub name: String,
    pub mount_path: String,
    pub sub_path: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct HostAlias {
    pub ip: String,
    pub hostnames: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct DnsConfig {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<DnsOption>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct DnsOption {
    pub name: String,
    pub value: Option<String>,
}

/// A probe, with the API's defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Probe {
    pub http_get: Option<HttpGet>,
    pub tcp_socket: Option<TcpSocket>,
    pub grpc: Option<TcpSocket>,
    pub exec: Option<ExecAction>,
    pub initial_delay_seconds: u64,
    pub period_seconds: u64,
    pub timeout_seconds: u64,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            http_get: None,
            tcp_socket: None,
            grpc: None,
            exec: None,
            initial_delay_seconds: 0,
            period_seconds: 10,
            timeout_seconds: 1,
            success_threshold: 1,
            failure_threshold: 3,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HttpGet {
    pub path: Option<String>,
    pub port: Value,
    pub host: Option<String>,
    pub scheme: Option<String>,
    pub http_headers: Vec<EnvVar>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct TcpSocket {
    pub port: Value,
    pub host: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ExecAction {
    pub command: Vec<String>,
}

impl PodSpec {
    /// Reads the spec of a Pod object; what has another shape than the API server lets through counts as absent.
    pub(crate) fn of(pod: &Value) -> Self {
        pod.get("spec").and_then(|spec| Self::deserialize(spec).ok()).unwrap_or_default()
    }
}

impl Container {
    /// The number of a port that a probe names or numbers.
    pub(crate) fn port(&self, port: &Value) -> Option<u16> {
        match port {
            Value::Number(n) => n.as_u64().and_then(|n| u16::try_from(n).ok()),
            Value::String(name) => self
                .ports
                .iter()
                .find(|p| p.name.as_ref() == Some(name))
                .map(|p| p.container_port)
                .or_else(|| name.parse().ok()),
            _ => None,
        }
    }
}

/// Replaces `$(NAME)` by the variable's value; `$$` stands for a dollar sign, unknown names stay as they are
/// (core/v1 Container, `command`).
pub(crate) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_it_needs_and_bears_the_rest() {
        let spec = PodSpec::of(&json!({"spec": {
            "containers": [{"name": "a", "image": "b", "ports": [{"name": "http", "containerPort": 80}],
                            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}}, "resources": {"limits": {}}}],
            "tolerations": [1], "restartPolicy": "Never"}}));
        assert_eq!(spec.restart_policy, RestartPolicy::Never);
        let probe = spec.containers[0].readiness_probe.clone().expect("a probe");
        assert_eq!(probe.period_seconds, 10);
        assert_eq!(spec.containers[0].port(&probe.http_get.expect("http").port), Some(80));
        assert_eq!(PodSpec::of(&json!({"spec": 5})), PodSpec::default());
    }

    #[test]
    fn expands_variables_as_the_api_says() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, want) in
            [("$(A)", "1"), ("x$(B)y", "x$(B)y"), ("$$(A)", "$(A)"), ("$A $", "$A $"), ("$(A", "$(A")]
        {
            assert_eq!(expand(text, &env), want);
        }
    }
}
