//! What objects come to, and why some cannot be taken.

use std::collections::BTreeSet;

use agent_crd::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, ClusterNetworkPolicy, NetworkPolicy, Object,
};
use agent_policy::{
    Action, Kind, ObjectRef, Outcome, Policy, PolicyObject, PortRange, Ports, Rule, Severity, Spec, Store,
    normalise, proto,
};
use rstest::rstest;
use serde_json::{Value, json};

fn object<T: Object>(spec: &str, namespace: &str) -> T {
    let mut object: Value = serde_yaml_ng::from_str(spec).unwrap();
    object["metadata"] = json!({"name": "p", "namespace": namespace});
    T::from_json(object).unwrap()
}

/// A rule of a CiliumNetworkPolicy for all pods.
fn cilium(rule: &str) -> CiliumNetworkPolicy {
    object(&format!("spec: {{endpointSelector: {{}}, {rule}}}"), "shop")
}

fn clusterwide(rule: &str) -> CiliumClusterwideNetworkPolicy {
    object(&format!("spec: {{{rule}}}"), "")
}

fn kubernetes(spec: &str) -> NetworkPolicy {
    object(&format!("spec: {{{spec}}}"), "shop")
}

fn cluster(spec: &str) -> ClusterNetworkPolicy {
    object(&format!("spec: {{{spec}}}"), "")
}

fn spec(object: PolicyObject<'_>) -> Spec {
    normalise(object, "default").unwrap().specs.remove(0)
}

fn peers(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.peers.selectors.iter().map(ToString::to_string).collect();
    if rule.peers.everybody {
        words.push("everybody".to_owned());
    }
    words.extend(rule.peers.refs.iter().map(|peer| format!("{peer:?}")));
    words.join(" | ")
}

const SHOP: &str = "k8s:io.kubernetes.pod.namespace=shop";
const PODS: &str = "k8s:io.kubernetes.pod.namespace";

#[rstest]
#[case::namespace("ingress: [{fromEndpoints: [{matchLabels: {app: a}}]}]", &format!("any:app=a; {SHOP}"))]
#[case::all_of_it("ingress: [{fromEndpoints: [{}]}]", SHOP)]
#[case::none("ingress: [{fromEndpoints: []}]", "")]
#[case::source("ingress: [{fromEndpoints: [{matchLabels: {'k8s:app': a}}]}]", &format!("k8s:app=a; {SHOP}"))]
#[case::other_namespace(
    "ingress: [{fromEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': x}}]}]",
    "k8s:io.kubernetes.pod.namespace=x"
)]
#[case::namespace_labels(
    "ingress: [{fromEndpoints: [{matchLabels: {io.cilium.k8s.namespace.labels.env: x}}]}]",
    "any:io.cilium.k8s.namespace.labels.env=x"
)]
#[case::reserved("ingress: [{fromEndpoints: [{matchLabels: {'reserved:host': ''}}]}]", "reserved:host=")]
#[case::ports_alone("ingress: [{toPorts: [{ports: [{port: '80'}]}]}]", "everybody")]
#[case::entities("egress: [{toEntities: [world, host]}]", "reserved:host | reserved:world")]
#[case::all("egress: [{toEntities: [all]}]", "everybody")]
#[case::nodes("egress: [{toNodes: [{matchLabels: {zone: a}}]}]", "reserved:remote-node; node:zone=a")]
#[case::cidrs("egress: [{toCIDR: [10.0.0.1, 10.1.2.3/16]}]", "10.0.0.1/32 | 10.1.0.0/16")]
#[case::cidr_set(
    "egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.2.0.0/16]}]}]",
    "10.0.0.0/8 without 10.2.0.0/16"
)]
#[case::service(
    "egress: [{toServices: [{k8sService: {serviceName: web}}]}]",
    "Service { namespace: None, name: \"web\" }"
)]
#[case::service_of_a_namespace(
    "egress: [{toServices: [{k8sService: {serviceName: web, namespace: x}}]}]",
    "Service { namespace: Some(\"x\"), name: \"web\" }"
)]
#[case::labels_of_nodes("ingress: [{fromEndpoints: [{matchLabels: {'node:zone': a}}]}]", &format!("{SHOP}; node:zone=a"))]
#[case::names_select_nobody("egress: [{toFQDNs: [{matchName: example.com}]}]", "")]
fn peers_of_a_namespaced_policy(#[case] rule: &str, #[case] expected: &str) {
    let object = cilium(rule);
    let spec = spec(PolicyObject::Cilium(&object));
    assert_eq!(peers(&spec.rules[0]), expected);
    assert_eq!(spec.subject.to_string(), SHOP);
}

