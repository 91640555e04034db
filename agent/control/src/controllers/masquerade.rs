//! `NO_MASQUERADE`: where pods speak with their own address, beside what the ipcache knows to be in the cluster. And where pods are
//! masqueraded at all.

use dataplane_abi::ipcache::IpCacheKey;
use dataplane_abi::no_masquerade::{NoMasqueradeEntry, Why};
use ipnet::IpNet;
use zerocopy::FromBytes as _;

use super::ipcache;
use crate::config::Config;
use crate::plan::Plan;
use crate::ports::Row;

/// Whether pods are masqueraded by a family: it is asked for, and both pods and the node have it.
pub(crate) fn is_on(config: &Config, plan: &Plan, v4: bool) -> bool {
    if v4 {
        config.masquerade.ipv4 && plan.v4 && plan.node_v4.is_some()
    } else {
        config.masquerade.ipv6 && plan.v6 && plan.node_v6.is_some()
    }
}

/// All rows. They follow from the configuration alone; of a prefix that stands in both lists the operator's word is told.
pub(crate) fn rows(config: &Config) -> Vec<(IpNet, NoMasqueradeEntry)> {
    let masquerade = &config.masquerade;
    let is_asked = |prefix: &IpNet| if prefix.addr().is_ipv4() { masquerade.ipv4 } else { masquerade.ipv6 };
    let rows = |prefixes: &[IpNet], why: Why| {
        let entry = NoMasqueradeEntry { why: why as u8, pad: [0; 3] };
        prefixes.iter().map(|prefix| (prefix.trunc(), entry)).filter(|(prefix, _)| is_asked(prefix)).collect()
    };
    let mut all: Vec<(IpNet, NoMasqueradeEntry)> = rows(&masquerade.native_routing, Why::NativeRouting);
    let excluded: Vec<(IpNet, NoMasqueradeEntry)> = rows(&masquerade.excluded, Why::Excluded);
    all.extend(excluded);
    all
}

/// A row that was read back; `None` if this agent would not have written such bytes.
pub(crate) fn parse(row: &Row) -> Option<(IpNet, NoMasqueradeEntry)> {
    let found = IpCacheKey::read_from_bytes(&row.key).ok()?;
    let (address, len) = found.to_prefix()?;
    let prefix = IpNet::new(address, len).ok()?;
    (ipcache::key(&prefix) == found).then_some(())?;
    Some((prefix, NoMasqueradeEntry::read_from_bytes(&row.value).ok()?))
}
