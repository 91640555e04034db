//! Which part of the way is missing when a case fails, by trying the other parts.

use sim_native::Report;
use sim_scenario::Scenario;
use sim_scenario::model::{Place, Traffic};

use crate::matrix::{Expect, Target};
use crate::workloads::{POLICY_GROUP, POLICY_KIND};

use super::scenario::{Plan, TRAFFIC};

/// Why the simulated cluster has no policies, if so.
pub(super) fn policy_missing() -> Option<String> {
    (!sim_native::knows_kind(POLICY_GROUP, POLICY_KIND)).then(|| {
        "policy is not implemented: the cluster has no CustomResourceDefinition ciliumnetworkpolicies.cilium.io"
            .to_owned()
    })
}

/// Why an answer did not come: the feature that is missing, where another way to the same end shows it.
pub(super) fn hint(plan: &Plan<'_>, traffic: &Traffic, run: impl Fn(&Scenario) -> Report) -> Option<String> {
    if plan.case.expect == Expect::NoAnswer {
        return None;
    }
    let answers = |other: &Traffic| {
        let report = run(&plan.scenario(other));
        report.outcome.traffic.get(TRAFFIC).is_some_and(|outcome| outcome.verdict == "ok")
    };
    let name = match &plan.case.to {
        Target::Service(name) => name.as_str(),
        Target::NodePort(letter) => plan.service_on(letter).ok()?,
        Target::World(_) => {
            let workload = &plan.matrix.topology.workloads[plan.case.from.as_ref()?];
            let mut other = traffic.clone();
            other.from = Place::Node(plan.nodes[&workload.node].clone());
            let by_name = |name: &String| {
                plan.matrix
                    .policies
                    .get(name)
                    .is_some_and(|policy| policy.spec.to_string().contains("toFQDNs"))
            };
            return Some(if plan.case.policies.iter().any(by_name) {
                format!(
                    "policy is not implemented: rules by name let nothing pass, so that pods do not reach {}",
                    traffic.to
                )
            } else if answers(&other) {
                format!("the node reaches {}, its pods do not", traffic.to)
            } else {
                format!("the node does not reach {} either", traffic.to)
            });
        }
        Target::Pod(_) | Target::Node(_) | Target::Agents => return None,
    };
    let mut other = traffic.clone();
    other.to = plan.pod(name);
    other.port = Some(plan.matrix.topology.services[name].port);
    Some(if answers(&other) {
        format!(
            "services are not implemented: the pod behind {name} answers at its own address, the service's is not translated"
        )
    } else {
        format!("the pod behind {name} does not answer at its own address either")
    })
}

/// Why a name outside is not asked for at all, where nobody is to answer.
pub(super) fn unresolved(plan: &Plan<'_>, traffic: &Traffic) -> Option<String> {
    let by_name = plan.case.expect == Expect::NoAnswer && matches!(plan.case.to, Target::World(_));
    by_name.then(|| {
        format!(
            "services are not implemented: no pod reaches the cluster's DNS, so that {} is not resolved",
            traffic.to
        )
    })
}
