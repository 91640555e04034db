//! What is wrong with a policy, beyond what its schema can say. Everything about validity is behind [`mistakes`].

mod peers;
mod ports;

use agent_crd::rule::Rule;
use agent_crd::{LabelSelector, SelectorOperator};

use super::event::Kind;
use peers::Side;

/// Key that selects endpoints by their namespace, with and without its source.
const NAMESPACE_KEYS: [&str; 3] =
    ["k8s:io.kubernetes.pod.namespace", "any:io.kubernetes.pod.namespace", "io.kubernetes.pod.namespace"];

/// What is wrong with the rules of a policy of this kind and namespace, one sentence for each mistake, in order.
/// None: the policy is valid.
pub fn mistakes(kind: Kind, namespace: &str, rules: &[Rule]) -> Vec<String> {
    let mut found = Vec::new();
    if rules.is_empty() {
        found.push("there is no rule".to_owned());
    }
    for (index, rule) in rules.iter().enumerate() {
        let mut of_rule = Vec::new();
        one(kind, namespace, rule, &mut of_rule);
        let place = if rules.len() > 1 { format!("rule {}: ", index + 1) } else { String::new() };
        found.extend(of_rule.into_iter().map(|mistake| format!("{place}{mistake}")));
    }
    found
}

fn one(kind: Kind, namespace: &str, rule: &Rule, found: &mut Vec<String>) {
    match (&rule.endpoint_selector, &rule.node_selector) {
        (Some(_), Some(_)) => found.push("it has both endpointSelector and nodeSelector".to_owned()),
        (None, None) => found.push("it has neither endpointSelector nor nodeSelector".to_owned()),
        (None, Some(_)) if kind == Kind::NamespacedPolicy => {
            found.push("nodeSelector is for CiliumClusterwideNetworkPolicy only".to_owned());
        }
        _ => {}
    }
    for (name, selected) in
        [("endpointSelector", &rule.endpoint_selector), ("nodeSelector", &rule.node_selector)]
    {
        if let Some(selected) = selected {
            selector(selected, name, found);
        }
    }
    if kind == Kind::NamespacedPolicy
        && let Some(other) = rule.endpoint_selector.as_ref().and_then(|s| other_namespace(s, namespace))
    {
        found.push(format!("endpointSelector selects namespace {other}, the policy is in {namespace}"));
    }
    if rule.ingress.is_empty()
        && rule.ingress_deny.is_empty()
        && rule.egress.is_empty()
        && rule.egress_deny.is_empty()
    {
        found.push("it has none of ingress, ingressDeny, egress, egressDeny".to_owned());
    }
    let of_nodes = rule.node_selector.is_some();
    for (index, entry) in rule.ingress.iter().enumerate() {
        let place = format!("ingress[{index}]");
        peers::check(&entry.peers(), Side::From, &place, found);
        ports::check(&entry.to_ports, &entry.icmps, ports::Direction::Ingress { of_nodes }, &place, found);
    }
    for (index, entry) in rule.ingress_deny.iter().enumerate() {
        let place = format!("ingressDeny[{index}]");
        peers::check(&entry.peers(), Side::From, &place, found);
        ports::check_deny(&entry.to_ports, &entry.icmps, &place, found);
    }
    for (index, entry) in rule.egress.iter().enumerate() {
        let place = format!("egress[{index}]");
        peers::check(&entry.peers(), Side::To, &place, found);
        ports::check(&entry.to_ports, &entry.icmps, ports::Direction::Egress { of_nodes }, &place, found);
    }
    for (index, entry) in rule.egress_deny.iter().enumerate() {
        let place = format!("egressDeny[{index}]");
        peers::check(&entry.peers(), Side::To, &place, found);
        ports::check_deny(&entry.to_ports, &entry.icmps, &place, found);
    }
}

/// The namespace that a selector asks for, if it is another one.
fn other_namespace<'a>(selector: &'a LabelSelector, namespace: &str) -> Option<&'a str> {
    let asked = NAMESPACE_KEYS.iter().find_map(|key| selector.match_labels.get(*key));
    asked.map(agent_crd::meta::LabelValue::as_str).filter(|asked| *asked != namespace)
}

