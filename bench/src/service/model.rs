//! The services of a contender: as many as asked for, of which the last is called.

use std::net::{Ipv4Addr, SocketAddrV4};

/// How many services there are, and what contenders with so many are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Number of services.
    pub services: u32,
    /// Pods of a lab.
    pub ours: &'static str,
    /// Rules of kube-proxy's nftables mode.
    pub nftables: &'static str,
    /// Rules of its iptables mode.
    pub iptables: &'static str,
}

/// All sizes, small ones first.
pub const SIZES: [Size; 3] = [
    Size { services: 1, ours: "bristle-1", nftables: "nftables-1", iptables: "iptables-1" },
    Size { services: 1_000, ours: "bristle-1000", nftables: "nftables-1000", iptables: "iptables-1000" },
    Size { services: 10_000, ours: "bristle-10000", nftables: "nftables-10000", iptables: "iptables-10000" },
];

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = SIZES.into_iter().find(|size| size.services.to_string() == text);
        wanted.ok_or_else(|| "give 1, 1000 or 10000".to_owned())
    }
}

/// Endpoints of a service that is there for its number alone.
const ENDPOINTS: u16 = 2;
/// Port of every service.
pub const PORT: u16 = 5000;
/// Port at every node of the last service, where it is called from outside.
pub const NODE_PORT: u16 = 30_500;

/// A service with one TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its cluster IP.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// Its port at every node, if it has one.
    pub node_port: Option<u16>,
    /// Where its connections go.
    pub endpoints: Vec<SocketAddrV4>,
}

impl Service {
    /// As rule sets name it: namespace, name and port.
    pub fn title(&self) -> String {
        format!("bench/{}:http", self.name)
    }

    /// Eight or more characters that no other service has, in place of the hash of its name.
    pub fn hash(&self) -> String {
        let number = u32::from(self.address);
        format!("{number:08X}")
    }
}

/// So many services. All but the last lead to addresses where nobody is; the last one leads to `server` and has a port at every node
/// if `at_nodes`.
pub fn services(count: u32, server: SocketAddrV4, at_nodes: bool) -> Vec<Service> {
    let others = (1..count).map(|n| {
        let endpoint = |k: u16| {
            let [_, high, middle, low] = n.to_be_bytes();
            SocketAddrV4::new(Ipv4Addr::new(10, 20 + high + u8::try_from(k).unwrap_or(0), middle, low), 8080)
        };
        Service {
            name: format!("service-{n}"),
            address: cluster_ip(n),
            port: PORT,
            node_port: None,
            endpoints: (0..ENDPOINTS).map(endpoint).collect(),
        }
    });
    let called = Service {
        name: "called".to_owned(),
        address: cluster_ip(count),
        port: PORT,
        node_port: at_nodes.then_some(NODE_PORT),
        endpoints: vec![server],
    };
    others.chain([called]).collect()
}

/// Cluster IP of the `n`th service.
fn cluster_ip(n: u32) -> Ipv4Addr {
    let [_, _, middle, low] = n.to_be_bytes();
    // The first addresses of the block are those of the API server and of DNS.
    Ipv4Addr::new(10, 96, 16 + middle, low)
}

/// What rule sets need to know of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Addresses of pods; who calls from elsewhere is masqueraded.
    pub pods: &'static str,
    /// Address of the node at which node ports are reached.
    pub node: Ipv4Addr,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const PLACE: Place =
        Place { pods: "10.10.0.0/16", node: Ipv4Addr::new(192, 168, 50, 1) };

    pub(in super::super) fn two() -> Vec<Service> {
        services(2, SocketAddrV4::new(Ipv4Addr::new(10, 10, 1, 3), 5000), true)
    }

    #[test]
    fn sizes_are_given_as_numbers() {
        assert_eq!("1000".parse(), Ok(SIZES[1]));
        assert_eq!("12".parse::<Size>(), Err("give 1, 1000 or 10000".to_owned()));
    }

    #[test]
    fn only_the_last_service_leads_somewhere() {
        let server = SocketAddrV4::new(Ipv4Addr::new(10, 10, 1, 3), 5000);
        let all = services(10_000, server, false);
        assert_eq!(all.len(), 10_000);
        let addresses: std::collections::BTreeSet<_> = all.iter().map(|service| service.address).collect();
        assert_eq!(addresses.len(), 10_000, "each has an address of its own");
        assert!(addresses.iter().all(|address| address.octets()[..2] == [10, 96]));
        let (called, others) = all.split_last().expect("there are some");
        assert_eq!((called.endpoints.as_slice(), called.node_port), ([server].as_slice(), None));
        assert!(others.iter().all(|other| other.endpoints.len() == 2 && !other.endpoints.contains(&server)));
        assert_eq!(
            services(1, server, true),
            [Service {
                name: "called".to_owned(),
                address: cluster_ip(1),
                port: PORT,
                node_port: Some(NODE_PORT),
                endpoints: vec![server]
            }]
        );
    }
}
