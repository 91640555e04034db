//! Views of identities and policies for the local API.

use std::net::IpAddr;

use agent_api::policy::{
    Explanation, Identity as IdentityView, Party as PartyView, Policy as PolicyView, Side, Staged,
};
use agent_policy::{Direction, Enforcement, LabelSet, NamedPort, Outcome, Party, Store, explain_side};
use dataplane_abi::Identity;
use ipnet::IpNet;

use super::Agent;
use crate::objects::ObjectName;
use crate::state::endpoints::EndpointId;

/// Who an end of a connection is.
struct Found {
    name: String,
    identity: Identity,
    party: Party,
    /// Its addresses, if it is a pod; only one if it was asked for by that.
    addresses: Vec<IpAddr>,
    /// It is a pod, so that policies are for it.
    is_pod: bool,
    /// It is of this node.
    is_local: bool,
    /// When it is isolated, if that is not as for its node. Of pods elsewhere that is not known.
    enforcement: Option<Enforcement>,
    /// Whether what policies deny passes there, if that is not as for its node. Of pods elsewhere that is not known either.
    audit: Option<bool>,
    /// It is this node itself, and policies are for it.
    is_host: bool,
}

impl Agent {
    /// Identities by number: those of the cluster, of CIDRs that policies tell apart, and reserved ones.
    pub fn identities(&self) -> Vec<IdentityView> {
        if self.state.policy.engine().is_none() {
            return Vec::new();
        }
        let reserved = (1..=u32::from(u8::MAX)).filter(|number| Identity(*number).reserved_name().is_some());
        let cidrs = self.state.policy.cidrs().values().map(|identity| identity.0);
        let mut numbers: Vec<u32> =
            reserved.chain(self.state.policy.identity_numbers()).chain(cidrs).collect();
        numbers.sort_unstable();
        let view = |number: u32| IdentityView {
            id: number,
            name: Identity(number).reserved_name().unwrap_or_default().to_owned(),
            labels: self.labels(Identity(number)),
            endpoints: self.endpoints_with(Identity(number)),
        };
        numbers.into_iter().map(view).collect()
    }

    fn endpoints_with(&self, identity: Identity) -> Vec<EndpointId> {
        let has = |id: &EndpointId| {
            self.state.policy.of_endpoint(*id).is_some_and(|in_force| in_force.identity == identity)
        };
        self.state.endpoints.iter().map(|endpoint| endpoint.record.id).filter(has).collect()
    }

    pub(super) fn labels(&self, identity: Identity) -> Vec<String> {
        let labels = self.state.policy.engine().and_then(|engine| engine.labels(identity));
        labels.into_iter().flat_map(LabelSet::iter).map(ToString::to_string).collect()
    }

    /// Policies by kind, namespace and name, with the endpoints of this node that they select and what is wrong with them.
    pub fn policies(&self) -> Vec<PolicyView> {
        let Some(engine) = self.state.policy.engine() else { return Vec::new() };
        let findings = self.state.policy.findings();
        let view = |object: &agent_policy::ObjectRef| {
            let subject = object.to_string();
            PolicyView {
                kind: object.kind.name().to_owned(),
                namespace: object.namespace.clone(),
                name: object.name.clone(),
                endpoints: engine
                    .selected_by(object)
                    .into_iter()
                    .filter_map(|id| EndpointId::try_from(id.0).ok())
                    .collect(),
                staged: engine.store().is_staged(object).then(|| {
                    let would = self.staged.of(object);
                    Staged { would_allow: would.allow, would_deny: would.deny }
                }),
                findings: findings
                    .iter()
                    .filter(|finding| finding.subject == subject)
                    .map(|finding| finding.message.clone())
                    .collect(),
            }
        };
        engine.store().objects().map(view).collect()
    }

    /// Why a connection from one end to the other passes or does not, by the policies that this agent knows.
    ///
    /// An end is a pod (`namespace/name`, or the name alone in `default`) or an address.
    ///
    /// # Errors
    /// When policy is off or not known yet, or an end cannot be found; in one sentence.
    pub fn explain_policy(&self, from: &str, to: &str, proto: u8, port: u16) -> Result<Explanation, String> {
        self.explain_with(self.rules()?, from, to, proto, port)
    }

