//! Questions about the shop.

use rstest::rstest;
use serde_json::Value;

use crate::run::{manifests, policy};

fn ask(from: &str, to: &str, port: &str) -> Value {
    let ran =
        policy(&["explain", "--from", from, "--to", to, "--port", port, "-f", "@shop", "-o", "json"], "");
    assert_eq!(ran.code, 0, "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

#[rstest]
// By the name of a port, by its number, and what no rule allows.
#[case("web", "shop/db", "sql", "no-policy", "allowed", "NetworkPolicy/shop/db ingress[0]")]
#[case("shop/deploy/web", "10.0.1.7", "5432/tcp", "no-policy", "allowed", "NetworkPolicy/shop/db ingress[0]")]
#[case("web", "fd00::7", "5432/UDP", "no-policy", "no-rule", "NetworkPolicy/shop/db")]
#[case("report", "shop/db", "5432", "no-rule", "no-rule", "CiliumNetworkPolicy/shop/report")]
// The admin tier is before the others.
#[case("watch/probe", "shop/db", "1/UDP", "no-policy", "allowed", "ClusterNetworkPolicy/watching ingress[0]")]
// Addresses: of the block, of its exception, of a group, of nobody.
#[case("192.0.2.7", "shop/db", "22", "not-enforced", "allowed", "NetworkPolicy/shop/db ingress[1]")]
#[case("192.0.2.200", "shop/db", "22", "not-enforced", "no-rule", "NetworkPolicy/shop/db")]
#[case(
    "report",
    "203.0.113.9",
    "443",
    "denied",
    "not-enforced",
    "CiliumNetworkPolicy/shop/report egressDeny[0]"
)]
#[case(
    "report",
    "kube-apiserver",
    "6443",
    "allowed",
    "not-enforced",
    "CiliumNetworkPolicy/shop/report egress[0]"
)]
#[case("probe", "world", "EchoRequest/ICMP", "no-policy", "not-enforced", "")]
// The own node passes, other nodes do not; a pod in its node's network is its node.
#[case("host", "shop/db", "5432", "not-enforced", "always", "")]
#[case("172.18.0.2", "shop/db", "5432", "not-enforced", "always", "")]
#[case("node/worker-2", "shop/db", "5432", "not-enforced", "no-rule", "NetworkPolicy/shop/db")]
#[case("watch/logs", "shop/db", "5432", "not-enforced", "no-rule", "NetworkPolicy/shop/db")]
#[case("report", "report", "80", "always", "always", "")]
fn a_connection_is_explained(
    #[case] from: &str,
    #[case] to: &str,
    #[case] port: &str,
    #[case] egress: &str,
    #[case] ingress: &str,
    #[case] decides: &str,
) {
    let answer = ask(from, to, port);
    assert_eq!(
        (answer["egress"]["verdict"].as_str(), answer["ingress"]["verdict"].as_str()),
        (Some(egress), Some(ingress))
    );
    let passes = |half: &str| !matches!(half, "denied" | "no-rule" | "needs-proxy");
    assert_eq!(answer["allowed"], passes(egress) && passes(ingress));
    let causes: Vec<String> = ["egress", "ingress"]
        .iter()
        .flat_map(|side| answer[side]["decided_by"].as_array().unwrap())
        .map(|cause| {
            let entry = cause["entry"].as_str().map(|entry| format!(" {entry}")).unwrap_or_default();
            format!("{}{entry}", cause["object"].as_str().unwrap())
        })
        .collect();
    if decides.is_empty() {
        assert_eq!(causes, Vec::<String>::new());
    } else {
        assert!(causes.iter().any(|cause| cause == decides), "{causes:?}");
    }
}

#[rstest]
// A service by its selector, and one by the addresses of its endpoints.
#[case("client", "shop/db", "5432", true)]
#[case("client", "203.0.113.9", "443", true)]
#[case("client", "203.0.113.8", "443", false)]
// API servers: a node, and an address outside.
#[case("client", "172.18.0.2", "6443", true)]
#[case("client", "192.0.2.6", "6443", true)]
#[case("client", "node/west-1", "6443", false)]
#[case("client", "192.0.2.7", "6443", false)]
// Nodes by their labels; the own node always.
#[case("node/east-1", "client", "80", true)]
#[case("node/west-1", "client", "80", true)]
#[case("shop/db", "client", "80", false)]
fn services_nodes_and_api_servers_are_whom_the_files_say(
    #[case] from: &str,
    #[case] to: &str,
    #[case] port: &str,
    #[case] passes: bool,
) {
    let args = ["explain", "--from", from, "--to", to, "--port", port, "-f", "@peers", "-o", "json"];
    let ran = policy(&args, "");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answer["allowed"], passes, "{answer}");
}

