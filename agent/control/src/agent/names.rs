//! Words for what events of the dataplane have as numbers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane_abi::Identity;

use super::Agent;

/// Cookies that stand for other rules now: as `Kind/namespace/name ingress[0]`, and `… isolates` for a rule that isolates
/// where nothing allows. `None`: for nothing any more.
pub type RuleNames = BTreeMap<u32, Option<Arc<[String]>>>;

/// Who is behind an identity and an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartyNames {
    /// Labels of the identity as `source:key=value`; empty: it is not known.
    pub labels: Vec<String>,
    /// The pod as `namespace/name`; empty: it is none, or is not known, or has another identity by now.
    pub pod: String,
}

impl Agent {
    /// What cookies of verdicts and events stand for, as far as it has changed since the last time; while there are listeners
    /// ([`crate::Event::Listeners`]) and once the tables are this agent's own. The first answer has them all.
    ///
    /// A cookie that is told of stands for these rules from before the last [`Agent::reconcile`] on, and is told to stand for
    /// nothing only when no table holds it any more.
    pub fn take_rule_names(&mut self) -> RuleNames {
        let changes = self.state.policy.take_cookies();
        let names = |origins: Vec<agent_policy::Origin>| origins.iter().map(ToString::to_string).collect();
        changes.into_iter().map(|(cookie, origins)| (cookie, origins.map(names))).collect()
    }

    /// Who is behind an identity, and behind an address that had this identity a moment ago.
    pub fn party_names(&self, identity: Identity, address: Option<IpAddr>) -> PartyNames {
        let pod = address.and_then(|address| self.pod_at(address, identity)).unwrap_or_default();
        PartyNames { labels: self.labels(identity), pod }
    }

    fn pod_at(&self, address: IpAddr, identity: Identity) -> Option<String> {
        if let Some(endpoint) = self.state.endpoint_at(&address) {
            let record = &endpoint.record;
            let has = self.state.policy.of_endpoint(record.id).is_some_and(|now| now.identity == identity);
            return record.pod.as_ref().filter(|_| has).map(|pod| format!("{}/{}", pod.namespace, pod.name));
        }
        let object =
            self.state.policy.endpoint_at(&address).filter(|object| object.identity() == identity)?;
        Some(format!("{}/{}", object.name.namespace, object.name.name))
    }
}
