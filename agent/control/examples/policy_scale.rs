//! How an agent copes with policy at scale: events in, rows out, in a process of its own, so that its memory is its own.
//!
//! `policy_scale cluster`: 1,000 nodes, 30,000 pods, 6,000 identities, 30,000 policies.
//! `policy_scale node`: 250 endpoints on the node, 100 policies.
//! Prints one JSON object; `cargo xtask bench policy` judges it.
#![expect(clippy::disallowed_types, reason = "it measures time")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agent_api::Timestamp;
use agent_api::cni::{self, Attachment, Operation, PodRef};
use agent_control::memory::{Faults, MemoryNode};
use agent_control::ports::{CtClock, Cursor, Row, Scan, Table};
use agent_control::{
    Agent, CniRequest, Config, DeviceFacts, Event, MapStore, NamespaceObject, NetnsHandle, NodeObject, Now,
    Object, ObjectKind, ObjectName, PodObject, PolicyConfig, PortError, RequestId, Routing,
};
use agent_crd::identity_labels::{DEFAULT_CLUSTER, PodFacts};
use agent_crd::{CiliumIdentity, IdentityLabels};
use serde_json::{Value, json};

const NAMESPACES: u32 = 100;
const APPS: u32 = 60;
const NODES: u32 = 1000;
const DEVICE: &str = "eth0";

/// Tables that keep nothing, as those of the kernel are not in the agent's memory either.
#[derive(Default)]
struct Elsewhere {
    rows: usize,
}

impl MapStore for Elsewhere {
    fn dump(&mut self, _: Table) -> Result<Vec<Row>, PortError> {
        Ok(Vec::new())
    }

    fn upsert(&mut self, _: Table, _: &[u8], _: &[u8]) -> Result<(), PortError> {
        self.rows += 1;
        Ok(())
    }

    fn delete(&mut self, _: Table, _: &[u8]) -> Result<(), PortError> {
        Ok(())
    }

    fn scan(&mut self, _: Table, _: Option<&Cursor>, _: usize) -> Result<Scan, PortError> {
        Ok(Scan { rows: Vec::new(), next: None })
    }

    fn ct_clock(&mut self) -> Result<CtClock, PortError> {
        Ok(CtClock { ticks: 1_000_000, ticks_per_s: 250 })
    }
}

/// Tables in memory, and when the revision was raised last: then what was written before is in force.
#[derive(Default)]
struct Here {
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    in_force: Option<Instant>,
}

impl MapStore for Here {
    fn dump(&mut self, table: Table) -> Result<Vec<Row>, PortError> {
        let of_table = self.rows.iter().filter(|((own, _), _)| *own == table);
        Ok(of_table.map(|((_, key), value)| Row { key: key.clone(), value: value.clone() }).collect())
    }

    fn upsert(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), PortError> {
        self.rows.insert((table, key.to_vec()), value.to_vec());
        if table == Table::Config {
            self.in_force = Some(Instant::now());
        }
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), PortError> {
        self.rows.remove(&(table, key.to_vec()));
        Ok(())
    }

    fn scan(&mut self, _: Table, _: Option<&Cursor>, _: usize) -> Result<Scan, PortError> {
        Ok(Scan { rows: Vec::new(), next: None })
    }

    fn ct_clock(&mut self) -> Result<CtClock, PortError> {
        Ok(CtClock { ticks: 1_000_000, ticks_per_s: 250 })
    }
}

/// An agent and its node.
struct World {
    agent: Agent,
    node: MemoryNode,
    now: Now,
    /// Time spent in the agent with events.
    taking: Duration,
    requests: u64,
}

impl World {
    fn new(maps: &mut dyn MapStore) -> Self {
        let mut world = Self {
            agent: Agent::new(config(), Vec::new()),
            node: MemoryNode::new(DEVICE, Faults::default()),
            now: Now::from_secs(10_000),
            taking: Duration::ZERO,
            requests: 0,
        };
        world.nodes(maps);
        world
    }

