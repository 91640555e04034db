//! The nodes of the cluster, from Node objects: what is usable of each, and what is wrong with the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::claims::{AddressClaims, CidrClaims, Claimant};
use super::ipam::router_of;
use crate::event::NodeObject;
use crate::finding::{Finding, Severity};

/// Widest pod CIDR that is taken: a shorter prefix is a mistake that would swallow the world.
const SHORTEST_PREFIX_V4: u8 = 8;
/// The same for IPv6.
const SHORTEST_PREFIX_V6: u8 = 16;

/// What is usable of one Node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRecord {
    pub(crate) claimant: Claimant,
    /// In the order of the object, without repetitions.
    pub(crate) internal_ips: Vec<IpAddr>,
    /// In the order of the object, without repetitions, host bits cleared.
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// As the object has them.
    pub(crate) labels: BTreeMap<String, String>,
    /// What was wrong with the object.
    findings: Vec<Finding>,
}

impl NodeRecord {
    fn new(object: &NodeObject, own_name: &str) -> Self {
        let mut findings = Vec::new();
        let mut find = |severity, message| {
            findings.push(Finding { severity, subject: format!("node/{}", object.name), message });
        };
        let mut internal_ips = Vec::new();
        for text in &object.internal_ips {
            match parse_node_ip(text) {
                Ok(ip) if !internal_ips.contains(&ip) => internal_ips.push(ip),
                Ok(_) => {}
                Err(why) => find(Severity::Warning, format!("InternalIP `{text}` is not used: {why}")),
            }
        }
        let mut pod_cidrs = Vec::new();
        for text in &object.pod_cidrs {
            match parse_pod_cidr(text) {
                Ok(net) if pod_cidrs.contains(&net.trunc()) => {}
                Ok(net) => {
                    if net != net.trunc() {
                        find(
                            Severity::Info,
                            format!("pod CIDR `{text}` has host bits set; it is read as {}", net.trunc()),
                        );
                    }
                    pod_cidrs.push(net.trunc());
                }
                Err(why) => find(Severity::Warning, format!("pod CIDR `{text}` is not used: {why}")),
            }
        }
        let remote = object.name != own_name;
        Self {
            claimant: Claimant::new(remote, object.created_s, &object.name),
            internal_ips,
            pod_cidrs,
            labels: object.labels.clone(),
            findings,
        }
    }

    /// Its addresses on its pods' links, if it goes by the present pod CIDRs: what it sends to pods elsewhere through the tunnel comes
    /// from there.
    pub(crate) fn routers(&self) -> impl Iterator<Item = IpAddr> {
        self.pod_cidrs.iter().filter_map(router_of)
    }

    /// The first `InternalIP` of the family.
    pub(crate) fn ip(&self, v4: bool) -> Option<IpAddr> {
        self.internal_ips.iter().copied().find(|ip| ip.is_ipv4() == v4)
    }
}

fn parse_node_ip(text: &str) -> Result<IpAddr, &'static str> {
    let ip: IpAddr = text.trim().parse().map_err(|_| "it is no IP address")?;
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return Err("other nodes cannot reach such an address");
    }
    Ok(ip)
}

fn parse_pod_cidr(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.trim().parse().map_err(|_| "it is no CIDR such as 10.0.1.0/24".to_owned())?;
    let shortest = if net.addr().is_ipv4() { SHORTEST_PREFIX_V4 } else { SHORTEST_PREFIX_V6 };
    if net.prefix_len() < shortest {
        return Err(format!("a prefix shorter than /{shortest} cannot be meant"));
    }
    let ip = net.addr();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local {
        return Err("pods cannot have such addresses".to_owned());
    }
    Ok(net)
}

/// What a change of the nodes touches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Pod CIDRs whose rows or routes may differ now.
    pub(crate) cidrs: BTreeSet<IpNet>,
    /// Node addresses whose rows may differ now.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// The own node changed.
    pub(crate) own: bool,
    /// A node came, went, or is another in whatever way.
    pub(crate) any: bool,
}

