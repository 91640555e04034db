//! What this arm cannot do, found before anything starts.

use lab::plan::MAX_NODES;
use sim_scenario::model::{Action, Fault, FaultKind, Kill, OPERATOR, Scenario};

/// Bits of the IPv4 block of which a lab's nodes have their pod CIDRs.
const CLUSTER_BITS: u8 = 16;

/// Everything that cannot be done, one sentence each with the step's number from 1; empty: the scenario can be run.
pub fn all(scenario: &Scenario) -> Vec<String> {
    let mut refused = cluster(scenario);
    for (index, step) in scenario.steps.iter().enumerate() {
        if let Action::Fault(fault) = &step.action
            && let Some(why) = why_not(fault)
        {
            refused.push(format!("step {} (fault {}): {why}", index + 1, fault.kind.word()));
        }
    }
    refused
}

fn cluster(scenario: &Scenario) -> Vec<String> {
    let cluster = &scenario.cluster;
    let mut refused = Vec::new();
    if cluster.nodes > MAX_NODES.into() {
        refused.push(format!("cluster: {} nodes are more than a lab has ({MAX_NODES})", cluster.nodes));
    }
    let bits = cluster.pod_cidr_bits;
    if bits < CLUSTER_BITS || u32::from(cluster.nodes) > 1 << (bits - CLUSTER_BITS) {
        refused.push(format!(
            "cluster: {} pod CIDRs of /{bits} do not fit into the /{CLUSTER_BITS} that a lab has",
            cluster.nodes
        ));
    }
    if let Some(table) = cluster.tables.keys().next() {
        refused.push(format!(
            "cluster: the capacity of {table} cannot be changed, because the programs are loaded as they are shipped"
        ));
    }
    refused
}

fn why_not(fault: &Fault) -> Option<&'static str> {
    if fault.node.as_deref() == Some(OPERATOR) {
        return Some("nothing is broken of the operator of a lab");
    }
    match &fault.kind {
        FaultKind::Kill(Kill { after_commands: Some(_), .. }) => Some(
            "an agent that really runs cannot be stopped after a number of commands; leave `after-commands` out",
        ),
        FaultKind::Skew(_) => Some("the kernel has one clock for all nodes"),
        FaultKind::TableFull { .. } => Some("tables have the capacity that programs are shipped with"),
        FaultKind::Failures(_) => Some("the kernel does not fail on demand"),
        FaultKind::RingFull(_) => Some("the agent that really runs always reads its ring buffer"),
        FaultKind::Kill(_)
        | FaultKind::Link(_)
        | FaultKind::Partition
        | FaultKind::Stall
        | FaultKind::Api(_)
        | FaultKind::Cni(_)
        | FaultKind::Heal => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(cluster: &str, step: &str) -> Vec<String> {
        let text = format!(
            "bristle: scenario/v1\nname: t\ncluster: {{{cluster}}}\nsteps:\n- wait: {{for: ready}}\n- {step}\n"
        );
        all(&Scenario::parse(&text, "t.yaml").expect("a scenario"))
    }

    #[test]
    fn what_only_a_simulator_can_do_is_refused_with_its_step() {
        for (step, words) in [
            ("fault: {node: node-1, kill: {after-commands: 3}}", "step 2 (fault kill): an agent"),
            ("fault: {skew: 1h}", "step 2 (fault skew)"),
            ("fault: {table-full: {table: CT4, rows: 1}, for: 1s}", "step 2 (fault table-full)"),
            ("fault: {ring-full: 5, for: 1s}", "step 2 (fault ring-full)"),
        ] {
            let refused = refused("nodes: 2", step);
            assert!(refused.len() == 1 && refused[0].contains(words), "{refused:?}");
        }
        for step in [
            "fault: {node: node-1, kill: {restart-after: 2s, snapshot-age: 3s}}",
            "fault: {partition, for: 1s}",
            "fault: {link: {loss: 0.1}, for: 1s}",
            "fault: {stall, for: 1s}",
            "fault: {api: down, for: 1s}",
            "fault: {cni: gc}",
            "fault: heal",
        ] {
            let step = step.replace("{partition,", "{partition: null,").replace("{stall,", "{stall: null,");
            let step = step.replace("fault: heal", "fault: {heal: null}");
            assert_eq!(refused("nodes: 2", &step), Vec::<String>::new(), "{step}");
        }
    }

    #[test]
    fn clusters_that_no_lab_is_are_refused() {
        for (cluster, words) in [
            ("nodes: 500", "500 nodes"),
            ("nodes: 3, pod-cidr-bits: 17", "do not fit"),
            ("nodes: 1, tables: {CT4: 10}", "CT4"),
        ] {
            let refused = refused(cluster, "wait: {for: rest}");
            assert!(refused.iter().any(|why| why.contains(words)), "{cluster}: {refused:?}");
        }
    }
}
