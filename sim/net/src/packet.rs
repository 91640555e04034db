//! What a trace says about a frame, in one line.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::frame::{ETHERNET, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Mac, mac_at, u16_at, u32_at};
use crate::ip::{self, Ip};

/// The port of VXLAN.
const VXLAN: u16 = 8472;
/// Tunnels within tunnels that are looked into.
const MOST_TUNNELS: u32 = 4;

/// A frame as far as it can be read. Any bytes can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Link layer destination and source, if the frame is long enough.
    pub macs: Option<(Mac, Mac)>,
    /// What the frame carries.
    pub ethertype: Option<u16>,
    /// What it says.
    pub content: Content,
    /// Its length in bytes.
    pub length: usize,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An ARP frame: operation, who asks or answers, about whom.
    Arp {
        /// 1 asks, 2 answers.
        operation: u16,
        /// The sender's protocol address.
        sender: Ipv4Addr,
        /// The target's.
        target: Ipv4Addr,
    },
    /// An IP packet.
    Ip {
        /// Where it comes from.
        source: IpAddr,
        /// Where it goes.
        destination: IpAddr,
        /// The protocol number, behind extension headers.
        protocol: u8,
        /// How far it may go.
        hop_limit: u8,
        /// Byte offset and "more fragments", if it is a fragment.
        fragment: Option<(usize, bool)>,
        /// What the transport header says.
        transport: Transport,
    },
    /// Another protocol, or too short to tell.
    Other,
}

/// What a transport header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Flags, FIN being the lowest bit.
        flags: u8,
        /// Bytes of data.
        data: usize,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Bytes of data.
        data: usize,
    },
    /// VXLAN over UDP.
    Vxlan {
        /// The network identifier.
        vni: u32,
        /// The frame within.
        inner: Box<Summary>,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// Identifier and sequence number of an echo message.
        echo: Option<(u16, u16)>,
    },
    /// Another protocol, a later fragment, or too short to tell.
    Other,
}

impl Summary {
    /// Reads a frame.
    pub fn of(bytes: &[u8]) -> Self {
        Self::within(bytes, 0)
    }

    fn within(bytes: &[u8], tunnels: u32) -> Self {
        let ethertype = u16_at(bytes, 12);
        let packet = bytes.get(ETHERNET..).unwrap_or_default();
        let content = match ethertype {
            Some(ETHERTYPE_ARP) => arp(packet),
            Some(ETHERTYPE_IPV4 | ETHERTYPE_IPV6) => {
                Ip::quoted(packet).map(|ip| content(&ip, packet, tunnels))
            }
            _ => None,
        };
        Self {
            macs: mac_at(bytes, 0).zip(mac_at(bytes, 6)),
            ethertype,
            content: content.unwrap_or(Content::Other),
            length: bytes.len(),
        }
    }

    /// The frame within all tunnels.
    pub fn innermost(&self) -> &Self {
        match &self.content {
            Content::Ip { transport: Transport::Vxlan { inner, .. }, .. } => inner.innermost(),
            _ => self,
        }
    }
}

fn arp(body: &[u8]) -> Option<Content> {
    Some(Content::Arp {
        operation: u16_at(body, 6)?,
        sender: Ipv4Addr::from(u32_at(body, 14)?),
        target: Ipv4Addr::from(u32_at(body, 24)?),
    })
}

fn content(ip: &Ip, packet: &[u8], tunnels: u32) -> Content {
    let payload = packet.get(ip.payload..ip.end.min(packet.len())).unwrap_or_default();
    let transport = if ip.is_first() { transport(ip.protocol, payload, tunnels) } else { None };
    Content::Ip {
        source: ip.source,
        destination: ip.destination,
        protocol: ip.protocol,
        hop_limit: ip.hop_limit,
        fragment: ip.piece.map(|piece| (piece.offset, piece.more)),
        transport: transport.unwrap_or(Transport::Other),
    }
}

