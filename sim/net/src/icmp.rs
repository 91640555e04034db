//! ICMP errors (RFC 792, 1812, 4443): when one may be sent, how it looks, and what a received one says.

use std::net::IpAddr;

use crate::frame::u32_at;
use crate::ip::{self, Ip};

/// Types of ICMPv4.
pub(crate) const V4_ECHO_REPLY: u8 = 0;
pub(crate) const V4_UNREACHABLE: u8 = 3;
pub(crate) const V4_ECHO_REQUEST: u8 = 8;
pub(crate) const V4_TIME_EXCEEDED: u8 = 11;
/// Types of ICMPv6.
pub(crate) const V6_UNREACHABLE: u8 = 1;
pub(crate) const V6_TOO_BIG: u8 = 2;
pub(crate) const V6_TIME_EXCEEDED: u8 = 3;
pub(crate) const V6_PARAMETER_PROBLEM: u8 = 4;
pub(crate) const V6_ECHO_REQUEST: u8 = 128;
pub(crate) const V6_ECHO_REPLY: u8 = 129;
pub(crate) const V6_SOLICITATION: u8 = 135;
pub(crate) const V6_ADVERTISEMENT: u8 = 136;

/// How long an error may be: RFC 1812 section 4.3.2.3, and the least MTU of IPv6 (RFC 4443 section 3).
const MOST_V4: usize = 576;
const MOST_V6: usize = 1280;

/// What went wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    NoRoute,
    HostUnreachable,
    ProtocolUnreachable,
    PortUnreachable,
    HopLimit,
    /// With the MTU of the next link.
    TooBig(u32),
}

/// Builds the error about a packet, if one may be sent about it.
pub(crate) fn error(error: Error, from: IpAddr, about: &[u8]) -> Option<Vec<u8>> {
    let ip = Ip::parse(about).ok()?;
    if !may_answer(&ip, about, error) || from.is_ipv4() != ip.source.is_ipv4() {
        return None;
    }
    let (kind, code, rest) = if from.is_ipv4() {
        match error {
            Error::NoRoute => (V4_UNREACHABLE, 0, 0),
            Error::HostUnreachable => (V4_UNREACHABLE, 1, 0),
            Error::ProtocolUnreachable => (V4_UNREACHABLE, 2, 0),
            Error::PortUnreachable => (V4_UNREACHABLE, 3, 0),
            Error::TooBig(mtu) => (V4_UNREACHABLE, 4, mtu.min(0xFFFF)),
            Error::HopLimit => (V4_TIME_EXCEEDED, 0, 0),
        }
    } else {
        match error {
            Error::NoRoute => (V6_UNREACHABLE, 0, 0),
            Error::HostUnreachable => (V6_UNREACHABLE, 3, 0),
            Error::PortUnreachable => (V6_UNREACHABLE, 4, 0),
            // The pointer is to the field that names the protocol; without extension headers that is byte 6.
            Error::ProtocolUnreachable => (V6_PARAMETER_PROBLEM, 1, 6),
            Error::TooBig(mtu) => (V6_TOO_BIG, 0, mtu),
            Error::HopLimit => (V6_TIME_EXCEEDED, 0, 0),
        }
    };
    let most = if from.is_ipv4() { MOST_V4 - 28 } else { MOST_V6 - 48 };
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&rest.to_be_bytes());
    message.extend_from_slice(&about[..ip.end.min(most)]);
    let protocol = if from.is_ipv4() { ip::ICMP } else { ip::ICMPV6 };
    ip::seal((from, ip.source), protocol, 2, &mut message);
    Some(ip::build((from, ip.source), protocol, 64, Some(0), &message))
}

/// The rules of RFC 1122 section 3.2.2 and RFC 4443 section 2.4(e).
fn may_answer(ip: &Ip, packet: &[u8], error: Error) -> bool {
    let about_error = match (ip.protocol, packet.get(ip.payload)) {
        (ip::ICMP, Some(kind)) if ip.source.is_ipv4() => is_error_v4(*kind),
        (ip::ICMPV6, Some(kind)) if ip.source.is_ipv6() => *kind < 128,
        _ => false,
    };
    // Too big is the one error that may be about a multicast packet, but only in IPv6.
    let to_many =
        ip::is_multicast(ip.destination) && !(ip.destination.is_ipv6() && matches!(error, Error::TooBig(_)));
    ip.is_first()
        && !about_error
        && !to_many
        && !ip::is_multicast(ip.source)
        && !ip.source.is_unspecified()
        && !ip.source.is_loopback()
}