/// What is wrong with a label selector.
fn selector(selector: &LabelSelector, place: &str, found: &mut Vec<String>) {
    for expression in &selector.match_expressions {
        let (key, none) = (&expression.key, expression.values.is_empty());
        match &expression.operator {
            SelectorOperator::In | SelectorOperator::NotIn if none => {
                found.push(format!("{place}: {} of `{key}` needs values", expression.operator));
            }
            SelectorOperator::Exists | SelectorOperator::DoesNotExist if !none => {
                found.push(format!("{place}: {} of `{key}` takes no values", expression.operator));
            }
            SelectorOperator::Other(word) => found.push(format!("{place}: there is no operator `{word}`")),
            _ => {}
        }
    }
    let keys = selector.match_labels.keys().chain(selector.match_expressions.iter().map(|e| &e.key));
    for key in keys.filter(|key| key.is_empty()) {
        found.push(format!("{place}: the key `{key}` is empty"));
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "cases read better without references")]
mod tests {
    use super::*;
    use agent_crd::{CiliumNetworkPolicy, Object as _};
    use rstest::rstest;
    use serde_json::{Value, json};

    fn of(kind: Kind, rule: Value) -> Vec<String> {
        let policy = json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": rule});
        let policy = CiliumNetworkPolicy::from_json(policy).unwrap();
        mistakes(kind, "shop", &policy.rules().cloned().collect::<Vec<_>>())
    }

    fn ingress(entry: Value) -> Value {
        json!({"endpointSelector": {}, "ingress": [entry]})
    }

    fn egress(entry: Value) -> Value {
        json!({"endpointSelector": {}, "egress": [entry]})
    }

    fn l7(port: Value, rules: Value) -> Value {
        json!({"toPorts": [{"ports": [port], "rules": rules}]})
    }

    #[rstest]
    #[case::deny_all(ingress(json!({})))]
    #[case::own_namespace(json!({"endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "shop"}}, "ingress": [{}]}))]
    #[case::everything_of_one(ingress(json!({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, {"cidrGroupRef": "g"}], "toPorts": [{"ports": [{"port": "80", "endPort": 90}]}]})))]
    #[case::bare_address(ingress(json!({"fromCIDR": ["192.0.2.1", "2001:db8::/32"]})))]
    #[case::icmp(ingress(json!({"icmps": [{"fields": [{"type": 8}, {"family": "IPv6", "type": "EchoReply"}]}]})))]
    #[case::http(ingress(l7(json!({"port": "80", "protocol": "TCP"}), json!({"http": [{}]}))))]
    #[case::dns(egress(l7(json!({"port": "53", "protocol": "ANY"}), json!({"dns": [{"matchPattern": "*"}]}))))]
    fn valid(#[case] rule: Value) {
        assert_eq!(of(Kind::NamespacedPolicy, rule), Vec::<String>::new());
    }

