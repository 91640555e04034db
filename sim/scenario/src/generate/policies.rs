//! Policies of every kind come, change and go, and so do the labels that they select by.
//!
//! All is drawn from few labels and the ports that pods serve, so that policies meet each other and the traffic.

mod fresh;
mod splits;

use serde_json::{Value, json};

use super::{Generator, percent};
use crate::model::{Action, Enforcement, Families, ObjectRef};
use crate::profile::Subject;
use crate::rng::Rng;

/// Of more policies than this nobody learns more.
const MOST: usize = 5;
/// Namespaces of pods.
pub(super) const NAMESPACES: [&str; 2] = ["default", "shop"];
const APPS: [&str; 3] = ["a", "b", "c"];
const TEAMS: [&str; 2] = ["red", "blue"];
/// Labels of nodes.
const ZONES: [&str; 2] = ["east", "west"];
const PORTS: [u16; 4] = [8080, 9000, 5353, 4444];

/// A policy that is there.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    api_version: &'static str,
    kind: &'static str,
    namespace: Option<&'static str>,
    name: String,
    /// It is for nodes.
    host: bool,
    /// Whom it is for.
    subject: Option<Value>,
    /// All of it, once it is there.
    spec: Value,
    /// It is not in force. That never changes, so that what it would have decided otherwise can be counted.
    staged: bool,
}

impl Standing {
    /// The field of the spec that says whom it is for.
    fn subject_field(&self) -> &'static str {
        match self.kind {
            "NetworkPolicy" => "podSelector",
            "ClusterNetworkPolicy" => "subject",
            _ if self.host => "nodeSelector",
            _ => "endpointSelector",
        }
    }
}

/// One of them. There must be one.
fn one<T: Copy>(rng: &mut Rng, items: &[T]) -> T {
    items[rng.index(items.len())]
}

/// A label that pods are selected by.
pub(super) fn app(rng: &mut Rng) -> &'static str {
    one(rng, &APPS)
}