#[rstest]
#[case::any_pod("endpointSelector: {}, ingress: [{fromEndpoints: [{}]}]", PODS)]
#[case::by_label("endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {app: a}}]}]", &format!("any:app=a; {PODS}"))]
#[case::init(
    "endpointSelector: {matchLabels: {'reserved:init': ''}}, ingress: [{fromEndpoints: [{matchLabels: {app: a}}]}]",
    "any:app=a"
)]
#[case::reserved(
    "endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {'reserved:host': ''}}]}]",
    "reserved:host="
)]
#[case::services(
    "endpointSelector: {}, egress: [{toServices: [{k8sServiceSelector: {selector: {}}}]}]",
    "Services { namespace: None, selector: [] }"
)]
#[case::no_default("endpointSelector: {}, ingress: [{fromEndpoints: [{matchExpressions: [{key: app, operator: DoesNotExist}]}]}]",
    &format!("!any:app; {PODS}"))]
fn peers_of_a_clusterwide_policy(#[case] rule: &str, #[case] expected: &str) {
    let object = clusterwide(rule);
    assert_eq!(peers(&spec(PolicyObject::CiliumClusterwide(&object)).rules[0]), expected);
}

#[rstest]
#[case::all("ingress: [{}]", "everybody")]
#[case::pods("ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]", &format!("k8s:app=a; {SHOP}"))]
#[case::namespaces("ingress: [{from: [{namespaceSelector: {}}]}]", PODS)]
#[case::both("ingress: [{from: [{namespaceSelector: {matchLabels: {env: x}}, podSelector: {matchLabels: {app: a}}}]}]",
    &format!("k8s:app=a; k8s:io.cilium.k8s.namespace.labels.env=x; {PODS}"))]
#[case::block(
    "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]",
    "10.0.0.0/8 without 10.1.0.0/16"
)]
#[case::nothing_named("ingress: [{from: [{}]}]", "")]
fn peers_of_kubernetes(#[case] spec_text: &str, #[case] expected: &str) {
    let object = kubernetes(&format!("podSelector: {{}}, {spec_text}"));
    assert_eq!(peers(&spec(PolicyObject::Kubernetes(&object)).rules[0]), expected);
}

#[rstest]
#[case("podSelector: {}", (true, false))]
#[case("podSelector: {}, egress: [{}]", (true, true))]
#[case("podSelector: {}, policyTypes: [Egress]", (false, true))]
fn what_kubernetes_isolates(#[case] spec_text: &str, #[case] expected: (bool, bool)) {
    let object = kubernetes(spec_text);
    let spec = spec(PolicyObject::Kubernetes(&object));
    assert_eq!((spec.isolates_ingress, spec.isolates_egress), expected);
}

#[test]
fn a_direction_that_is_not_known_is_refused() {
    let object = kubernetes("podSelector: {}, policyTypes: [Sideways]");
    let error = normalise(PolicyObject::Kubernetes(&object), "default").unwrap_err();
    assert_eq!(error.to_string(), "spec.policyTypes[0]: `Sideways` is not known");
}

#[rstest]
#[case::by_entries("ingress: [{}]", (true, false))]
#[case::by_deny("egressDeny: [{}]", (false, true))]
#[case::switched_off("ingress: [{}], enableDefaultDeny: {ingress: false}", (false, false))]
#[case::switched_on("ingress: [{}], enableDefaultDeny: {egress: true}", (true, true))]
fn what_cilium_isolates(#[case] rule: &str, #[case] expected: (bool, bool)) {
    let object = cilium(rule);
    let spec = spec(PolicyObject::Cilium(&object));
    assert_eq!((spec.isolates_ingress, spec.isolates_egress), expected);
    assert!(spec.rules.is_empty(), "an empty entry says nothing");
}

fn ranges(ports: &Ports) -> BTreeSet<PortRange> {
    match ports {
        Ports::All => panic!("all ports"),
        Ports::Some { ranges, .. } => ranges.clone(),
    }
}

