//! Ports and ICMP types in rules.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::l7::{L7Rules, Listener, TlsContext};
use crate::meta::IntOrString;
use crate::words::words;

/// Most ports of a port rule.
pub const MAX_PORTS: usize = 40;

/// Most ICMP types of an ICMP rule.
pub const MAX_ICMP_FIELDS: usize = 40;

/// Ports, and what may be said on connections to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortRule {
    /// The ports; none given: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 40))]
    pub ports: Vec<PortProtocol>,
    /// How TLS connections of clients end at the proxy.
    #[serde(rename = "terminatingTLS", skip_serializing_if = "Option::is_none")]
    pub terminating_tls: Option<TlsContext>,
    /// How the proxy opens TLS connections to servers.
    #[serde(rename = "originatingTLS", skip_serializing_if = "Option::is_none")]
    pub originating_tls: Option<TlsContext>,
    /// Names of servers that TLS clients may ask for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1),
        extend(
            "items" = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": SERVER_NAME_PATTERN},
            "x-kubernetes-list-type" = "set",
        )
    )]
    pub server_names: Vec<String>,
    /// The proxy listener that gets the connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
    /// What may be said on the connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<L7Rules>,
}

impl PortRule {
    /// True if more is demanded than protocol and port, so that a proxy must look at the connections.
    pub fn needs_proxy(&self) -> bool {
        self.terminating_tls.is_some()
            || self.originating_tls.is_some()
            || !self.server_names.is_empty()
            || self.listener.is_some()
            || self.rules.as_ref().is_some_and(|rules| !rules.is_empty())
    }
}

/// Ports that are denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PortDenyRule {
    /// The ports; none given: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 40))]
    pub ports: Vec<PortProtocol>,
}

/// Ports of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortProtocol {
    /// A number up to 65535 in text, or the name of a container port of the peer that is connected to.
    /// `0` or empty: all ports.
    #[schemars(extend("pattern" = PORT_PATTERN))]
    pub port: String,
    /// Last port of a range that begins with `port`, which is a number then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub end_port: Option<i32>,
    /// Protocol; not given: `ANY`, which is TCP, UDP and SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

/// Port numbers in text, and IANA service names: up to 15 letters, digits and single hyphens, with a letter in it.
const PORT_PATTERN: &str = concat!(
    r"^(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})?$",
    r"|^([0-9]+-?)*[a-zA-Z](-?[a-zA-Z0-9])*$"
);

/// Names of servers; `*.` in front is one label, `**.` one or more.
const SERVER_NAME_PATTERN: &str = r"^(\*\*?|[-a-zA-Z0-9_]+)(\.[-a-zA-Z0-9_]+)*\.?$";

words! {
    /// Protocols in rules. ICMP has rules of its own.
    pub enum Protocol {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
        /// SCTP.
        Sctp = "SCTP",
        /// VRRP, protocol 112.
        Vrrp = "VRRP",
        /// IGMP, protocol 2.
        Igmp = "IGMP",
        /// GRE, protocol 47.
        Gre = "GRE",
        /// IPv4 in IP, protocol 4.
        Ipip = "IPIP",
        /// IPv6 in IP, protocol 41.
        Ipv6 = "IPV6",
        /// ESP, protocol 50.
        Esp = "ESP",
        /// AH, protocol 51.
        Ah = "AH",
        /// TCP, UDP and SCTP.
        Any = "ANY",
    }
}

/// ICMP types.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct IcmpRule {
    /// The types; none given: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 40))]
    pub fields: Vec<IcmpField>,
}

/// One ICMP type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IcmpField {
    /// Address family; not given: IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "IPv4"))]
    pub family: Option<IcmpFamily>,
    /// Number up to 255, or name, of the type.
    #[serde(rename = "type")]
    pub kind: IntOrString,
}

words! {
    /// The family whose ICMP is meant.
    pub enum IcmpFamily {
        /// ICMP.
        Ipv4 = "IPv4",
        /// ICMPv6.
        Ipv6 = "IPv6",
    }
}
