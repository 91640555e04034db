//! The kubelet and the runtime of a node: pods get sandboxes, sandboxes get interfaces, containers run, and all of it ends again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use agent_api::cni::{Attachment, CniResult, PodRef, Reply};
use serde_json::{Value, json};
use sim_api::clock::rfc3339;
use sim_api::object::{at, is_deleting, name, namespace, str_at, uid};
use sim_api::resource::PODS;
use sim_api::{DeleteOptions, Sub};
use sim_net::Host;
use sim_scenario::model::{CniFault, Serve};
use sim_scenario::object::is_never_ready;

use crate::cni::{Call, Wanted};
use crate::objects;
use crate::queue::{NodeId, Task};
use crate::world::World;

/// Pauses before a failed sandbox is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Names a sandbox of a node; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SandboxId(pub(crate) u64);

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has no sandbox, or no more.
    New,
    /// ADD is under way.
    Adding,
    /// It has its interface; its containers are about to run.
    Starting,
    /// Its containers run.
    Running,
    /// DEL is under way.
    Removing,
}

/// A pod of the node.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug)]
pub(crate) struct PodWork {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// What listens in it.
    pub(crate) serve: Vec<Serve>,
    host_network: bool,
    /// It becomes ready.
    ready: bool,
    /// For so long it goes on to serve when it shall end.
    linger: Duration,
    /// When it ends, if it shall.
    ends: Option<Duration>,
    /// How far it is.
    pub(crate) stage: Stage,
    /// Its sandbox.
    pub(crate) sandbox: Option<SandboxId>,
    /// It shall end.
    pub(crate) deleting: bool,
    object_gone: bool,
    not_before: Duration,
    pause: Duration,
}

/// A pod's network namespace with what is in it.
pub(crate) struct Sandbox {
    /// The pod.
    pub(crate) uid: String,
    /// The pod's `namespace/name`.
    pub(crate) pod: String,
    /// Path of its network namespace.
    pub(crate) netns: String,
    /// Container id and interface.
    pub(crate) attachment: Attachment,
    /// Its addresses, from when ADD was answered until DEL was sent.
    pub(crate) addresses: Vec<IpAddr>,
    /// When ADD was answered.
    pub(crate) since: Duration,
    /// The runtime knows nothing of it any more, but for a DEL that comes late.
    pub(crate) forgotten: bool,
    /// What ADD was answered.
    pub(crate) result: Option<CniResult>,
    /// A DEL was sent beside its ADD, so it cannot be used whatever ADD says.
    pub(crate) crossed: bool,
    /// Its stack, while its containers run.
    pub(crate) host: Option<Host>,
    /// When the stack is due.
    pub(crate) due: Option<Duration>,
}

impl Sandbox {
    /// The pod as runtimes name it.
    fn reference(&self) -> PodRef {
        let (namespace, name) = self.pod.split_once('/').unwrap_or(("default", &self.pod));
        PodRef { namespace: namespace.to_owned(), name: name.to_owned(), uid: Some(self.uid.clone()) }
    }
}

/// The kubelet of a node.
#[derive(Default)]
pub(crate) struct Kubelet {
    /// Pods by UID.
    pub(crate) pods: BTreeMap<String, PodWork>,
    /// Sandboxes.
    pub(crate) sandboxes: BTreeMap<SandboxId, Sandbox>,
    gone: BTreeSet<String>,
    last_sandbox: u64,
    last_call: u64,
    due: Option<Duration>,
}

impl Kubelet {
    /// Whether the network namespace is not there any more.
    pub(crate) fn is_gone(&self, netns: &str) -> bool {
        self.gone.contains(netns)
    }

    /// A number for a call.
    pub(crate) fn next_call(&mut self) -> u64 {
        self.last_call += 1;
        self.last_call
    }

    /// The sandbox behind a network namespace.
    pub(crate) fn sandbox_at(&self, netns: &str) -> Option<(SandboxId, &Sandbox)> {
        self.sandboxes.iter().find(|(_, sandbox)| sandbox.netns == netns).map(|(id, sandbox)| (*id, sandbox))
    }

