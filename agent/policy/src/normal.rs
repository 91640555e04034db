//! From objects to their normal form. An object is taken whole or not at all.

mod cilium;
mod cilium_peers;
mod cilium_ports;
mod cluster;
mod kubernetes;
mod labels;

use std::net::IpAddr;
use std::sync::Arc;

use agent_crd::{
    CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, ClusterNetworkPolicy,
    NetworkPolicy, Object as _, ObjectMeta,
};
use ipnet::IpNet;

use crate::error::{InvalidPolicy, Mistakes, Problem};
use crate::finding::Finding;
use crate::label::{Label, source};
use crate::rule::{Kind, ObjectRef, Spec};
use crate::store::CidrGroup;

/// A policy object.
#[derive(Debug, Clone, Copy)]
pub enum PolicyObject<'a> {
    /// NetworkPolicy.
    Kubernetes(&'a NetworkPolicy),
    /// CiliumNetworkPolicy.
    Cilium(&'a CiliumNetworkPolicy),
    /// CiliumClusterwideNetworkPolicy.
    CiliumClusterwide(&'a CiliumClusterwideNetworkPolicy),
    /// ClusterNetworkPolicy.
    Cluster(&'a ClusterNetworkPolicy),
}

impl PolicyObject<'_> {
    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Kubernetes(object) => object.metadata(),
            Self::Cilium(object) => object.metadata(),
            Self::CiliumClusterwide(object) => object.metadata(),
            Self::Cluster(object) => object.metadata(),
        }
    }

    /// Its name.
    pub fn name(&self) -> ObjectRef {
        let kind = match self {
            Self::Kubernetes(_) => Kind::NetworkPolicy,
            Self::Cilium(_) => Kind::CiliumNetworkPolicy,
            Self::CiliumClusterwide(_) => Kind::CiliumClusterwideNetworkPolicy,
            Self::Cluster(_) => Kind::ClusterNetworkPolicy,
        };
        let metadata = self.metadata();
        ObjectRef { kind, namespace: metadata.namespace.clone(), name: metadata.name.clone() }
    }
}

/// An object in its normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normal {
    /// Its rules.
    pub specs: Vec<Spec>,
    /// What is worth knowing of it, parts that are not enforced among it.
    pub findings: Vec<Finding>,
    /// Parts of it that no agent enforces as they are written, each with its field. What they would allow does not pass.
    pub unenforced: Vec<String>,
}

/// What is needed to read an object.
struct Reader<'a> {
    object: Arc<ObjectRef>,
    cluster: &'a str,
    staged: bool,
    findings: Vec<Finding>,
    unenforced: Vec<String>,
    mistakes: Vec<InvalidPolicy>,
}

impl Reader<'_> {
    /// Keeps a mistake and goes on, so that the next ones are found too. `outer` is what holds its field.
    fn taken<T>(&mut self, read: Result<T, InvalidPolicy>, outer: &str) -> Option<T> {
        read.map_err(|mistake| self.mistakes.push(mistake.within(outer))).ok()
    }

    fn warn(&mut self, field: &str, message: &str) {
        self.findings.push(Finding::warning(&self.object, format!("{field}: {message}")));
    }

    /// As [`Self::warn`], of a part that is not enforced as it is written.
    fn not_enforced(&mut self, field: &str, message: &str) {
        self.warn(field, message);
        self.unenforced.push(format!("{field}: {message}"));
    }
}

/// Brings an object into its normal form. `cluster` is the name of the cluster.
///
/// # Errors
/// What is wrong, with the fields. The object has no effect then.
pub fn normalise(object: PolicyObject<'_>, cluster: &str) -> Result<Normal, Mistakes> {
    let staged = object.metadata().is_staged();
    let object_ref = Arc::new(object.name());
    let mut reader = Reader {
        object: object_ref,
        cluster,
        staged,
        findings: Vec::new(),
        unenforced: Vec::new(),
        mistakes: Vec::new(),
    };
    let specs = match object {
        PolicyObject::Kubernetes(policy) => reader.network_policy(policy),
        PolicyObject::Cilium(policy) => {
            let namespace = Some(policy.metadata.namespace.as_str());
            reader.cilium(policy.spec.as_ref(), &policy.specs, namespace)
        }
        PolicyObject::CiliumClusterwide(policy) => reader.cilium(policy.spec.as_ref(), &policy.specs, None),
        PolicyObject::Cluster(policy) => reader.cluster_network_policy(policy),
    };
    match specs {
        Ok(specs) if reader.mistakes.is_empty() => {
            Ok(Normal { specs, findings: reader.findings, unenforced: reader.unenforced })
        }
        read => {
            reader.mistakes.extend(read.err());
            Err(Mistakes(reader.mistakes))
        }
    }
}

/// A group of CIDRs in its normal form.
///
/// # Errors
/// When one of its CIDRs is none.
pub fn cidr_group(group: &CiliumCIDRGroup) -> Result<CidrGroup, InvalidPolicy> {
    let mut cidrs = std::collections::BTreeSet::new();
    for (at, text) in group.spec.external_cidrs.iter().enumerate() {
        cidrs.insert(cidr(text).map_err(|problem| problem.of(format!("spec.externalCIDRs[{at}]")))?);
    }
    let labels = group
        .metadata
        .labels
        .iter()
        .map(|(key, value)| Label::new(source::CIDR_GROUP, key.clone(), value.clone()))
        .collect();
    Ok(CidrGroup { labels, cidrs })
}

/// A CIDR, or an address alone.
fn cidr(text: &str) -> Result<IpNet, Problem> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map(|net| net.trunc()).map_err(|_| Problem::Cidr(text.to_owned()))
}

/// A CIDR with its length.
fn block(text: &str) -> Result<IpNet, Problem> {
    text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| Problem::Cidr(text.to_owned()))
}

/// Exceptions of a CIDR, with the name of their list.
fn exceptions(net: Option<&IpNet>, except: &[String]) -> Result<Vec<IpNet>, InvalidPolicy> {
    let read = |(at, text): (usize, &String)| {
        let inner = block(text).map_err(|problem| problem.of(format!("except[{at}]")))?;
        match net {
            Some(net) if !net.contains(&inner) => {
                Err(Problem::NotInside(text.clone(), net.to_string()).of(format!("except[{at}]")))
            }
            _ => Ok(inner),
        }
    };
    except.iter().enumerate().map(read).collect()
}

/// Place in a list. Objects are far smaller than this can say: the API takes at most 1.5 MiB.
fn place(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// A name of a port as it is compared.
fn port_name(text: &str) -> Result<String, Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let valid = !text.is_empty()
        && text.len() <= 15
        && text.chars().all(allowed)
        && text.chars().any(|c| c.is_ascii_alphabetic())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--");
    if valid { Ok(text.to_ascii_lowercase()) } else { Err(Problem::Port(text.to_owned())) }
}
