//! What is kept in the state directory: `node`, `ipam`, and `endpoint-<id>` for each endpoint, JSON with a version.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::endpoints::{EndpointId, EndpointRecord};
use super::ipam::IpamRecord;
use crate::event::NodeObject;
use crate::finding::{Finding, Severity};
use crate::ports::Document;

/// Version of the documents' form. A document of a newer one is left alone and reported.
const VERSION: u32 = 1;

/// Name of the document with the own Node object.
pub(crate) const NODE: &str = "node";
/// Name of the document of the address management.
pub(crate) const IPAM: &str = "ipam";
/// Names of the endpoints' documents begin with this.
const ENDPOINT_PREFIX: &str = "endpoint-";

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

/// Content of [`IPAM`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct IpamDocument {
    /// Endpoint id given out last.
    pub(crate) last_id: EndpointId,
    #[serde(flatten)]
    pub(crate) ipam: IpamRecord,
}

/// All documents, as far as they can be read.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) node: Option<NodeObject>,
    pub(crate) ipam: IpamDocument,
    pub(crate) endpoints: Vec<EndpointRecord>,
    pub(crate) findings: Vec<Finding>,
}

impl Restored {
    /// Reads the documents. What cannot be read becomes a finding; the rest counts.
    pub(crate) fn read(mut documents: Vec<Document>) -> Self {
        documents.sort();
        let mut restored = Self::default();
        for document in &documents {
            let result = match document.name.as_str() {
                NODE => parse(document).map(|node| restored.node = Some(node)),
                IPAM => parse(document).map(|ipam| restored.ipam = ipam),
                name if name.starts_with(ENDPOINT_PREFIX) => {
                    parse(document).map(|endpoint| restored.endpoints.push(endpoint))
                }
                _ => Ok(()),
            };
            if let Err(why) = result {
                restored.findings.push(Finding {
                    severity: Severity::Error,
                    subject: format!("state/{}", document.name),
                    message: format!(
                        "the document in the state directory cannot be read and is not used: {why}"
                    ),
                });
            }
        }
        restored
    }
}

fn parse<T: DeserializeOwned>(document: &Document) -> Result<T, String> {
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: u32,
    }
    let found: OnlyVersion = serde_json::from_slice(&document.content).map_err(|error| error.to_string())?;
    if found.version != VERSION {
        return Err(format!("it has version {}, this agent reads {VERSION}", found.version));
    }
    let versioned: Versioned<T> =
        serde_json::from_slice(&document.content).map_err(|error| error.to_string())?;
    Ok(versioned.content)
}

fn document<T: Serialize>(name: String, content: T) -> Document {
    let content = serde_json::to_vec(&Versioned { version: VERSION, content })
        .expect("these types have only string keys and no failing serializers");
    Document { name, content }
}

/// Name of an endpoint's document.
pub(crate) fn endpoint_name(id: EndpointId) -> String {
    format!("{ENDPOINT_PREFIX}{id}")
}

/// An endpoint's document.
pub(crate) fn endpoint(record: &EndpointRecord) -> Document {
    document(endpoint_name(record.id), record)
}

/// The document of the address management.
pub(crate) fn ipam(content: &IpamDocument) -> Document {
    document(IPAM.to_owned(), content)
}

/// The document with the own Node object.
pub(crate) fn node(object: &NodeObject) -> Document {
    document(NODE.to_owned(), object)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::time::Now;

    #[test]
    fn documents_read_back() {
        let node_object =
            NodeObject { name: "n".into(), pod_cidrs: vec!["10.0.1.0/24".into()], ..NodeObject::default() };
        let ipam_content = IpamDocument {
            last_id: 7,
            ipam: IpamRecord {
                last: BTreeMap::from([("10.0.1.0/24".parse().unwrap(), "10.0.1.9".parse().unwrap())]),
                quarantine: BTreeMap::from([("fd00::9".parse().unwrap(), Now::from_millis(1500))]),
            },
        };
        let record = EndpointRecord {
            id: 3,
            host_name: "lxc0".into(),
            attachment: None,
            pod: None,
            netns: String::new(),
            addresses: vec!["10.0.1.2".parse().unwrap()],
            gateways: vec!["10.0.1.1".parse().unwrap()],
            host_mac: [2; 6],
            pod_mac: [6; 6],
            ifindex: 5,
            mtu: 1450,
            ready: true,
            created: None,
            config: agent_api::EndpointConfig {
                policy_enforcement: agent_api::PolicyEnforcement::Always,
                ..agent_api::EndpointConfig::default()
            },
        };
        let documents = vec![endpoint(&record), ipam(&ipam_content), node(&node_object)];
        let restored = Restored::read(documents);
        assert_eq!(restored.findings, []);
        assert_eq!(restored.node, Some(node_object));
        assert_eq!(restored.ipam, ipam_content);
        assert_eq!(restored.endpoints, [record]);
    }

    #[test]
    fn broken_and_newer_documents_are_found() {
        let of = |name: &str, content: &str| Document { name: name.into(), content: content.into() };
        let restored = Restored::read(vec![
            of("endpoint-1", "{"),
            of("endpoint-2", r#"{"version": 2}"#),
            of("endpoint-3", r#"{"version": 1}"#),
            of("ipam", ""),
            of("of-somebody-else", "?"),
        ]);
        assert_eq!(restored.findings.len(), 4);
        assert!(restored.endpoints.is_empty());
    }
}
