//! Rows of a node's tables, for people.

mod conntrack;
mod policy;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::ipcache::IpCacheKey;
use dataplane_abi::{Addr, Family};

use crate::queue::NodeId;
use crate::view::View;
use crate::world::World;

impl World {
    /// The rows that a packet meets on a node, a line each.
    pub(crate) fn rows_for(&self, n: NodeId, view: &View) -> Vec<String> {
        let node = &self.nodes[n];
        let mut lines = Vec::new();
        for (word, address) in [("source", view.src), ("destination", view.dst)] {
            lines.push(format!(
                "{} ENDPOINTS {word} {address}: {}",
                node.name,
                self.endpoint_row(n, address)
            ));
            lines.push(format!("{} IPCACHE   {word} {address}: {}", node.name, self.ipcache_row(n, address)));
        }
        // An error has the connection of what it quotes.
        let view = view.quotes.as_deref().unwrap_or(view);
        let found = self.conntrack_row(n, view);
        lines.extend(self.policy_lines(n, view, found));
        lines.extend(self.conntrack_lines(n, view, found));
        if let Some(config) = node.native.tables().config.get(0) {
            lines.push(format!("{} CONFIG revision: {}", node.name, config.revision));
        }
        lines
    }

    fn endpoint_row(&self, n: NodeId, address: IpAddr) -> String {
        let row: Option<&EndpointEntry> =
            self.nodes[n].native.tables().endpoints.get(&EndpointKey::from_ip(address));
        row.map_or_else(
            || "none".to_owned(),
            |row| format!("link {}, endpoint {}, identity {}", row.ifindex, row.id, row.identity.0),
        )
    }

    fn ipcache_row(&self, n: NodeId, address: IpAddr) -> String {
        let (addr, family): (Addr, Family) = Addr::from_ip(address);
        let row = self.nodes[n].native.tables().ipcache.get(&IpCacheKey::host(addr, family));
        row.map_or_else(
            || "none".to_owned(),
            |row| match row.node_ip() {
                Some(node) => format!("identity {}, behind {node}", row.identity.0),
                None => format!("identity {}", row.identity.0),
            },
        )
    }
}