impl Generator<'_> {
    /// Something about policies or labels changes.
    pub(super) fn policy_changes(&mut self) {
        if !self.policed {
            return;
        }
        match self.rng.below(10) {
            0..=2 => self.new_policy(),
            3..=5 => self.change_policy(),
            6 if self.rng.chance(0.5) => {
                // At once, so that nobody sees what is between.
                self.remove_policy();
                self.new_policy();
            }
            6 => self.remove_policy(),
            7 | 8 if self.cluster.host_firewall && self.rng.chance(0.3) => self.relabel_node(),
            7 | 8 => {
                let anew = self.rng.chance(0.6);
                self.relabel_pod(anew);
            }
            _ => self.relabel_namespace(),
        }
    }

    /// Namespaces are there before policies are.
    pub(super) fn make_namespaces(&mut self) {
        if self.policed {
            let made = NAMESPACES.map(|name| {
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": TEAMS[0]}}})
            });
            self.push(Action::Apply(made.to_vec()));
        }
    }

    /// All that are left go.
    pub(super) fn remove_policies(&mut self) {
        while !self.policies.is_empty() {
            self.remove_policy();
        }
    }

    fn new_policy(&mut self) {
        if let Some(policy) = self.drawn_policy() {
            let policy = self.apply_policy(policy);
            self.policies.push(policy);
        }
    }

    /// One that says nothing yet; `None`: there are enough.
    fn drawn_policy(&mut self) -> Option<Standing> {
        if self.policies.len() >= MOST {
            return None;
        }
        self.policies_made += 1;
        let name = format!("q{}", self.policies_made);
        let host = self.cluster.host_firewall && self.rng.chance(0.4);
        let (api_version, kind) = match self.rng.below(10) {
            _ if host => ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"),
            0..=3 => ("networking.k8s.io/v1", "NetworkPolicy"),
            4..=6 => ("cilium.io/v2", "CiliumNetworkPolicy"),
            7 => ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"),
            _ => ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
        };
        let namespaced = matches!(kind, "NetworkPolicy" | "CiliumNetworkPolicy");
        let namespace = namespaced.then(|| one(&mut self.rng, &NAMESPACES));
        let staged = self.rng.chance(0.2);
        Some(Standing { api_version, kind, namespace, name, host, subject: None, spec: Value::Null, staged })
    }

    fn change_policy(&mut self) {
        if self.policies.is_empty() {
            return;
        }
        let index = self.rng.index(self.policies.len());
        let policy = self.policies[index].clone();
        self.policies[index] = self.apply_policy(policy);
    }

    fn remove_policy(&mut self) {
        if self.policies.is_empty() {
            return;
        }
        let index = self.rng.index(self.policies.len());
        let Standing { api_version, kind, namespace, name, .. } = self.policies.remove(index);
        self.push(Action::Delete(ObjectRef {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name,
            namespace: namespace.map(str::to_owned),
        }));
    }

    /// Another version of a policy. It is mostly for whom it was before.
    fn apply_policy(&mut self, mut policy: Standing) -> Standing {
        let mut spec = self.another_spec(&policy);
        let field = policy.subject_field();
        // Rows change before, or after, those whom they are for only where both change at once.
        let stays = if self.profile.subject == Subject::Rows { 0.5 } else { 0.75 };
        let others = self.rng.chance(0.4).then(|| with_other_cidrs(&mut self.rng, &policy.spec)).flatten();
        match &policy.subject {
            Some(_) if others.is_some() => spec = others.unwrap_or_default(),
            Some(before) if self.rng.chance(stays) => spec[field] = before.clone(),
            _ => policy.subject = Some(spec[field].clone()),
        }
        policy.spec = spec;
        self.push_policy(&policy);
        policy
    }

    /// A spec of the kind of a policy.
    fn another_spec(&mut self, policy: &Standing) -> Value {
        let (rng, family) = (&mut self.rng, self.cluster.family);
        match policy.kind {
            "NetworkPolicy" => network_policy(rng, family),
            "ClusterNetworkPolicy" => cluster_policy(rng, family),
            _ if policy.host => for_nodes(rng, family),
            _ => cilium(rng, family),
        }
    }

    fn push_policy(&mut self, policy: &Standing) {
        let mut object = json!({
            "apiVersion": policy.api_version, "kind": policy.kind,
            "metadata": {"name": policy.name}, "spec": policy.spec,
        });
        if policy.staged {
            object["metadata"]["annotations"] = json!({"bristle.io/staged": "true"});
        }
        if policy.host && self.may_cut {
            object["metadata"]["annotations"]["bristle.io/allow-api-cut"] = json!("true");
        }
        if let Some(namespace) = policy.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.push(Action::Apply(vec![object]));
    }

    /// Gives a pod other labels; `anew`: such that nobody has had, and so no number yet.
    fn relabel_pod(&mut self, anew: bool) {
        let Some(pod) = self.rng.pick(&self.pods).cloned() else { return };
        let mut labels = json!({"app": app(&mut self.rng)});
        if anew {
            self.pods_relabelled += 1;
            labels["change"] = json!(self.pods_relabelled.to_string());
        }
        self.push(Action::Apply(vec![json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": labels},
        })]));
    }

    fn relabel_node(&mut self) {
        let name = format!("node-{}", self.rng.range(1..=u64::from(self.cluster.nodes)));
        let zone = one(&mut self.rng, &ZONES);
        self.push(Action::Apply(vec![json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"zone": zone}},
        })]));
    }

    fn relabel_namespace(&mut self) {
        let name = one(&mut self.rng, &NAMESPACES);
        let team = one(&mut self.rng, &TEAMS);
        self.set_team(name, team);
    }

    fn set_team(&mut self, name: &str, team: &str) {
        self.push(Action::Apply(vec![json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": team}},
        })]));
    }
}

/// Labels of pods: all, or those of an app.
fn selector(rng: &mut Rng) -> Value {
    if rng.chance(0.3) {
        return json!({});
    }
    if rng.chance(0.2) {
        return json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [app(rng)]}]});
    }
    json!({"matchLabels": {"app": app(rng)}})
}

fn namespaces(rng: &mut Rng) -> Value {
    match rng.below(4) {
        0 => json!({}),
        1 => json!({"matchLabels": {"team": one(rng, &TEAMS)}}),
        _ => json!({"matchLabels": {"kubernetes.io/metadata.name": one(rng, &NAMESPACES)}}),
    }
}

/// What policies name of the world.
const CIDRS: [[&str; 4]; 2] = [
    ["0.0.0.0/0", "198.51.100.0/24", "203.0.113.20/32", "10.0.0.0/8"],
    ["::/0", "2001:db8:51::/64", "2001:db8:113::20/128", "fd00::/8"],
];