#[rstest]
#[case::any("{port: '80'}", &[PortRange::one(proto::TCP, 80), PortRange::one(proto::UDP, 80), PortRange::one(proto::SCTP, 80)])]
#[case::range("{port: '80', endPort: 90, protocol: TCP}", &[PortRange { proto: proto::TCP, first: 80, last: 90 }])]
#[case::range_from_zero("{port: '0', endPort: 90, protocol: TCP}", &[PortRange { proto: proto::TCP, first: 0, last: 90 }])]
#[case::zero("{port: '0', protocol: UDP}", &[PortRange::all(proto::UDP)])]
#[case::no_port("{protocol: GRE}", &[PortRange::all(47)])]
fn ports(#[case] port: &str, #[case] expected: &[PortRange]) {
    let object = cilium(&format!("ingress: [{{toPorts: [{{ports: [{port}]}}]}}]"));
    let spec = spec(PolicyObject::Cilium(&object));
    assert_eq!(ranges(&spec.rules[0].ports), expected.iter().copied().collect());
}

#[test]
fn icmp_types_are_ports_of_their_protocol() {
    let object = cilium("egress: [{icmps: [{fields: [{type: EchoRequest}, {family: IPv6, type: 129}]}]}]");
    let spec = spec(PolicyObject::Cilium(&object));
    let expected = [PortRange::one(proto::ICMP, 8), PortRange::one(proto::ICMPV6, 129)];
    assert_eq!(ranges(&spec.rules[0].ports), expected.into_iter().collect());
}

#[test]
fn what_needs_a_proxy_is_told_apart_and_told_of() {
    let object = cilium(
        "ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{path: /}]}}, {ports: [{port: '443'}]}]}]",
    );
    let normal = normalise(PolicyObject::Cilium(&object), "default").unwrap();
    let actions: Vec<Action> = normal.specs[0].rules.iter().map(|rule| rule.action).collect();
    assert_eq!(actions, [Action::Allow, Action::Proxy]);
    assert_eq!(normal.findings.len(), 1);
    assert_eq!(normal.findings[0].severity, Severity::Warning);
    assert!(normal.findings[0].message.starts_with("spec.ingress[0].toPorts[0]: it needs a proxy"));
}