    /// The pod of that `namespace/name` that is not ending, if it runs.
    pub(crate) fn running(&self, pod: &str) -> Option<(&PodWork, SandboxId)> {
        let runs = |work: &&PodWork| work.stage == Stage::Running && !work.deleting && full_name(work) == pod;
        let work = self.pods.values().find(runs)?;
        Some((work, work.sandbox?))
    }

    /// Whether every pod is where it shall be; with `lingering`, one that goes on to serve before it ends is, too.
    pub(crate) fn is_settled(&self, lingering: bool) -> bool {
        let stays = |work: &PodWork| !work.deleting || lingering && !work.linger.is_zero();
        self.pods.values().all(|work| work.stage == Stage::Running && stays(work))
    }
}

/// `namespace/name`.
pub(crate) fn full_name(work: &PodWork) -> String {
    format!("{}/{}", work.namespace, work.name)
}

impl World {
    /// Takes in that a pod of this node has changed or is gone.
    pub(crate) fn pod_changed(&mut self, n: NodeId, pod: &Value, deleted: bool) {
        let now = self.now;
        let pods = &mut self.nodes[n].kubelet.pods;
        let uid = uid(pod).to_owned();
        if !pods.contains_key(&uid) {
            if deleted {
                return;
            }
            let work = PodWork {
                namespace: namespace(pod).to_owned(),
                name: name(pod).to_owned(),
                serve: objects::serves(pod),
                host_network: at(pod, &["spec", "hostNetwork"]) == &json!(true),
                ready: !is_never_ready(pod),
                linger: objects::lingers(pod),
                ends: None,
                stage: Stage::New,
                sandbox: None,
                deleting: false,
                object_gone: false,
                not_before: now,
                pause: RETRY.0,
            };
            pods.insert(uid.clone(), work);
        }
        if let Some(work) = pods.get_mut(&uid) {
            work.object_gone |= deleted;
            work.deleting |= deleted || is_deleting(pod);
            if work.deleting {
                let ends = if deleted { now } else { now + work.linger };
                work.ends = Some(work.ends.map_or(ends, |before| before.min(ends)));
            }
        }
        let after = self.latency(Duration::from_millis(10));
        self.wake_kubelet(n, after);
    }

    fn wake_kubelet(&mut self, n: NodeId, after: Duration) {
        let at = self.now + after;
        let kubelet = &mut self.nodes[n].kubelet;
        if kubelet.due.is_some_and(|due| due <= at) {
            return;
        }
        kubelet.due = Some(at);
        self.push(at, Task::Kubelet(n));
    }

    /// The kubelet looks at all pods and does what can be done now.
    pub(crate) fn kubelet(&mut self, n: NodeId, at: Duration) {
        if self.nodes[n].kubelet.due != Some(at) {
            return;
        }
        self.nodes[n].kubelet.due = None;
        let uids: Vec<String> = self.nodes[n].kubelet.pods.keys().cloned().collect();
        for uid in uids {
            let Some(work) = self.nodes[n].kubelet.pods.get(&uid) else { continue };
            match (work.stage, work.deleting) {
                (Stage::New, true) => self.pod_is_gone(n, &uid),
                (Stage::New, false) if work.not_before <= self.now => self.make_sandbox(n, &uid),
                (Stage::New, false) => {
                    let after = work.not_before.saturating_sub(self.now);
                    self.wake_kubelet(n, after);
                }
                (Stage::Running, true) => match work.ends.filter(|ends| *ends > self.now) {
                    Some(ends) => {
                        let after = ends.saturating_sub(self.now);
                        self.wake_kubelet(n, after);
                    }
                    None => self.stop_pod(n, &uid),
                },
                _ => {}
            }
        }
    }

