//! cilium.io/v2 CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.

pub(crate) mod entry;
pub(crate) mod group;
mod layer7;
pub(crate) mod peer;
pub(crate) mod port;
pub(crate) mod selector;

use crate::error::OracleError;
use crate::field::Field;
use crate::objects::cilium::entry::Entry;
use crate::objects::cilium::selector::LabelSelector;
use crate::verdict::Direction;

/// A policy of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CiliumPolicy {
    /// Whether it is only staged.
    pub(crate) staged: bool,
    /// `spec` if it is there, then `specs`.
    pub(crate) specs: Vec<Spec>,
}

/// What a policy says about some ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) subject: Subject,
    ingress: Rules,
    egress: Rules,
}

/// The ends that a spec is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Pods.
    Endpoints(LabelSelector),
    /// Nodes: a host policy.
    Nodes(LabelSelector),
}

/// The rules of a spec for one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// What they allow.
    pub(crate) allow: Vec<Entry>,
    /// What they deny.
    pub(crate) deny: Vec<Entry>,
    /// Whether they put the subject into default deny.
    pub(crate) isolates: bool,
}

/// What the reading of a part depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The namespace of the policy; none for kinds of the cluster.
    pub(crate) namespace: Option<&'a str>,
    /// Whether it is about nodes.
    pub(crate) is_host_policy: bool,
    /// Whether it is about pods that have no identity by labels yet.
    pub(crate) selects_init: bool,
    pub(crate) direction: Direction,
    /// Whether it is read from a list of what is denied.
    pub(crate) denies: bool,
}

impl CiliumPolicy {
    /// `namespace` is none for a policy of the cluster. With an error in one spec nothing of the policy is taken.
    pub(crate) fn read(object: &Field<'_>, namespace: Option<&str>) -> Result<Self, OracleError> {
        let spec = object.at("spec")?;
        let list = object.at("specs")?;
        let mut specs = Vec::new();
        if let Some(spec) = spec.clone().present() {
            specs.push(self::spec(&spec, namespace)?);
        }
        for spec in list.items()? {
            specs.push(self::spec(&spec, namespace)?);
        }
        if specs.is_empty() {
            return Err(spec.wrong("must be set, or specs"));
        }
        Ok(Self { staged: crate::objects::is_staged(object)?, specs })
    }
}

impl Spec {
    /// The rules for a direction.
    pub(crate) fn rules(&self, direction: Direction) -> &Rules {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

fn spec(spec: &Field<'_>, namespace: Option<&str>) -> Result<Spec, OracleError> {
    let endpoints = spec.at("endpointSelector")?;
    let nodes = spec.at("nodeSelector")?;
    let subject = match (endpoints.is_present(), nodes.is_present()) {
        (true, false) => Subject::Endpoints(selector::of_subject(&endpoints, namespace)?),
        (false, true) if namespace.is_some() => {
            return Err(nodes.wrong("only policies of the cluster may have it"));
        }
        (false, true) => Subject::Nodes(selector::plain(&nodes)?),
        (true, true) => return Err(nodes.wrong("must not stand beside endpointSelector")),
        (false, false) => return Err(endpoints.wrong("must be set, or nodeSelector")),
    };
    let context = Context {
        namespace,
        is_host_policy: matches!(subject, Subject::Nodes(_)),
        selects_init: matches!(&subject, Subject::Endpoints(selector) if selector.names_reserved("init")),
        direction: Direction::Ingress,
        denies: false,
    };
    let ingress = rules(spec, "ingress", "ingressDeny", context)?;
    let egress = rules(spec, "egress", "egressDeny", Context { direction: Direction::Egress, ..context })?;
    if [&ingress, &egress].iter().all(|rules| rules.allow.is_empty() && rules.deny.is_empty()) {
        return Err(spec.wrong("must have a rule in ingress, ingressDeny, egress or egressDeny"));
    }
    Ok(Spec { subject, ingress, egress })
}

/// A spec isolates in the directions that it has rules for, unless `enableDefaultDeny` says otherwise.
fn rules(spec: &Field<'_>, allow: &str, deny: &str, context: Context<'_>) -> Result<Rules, OracleError> {
    let entries = |list: &str, denies: bool| -> Result<Vec<Entry>, OracleError> {
        spec.at(list)?.items()?.iter().map(|item| Entry::read(item, Context { denies, ..context })).collect()
    };
    let isolates = spec.at("enableDefaultDeny")?.at(allow)?.flag()?;
    let (allow, deny) = (entries(allow, false)?, entries(deny, true)?);
    let isolates = isolates.unwrap_or(!allow.is_empty() || !deny.is_empty());
    Ok(Rules { allow, deny, isolates })
}