/// The same policy, about other CIDRs of the same families; `None`: it names none.
fn with_other_cidrs(rng: &mut Rng, spec: &Value) -> Option<Value> {
    fn change(rng: &mut Rng, value: &mut Value, changed: &mut bool) {
        match value {
            Value::String(text) => {
                if let Some(like) = CIDRS.iter().find(|like| like.contains(&text.as_str())) {
                    let other = one(rng, like);
                    *changed |= other != text;
                    *value = json!(other);
                }
            }
            Value::Array(items) => {
                items.iter_mut().for_each(|item| change(rng, item, changed));
                // A list of CIDRs names each once.
                items.dedup();
            }
            // What is excepted belongs to its block.
            Value::Object(fields) if fields.contains_key("except") => {}
            Value::Object(fields) => fields.values_mut().for_each(|field| change(rng, field, changed)),
            _ => {}
        }
    }
    let (mut spec, mut changed) = (spec.clone(), false);
    change(rng, &mut spec, &mut changed);
    changed.then_some(spec)
}

/// Some of the servers outside, or all that is there.
fn cidr(rng: &mut Rng, family: Families) -> &'static str {
    let v4 = match family {
        Families::V4 => true,
        Families::V6 => false,
        Families::Dual => rng.chance(0.5),
    };
    one(rng, &CIDRS[usize::from(!v4)])
}

/// A block that some pods, or none, have their addresses in, and perhaps a smaller one that is not meant.
fn block(rng: &mut Rng, family: Families) -> Value {
    let v4 = match family {
        Families::V4 => true,
        Families::V6 => false,
        Families::Dual => rng.chance(0.5),
    };
    // Pod CIDRs of nodes, the first addresses in them, and all of them.
    let blocks: &[[&str; 2]] = if v4 {
        &[
            ["10.16.0.0/24", "10.16.0.0/29"],
            ["10.16.1.0/24", "10.16.1.4/30"],
            ["10.16.0.0/29", "10.16.0.2/31"],
            ["10.0.0.0/8", "10.16.1.0/24"],
            ["0.0.0.0/0", "10.16.0.0/16"],
        ]
    } else {
        &[
            ["fd00:10::/112", "fd00:10::/125"],
            ["fd00:10::1:0/112", "fd00:10::1:4/126"],
            ["fd00:10::/125", "fd00:10::2/127"],
            ["fd00::/8", "fd00:10::1:0/112"],
            ["::/0", "fd00:10::/64"],
        ]
    };
    let [cidr, except] = one(rng, blocks);
    if rng.chance(0.5) { json!({"cidr": cidr, "except": [except]}) } else { json!({"cidr": cidr}) }
}

fn network_policy(rng: &mut Rng, family: Families) -> Value {
    let types: &[&str] = match rng.below(4) {
        0 => &["Egress"],
        1 => &["Ingress", "Egress"],
        _ => &["Ingress"],
    };
    let mut spec = json!({"podSelector": selector(rng), "policyTypes": types});
    for (word, list, peers) in [("Ingress", "ingress", "from"), ("Egress", "egress", "to")] {
        if types.contains(&word) {
            let rules = (0..rng.range(0..=2)).map(|_| network_rule(rng, family, peers));
            spec[list] = rules.collect();
        }
    }
    spec
}

fn network_rule(rng: &mut Rng, family: Families, peers: &str) -> Value {
    let mut rule = json!({});
    if rng.chance(0.85) {
        let peer = match rng.below(7) {
            0 => json!({"namespaceSelector": namespaces(rng)}),
            1 => json!({"namespaceSelector": namespaces(rng), "podSelector": selector(rng)}),
            2 => json!({"ipBlock": {"cidr": cidr(rng, family)}}),
            3 | 4 => json!({"ipBlock": block(rng, family)}),
            _ => json!({"podSelector": selector(rng)}),
        };
        rule[peers] = json!([peer]);
    }
    if rng.chance(0.6) {
        let port = one(rng, &PORTS);
        let protocol = if port == 5353 { "UDP" } else { "TCP" };
        let mut entry = json!({"protocol": protocol, "port": port});
        match rng.below(4) {
            0 => entry = json!({"protocol": protocol}),
            1 => entry["endPort"] = json!(one(rng, &[port, port + 1, 9000.max(port), 65535])),
            _ => {}
        }
        rule["ports"] = json!([entry]);
    }
    rule
}