fn is_error_v4(kind: u8) -> bool {
    !matches!(kind, V4_ECHO_REPLY | V4_ECHO_REQUEST | 9 | 10 | 13..=18)
}

/// What a received error says, and about which packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report<'a> {
    /// The MTU if the packet was too big, otherwise nothing.
    pub(crate) too_big: Option<u32>,
    pub(crate) about: Ip,
    /// The beginning of the packet.
    pub(crate) quote: &'a [u8],
}

/// Reads an ICMP message that is an error; nothing if it is another one.
pub(crate) fn report(v4: bool, message: &[u8]) -> Option<Report<'_>> {
    let kind = *message.first()?;
    let code = *message.get(1)?;
    let known = if v4 {
        matches!(kind, V4_UNREACHABLE | V4_TIME_EXCEEDED | 12)
    } else {
        matches!(kind, V6_UNREACHABLE | V6_TOO_BIG | V6_TIME_EXCEEDED | V6_PARAMETER_PROBLEM)
    };
    let quote = message.get(8..)?;
    let about = Ip::quoted(quote)?;
    if !known || about.source.is_ipv4() != v4 {
        return None;
    }
    let rest = u32_at(message, 4)?;
    let too_big = match (v4, kind, code) {
        (true, V4_UNREACHABLE, 4) => Some(rest & 0xFFFF),
        (false, V6_TOO_BIG, _) => Some(rest),
        _ => None,
    };
    Some(Report { too_big, about, quote })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn packet(source: &str, destination: &str, protocol: u8, data: &[u8]) -> Vec<u8> {
        ip::build((source.parse().unwrap(), destination.parse().unwrap()), protocol, 64, Some(9), data)
    }

    #[rstest]
    #[case::a_datagram("10.0.0.1", "10.0.0.2", ip::UDP, true)]
    #[case::an_echo_request("10.0.0.1", "10.0.0.2", ip::ICMP, true)]
    #[case::to_a_group("10.0.0.1", "224.0.0.9", ip::UDP, false)]
    #[case::to_everybody("10.0.0.1", "255.255.255.255", ip::UDP, false)]
    #[case::from_nobody("0.0.0.0", "10.0.0.2", ip::UDP, false)]
    #[case::from_a_group("224.0.0.9", "10.0.0.2", ip::UDP, false)]
    #[case::a_datagram_v6("fd00::1", "fd00::2", ip::UDP, true)]
    #[case::to_a_group_v6("fd00::1", "ff02::1", ip::UDP, false)]
    #[case::from_nobody_v6("::", "fd00::2", ip::UDP, false)]
    fn about_what(#[case] source: &str, #[case] destination: &str, #[case] protocol: u8, #[case] may: bool) {
        let about = packet(source, destination, protocol, &[8, 0, 0, 0, 0, 0, 0, 0]);
        let from = if source.contains(':') { "fd00::9" } else { "10.0.0.9" };
        assert_eq!(error(Error::HopLimit, from.parse().unwrap(), &about).is_some(), may);
    }

    #[rstest]
    #[case("10.0.0.1", "10.0.0.2", 576)]
    #[case("fd00::1", "fd00::2", 1280)]
    fn a_quote_is_as_long_as_it_may_be_and_no_error_is_answered(
        #[case] source: &str,
        #[case] destination: &str,
        #[case] most: usize,
    ) {
        let from: IpAddr = destination.parse().unwrap();
        let about = packet(source, destination, ip::UDP, &[7; 4000]);
        let told = error(Error::TooBig(1400), from, &about).unwrap();
        assert_eq!(told.len(), most);
        let ip = Ip::parse(&told).unwrap();
        let said = report(from.is_ipv4(), &told[ip.payload..ip.end]).unwrap();
        assert_eq!((said.too_big, said.about.destination), (Some(1400), from));
        assert_eq!(said.quote, &about[..said.quote.len()]);
        assert_eq!(error(Error::HopLimit, source.parse().unwrap(), &told), None);
    }

    #[test]
    fn a_later_fragment_is_not_told_of() {
        let whole = packet("10.0.0.1", "10.0.0.2", ip::UDP, &[7; 4000]);
        let pieces = crate::fragment::cut(&whole, 1400, 5);
        let told = |piece: &Vec<u8>| error(Error::HopLimit, "10.0.0.9".parse().unwrap(), piece).is_some();
        assert_eq!(pieces.iter().map(told).collect::<Vec<_>>(), [true, false, false]);
    }
}