    fn make_sandbox(&mut self, n: NodeId, uid: &str) {
        let kubelet = &mut self.nodes[n].kubelet;
        let Some(work) = kubelet.pods.get_mut(uid) else { return };
        if work.host_network {
            work.stage = Stage::Running;
            let serve = work.serve.clone();
            for server in serve {
                self.nodes[n].stack.serve(objects::server(server));
            }
            self.write_ready(n, uid);
            return;
        }
        kubelet.last_sandbox += 1;
        let number = kubelet.last_sandbox;
        let id = SandboxId(number);
        let netns = format!("/run/netns/{number}");
        let attachment = Attachment { container_id: format!("{uid}-{number}"), ifname: "eth0".to_owned() };
        let pod = full_name(work);
        let reference =
            PodRef { namespace: work.namespace.clone(), name: work.name.clone(), uid: Some(uid.to_owned()) };
        work.stage = Stage::Adding;
        work.sandbox = Some(id);
        let sandbox = Sandbox {
            uid: uid.to_owned(),
            pod,
            netns: netns.clone(),
            attachment: attachment.clone(),
            addresses: Vec::new(),
            since: Duration::ZERO,
            forgotten: false,
            result: None,
            crossed: false,
            host: None,
            due: None,
        };
        kubelet.sandboxes.insert(id, sandbox);
        let call = |number, wanted, sandbox| Call {
            number,
            wanted,
            attachment: attachment.clone(),
            netns: Some(netns.clone()),
            pod: Some(reference.clone()),
            result: None,
            queued: false,
            sandbox,
        };
        let faults = self.cluster_faults.cni(n);
        if faults.contains(&CniFault::DelFirst) && self.rng.chance(0.5) {
            let number = self.nodes[n].kubelet.next_call();
            self.call(n, call(number, Wanted::Del, None), Duration::ZERO);
            if let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get_mut(&id) {
                sandbox.crossed = true;
            }
        }
        let number = self.nodes[n].kubelet.next_call();
        self.call(n, call(number, Wanted::Add, Some(id)), Duration::ZERO);
        if faults.contains(&CniFault::NetnsGone) && self.rng.chance(0.5) {
            // Before, while or after the agent makes the interface.
            if let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get_mut(&id) {
                sandbox.crossed = true;
            }
            let after = self.latency(Duration::from_millis(8));
            self.after(after, Task::DestroyNetns(n, netns.clone()));
        }
        if faults.contains(&CniFault::RepeatAdd) {
            let number = self.nodes[n].kubelet.next_call();
            self.call(n, call(number, Wanted::Add, None), Duration::ZERO);
        }
    }

    /// Ends a pod whose containers run.
    fn stop_pod(&mut self, n: NodeId, uid: &str) {
        let Some(work) = self.nodes[n].kubelet.pods.get_mut(uid) else { return };
        let Some(id) = work.sandbox else {
            // It had the node's network.
            work.stage = Stage::New;
            self.pod_is_gone(n, uid);
            return;
        };
        self.stop_host(n, id);
        let late = self.cluster_faults.cni(n).into_iter().find_map(|fault| match fault {
            CniFault::LateDel(by) => Some(by),
            _ => None,
        });
        if let Some(by) = late {
            // The runtime died and was told of nothing; namespace and object are gone before it asks.
            if let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get(&id) {
                let (netns, attachment) = (sandbox.netns.clone(), sandbox.attachment.clone());
                let (pod, result) = (Some(sandbox.reference()), sandbox.result.clone());
                self.destroy_netns(n, &netns);
                if let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get_mut(&id) {
                    sandbox.forgotten = true;
                }
                let number = self.nodes[n].kubelet.next_call();
                let wanted = Wanted::Del;
                let call = Call {
                    number,
                    wanted,
                    attachment,
                    netns: None,
                    pod,
                    result,
                    queued: false,
                    sandbox: Some(id),
                };
                self.call(n, call, by);
                if self.rng.chance(0.3) {
                    // It remembers nothing of the pod, so its list lacks it too.
                    let after = self.latency(Duration::from_secs(2));
                    self.after(after, Task::CollectGarbage(n));
                }
            }
            if let Some(work) = self.nodes[n].kubelet.pods.get_mut(uid) {
                work.stage = Stage::New;
                work.sandbox = None;
            }
            self.pod_is_gone(n, uid);
            return;
        }
        if let Some(work) = self.nodes[n].kubelet.pods.get_mut(uid) {
            work.stage = Stage::Removing;
        }
        self.send_del(n, id, Duration::ZERO);
    }