#[rstest]
#[case::no_entries("labels: []", "spec: needs at least one of ingress, ingressDeny, egress, egressDeny")]
#[case::two_kinds(
    "ingress: [{}, {fromEndpoints: [{}], fromEntities: [world]}]",
    "spec.ingress[1]: fromEndpoints and fromEntities exclude each other"
)]
#[case::cidr_and_set(
    "egress: [{toCIDR: [10.0.0.0/8], toCIDRSet: [{cidr: 10.0.0.0/8}]}]",
    "spec.egress[0]: toCIDR and toCIDRSet exclude each other"
)]
#[case::requires(
    "ingress: [{fromRequires: [{}]}]",
    "spec.ingress[0].fromRequires: is not supported any more and must be empty"
)]
#[case::cidr(
    "egress: [{toCIDR: [10.0.0.0/8, 10.0.0.300]}]",
    "spec.egress[0].toCIDR[1]: `10.0.0.300` is no CIDR"
)]
#[case::except(
    "egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/8]}]}]",
    "spec.egress[0].toCIDRSet[0].except[0]: `11.0.0.0/8` is not inside of 10.0.0.0/8"
)]
#[case::two_sources(
    "egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, cidrGroupRef: g}]}]",
    "spec.egress[0].toCIDRSet[0]: needs exactly one of cidr, cidrGroupRef, cidrGroupSelector"
)]
#[case::entity(
    "ingress: [{fromEntities: [martians]}]",
    "spec.ingress[0].fromEntities[0]: `martians` is not known"
)]
#[case::node_selector(
    "nodeSelector: {}, ingress: [{}]",
    "spec: endpointSelector and nodeSelector exclude each other"
)]
#[case::ports_and_icmps(
    "ingress: [{toPorts: [{ports: [{port: '1'}]}], icmps: [{fields: [{type: 8}]}]}]",
    "spec.ingress[0]: toPorts and icmps exclude each other"
)]
#[case::port(
    "ingress: [{toPorts: [{ports: [{port: '70000'}]}]}]",
    "spec.ingress[0].toPorts[0].ports[0].port: `70000` is neither a port nor a name of one"
)]
#[case::range(
    "ingress: [{toPorts: [{ports: [{port: '80', endPort: 79}]}]}]",
    "spec.ingress[0].toPorts[0].ports[0].endPort: 80 to 79 is no range of ports"
)]
#[case::range_from_nowhere(
    "ingress: [{toPorts: [{ports: [{endPort: 79}]}]}]",
    "spec.ingress[0].toPorts[0].ports[0].endPort:  to 79 is no range of ports"
)]
#[case::range_of_names(
    "ingress: [{toPorts: [{ports: [{port: web, endPort: 79}]}]}]",
    "spec.ingress[0].toPorts[0].ports[0].endPort: web to 79 is no range of ports"
)]
#[case::icmp(
    "ingress: [{icmps: [{fields: [{type: Ping}]}]}]",
    "spec.ingress[0].icmps[0].fields[0].type: `Ping` is no type of ICMP"
)]
#[case::address_for_a_block(
    "ingress: [{fromCIDRSet: [{cidr: 192.0.2.1}]}]",
    "spec.ingress[0].fromCIDRSet[0].cidr: `192.0.2.1` is no CIDR"
)]
#[case::exception_without_length(
    "ingress: [{fromCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.2.1]}]}]",
    "spec.ingress[0].fromCIDRSet[0].except[0]: `192.0.2.1` is no CIDR"
)]
#[case::name_without_a_name(
    "egress: [{toFQDNs: [{}]}]",
    "spec.egress[0].toFQDNs[0]: needs exactly one of matchName, matchPattern"
)]
#[case::every_entry(
    "ingress: [{fromEntities: [moon]}, {}, {fromCIDR: [sun]}], egress: [{toEntities: [mars]}]",
    "spec.ingress[0].fromEntities[0]: `moon` is not known; spec.ingress[2].fromCIDR[0]: `sun` is no CIDR; spec.egress[0].toEntities[0]: `mars` is not known"
)]
#[case::operator(
    "ingress: [{fromEndpoints: [{matchExpressions: [{key: a, operator: In}]}]}]",
    "spec.ingress[0].fromEndpoints[0].matchExpressions[0].values: operator In does not go with 0 values"
)]
#[case::two_protocols(
    "ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}], kafka: [{}]}}]}]",
    "spec.ingress[0].toPorts[0].rules: needs exactly one of http, kafka, dns, l7"
)]
#[case::http_over_udp(
    "ingress: [{toPorts: [{ports: [{port: '80', protocol: UDP}], rules: {http: [{}]}}]}]",
    "spec.ingress[0].toPorts[0].ports[0].protocol: is not possible here: rules do not go with this protocol"
)]
#[case::http_on_any_port(
    "ingress: [{toPorts: [{ports: [{port: '0', protocol: TCP}], rules: {http: [{}]}}]}]",
    "spec.ingress[0].toPorts[0].ports[0].port: is not possible here: rules need a port"
)]
#[case::dns_on_ingress(
    "ingress: [{toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]}]",
    "spec.ingress[0].toPorts[0].rules.dns: is not possible here: dns is for egress"
)]
fn what_cilium_policies_may_not_say(#[case] rule: &str, #[case] expected: &str) {
    let object = cilium(rule);
    let error = normalise(PolicyObject::Cilium(&object), "default").unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn fields_of_later_rules_are_named_by_their_place() {
    let object: CiliumNetworkPolicy =
        object("specs: [{endpointSelector: {}, ingress: [{}]}, {endpointSelector: {}}]", "shop");
    let error = normalise(PolicyObject::Cilium(&object), "default").unwrap_err();
    assert!(error.to_string().starts_with("specs[1]: "), "{error}");
}

#[test]
fn a_policy_of_nodes_is_for_nodes_and_knows_no_http() {
    let object = clusterwide("nodeSelector: {matchLabels: {zone: a}}, ingress: [{fromEntities: [cluster]}]");
    let spec = spec(PolicyObject::CiliumClusterwide(&object));
    assert!(spec.host);
    assert_eq!(spec.subject.to_string(), "any:zone=a");
    let object = clusterwide(
        "nodeSelector: {}, ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]",
    );
    assert!(normalise(PolicyObject::CiliumClusterwide(&object), "default").is_err());
}

#[test]
fn a_policy_is_for_its_own_namespace_whatever_it_says() {
    let object: CiliumNetworkPolicy = object(
        "spec: {endpointSelector: {matchLabels: {'k8s:io.kubernetes.pod.namespace': other, app: a}}, ingress: [{}]}",
        "shop",
    );
    let normal = normalise(PolicyObject::Cilium(&object), "default").unwrap();
    assert_eq!(normal.specs[0].subject.to_string(), format!("any:app=a; {SHOP}"));
    assert_eq!(normal.findings.len(), 1);
}

const SUBJECT: &str = "tier: Admin, priority: 10, subject: {namespaces: {}}";

#[rstest]
#[case::namespaces("egress: [{action: Deny, to: [{namespaces: {matchLabels: {env: x}}}]}]", Action::Deny,
    &format!("k8s:io.cilium.k8s.namespace.labels.env=x; {PODS}"))]
