//! How an agent copes with services at scale: events in, rows of real tables of the kernel out, in a process of its own, so that its
//! memory is its own.
//!
//! `service_scale programming OBJECT`: 10,000 services with 4 endpoints each.
//! `service_scale memory OBJECT`: 30,000, in tables that have room for them.
//! OBJECT is the eBPF object whose tables are written; they are in a sandbox that goes with the process. Needs root.
//! Prints one JSON object; `cargo xtask bench service` judges it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use agent_control::memory::{Faults, MemoryNode};
use agent_control::ports::Table;
use agent_control::{
    Agent, Config, DeviceFacts, Event, MapStore as _, NodeObject, Now, Object, ObjectKind, PolicyConfig,
    Routing,
};
use agent_daemon::kernel::KernelMaps;
use anyhow::{Context as _, bail};
use dataplane_abi::Table as _;
use dataplane_abi::backends::Backends;
use dataplane_abi::services::Services;
use dataplane_loader::{Clock, LoadOptions, Object as Dataplane, Sandbox};
use serde_json::{Value, json};

/// Endpoints of each service.
const ENDPOINTS: u32 = 4;
const NAMESPACES: u32 = 100;
const DEVICE: &str = "eth0";
/// Services of which the time to write them is measured.
const PROGRAMMED: u32 = 10_000;
/// Services beside which memory is measured.
const REMEMBERED: u32 = 30_000;

/// An agent, its node, and tables of the kernel.
struct World {
    agent: Agent,
    node: MemoryNode,
    maps: KernelMaps,
    now: Now,
    /// Time spent in reading objects and in the agent with events.
    taking: Duration,
}

impl World {
    /// Neither services nor slices are known yet; all else that there is to know is.
    fn new(object: &[u8], rows: u32) -> anyhow::Result<Self> {
        let options = LoadOptions::default()
            .max_entries(Services::SPEC.name, rows)
            .max_entries(Backends::SPEC.name, rows);
        let object = Dataplane::load_bytes(object, None, &options).context("load the object")?;
        let clock = Clock::calibrate(&object).context("read the kernel's tick clock")?;
        let maps = KernelMaps::new(&object, clock).context("open the tables")?;
        let mut world = Self {
            agent: Agent::new(config(), Vec::new()),
            node: MemoryNode::new(DEVICE, Faults::default()),
            maps,
            now: Now::from_secs(10_000),
            taking: Duration::ZERO,
        };
        world.settle()?;
        world.begin();
        world.settle()?;
        world.taking = Duration::ZERO;
        Ok(world)
    }

    /// Another agent begins beside the rows that are there.
    fn restart(&mut self) -> anyhow::Result<()> {
        self.agent = Agent::new(config(), self.node.documents());
        self.settle()?;
        self.begin();
        self.taking = Duration::ZERO;
        Ok(())
    }

    fn begin(&mut self) {
        let node = node();
        self.event(Event::Underlay(DeviceFacts {
            name: DEVICE.to_owned(),
            ifindex: 2,
            mac: [2, 0, 0, 0, 0, 2],
            mtu: 1500,
            addresses: node.internal_ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        }));
        self.event(Event::NodeListStarted);
        self.event(Event::NodeUpsert(node));
        self.event(Event::NodeListSynced);
        for kind in ObjectKind::ALL {
            self.event(Event::ListStarted(kind));
            if !KINDS.contains(&kind) {
                self.event(Event::ListSynced(kind));
            }
        }
    }

    fn event(&mut self, event: Event) {
        let start = Instant::now();
        drop(self.agent.handle(self.now, event));
        self.taking += start.elapsed();
    }

    /// An object as the API has it.
    fn read(&mut self, kind: ObjectKind, value: &Value) {
        let start = Instant::now();
        let object = Object::read(kind, value).ok().flatten().expect("an object like others");
        self.taking += start.elapsed();
        self.event(Event::Upsert { object: Box::new(object), version: 1 });
    }

    fn all_services(&mut self, services: u32) {
        for n in 0..services {
            self.read(ObjectKind::Service, &service(n));
            self.read(ObjectKind::EndpointSlice, &slice(n, 0));
        }
    }

    /// Reconciles for as long as there is something to do at once; returns the rows that were written and removed.
    fn settle(&mut self) -> anyhow::Result<usize> {
        let mut rows = 0;
        loop {
            let report = self.agent.reconcile(self.now, &mut self.maps, &mut self.node);
            if let Some(error) = report.errors.first() {
                bail!("{} failures, the first: {error}", report.errors.len());
            }
            rows += report.rows_changed();
            if self.agent.next_deadline().is_none_or(|at| at > self.now) {
                return Ok(rows);
            }
        }
    }

    /// The lists are complete: until all rows are written.
    fn first(&mut self) -> anyhow::Result<(Duration, usize)> {
        let start = Instant::now();
        for kind in KINDS {
            self.agent.handle(self.now, Event::ListSynced(kind));
        }
        let rows = self.settle()?;
        Ok((start.elapsed(), rows))
    }

    /// Rows that the kernel has.
    fn count(&mut self, table: Table) -> anyhow::Result<usize> {
        Ok(self.maps.dump(table)?.len())
    }
}

