//! Node objects of machines that are not simulated: agents have to follow them all the same.

use serde_json::json;

use super::Generator;
use crate::model::{Action, Families, ObjectRef};

/// Of more than these nobody learns more.
const MOST: usize = 4;

impl Generator<'_> {
    /// One appears, changes its addresses, or goes. Some claim what others have.
    pub(super) fn far_node(&mut self) {
        let there = self.far_nodes.len();
        if there > 0 && (there >= MOST || self.rng.chance(0.4)) {
            let index = self.rng.index(there);
            if self.rng.chance(0.5) {
                self.far_node_goes(index);
                return;
            }
            let name = self.far_nodes[index].clone();
            self.apply_far_node(&name, None);
            return;
        }
        // A name that was there before comes back as another object.
        let name = format!("far-{}", self.rng.range(1..=6));
        if self.far_nodes.contains(&name) {
            return;
        }
        let cidr = self.rng.range(0..=4);
        self.apply_far_node(&name, Some(cidr));
        self.far_nodes.push(name);
    }

    /// Between a list that is cut off and the next one, which comes a quarter of a second later each.
    pub(super) fn far_node_goes_between_lists(&mut self) {
        if !self.far_nodes.is_empty() {
            self.pause(255..=495);
            let index = self.rng.index(self.far_nodes.len());
            self.far_node_goes(index);
        }
    }

    fn far_node_goes(&mut self, index: usize) {
        let name = self.far_nodes.remove(index);
        let kind = "Node".to_owned();
        self.push(Action::Delete(ObjectRef { api_version: "v1".to_owned(), kind, name, namespace: None }));
    }

    /// With `cidr` it is made; pod CIDRs cannot change later.
    fn apply_far_node(&mut self, name: &str, cidr: Option<u64>) {
        let host = self.rng.range(1..=6);
        let family = self.cluster.family;
        let pick = |v4: String, v6: String| match family {
            Families::V4 => vec![v4],
            Families::V6 => vec![v6],
            Families::Dual => vec![v4, v6],
        };
        let addresses: Vec<_> = pick(format!("172.30.200.{host}"), format!("fd00:30::200:{host}"))
            .into_iter()
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .collect();
        let mut object = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"unschedulable": true},
            "status": {"addresses": addresses},
        });
        if let Some(cidr) = cidr {
            // Now and then half of what somebody else may claim whole.
            let (v4, v6) = if self.rng.chance(0.5) { ("128/25", "8000/113") } else { ("0/24", "0/112") };
            let cidrs = pick(format!("10.250.{cidr}.{v4}"), format!("fd00:10:fa::{cidr}:{v6}"));
            object["spec"]["podCIDR"] = json!(cidrs.first());
            object["spec"]["podCIDRs"] = json!(cidrs);
        }
        self.push(Action::Apply(vec![object]));
    }
}
