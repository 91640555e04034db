//! Pods come and go.

use std::collections::BTreeMap;

use super::Generator;
use super::policies::{NAMESPACES, app};
use super::services;
use crate::judge::capacity;
use crate::model::{Action, Families, Pod, Serve, ServeKind};

/// Of more pods than this nobody learns more.
const MOST_PODS: usize = 16;

/// A pod that has been made and not deleted.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) namespace: &'static str,
    pub(super) name: String,
    pub(super) node: Option<String>,
    pub(super) serve: Vec<Serve>,
    /// A wait has stood between its making and now.
    pub(super) ready: bool,
    /// A long stream begins or ends here: it is mostly left alone.
    pub(super) anchor: bool,
}

impl Generator<'_> {
    /// Makes a pod if there is an address left for it in the end.
    pub(super) fn make_pod(&mut self) {
        let n = self.rng.range(1..=u64::from(self.cluster.nodes));
        let node = format!("node-{n}");
        let bounded = self.cluster.family != Families::V6;
        let tight = bounded && self.cluster.pod_cidr_bits > 26;
        let chosen = self.rng.chance(0.85);
        self.make_pod_on((tight || chosen).then_some(node));
    }

    /// The same on a node.
    pub(super) fn make_pod_on(&mut self, node: Option<String>) {
        let tight = self.cluster.family != Families::V6 && self.cluster.pod_cidr_bits > 26;
        let here = self.pods.iter().filter(|pod| pod.node == node).count();
        if self.pods.len() >= MOST_PODS || (tight && here >= capacity(self.cluster.pod_cidr_bits)) {
            return;
        }
        let servers = [(ServeKind::Http, 8080), (ServeKind::Tcp, 9000), (ServeKind::Udp, 5353)];
        let serve: Vec<Serve> = servers
            .into_iter()
            .filter(|_| self.rng.chance(0.8))
            .map(|(kind, port)| Serve { kind, port })
            .collect();
        self.pods_made += 1;
        let (mut namespace, mut labels) = (NAMESPACES[0], BTreeMap::new());
        if self.policed {
            namespace = NAMESPACES[usize::from(self.rng.chance(0.3))];
            labels.insert("app".to_owned(), app(&mut self.rng).to_owned());
        }
        if self.cluster.kube_proxy_replacement {
            let role = services::role(self.seed, self.pods_made);
            labels.insert(services::LABEL.to_owned(), role.to_owned());
        }
        let name = format!("p{}", self.pods_made);
        let live = Live { namespace, name, node, serve, ready: false, anchor: false };
        self.push(Action::Pod(Pod {
            namespace: live.namespace.to_owned(),
            node: live.node.clone(),
            labels,
            serve: live.serve.clone(),
            ..Pod::new(&live.name)
        }));
        self.pods.push(live);
    }

    /// Deletes one of the pods, if there is one; seldom an end of a long stream.
    pub(super) fn delete_pod(&mut self) {
        let any = self.rng.chance(0.1);
        let candidates: Vec<usize> = (0..self.pods.len()).filter(|i| any || !self.pods[*i].anchor).collect();
        if let Some(index) = self.rng.pick(&candidates).copied() {
            self.delete(index);
        }
    }

    /// Deletes a pod. Nobody waits any more for a stream that ends there.
    pub(super) fn delete(&mut self, index: usize) {
        let pod = self.pods.remove(index);
        self.streams.retain(|(_, ends)| !ends.contains(&pod.name));
        let name =
            if pod.namespace == NAMESPACES[0] { pod.name } else { format!("{}/{}", pod.namespace, pod.name) };
        self.push(Action::DeletePod(name));
    }
}