    /// Another agent begins, with what is in the state directory.
    fn restart(&mut self, maps: &mut dyn MapStore) {
        self.agent = Agent::new(config(), self.node.documents());
        self.nodes(maps);
        self.taking = Duration::ZERO;
    }

    fn nodes(&mut self, maps: &mut dyn MapStore) {
        self.settle(maps);
        self.event(Event::Underlay(DeviceFacts {
            name: DEVICE.to_owned(),
            ifindex: 2,
            mac: [2, 0, 0, 0, 0, 2],
            mtu: 1500,
            addresses: node(1).internal_ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        }));
        self.event(Event::NodeListStarted);
        for n in 1..=NODES {
            self.event(Event::NodeUpsert(node(n)));
        }
        self.event(Event::NodeListSynced);
        self.settle(maps);
    }

    fn event(&mut self, event: Event) {
        let start = Instant::now();
        let replies = self.agent.handle(self.now, event);
        self.taking += start.elapsed();
        assert!(replies.is_empty(), "nothing is answered before it is done: {replies:?}");
    }

    fn object(&mut self, object: Object) {
        self.event(Event::Upsert { object: Box::new(object), version: 1 });
    }

    /// An object as the API has it.
    fn read(&mut self, kind: ObjectKind, value: &Value) {
        let start = Instant::now();
        let object = Object::read(kind, value).ok().flatten();
        self.taking += start.elapsed();
        self.object(object.expect("an object like others"));
    }

    /// Reconciles for as long as there is something to do at once; returns the rows that were written and removed.
    fn settle(&mut self, maps: &mut dyn MapStore) -> usize {
        let mut rows = 0;
        loop {
            let report = self.agent.reconcile(self.now, maps, &mut self.node);
            assert!(report.errors.is_empty(), "{:?}", report.errors);
            rows += report.rows_changed();
            for reply in &report.replies {
                assert!(matches!(reply.outcome, cni::Reply::Added { .. }), "{reply:?}");
            }
            if self.agent.next_deadline().is_none_or(|at| at > self.now) {
                return rows;
            }
        }
    }

    /// The request for the interface of a pod.
    fn add(&mut self, n: u32) {
        let name = format!("own-{n}");
        self.requests += 1;
        self.event(Event::Cni(CniRequest {
            id: RequestId(self.requests),
            received: Timestamp::from_unix_nanos(0),
            netns: Some(NetnsHandle(self.requests)),
            pod: Some(PodRef { namespace: format!("n{}", n % NAMESPACES), name: name.clone(), uid: None }),
            operation: Operation::Add {
                attachment: Attachment { container_id: name.clone(), ifname: "eth0".to_owned() },
                netns: format!("/run/netns/{name}"),
            },
        }));
    }

    /// Everything but policies: namespaces, identities, `own` pods here and `others` elsewhere.
    fn population(&mut self, own: u32, others: u32) {
        for kind in ObjectKind::ALL {
            self.event(Event::ListStarted(kind));
        }
        for namespace in 0..NAMESPACES {
            let name = format!("n{namespace}");
            self.object(Object::Namespace(NamespaceObject { name, labels: namespace_labels(namespace) }));
            for app in 0..APPS {
                let labels = identity_labels(namespace, app);
                self.object(Object::Identity(CiliumIdentity::new(identity(namespace, app), &labels)));
            }
        }
        for n in 0..own {
            self.object(Object::Pod(PodObject {
                namespace: format!("n{}", n % NAMESPACES),
                name: format!("own-{n}"),
                uid: format!("uid-{n}"),
                labels: labels(n % APPS),
                service_account: "default".to_owned(),
                named_ports: Vec::new(),
            }));
        }
        for n in 0..others {
            self.read(ObjectKind::Endpoint, &endpoint(n));
        }
    }

    /// Pods get their interfaces, in a cluster without policies.
    fn pods(&mut self, own: u32, others: u32, maps: &mut dyn MapStore) {
        self.population(own, others);
        self.lists_are_complete();
        self.settle(maps);
        for n in 0..own {
            self.add(n);
        }
        self.settle(maps);
    }

