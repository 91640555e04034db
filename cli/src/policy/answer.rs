//! Whether a connection passes and why, as data and as text.

use super::cluster::Cluster;
use super::ends::Who;
use agent_policy::{Direction, Origin, Outcome, Party, Side, Staged, explain_side, proto};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Whether a connection passes, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Who opens it.
    pub(crate) from: String,
    /// To whom.
    pub(crate) to: String,
    /// `TCP`, or the number of a protocol without a name here.
    pub(crate) protocol: String,
    /// Port there, or the type of ICMP.
    pub(crate) port: u16,
    /// Whether both sides let it pass.
    pub(crate) allowed: bool,
    /// What the policies of `from` say.
    pub(crate) egress: Half,
    /// What the policies of `to` say.
    pub(crate) ingress: Half,
    /// What else is to be known.
    pub(crate) notes: Vec<String>,
}

/// What the policies of one side say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Half {
    /// Whether it lets the connection pass.
    pub(crate) allowed: bool,
    pub(crate) verdict: Word,
    /// Entries that decide; where nothing allows it, rules that isolate.
    pub(crate) decided_by: Vec<Cause>,
    /// Rules that isolate this side in this direction, whether that matters or not.
    pub(crate) isolated_by: Vec<Cause>,
    /// `would-allow` or `would-deny` where staged policies would change it.
    pub(crate) staged: Option<String>,
    /// Entries that would decide then.
    pub(crate) staged_by: Vec<Cause>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// A rule allows it.
    Allowed,
    /// A rule denies it.
    Denied,
    /// Nothing allows it, and something has to.
    NoRule,
    /// It needs a proxy, which is not there.
    NeedsProxy,
    /// No policy is about it.
    NoPolicy,
    /// The side is no pod, nor a node for which there are policies: nothing is enforced there.
    NotEnforced,
    /// It passes whatever policies say.
    Always,
}

/// An object, and the entry in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cause {
    /// `KIND/NAMESPACE/NAME`.
    pub(crate) object: String,
    /// Which of its rules (`spec`, then `specs`), from 0.
    pub(crate) rule: u16,
    /// Such as `ingress[0]`; none: the rule isolates.
    pub(crate) entry: Option<String>,
}

impl From<&Origin> for Cause {
    fn from(origin: &Origin) -> Self {
        Self {
            object: origin.object.to_string(),
            rule: origin.spec,
            entry: origin.entry.map(|(section, index)| format!("{}[{index}]", section.name())),
        }
    }
}

impl From<Side> for Half {
    fn from(side: Side) -> Self {
        let causes = |origins: &[Origin]| origins.iter().map(Cause::from).collect();
        let verdict = match side.outcome {
            _ if !side.judged => Word::NoPolicy,
            Outcome::Allow => Word::Allowed,
            Outcome::Deny => Word::Denied,
            Outcome::NoRule => Word::NoRule,
            Outcome::Redirect => Word::NeedsProxy,
        };
        let staged = match side.staged {
            Staged::Nothing => None,
            Staged::WouldAllow => Some("would-allow".to_owned()),
            Staged::WouldDeny => Some("would-deny".to_owned()),
        };
        Self {
            allowed: side.outcome.passes(),
            verdict,
            decided_by: causes(&side.decided_by),
            isolated_by: causes(&side.isolated_by),
            staged,
            staged_by: causes(&side.staged_by),
        }
    }
}

impl Half {
    fn passes(verdict: Word) -> Self {
        Self {
            allowed: true,
            verdict,
            decided_by: Vec::new(),
            isolated_by: Vec::new(),
            staged: None,
            staged_by: Vec::new(),
        }
    }
}

/// Works it out. `v4`: the family that an end was named by; without it for IPv4 if both ends speak it, with a note if IPv6 differs.
pub(crate) fn answer(
    cluster: &Cluster,
    from: Who<'_>,
    to: Who<'_>,
    port: (u8, u16),
    v4: Option<bool>,
) -> Answer {
    let speak = |own: &bool| from.speaks(*own) && to.speaks(*own) && v4.is_none_or(|v4| v4 == *own);
    let mut families = [true, false].into_iter().filter(speak);
    let mut answer = answer_in(cluster, from, to, port, families.next().or(v4).unwrap_or(true));
    if let Some(v4) = families.next()
        && answer_in(cluster, from, to, port, v4).allowed != answer.allowed
    {
        let word = if answer.allowed { "denied" } else { "allowed" };
        answer.notes.push(format!("by IPv6 it is {word}: rules name blocks of addresses"));
    }
    answer
}

