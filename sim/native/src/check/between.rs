//! Between two commands of an agent: what its programs say of first packets is what the objects say as they are or were.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use agent_control::ports::{HOST_LINK, Table};
use dataplane_abi::Addr;
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};
use dataplane_abi::policy::{Direction as PolicyDirection, PolicyKey};
use dataplane_abi::program::Program;
use dataplane_core::Verdict;
use dataplane_native::{Native, Tables};
use ipnet::IpNet;
use sim_oracle::{Attempt, Protocol};
use sim_scenario::model::Routing;
use sim_scenario::rng::Rng;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::firsts::{self, Came, came, copy, run};
use crate::node::UNDERLAY;
use crate::queue::NodeId;
use crate::world::World;

/// How often a row that an agent writes, and that may matter, is followed by a look at what is between it and its next command.
const BETWEEN: f64 = 0.7;
/// Attempts of such a look.
const MOST_BETWEEN: usize = 64;

/// What came of a first packet: by node, addresses, protocol, port, and whether it got through.
type Met = (NodeId, IpAddr, IpAddr, Protocol, Option<u16>, bool);

/// What has come of first packets since everybody last knew everything, and was possible. Until then it stays possible.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// When that was.
    rest: Duration,
    /// What was tried, by what came of it.
    attempts: BTreeMap<Met, Attempt>,
}

/// What a row that was written is about.
enum Written {
    /// Whose packets meet it: those of senders, or to receivers, whose peers it is for.
    Policy(PolicyKey, BTreeSet<IpAddr>),
    /// Addresses.
    Net(IpNet),
}

impl Written {
    /// Whether a first packet from here to there meets it, by the tables as they are.
    fn is_met_by(&self, tables: &Tables, source: IpAddr, to: IpAddr) -> bool {
        let (key, own) = match self {
            Self::Net(net) => return net.contains(&source) || net.contains(&to),
            Self::Policy(key, own) => (key, own),
        };
        let (end, peer) =
            if key.direction == PolicyDirection::Egress as u8 { (source, to) } else { (to, source) };
        let (address, family) = Addr::from_ip(peer);
        let row = tables.lookup("IPCACHE", IpCacheKey::host(address, family).as_bytes());
        let row = row.and_then(|row| IpCacheEntry::read_from_bytes(&row).ok());
        let identity = row.map_or(PolicyKey::EVERYBODY, |row| row.identity);
        let own_row = PolicyKey { identity, ..*key };
        let falls_to_all = || tables.lookup("POLICY", own_row.as_bytes()).is_none();
        own.contains(&end)
            && (key.identity == identity || (key.identity == PolicyKey::EVERYBODY && falls_to_all()))
    }
}

impl World {
    /// What the row with this key is about; `None`: no packet meets it.
    fn written(&self, n: NodeId, table: Table, key: &[u8]) -> Option<Written> {
        let tables = self.nodes[n].native.tables();
        if table == Table::Endpoints {
            return Some(Written::Net(EndpointKey::read_from_bytes(key).ok()?.ip()?.into()));
        }
        if table == Table::Ipcache {
            let (address, len) = IpCacheKey::read_from_bytes(key).ok()?.to_prefix()?;
            return Some(Written::Net(IpNet::new(address, len).ok()?));
        }
        let key = PolicyKey::read_from_bytes(key).ok()?;
        let own: BTreeSet<IpAddr> = tables
            .dump("ENDPOINTS")
            .unwrap_or_default()
            .into_iter()
            .filter(|(_, row)| EndpointEntry::read_from_bytes(row).is_ok_and(|row| row.policy == key.policy))
            .filter_map(|(address, _)| EndpointKey::read_from_bytes(&address).ok()?.ip())
            .collect();
        (!own.is_empty()).then_some(Written::Policy(key, own))
    }