    fn lists_are_complete(&mut self) {
        for kind in ObjectKind::ALL {
            self.event(Event::ListSynced(kind));
        }
    }

    /// One change until it is in force, and the number of rows of it. What nobody looks up any more goes after that.
    fn timed(&mut self, maps: &mut Here, change: impl FnOnce(&mut Self)) -> (f64, usize) {
        maps.in_force = None;
        let start = Instant::now();
        change(self);
        let rows = self.settle(maps);
        let end = maps.in_force.expect("rows have changed");
        (end.duration_since(start).as_secs_f64() * 1e3, rows)
    }
}

fn config() -> Config {
    Config {
        policy: Some(PolicyConfig::default()),
        // Nobody but the agent writes here, and some of the tables keep nothing that could be looked at.
        inspect_interval: Duration::from_hours(24),
        ..Config::new("node-1", Routing::Vxlan)
    }
}

fn node(n: u32) -> NodeObject {
    NodeObject {
        labels: BTreeMap::new(),
        name: format!("node-{n}"),
        uid: format!("uid-{n}"),
        created_s: 1000 + u64::from(n),
        pod_cidrs: vec![format!("10.{}.{}.0/24", 10 + n / 256, n % 256)],
        internal_ips: vec![format!("172.30.{}.{}", n / 256, n % 256)],
    }
}

fn namespace_labels(namespace: u32) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("kubernetes.io/metadata.name".to_owned(), format!("n{namespace}")),
        ("team".to_owned(), format!("t{}", namespace % 10)),
    ])
}

fn labels(app: u32) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), format!("a{app}")), ("tier".to_owned(), format!("t{}", app % 3))])
}

fn identity(namespace: u32, app: u32) -> u32 {
    256 + namespace * APPS + app
}

fn identity_labels(namespace: u32, app: u32) -> IdentityLabels {
    IdentityLabels::of_pod(&PodFacts {
        labels: &labels(app),
        namespace: &format!("n{namespace}"),
        namespace_labels: &namespace_labels(namespace),
        service_account: "default",
        cluster: DEFAULT_CLUSTER,
        filter: agent_crd::LabelFilter::DEFAULT,
    })
}

/// A pod on another node, as its agent tells of it.
fn endpoint(n: u32) -> Value {
    let (namespace, app) = (n % NAMESPACES, (n / NAMESPACES) % APPS);
    let node = 2 + n % (NODES - 1);
    json!({
        "metadata": {"namespace": format!("n{namespace}"), "name": format!("a{app}-{n}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {
            "identity": {"id": identity(namespace, app)},
            "networking": {
                "addressing": [{"ipv4": format!("10.{}.{}.{}", 10 + node / 256, node % 256, 10 + n / (NODES - 1))}],
                "node": format!("172.30.{}.{}", node / 256, node % 256),
            },
        },
    })
}

/// One policy of many: most name an app and its peers in the namespace, some whole teams, ranges and CIDRs.
fn policy(namespace: u32, n: u32, port: u32) -> Value {
    let peer = match n % 10 {
        0 => json!({"namespaceSelector": {"matchLabels": {"team": format!("t{}", n % 7)}}}),
        1 => {
            json!({"ipBlock": {"cidr": format!("11.{}.0.0/16", n % 250), "except": [format!("11.{}.1.0/24", n % 250)]}})
        }
        2 => json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"tier": "t1"}}}),
        _ => json!({"podSelector": {"matchLabels": {"app": format!("a{}", (n * 7) % APPS)}}}),
    };
    json!({"metadata": {"name": format!("p{n}"), "namespace": format!("n{namespace}")}, "spec": {
        "podSelector": {"matchLabels": {"app": format!("a{}", n % APPS)}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [peer], "ports": [{"port": 80}, {"port": 8000 + n % 10, "endPort": 8100}]}],
        "egress": [{"to": [peer], "ports": [{"port": port}]}]}})
}

/// Resident memory in MiB, now (`VmRSS`) or at most so far (`VmHWM`).
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    let kib: u32 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    f64::from(kib) / 1024.0
}

