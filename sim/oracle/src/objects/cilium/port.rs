//! Which of the traffic of its peers an entry is about.

use crate::attempt::{Family, Protocol};
use crate::error::OracleError;
use crate::field::Field;
use crate::objects::cilium::{Context, layer7};
use crate::objects::policy::PortMatch;

/// The traffic of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// All, of every protocol.
    All,
    /// What one of these says.
    Ports(Vec<Port>),
    /// ICMP messages of one of these.
    Icmp(Vec<Icmp>),
}

/// A port of `toPorts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) protocol: Protocols,
    pub(crate) number: PortMatch,
    /// Whether a proxy would have to look at the traffic. There is none, so such a port allows nothing.
    pub(crate) needs_proxy: bool,
}

/// Protocols of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocols {
    /// All that have ports.
    Any,
    One(Protocol),
    /// One that no attempt has.
    Unseen,
}

/// Messages of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Icmp {
    pub(crate) family: Family,
    pub(crate) number: u16,
}

const PROTOCOLS: &[(&str, Protocols)] = &[
    ("TCP", Protocols::One(Protocol::Tcp)),
    ("UDP", Protocols::One(Protocol::Udp)),
    ("SCTP", Protocols::One(Protocol::Sctp)),
    ("ANY", Protocols::Any),
    ("VRRP", Protocols::Unseen),
    ("IGMP", Protocols::Unseen),
    ("GRE", Protocols::Unseen),
    ("IPIP", Protocols::Unseen),
    ("IPV6", Protocols::Unseen),
    ("ESP", Protocols::Unseen),
    ("AH", Protocols::Unseen),
];

/// As many ports, and as many types, a list may have.
const MOST: usize = 40;

/// `toPorts` or `icmps`, never both. Without either the entry is about all traffic.
pub(super) fn traffic(entry: &Field<'_>, context: Context<'_>) -> Result<Traffic, OracleError> {
    let (rules, icmps) = (entry.at("toPorts")?, entry.at("icmps")?);
    let (rules, types) = (rules.items()?, icmps.items()?);
    match (rules.is_empty(), types.is_empty()) {
        (true, true) => Ok(Traffic::All),
        (false, false) => Err(icmps.wrong("must not stand beside toPorts")),
        (false, true) => {
            let mut ports = Vec::new();
            for rule in rules {
                ports.extend(port_rule(&rule, context)?);
            }
            Ok(Traffic::Ports(ports))
        }
        (true, false) => {
            let mut all = Vec::new();
            for item in types {
                let fields = item.at("fields")?;
                let fields = limited(&fields)?;
                for field in fields {
                    all.push(icmp(&field)?);
                }
            }
            Ok(Traffic::Icmp(all))
        }
    }
}

fn limited<'a>(list: &Field<'a>) -> Result<Vec<Field<'a>>, OracleError> {
    let items = list.items()?;
    if items.len() > MOST { Err(list.wrong(format!("must have {MOST} items at most"))) } else { Ok(items) }
}

fn port_rule(rule: &Field<'_>, context: Context<'_>) -> Result<Vec<Port>, OracleError> {
    let mut ports = Vec::new();
    for item in limited(&rule.at("ports")?)? {
        ports.push(port(&item)?);
    }
    // What is denied has no more than ports.
    if !context.denies && layer7::is_there(rule, context, &ports)? {
        ports.iter_mut().for_each(|port| port.needs_proxy = true);
    }
    Ok(ports)
}

/// A number, a name, or nothing or "0" for all. The protocol is any unless said. endPort needs a number that is not above it; with
/// "0" the range begins at the first port.
fn port(item: &Field<'_>) -> Result<Port, OracleError> {
    let protocol = item.at("protocol")?;
    let protocol = match protocol.text()? {
        None | Some("") => Protocols::Any,
        Some(_) => protocol.word(PROTOCOLS)?.unwrap_or(Protocols::Any),
    };
    let field = item.at("port")?;
    let end = item.at("endPort")?;
    let last = end.number(0, u64::from(u16::MAX))?.and_then(|last| u16::try_from(last).ok()).unwrap_or(0);
    let port = match field.text()?.unwrap_or_default() {
        "" if last != 0 => return Err(end.wrong("must not stand without port")),
        "" => PortMatch::Any,
        // Zeros in front change nothing.
        text if text.bytes().all(|byte| byte == b'0') && last == 0 => PortMatch::Any,
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            let first: u16 = text.parse().map_err(|error| field.wrong(format!("{text:?}: {error}")))?;
            match last {
                0 => PortMatch::Range(first, first),
                last if last < first => return Err(end.wrong("must not be below port")),
                last => PortMatch::Range(first, last),
            }
        }
        _ if last != 0 => return Err(end.wrong("must not stand beside a named port")),
        name if is_service_name(name) => PortMatch::Named(name.to_ascii_lowercase()),
        name => return Err(field.wrong(format!("{name:?} is neither a number nor a name of a port"))),
    };
    Ok(Port { protocol, number: port, needs_proxy: false })
}

/// RFC 6335: up to 15 letters, digits and single hyphens within, with a letter among them.
fn is_service_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && name.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// The family is IPv4 unless said; the type is a number or a name.
fn icmp(field: &Field<'_>) -> Result<Icmp, OracleError> {
    let family =
        field.at("family")?.word(&[("IPv4", Family::V4), ("IPv6", Family::V6)])?.unwrap_or(Family::V4);
    let kind = field.at("type")?;
    let number = if kind.is_text() {
        let text = kind.required_text()?;
        match text.parse::<u8>() {
            Ok(number) => Some(u16::from(number)),
            Err(_) => kind.word(if family == Family::V4 { TYPES4 } else { TYPES6 })?,
        }
    } else {
        kind.number(0, 255)?.and_then(|number| u16::try_from(number).ok())
    };
    Ok(Icmp { family, number: number.ok_or_else(|| kind.wrong("must be set"))? })
}

const TYPES4: &[(&str, u16)] = &[
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];

const TYPES6: &[(&str, u16)] = &[
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];