#[test]
fn a_service_more_is_a_change() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: far, namespace: shop}\nspec: {selector: {app: none}}\n";
    let args = ["explain", "--from", "client", "--to", "203.0.113.9", "--port", "443", "-f", "@peers"];
    let ran = policy(&[&args[..], &["--with", "-"]].concat(), service);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("the answer changes: allowed now, denied then"), "{}", ran.out);
}

#[test]
fn the_text_names_what_decides_and_what_isolates() {
    let ran = policy(&["explain", "--from", "web", "--to", "shop/db", "--port", "sql", "-f", "@shop"], "");
    assert_eq!(
        ran.out,
        "allowed: deploy shop/web to pod shop/db, TCP 5432\n  \
           egress of deploy shop/web: allowed, no policy is about it\n  \
           ingress of pod shop/db: allowed by NetworkPolicy/shop/db ingress[0]\n    \
             isolated by NetworkPolicy/shop/db\n  \
           note: deploy shop/web has no address in the files: blocks of addresses do not select it\n"
    );
    assert_eq!(ran.code, 0);
}

#[test]
fn what_staged_policies_would_change_is_told() {
    let answer = ask("shop/report", "web", "http");
    assert_eq!(answer["ingress"]["staged"], "would-deny");
    assert_eq!(answer["ingress"]["staged_by"][0]["object"], "CiliumNetworkPolicy/shop/web-only");
    let answer = ask("198.51.100.1", "web", "http");
    assert_eq!(answer["ingress"]["staged"], Value::Null);
}

#[test]
fn parts_that_are_told_apart_are_named() {
    let answer = ask("192.0.2.0/24", "shop/db", "22");
    assert_eq!(answer["allowed"], true);
    let notes = answer["notes"].to_string();
    assert!(notes.contains("192.0.2.128/25"), "{notes}");
}

#[test]
fn a_namespace_that_is_not_known_is_told() {
    let notes = ask("stray/db", "web", "http")["notes"].to_string();
    assert!(notes.contains("Namespace/stray is not in the files"), "{notes}");
}

#[rstest]
#[case("web", "report", &["--with", "@then"], 1, "the answer changes: allowed now, denied then")]
#[case("web", "shop/db", &["--with", "@then"], 0, "the answer stays: allowed")]
#[case("report", "shop/db", &["--without", "NetworkPolicy/shop/db"], 0, "the answer stays: denied")]
#[case("report", "shop/db", &["--without", "networkpolicy/shop/db", "--without", "CiliumNetworkPolicy/shop/report"], 1,
    "the answer changes: denied now, allowed then")]
#[case("probe", "shop/db", &["--without", "ClusterNetworkPolicy/watching"], 1, "the answer changes: allowed now, denied then")]
// An object that is applied over one of the same name takes its place.
#[case("web", "shop/db", &["--without", "NetworkPolicy/shop/db", "--with", "@shop/policies.yaml"], 0, "the answer stays: allowed")]
fn what_if(
    #[case] from: &str,
    #[case] to: &str,
    #[case] change: &[&str],
    #[case] code: i32,
    #[case] end: &str,
) {
    let mut args = vec!["explain", "--from", from, "--to", to, "--port", "5432", "-f", "@shop"];
    args.extend(change);
    let ran = policy(&args, "");
    assert_eq!((ran.code, ran.out.lines().last()), (code, Some(end)), "{}{}", ran.out, ran.err);
    assert!(ran.out.starts_with("now "), "{}", ran.out);
    args.extend(["-o", "json"]);
    let answer: Value = serde_json::from_str(&policy(&args, "").out).unwrap();
    assert_eq!(answer["changes"], code == 1);
    assert!(answer["now"]["allowed"].is_boolean() && answer["then"]["allowed"].is_boolean());
}

