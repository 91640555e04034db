//! What is refused, and that the last valid version stays.

use rstest::rstest;
use sim_oracle::Options;

use crate::support::{ccnp, check, cluster, cnp};

#[rstest]
#[case::no_selector("{ingress: [{}]}", "spec.endpointSelector")]
#[case::two_selectors("{endpointSelector: {}, nodeSelector: {}, ingress: [{}]}", "spec.nodeSelector")]
#[case::nodes_in_a_namespace("{nodeSelector: {}, ingress: [{}]}", "spec.nodeSelector")]
#[case::no_rules("{endpointSelector: {}}", "spec")]
#[case::only_empty_lists("{endpointSelector: {}, ingress: [], egress: []}", "spec")]
#[case::two_kinds_of_peers(
    "{endpointSelector: {}, ingress: [{fromEndpoints: [{}], fromEntities: [world]}]}",
    "spec.ingress[0].fromEntities"
)]
#[case::cidr_and_cidr_set(
    "{endpointSelector: {}, egress: [{toCIDR: [10.0.0.0/8], toCIDRSet: [{cidr: 10.0.0.0/8}]}]}",
    "spec.egress[0].toCIDRSet"
)]
#[case::requires("{endpointSelector: {}, ingress: [{fromRequires: [{}]}]}", "spec.ingress[0].fromRequires")]
#[case::no_such_entity(
    "{endpointSelector: {}, ingress: [{fromEntities: [friends]}]}",
    "spec.ingress[0].fromEntities[0]"
)]
#[case::no_cidr(
    "{endpointSelector: {}, ingress: [{fromCIDR: [10.0.0.0/33]}]}",
    "spec.ingress[0].fromCIDR[0]"
)]
#[case::except_outside(
    "{endpointSelector: {}, ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]}]}",
    "spec.ingress[0].fromCIDRSet[0].except"
)]
#[case::two_in_one_cidr_rule(
    "{endpointSelector: {}, ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, cidrGroupRef: g}]}]}",
    "spec.ingress[0].fromCIDRSet[0]"
)]
#[case::none_in_a_cidr_rule(
    "{endpointSelector: {}, ingress: [{fromCIDRSet: [{}]}]}",
    "spec.ingress[0].fromCIDRSet[0]"
)]
#[case::ports_and_types(
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '1'}]}], icmps: [{fields: [{type: 8}]}]}]}",
    "spec.ingress[0].icmps"
)]
#[case::port_too_large(
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '65536'}]}]}]}",
    "spec.ingress[0].toPorts[0].ports[0].port"
)]
#[case::port_with_odd_letters(
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: 'a_b'}]}]}]}",
    "spec.ingress[0].toPorts[0].ports[0].port"
)]
#[case::end_below_port(
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '80', endPort: 79}]}]}]}",
    "spec.ingress[0].toPorts[0].ports[0].endPort"
)]
#[case::end_of_nothing(
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{endPort: 79}]}]}]}",
    "spec.ingress[0].toPorts[0].ports[0].endPort"
)]
#[case::end_of_a_name(
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: web, endPort: 79}]}]}]}",
    "spec.ingress[0].toPorts[0].ports[0].endPort"
)]
#[case::protocol(
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '80', protocol: ICMP}]}]}]}",
    "spec.ingress[0].toPorts[0].ports[0].protocol"
)]
#[case::no_such_type(
    "{endpointSelector: {}, ingress: [{icmps: [{fields: [{type: PacketTooBig, family: IPv4}]}]}]}",
    "spec.ingress[0].icmps[0].fields[0].type"
)]
#[case::http_over_udp(
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '80'}], rules: {http: [{}]}}]}]}",
    "spec.ingress[0].toPorts[0].rules.http"
)]
#[case::http_on_all_ports(
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '0', protocol: TCP}], rules: {http: [{}]}}]}]}",
    "spec.ingress[0].toPorts[0].rules.http"
)]
#[case::two_kinds_of_rules(
    "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '53', protocol: TCP}], rules: {http: [{}], dns: [{matchPattern: '*'}]}}]}]}",
    "spec.egress[0].toPorts[0].rules.dns"
)]
#[case::dns_in_ingress(
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]}]}",
    "spec.ingress[0].toPorts[0].rules.dns"
)]
#[case::names_with_rules(
    "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '443', protocol: TCP}], serverNames: [a.b], rules: {http: [{}]}}]}]}",
    "spec.egress[0].toPorts[0].serverNames"
)]
#[case::operator(
    "{endpointSelector: {matchExpressions: [{key: a, operator: In}]}, ingress: [{}]}",
    "spec.endpointSelector.matchExpressions[0].values"
)]
#[case::no_name("{endpointSelector: {}, egress: [{toFQDNs: [{}]}]}", "spec.egress[0].toFQDNs[0]")]
#[case::no_service("{endpointSelector: {}, egress: [{toServices: [{}]}]}", "spec.egress[0].toServices[0]")]
fn invalid_objects_are_refused_and_the_last_valid_version_stays(#[case] spec: &str, #[case] field: &str) {
    let valid = "{endpointSelector: {matchLabels: {role: db}}, ingress: [{}]}";
    let mut cluster = cluster(Options::default(), &[cnp("p", valid)]);
    let error = cluster.set(&cnp("p", spec)).unwrap_err();
    assert_eq!(
        (error.object.as_str(), error.field.as_str()),
        ("CiliumNetworkPolicy default/p", field),
        "{error}"
    );
    check(
        &cluster,
        &[("default/plain > default/db tcp:1", false), ("default/plain > default/frontend tcp:1", true)],
    );
    assert!(cluster.set(&cnp("q", spec)).is_err());
    check(&cluster, &[("default/plain > default/frontend tcp:1", true)]);
}

#[test]
fn lists_have_bounds() {
    let ports: Vec<String> = (1..=41).map(|port| format!("{{port: '{port}'}}")).collect();
    let spec = |count: usize| {
        format!(
            "{{endpointSelector: {{}}, ingress: [{{toPorts: [{{ports: [{}]}}]}}]}}",
            ports[..count].join(", ")
        )
    };
    let mut cluster = cluster(Options::default(), &[cnp("p", &spec(40))]);
    assert!(cluster.set(&cnp("p", &spec(41))).is_err());
}

#[test]
fn one_bad_spec_refuses_all() {
    let mut policy = cnp("p", "{endpointSelector: {}, ingress: [{}]}");
    policy["specs"] = serde_json::json!([{"endpointSelector": {}}]);
    let mut cluster = cluster(Options::default(), &[]);
    assert!(cluster.set(&policy).is_err());
    check(&cluster, &[("default/plain > default/db tcp:1", true)]);
}

#[test]
fn host_policies_take_no_http() {
    let mut cluster = cluster(Options::default(), &[]);
    let spec = "{nodeSelector: {}, ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]}";
    assert!(cluster.set(&ccnp("p", spec)).is_err());
    let spec = "{nodeSelector: {}, egress: [{toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]}]}";
    assert_eq!(cluster.set(&ccnp("p", spec)), Ok(()));
}
