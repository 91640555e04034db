//! What those who act may believe at present: objects as they are, or as they were when everybody had last heard of everything.
//!
//! An object that changes is seen by one agent after the other, and of two changes either may be seen first. So between the last
//! moment at which nothing was under way and now, every combination of the versions of objects is possible, and nothing else is:
//! what all of them forbid must not happen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use sim_api::object::{at, name, namespace, str_at};
use sim_oracle::{Attempt, Cluster, Direction, End, Options, Protocol, Verdict};

use crate::world::API_PORT;

/// More combinations than this are not looked at.
const MOST_VIEWS: usize = 128;

/// Identity of pods whose labels are not known yet.
const INIT: u64 = 5;

/// Kind, namespace, name.
pub(super) type Key = (String, String, String);

/// A change of an object.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: Duration,
    pub(super) key: Key,
    /// `None`: it is gone.
    pub(super) object: Option<Value>,
}

impl Entry {
    /// Makes a cluster know of it. What is refused has not come here.
    pub(super) fn set_in(&self, cluster: &mut Cluster) {
        self.set_as(self.object.as_ref(), cluster);
    }

    fn set_as(&self, object: Option<&Value>, cluster: &mut Cluster) {
        match object {
            Some(object) => drop(cluster.set(object)),
            None => cluster.remove(&self.key.0, &self.key.1, &self.key.2),
        }
    }

    /// Whether it is a pod that has addresses, or has none yet; `None`: it is no pod, or none any more.
    fn has_addresses(&self) -> Option<bool> {
        let pod = self.object.as_ref().filter(|_| self.key.0 == "Pod")?;
        Some(!pod["status"]["podIPs"].is_null())
    }
}

/// The versions of an object, each once. Labels of a pod and its addresses are heard of on different ways: whose labels change before
/// it has addresses is met with those that it gets as whom it was, too.
fn versions<'a>(key: &Key, new: &[&'a Entry]) -> Vec<(&'a Entry, Option<Value>)> {
    let entries: Vec<&&Entry> = new.iter().filter(|entry| entry.key == *key).collect();
    let mut versions: Vec<(&Entry, Option<Value>)> = Vec::new();
    for (nth, entry) in entries.iter().enumerate() {
        let mut object = entry.object.clone();
        if entry.has_addresses() == Some(false) {
            let later = entries[nth..].iter().map_while(|entry| Some((entry, entry.has_addresses()?)));
            let addressed = later.filter(|(_, has)| *has).find_map(|(entry, _)| entry.object.as_ref());
            if let Some((object, addressed)) = object.as_mut().zip(addressed) {
                object["status"] = addressed["status"].clone();
            }
        }
        if versions.iter().all(|(_, known)| *known != object) {
            versions.push((entry, object));
        }
    }
    versions
}

/// Every combination of versions of what has changed since `base`; `None`: too many.
pub(super) fn combined(base: Cluster, new: &[&Entry]) -> Option<Vec<Cluster>> {
    let changed: BTreeSet<&Key> = new.iter().map(|entry| &entry.key).collect();
    let mut views = vec![base];
    for key in changed {
        let versions = versions(key, new);
        if views.len() * (versions.len() + 1) > MOST_VIEWS {
            return None;
        }
        let mut more = Vec::new();
        for view in &views {
            for (entry, object) in &versions {
                let mut view = view.clone();
                entry.set_as(object.as_ref(), &mut view);
                more.push(view);
            }
        }
        views.extend(more);
    }
    Some(views)
}

/// What the cluster was told of a pod's endpoint.
#[derive(Debug)]
struct Told {
    since: Duration,
    identity: u64,
    /// Its addresses, as the object has them.
    addressing: Value,
}

/// What may come of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Possible {
    /// A view allows the end that opens to send.
    egress: [bool; 2],
    ingress: [bool; 2],
}

impl Possible {
    /// Whether it may get through.
    pub(crate) const fn through(self) -> bool {
        self.egress[1] && self.ingress[1]
    }

    /// Whether it may be stopped.
    pub(crate) const fn stopped(self) -> bool {
        self.egress[0] || self.ingress[0]
    }

    /// The same as one node has it, which judges egress, ingress, or both.
    pub(crate) const fn passes(self, (egress, ingress): (bool, bool)) -> bool {
        (!egress || self.egress[1]) && (!ingress || self.ingress[1])
    }

