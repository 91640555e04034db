//! Rounds in which pods part: a policy is for all pods, and while rows fail it changes for some of them at the very moment in which these get
//! another one, or another identity.
//!
//! Such a commit has the most to order: what some shall have from now on has to be there before they move, and what they leave may not change
//! before, for it is still theirs.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CIDRS, Generator, NAMESPACES, Standing, TEAMS, app, one, with_other_cidrs};
use crate::model::{Action, Failures, Families, Fault, FaultKind, Until};
use crate::rng::Rng;

/// Fewer policies meet in one pod than elsewhere, so that a single wrong row shows.
const MOST: usize = 3;
/// Tables whose rows have to come in an order, those more often without which others have to wait.
const TABLES: [&str; 6] = ["POLICY_L4", "POLICY_L4", "POLICY_BLOCKS", "POLICY", "ENDPOINTS", "IPCACHE"];

/// All pods, as the kind of the policy says it.
fn everyone(policy: &Standing) -> Value {
    if policy.kind == "ClusterNetworkPolicy" { json!({"namespaces": {}}) } else { json!({}) }
}

/// The pods of an app, or all others.
fn some(rng: &mut Rng, policy: &Standing) -> Value {
    let app = app(rng);
    let selector = if rng.chance(0.5) {
        json!({"matchLabels": {"app": app}})
    } else {
        json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [app]}]})
    };
    if policy.kind == "ClusterNetworkPolicy" {
        json!({"pods": {"namespaceSelector": {}, "podSelector": selector}})
    } else {
        selector
    }
}

impl Generator<'_> {
    /// A round of its own; it ends at rest.
    pub(in crate::generate) fn split(&mut self) {
        let Some(first) = self.first_policy() else { return };
        self.rows_fail(1..=400, &[0.5, 0.5, 0.9]);
        self.part(first);
        match self.rng.below(5) {
            // Back to labels whose identity is still there, for the most part: such a one is taken at once.
            0 | 1 => self.change_team(),
            2 => self.relabel_pod(false),
            _ => {}
        }
        self.pause(30..=300);
        self.heal();
        self.wait(Until::Rest);
    }

    /// All pods have a new policy, and few have others beside it. Where it is in the list.
    pub(super) fn first_policy(&mut self) -> Option<usize> {
        while self.policies.len() >= MOST {
            self.remove_policy();
        }
        let first = self.policy_for_all()?;
        self.wait(Until::Rest);
        Some(first)
    }

    /// The policy changes, and some pods get another one. One step after the other without a pause between is one moment to agents.
    pub(super) fn part(&mut self, first: usize) {
        match self.rng.below(4) {
            // Some get another policy beside it, and it changes for all.
            0 => {
                self.policy_for_some();
                self.change(first, false);
            }
            // It is for some from now on, and another one comes for all.
            1 => {
                self.policy_for_all();
                self.change(first, true);
            }
            // It is for some from now on.
            2 => self.change(first, true),
            // It changes for all.
            _ => self.change(first, false),
        }
    }

    /// All pods of a namespace get the identities of another team, or those of before: once both are known they are taken at once.
    fn change_team(&mut self) {
        let which = self.rng.index(NAMESPACES.len());
        self.are_blue[which] ^= true;
        self.set_team(NAMESPACES[which], TEAMS[usize::from(self.are_blue[which])]);
    }

    /// Pods of all namespaces have been of both teams.
    pub(in crate::generate) fn get_to_know_teams(&mut self) {
        for team in TEAMS.iter().rev() {
            for name in NAMESPACES {
                self.set_team(name, team);
            }
            self.wait(Until::Rest);
        }
    }

    /// Makes one that all pods have. Where it is in the list.
    fn policy_for_all(&mut self) -> Option<usize> {
        self.new_policy_for(|_, policy| everyone(policy))
    }

    fn policy_for_some(&mut self) {
        self.new_policy_for(some);
    }

    fn new_policy_for(&mut self, subject: impl Fn(&mut Rng, &Standing) -> Value) -> Option<usize> {
        let mut policy = self.drawn_policy()?;
        if policy.host {
            return None;
        }
        policy.staged = false;
        let nested = self.rng.chance(0.3).then(|| self.nested_spec(&policy)).flatten();
        policy.spec = nested.unwrap_or_else(|| self.another_spec(&policy));
        let subject = subject(&mut self.rng, &policy);
        let field = policy.subject_field();
        policy.spec[field] = subject.clone();
        policy.subject = Some(subject);
        self.push_policy(&policy);
        self.policies.push(policy);
        Some(self.policies.len() - 1)
    }

    /// Other rules, or the same about other CIDRs; for some pods only, or for whom it was.
    fn change(&mut self, index: usize, for_some: bool) {
        let spec = self.changed_spec(&self.policies[index].clone());
        if for_some {
            let subject = some(&mut self.rng, &self.policies[index]);
            self.policies[index].subject = Some(subject);
        }
        self.set_spec(index, spec);
    }

    /// Other rules for whom it is.
    pub(super) fn set_spec(&mut self, index: usize, spec: Value) {
        let mut policy = self.policies[index].clone();
        policy.spec = spec;
        let field = policy.subject_field();
        policy.spec[field] = policy.subject.clone().unwrap_or_default();
        self.push_policy(&policy);
        self.policies[index] = policy;
    }

    fn changed_spec(&mut self, policy: &Standing) -> Value {
        let changed = match self.rng.below(10) {
            0..=2 => with_other_cidrs(&mut self.rng, &policy.spec),
            3..=5 => self.nested_spec(policy),
            _ => None,
        };
        changed.unwrap_or_else(|| self.another_spec(policy))
    }

    /// Rules for a block, for one within it, or for both, so that what leaves the one falls to the other. `None`: there is no such form.
    fn nested_spec(&mut self, policy: &Standing) -> Option<Value> {
        let v4 = match self.cluster.family {
            Families::V4 => true,
            Families::V6 => false,
            Families::Dual => self.rng.chance(0.5),
        };
        let rng = &mut self.rng;
        // The first is around all others.
        let all = &CIDRS[usize::from(!v4)];
        let blocks = one(rng, &[&all[..2], &all[..2], &all[..1], &all[1..2]]);
        let mut rules = Vec::new();
        for block in blocks {
            let port = one(rng, &[8080, 9000]);
            let has_port = rng.chance(0.5);
            rules.push(match policy.kind {
                "NetworkPolicy" if has_port => {
                    json!({"to": [{"ipBlock": {"cidr": block}}], "ports": [{"protocol": "TCP", "port": port}]})
                }
                "NetworkPolicy" => json!({"to": [{"ipBlock": {"cidr": block}}]}),
                "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy" if has_port => {
                    let ports = json!([{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}]);
                    json!({"toCIDR": [block], "toPorts": ports})
                }
                "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy" => json!({"toCIDR": [block]}),
                _ => return None,
            });
        }
        Some(match policy.kind {
            "NetworkPolicy" => json!({"policyTypes": ["Egress"], "egress": rules}),
            _ => json!({"egress": rules}),
        })
    }

    /// Rows of a table cannot be written, with one of these probabilities for each try.
    pub(super) fn rows_fail(&mut self, milliseconds: RangeInclusive<u64>, probabilities: &[f64]) {
        let failures = Failures {
            probability: one(&mut self.rng, probabilities),
            of: Some(one(&mut self.rng, &TABLES).to_owned()),
        };
        let lasts = Duration::from_millis(self.rng.range(milliseconds));
        let kind = FaultKind::Failures(failures);
        self.push(Action::Fault(Fault { node: None, lasts: Some(lasts), kind }));
    }
}
