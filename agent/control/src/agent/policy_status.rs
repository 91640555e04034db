//! What the cluster is told of the policies on this node.

use agent_crd::node_policy_status::{PolicyException, StagedPolicy};
use agent_crd::{NodePolicyStatus, ObjectMeta};
use agent_policy::Enforcement;

use super::Agent;
use crate::finding::{Finding, Severity};

/// Characters of a message at most; what is cut off the node's own view has.
const MESSAGE: usize = 300;

impl Agent {
    /// Which policies are in force here, by what is not: a function of what is in force now, and of the staged counts.
    /// `None` before all that policy rests on is known, and with policy off.
    ///
    /// It looks at every policy; ask for it when [`Agent::policy_news`] is another, and not more often than the cluster wants to hear.
    pub fn policy_status(&self) -> Option<NodePolicyStatus> {
        self.state.policy.engine().filter(|_| self.state.policy.has_settled())?;
        let findings = self.state.policy.findings();
        let mut exceptions: Vec<PolicyException> = findings.iter().filter_map(exception).collect();
        exceptions.sort();
        // One line for each object: further ones are in the node's own view.
        exceptions.dedup_by(|a, b| (&a.kind, &a.namespace, &a.name) == (&b.kind, &b.namespace, &b.name));
        let not_enforced = u32::try_from(exceptions.len()).unwrap_or(u32::MAX);
        exceptions.truncate(NodePolicyStatus::MOST);
        let staged = self.staged_policies().into_iter().filter(|one| one.would_allow + one.would_deny > 0);
        let in_the_way = || {
            let rows = |(what, _): &(String, _)| {
                ["POLICY", "IPCACHE", "ENDPOINTS"].iter().any(|table| what.starts_with(table))
            };
            self.failures().into_iter().find(rows).map(|(_, error)| error.to_string())
        };
        let mode = self.config.policy.as_ref().map(|policy| &policy.engine);
        Some(NodePolicyStatus {
            metadata: ObjectMeta::named(&self.config.node_name),
            revisions: self
                .policy_revisions()
                .iter()
                .map(|(kind, version)| (kind.name().to_owned(), *version))
                .collect(),
            not_enforced,
            exceptions,
            staged: staged.take(NodePolicyStatus::MOST).collect(),
            enforcement: match mode.map(|mode| mode.enforcement) {
                None | Some(Enforcement::Default) => String::new(),
                Some(Enforcement::Always) => "always".to_owned(),
                Some(Enforcement::Never) => "never".to_owned(),
            },
            audit: mode.is_some_and(|mode| mode.audit),
            problem: in_the_way().map(|text| cut(&text)).unwrap_or_default(),
        })
    }

    /// Staged policies, and what they would have decided otherwise on this node.
    pub fn staged_policies(&self) -> Vec<StagedPolicy> {
        let objects = self.state.policy.engine().into_iter().flat_map(|engine| engine.store().staged());
        let counts = objects.map(|object| {
            let would = self.staged.of(object);
            StagedPolicy {
                kind: object.kind.name().to_owned(),
                namespace: object.namespace.clone(),
                name: object.name.clone(),
                would_allow: would.allow,
                would_deny: would.deny,
            }
        });
        counts.collect()
    }

    /// Another number than before: [`Agent::policy_status`] may say something else that matters to somebody. That only revisions
    /// have risen, because of what was written into the status of policies, is no news.
    pub fn policy_news(&self) -> u64 {
        self.state.policy.news()
    }
}

/// A finding about a policy that is not enforced as it is written.
fn exception(finding: &Finding) -> Option<PolicyException> {
    let mut parts = finding.subject.split('/');
    let kind = parts.next().filter(|kind| kind.ends_with("NetworkPolicy") || *kind == "CiliumCIDRGroup")?;
    let (namespace, name) = match (parts.next()?, parts.next()) {
        (namespace, Some(name)) => (namespace, name),
        (name, None) => ("", name),
    };
    (finding.severity == Severity::Error).then(|| PolicyException {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        message: cut(&finding.message),
    })
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MESSAGE) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