    /// The rules of all policies.
    pub(super) fn rules(&self) -> Result<&Store, String> {
        let engine = self.state.policy.engine();
        let unknown = || "policy is off, or has not been read yet; see `bristle status`".to_owned();
        engine.map(agent_policy::Policy::store).ok_or_else(unknown)
    }

    /// As [`Self::explain_policy`], by these rules.
    pub(super) fn explain_with(
        &self,
        rules: &Store,
        from: &str,
        to: &str,
        proto: u8,
        port: u16,
    ) -> Result<Explanation, String> {
        let (mut from, mut to) = (self.find(from)?, self.find(to)?);
        meet(&mut from, &mut to);
        if from.identity == Identity::HOST && !to.is_local {
            // To pods elsewhere this node is one of the others.
            from.identity = Identity::REMOTE_NODE;
            from.party.labels = self.labels_of_own_node(false);
        }
        let modes = self.config.policy.as_ref().map(|policy| &policy.engine);
        let enforcement = modes.map(|modes| modes.enforcement);
        let audit = modes.is_some_and(|modes| modes.audit);
        let side = |own: &Found, direction, peer: &Found| {
            // A node reaches its own pods whatever policies say, and every pod itself.
            let always =
                peer.identity == Identity::HOST && direction == Direction::Ingress || own.name == peer.name;
            let judged = own.is_pod || own.is_host;
            if !judged || always || own.enforcement.or(enforcement) == Some(Enforcement::Never) {
                return None;
            }
            let host = || Party { labels: self.state.host_labels(), host: true, ..Party::default() };
            let party = if own.is_host { host() } else { own.party.clone() };
            let side = explain_side(rules, &party, direction, &peer.party, proto, port);
            let texts = |origins: &[agent_policy::Origin]| origins.iter().map(ToString::to_string).collect();
            let spared = own.is_host && direction == Direction::Egress && self.state.policy.host.is_spared();
            Some(Side {
                judged: side.judged,
                passes: side.outcome.passes(),
                audited: spared || own.audit.unwrap_or(audit),
                outcome: outcome(side.judged, side.outcome).to_owned(),
                decided_by: texts(&side.decided_by),
                isolated_by: texts(&side.isolated_by),
                staged: match side.staged {
                    agent_policy::Staged::Nothing => String::new(),
                    agent_policy::Staged::WouldAllow => "would allow".to_owned(),
                    agent_policy::Staged::WouldDeny => "would deny".to_owned(),
                },
                staged_by: texts(&side.staged_by),
            })
        };
        let (egress, ingress) = (side(&from, Direction::Egress, &to), side(&to, Direction::Ingress, &from));
        let passes = egress.iter().chain(&ingress).all(|side| side.passes || side.audited);
        let view = |found: Found| PartyView {
            labels: self.labels(found.identity),
            name: found.name,
            identity: found.identity.0,
        };
        Ok(Explanation { from: view(from), to: view(to), passes, egress, ingress })
    }

