//! The node's routes: how its own traffic reaches pods, here and on other nodes.

use ipnet::IpNet;

use super::ipcache::node_of_cidr;
use crate::config::Routing;
use crate::plan::Plan;
use crate::ports::{HOST_LINK, Route};
use crate::state::State;

/// The route to a prefix.
pub(crate) fn row(state: &State, plan: &Plan, prefix: IpNet) -> Option<Route> {
    let address = prefix.addr();
    let v4 = address.is_ipv4();
    plan.base?;
    if !plan.enabled(&address) {
        return None;
    }
    let router = plan.router(v4);
    let local =
        || Route { dst: prefix, gateway: None, device: HOST_LINK.to_owned(), source: router, mtu: None };
    if let Some(holder) = state.nodes.cidr_holder(&prefix) {
        if !holder.remote {
            return router.map(|_| local());
        }
        let node = node_of_cidr(state, plan, &holder.name, v4)?;
        return match plan.routing {
            Routing::Vxlan => router.map(|router| Route {
                // The kernel takes an own address as next hop for IPv4 only.
                gateway: v4.then_some(router),
                mtu: Some(plan.pod_mtu),
                ..local()
            }),
            Routing::Native => Some(Route {
                dst: prefix,
                gateway: Some(node),
                device: plan.underlay.as_ref()?.name.clone(),
                source: None,
                mtu: None,
            }),
        };
    }
    // A pod whose address is of a pod CIDR that the node no longer has.
    let single = prefix.prefix_len() == prefix.max_prefix_len();
    let stray = single && !plan.pools.iter().any(|pool| pool.contains(&address));
    (stray && state.endpoint_at(&address).is_some()).then(local)
}