impl Touched {
    fn merge(&mut self, other: Self) {
        self.cidrs.extend(other.cidrs);
        self.addresses.extend(other.addresses);
        self.own |= other.own;
        self.any |= other.any;
    }
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    own_name: String,
    records: BTreeMap<String, NodeRecord>,
    cidrs: CidrClaims,
    addresses: AddressClaims,
    /// Names seen since a list began; `None` when no list is under way.
    listing: Option<BTreeSet<String>>,
    synced: bool,
    /// Other nodes' claims are not told before the list is complete.
    others_wait: bool,
    /// The own node's record is from the state directory or its object is gone.
    own_is_remembered: bool,
}

impl Nodes {
    /// No nodes, but for what is remembered of the own one.
    pub(crate) fn new(own_name: &str, remembered: Option<&NodeObject>) -> Self {
        let mut nodes = Self {
            own_name: own_name.to_owned(),
            records: BTreeMap::new(),
            cidrs: CidrClaims::default(),
            addresses: AddressClaims::default(),
            listing: None,
            synced: false,
            others_wait: false,
            own_is_remembered: false,
        };
        if let Some(object) = remembered {
            nodes.set(own_name, Some(NodeRecord::new(object, own_name)));
            nodes.own_is_remembered = true;
        }
        nodes
    }

    /// A complete list has been seen.
    pub(crate) fn synced(&self) -> bool {
        self.synced
    }

    /// Until a complete list has been seen nobody but the own node has anything, as far as anybody can tell: while a list comes in,
    /// a claim that will not hold may be heard of before the one that does. For a node that has rows for the others to go on with.
    pub(crate) fn let_others_wait(&mut self) {
        self.others_wait = !self.synced;
    }

    /// Who has the pod CIDR.
    pub(crate) fn cidr_holder(&self, cidr: &IpNet) -> Option<&Claimant> {
        self.cidrs.holder(cidr).filter(|holder| self.may_be_told(holder))
    }

    /// Who has the pod CIDR that an address is in.
    pub(crate) fn cidr_holder_around(&self, address: &IpAddr) -> Option<&Claimant> {
        self.cidrs.around(address).filter(|holder| self.may_be_told(holder))
    }

    /// Whether a CIDR lies in a pod CIDR, or is one.
    pub(crate) fn is_pod_cidr(&self, cidr: &IpNet) -> bool {
        self.cidrs.covers(cidr)
    }

    /// Which node has the address.
    pub(crate) fn address_holder(&self, address: &IpAddr) -> Option<&Claimant> {
        self.addresses.holder(address).filter(|holder| self.may_be_told(holder))
    }

    /// Which other node has the address on its pods' links.
    pub(crate) fn router_holder(&self, address: &IpAddr) -> Option<&Claimant> {
        let holder = self.cidr_holder_around(address).filter(|holder| holder.remote)?;
        let is_router = self.get(&holder.name)?.routers().any(|router| router == *address);
        is_router.then_some(holder)
    }

    fn may_be_told(&self, holder: &Claimant) -> bool {
        !(holder.remote && self.others_wait)
    }

    /// The own node.
    pub(crate) fn own(&self) -> Option<&NodeRecord> {
        self.records.get(&self.own_name)
    }

    /// The own node as an object again: what is in force, for the state directory.
    pub(crate) fn own_object(&self) -> Option<NodeObject> {
        let own = self.own()?;
        Some(NodeObject {
            name: self.own_name.clone(),
            uid: String::new(),
            created_s: own.claimant.created_s(),
            pod_cidrs: own.pod_cidrs.iter().map(ToString::to_string).collect(),
            internal_ips: own.internal_ips.iter().map(ToString::to_string).collect(),
            labels: own.labels.clone(),
        })
    }

    /// A node by name.
    pub(crate) fn get(&self, name: &str) -> Option<&NodeRecord> {
        self.records.get(name)
    }

