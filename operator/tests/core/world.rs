//! A cluster's objects, and an operator that acts on them.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_crd::cilium_network_policy::PolicyStatus;
use agent_crd::{CiliumIdentity, IdentityLabels, NodePolicyStatus};
use bristle_operator::core::{
    Action, Command, Config, Endpoint, Event, Key, Kind, Namespace, Operator, Outcome, Pod, Policy, Seen,
};

/// What the API server has, and the operator that is led by it.
pub(crate) struct World {
    pub(crate) operator: Operator,
    pub(crate) now: Duration,
    pub(crate) pods: BTreeMap<(String, String), Pod>,
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    pub(crate) identities: BTreeMap<String, CiliumIdentity>,
    pub(crate) endpoints: BTreeMap<(String, String), Endpoint>,
    pub(crate) policies: BTreeMap<(Kind, String, String), Policy>,
    pub(crate) statuses: BTreeMap<String, NodePolicyStatus>,
    /// Commands that will fail before they are done.
    pub(crate) fail_before: usize,
    /// Commands that will be done although they seem to fail.
    pub(crate) fail_after: usize,
    revision: u64,
}

pub(crate) fn pod(namespace: &str, name: &str, app: &str) -> Pod {
    Pod {
        namespace: namespace.into(),
        name: name.into(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        service_account: "default".into(),
        ..Pod::default()
    }
}

pub(crate) fn namespace(name: &str, team: &str) -> Namespace {
    Namespace { name: name.into(), labels: [("team".to_owned(), team.to_owned())].into() }
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            operator: Operator::new(Config::default()),
            now: Duration::from_secs(1),
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            identities: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            policies: BTreeMap::new(),
            statuses: BTreeMap::new(),
            fail_before: 0,
            fail_after: 0,
            revision: 0,
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.operator.handle(self.now, event);
    }

    /// A new operator in the place of the old one, which forgets everything.
    pub(crate) fn restart(&mut self) {
        self.operator = Operator::new(Config::default());
        self.event(Event::Leading(true));
    }

    pub(crate) fn add_pod(&mut self, pod: Pod) {
        self.pods.insert((pod.namespace.clone(), pod.name.clone()), pod.clone());
        self.event(Event::Upsert(Seen::Pod(pod)));
    }

    pub(crate) fn delete_pod(&mut self, namespace: &str, name: &str) {
        self.pods.remove(&(namespace.into(), name.into()));
        self.event(Event::Deleted(Key { kind: Kind::Pod, namespace: namespace.into(), name: name.into() }));
    }

    pub(crate) fn add_namespace(&mut self, namespace: Namespace) {
        self.namespaces.insert(namespace.name.clone(), namespace.clone());
        self.event(Event::Upsert(Seen::Namespace(namespace)));
    }

    pub(crate) fn add_endpoint(&mut self, namespace: &str, name: &str, identity: Option<u32>) {
        let endpoint = Endpoint { namespace: namespace.into(), name: name.into(), identity };
        self.endpoints.insert((namespace.into(), name.into()), endpoint.clone());
        self.event(Event::Upsert(Seen::Endpoint(endpoint)));
    }

    pub(crate) fn add_policy(&mut self, mut policy: Policy) {
        self.revision += 1;
        policy.metadata.resource_version = self.revision.to_string();
        let place = (policy.kind, policy.metadata.namespace.clone(), policy.metadata.name.clone());
        self.policies.insert(place, policy.clone());
        self.event(Event::Upsert(Seen::Policy(policy)));
    }

    /// The version of the newest object.
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// An agent says something of the policies on its node.
    pub(crate) fn says(&mut self, status: NodePolicyStatus) {
        self.statuses.insert(status.metadata.name.clone(), status.clone());
        self.event(Event::Upsert(Seen::NodeStatus(status)));
    }

    /// An identity that somebody else makes.
    pub(crate) fn foreign_identity(&mut self, number: u32, labels: &IdentityLabels) -> CiliumIdentity {
        let mut identity = CiliumIdentity::new(number, labels);
        self.stamp(&mut identity);
        self.identities.insert(identity.metadata.name.clone(), identity.clone());
        identity
    }

    fn stamp(&mut self, identity: &mut CiliumIdentity) {
        self.revision += 1;
        identity.metadata.uid = format!("uid-{}", self.revision);
        identity.metadata.resource_version = self.revision.to_string();
    }

    /// A complete list of one kind.
    pub(crate) fn list(&mut self, kind: Kind) {
        self.event(Event::ListStarted(kind));
        self.list_content(kind);
        self.event(Event::ListSynced(kind));
    }

    pub(crate) fn list_content(&mut self, kind: Kind) {
        let seen: Vec<Seen> = match kind {
            Kind::Pod => self.pods.values().cloned().map(Seen::Pod).collect(),
            Kind::Namespace => self.namespaces.values().cloned().map(Seen::Namespace).collect(),
            Kind::Identity => self.identities.values().cloned().map(Seen::Identity).collect(),
            Kind::Endpoint => self.endpoints.values().cloned().map(Seen::Endpoint).collect(),
            Kind::NamespacedPolicy | Kind::ClusterwidePolicy | Kind::ClusterPolicy => {
                self.policies.values().filter(|p| p.kind == kind).cloned().map(Seen::Policy).collect()
            }
            Kind::NodeStatus => self.statuses.values().cloned().map(Seen::NodeStatus).collect(),
        };
        seen.into_iter().for_each(|seen| self.event(Event::Upsert(seen)));
    }

    pub(crate) fn list_all(&mut self) {
        Kind::ALL.into_iter().for_each(|kind| self.list(kind));
    }

    /// Carries out one round of commands; the number of them.
    pub(crate) fn act(&mut self) -> usize {
        let commands = self.operator.commands(self.now);
        let count = commands.len();
        for command in commands {
            self.carry_out(command);
        }
        self.assert_one_number_each();
        count
    }

    fn carry_out(&mut self, command: Command) {
        let id = command.id;
        if self.fail_before > 0 {
            self.fail_before -= 1;
            self.event(Event::Outcome { id, outcome: Outcome::Failed("injected".into()) });
            return;
        }
        let (outcome, news) = self.done(command.action);
        let outcome = if self.fail_after > 0 {
            self.fail_after -= 1;
            Outcome::Failed("injected after".into())
        } else {
            outcome
        };
        self.event(Event::Outcome { id, outcome });
        // The watch tells of it too.
        if let Some(news) = news {
            self.event(news);
        }
    }

    fn done(&mut self, action: Action) -> (Outcome, Option<Event>) {
        match action {
            Action::CreateIdentity(mut identity) => {
                let name = identity.metadata.name.clone();
                if let Some(there) = self.identities.get(&name) {
                    return (Outcome::Exists(there.clone()), None);
                }
                self.stamp(&mut identity);
                self.identities.insert(name, identity.clone());
                (Outcome::Created(identity.clone()), Some(Event::Upsert(Seen::Identity(identity))))
            }
            Action::DeleteIdentity { name, uid, resource_version } => match self.identities.get(&name) {
                None => (Outcome::Gone, None),
                Some(there)
                    if there.metadata.uid != uid || there.metadata.resource_version != resource_version =>
                {
                    (Outcome::Failed("conflict".into()), None)
                }
                Some(_) => {
                    self.identities.remove(&name);
                    let key = Key { kind: Kind::Identity, namespace: String::new(), name };
                    (Outcome::Done, Some(Event::Deleted(key)))
                }
            },
            Action::WriteConditions { key, resource_version, conditions } => {
                let place = (key.kind, key.namespace, key.name);
                let Some(policy) = self.policies.get_mut(&place) else { return (Outcome::Gone, None) };
                if policy.metadata.resource_version != resource_version {
                    return (Outcome::Failed("conflict".into()), None);
                }
                self.revision += 1;
                policy.metadata.resource_version = self.revision.to_string();
                policy.status = PolicyStatus { conditions, ..policy.status.clone() };
                (Outcome::Done, Some(Event::Upsert(Seen::Policy(policy.clone()))))
            }
        }
    }

    /// Acts until there is nothing to do, however often something fails.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            if self.act() == 0 && self.operator.is_settled() {
                return;
            }
            self.now += Duration::from_secs(1);
        }
        panic!("it does not settle: {:?}", self.operator.figures());
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        while self.act() > 0 {}
        self.now += time;
        self.event(Event::Tick);
        while self.act() > 0 {}
    }

    /// Labels and numbers of all identities.
    pub(crate) fn by_labels(&self) -> BTreeMap<Vec<String>, u32> {
        let all = self.identities.values();
        all.map(|identity| (identity.labels().to_list(), identity.number().expect("a number"))).collect()
    }

    pub(crate) fn number_of(&self, label: &str) -> Option<u32> {
        let mut all = self.by_labels().into_iter();
        all.find(|(labels, _)| labels.iter().any(|one| one == label)).map(|(_, number)| number)
    }

    fn assert_one_number_each(&self) {
        assert_eq!(self.by_labels().len(), self.identities.len(), "two numbers for one set of labels");
    }
}
