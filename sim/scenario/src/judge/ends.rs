//! Pods as far as they are known before a run, and the two ends of traffic.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Cluster, Families, Place, Pod, Serve, ServeKind, Traffic};
use crate::validate::objects::PodKey;

/// A node with more addresses than this never runs out of them.
const PLENTY: usize = 100;

/// The two ends of traffic.
#[derive(Debug, Clone)]
pub(super) struct Sides {
    /// Pods among them.
    pub(super) pods: BTreeSet<PodKey>,
    /// Their nodes, as far as known.
    pub(super) nodes: [Option<String>; 2],
    /// The receiver is a pod.
    pub(super) to_pod: bool,
    /// Both are pods.
    pub(super) only_pods: bool,
    /// What listens in the receiver.
    pub(super) serves: Option<Vec<Serve>>,
    /// Why they are not surely there.
    pub(super) doubt: Option<String>,
}

#[derive(Debug)]
struct State<'a> {
    pod: &'a Pod,
    ready: bool,
}

#[derive(Debug)]
pub(super) struct Pods<'a> {
    cluster: &'a Cluster,
    alive: BTreeMap<PodKey, State<'a>>,
    /// Nodes of pods that were deleted, whose addresses may be kept back still.
    released: Vec<Option<String>>,
}

impl<'a> Pods<'a> {
    pub(super) const fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, alive: BTreeMap::new(), released: Vec::new() }
    }

    pub(super) fn make(&mut self, pod: &'a Pod) {
        self.alive.insert(PodKey::of(pod), State { pod, ready: false });
    }

    pub(super) fn delete(&mut self, name: &str) -> PodKey {
        let key = PodKey::parse(name);
        if let Some(state) = self.alive.remove(&key) {
            self.released.push(state.pod.node.clone());
        }
        key
    }

    pub(super) fn all_are_ready(&mut self) {
        for state in self.alive.values_mut() {
            state.ready = state.pod.ready;
        }
    }

    pub(super) fn none_is_ready(&mut self) {
        for state in self.alive.values_mut() {
            state.ready = false;
        }
    }

    pub(super) fn all_ready(&self) -> bool {
        self.alive.values().all(|state| state.ready)
    }

    pub(super) fn alive(&self) -> usize {
        self.alive.len()
    }

    /// Whether every pod gets an address: at once, after quarantines, or never.
    pub(super) fn room(&self) -> Room {
        if self.cluster.family == Families::V6 {
            return Room::Ample;
        }
        let capacity = capacity(self.cluster.pod_cidr_bits);
        let mut room = if capacity > PLENTY { Room::Ample } else { Room::Tight };
        for n in 1..=self.cluster.nodes {
            let node = format!("node-{n}");
            // One without a node may be on any.
            let here = |of: &Option<String>| of.as_ref().is_none_or(|of| *of == node);
            let alive = self.alive.values().filter(|state| here(&state.pod.node)).count();
            let released = self.released.iter().filter(|of| here(of)).count();
            if alive > capacity {
                return Room::Never;
            }
            if alive + released > capacity {
                room = Room::Later;
            }
        }
        room
    }

    pub(super) fn sides(&self, traffic: &Traffic) -> Sides {
        let mut sides = Sides {
            pods: BTreeSet::new(),
            nodes: [None, None],
            to_pod: matches!(traffic.to, Place::Pod { .. }),
            only_pods: true,
            serves: None,
            doubt: None,
        };
        for (i, place) in [&traffic.from, &traffic.to].into_iter().enumerate() {
            match place {
                Place::Pod { namespace, name } => {
                    let key = PodKey::new(namespace, name);
                    match self.alive.get(&key) {
                        Some(state) => {
                            sides.nodes[i].clone_from(&state.pod.node);
                            if i == 1 {
                                sides.serves = Some(state.pod.serve.clone());
                            }
                            if !state.ready {
                                sides.doubt = Some(format!("pod `{key}` is not surely ready"));
                            }
                        }
                        None => sides.doubt = Some(format!("nothing is known of pod `{key}`")),
                    }
                    sides.pods.insert(key);
                }
                Place::Node(name) => {
                    sides.only_pods = false;
                    sides.nodes[i] = Some(name.clone());
                    if i == 1 {
                        // What listens on a node is not said.
                        sides.serves = Some(Vec::new());
                    }
                }
                // Who has the node's address is answered: the node itself, and pods where they are masqueraded.
                Place::World(_) if self.cluster.masquerade || matches!(traffic.from, Place::Node(_)) => {
                    sides.only_pods = false;
                    let web = |port| Serve { kind: ServeKind::Http, port };
                    sides.serves = Some(vec![web(80), web(443)]);
                }
                Place::Service { .. } | Place::NodePort(_) | Place::World(_) | Place::Address(_) => {
                    sides.only_pods = false;
                    sides.doubt = Some(format!("`{place}` is not sure"));
                }
            }
        }
        sides
    }
}

/// When every pod has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// At once, and there are always some left.
    Ample,
    /// At once, if nothing breaks meanwhile.
    Tight,
    /// When released ones have been kept back long enough.
    Later,
    /// There are more pods than addresses.
    Never,
}

/// IPv4 addresses for pods in a pod CIDR: all but those of the network, the router and the broadcast.
pub(crate) fn capacity(pod_cidr_bits: u8) -> usize {
    let all = 1_usize << 32_u8.saturating_sub(pod_cidr_bits).min(31);
    all.saturating_sub(3)
}