    /// Whether it may be stopped there.
    pub(crate) const fn is_stopped(self, (egress, ingress): (bool, bool)) -> bool {
        (egress && self.egress[0]) || (ingress && self.ingress[0])
    }

    fn add(&mut self, direction: Direction, allowed: bool) {
        let of = if direction == Direction::Egress { &mut self.egress } else { &mut self.ingress };
        of[usize::from(allowed)] = true;
    }
}

/// Views of a stretch of the log.
#[derive(Debug)]
struct Cache {
    from: usize,
    to: usize,
    /// `None`: too many.
    views: Option<Vec<Cluster>>,
    /// By attempt, and the addresses of those ends that are new.
    answers: BTreeMap<(Attempt, Option<IpAddr>, Option<IpAddr>), Possible>,
}

/// The history of the objects.
#[derive(Debug, Default)]
pub(crate) struct Views {
    log: Vec<Entry>,
    /// When everybody had last heard of everything.
    rest: Duration,
    endpoints: BTreeMap<String, Told>,
    identities: BTreeMap<u64, BTreeMap<String, String>>,
    cache: Option<Cache>,
    options: Options,
    /// What is known of it and of nodes.
    pub(crate) api_server: ApiServer,
}

/// Whether policies for nodes may be in their way to the API server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ApiServer {
    address: Option<IpAddr>,
    /// Policies for nodes say that they may. Either all of a scenario do, or none.
    may_be_cut: bool,
}

impl ApiServer {
    /// What a cluster says of an attempt: egress, then ingress. What a node opens is only audited as long as its policies would
    /// cut it off from the API server and do not say that this is meant.
    pub(crate) fn judge(self, cluster: &Cluster, attempt: &Attempt) -> [bool; 2] {
        if cluster.options().audit {
            // What is denied is only told of.
            return [true; 2];
        }
        let verdict = cluster.judge(attempt);
        let egress = allows(&verdict, Direction::Egress) || self.is_cut(cluster, &attempt.from);
        [egress, allows(&verdict, Direction::Ingress)]
    }

    fn is_cut(self, cluster: &Cluster, end: &End) -> bool {
        let is_node = matches!(end, End::Node { .. });
        let Some(server) = self.address.filter(|_| is_node && !self.may_be_cut) else { return false };
        let call = Attempt {
            from: end.clone(),
            to: End::Outside(server),
            family: crate::world::family(server),
            protocol: Protocol::Tcp,
            port: Some(API_PORT),
        };
        !allows(&cluster.judge(&call), Direction::Egress)
    }
}

/// Whether a verdict allows it in that direction.
pub(super) fn allows(verdict: &Verdict, direction: Direction) -> bool {
    verdict.why.iter().filter(|why| why.direction == direction).all(|why| why.reason.allows())
}

impl Views {
    /// Nothing noted yet.
    pub(crate) fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// When nothing was under way last.
    pub(crate) const fn rest(&self) -> Duration {
        self.rest
    }

    /// Nothing is under way.
    pub(crate) fn at_rest(&mut self, now: Duration) {
        self.rest = now;
    }

    /// Somebody believes again what was true until then.
    pub(crate) fn reach_back_to(&mut self, then: Duration) {
        self.rest = self.rest.min(then);
    }

    /// Takes a change in. Objects that the oracle refuses change nothing, so they are not to come here.
    pub(crate) fn note(&mut self, now: Duration, object: &Value, deleted: bool) {
        let kind = str_at(object, &["kind"]);
        match kind {
            "CiliumIdentity" => return self.note_identity(object, deleted),
            "Pod" | "Node" | "Namespace" | "CiliumCIDRGroup" => {}
            "EndpointSlice" if name(object) == "kubernetes" => {
                let first = object["endpoints"][0]["addresses"][0].as_str();
                self.api_server.address = first.and_then(|address| address.parse().ok());
            }
            _ if kind.ends_with("NetworkPolicy") => {
                let may_be_cut = &object["metadata"]["annotations"][agent_control::ALLOW_API_CUT];
                self.api_server.may_be_cut |= !may_be_cut.is_null();
            }
            _ => return,
        }
        let key = (kind.to_owned(), namespace(object).to_owned(), name(object).to_owned());
        let object = (!deleted).then(|| essence(object));
        let last = self.log.iter().rev().find(|entry| entry.key == key);
        if last.map(|entry| &entry.object) != Some(&object) {
            self.log.push(Entry { at: now, key, object });
        }
    }

