//! Rounds in which a pod gets an identity that nobody has had, while rows fail and a policy for all pods changes.
//!
//! Until rows for the identity are there, the row of everybody is what it meets, in what holds now and in what is about to.

use serde_json::{Value, json};

use super::{Generator, one};
use crate::model::Until;

impl Generator<'_> {
    /// A round of its own; it ends at rest. A pod with new labels gets its identity about five seconds after they are known.
    pub(in crate::generate) fn fresh(&mut self) {
        let Some(first) = self.first_policy() else { return };
        if self.rng.chance(0.5) {
            self.late_identity(first);
        } else {
            self.identity_amid_changes(first);
        }
        self.heal();
        self.wait(Until::Rest);
    }

    /// In the midst of the change a pod gets its identity.
    fn identity_amid_changes(&mut self, first: usize) {
        self.relabel_pod(true);
        self.pause(4_900..=5_100);
        self.rows_fail(200..=600, &[0.9]);
        self.part(first);
        self.pause(30..=300);
    }

    /// Rows fail until a pod, whose labels came with the change of the policy, has to have its identity.
    fn late_identity(&mut self, first: usize) {
        let specs = self.rng.chance(0.5).then(|| self.labels_then_everybody(first)).flatten();
        let after = specs.map(|(before, after)| {
            self.set_spec(first, before);
            self.wait(Until::Rest);
            after
        });
        self.rows_fail(5_500..=7_000, &[0.9]);
        match after {
            Some(after) => self.set_spec(first, after),
            None => self.part(first),
        }
        self.relabel_pod(true);
        self.pause(5_000..=5_600);
    }

    /// Rules that name pods by labels, and such for everybody at one port: who is new is met by the row of everybody alone, and that is
    /// only right once it is as the second of them says. `None`: there is no such form.
    fn labels_then_everybody(&mut self, index: usize) -> Option<(Value, Value)> {
        let policy = self.policies[index].clone();
        let rng = &mut self.rng;
        let (protocol, port) = one(rng, &[("TCP", 8080), ("UDP", 5353)]);
        let (list, peers) = one(rng, &[("ingress", "from"), ("egress", "to")]);
        let direction = if list == "ingress" { "Ingress" } else { "Egress" };
        let (before, after) = match policy.kind {
            "NetworkPolicy" => (
                json!({peers: [{"namespaceSelector": {}}]}),
                json!({"ports": [{"protocol": protocol, "port": port}]}),
            ),
            "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy" => (
                json!({format!("{peers}Endpoints"): [{}]}),
                json!({
                    format!("{peers}Entities"): ["all"],
                    "toPorts": [{"ports": [{"protocol": protocol, "port": port.to_string()}]}],
                }),
            ),
            _ => return None,
        };
        let spec = |rule| match policy.kind {
            "NetworkPolicy" => json!({"policyTypes": [direction], list: [rule]}),
            _ => json!({list: [rule]}),
        };
        Some((spec(before), spec(after)))
    }
}
