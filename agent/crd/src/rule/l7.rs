//! What only a proxy can enforce: parts of rules about TLS, HTTP, DNS and other protocols.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::peers::FqdnSelector;
use crate::words::words;

/// What may be said on connections: one of the kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct L7Rules {
    /// HTTP requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Vec<HttpRule>>,
    /// Kafka requests; deprecated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<Vec<KafkaRule>>,
    /// DNS queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<FqdnSelector>>,
    /// Name of another protocol; deprecated.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l7proto: String,
    /// Keys and values of requests of the other protocol; deprecated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l7: Option<Vec<BTreeMap<String, String>>>,
}

impl L7Rules {
    /// True if nothing is demanded.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Names of the kinds that are there; more than one is a mistake in the policy.
    pub fn kinds(&self) -> Vec<&'static str> {
        [
            ("http", self.http.is_some()),
            ("kafka", self.kafka.is_some()),
            ("dns", self.dns.is_some()),
            ("l7", self.l7.is_some() || !self.l7proto.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
    }
}

/// HTTP requests. What is not set does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRule {
    /// Extended POSIX regular expression that the whole path matches.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Extended POSIX regular expression that the method matches.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// Extended POSIX regular expression that the host matches.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Headers, `Name: value` or the name alone, that must be there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Headers with what to do if they are not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub header_matches: Vec<HeaderMatch>,
}

/// A header and what to do without it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeaderMatch {
    /// What to do if it is not there or has another value; not given: deny the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<MismatchAction>,
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// A secret with its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

words! {
    /// What to do with a request without the wanted header.
    pub enum MismatchAction {
        /// Let it through and log it.
        Log = "LOG",
        /// Add the header.
        Add = "ADD",
        /// Take the header off.
        Delete = "DELETE",
        /// Give the header the value.
        Replace = "REPLACE",
    }
}

/// Kafka requests. What is not set does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KafkaRule {
    /// `produce` or `consume`: the keys that a client of this role needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<KafkaRole>,
    /// Name of the request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_key: String,
    /// Version of the request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Name of the client.
    #[serde(rename = "clientID", skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// Name of the topic.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 255))]
    pub topic: String,
}

words! {
    /// A role of Kafka clients.
    pub enum KafkaRole {
        /// Writes.
        Produce = "produce",
        /// Reads.
        Consume = "consume",
    }
}

/// Keys and certificates for TLS at the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsContext {
    /// The secret that holds them.
    pub secret: SecretRef,
    /// Key in the secret of the trusted authorities; not given: `ca.crt`.
    #[serde(rename = "trustedCA", default, skip_serializing_if = "String::is_empty")]
    pub trusted_ca: String,
    /// Key in the secret of the certificate; not given: `tls.crt`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub certificate: String,
    /// Key in the secret of the private key; not given: `tls.key`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub private_key: String,
}

/// A secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Its namespace; empty: where secrets for the proxy are kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A listener of the proxy that is configured on its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The object that configures it.
    pub envoy_config: ListenerRef,
    /// Its name there.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Of several listeners for one connection that with the lowest number has it; not given: behind all with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub priority: Option<u8>,
}

/// An object that configures listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListenerRef {
    /// Its kind; not given: CiliumEnvoyConfig for policies of a namespace, CiliumClusterwideEnvoyConfig for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ListenerKind>,
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
}

words! {
    /// A kind of object that configures listeners.
    pub enum ListenerKind {
        /// In the policy's namespace.
        Namespaced = "CiliumEnvoyConfig",
        /// In the cluster.
        Clusterwide = "CiliumClusterwideEnvoyConfig",
    }
}
