//! A cluster of 6,000 identities and 30,000 policies, on a node with 250 endpoints.

use std::hint::black_box;

use agent_crd::{CiliumNetworkPolicy, NetworkPolicy, Object as _};
use agent_policy::{
    Config, Endpoint, EndpointId, Label, LabelSet, NAMESPACE, NAMESPACE_LABELS, ObjectRef, Policy,
    PolicyObject,
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dataplane_abi::Identity;
use serde_json::json;

const NAMESPACES: u32 = 100;
const APPS: u32 = 60;
const POLICIES: u32 = 300;
const ENDPOINTS: u32 = 250;

fn labels(namespace: u32, app: u32) -> LabelSet {
    [
        Label::k8s(NAMESPACE, format!("n{namespace}")),
        Label::k8s(format!("{NAMESPACE_LABELS}team"), format!("t{}", namespace % 10)),
        Label::k8s("io.cilium.k8s.policy.cluster", "default"),
        Label::k8s("io.cilium.k8s.policy.serviceaccount", "default"),
        Label::k8s("app", format!("a{app}")),
        Label::k8s("tier", format!("t{}", app % 3)),
    ]
    .into_iter()
    .collect()
}

fn identity(namespace: u32, app: u32) -> Identity {
    Identity(256 + namespace * APPS + app)
}

/// One policy of many: most name an app and its peers in the namespace, some whole teams, ranges and CIDRs.
fn policy(namespace: u32, n: u32) -> NetworkPolicy {
    let peer = match n % 10 {
        0 => json!({"namespaceSelector": {"matchLabels": {"team": format!("t{}", n % 7)}}}),
        1 => {
            json!({"ipBlock": {"cidr": format!("10.{}.0.0/16", n % 250), "except": [format!("10.{}.1.0/24", n % 250)]}})
        }
        2 => json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"tier": "t1"}}}),
        _ => json!({"podSelector": {"matchLabels": {"app": format!("a{}", (n * 7) % APPS)}}}),
    };
    let object = json!({"metadata": {"name": format!("p{n}"), "namespace": format!("n{namespace}")}, "spec": {
        "podSelector": {"matchLabels": {"app": format!("a{}", n % APPS)}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [peer], "ports": [{"port": 80}, {"port": 8000 + n % 10, "endPort": 8100}]}],
        "egress": [{"to": [peer], "ports": [{"port": 443}]}]}});
    NetworkPolicy::from_json(object).expect("an object like others")
}

fn all_policies() -> Vec<NetworkPolicy> {
    (0..NAMESPACES).flat_map(|namespace| (0..POLICIES).map(move |n| policy(namespace, n))).collect()
}

fn engine(policies: &[NetworkPolicy]) -> Policy {
    let mut engine = Policy::new(Config::default());
    for namespace in 0..NAMESPACES {
        for app in 0..APPS {
            engine.upsert_identity(identity(namespace, app), labels(namespace, app), &[]);
        }
    }
    for n in 0..ENDPOINTS {
        let (namespace, app) = (n % NAMESPACES, n % APPS);
        let endpoint = Endpoint {
            name: format!("e{n}"),
            identity: identity(namespace, app),
            labels: labels(namespace, app),
            named_ports: Vec::new(),
            host: false,
            enforcement: None,
            audit: None,
        };
        engine.upsert_endpoint(EndpointId(n), endpoint);
    }
    for policy in policies {
        engine.upsert(PolicyObject::Kubernetes(policy)).expect("a policy like others");
    }
    engine
}

/// Resident memory in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn everywhere() -> CiliumNetworkPolicy {
    let object = json!({"metadata": {"name": "everywhere", "namespace": "n0"}, "spec": {
        "endpointSelector": {}, "ingress": [{"fromEntities": ["host"]}]}});
    CiliumNetworkPolicy::from_json(object).expect("an object like others")
}

fn bench(criterion: &mut Criterion) {
    let policies = all_policies();
    let before = memory();
    let mut whole = engine(&policies);
    whole.commit();
    whole.settle();
    println!(
        "{} rows, {} port sets, {} CIDRs; {} MiB",
        whole.rows().count(),
        whole.sets().count(),
        whole.prefixes().count(),
        (memory() - before) / 1024
    );

    let mut group = criterion.benchmark_group("policy");
    group.sample_size(10);
    group.bench_function("everything", |bencher| {
        bencher.iter(|| {
            let mut engine = engine(&policies);
            black_box(engine.commit());
            engine
        });
    });
    group.bench_function("a new identity", |bencher| {
        bencher.iter(|| {
            whole.upsert_identity(Identity(60_000), labels(3, 61), &[]);
            black_box(whole.commit());
            whole.remove_identity(Identity(60_000));
            black_box(whole.commit());
        });
    });
    let wide =
        agent_crd::CiliumClusterwideNetworkPolicy::from_json(json!({"metadata": {"name": "wide"}, "spec": {
        "endpointSelector": {}, "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "a7"}}]}]}}))
        .expect("an object like others");
    group.bench_function("a policy for all endpoints comes and goes", |bencher| {
        bencher.iter_batched(
            || (),
            |()| {
                let object = PolicyObject::CiliumClusterwide(&wide);
                whole.upsert(object).expect("a policy like others");
                black_box(whole.commit());
                let name: ObjectRef = object.name();
                whole.delete(&name);
                black_box(whole.commit());
                whole.settle();
            },
            BatchSize::PerIteration,
        );
    });
    let some = everywhere();
    group.bench_function("a policy for the endpoints of a namespace comes and goes", |bencher| {
        bencher.iter(|| {
            let object = PolicyObject::Cilium(&some);
            whole.upsert(object).expect("a policy like others");
            black_box(whole.commit());
            whole.delete(&object.name());
            black_box(whole.commit());
            whole.settle();
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