    #[rstest]
    #[case::none(json!({"ingress": [{}]}), "neither endpointSelector nor nodeSelector")]
    #[case::both(json!({"endpointSelector": {}, "nodeSelector": {}, "ingress": [{}]}), "both")]
    #[case::nodes(json!({"nodeSelector": {}, "ingress": [{}]}), "CiliumClusterwideNetworkPolicy only")]
    #[case::nothing(json!({"endpointSelector": {}, "ingress": []}), "none of ingress")]
    #[case::elsewhere(json!({"endpointSelector": {"matchLabels": {"io.kubernetes.pod.namespace": "depot"}}, "ingress": [{}]}), "namespace depot")]
    #[case::no_values(json!({"endpointSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}, "ingress": [{}]}), "In of `a` needs values")]
    #[case::values(ingress(json!({"fromEndpoints": [{"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}]})), "ingress[0].fromEndpoints[0]: Exists of `a` takes no values")]
    #[case::two_kinds(ingress(json!({"fromCIDR": ["10.0.0.0/8"], "fromEntities": ["host"]})), "ingress[0]: fromCIDR and fromEntities exclude each other")]
    #[case::requires(ingress(json!({"fromRequires": [{}]})), "fromRequires is not supported")]
    #[case::entity(ingress(json!({"fromEntities": ["moon"]})), "there is no entity `moon`")]
    #[case::cidr(ingress(json!({"fromCIDR": ["10.0.0.0/33"]})), "`10.0.0.0/33` is no CIDR")]
    #[case::except(ingress(json!({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}]})), "`11.0.0.0/16` is not inside of 10.0.0.0/8")]
    #[case::no_cidr(ingress(json!({"fromCIDRSet": [{}]})), "exactly one of cidr, cidrGroupRef, cidrGroupSelector")]
    #[case::fqdn(egress(json!({"toFQDNs": [{}]})), "exactly one of matchName, matchPattern")]
    #[case::ports_and_icmps(ingress(json!({"toPorts": [{"ports": [{"port": "80"}]}], "icmps": [{"fields": [{"type": 8}]}]})), "toPorts and icmps exclude each other")]
    #[case::icmp_type(ingress(json!({"icmps": [{"fields": [{"type": 256}]}]})), "there is no ICMP type 256")]
    #[case::icmp_name(ingress(json!({"icmps": [{"fields": [{"type": "PacketTooBig"}]}]})), "there is no ICMP type PacketTooBig")]
    #[case::end(ingress(json!({"toPorts": [{"ports": [{"port": "80", "endPort": 79}]}]})), "endPort 79 is less than port 80")]
    #[case::end_of_name(ingress(json!({"toPorts": [{"ports": [{"port": "web", "endPort": 79}]}]})), "endPort needs a port number")]
    #[case::protocol(ingress(json!({"toPorts": [{"ports": [{"port": "80", "protocol": "ICMP"}]}]})), "there is no protocol `ICMP`")]
    #[case::too_many(ingress(json!({"toPorts": [{"ports": vec![json!({"port": "80"}); 41]}]})), "more than 40 ports")]
    #[case::kinds(ingress(l7(json!({"port": "80", "protocol": "TCP"}), json!({"http": [{}], "kafka": [{}]}))), "http and kafka exclude each other")]
    #[case::udp(ingress(l7(json!({"port": "80", "protocol": "UDP"}), json!({"http": [{}]}))), "http needs protocol TCP")]
    #[case::port_0(ingress(l7(json!({"port": "0", "protocol": "TCP"}), json!({"http": [{}]}))), "http needs a port")]
    #[case::dns_in(ingress(l7(json!({"port": "53"}), json!({"dns": [{"matchPattern": "*"}]}))), "dns is for egress only")]
    #[case::names(ingress(json!({"toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}], "serverNames": ["a"], "rules": {"http": [{}]}}]})), "serverNames with rules needs terminatingTLS")]
    #[case::listener(ingress(json!({"toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}], "listener": {"name": "l", "envoyConfig": {"name": "e"}}}]})), "listener is for egress only")]
    fn mistaken(#[case] rule: Value, #[case] said: &str) {
        let found = of(Kind::NamespacedPolicy, rule);
        assert!(found.iter().any(|mistake| mistake.contains(said)), "{found:?}");
    }

    #[test]
    fn nodes_have_rules_of_their_own() {
        let host = |entries: Value| {
            let mut rule = json!({"nodeSelector": {}});
            rule.as_object_mut().unwrap().extend(entries.as_object().unwrap().clone());
            of(Kind::ClusterwidePolicy, rule)
        };
        let http = l7(json!({"port": "80", "protocol": "TCP"}), json!({"http": [{}]}));
        assert_eq!(host(json!({"ingress": [{"fromEntities": ["all"]}]})), Vec::<String>::new());
        assert!(host(json!({"ingress": [http]}))[0].contains("rules are not for nodes"));
        assert!(host(json!({"egress": [http]}))[0].contains("http is not for nodes"));
    }

    #[test]
    fn a_mistake_names_its_rule() {
        let rules =
            [Rule { endpoint_selector: Some(LabelSelector::default()), ..Rule::default() }, Rule::default()];
        let found = mistakes(Kind::NamespacedPolicy, "shop", &rules);
        assert_eq!(found.iter().filter(|mistake| mistake.starts_with("rule 2: ")).count(), 2, "{found:?}");
        assert_eq!(mistakes(Kind::NamespacedPolicy, "shop", &[]), ["there is no rule"]);
    }
}