#[rstest]
#[case(&["--from", "nobody"], "--from: no pod `nobody` in the files; there are")]
#[case(&["--from", "db"], "`db` can be shop/db or stray/db: say which")]
#[case(&["--from", "node/worker-9"], "no node `worker-9`")]
#[case(&["--from", "192.0.2.1", "--to", "192.0.2.2"], "nobody else has policies, so name one")]
#[case(&["--port", "80/TCQ"], "`TCQ` is no protocol")]
#[case(&["--port", "https"], "names no port `https` of this protocol; it names sql")]
#[case(&["--port", "300/ICMP"], "no type of ICMP")]
#[case(&["--without", "NetworkPolicy/shop/dc"], "there are NetworkPolicy/shop/db")]
#[case(&["--without", "netpol"], "write KIND/NAMESPACE/NAME")]
#[case(&["--with", "@wrong"], "NetworkPolicy/shop/port")]
#[case(&["-f", "/nonexistent.yaml"], "read /nonexistent.yaml")]
fn an_error_names_what_is_wrong_and_is_no_answer(#[case] change: &[&str], #[case] expected: &str) {
    let mut args = vec!["explain"];
    args.extend(change);
    for default in [["--from", "web"], ["--to", "shop/db"], ["--port", "5432"]] {
        if !change.contains(&default[0]) {
            args.extend(default);
        }
    }
    args.extend(["-f", "@shop"]);
    let ran = policy(&args, "");
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
    assert!(ran.err.contains(expected), "{}", ran.err);
}

#[test]
fn objects_come_from_standard_input_too() {
    let text: String = ["shop/cluster.yaml", "shop/policies.yaml"]
        .map(|name| std::fs::read_to_string(manifests(name)).unwrap())
        .join("---\n");
    let args = ["explain", "--from", "report", "--to", "shop/db", "--port", "5432", "-f", "-"];
    let ran = policy(&args, &text);
    assert!(ran.out.starts_with("denied: "), "{}{}", ran.out, ran.err);
    let ran = policy(&args, "kind: [");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("standard input is not YAML or JSON"), "{}", ran.err);
}

#[test]
fn a_refused_policy_is_not_in_the_answer_and_is_told() {
    let ran = policy(
        &[
            "explain",
            "--from",
            "web",
            "--to",
            "report",
            "--port",
            "1",
            "-f",
            "@shop",
            "-f",
            "@wrong/policies.yaml",
        ],
        "",
    );
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("NetworkPolicy/shop/type is refused and left out"), "{}", ran.out);
}

#[test]
fn a_block_selects_pods_by_their_addresses() {
    let pod = |name: &str, v4: &str, v6: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: n, name: {name}, labels: {{app: {name}}}}}\n\
             spec: {{nodeName: w, containers: []}}\nstatus: {{podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}\n"
        )
    };
    let policy_text = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: n, name: p}\n\
        spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}]}\n";
    let files = [
        &pod("db", "10.0.0.1", "fd00::1"),
        &pod("near", "10.0.1.7", "fd00::2"),
        &pod("away", "10.0.2.7", "fd00::3"),
        policy_text,
    ]
    .map(String::from)
    .concat();
    let ask = |from: &str| {
        let ran = policy(
            &["explain", "--from", from, "--to", "n/db", "--port", "80", "-f", "-", "-o", "json"],
            &files,
        );
        assert_eq!(ran.code, 0, "{}", ran.err);
        serde_json::from_str::<Value>(&ran.out).unwrap()
    };
    let near = ask("n/near");
    assert_eq!(
        (&near["allowed"], near["ingress"]["verdict"].as_str()),
        (&Value::Bool(true), Some("allowed"))
    );
    assert!(near["notes"].to_string().contains("by IPv6 it is denied"), "{near}");
    assert_eq!(ask("n/away")["allowed"], false);
    assert_eq!(
        (&ask("10.0.1.7")["allowed"], &ask("fd00::2")["allowed"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
}

/// Nodes are judged where there are policies for nodes.
#[rstest]
#[case("shop/db", "node/worker-2", "no-policy", "allowed")]
#[case("web", "node/worker-2", "no-policy", "no-rule")]
#[case("node/worker-1", "172.18.0.3", "no-policy", "no-rule")]
#[case("node/worker-1", "node/worker-1", "always", "always")]
fn nodes_have_policies_of_their_own(
    #[case] from: &str,
    #[case] to: &str,
    #[case] egress: &str,
    #[case] ingress: &str,
) {
    let args = ["explain", "--from", from, "--to", to, "--port", "22"];
    let files = ["-f", "@shop/cluster.yaml", "-f", "@nodes.yaml", "-o", "json"];
    let ran = policy(&[&args[..], &files].concat(), "");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&answer["egress"]["verdict"], &answer["ingress"]["verdict"]),
        (&egress.into(), &ingress.into())
    );
    assert!(answer["notes"].to_string().contains("--host-firewall"));
}