#[case::networks("egress: [{action: Accept, to: [{networks: [10.0.0.0/8]}]}]", Action::Allow, "10.0.0.0/8")]
#[case::nodes(
    "egress: [{action: Pass, to: [{nodes: {}}]}]",
    Action::Pass,
    "reserved:host | reserved:remote-node"
)]
#[case::newer_accept("egress: [{action: Accept, to: [{planets: {}}]}]", Action::Allow, "")]
#[case::newer_pass("egress: [{action: Pass, to: [{planets: {}}]}]", Action::Deny, "everybody")]
#[case::newer_action("ingress: [{action: Ponder, from: [{namespaces: {}}]}]", Action::Deny, "everybody")]
#[case::names("egress: [{action: Accept, to: [{domainNames: [example.com]}]}]", Action::Allow, "")]
fn rules_of_cluster_policies(#[case] rules: &str, #[case] action: Action, #[case] expected: &str) {
    let object = cluster(&format!("{SUBJECT}, {rules}"));
    let spec = spec(PolicyObject::Cluster(&object));
    assert_eq!((spec.rules[0].action, peers(&spec.rules[0]).as_str()), (action, expected));
    assert!(!spec.isolates_ingress && !spec.isolates_egress);
}

#[rstest]
#[case("tier: Middle, priority: 1, subject: {namespaces: {}}", "spec.tier: `Middle` is not known")]
#[case(
    "tier: Admin, priority: 1001, subject: {namespaces: {}}",
    "spec.priority: 1001 is not between 0 and 1000"
)]
#[case("tier: Admin, priority: 1, subject: {}", "spec.subject: needs exactly one of namespaces, pods")]
#[case(
    "tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{domainNames: [a.b]}]}]",
    "spec.egress[0].to[0].domainNames: is not possible here: only rules that accept know names"
)]
fn what_cluster_policies_may_not_say(#[case] spec: &str, #[case] expected: &str) {
    let object = cluster(spec);
    let error = normalise(PolicyObject::Cluster(&object), "default").unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_last_good_version_stays_in_force() {
    let mut store = Store::default();
    let good = cilium("ingress: [{fromEntities: [host]}]");
    let bad = cilium("ingress: [{fromEntities: [martians]}]");
    assert!(store.upsert(PolicyObject::Cilium(&bad), "default").is_err());
    assert_eq!(store.specs().count(), 0);
    store.upsert(PolicyObject::Cilium(&good), "default").unwrap();
    assert!(store.upsert(PolicyObject::Cilium(&bad), "default").is_err());
    assert_eq!(store.specs().count(), 1);

    let mut policy = Policy::new(agent_policy::Config::default());
    policy.upsert(PolicyObject::Cilium(&good)).unwrap();
    policy.upsert(PolicyObject::Cilium(&bad)).unwrap_err();
    let findings = policy.findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].subject, "CiliumNetworkPolicy/shop/p");
    assert_eq!(
        findings[0].message,
        "spec.ingress[0].fromEntities[0]: `martians` is not known: what was in force before stays"
    );
    policy.upsert(PolicyObject::Cilium(&good)).unwrap();
    assert!(policy.findings().is_empty());
    let name = ObjectRef { kind: Kind::CiliumNetworkPolicy, namespace: "shop".into(), name: "p".into() };
    policy.delete(&name);
    assert_eq!(policy.store().specs().count(), 0);
}

#[test]
fn an_explanation_names_the_rule_or_who_isolates() {
    use agent_policy::{Label, NAMESPACE, Party, explain};
    let mut store = Store::default();
    let policy = kubernetes(
        "podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: 80}]}]",
    );
    store.upsert(PolicyObject::Kubernetes(&policy), "default").unwrap();
    let pod = |app: &str| Party {
        labels: [Label::k8s("app", app), Label::k8s(NAMESPACE, "shop")].into_iter().collect(),
        ..Party::default()
    };
    let allowed = explain(&store, &pod("a"), &pod("web"), proto::TCP, 80);
    assert_eq!(
        allowed.to_string(),
        "egress: no policy\ningress: allowed by NetworkPolicy/shop/p ingress[0]\npasses"
    );
    let dropped = explain(&store, &pod("b"), &pod("web"), proto::TCP, 80);
    assert_eq!(dropped.ingress.as_ref().unwrap().outcome, Outcome::NoRule);
    assert_eq!(
        dropped.to_string(),
        "egress: no policy\ningress: nothing allows it: NetworkPolicy/shop/p isolates\ndoes not pass"
    );
}