    /// All nodes by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &NodeRecord)> {
        self.records.iter()
    }

    /// A list begins.
    pub(crate) fn list_started(&mut self) {
        self.listing = Some(BTreeSet::new());
    }

    /// The object is like this now.
    pub(crate) fn upsert(&mut self, object: &NodeObject) -> Touched {
        if object.name.is_empty() {
            return Touched::default();
        }
        if let Some(seen) = &mut self.listing {
            seen.insert(object.name.clone());
        }
        let mut record = NodeRecord::new(object, &self.own_name);
        if object.name == self.own_name {
            self.own_is_remembered = false;
            self.keep_last_good(&mut record);
        }
        self.set(&object.name, Some(record))
    }

    /// The object is gone.
    pub(crate) fn delete(&mut self, name: &str) -> Touched {
        if let Some(seen) = &mut self.listing {
            seen.remove(name);
        }
        if name == self.own_name {
            // Pods still run here: what is known stays in force until the object comes back or the agent is stopped.
            self.own_is_remembered = true;
            return Touched::default();
        }
        self.set(name, None)
    }

    /// The list is complete: what it did not hold is gone.
    pub(crate) fn list_synced(&mut self) -> Touched {
        let mut touched = Touched::default();
        if let Some(seen) = self.listing.take() {
            let gone: Vec<String> =
                self.records.keys().filter(|name| !seen.contains(*name)).cloned().collect();
            for name in gone {
                touched.merge(self.delete(&name));
            }
            self.synced = true;
            if std::mem::take(&mut self.others_wait) {
                for record in self.records.values().filter(|record| record.claimant.remote) {
                    touched.addresses.extend(&record.internal_ips);
                    touched.cidrs.extend(&record.pod_cidrs);
                }
            }
        }
        touched
    }

    /// An own node without usable pod CIDRs or addresses, where there were some, keeps those: pods have them.
    fn keep_last_good(&self, record: &mut NodeRecord) {
        let Some(old) = self.own() else { return };
        let mut keep = |what: &str| {
            record.findings.push(Finding {
                severity: Severity::Error,
                subject: format!("node/{}", self.own_name),
                message: format!(
                    "the object of this node has no usable {what} any more; the last known ones stay in force"
                ),
            });
        };
        if record.pod_cidrs.is_empty() && !old.pod_cidrs.is_empty() {
            keep("pod CIDR");
            record.pod_cidrs.clone_from(&old.pod_cidrs);
        }
        if record.internal_ips.is_empty() && !old.internal_ips.is_empty() {
            keep("InternalIP");
            record.internal_ips.clone_from(&old.internal_ips);
        }
    }

    fn set(&mut self, name: &str, new: Option<NodeRecord>) -> Touched {
        let old = self.records.get(name);
        let mut touched = Touched::default();
        if old == new.as_ref() {
            return touched;
        }
        touched.own = name == self.own_name;
        touched.any = true;
        let old = old.cloned();
        for record in old.iter().chain(new.iter()) {
            touched.addresses.extend(&record.internal_ips);
            touched.cidrs.extend(&record.pod_cidrs);
        }
        if let Some(record) = &old {
            for cidr in &record.pod_cidrs {
                touched.cidrs.extend(self.cidrs.change(*cidr, &record.claimant, false));
            }
            for ip in &record.internal_ips {
                self.addresses.change(*ip, &record.claimant, false);
            }
        }
        if let Some(record) = &new {
            for cidr in &record.pod_cidrs {
                touched.cidrs.extend(self.cidrs.change(*cidr, &record.claimant, true));
            }
            for ip in &record.internal_ips {
                self.addresses.change(*ip, &record.claimant, true);
            }
        }
        match new {
            Some(record) => self.records.insert(name.to_owned(), record),
            None => self.records.remove(name),
        };
        touched
    }

    /// What is wrong with the objects, and with them together.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            self.records.values().flat_map(|record| record.findings.clone()).collect();
        for (cidr, claimant, against) in self.cidrs.refused() {
            let reason = against.map_or_else(
                || "it overlaps another one".to_owned(),
                |(held, holder)| format!("it overlaps {held} of node {}, which is older", holder.name),
            );
            findings.push(Finding {
                severity: Severity::Error,
                subject: format!("node/{}", claimant.name),
                message: format!("pod CIDR {cidr} is not used: {reason}"),
            });
        }
        for (address, claimant, holder) in self.addresses.refused() {
            findings.push(Finding {
                severity: Severity::Warning,
                subject: format!("node/{}", claimant.name),
                message: format!("InternalIP {address} is also one of node {}", holder.name),
            });
        }
        if self.synced && self.own_is_remembered {
            findings.push(Finding {
                severity: Severity::Error,
                subject: format!("node/{}", self.own_name),
                message:
                    "the Node object of this node does not exist; what was last known of it stays in force"
                        .to_owned(),
            });
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, created_s: u64, cidrs: &[&str], ips: &[&str]) -> NodeObject {
        NodeObject {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            created_s,
            pod_cidrs: cidrs.iter().map(ToString::to_string).collect(),
            internal_ips: ips.iter().map(ToString::to_string).collect(),
            ..NodeObject::default()
        }
    }

    #[test]
    fn bad_input_is_found_not_refused() {
        let bad = object(
            "a",
            1,
            &[
                "10.0.1.7/24",
                "10.0.1.0/24",
                "0.0.0.0/0",
                "10.0.0.0/7",
                "nonsense",
                "fe80::/64",
                "::/0",
                "fd00::/64",
                "224.0.0.0/8",
            ],
            &["1.2.3", "127.0.0.1", "172.30.0.1", "::ffff:172.30.0.1", "fd00::9"],
        );
        let record = NodeRecord::new(&bad, "own");
        assert_eq!(record.pod_cidrs, ["10.0.1.0/24".parse().unwrap(), "fd00::/64".parse::<IpNet>().unwrap()]);
        assert_eq!(
            record.internal_ips,
            ["172.30.0.1".parse().unwrap(), "fd00::9".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(record.findings.len(), 9);
    }

    #[test]
    fn only_a_complete_list_removes() {
        let mut nodes = Nodes::new("own", None);
        nodes.list_started();
        nodes.upsert(&object("a", 1, &["10.0.1.0/24"], &["172.30.0.1"]));
        nodes.upsert(&object("b", 1, &["10.0.2.0/24"], &["172.30.0.2"]));
        assert!(!nodes.synced());
        nodes.list_synced();
        assert!(nodes.synced());
        // A list that is cut short, then one that is whole.
        nodes.list_started();
        nodes.upsert(&object("a", 1, &["10.0.1.0/24"], &["172.30.0.1"]));
        nodes.list_started();
        assert!(nodes.get("b").is_some());
        nodes.upsert(&object("a", 1, &["10.0.1.0/24"], &["172.30.0.1"]));
        let touched = nodes.list_synced();
        assert!(nodes.get("b").is_none());
        assert_eq!(touched.cidrs, BTreeSet::from(["10.0.2.0/24".parse().unwrap()]));
    }

    #[test]
    fn others_that_wait_are_told_all_at_once() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let mut nodes = Nodes::new("own", None);
        nodes.let_others_wait();
        nodes.list_started();
        nodes.upsert(&object("own", 9, &["10.0.1.0/24"], &["172.30.0.1"]));
        nodes.upsert(&object("young", 2, &["10.0.2.0/24"], &["172.30.0.2"]));
        assert!(nodes.cidr_holder(&net("10.0.1.0/24")).is_some_and(|holder| !holder.remote));
        assert_eq!(nodes.cidr_holder(&net("10.0.2.0/24")), None);
        assert_eq!(nodes.address_holder(&"172.30.0.2".parse().unwrap()), None);
        nodes.upsert(&object("old", 1, &["10.0.0.0/16"], &["172.30.0.2"]));
        let touched = nodes.list_synced();
        assert_eq!(touched.cidrs, BTreeSet::from([net("10.0.0.0/16"), net("10.0.2.0/24")]));
        assert_eq!(touched.addresses.len(), 1);
        assert_eq!(nodes.address_holder(&"172.30.0.2".parse().unwrap()).unwrap().name, "old");
        nodes.let_others_wait();
        assert!(nodes.address_holder(&"172.30.0.2".parse().unwrap()).is_some(), "all is known already");
    }

    #[test]
    fn the_own_node_keeps_what_it_had() {
        let mut nodes = Nodes::new("own", None);
        nodes.upsert(&object("own", 1, &["10.0.1.0/24"], &["172.30.0.1"]));
        nodes.upsert(&object("own", 1, &["broken"], &[]));
        assert_eq!(nodes.own().unwrap().pod_cidrs.len(), 1);
        assert_eq!(nodes.own().unwrap().internal_ips.len(), 1);
        assert!(nodes.findings().iter().any(|finding| finding.message.contains("stay in force")));
        nodes.delete("own");
        nodes.list_started();
        nodes.list_synced();
        assert!(nodes.own().is_some());
        assert!(nodes.findings().iter().any(|finding| finding.message.contains("does not exist")));
    }
}