fn quantile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Seconds that this process has had a CPU.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let ns = text.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0);
    Duration::from_nanos(ns).as_secs_f64()
}

/// Pods of the own node: as many as a kubelet takes.
const OWN: u32 = 110;

fn cluster(quick: bool) -> Value {
    let policies = if quick { 30 } else { 300 };
    let mut elsewhere = Elsewhere::default();
    let mut world = World::new(&mut elsewhere);
    world.pods(OWN, 0, &mut elsewhere);
    // An agent that begins with all of it has the most to do.
    world.restart(&mut elsewhere);
    elsewhere.rows = 0;
    world.population(OWN, 30_000 - OWN);
    for namespace in 0..NAMESPACES {
        for n in 0..policies {
            world.read(ObjectKind::NetworkPolicy, &policy(namespace, n, 443));
        }
    }
    let taking = world.taking;
    let (start, cpu) = (Instant::now(), cpu_s());
    world.lists_are_complete();
    world.settle(&mut elsewhere);
    let (first, first_cpu) = (start.elapsed(), cpu_s() - cpu);
    let resident = memory("VmRSS");

    let mut maps = Here::default();
    let mut times = Vec::new();
    let mut rows = 0;
    for round in 0..if quick { 50 } else { 300 } {
        let own = round % OWN;
        let n = own % APPS + APPS * (round / OWN);
        let n = n % policies;
        let value = policy(own % NAMESPACES, n, 8443 + round);
        let (ms, written) = world.timed(&mut maps, |world| world.read(ObjectKind::NetworkPolicy, &value));
        assert!(written > 0, "the policy is for a pod of this node");
        times.push(ms);
        rows += written;
    }
    json!({
        "resident_mib": resident,
        "resident_after_updates_mib": memory("VmRSS"),
        "peak_mib": memory("VmHWM"),
        "taking_s": taking.as_secs_f64(),
        "first_s": first.as_secs_f64(),
        "first_cpu_s": first_cpu,
        "rows": elsewhere.rows,
        "update_p50_ms": quantile(&times, 50),
        "update_p99_ms": quantile(&times, 99),
        "update_rows": rows / times.len(),
    })
}

fn one_node(quick: bool) -> Value {
    let mut maps = Here::default();
    let mut world = World::new(&mut maps);
    world.pods(250, 6000, &mut maps);
    for n in 0..100 {
        // Spread over the namespaces and apps of the pods that are here.
        world.read(ObjectKind::NetworkPolicy, &policy(n % NAMESPACES, n % APPS, 443));
    }
    world.settle(&mut maps);
    let (mut come, mut go, mut rows) = (Vec::new(), Vec::new(), 0);
    let cpu = cpu_s();
    let kind = ObjectKind::CiliumClusterwideNetworkPolicy;
    let rounds = if quick { 20 } else { 100 };
    for _ in 0..rounds {
        let wide = json!({"metadata": {"name": "wide"}, "spec": {
            "endpointSelector": {},
            "ingress": [{"fromEntities": ["all"]}],
            "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "a7"}}]}]}});
        let (ms, written) = world.timed(&mut maps, |world| world.read(kind, &wide));
        assert!(written > 250, "every pod of this node has the policy");
        come.push(ms);
        rows += written;
        let name = ObjectName::new("", "wide");
        go.push(world.timed(&mut maps, |world| world.event(Event::Delete { kind, name, version: 2 })).0);
    }
    json!({
        "come_p50_ms": quantile(&come, 50),
        "come_p99_ms": quantile(&come, 99),
        "go_p50_ms": quantile(&go, 50),
        "cpu_ms": (cpu_s() - cpu) * 1e3 / f64::from(rounds * 2),
        "rows": rows / come.len(),
    })
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|word| word == "--quick");
    let figures = match words.first().map(String::as_str) {
        Some("cluster") => cluster(quick),
        Some("node") => one_node(quick),
        _ => {
            eprintln!("policy_scale cluster|node [--quick]");
            std::process::exit(2);
        }
    };
    println!("{figures}");
}
