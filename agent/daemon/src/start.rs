//! A start of the agent, from top to bottom.

use crate::cni_socket::CniSocket;
use crate::control::{self, Control, Parts};
use crate::flags::{Aggregation, Enforcement, Family, Routing, RunFlags, Switch, Translation};
use crate::health_ports;
use crate::http::{self, Sources};
use crate::kernel::{self, KernelMaps, KernelNode};
use crate::metrics::Metrics;
use crate::monitor::{Monitor, Parties};
use crate::place::{self, Place};
use crate::publish::{self, Observed, Told};
use crate::status::Fixed;
use crate::tables::Tables;
use crate::underlay::Underlay;
use crate::watch::{self, Connector, WatchStatus};
use agent_api::Timestamp;
use agent_api::status::AttachKind;
use agent_control::{
    Agent, Config, FamilyMode, Masquerade, MonitorAggregation, PolicyConfig, ServiceTranslation,
};
use agent_node::Netlink;
use anyhow::{Context as _, Result};
use dataplane_loader::{Clock, EventReader, HookKind, LoadOptions, Object, Pins, probe};
use ipnet::IpNet;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Runs until a signal. What it put into the kernel stays there.
///
/// # Errors
/// When the agent cannot run here, in one sentence with what to do.
pub fn run(flags: &RunFlags) -> Result<()> {
    let started = Timestamp::now();

    // 1. May it run here at all?
    place::probe(flags)?;
    let node = place::node_name(flags)?;
    let object_path = place::object(flags)?;
    let cgroup = place::cgroup(flags)?;
    let place = Place::take(flags)?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node,
        kernel = crate::process::kernel_release(),
        routing = ?flags.routing,
        "bristle-agent starts"
    );

    // 2. What did an earlier agent leave?
    let documents = kernel::documents(&place.state).with_context(|| {
        format!(
            "cannot read the state directory {}; mend it or give another --state-dir",
            place.state.display()
        )
    })?;

    // 3. Listen before the slow part, so that plugins wait instead of failing.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Made when needed: one for each list that a slow reader reads.
        .max_blocking_threads(16)
        .thread_name("worker")
        .enable_all()
        .build()
        .context("cannot start worker threads")?;
    let entered = runtime.enter();
    let cni_socket = CniSocket::listen(&place.cni_socket)?;
    let api_socket = http::listen(&place.api_socket)?;

    // 4. Tables (the pinned ones are taken over) and programs.
    let pins = Pins::new(&flags.bpffs);
    let object = Object::load(&object_path, Some(&pins), &load_options(flags))
        .with_context(|| format!("cannot load {}", object_path.display()))?;
    for kept in object.kept_sizes() {
        warn!("{kept}");
    }
    let clock = Clock::calibrate(&object).context("cannot read the kernel's tick clock")?;
    let tables = Arc::new(Tables::new(&object, &clock)?);
    let reader = EventReader::of(&object).context("cannot read the ring buffer")?;
    let maps = KernelMaps::new(&object, clock)?;

    // 5. The mind and its hands, on their own thread. Known endpoints are served from here on.
    let metrics = Arc::new(Metrics::default());
    let fixed = Arc::new(fixed(started, &node, &object_path, &pins));
    let netlink = || Netlink::open().context("cannot talk to the kernel's network stack");
    let conflist = flags.cni_conf_dir().map(|dir| (dir.to_owned(), place.cni_socket.clone()));
    let (told_sender, told) = tokio::sync::watch::channel(Told::default());
    let (names_sender, names) = std::sync::mpsc::channel();
    let with_policy = flags.policy == Switch::On;
    let with_health = flags.kube_proxy_replacement && flags.enable_health_check_nodeport == Switch::On;
    let (healths_sender, healths) = tokio::sync::watch::channel(Vec::new());
    let (control, control_ended) = control::start(Parts {
        agent: Agent::new(config(flags, node.clone()), documents),
        maps,
        node: KernelNode::new(netlink()?, object, pins, place.state.clone(), &flags.run_dir)
            .with_cgroup(cgroup),
        underlay: Underlay::new(netlink()?, flags.device.clone()),
        metrics: Arc::clone(&metrics),
        conflist,
        names: names_sender,
        told: with_policy.then_some(told_sender),
        healths: with_health.then_some(healths_sender),
    })?;

    // 6. Ears and mouths.
    let watch = WatchStatus::new(Arc::clone(&metrics));
    let sources = Sources {
        control: control.clone(),
        tables,
        monitor: Monitor::start(reader, control.clone(), names, Arc::clone(&metrics))?,
        parties: Parties::new(control.clone()),
        watch: watch.clone(),
        metrics,
        fixed,
    };
    let connector = Arc::new(Connector::new(flags.kubeconfig.clone(), watch, control.clone()));
    let observed = with_policy.then(|| Arc::new(Observed::default()));
    watch::start(&connector, &control, &node, observed.as_ref(), flags.kube_proxy_replacement);
    if let Some(observed) = observed {
        runtime.spawn(publish::run(node, told, observed, connector));
    }
    runtime.spawn(cni_socket.serve(control.clone()));
    if with_health {
        runtime.spawn(health_ports::run(healths));
    }
    drop(entered);

    // 7. Until told to stop, or until something that must not end ends.
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        spawn_metrics(flags, &sources).await?;
        let healthz = flags.kube_proxy_replacement_healthz_bind_address.0;
        if let Some(addr) = healthz.filter(|_| flags.kube_proxy_replacement) {
            health_ports::serve_proxy(addr, sources.control.clone()).await?;
        }
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: the agent stops, the dataplane stays"),
            _ = interrupt.recv() => info!("SIGINT: the agent stops, the dataplane stays"),
            result = http::serve(api_socket, sources) => return result.context("the local API ended"),
            _ = control_ended => return Err(control::ended()),
        }
        Ok(())
    })?;
    runtime.shutdown_background();
    end(control);
    Ok(())
}