    fn send_del(&mut self, n: NodeId, id: SandboxId, after: Duration) {
        let kubelet = &mut self.nodes[n].kubelet;
        let number = kubelet.next_call();
        let Some(sandbox) = kubelet.sandboxes.get_mut(&id) else { return };
        sandbox.addresses.clear();
        let call = Call {
            number,
            wanted: Wanted::Del,
            attachment: sandbox.attachment.clone(),
            netns: Some(sandbox.netns.clone()),
            pod: Some(sandbox.reference()),
            result: sandbox.result.clone(),
            queued: false,
            sandbox: Some(id),
        };
        if self.cluster_faults.cni(n).iter().any(|fault| matches!(fault, CniFault::RepeatDel(_))) {
            // Two callers want the same at once; nobody waits for the second answer but the agent owes it.
            let number = self.nodes[n].kubelet.next_call();
            self.call(n, Call { number, sandbox: None, ..call.clone() }, after);
        }
        self.call(n, call, after);
    }

    /// Takes in the answer to a call.
    pub(crate) fn cni_answer(&mut self, n: NodeId, call: &Call, reply: &Reply) {
        self.note(n, "cni answer", call.number);
        let Some(id) = call.sandbox else { return };
        let Some(uid) = self.nodes[n].kubelet.sandboxes.get(&id).map(|sandbox| sandbox.uid.clone()) else {
            return;
        };
        match (&call.wanted, reply) {
            (Wanted::Add, Reply::Added { .. }) => {
                let kubelet = &mut self.nodes[n].kubelet;
                let crossed = kubelet.sandboxes.get(&id).is_some_and(|sandbox| sandbox.crossed);
                let work = kubelet.pods.get_mut(&uid);
                match work.filter(|work| work.sandbox == Some(id) && !work.deleting && !crossed) {
                    Some(work) => {
                        work.stage = Stage::Starting;
                        let after = self.latency(Duration::from_millis(40));
                        self.after(after, Task::RunPod(n, id));
                    }
                    None => self.remove_again(n, &uid, id),
                }
            }
            (Wanted::Add, _) => self.remove_again(n, &uid, id),
            (_, Reply::Error { .. }) => self.send_del(n, id, RETRY.0),
            _ => self.sandbox_is_gone(n, &uid, id),
        }
    }

    /// What was made for nothing is taken back, as runtimes do after every ADD that they saw fail.
    fn remove_again(&mut self, n: NodeId, uid: &str, id: SandboxId) {
        if let Some(work) = self.nodes[n].kubelet.pods.get_mut(uid) {
            work.stage = Stage::Removing;
        }
        self.send_del(n, id, Duration::ZERO);
    }

    fn sandbox_is_gone(&mut self, n: NodeId, uid: &str, id: SandboxId) {
        let Some(sandbox) = self.nodes[n].kubelet.sandboxes.remove(&id) else { return };
        self.destroy_netns(n, &sandbox.netns);
        let again = self.cluster_faults.cni(n).into_iter().find_map(|fault| match fault {
            CniFault::RepeatDel(by) => Some(by),
            _ => None,
        });
        if let Some(by) = again {
            let number = self.nodes[n].kubelet.next_call();
            let (pod, wanted) = (Some(sandbox.reference()), Wanted::Del);
            let (attachment, result) = (sandbox.attachment, sandbox.result);
            let call =
                Call { number, wanted, attachment, netns: None, pod, result, queued: false, sandbox: None };
            self.call(n, call, by);
        }
        let now = self.now;
        if let Some(work) = self.nodes[n].kubelet.pods.get_mut(uid) {
            if work.sandbox == Some(id) {
                work.sandbox = None;
                work.stage = Stage::New;
                work.not_before = now + work.pause;
                work.pause = (work.pause * 2).min(RETRY.1);
            }
            self.wake_kubelet(n, Duration::ZERO);
        }
    }