    fn find(&self, text: &str) -> Result<Found, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return self.find_address(address);
        }
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        let pod = ObjectName::new(namespace, name);
        let own = self.state.policy.endpoints_of(&pod).next();
        if let Some(found) = own.and_then(|id| self.own_party(id)) {
            return Ok(found);
        }
        let remote = self.state.policy.endpoint_named(&pod);
        remote.map(|object| self.remote_party(object)).ok_or_else(|| {
            format!("there is no pod {namespace}/{name} with an identity; give namespace/name or an address")
        })
    }

    fn find_address(&self, address: IpAddr) -> Result<Found, String> {
        if let Some(endpoint) = self.state.endpoint_at(&address)
            && let Some(found) = self.own_party(endpoint.record.id)
        {
            return Ok(Found { addresses: vec![address], ..found });
        }
        if let Some(object) = self.state.policy.endpoint_at(&address) {
            return Ok(Found { addresses: vec![address], ..self.remote_party(object) });
        }
        let rows = self.outside.ipcache.all_wanted();
        let row = rows
            .filter(|(prefix, _)| prefix.contains(&address))
            .max_by_key(|(prefix, _)| prefix.prefix_len());
        let identity = row
            .map(|(_, entry)| entry.identity)
            .ok_or_else(|| format!("{address} is of an address family that this node does not use"))?;
        let is_host = identity == Identity::HOST;
        let is_node = is_host || identity.is_remote_node();
        let holder = self.state.nodes.address_holder(&address).filter(|_| is_node && !is_host);
        let node = holder.and_then(|holder| self.state.nodes.get(&holder.name));
        let labels = match node {
            // By its own labels, whether rules in force tell nodes apart or not.
            Some(node) => self.state.policy.facts_of_node(node).peer_labels(false),
            None if is_host => self.labels_of_own_node(true),
            None => self.label_set(identity),
        };
        Ok(Found {
            name: address.to_string(),
            identity,
            party: Party { labels, address: (!is_node).then(|| IpNet::from(address)), ..Party::default() },
            addresses: Vec::new(),
            is_pod: false,
            is_local: is_host,
            is_host: is_host && self.state.policy.host.enabled(),
            enforcement: None,
            audit: None,
        })
    }

    fn label_set(&self, identity: Identity) -> LabelSet {
        let engine = self.state.policy.engine();
        engine.and_then(|engine| engine.labels(identity)).cloned().unwrap_or_default()
    }

    /// Labels by which this node is selected, by itself (`own`) or by others.
    fn labels_of_own_node(&self, own: bool) -> LabelSet {
        let record = self.state.nodes.own();
        record.map(|record| self.state.policy.facts_of_node(record).peer_labels(own)).unwrap_or_default()
    }

    fn own_party(&self, id: EndpointId) -> Option<Found> {
        let record = &self.state.endpoints.get(id)?.record;
        let in_force = self.state.policy.of_endpoint(id)?;
        let ports = self.state.policy.pod(id).map(|pod| pod.named_ports.clone()).unwrap_or_default();
        let enforcement = self.state.policy.enforcement_of(id);
        let audit = self.state.policy.audit_of(id);
        let found = self.pod_party(record.display_name(), in_force.identity, ports, enforcement);
        Some(Found { is_local: true, audit, addresses: record.addresses.clone(), ..found })
    }

    fn remote_party(&self, object: &crate::objects::EndpointObject) -> Found {
        let name = format!("{}/{}", object.name.namespace, object.name.name);
        let found = self.pod_party(name, object.identity(), object.named_ports.to_vec(), None);
        Found { addresses: object.addresses.to_vec(), ..found }
    }

    fn pod_party(
        &self,
        name: String,
        identity: Identity,
        named_ports: Vec<NamedPort>,
        enforcement: Option<Enforcement>,
    ) -> Found {
        let config = self.config.policy.as_ref().map(|policy| &policy.engine);
        let closed =
            config.is_some_and(|config| config.isolates(enforcement.unwrap_or(config.enforcement), identity));
        let labels = self.label_set(identity);
        Found {
            name,
            identity,
            party: Party { labels, named_ports, closed, ..Party::default() },
            addresses: Vec::new(),
            is_pod: true,
            is_local: false,
            is_host: false,
            enforcement,
            audit: None,
        }
    }
}

/// Gives both ends the addresses between which the connection is: of one family, IPv4 if there is a choice.
fn meet(from: &mut Found, to: &mut Found) {
    let speaks = |end: &Found, v4| match end.party.address {
        Some(address) => address.addr().is_ipv4() == v4,
        None => end.addresses.is_empty() || end.addresses.iter().any(|address| address.is_ipv4() == v4),
    };
    let v4 = speaks(from, true) && speaks(to, true);
    for end in [from, to] {
        end.party.pod_address = end.addresses.iter().find(|address| address.is_ipv4() == v4).copied();
    }
}

const fn outcome(judged: bool, outcome: Outcome) -> &'static str {
    match outcome {
        _ if !judged => "no policy",
        Outcome::Allow => "allowed",
        Outcome::Deny => "denied",
        Outcome::NoRule => "nothing allows it",
        Outcome::Redirect => "needs a proxy, which is not there",
    }
}