fn answer_in(cluster: &Cluster, from: Who<'_>, to: Who<'_>, (protocol, port): (u8, u16), v4: bool) -> Answer {
    let store = cluster.policies.store();
    let side = |own: Who<'_>, direction, peer: Who<'_>| match own {
        Who::Pod(_) => {
            let (own, peer) = (own.party(&peer, v4, cluster), peer.party(&own, v4, cluster));
            Half::from(explain_side(store, &own, direction, &peer, protocol, port))
        }
        Who::Node(name) if store.specs().any(|spec| spec.host) => {
            let labels = cluster.nodes.get(name).map(|node| node.facts.subject_labels()).unwrap_or_default();
            let node = Party { labels, host: true, ..Party::default() };
            let peer = peer.party(&own, v4, cluster);
            Half::from(explain_side(store, &node, direction, &peer, protocol, port))
        }
        _ => Half::passes(Word::NotEnforced),
    };
    let mut notes = Vec::new();
    let same = match (from, to) {
        (Who::Pod(a), Who::Pod(b)) => std::ptr::eq(a, b) && a.kind == "pod",
        (Who::Node(a), Who::Node(b)) => a == b,
        _ => false,
    };
    let (egress, ingress) = if same {
        let what = if matches!(to, Who::Pod(_)) { "pod" } else { "node" };
        notes.push(format!("a {what} reaches itself whatever policies say"));
        (Half::passes(Word::Always), Half::passes(Word::Always))
    } else {
        let egress = side(from, Direction::Egress, to);
        let ingress = match to {
            Who::Pod(pod) if from.is_node_of(pod) => {
                notes.push("a node reaches its own pods whatever policies say".to_owned());
                Half::passes(Word::Always)
            }
            _ => side(to, Direction::Ingress, from),
        };
        (egress, ingress)
    };
    for who in [from, to] {
        notes.extend(notes_of(cluster, who));
    }
    notes.sort();
    notes.dedup();
    Answer {
        from: from.text(),
        to: to.text(),
        protocol: proto::name(protocol).map_or_else(|| protocol.to_string(), str::to_owned),
        port,
        allowed: egress.allowed && ingress.allowed,
        egress,
        ingress,
        notes,
    }
}

fn notes_of(cluster: &Cluster, who: Who<'_>) -> Vec<String> {
    match who {
        Who::Node(_) if cluster.policies.store().specs().any(|spec| spec.host) => {
            vec!["only agents that run with --host-firewall enforce policies for nodes".to_owned()]
        }
        Who::Pod(pod) => {
            let namespace = (!pod.knows_namespace).then(|| {
                format!(
                    "Namespace/{} is not in the files: rules that select namespaces by labels know its name only",
                    pod.namespace
                )
            });
            let address = (pod.addresses.is_empty() && has_blocks(cluster)).then(|| {
                format!("{} has no address in the files: blocks of addresses do not select it", pod.text())
            });
            namespace.into_iter().chain(address).collect()
        }
        Who::Outside(net) => {
            let inside: BTreeSet<IpNet> = told_apart(cluster)
                .filter(|inner| *inner != net && net.contains(inner) && net.prefix_len() > 0)
                .collect();
            let names: Vec<String> = inside.iter().take(5).map(ToString::to_string).collect();
            let more = if inside.len() > 5 { ", …" } else { "" };
            let names = names.join(", ");
            let note = format!("rules tell parts of {net} apart, ask for them by themselves: {names}{more}");
            if inside.is_empty() { Vec::new() } else { vec![note] }
        }
        _ => Vec::new(),
    }
}

/// Whether a rule selects pods by their addresses.
fn has_blocks(cluster: &Cluster) -> bool {
    let mut specs = cluster.policies.store().specs();
    specs.any(|spec| spec.rules.iter().any(|rule| spec.blocks(rule).next().is_some()))
}

/// CIDRs in rules.
fn told_apart(cluster: &Cluster) -> impl Iterator<Item = IpNet> {
    let store = cluster.policies.store();
    let rules = store.specs().flat_map(|spec| &spec.rules);
    rules.flat_map(move |rule| {
        let selectors = store.selectors(&rule.peers);
        selectors.iter().flat_map(|selector| selector.prefixes()).collect::<Vec<_>>()
    })
}

impl Answer {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let word = if self.allowed { "allowed" } else { "denied" };
        // Writing to a string cannot fail.
        let _: std::fmt::Result = writeln!(out, "{word}: {} to {}, {}", self.from, self.to, self.where_to());
        for (direction, who, half) in
            [("egress", &self.from, &self.egress), ("ingress", &self.to, &self.ingress)]
        {
            let _: std::fmt::Result = writeln!(out, "  {direction} of {who}: {}", half.text());
            if half.verdict != Word::NoRule && !half.isolated_by.is_empty() {
                let _: std::fmt::Result = writeln!(out, "    isolated by {}", list(&half.isolated_by));
            }
            if let Some(staged) = &half.staged {
                let word = if staged == "would-allow" { "allow" } else { "not allow" };
                let _: std::fmt::Result =
                    writeln!(out, "    staged policies in force would {word} it: {}", list(&half.staged_by));
            }
        }
        for note in &self.notes {
            let _: std::fmt::Result = writeln!(out, "  note: {note}");
        }
        out
    }

    fn where_to(&self) -> String {
        if self.protocol.starts_with("ICMP") {
            format!("{} type {}", self.protocol, self.port)
        } else {
            format!("{} {}", self.protocol, self.port)
        }
    }
}

impl Half {
    fn text(&self) -> String {
        let by = |word: &str| format!("{word} by {}", list(&self.decided_by));
        match self.verdict {
            Word::Allowed if self.decided_by.is_empty() => "allowed, no policy isolates it".to_owned(),
            Word::Allowed => by("allowed"),
            Word::Denied => by("denied"),
            Word::NoRule => format!("denied, nothing allows it; isolated by {}", list(&self.isolated_by)),
            Word::NeedsProxy => by("denied, needs a proxy which is not there; asked for"),
            Word::NoPolicy => "allowed, no policy is about it".to_owned(),
            Word::NotEnforced => "allowed, policies are enforced at pods only".to_owned(),
            Word::Always => "allowed, whatever policies say".to_owned(),
        }
    }
}

fn list(causes: &[Cause]) -> String {
    let text = |cause: &Cause| {
        let rule = if cause.rule > 0 { format!(" rule {}", cause.rule) } else { String::new() };
        let entry = cause.entry.as_ref().map(|entry| format!(" {entry}")).unwrap_or_default();
        format!("{}{rule}{entry}", cause.object)
    };
    causes.iter().map(text).collect::<Vec<_>>().join(", ")
}