    /// The runtime destroys a network namespace; the kernel removes the links into it.
    pub(crate) fn destroy_netns(&mut self, n: NodeId, path: &str) {
        let node = &mut self.nodes[n];
        if node.kubelet.gone.insert(path.to_owned()) {
            node.memory.destroy_netns(path);
            self.follow_links(n);
        }
    }

    fn pod_is_gone(&mut self, n: NodeId, uid: &str) {
        let Some(work) = self.nodes[n].kubelet.pods.remove(uid) else { return };
        if !work.object_gone {
            let options = DeleteOptions { uid: Some(uid.to_owned()), ..DeleteOptions::now() };
            // Somebody else may have been quicker; that is as good.
            drop(self.store.delete(&PODS, &work.namespace, &work.name, &options));
        }
    }

    /// The containers of a pod begin to run.
    pub(crate) fn run_pod(&mut self, n: NodeId, id: SandboxId) {
        let node = &self.nodes[n];
        let Some(sandbox) = node.kubelet.sandboxes.get(&id) else { return };
        let uid = sandbox.uid.clone();
        let Some(work) = node.kubelet.pods.get(&uid).filter(|work| work.sandbox == Some(id)) else { return };
        if work.deleting {
            self.remove_again(n, &uid, id);
            return;
        }
        let netns = sandbox.netns.clone();
        let end =
            node.memory.links().values().find_map(|link| link.pod.as_ref().filter(|pod| pod.netns == netns));
        let Some(end) = end else {
            self.violate(
                "cni",
                format!("ADD of {} succeeded, but there is no interface in its namespace", full_name(work)),
            );
            return;
        };
        let mut host = Host::new(&sim_net::HostConfig {
            mac: end.mac,
            mtu: end.mtu,
            addresses: end.addresses.clone(),
            routes: end.routes.iter().map(|route| (route.dst, route.gateway)).collect(),
            seed: self.seed ^ (id.0 << 20) ^ n as u64,
        });
        for server in &work.serve {
            host.serve(objects::server(*server));
        }
        // Some clients use their ports again soon.
        if id.0.is_multiple_of(3) {
            host.restrict_ports(12);
        }
        let kubelet = &mut self.nodes[n].kubelet;
        if let Some(sandbox) = kubelet.sandboxes.get_mut(&id) {
            sandbox.host = Some(host);
        }
        if let Some(work) = kubelet.pods.get_mut(&uid) {
            work.stage = Stage::Running;
            work.pause = RETRY.0;
        }
        self.write_ready(n, &uid);
        self.wake_pod(n, id, Duration::ZERO);
    }

    fn stop_host(&mut self, n: NodeId, id: SandboxId) {
        self.traffic_loses_sender(n, id);
        if let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get_mut(&id) {
            sandbox.host = None;
            sandbox.addresses.clear();
        }
    }

    fn write_ready(&mut self, n: NodeId, uid: &str) {
        let node = &self.nodes[n];
        let Some(work) = node.kubelet.pods.get(uid) else { return };
        let addresses = match work.sandbox.and_then(|id| node.kubelet.sandboxes.get(&id)) {
            Some(sandbox) => &sandbox.addresses,
            None => &node.addresses,
        };
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let host_ip = node.addresses.first().copied();
        let (namespace, name) = (work.namespace.clone(), work.name.clone());
        let now = rfc3339(self.store.now());
        let ready = work.ready;
        let condition = |kind: &str| {
            let holds = ready || !kind.ends_with("Ready");
            json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now})
        };
        let written = self.store.modify(&PODS, &namespace, &name, Sub::Status, |pod| {
            if str_at(pod, &["metadata", "uid"]) != uid {
                return;
            }
            pod["status"] = json!({
                "phase": "Running", "hostIP": host_ip, "podIP": ips.first().map(|ip| ip["ip"].clone()), "podIPs": ips,
                "startTime": now,
                "conditions": [condition("PodScheduled"), condition("Initialized"), condition("ContainersReady"), condition("Ready")],
            });
        });
        // A pod whose object is gone ends by itself.
        drop(written);
    }
}
