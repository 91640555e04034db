//! `status` and `list`.

use lab::control::{Request, Response, Status};
use lab::plan::LabName;
use lab::state::{LabDir, OwnerKind};

use super::{ask, say};

/// Runs `status`.
pub(crate) fn status(name: &LabName) -> anyhow::Result<()> {
    if let Response::Status(status) = ask(name, &Request::Status)? {
        print(&status);
        say(format_args!("\nkubeconfig: {}", LabDir::of(name).kubeconfig().display()));
    }
    Ok(())
}

fn print(status: &Status) {
    let plan = &status.plan;
    say(format_args!(
        "lab '{}': {} nodes, {} addresses, {} routing, API server {}\n",
        plan.name, plan.nodes, plan.family, plan.routing, status.url
    ));
    if let Some(operator) = &status.operator {
        let process = operator.pid.map_or_else(|| "down".to_owned(), |pid| format!("pid {pid}"));
        say(format_args!("operator: {process}, {} restarts\n", operator.starts.saturating_sub(1)));
    }
    let nodes = status.nodes.iter().map(|n| {
        let agent = n.agent_pid.map_or_else(|| "down".to_owned(), |pid| format!("pid {pid}"));
        let restarts = n.agent_starts.saturating_sub(1).to_string();
        let adds =
            n.adds.map_or_else(String::new, |(n, median, p99)| format!("{n}: {median:.0}/{p99:.0} ms"));
        vec![
            n.name.clone(),
            ready(n.ready),
            agent,
            restarts,
            n.addresses.join(","),
            n.pod_cidrs.join(","),
            adds,
        ]
    });
    let head = ["NODE", "STATUS", "AGENT", "RESTARTS", "ADDRESSES", "POD CIDRS", "CNI ADD (MEDIAN/P99)"];
    table(&head, &nodes.collect::<Vec<_>>());
    say(format_args!(""));
    let pods = status.pods.iter().map(|p| {
        vec![
            format!("{}/{}", p.namespace, p.name),
            p.phase.clone(),
            ready(p.ready),
            p.node.clone(),
            p.ips.join(","),
        ]
    });
    table(&["POD", "PHASE", "STATUS", "NODE", "ADDRESSES"], &pods.collect::<Vec<_>>());
}

fn ready(ready: bool) -> String {
    if ready { "Ready" } else { "NotReady" }.to_owned()
}

fn table(head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    let mut widths = vec![0; head.len()];
    for row in std::iter::once(&head).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    for row in std::iter::once(&head).chain(rows) {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say(format_args!("{}", line.join("  ").trim_end()));
    }
}

/// Runs `list`.
pub(crate) fn list() {
    let rows: Vec<Vec<String>> = LabDir::all()
        .iter()
        .map(|lab| match lab.record() {
            Err(_) => vec![
                lab.name().to_string(),
                "broken".to_owned(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
            ],
            Ok(record) => {
                let state = match (record.owner.is_alive(), record.owner_kind) {
                    (false, _) => "crashed".to_owned(),
                    (true, OwnerKind::Supervisor) => format!("up (pid {})", record.owner.pid),
                    (true, OwnerKind::Library) => format!("of process {}", record.owner.pid),
                };
                let plan = record.plan;
                vec![
                    plan.name.to_string(),
                    state,
                    plan.index.to_string(),
                    plan.nodes.to_string(),
                    plan.family.to_string(),
                    plan.routing.to_string(),
                ]
            }
        })
        .collect();
    if rows.is_empty() {
        say(format_args!("there are no labs: create one with `{} up`", super::COMMAND));
    } else {
        table(&["LAB", "STATE", "INDEX", "NODES", "FAMILY", "ROUTING"], &rows);
    }
}