fn cilium(rng: &mut Rng, family: Families) -> Value {
    let mut spec = json!({"endpointSelector": selector(rng)});
    let lists: &[(&str, &str)] = match rng.below(5) {
        0 => &[("egress", "to")],
        1 => &[("egress", "to"), ("ingress", "from")],
        2 => &[("ingress", "from"), ("ingressDeny", "from")],
        3 => &[("egress", "to"), ("egressDeny", "to")],
        _ => &[("ingress", "from")],
    };
    for (list, peers) in lists {
        let rules: Value = (0..rng.range(1..=2)).map(|_| cilium_rule(rng, family, peers)).collect();
        spec[*list] = rules;
    }
    if rng.chance(0.15) {
        spec["enableDefaultDeny"] = json!({"ingress": false, "egress": false});
    }
    spec
}

/// For nodes, all of them or those of a zone.
fn for_nodes(rng: &mut Rng, family: Families) -> Value {
    let mut spec = cilium(rng, family);
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("endpointSelector");
    }
    spec["nodeSelector"] =
        if rng.chance(0.5) { json!({}) } else { json!({"matchLabels": {"zone": one(rng, &ZONES)}}) };
    spec
}

fn cilium_rule(rng: &mut Rng, family: Families, peers: &str) -> Value {
    let mut rule = match rng.below(6) {
        0 | 1 => {
            json!({format!("{peers}Entities"): [one(rng, &["cluster", "world", "all", "host", "remote-node"])]})
        }
        2 => json!({format!("{peers}CIDR"): [cidr(rng, family)]}),
        // What pods send to is more often outside than what they hear from.
        3 if peers == "to" => json!({format!("{peers}CIDR"): [cidr(rng, family)]}),
        4 if peers == "to" => json!({format!("{peers}Entities"): [one(rng, &["world", "all"])]}),
        _ => json!({format!("{peers}Endpoints"): [selector(rng)]}),
    };
    match rng.below(4) {
        0 => {
            let port = one(rng, &PORTS);
            let protocol = if port == 5353 { "UDP" } else { one(rng, &["TCP", "ANY"]) };
            let mut entry = json!({"port": port.to_string(), "protocol": protocol});
            if rng.chance(0.3) {
                entry["endPort"] = json!(one(rng, &[port + 1, 9100, 65535]).max(port));
            }
            rule["toPorts"] = json!([{"ports": [entry]}]);
        }
        1 => {
            let (name, kind) = if family == Families::V6 { ("IPv6", 128) } else { ("IPv4", 8) };
            rule["icmps"] = json!([{"fields": [{"family": name, "type": kind}]}]);
        }
        _ => {}
    }
    rule
}

fn cluster_policy(rng: &mut Rng, family: Families) -> Value {
    let subject = if rng.chance(0.5) {
        json!({"namespaces": namespaces(rng)})
    } else {
        json!({"pods": {"namespaceSelector": namespaces(rng), "podSelector": selector(rng)}})
    };
    let admin = rng.chance(0.6);
    let mut spec = json!({
        "tier": if admin { "Admin" } else { "Baseline" },
        "priority": rng.range(0..=3),
        "subject": subject,
    });
    let actions: &[&str] = if admin { &["Accept", "Deny", "Pass"] } else { &["Accept", "Deny"] };
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        let count = rng.range(0..=2);
        let rules: Vec<Value> = (0..count)
            .map(|i| {
                let peer = if peers == "to" && rng.chance(0.3) {
                    let (first, block) = (json!(cidr(rng, family)), block(rng, family)["cidr"].take());
                    let networks = if first == block { vec![first] } else { vec![first, block] };
                    json!({"networks": networks})
                } else if rng.chance(0.5) {
                    json!({"namespaces": namespaces(rng)})
                } else {
                    json!({"pods": {"namespaceSelector": namespaces(rng), "podSelector": selector(rng)}})
                };
                json!({"name": format!("r{i}"), "action": one(rng, actions), peers: [peer]})
            })
            .collect();
        if !rules.is_empty() {
            spec[list] = json!(rules);
        }
    }
    spec
}

/// Whether a random scenario of a profile has policies.
pub(super) fn decide(rng: &mut Rng, of_a_hundred: u32) -> bool {
    percent(rng, of_a_hundred)
}

/// Which pods are isolated, and whether what is denied passes all the same.
pub(super) fn modes(seed: u64, policed: bool) -> (Enforcement, bool) {
    let mut rng = Rng::stream(seed, "modes", 0);
    let enforcement = match rng.range(0..=19) {
        _ if !policed => Enforcement::Default,
        0 => Enforcement::Never,
        1 | 2 => Enforcement::Always,
        _ => Enforcement::Default,
    };
    (enforcement, policed && rng.chance(0.1))
}
