//! One scrape: the process's counters, the state, and the dataplane's own counters from its tables.

use super::Metrics;
use super::text::Text;
use crate::tables::Tables;
use agent_api::status::{AgentState, Status};
use agent_api::{Endpoint, EndpointState};
use agent_crd::node_policy_status::StagedPolicy;
use dataplane_abi::drop_reason::reason_text;
use dataplane_abi::{DropReason, metrics as rows};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

pub(crate) use super::text::CONTENT_TYPE;

/// What a scrape needs besides counters and tables.
#[derive(Debug)]
pub struct Figures {
    /// The agent's status.
    pub status: Status,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Policies that are not in force, and what they would have decided otherwise.
    pub staged: Vec<StagedPolicy>,
}

/// The whole page. Tables that cannot be read are left out.
pub fn render(metrics: &Metrics, figures: &Figures, tables: &Tables) -> String {
    let mut text = Text::default();
    build(&mut text, figures);
    packets(&mut text, tables);
    state(&mut text, figures);
    staged(&mut text, figures);
    table_sizes(&mut text, tables);
    counters(&mut text, metrics, figures);
    process(&mut text, figures);
    text.finish()
}

fn build(text: &mut Text, figures: &Figures) {
    let labels = vec![
        ("version", figures.status.version.clone()),
        ("arch", std::env::consts::ARCH.to_owned()),
        ("kernel", figures.status.dataplane.kernel.clone()),
    ];
    text.family("bristle_version", "gauge", "Version of the agent.", [(labels, 1)]);
}

/// Drops and forwards, from the dataplane's per-CPU counters.
fn packets(text: &mut Text, tables: &Tables) {
    let Ok(all) = tables.packet_counters() else { return };
    let labels = |reason: u8, direction: rows::Direction| {
        let reason = reason_text(reason).map_or_else(|| reason.to_string(), ToOwned::to_owned);
        vec![("reason", reason), ("direction", direction.name().to_owned())]
    };
    let of = |drops: bool| {
        all.iter().filter(move |((reason, _), _)| DropReason::from_number(*reason).is_some() == drops)
    };
    for (drops, what) in [(true, "drop"), (false, "forward")] {
        let verb = if drops { "dropped" } else { "forwarded" };
        text.family(
            &format!("bristle_{what}_count_total"),
            "counter",
            &format!("Packets {verb}, by reason and direction seen from the pod."),
            of(drops).map(|((reason, direction), entry)| (labels(*reason, *direction), entry.packets)),
        );
        text.family(
            &format!("bristle_{what}_bytes_total"),
            "counter",
            &format!("Bytes {verb}, by reason and direction seen from the pod."),
            of(drops).map(|((reason, direction), entry)| (labels(*reason, *direction), entry.bytes)),
        );
    }
}

fn state(text: &mut Text, figures: &Figures) {
    let status = &figures.status;
    text.single("bristle_endpoint", "gauge", "Endpoints on this node.", status.endpoints.total);
    let mut counts: BTreeMap<&str, usize> =
        BTreeMap::from([("creating", 0), ("ready", 0), ("restoring", 0), ("disconnecting", 0)]);
    for endpoint in &figures.endpoints {
        let name = match endpoint.state {
            EndpointState::Restoring => "restoring",
            EndpointState::Creating => "creating",
            EndpointState::Ready => "ready",
            EndpointState::Disconnecting => "disconnecting",
        };
        *counts.entry(name).or_default() += 1;
    }
    let samples =
        counts.into_iter().map(|(state, count)| (vec![("endpoint_state", state.to_owned())], count));
    text.family("bristle_endpoint_state", "gauge", "Endpoints by state.", samples);
    text.single("bristle_nodes_all_num", "gauge", "Nodes of the cluster that the agent knows.", status.nodes);
    text.single("bristle_ipcache_entries", "gauge", "Rows of the ipcache.", status.ipcache);
    let family = |cidr: &ipnet::IpNet| if cidr.addr().is_ipv6() { "ipv6" } else { "ipv4" };
    let pools = |value: fn(&agent_api::status::IpamStatus) -> u64| {
        status.ipam.iter().map(move |pool| {
            (vec![("family", family(&pool.cidr).to_owned()), ("cidr", pool.cidr.to_string())], value(pool))
        })
    };
    text.family("bristle_ip_addresses", "gauge", "Addresses in use by endpoints.", pools(|pool| pool.used));
    text.family(
        "bristle_ipam_capacity",
        "gauge",
        "Addresses that pods of this node may have.",
        pools(|pool| pool.capacity),
    );
    text.family(
        "bristle_ipam_quarantined",
        "gauge",
        "Addresses released lately and not yet free.",
        pools(|pool| pool.quarantined),
    );
    let ready = u8::from(status.state == AgentState::Ready);
    text.single("bristle_agent_ready", "gauge", "1 when pods can be added.", ready);
    let kubernetes = &status.kubernetes;
    text.single(
        "bristle_kubernetes_connected",
        "gauge",
        "1 when the last request to the API server succeeded.",
        u8::from(kubernetes.connected),
    );
    text.single(
        "bristle_kubernetes_synced",
        "gauge",
        "1 when a complete list of nodes has been seen.",
        u8::from(kubernetes.synced),
    );
    let last = kubernetes.last_event.map_or(0, agent_api::Timestamp::unix_seconds);
    text.single("bristle_event_ts", "gauge", "Unix time of the last event from the API server.", last);
}

fn staged(text: &mut Text, figures: &Figures) {
    let samples = figures.staged.iter().flat_map(|policy| {
        [("allow", policy.would_allow), ("deny", policy.would_deny)].map(|(would, count)| {
            let labels = vec![
                ("kind", policy.kind.clone()),
                ("namespace", policy.namespace.clone()),
                ("policy", policy.name.clone()),
                ("would", would.to_owned()),
            ];
            (labels, count)
        })
    });
    text.family(
        "bristle_policy_staged_total",
        "counter",
        "What staged policies would have decided otherwise: connections to deny, dropped packets to allow.",
        samples,
    );
}