    /// The same of what is told of a pod. `surprises`: some may not know the identity that it has now.
    pub(crate) fn note_endpoint(&mut self, now: Duration, object: &Value, deleted: bool, surprises: bool) {
        let pod = format!("{}/{}", namespace(object), name(object));
        let identity = at(object, &["status", "identity", "id"]).as_u64().unwrap_or(INIT);
        if deleted {
            self.endpoints.remove(&pod);
            return;
        }
        // A pod whose interface had to be made again has other addresses, of which nobody knows yet.
        let addressing = at(object, &["status", "networking", "addressing"]);
        let known = self.endpoints.get(&pod);
        if known.is_none_or(|told| told.identity != identity || told.addressing != *addressing) {
            // Who has another identity than before is met as whom it was, or as whom it is.
            let changes = known.filter(|told| {
                told.identity != INIT && identity != INIT && told.addressing == *addressing && !surprises
            });
            let since = changes.map_or(now, |told| told.since);
            self.endpoints.insert(pod, Told { since, identity, addressing: addressing.clone() });
        }
    }

    fn note_identity(&mut self, object: &Value, deleted: bool) {
        let Ok(number) = name(object).parse() else { return };
        if deleted {
            // Packets may carry it for a while.
            return;
        }
        let labels = at(object, &["security-labels"]).as_object();
        let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        self.identities.insert(number, labels.into_iter().flatten().filter_map(text).collect());
    }

    /// Whether some may not know whose the address of a pod (`namespace/name`) is.
    fn is_new(&self, end: &End, since: Duration) -> bool {
        let End::Pod { namespace, name } = end else { return false };
        self.endpoints
            .get(&format!("{namespace}/{name}"))
            .is_none_or(|told| told.since >= since || told.identity == INIT)
    }

    /// Whether a pod (`namespace/name`) may have an identity: it had its labels at some time. `present`: it has them now.
    pub(crate) fn may_have(&self, pod: &str, identity: u32, present: bool) -> bool {
        if u64::from(identity) == INIT {
            return !present;
        }
        let Some(labels) = self.identities.get(&u64::from(identity)) else { return false };
        let (space, name) = pod.split_once('/').unwrap_or(("default", pod));
        let is = |entry: &&Entry| entry.key.0 == "Pod" && entry.key.1 == space && entry.key.2 == name;
        let versions = self.log.iter().rev().filter(is).filter_map(|entry| entry.object.as_ref());
        let fits = |version: &Value| {
            let own = at(version, &["metadata", "labels"]);
            let of_pod = labels.iter().filter_map(|(key, value)| {
                let key = key.strip_prefix("k8s:")?;
                (!key.starts_with("io.cilium.k8s.") && key != "io.kubernetes.pod.namespace")
                    .then_some((key, value))
            });
            let namespace = labels.get("k8s:io.kubernetes.pod.namespace").map(String::as_str);
            let all_there = own.as_object().into_iter().flatten().all(|(key, value)| {
                let counts = !key.contains("kubernetes.io") && !key.ends_with("-hash");
                !counts || labels.get(&format!("k8s:{key}")).map(String::as_str) == value.as_str()
            });
            namespace == Some(space)
                && all_there
                && of_pod.into_iter().all(|(key, value)| own[key].as_str() == Some(value))
        };
        versions.take(if present { 1 } else { usize::MAX }).any(fits)
    }

    /// Whether any object names this prefix.
    pub(crate) fn names_prefix(&self, prefix: &ipnet::IpNet) -> bool {
        let text = prefix.to_string();
        let short = prefix.addr().to_string();
        let names = |object: &Value| {
            any_text(object, &|found| {
                found == text
                    || (prefix.prefix_len() == prefix.max_prefix_len() && found == short)
                    || found.parse::<ipnet::IpNet>().is_ok_and(|net| net.trunc() == *prefix)
            })
        };
        self.log
            .iter()
            .filter(|entry| entry.key.0 != "Pod" && entry.key.0 != "Node")
            .any(|entry| entry.object.as_ref().is_some_and(names))
    }

