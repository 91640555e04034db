//! Which backends are right for an address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use sim_oracle::{Cluster, ObjectName, Options, Translation};

use crate::support::{cluster, end, protocol, set_all};

/// A service with ports web (80 to 8080, node port 30080) and dns (UDP 53 to 5353, node port 30053), and its slices:
/// .10 on node-1, .12 and .20 on node-2.
const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {namespace: default, name: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.5
  clusterIPs: [10.96.0.5, 'fd00:96::5']
  ipFamilies: [IPv4, IPv6]
  externalIPs: [203.0.113.5]
  ports:
  - {name: web, port: 80, targetPort: 8080, nodePort: 30080}
  - {name: dns, port: 53, protocol: UDP, targetPort: dns, nodePort: 30053}
status: {loadBalancer: {ingress: [{ip: 198.51.100.5}, {ip: '2001:db8::5', ipMode: VIP}, {ip: 198.51.100.6, ipMode: Proxy}, {hostname: x.example}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: default, name: shop-4, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: web, port: 8080, protocol: TCP}, {name: dns, port: 5353, protocol: UDP}]
endpoints:
- {addresses: [10.244.0.10, 10.244.0.199], nodeName: node-1, targetRef: {kind: Pod, namespace: default, name: db}, conditions: {ready: true}}
- {addresses: [10.244.0.12], nodeName: node-2}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: default, name: shop-4b, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: web, port: 9090}]
endpoints:
- {addresses: [10.244.0.20], nodeName: node-2}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: default, name: shop-6, labels: {kubernetes.io/service-name: shop}}
addressType: IPv6
ports: [{name: web, port: 8080}]
endpoints:
- {addresses: ['fd00:244::a'], nodeName: node-1}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: mine, name: shop-4, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: web, port: 8080}]
endpoints:
- {addresses: [10.244.0.66], nodeName: node-1}
";

fn shop() -> Cluster {
    let mut cluster = cluster(Options::default(), &[]);
    set_all(&mut cluster, SHOP);
    cluster
}

/// The shop with another spec: each pair is a JSON pointer and its value.
fn shop_with(changes: &[(&str, Value)]) -> Cluster {
    let mut cluster = shop();
    let mut service = crate::support::documents(SHOP).remove(0);
    for (field, value) in changes {
        service["spec"][field] = value.clone();
    }
    cluster.set(&service).unwrap();
    cluster
}

/// An IPv4 slice of port web in place of all others: last byte of the address, node, and the conditions ready, serving and terminating.
fn endpoints(cluster: &mut Cluster, list: &[(u8, &str, [Option<bool>; 3])]) {
    ["shop-4", "shop-4b", "shop-6"].iter().for_each(|name| cluster.remove("EndpointSlice", "default", name));
    let list: Vec<Value> = list
        .iter()
        .map(|(last, node, [ready, serving, terminating])| {
            json!({
                "addresses": [format!("10.244.0.{last}")], "nodeName": node,
                "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            })
        })
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "default", "name": "shop-4", "labels": {"kubernetes.io/service-name": "shop"}},
        "ports": [{"name": "web", "port": 8080}], "endpoints": list,
    });
    cluster.set(&slice).unwrap();
}

/// `CLIENT > ADDRESS PROTOCOL PORT`, answered by `-` (no service), `reject`, `drop`, or the backends' addresses and ports.
fn answer(cluster: &Cluster, question: &str) -> String {
    let words: Vec<&str> = question.split_whitespace().collect();
    let [client, ">", to, proto, port] = words.as_slice() else { panic!("no question: {question}") };
    let to: IpAddr = to.parse().unwrap();
    match cluster.translate(&end(client), to, protocol(proto), port.parse().unwrap()) {
        Translation::NotAService => "-".into(),
        Translation::NoEndpoints { reject: true } => "reject".into(),
        Translation::NoEndpoints { reject: false } => "drop".into(),
        Translation::Backends(backends) => {
            assert_eq!(backends.iter().collect::<BTreeSet<_>>().len(), backends.len(), "each once");
            let name = |ip: IpAddr| ip.to_string().replace("10.244.0", "");
            backends.iter().map(|b| format!("{}:{}", name(b.ip), b.port)).collect::<Vec<_>>().join(" ")
        }
    }
}

