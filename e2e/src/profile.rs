//! Checks the captures of a case against its packet profile.

use std::fmt;
use std::net::IpAddr;

use crate::capture::Capture;
use crate::matrix::{Requirements, Token};
use crate::packet::{Packet, Transport, flags};

const DNS_PORT: u16 = 53;

/// Whose packets count in a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The sender's address.
    pub source: IpAddr,
    /// The target's address, where it is one.
    pub target: Option<IpAddr>,
    /// The target's TCP ports: more than one where a node port may be translated before or after the capture.
    pub ports: Vec<u16>,
}

/// What a capture lacks or has too much of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// No packet of a required kind.
    Missing(Token),
    /// Packets of a forbidden kind, and how many.
    Forbidden(Token, usize),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(token) => write!(f, "no {token}"),
            Self::Forbidden(token, n) => write!(f, "{n} forbidden {token}"),
        }
    }
}

/// Everything about a capture that is not as required; empty if the capture is good.
pub fn check(requirements: &Requirements, flow: &Flow, capture: &Capture) -> Vec<Finding> {
    let count = |token| capture.packets.iter().filter(|packet| is(packet, token, flow)).count();
    let missing = requirements.need.iter().copied().filter(|token| count(*token) == 0).map(Finding::Missing);
    let forbidden = requirements.never.iter().copied().filter_map(|token| {
        let found = count(token);
        (found > 0).then_some(Finding::Forbidden(token, found))
    });
    missing.chain(forbidden).collect()
}

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    There,
    Back,
}

/// Whether a packet is of this kind and belongs to this flow.
fn is(packet: &Packet, token: Token, flow: &Flow) -> bool {
    use Direction::{Back, There};
    match packet.transport {
        Transport::Tcp { source_port, destination_port, flags: found } => {
            // DNS goes to the cluster's DNS, whatever the flow's target is.
            if token == Token::DnsQuery || token == Token::DnsAnswer {
                return is_dns(packet, token, flow, source_port, destination_port);
            }
            let there = way(packet, flow) == Some(There) && flow.ports.contains(&destination_port);
            let back = way(packet, flow) == Some(Back) && flow.ports.contains(&source_port);
            match token {
                Token::Syn => there && found & (flags::SYN | flags::ACK | flags::RST) == flags::SYN,
                Token::SynAck => back && found & (flags::SYN | flags::ACK) == flags::SYN | flags::ACK,
                Token::Fin => (there || back) && found & flags::FIN != 0,
                Token::Rst => (there || back) && found & flags::RST != 0,
                Token::EchoRequest | Token::EchoReply | Token::DnsQuery | Token::DnsAnswer => false,
            }
        }
        Transport::Udp { source_port, destination_port } => {
            is_dns(packet, token, flow, source_port, destination_port)
        }
        Transport::Icmp { kind, .. } => is_echo(token, way(packet, flow), kind, 8, 0),
        Transport::Icmp6 { kind, .. } => is_echo(token, way(packet, flow), kind, 128, 129),
        Transport::Fragment | Transport::Other { .. } => false,
    }
}

fn is_echo(token: Token, way: Option<Direction>, kind: u8, request: u8, reply: u8) -> bool {
    match token {
        Token::EchoRequest => kind == request && way == Some(Direction::There),
        Token::EchoReply => kind == reply && way == Some(Direction::Back),
        _ => false,
    }
}

fn is_dns(packet: &Packet, token: Token, flow: &Flow, source_port: u16, destination_port: u16) -> bool {
    // A pod may ask for its names over the other IP family, so its address is not compared.
    let ours = |address: IpAddr| address == flow.source || address.is_ipv4() != flow.source.is_ipv4();
    match token {
        Token::DnsQuery => destination_port == DNS_PORT && ours(packet.source),
        Token::DnsAnswer => source_port == DNS_PORT && ours(packet.destination),
        _ => false,
    }
}

