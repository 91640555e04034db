//! Finds the device that carries traffic between nodes, and notices when it changes.

use agent_control::DeviceFacts;
use agent_node::{Netlink, NetlinkError, facts};
use anyhow::{Result, bail};
use std::net::IpAddr;

/// Looks for the underlay device.
#[derive(Debug)]
pub struct Underlay {
    netlink: Netlink,
    wanted: Option<String>,
    last: Option<DeviceFacts>,
    complained: bool,
}

impl Underlay {
    /// Looks in the network namespace of `netlink`; for the device `wanted` if one is given, else for the one with the node's address.
    pub const fn new(netlink: Netlink, wanted: Option<String>) -> Self {
        Self { netlink, wanted, last: None, complained: false }
    }

    /// A device has been found.
    pub const fn found(&self) -> bool {
        self.last.is_some()
    }

    /// The facts, if they differ from what was last returned. A device that cannot be found is an error once, then silence:
    /// `None` until something changes.
    ///
    /// # Errors
    /// When the kernel does not answer, or no device fits.
    pub fn look(&mut self, node_ips: &[IpAddr]) -> Result<Option<DeviceFacts>> {
        let Some(facts) = self.find(node_ips)? else {
            if self.complained || (self.wanted.is_none() && node_ips.is_empty()) {
                return Ok(None);
            }
            self.complained = true;
            match &self.wanted {
                Some(name) => bail!("there is no device {name}; give the underlay's name with --device"),
                None => bail!(
                    "no device has one of the node's InternalIPs ({node_ips:?}); name the underlay with --device"
                ),
            }
        };
        self.complained = false;
        if self.last.as_ref() == Some(&facts) {
            return Ok(None);
        }
        self.last = Some(facts.clone());
        Ok(Some(facts))
    }

    fn find(&mut self, node_ips: &[IpAddr]) -> Result<Option<DeviceFacts>, NetlinkError> {
        let mut link = None;
        match &self.wanted {
            Some(name) => link = self.netlink.find_link(name)?,
            None => {
                for &ip in node_ips {
                    link = facts::device_with_address(&mut self.netlink, ip)?;
                    if link.is_some() {
                        break;
                    }
                }
            }
        }
        let Some(link) = link else { return Ok(None) };
        let addresses = facts::addresses_of(&mut self.netlink, link.index)?;
        Ok(Some(DeviceFacts {
            name: link.name,
            ifindex: link.index,
            mac: link.mac.map(agent_node::Mac::octets).unwrap_or_default(),
            mtu: link.mtu,
            addresses,
        }))
    }
}