/// What does not change while the process lives.
fn fixed(started: Timestamp, node: &str, object: &Path, pins: &Pins) -> Fixed {
    Fixed {
        started,
        node: node.to_owned(),
        object: object.display().to_string(),
        attach: match HookKind::of_kernel() {
            HookKind::Tcx => AttachKind::Tcx,
            HookKind::Clsact => AttachKind::Clsact,
        },
        kernel: crate::process::kernel_release(),
        pins: pins.clone(),
    }
}

/// The control thread is not waited for: each of its operations may be cut at any point (it is made for SIGKILL).
fn end(control: Control) {
    drop(control);
}

async fn spawn_metrics(flags: &RunFlags, sources: &Sources) -> Result<()> {
    let Some(addr) = flags.metrics_addr.0 else { return Ok(()) };
    let listener = TcpListener::bind(addr)
        .await
        .with_context(|| format!("cannot serve metrics on {addr}; give another --metrics-addr, or off"))?;
    let sources = sources.clone();
    tokio::spawn(async move {
        if let Err(problem) = http::serve_metrics(listener, sources).await {
            warn!("{problem:#}");
        }
    });
    Ok(())
}

fn config(flags: &RunFlags, node: String) -> Config {
    let routing = match flags.routing {
        Routing::Vxlan => agent_control::Routing::Vxlan,
        Routing::Native => agent_control::Routing::Native,
    };
    let family = |family| match family {
        Family::True => FamilyMode::On,
        Family::False => FamilyMode::Off,
        Family::Auto => FamilyMode::Auto,
    };
    let mut config = Config::new(node, routing);
    config.ipv4 = family(flags.ipv4);
    config.ipv6 = family(flags.ipv6);
    config.mtu = (flags.mtu > 0).then_some(flags.mtu);
    config.kube_proxy_replacement = flags.kube_proxy_replacement;
    config.service_translation = match flags.service_translation {
        Translation::Socket => ServiceTranslation::Socket,
        Translation::Packet => ServiceTranslation::Packet,
        Translation::Both => ServiceTranslation::Both,
    };
    config.node_port = flags.enable_node_port == Switch::On;
    config.node_ports = flags.node_port_range.0.clone();
    let (v4, v6) = (&flags.ipv4_native_routing_cidr, &flags.ipv6_native_routing_cidr);
    config.masquerade = Masquerade {
        ipv4: flags.enable_ipv4_masquerade,
        ipv6: flags.enable_ipv6_masquerade,
        ports: flags.snat_port_range.0.clone(),
        native_routing: v4.iter().copied().map(IpNet::V4).chain(v6.iter().copied().map(IpNet::V6)).collect(),
        excluded: flags.masquerade_exclude.clone(),
    };
    config.policy = (flags.policy == Switch::On).then(|| policy(flags));
    config.monitor_aggregation = match flags.monitor_aggregation {
        Aggregation::None => MonitorAggregation::None,
        Aggregation::Low => MonitorAggregation::Low,
        Aggregation::Medium => MonitorAggregation::Medium,
    };
    config
}

fn load_options(flags: &RunFlags) -> LoadOptions {
    let protected = match flags.node_port_bind_protection {
        // Where the kernel does not say which namespace this is, nobody is kept from anything.
        Switch::On => probe::netns_cookie().unwrap_or_default(),
        Switch::Off => 0,
    };
    LoadOptions::default().no_sockets(!flags.translates_at_sockets()).protected_netns(protected)
}

fn policy(flags: &RunFlags) -> PolicyConfig {
    let enforcement = match flags.enable_policy {
        Enforcement::Default => agent_policy::Enforcement::Default,
        Enforcement::Always => agent_policy::Enforcement::Always,
        Enforcement::Never => agent_policy::Enforcement::Never,
    };
    PolicyConfig {
        engine: agent_policy::Config {
            enforcement,
            audit: flags.policy_audit_mode,
            cluster: flags.cluster_name.clone(),
            ..agent_policy::Config::default()
        },
        labels: flags.labels.clone(),
        identity_wait: flags.identity_wait.0,
        identity_change_grace_period: flags.identity_change_grace_period.0,
        host_firewall: flags.host_firewall,
    }
}
