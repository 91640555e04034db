//! Ports, protocols, ICMP types, and what would take a proxy.

use rstest::rstest;
use sim_oracle::Options;

use crate::support::{check, cluster, cnp};

/// Which of the traffic of `default/frontend` an entry lets through to `default/db`, whose ports `client` (TCP 6379) and `dns` (UDP 53) have names.
#[rstest]
#[case::number("toPorts: [{ports: [{port: '80', protocol: TCP}]}]", &["tcp:80"])]
#[case::any_protocol("toPorts: [{ports: [{port: '80'}]}]", &["tcp:80", "udp:80", "sctp:80"])]
#[case::any_protocol_by_name("toPorts: [{ports: [{port: '80', protocol: ANY}]}]", &["tcp:80", "udp:80", "sctp:80"])]
#[case::range("toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}]}]", &["tcp:80", "tcp:81"])]
#[case::zero_is_all("toPorts: [{ports: [{port: '0', protocol: UDP}]}]", &["udp:53", "udp:80"])]
#[case::nothing_is_all("toPorts: [{ports: [{protocol: SCTP}]}]", &["sctp:80"])]
#[case::all_ports_are_no_icmp(
    "toPorts: [{ports: [{port: '0'}]}]",
    &["tcp:80", "tcp:81", "tcp:6379", "udp:53", "udp:80", "sctp:80"]
)]
#[case::name("toPorts: [{ports: [{port: client, protocol: TCP}]}]", &["tcp:6379"])]
#[case::name_of_any_protocol("toPorts: [{ports: [{port: dns}]}]", &["udp:53"])]
#[case::name_with_another_protocol("toPorts: [{ports: [{port: dns, protocol: TCP}]}]", &[])]
#[case::names_are_lower_case("toPorts: [{ports: [{port: Client}]}]", &["tcp:6379"])]
#[case::no_such_name("toPorts: [{ports: [{port: nobody}]}]", &[])]
#[case::lists(
    "toPorts: [{ports: [{port: '80', protocol: TCP}, {port: '53', protocol: UDP}]}, {ports: [{port: '81', protocol: TCP}]}]",
    &["tcp:80", "tcp:81", "udp:53"]
)]
#[case::other_protocols("toPorts: [{ports: [{port: '0', protocol: VRRP}]}]", &[])]
#[case::from_the_first_port("toPorts: [{ports: [{port: '0', endPort: 80, protocol: TCP}]}]", &["tcp:80"])]
#[case::to_the_last_port("toPorts: [{ports: [{port: '00', endPort: 65535, protocol: UDP}]}]", &["udp:53", "udp:80"])]
#[case::zeros_are_no_port("toPorts: [{ports: [{port: '00', protocol: UDP}]}]", &["udp:53", "udp:80"])]
#[case::echo("icmps: [{fields: [{type: 8}]}]", &["icmp:8"])]
#[case::echo_by_name("icmps: [{fields: [{type: EchoRequest, family: IPv4}]}]", &["icmp:8"])]
#[case::echo_of_the_other_family("icmps: [{fields: [{type: 8, family: IPv6}]}]", &[])]
#[case::several_types("icmps: [{fields: [{type: 3}]}, {fields: [{type: 0}, {type: 8}]}]", &["icmp:8", "icmp:3"])]
#[case::everything("", &["tcp:80", "tcp:81", "tcp:6379", "udp:53", "udp:80", "sctp:80", "icmp:8", "icmp:3", "icmp"])]
#[case::http("toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{path: /}]}}]", &[])]
#[case::http_beside_a_plain_rule(
    "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}, {ports: [{port: '80', endPort: 81, protocol: TCP}]}]",
    &["tcp:80", "tcp:81"]
)]
#[case::server_names("toPorts: [{ports: [{port: '80', protocol: TCP}], serverNames: [example.com]}]", &[])]
#[case::tls("toPorts: [{ports: [{port: '80', protocol: TCP}], terminatingTLS: {secret: {name: s}}}]", &[])]
#[case::no_rules("toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {}}]", &["tcp:80"])]
#[case::authentication("authentication: {mode: required}", &[])]
#[case::no_authentication("authentication: {mode: disabled}, toPorts: [{ports: [{port: '80', protocol: TCP}]}]", &["tcp:80"])]
fn traffic_of_a_peer(#[case] traffic: &str, #[case] allowed: &[&str]) {
    let separator = if traffic.is_empty() { "" } else { ", " };
    let spec = format!(
        "{{endpointSelector: {{matchLabels: {{role: db}}}}, ingress: [{{fromEndpoints: [{{}}]{separator}{traffic}}}]}}"
    );
    let cluster = cluster(Options::default(), &[cnp("p", &spec)]);
    let all = ["tcp:80", "tcp:81", "tcp:6379", "udp:53", "udp:80", "sctp:80", "icmp:8", "icmp:3", "icmp"];
    let found: Vec<&str> = all
        .into_iter()
        .filter(|what| {
            crate::support::judge(&cluster, &format!("default/frontend > default/db {what}")).allowed
        })
        .collect();
    assert_eq!(found, allowed);
}

#[test]
fn icmpv6() {
    let spec = "{endpointSelector: {matchLabels: {role: db}}, ingress: [{icmps: [{fields: [{type: EchoRequest, family: IPv6}]}]}]}";
    check(
        &cluster(Options::default(), &[cnp("p", spec)]),
        &[
            ("default/frontend > default/db icmp:128 v6", true),
            ("default/frontend > default/db icmp:129 v6", false),
            ("default/frontend > default/db icmp:128", false),
            ("2001:db8::1 > default/db icmp:128", true),
        ],
    );
}

#[test]
fn names_of_ports_are_those_of_the_destination() {
    let spec = "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: client}]}]}]}";
    check(
        &cluster(Options::default(), &[cnp("p", spec)]),
        &[
            ("default/frontend > default/db tcp:6379", true),
            ("default/frontend > default/db tcp:16379", false),
            ("default/frontend > default/db2 tcp:16379", true),
            ("default/frontend > 10.0.0.1 tcp:6379", false),
        ],
    );
}

#[test]
fn what_takes_a_proxy_is_no_way_in_through_a_deny_either() {
    // What is denied has ports alone; other members are not of its type.
    let spec = "{endpointSelector: {matchLabels: {role: db}}, ingress: [{fromEntities: [all]}], \
                 ingressDeny: [{fromEntities: [all], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]}";
    check(
        &cluster(Options::default(), &[cnp("p", spec)]),
        &[("default/frontend > default/db tcp:80", false), ("default/frontend > default/db tcp:81", true)],
    );
}