    /// What may come of an attempt between these addresses whose packet was made at `born`; `None` if too much is under way to tell.
    pub(crate) fn possible(
        &mut self,
        attempt: &Attempt,
        [source, destination]: [IpAddr; 2],
        born: Duration,
    ) -> Option<Possible> {
        let since = self.rest.min(born);
        let new_from = self.is_new(&attempt.from, since).then_some(source);
        let new_to = self.is_new(&attempt.to, since).then_some(destination);
        let from = self.log.partition_point(|entry| entry.at < since);
        let to = self.log.len();
        // Each pod gets its new identity by itself, and no view has a namespace both as it was and as it is.
        if let (End::Pod { namespace: one, .. }, End::Pod { namespace: other, .. }) =
            (&attempt.from, &attempt.to)
            && one == other
            && self.log[from..].iter().any(|entry| entry.key.0 == "Namespace" && entry.key.2 == *one)
        {
            return None;
        }
        if self.cache.as_ref().is_none_or(|cache| (cache.from, cache.to) != (from, to)) {
            let views = self.views(from);
            self.cache = Some(Cache { from, to, views, answers: BTreeMap::new() });
        }
        let cache = self.cache.as_mut()?;
        let views = cache.views.as_ref()?;
        let key = (attempt.clone(), new_from, new_to);
        if let Some(known) = cache.answers.get(&key) {
            return Some(*known);
        }
        let absent = || End::Pod { namespace: String::new(), name: String::new() };
        let mut possible = Possible::default();
        let api_server = self.api_server;
        let mut judge = |attempt: &Attempt, only: Option<Direction>| {
            for view in views {
                let [egress, ingress] = api_server.judge(view, attempt);
                let both = [(Direction::Egress, egress), (Direction::Ingress, ingress)];
                let counts =
                    both.into_iter().filter(|(direction, _)| only.is_none_or(|only| only == *direction));
                counts.for_each(|(direction, allowed)| possible.add(direction, allowed));
            }
        };
        judge(attempt, None);
        // Who is not known yet is met as nobody in particular, with an address that blocks may hold.
        if let Some(address) = new_to {
            for to in [absent(), End::Outside(address)] {
                judge(&Attempt { to, ..attempt.clone() }, Some(Direction::Egress));
            }
        }
        if let Some(address) = new_from {
            for from in [absent(), End::Outside(address)] {
                judge(&Attempt { from, ..attempt.clone() }, Some(Direction::Ingress));
            }
        }
        // Until it has its identity a pod is isolated.
        possible.egress[0] |= new_from.is_some();
        possible.ingress[0] |= new_to.is_some();
        cache.answers.insert(key, possible);
        Some(possible)
    }

    /// Every combination of versions from the change number `from` on.
    fn views(&self, from: usize) -> Option<Vec<Cluster>> {
        let mut base = Cluster::with_options(self.options);
        self.log[..from].iter().for_each(|entry| entry.set_in(&mut base));
        combined(base, &self.log[from..].iter().collect::<Vec<_>>())
    }
}

fn any_text(value: &Value, is_it: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is_it(text),
        Value::Array(items) => items.iter().any(|item| any_text(item, is_it)),
        Value::Object(fields) => fields.values().any(|field| any_text(field, is_it)),
        _ => false,
    }
}

/// What of an object can matter to policies.
fn essence(object: &Value) -> Value {
    let kind = str_at(object, &["kind"]);
    let meta = &object["metadata"];
    let mut kept = json!({
        "apiVersion": object["apiVersion"],
        "kind": kind,
        "metadata": {"name": meta["name"]},
    });
    for field in ["namespace", "labels", "annotations"] {
        if !meta[field].is_null() {
            kept["metadata"][field] = meta[field].clone();
        }
    }
    for field in ["spec", "specs"] {
        if !object[field].is_null() {
            kept[field] = object[field].clone();
        }
    }
    match kind {
        "Pod" => {
            let status = &object["status"];
            kept["status"] = json!({"phase": status["phase"], "podIPs": status["podIPs"]});
            if status["podIPs"].is_null() {
                kept["status"] = json!({"phase": status["phase"]});
            }
            if status["phase"].is_null() {
                kept["status"] = json!({});
            }
        }
        "EndpointSlice" => {
            for field in ["addressType", "endpoints", "ports"] {
                kept[field] = object[field].clone();
            }
        }
        "Node" => kept["status"] = json!({"addresses": object["status"]["addresses"]}),
        _ => {}
    }
    kept
}