fn way(packet: &Packet, flow: &Flow) -> Option<Direction> {
    let target = |address: IpAddr| flow.target.is_none_or(|target| target == address);
    if packet.source == flow.source && target(packet.destination) {
        Some(Direction::There)
    } else if packet.destination == flow.source && target(packet.source) {
        Some(Direction::Back)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{build, read};
    use crate::matrix::Matrix;
    use crate::packet::build::{frame, icmp, tcp, udp};

    const SYN: u8 = flags::SYN;
    const SYN_ACK: u8 = flags::SYN | flags::ACK;
    const FIN: u8 = flags::FIN | flags::ACK;
    const RST: u8 = flags::RST | flags::ACK;

    struct Ends {
        client: &'static str,
        server: &'static str,
    }

    const V4: Ends = Ends { client: "10.11.0.5", server: "10.11.1.7" };
    const V6: Ends = Ends { client: "fd00:11:0::5", server: "fd00:11:1::7" };

    impl Ends {
        fn there(&self, flags: u8) -> Vec<u8> {
            frame(self.client, self.server, 6, &tcp(40000, 8080, flags))
        }

        fn back(&self, flags: u8) -> Vec<u8> {
            frame(self.server, self.client, 6, &tcp(8080, 40000, flags))
        }

        fn ping(&self, reply: bool) -> Vec<u8> {
            let v4 = self.client.contains('.');
            let (protocol, request, answer) = if v4 { (1, 8, 0) } else { (58, 128, 129) };
            if reply {
                frame(self.server, self.client, protocol, &icmp(answer))
            } else {
                frame(self.client, self.server, protocol, &icmp(request))
            }
        }

        fn connection(&self) -> Vec<Vec<u8>> {
            vec![self.there(SYN), self.back(SYN_ACK), self.there(flags::ACK), self.there(FIN), self.back(FIN)]
        }

        fn flow(&self) -> Flow {
            Flow {
                source: self.client.parse().expect("an address"),
                target: Some(self.server.parse().expect("an address")),
                ports: vec![8080],
            }
        }
    }

    fn findings(profile: &str, target: bool, flow: &Flow, frames: &[Vec<u8>]) -> String {
        let matrix = Matrix::built_in().expect("the matrix that is compiled in can be read");
        let profile = &matrix.profiles[profile];
        let requirements = if target { profile.target.as_ref().expect("has one") } else { &profile.source };
        let capture = read(&build::pcap(1, frames)[..]).expect("is a capture");
        check(requirements, flow, &capture).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_whole_connection_satisfies_both_ends_in_both_families() {
        for ends in [V4, V6] {
            for target in [false, true] {
                assert_eq!(findings("tcp-both-ends", target, &ends.flow(), &ends.connection()), "");
            }
        }
    }

    #[test]
    fn what_is_missing_or_forbidden_is_named() {
        for ends in [V4, V6] {
            let flow = ends.flow();
            assert_eq!(findings("tcp-both-ends", true, &flow, &[]), "no SYN, no SYN-ACK, no FIN");
            assert_eq!(findings("tcp-both-ends", false, &flow, &[ends.there(SYN)]), "no SYN-ACK, no FIN");
            let mut reset = ends.connection();
            reset.push(ends.back(RST));
            reset.push(ends.there(RST));
            assert_eq!(findings("tcp-both-ends", false, &flow, &reset), "2 forbidden RST");
        }
    }

    #[test]
    fn flags_count_only_in_their_direction() {
        let ends = V4;
        let frames = [ends.back(SYN), ends.there(SYN_ACK), ends.there(FIN)];
        assert_eq!(findings("tcp-both-ends", false, &ends.flow(), &frames), "no SYN, no SYN-ACK");
    }

    #[test]
    fn other_connections_do_not_count() {
        let ends = V4;
        let probe = |flags| frame("172.30.0.1", ends.server, 6, &tcp(999, 8080, flags));
        let other_port = frame(ends.client, ends.server, 6, &tcp(40000, 9090, SYN));
        let frames = [probe(SYN), probe(FIN), probe(RST), other_port, V6.there(SYN)];
        assert_eq!(findings("tcp-both-ends", true, &ends.flow(), &frames), "no SYN, no SYN-ACK, no FIN");
        assert_eq!(findings("tcp-refused", true, &ends.flow(), &frames), "");
    }

    #[test]
    fn a_refused_connection_must_neither_be_answered_nor_arrive() {
        for ends in [V4, V6] {
            let flow = ends.flow();
            assert_eq!(findings("tcp-refused", false, &flow, &[ends.there(SYN), ends.there(SYN)]), "");
            assert_eq!(findings("tcp-refused", true, &flow, &[]), "");
            assert_eq!(
                findings("tcp-refused", false, &flow, &ends.connection()),
                "1 forbidden SYN-ACK, 2 forbidden FIN"
            );
            assert_eq!(findings("tcp-refused", true, &flow, &[ends.there(SYN)]), "1 forbidden SYN");
            assert_eq!(findings("tcp-refused", false, &flow, &[]), "no SYN");
        }
    }

    #[test]
    fn pings_are_checked_in_both_families() {
        for ends in [V4, V6] {
            let flow = Flow { ports: vec![], ..ends.flow() };
            let both = [ends.ping(false), ends.ping(true)];
            assert_eq!(findings("ping-both-ends", false, &flow, &both), "");
            assert_eq!(findings("ping-node", false, &flow, &both[..1]), "no echo reply");
            assert_eq!(findings("ping-refused", false, &flow, &both[..1]), "");
            assert_eq!(findings("ping-refused", true, &flow, &both[..1]), "1 forbidden echo request");
            assert_eq!(findings("ping-refused", false, &flow, &both), "1 forbidden echo reply");
        }
    }

    #[test]
    fn a_service_needs_its_name_looked_up_over_either_family() {
        let ends = V6;
        let flow = Flow { target: None, ..ends.flow() };
        assert_eq!(findings("service", false, &flow, &ends.connection()), "no DNS query, no DNS answer");
        for (dns, client) in [("fd00:11:0::a", ends.client), ("10.11.0.9", "10.11.0.5")] {
            let mut frames = ends.connection();
            frames.push(frame(client, dns, 17, &udp(5353, 53, b"?")));
            frames.push(frame(dns, client, 17, &udp(53, 5353, b"!")));
            assert_eq!(findings("service", false, &flow, &frames), "");
        }
    }

    #[test]
    fn a_node_port_counts_before_and_after_translation() {
        let ends = V4;
        let flow = Flow { target: None, ports: vec![31000, 8080], ..ends.flow() };
        assert_eq!(findings("node-port", false, &flow, &ends.connection()), "");
        let node = "172.30.0.2";
        let frames = [
            frame(ends.client, node, 6, &tcp(4, 31000, SYN)),
            frame(node, ends.client, 6, &tcp(31000, 4, SYN_ACK)),
            frame(node, ends.client, 6, &tcp(31000, 4, FIN)),
        ];
        assert_eq!(findings("node-port", false, &flow, &frames), "");
    }
}