fn check(cluster: &Cluster, table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .map(|(question, expected)| (question, expected, answer(cluster, question)))
        .filter(|(_, expected, answer)| *expected != answer)
        .map(|(question, expected, answer)| format!("{question}: {answer}, not {expected}"))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

const WEB: &str = ".10:8080 .12:8080 .20:9090";
const DNS: &str = ".10:5353 .12:5353";

#[test]
fn every_address_of_a_service() {
    check(
        &shop(),
        &[
            // Cluster IPs, by port, protocol and family; from inside alone.
            ("default/plain > 10.96.0.5 tcp 80", WEB),
            ("default/plain > 10.96.0.5 udp 53", DNS),
            ("default/host > 10.96.0.5 tcp 80", WEB),
            ("node:node-1 > 10.96.0.5 tcp 80", WEB),
            ("default/plain > fd00:96::5 tcp 80", "fd00:244::a:8080"),
            ("default/plain > fd00:96::5 udp 53", "reject"),
            ("8.8.8.8 > 10.96.0.5 tcp 80", "-"),
            ("default/plain > 10.96.0.5 tcp 81", "-"),
            ("default/plain > 10.96.0.5 udp 80", "-"),
            ("default/plain > 10.96.0.5 icmp 80", "-"),
            ("default/plain > 10.96.0.5 tcp 8080", "-"),
            ("default/plain > 10.96.0.5 tcp 30080", "-"),
            // The external address.
            ("default/plain > 203.0.113.5 tcp 80", WEB),
            ("8.8.8.8 > 203.0.113.5 udp 53", DNS),
            ("8.8.8.8 > 203.0.113.5 tcp 30080", "-"),
            // Those of the load balancer, if they are for the nodes to take.
            ("8.8.8.8 > 198.51.100.5 tcp 80", WEB),
            ("default/plain > 198.51.100.5 tcp 80", WEB),
            ("8.8.8.8 > 2001:db8::5 tcp 80", "fd00:244::a:8080"),
            ("8.8.8.8 > 198.51.100.6 tcp 80", "-"),
            // Node ports, of every node in every family.
            ("8.8.8.8 > 192.168.0.1 tcp 30080", WEB),
            ("8.8.8.8 > 192.168.0.2 udp 30053", DNS),
            ("default/plain > 192.168.0.2 tcp 30080", WEB),
            ("node:node-1 > fd00:168::2 tcp 30080", "fd00:244::a:8080"),
            ("8.8.8.8 > 192.168.0.1 udp 30080", "-"),
            ("8.8.8.8 > 192.168.0.1 tcp 80", "-"),
            ("8.8.8.8 > 192.168.0.3 tcp 30080", "-"),
            // Others.
            ("default/plain > 10.244.0.10 tcp 80", "-"),
            ("default/plain > 8.8.8.8 tcp 80", "-"),
        ],
    );
}

#[test]
fn backends_say_their_pod_and_node() {
    let Translation::Backends(backends) =
        shop().translate(&end("default/plain"), "10.96.0.5".parse().unwrap(), protocol("tcp"), 80)
    else {
        panic!("no backends");
    };
    let db = ObjectName { namespace: "default".into(), name: "db".into() };
    assert_eq!((backends[0].pod.as_ref(), backends[0].node.as_deref()), (Some(&db), Some("node-1")));
    assert_eq!((backends[1].pod.as_ref(), backends[1].node.as_deref()), (None, Some("node-2")));
}

#[test]
fn types_of_services() {
    let cluster_ip = ("default/plain > 10.96.0.5 tcp 80", WEB);
    let external = ("8.8.8.8 > 203.0.113.5 tcp 80", WEB);
    let (balancer, node_port) = ("8.8.8.8 > 198.51.100.5 tcp 80", "8.8.8.8 > 192.168.0.1 tcp 30080");
    for (kind, table) in [
        ("LoadBalancer", [cluster_ip, external, (balancer, WEB), (node_port, WEB)]),
        ("NodePort", [cluster_ip, external, (balancer, "-"), (node_port, WEB)]),
        ("ClusterIP", [cluster_ip, external, (balancer, "-"), (node_port, "-")]),
        ("ExternalName", [(cluster_ip.0, "-"), (external.0, "-"), (balancer, "-"), (node_port, "-")]),
    ] {
        println!("{kind}");
        check(&shop_with(&[("type", kind.into())]), &table);
    }
    println!("none said");
    check(&shop_with(&[("type", Value::Null)]), &[cluster_ip, external, (balancer, "-"), (node_port, "-")]);
    println!("headless");
    check(
        &shop_with(&[("clusterIP", "None".into()), ("clusterIPs", json!(["None"]))]),
        &[(cluster_ip.0, "-"), (external.0, "-"), (balancer, "-"), (node_port, "-")],
    );
    println!("one family");
    check(
        &shop_with(&[("clusterIPs", json!(["10.96.0.5"])), ("ipFamilies", json!(["IPv4"]))]),
        &[
            cluster_ip,
            ("default/plain > fd00:96::5 tcp 80", "-"),
            ("8.8.8.8 > fd00:168::1 tcp 30080", "-"),
            ("8.8.8.8 > 2001:db8::5 tcp 80", "-"),
        ],
    );
    println!("families from the addresses");
    check(
        &shop_with(&[("clusterIPs", Value::Null), ("ipFamilies", Value::Null)]),
        &[cluster_ip, (node_port, WEB), ("8.8.8.8 > fd00:168::1 tcp 30080", "-")],
    );
    println!("no node ports allocated");
    check(
        &shop_with(&[("ports", json!([{"name": "web", "port": 80, "nodePort": 0}]))]),
        &[cluster_ip, (balancer, WEB), (node_port, "-")],
    );
}

#[test]
fn another_proxys_service_is_left_alone() {
    let mut cluster = shop();
    let mut service = crate::support::documents(SHOP).remove(0);
    for label in ["service-proxy-name", "headless"] {
        service["metadata"]["labels"] = json!({format!("service.kubernetes.io/{label}"): "other"});
        cluster.set(&service).unwrap();
        check(&cluster, &[("default/plain > 10.96.0.5 tcp 80", "-")]);
    }
}

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);