fn table_sizes(text: &mut Text, tables: &Tables) {
    let sizes: Vec<_> = tables.sizes();
    let label = |name: &str| vec![("map_name", name.to_lowercase())];
    let entries = sizes.iter().map(|(name, entries, _)| (label(name), *entries));
    text.family("bristle_bpf_map_entries", "gauge", "Rows in a table.", entries);
    let capacity = sizes.iter().map(|(name, _, capacity)| (label(name), *capacity));
    text.family("bristle_bpf_map_capacity", "gauge", "Rows that a table holds at most.", capacity);
    #[expect(clippy::cast_precision_loss, reason = "a ratio for a graph")]
    let pressure = sizes
        .iter()
        .map(|(name, entries, capacity)| (label(name), *entries as f64 / f64::from((*capacity).max(1))));
    text.family("bristle_bpf_map_pressure", "gauge", "How full a table is, 0 to 1.", pressure);
    let family = |name: &str| vec![("family", if name == "CT6" { "ipv6" } else { "ipv4" }.to_owned())];
    let connections = sizes
        .iter()
        .filter(|(name, ..)| name.starts_with("CT"))
        .map(|(name, entries, _)| (family(name), *entries));
    text.family("bristle_conntrack_entries", "gauge", "Connections tracked.", connections);
}

fn counters(text: &mut Text, metrics: &Metrics, figures: &Figures) {
    let counted = metrics.counted().clone();
    text.head(
        "bristle_cni_requests_seconds",
        "histogram",
        "Time to answer a CNI request in the agent, by command and error code (0: success).",
    );
    for ((command, code), histogram) in &counted.cni {
        let code = code.to_string();
        text.histogram("bristle_cni_requests_seconds", &[("command", command), ("code", &code)], histogram);
    }
    if !counted.reconcile.is_unset() {
        text.head("bristle_reconcile_seconds", "histogram", "Time of one reconcile.");
        text.histogram("bristle_reconcile_seconds", &[], &counted.reconcile);
    }
    let runs = [
        ("success", counted.reconcile.count() - counted.reconcile_failed),
        ("failure", counted.reconcile_failed),
    ];
    let runs = runs.map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count));
    text.family("bristle_reconcile_runs_total", "counter", "Reconciles by outcome.", runs);
    text.single(
        "bristle_reconcile_errors_total",
        "counter",
        "Operations of reconciles that failed and are tried again.",
        counted.reconcile_errors,
    );
    text.single(
        "bristle_reconcile_pending",
        "gauge",
        "Rows, routes and links that wait to be written or removed.",
        counted.pending,
    );
    text.single(
        "bristle_node_changes_total",
        "counter",
        "Links, routes, programs and documents changed.",
        counted.node_changes,
    );
    let operations = counted.map_ops.iter().map(|((table, operation), count)| {
        (vec![("map_name", table.to_lowercase()), ("operation", (*operation).to_owned())], *count)
    });
    text.family("bristle_bpf_map_ops_total", "counter", "Rows that the agent wrote and removed.", operations);
    let expired = counted
        .map_ops
        .iter()
        .filter(|((table, operation), _)| table.starts_with("CT") && *operation == "delete")
        .map(|((table, _), count)| {
            (vec![("family", if *table == "CT6" { "ipv6" } else { "ipv4" }.to_owned())], *count)
        });
    text.family(
        "bristle_conntrack_gc_deleted_total",
        "counter",
        "Connections removed because they had ended or timed out.",
        expired,
    );
    text.single(
        "bristle_kubernetes_events_total",
        "counter",
        "Node events from the API server.",
        metrics.node_events.load(Ordering::Relaxed),
    );
    text.single(
        "bristle_kubernetes_object_events_total",
        "counter",
        "Events of other objects from the API server.",
        metrics.object_events.load(Ordering::Relaxed),
    );
    text.single(
        "bristle_kubernetes_watch_failures_total",
        "counter",
        "Failures of the watches on the API server.",
        metrics.watch_failures.load(Ordering::Relaxed),
    );
    text.single(
        "bristle_events_total",
        "counter",
        "Events read from the ring buffer.",
        metrics.events.load(Ordering::Relaxed),
    );
    let lost = [
        ("ring-buffer", figures.status.monitor.lost),
        ("reader", metrics.reader_lost.load(Ordering::Relaxed)),
    ];
    let lost = lost.map(|(place, count)| (vec![("place", place.to_owned())], count));
    text.family(
        "bristle_events_lost_total",
        "counter",
        "Events lost: the ring buffer was full, or a reader of the monitor too slow.",
        lost,
    );
    text.single(
        "bristle_monitor_readers",
        "gauge",
        "Readers of the monitor.",
        figures.status.monitor.readers,
    );
}

fn process(text: &mut Text, figures: &Figures) {
    let status = &figures.status;
    text.single(
        "bristle_process_resident_memory_bytes",
        "gauge",
        "Resident memory of the agent.",
        status.resident_bytes,
    );
    text.single(
        "bristle_process_start_time_seconds",
        "gauge",
        "Unix time at which the agent started.",
        status.started.unix_seconds(),
    );
    if let Some(cpu) = crate::process::cpu_seconds() {
        text.single("bristle_process_cpu_seconds_total", "counter", "CPU time of the agent.", cpu);
    }
    if let Some(descriptors) = crate::process::open_descriptors() {
        text.single("bristle_process_open_fds", "gauge", "Open file descriptors of the agent.", descriptors);
    }
}