    /// A state between two commands of the agent of a node: what its programs say of first packets must be what the objects say as
    /// they are or were.
    pub(crate) fn look_between(&mut self, n: NodeId, table: Table, key: &[u8]) {
        if !self.policies.any || !self.has_identities() || self.is_over() {
            return;
        }
        self.between += 1;
        let mut rng = Rng::stream(self.seed, "between", self.between);
        if !rng.chance(BETWEEN) {
            return;
        }
        let Some(written) = self.written(n, table, key) else { return };
        let tables = self.nodes[n].native.tables();
        let mut attempts = self.attempts(|(home, source), to| {
            (home == Some(n) || self.node_of(to) == Some(n)) && written.is_met_by(tables, source, to)
        });
        rng.shuffle(&mut attempts);
        attempts.truncate(MOST_BETWEEN);
        let rest = self.check.views.rest();
        if self.check.known.rest != rest {
            self.check.known = Known { rest, ..Known::default() };
        }
        let copy = copy(&self.nodes[n].native);
        // Who has another identity now is met by others as that.
        let all: Vec<Native> = match table {
            Table::Endpoints => self.nodes.iter().map(|node| firsts::copy(&node.native)).collect(),
            _ => Vec::new(),
        };
        for ((home, source), to, attempt) in attempts {
            let leaves = home == Some(n);
            let way_through = leaves.then(|| self.goes_to(&all, n, source, to, &attempt)).flatten();
            let (came, judged) = if let Some(came) = way_through {
                (came, (true, true))
            } else {
                let bytes = self.first((home, source), to, &attempt);
                let verdict = if leaves {
                    self.first_step(&copy, n, source, to, bytes)
                } else {
                    self.enters(&copy, n, source, to, bytes)
                };
                let Some(verdict) = verdict else { continue };
                (came(n, verdict), (leaves, self.node_of(to) == Some(n)))
            };
            let through = match came {
                Came::Through => true,
                Came::Stopped(_) => false,
                Came::Lost(..) => continue,
            };
            let known = (n, source, to, attempt.protocol, attempt.port, through);
            if self.check.known.attempts.get(&known) == Some(&attempt) {
                continue;
            }
            let Some(possible) = self.check.views.possible(&attempt, [source, to], self.now) else {
                continue;
            };
            let wrong = if through { !possible.passes(judged) } else { !possible.is_stopped(judged) };
            if wrong {
                let (at, word) = match came {
                    Came::Stopped(at) => (at, "drops"),
                    _ => (n, "lets through"),
                };
                let message = format!(
                    "between two commands of the agent of {} {} {word} {attempt}: {}",
                    self.nodes[n].name,
                    self.nodes[at].name,
                    self.oracle.judge(&attempt)
                );
                self.violate("policy", message);
                return;
            }
            self.check.known.attempts.insert(known, attempt);
        }
    }

    /// What becomes of a packet of a pod that goes to another node, all the way; `None`: it does not, or that cannot be said.
    fn goes_to(
        &self,
        all: &[Native],
        n: NodeId,
        source: IpAddr,
        to: IpAddr,
        attempt: &Attempt,
    ) -> Option<Came> {
        let (m, ..) = self.owner(to).filter(|(m, ..)| *m != n && !all.is_empty())?;
        self.link_of(n, source)?;
        let row = all[n].tables().lookup("ENDPOINTS", EndpointKey::from_ip(source).as_bytes())?;
        let identity = EndpointEntry::read_from_bytes(&row).ok()?.identity;
        if self.may_not_know(m, n, identity) {
            return None;
        }
        self.send_first(all, (Some(n), source), to, attempt)
    }

    /// What the first program says of a packet of a node, or of a pod of its.
    fn first_step(
        &self,
        native: &Native,
        n: NodeId,
        source: IpAddr,
        to: IpAddr,
        bytes: Vec<u8>,
    ) -> Option<Verdict> {
        let (program, ifindex) = if let Some((ifindex, _)) = self.link_of(n, source) {
            (Program::FromContainer, ifindex)
        } else if let Some((ifindex, _)) = self.link_of(n, to) {
            (Program::ToContainer, ifindex)
        } else if self.owner(to).is_some() && self.cluster.routing == Routing::Vxlan {
            (Program::FromHost, self.nodes[n].link(HOST_LINK)?.0)
        } else {
            (Program::ToNetdev, UNDERLAY)
        };
        Some(run(native, program, ifindex, bytes))
    }
}