#[test]
fn readiness() {
    // Two endpoints by their conditions, then the right backends.
    let cases = [
        ([None, None, None], [YES, YES, NO], ".1:8080 .2:8080"),
        ([NO, NO, NO], [YES, YES, NO], ".2:8080"),
        ([NO, YES, YES], [YES, YES, NO], ".2:8080"),
        // None is ready: those that still serve while they end.
        ([NO, YES, YES], [NO, NO, NO], ".1:8080"),
        ([NO, YES, YES], [NO, NO, YES], ".1:8080"),
        ([NO, YES, YES], [NO, YES, YES], ".1:8080 .2:8080"),
        ([NO, YES, NO], [NO, YES, YES], ".2:8080"),
        ([NO, NO, YES], [NO, NO, NO], "reject"),
        // Not known: serving is as ready, terminating is not.
        ([NO, None, YES], [NO, None, None], "reject"),
        ([NO, YES, None], [NO, YES, None], "reject"),
        // Ready in spite of ending, as with publishNotReadyAddresses.
        ([YES, YES, YES], [NO, YES, YES], ".1:8080"),
    ];
    for (one, two, expected) in cases {
        println!("{one:?} {two:?}");
        let mut cluster = shop();
        endpoints(&mut cluster, &[(1, "node-1", one), (2, "node-2", two)]);
        check(&cluster, &[("default/plain > 10.96.0.5 tcp 80", expected)]);
        check(&cluster, &[("8.8.8.8 > 192.168.0.1 tcp 30080", expected)]);
    }
    let mut cluster = shop();
    endpoints(&mut cluster, &[]);
    check(
        &cluster,
        &[
            ("default/plain > 10.96.0.5 tcp 80", "reject"),
            ("8.8.8.8 > 192.168.0.1 tcp 30080", "reject"),
            ("8.8.8.8 > 198.51.100.5 tcp 80", "reject"),
        ],
    );
}

#[test]
fn internal_traffic_policy() {
    let local = &[("internalTrafficPolicy", json!("Local"))];
    let mut cluster = shop_with(local);
    check(
        &cluster,
        &[
            // default/db is on node-1, the others are on node-2.
            ("default/db > 10.96.0.5 tcp 80", ".10:8080"),
            ("default/plain > 10.96.0.5 tcp 80", ".12:8080 .20:9090"),
            ("default/host > 10.96.0.5 tcp 80", ".12:8080 .20:9090"),
            ("node:node-1 > 10.96.0.5 tcp 80", ".10:8080"),
            ("node:node-3 > 10.96.0.5 tcp 80", "reject"),
            ("default/unheard-of > 10.96.0.5 tcp 80", "reject"),
            // It is about cluster IPs alone.
            ("default/db > 203.0.113.5 tcp 80", WEB),
            ("default/db > 192.168.0.1 tcp 30080", WEB),
            ("8.8.8.8 > 192.168.0.1 tcp 30080", WEB),
        ],
    );
    // Ready ones elsewhere do not help; ending ones here do.
    endpoints(&mut cluster, &[(1, "node-1", [NO, YES, YES]), (2, "node-2", [YES, YES, NO])]);
    check(
        &cluster,
        &[("default/db > 10.96.0.5 tcp 80", ".1:8080"), ("default/plain > 10.96.0.5 tcp 80", ".2:8080")],
    );
    endpoints(&mut cluster, &[(1, "node-1", [NO, NO, NO]), (2, "node-2", [YES, YES, NO])]);
    check(&cluster, &[("default/db > 10.96.0.5 tcp 80", "reject")]);
}