const KINDS: [ObjectKind; 2] = [ObjectKind::Service, ObjectKind::EndpointSlice];

fn config() -> Config {
    Config {
        policy: Some(PolicyConfig::default()),
        kube_proxy_replacement: true,
        // Nobody but the agent writes here.
        inspect_interval: Duration::from_hours(24),
        ..Config::new("node-1", Routing::Vxlan)
    }
}

fn node() -> NodeObject {
    NodeObject {
        labels: BTreeMap::new(),
        name: "node-1".to_owned(),
        uid: "uid-1".to_owned(),
        created_s: 1000,
        pod_cidrs: vec!["10.10.1.0/24".to_owned()],
        internal_ips: vec!["172.30.0.1".to_owned()],
    }
}

/// A service as people make them.
fn service(n: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "namespace": format!("n{}", n % NAMESPACES), "name": format!("service-{n}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": format!("app-{n}")},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": format!("10.96.{}.{}", n >> 8, n & 255),
            "clusterIPs": [format!("10.96.{}.{}", n >> 8, n & 255)],
            "selector": {"app": format!("app-{n}")},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    })
}

/// Its endpoints. In another round one of them is another.
fn slice(n: u32, round: u32) -> Value {
    let endpoint = |k: u32| {
        let host = n * ENDPOINTS + k;
        let moved = if k == 0 { 20 + round % 200 } else { 20 };
        json!({
            "addresses": [format!("10.{}.{}.{}", moved + (host >> 16), host >> 8 & 255, host & 255)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", 1 + host % 1000),
            "targetRef": {"kind": "Pod", "namespace": format!("n{}", n % NAMESPACES), "name": format!("pod-{host}")},
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": format!("n{}", n % NAMESPACES), "name": format!("service-{n}-abcde"),
            "labels": {
                "kubernetes.io/service-name": format!("service-{n}"),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
    })
}

fn programming(object: &[u8], quick: bool) -> anyhow::Result<Value> {
    let services = if quick { PROGRAMMED / 10 } else { PROGRAMMED };
    let mut world = World::new(object, Services::SPEC.max_entries)?;
    let cpu = cpu_s();
    world.all_services(services);
    let taking = world.taking;
    let (first, rows) = world.first()?;
    let first_cpu = cpu_s() - cpu;
    let there = world.count(Table::Services)? + world.count(Table::Backends)?;
    // One row for the frontend, and two for each endpoint.
    let wanted = usize::try_from(services * (1 + 2 * ENDPOINTS)).unwrap_or_default();
    if there != wanted {
        bail!("{there} rows are in the kernel's tables instead of {wanted}");
    }

    let mut times = Vec::new();
    let mut update_rows = 0;
    for round in 0..if quick { 50 } else { 300 } {
        let changed = slice((round * 7919) % services, 1 + round);
        let start = Instant::now();
        world.read(ObjectKind::EndpointSlice, &changed);
        update_rows += world.settle()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    if update_rows < times.len() * 2 {
        bail!("slices have changed and the tables have not");
    }

    world.restart()?;
    world.all_services(services);
    for round in 0..if quick { 50 } else { 300 } {
        world.read(ObjectKind::EndpointSlice, &slice((round * 7919) % services, 1 + round));
    }
    let (restart, restart_rows) = world.first()?;
    Ok(json!({
        "services": services,
        "taking_s": taking.as_secs_f64(),
        "first_s": first.as_secs_f64(),
        "cpu_s": first_cpu,
        "rows": rows,
        "update_p50_ms": quantile(&times, 50),
        "update_p99_ms": quantile(&times, 99),
        "update_rows": update_rows / times.len(),
        "restart_s": (world.taking + restart).as_secs_f64(),
        "restart_rows": restart_rows,
    }))
}

fn remember(object: &[u8], quick: bool) -> anyhow::Result<Value> {
    let services = if quick { REMEMBERED / 10 } else { REMEMBERED };
    let rows = (services * (1 + ENDPOINTS)).next_power_of_two();
    let mut world = World::new(object, rows)?;
    let before = memory("VmRSS");
    world.all_services(services);
    let (first, _) = world.first()?;
    Ok(json!({
        "services": services,
        "before_mib": before,
        "resident_mib": memory("VmRSS"),
        "peak_mib": memory("VmHWM"),
        "first_s": (world.taking + first).as_secs_f64(),
    }))
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

/// Seconds that this thread has had a CPU.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = text.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0);
    Duration::from_nanos(ns).as_secs_f64()
}

fn measure(words: &[String]) -> anyhow::Result<Value> {
    let quick = words.iter().any(|word| word == "--quick");
    let [what, object, ..] = words else { bail!("service_scale programming|memory OBJECT [--quick]") };
    let object = std::fs::read(Path::new(object)).with_context(|| format!("read {object}"))?;
    match what.as_str() {
        "programming" => programming(&object, quick),
        "memory" => remember(&object, quick),
        _ => bail!("{what} is neither programming nor memory"),
    }
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let figures = Sandbox::run(|_| measure(&words)).context("make a sandbox (needs root)")??;
    println!("{figures}");
    Ok(())
}
