//! A case to try an implementation with.

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;
use sim_oracle::{Attempt, End, Family};

/// A cluster with policies, and what to try in it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyCase {
    /// The objects, in the order in which they are set. With [`Feature::Invalid`](crate::Feature::Invalid) an object may come twice, and then the
    /// second is to be refused.
    pub objects: Vec<Value>,
    /// What to try. Each end is there and has an address of the attempt's family.
    pub attempts: Vec<Attempt>,
}

impl PolicyCase {
    /// The address of an end of a family: that of a packet that it sends or gets.
    pub fn address(&self, end: &End, family: Family) -> Option<IpAddr> {
        let (object, list, member) = match end {
            End::Outside(address) => return Some(*address).filter(|address| Family::of(*address) == family),
            End::Pod { namespace, name } => (self.object("Pod", namespace, name)?, "/status/podIPs", "ip"),
            End::Node { name } => (self.object("Node", "", name)?, "/status/addresses", "address"),
        };
        object
            .pointer(list)?
            .as_array()?
            .iter()
            .filter_map(|item| item.get(member)?.as_str()?.parse().ok())
            .find(|address| Family::of(*address) == family)
    }

    /// The addresses of a pod.
    pub fn addresses(&self, namespace: &str, name: &str) -> Vec<IpAddr> {
        let end = End::Pod { namespace: namespace.to_owned(), name: name.to_owned() };
        [Family::V4, Family::V6].into_iter().filter_map(|family| self.address(&end, family)).collect()
    }

    /// The node that an end is on; none for one outside.
    pub fn node_of<'a>(&'a self, end: &'a End) -> Option<&'a str> {
        match end {
            End::Outside(_) => None,
            End::Node { name } => Some(name),
            End::Pod { namespace, name } => {
                self.object("Pod", namespace, name)?.pointer("/spec/nodeName")?.as_str()
            }
        }
    }

    fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        let is = |object: &Value, pointer: &str, wanted: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default() == wanted
        };
        self.objects.iter().find(|object| {
            is(object, "/kind", kind)
                && is(object, "/metadata/namespace", namespace)
                && is(object, "/metadata/name", name)
        })
    }
}

impl fmt::Display for PolicyCase {
    /// The objects as YAML documents, then the attempts as comments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for object in &self.objects {
            writeln!(f, "---\n{}", serde_yaml_ng::to_string(object).map_err(|_| fmt::Error)?.trim_end())?;
        }
        self.attempts.iter().try_for_each(|attempt| writeln!(f, "# {attempt}"))
    }
}