fn transport(protocol: u8, payload: &[u8], tunnels: u32) -> Option<Transport> {
    let ports = u16_at(payload, 0).zip(u16_at(payload, 2));
    Some(match protocol {
        ip::TCP => {
            let (source, destination) = ports?;
            let header = usize::from(payload.get(12)? >> 4) * 4;
            Transport::Tcp {
                source,
                destination,
                flags: *payload.get(13)?,
                data: payload.len().saturating_sub(header),
            }
        }
        ip::UDP => {
            let (source, destination) = ports?;
            let vni = u32_at(payload, 12).map(|word| word >> 8);
            match (vni, payload.get(16..)) {
                (Some(vni), Some(inner)) if destination == VXLAN && tunnels < MOST_TUNNELS => {
                    Transport::Vxlan { vni, inner: Box::new(Summary::within(inner, tunnels + 1)) }
                }
                _ => Transport::Udp { source, destination, data: payload.len().saturating_sub(8) },
            }
        }
        ip::ICMP | ip::ICMPV6 => {
            let kind = *payload.first()?;
            let is_echo =
                if protocol == ip::ICMP { matches!(kind, 0 | 8) } else { matches!(kind, 128 | 129) };
            let echo = u16_at(payload, 4).zip(u16_at(payload, 6)).filter(|_| is_echo);
            Transport::Icmp { kind, code: *payload.get(1)?, echo }
        }
        _ => return None,
    })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Arp { operation: 1, sender, target } => write!(f, "{sender} asks who has {target}"),
            Content::Arp { operation: 2, sender, .. } => {
                write!(f, "{sender} is at ")?;
                self.macs.map_or(Ok(()), |(_, source)| mac(f, source))
            }
            Content::Arp { operation, sender, target } => write!(f, "{sender} → {target} ARP {operation}"),
            Content::Other => match self.ethertype {
                Some(ethertype) => write!(f, "ethertype {ethertype:#06x}, {} bytes", self.length),
                None => write!(f, "{} bytes", self.length),
            },
            Content::Ip { source, destination, protocol, fragment, transport, .. } => {
                packet(f, (*source, *destination), *protocol, transport)?;
                match fragment {
                    Some((offset, more)) => {
                        write!(f, " fragment at {offset}{}", if *more { "+" } else { "" })
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

fn packet(
    f: &mut fmt::Formatter<'_>,
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    transport: &Transport,
) -> fmt::Result {
    use std::net::SocketAddr;
    match transport {
        Transport::Tcp { source: from, destination: to, flags, data } => {
            let (from, to) = (SocketAddr::new(source, *from), SocketAddr::new(destination, *to));
            write!(f, "{from} → {to} TCP ")?;
            let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
            let mut set =
                names.iter().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0).map(|(_, name)| *name);
            f.write_str(set.next().unwrap_or("none"))?;
            set.try_for_each(|name| write!(f, "+{name}"))?;
            if *data > 0 { write!(f, " {data} bytes") } else { Ok(()) }
        }
        Transport::Udp { source: from, destination: to, data } => {
            let (from, to) = (SocketAddr::new(source, *from), SocketAddr::new(destination, *to));
            write!(f, "{from} → {to} UDP {data} bytes")
        }
        Transport::Vxlan { vni, inner } => write!(f, "{source} → {destination} VXLAN {vni} [{inner}]"),
        Transport::Icmp { kind, code, echo } => {
            write!(f, "{source} → {destination} {}", icmp(protocol, *kind, *code))?;
            match echo {
                Some((identifier, sequence)) => write!(f, " {identifier}/{sequence}"),
                None => Ok(()),
            }
        }
        Transport::Other => write!(f, "{source} → {destination} protocol {protocol}"),
    }
}

fn icmp(protocol: u8, kind: u8, code: u8) -> String {
    let name = match (protocol, kind, code) {
        (ip::ICMP, 0, _) | (ip::ICMPV6, 129, _) => "echo reply",
        (ip::ICMP, 8, _) | (ip::ICMPV6, 128, _) => "echo request",
        (ip::ICMP, 3, 0) | (ip::ICMPV6, 1, 0) => "no route",
        (ip::ICMP, 3, 1) | (ip::ICMPV6, 1, 3) => "host unreachable",
        (ip::ICMP, 3, 2) => "protocol unreachable",
        (ip::ICMP, 3, 3) | (ip::ICMPV6, 1, 4) => "port unreachable",
        (ip::ICMP, 3, 4) | (ip::ICMPV6, 2, _) => "too big",
        (ip::ICMP, 11, 0) | (ip::ICMPV6, 3, 0) => "time exceeded",
        (ip::ICMPV6, 133, _) => "router solicitation",
        (ip::ICMPV6, 134, _) => "router advertisement",
        (ip::ICMPV6, 135, _) => "neighbour solicitation",
        (ip::ICMPV6, 136, _) => "neighbour advertisement",
        _ => "",
    };
    let family = if protocol == ip::ICMP { "ICMP" } else { "ICMPv6" };
    if name.is_empty() { format!("{family} {kind}/{code}") } else { format!("{family} {name}") }
}

fn mac(f: &mut fmt::Formatter<'_>, mac: Mac) -> fmt::Result {
    let [a, b, c, d, e, g] = mac;
    write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
}