#[test]
fn external_traffic_policy() {
    let local = &[("externalTrafficPolicy", json!("Local"))];
    let mut cluster = shop_with(local);
    check(
        &cluster,
        &[
            // The node that is addressed gives its own.
            ("8.8.8.8 > 192.168.0.1 tcp 30080", ".10:8080"),
            ("8.8.8.8 > 192.168.0.2 tcp 30080", ".12:8080 .20:9090"),
            ("default/plain > 192.168.0.1 tcp 30080", ".10:8080"),
            ("8.8.8.8 > fd00:168::1 tcp 30080", "fd00:244::a:8080"),
            ("8.8.8.8 > fd00:168::2 tcp 30080", "drop"),
            // Any node may receive what comes from outside; from inside it is as with Cluster.
            ("8.8.8.8 > 198.51.100.5 tcp 80", WEB),
            ("default/db > 198.51.100.5 tcp 80", WEB),
            // It is not about cluster IPs.
            ("default/db > 10.96.0.5 tcp 80", WEB),
        ],
    );
    endpoints(&mut cluster, &[(1, "node-1", [NO, YES, YES]), (2, "node-2", [YES, YES, NO])]);
    check(
        &cluster,
        &[
            ("8.8.8.8 > 192.168.0.1 tcp 30080", ".1:8080"),
            ("8.8.8.8 > 192.168.0.2 tcp 30080", ".2:8080"),
            ("8.8.8.8 > 198.51.100.5 tcp 80", ".1:8080 .2:8080"),
            ("8.8.8.8 > 203.0.113.5 tcp 80", ".1:8080 .2:8080"),
            ("default/db > 198.51.100.5 tcp 80", ".2:8080"),
        ],
    );
    endpoints(&mut cluster, &[(1, "node-1", [NO, NO, NO]), (2, "node-3", [NO, NO, NO])]);
    check(&cluster, &[("8.8.8.8 > 192.168.0.1 tcp 30080", "reject")]);
}

#[test]
fn a_slice_may_name_what_is_no_backend() {
    let mut cluster = shop();
    set_all(
        &mut cluster,
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: default, name: shop-names, labels: {kubernetes.io/service-name: shop}}
addressType: FQDN
ports: [{name: web, port: 80}]
endpoints: [{addresses: [shop.example]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: default, name: shop-other, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: web, port: null}, {name: other, port: 80}, {name: web, port: 80, protocol: UDP}]
endpoints: [{addresses: [10.244.0.77]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: default, name: shop-unlabelled}
addressType: IPv4
ports: [{name: web, port: 80}]
endpoints: [{addresses: [10.244.0.78]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: default, name: shop-twice, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: web, port: 8080}]
endpoints: [{addresses: [10.244.0.12], nodeName: node-2}]
",
    );
    check(&cluster, &[("default/plain > 10.96.0.5 tcp 80", WEB)]);
}

#[test]
fn the_only_port_needs_no_name() {
    let mut cluster = cluster(Options::default(), &[]);
    set_all(
        &mut cluster,
        "
apiVersion: v1
kind: Service
metadata: {namespace: default, name: one}
spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: default, name: one-x, labels: {kubernetes.io/service-name: one}}
addressType: IPv4
ports: [{name: '', port: 8080}]
endpoints: [{addresses: [10.244.0.12]}]
",
    );
    check(&cluster, &[("default/plain > 10.96.0.9 tcp 80", ".12:8080")]);
    cluster.remove("EndpointSlice", "default", "one-x");
    check(&cluster, &[("default/plain > 10.96.0.9 tcp 80", "reject")]);
    cluster.remove("Service", "default", "one");
    check(&cluster, &[("default/plain > 10.96.0.9 tcp 80", "-")]);
}

#[test]
fn session_affinity() {
    let ask = |cluster: &Cluster, port: u16| {
        cluster.session_affinity(&end("default/plain"), "10.96.0.5".parse().unwrap(), protocol("tcp"), port)
    };
    let config = json!({"clientIP": {"timeoutSeconds": 60}});
    assert_eq!(ask(&shop(), 80), None);
    assert_eq!(ask(&shop_with(&[("sessionAffinity", "None".into())]), 80), None);
    let on = ("sessionAffinity", json!("ClientIP"));
    assert_eq!(ask(&shop_with(std::slice::from_ref(&on)), 80), Some(Duration::from_hours(3)));
    let timed = shop_with(&[on, ("sessionAffinityConfig", config)]);
    assert_eq!(ask(&timed, 80), Some(Duration::from_secs(60)));
    assert_eq!(ask(&timed, 81), None);
}
