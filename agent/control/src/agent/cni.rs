//! CNI requests: what can be said at once, and what a reconcile has to do.
//!
//! Decisions where the specification leaves a choice:
//! - A second ADD for a container and interface that exist is refused (code 102): the specification asks for an error, and the runtime
//!   calls DEL after every ADD that it saw fail. While the first ADD or a DEL is still under way the answer is "try again" (11).
//! - DEL and GC know endpoints by container id and interface name alone, so that neither can take an address from its next owner.
//!   DEL of an unknown attachment removes the link of that name, if there is one, and succeeds.
//! - STATUS does not fail when all addresses are in use: the node still serves its pods, and a node that is not ready would lose them.

use std::collections::BTreeSet;

use agent_api::EndpointConfig;
use agent_api::cni::{self, Attachment, CniError, CniResult, ErrorCode, Operation};

use super::{Agent, GcRequest};
use crate::cni::{CniRequest, Netns, Reply, RequestId};
use crate::state::endpoints::{
    Endpoint, EndpointId, EndpointRecord, Phase, host_name, host_net, mac_for, mac_text,
};
use crate::state::ipam::Exhausted;
use crate::time::Now;

/// The reply of a request that failed.
pub(crate) fn refuse(id: RequestId, code: ErrorCode, msg: impl Into<String>) -> Reply {
    Reply { id, outcome: CniError::new(code, msg).into() }
}

/// The reply of a request that succeeded without a result.
pub(crate) fn done(id: RequestId) -> Reply {
    Reply { id, outcome: cni::Reply::Done }
}

impl Agent {
    pub(super) fn cni(&mut self, now: Now, request: CniRequest) -> Vec<Reply> {
        let CniRequest { id, received, netns, pod, operation } = request;
        // Somebody waits for it.
        if let Some(failure) = &mut self.failures.read_back {
            failure.hurry();
        }
        let result = match operation {
            Operation::Add { attachment, netns: path } => match netns {
                Some(handle) => {
                    let netns = Netns { handle, path };
                    self.add(now, id, attachment, netns).map(|endpoint| {
                        if let Some(endpoint) = self.state.endpoints.get_mut(endpoint) {
                            endpoint.record.pod = pod;
                            endpoint.record.created = Some(received);
                            let until =
                                self.config.policy.as_ref().map(|policy| now.plus(policy.identity_wait));
                            self.state.policy.add_own(now, &endpoint.record, None, until);
                        }
                        None
                    })
                }
                None => Err(no_netns(&path)),
            },
            Operation::Del { attachment, .. } => return self.del(id, &attachment),
            Operation::Check { attachment, netns: path, prev_result } => match netns {
                Some(handle) => {
                    self.check(id, &attachment, Netns { handle, path }, &prev_result).map(|()| None)
                }
                None => Err(no_netns(&path)),
            },
            Operation::Gc { valid_attachments } => {
                self.gc(id, &valid_attachments);
                Ok(None)
            }
            Operation::Status => self.can_add().map(|()| Some(done(id))).map_err(|why| {
                let code = if self.state.endpoints.len() > 0 && self.plan.base.is_none() && self.known {
                    ErrorCode::UNAVAILABLE_LIMITED
                } else {
                    ErrorCode::UNAVAILABLE
                };
                CniError::new(code, why)
            }),
        };
        match result {
            Ok(reply) => reply.into_iter().collect(),
            Err(error) => vec![Reply { id, outcome: error.into() }],
        }
    }

    /// Whether an ADD can be served, or why not and what to do.
    pub(crate) fn can_add(&self) -> Result<(), String> {
        self.can_allocate()?;
        if self.plan.base.is_none() {
            return Err(self.failures.base.as_ref().map_or_else(
                || "the node's links are not made yet; try again".to_owned(),
                |failure| format!("the node's links cannot be made: {}", failure.error),
            ));
        }
        if self.outside.config.is_none() {
            return Err(self.failures.config.as_ref().map_or_else(
                || "the dataplane is not set up yet; try again".to_owned(),
                |failure| format!("the dataplane cannot be set up: {}", failure.error),
            ));
        }
        Ok(())
    }

    /// Whether addresses and links for a pod can be planned.
    fn can_allocate(&self) -> Result<(), String> {
        let node = &self.config.node_name;
        if !self.known {
            return Err(self.failures.read_back.as_ref().map_or_else(
                || "the agent is starting; try again".to_owned(),
                |failure| format!("the agent cannot read back the state of the node: {}", failure.error),
            ));
        }
        if self.state.nodes.own().is_none() {
            return Err(format!(
                "the Node object {node} has not been seen yet; does it exist, and is the API server reachable?"
            ));
        }
        let mut missing = self.state.policy.missing();
        if self.state.policy.enabled() && !self.state.nodes.synced() {
            missing.push("Node");
        }
        if !missing.is_empty() {
            return Err(format!(
                "identities and policies have not been read yet, so it is not known what the pod may do; objects of these kinds are missing: {}; is the API server reachable, and are their CRDs installed?",
                missing.join(", ")
            ));
        }
        let families = self.plan.families();
        if families.is_empty() || families.iter().any(|v4| self.plan.router(*v4).is_none()) {
            let family = match families.iter().find(|v4| self.plan.router(**v4).is_none()) {
                Some(true) => "IPv4 pod CIDR",
                Some(false) => "IPv6 pod CIDR",
                None => "pod CIDR",
            };
            return Err(format!(
                "node {node} has no usable {family} yet (spec.podCIDRs); the controller manager gives it out when it runs with --allocate-node-cidrs"
            ));
        }
        if self.state.underlay.is_none() {
            return Err("the device that carries traffic between nodes is not known yet; give it with --device if it stays so".to_owned());
        }
        Ok(())
    }

    fn add(
        &mut self,
        now: Now,
        request: RequestId,
        attachment: Attachment,
        netns: Netns,
    ) -> Result<EndpointId, CniError> {
        let name = host_name(&attachment);
        if let Some(existing) = self.state.endpoints.by_host_name(&name) {
            return Err(refuse_second_add(existing, &attachment));
        }
        let later = |why: String| CniError::new(ErrorCode::TRY_AGAIN, why);
        self.can_allocate().map_err(later)?;
        let id = self
            .state
            .endpoints
            .next_id()
            .ok_or_else(|| later("65535 pods run on this node; no more can".to_owned()))?;
        let mut addresses = Vec::new();
        let mut gateways = Vec::new();
        for v4 in self.plan.families() {
            match self.state.ipam.allocate(now, v4, id) {
                Ok(address) => {
                    addresses.push(address);
                    gateways.extend(self.plan.router(v4));
                }
                Err(exhausted) => {
                    for address in addresses {
                        self.state.ipam.give_back(address, id);
                    }
                    return Err(self.explain(now, exhausted));
                }
            }
        }
        let record = EndpointRecord {
            id,
            host_mac: mac_for(&name, "host"),
            pod_mac: mac_for(&name, "pod"),
            host_name: name,
            attachment: Some(attachment),
            pod: None,
            netns: netns.path.clone(),
            addresses,
            gateways,
            ifindex: 0,
            mtu: self.plan.pod_mtu,
            ready: false,
            created: None,
            config: EndpointConfig::default(),
        };
        let phase = Phase::Creating { request, netns, made: false };
        let inserted = self.state.endpoints.insert(Endpoint { record, phase });
        debug_assert!(inserted, "the link's name and the number were just seen to be free");
        Ok(id)
    }

    fn explain(&self, now: Now, exhausted: Exhausted) -> CniError {
        let Exhausted { v4, used, quarantined, free_at } = exhausted;
        let family = if v4 { "IPv4" } else { "IPv6" };
        let cidrs: Vec<String> = self
            .plan
            .pools
            .iter()
            .filter(|pool| pool.addr().is_ipv4() == v4)
            .map(ToString::to_string)
            .collect();
        let advice = free_at.map_or_else(
            || "remove pods from this node or give it a larger pod CIDR".to_owned(),
            |at| format!("the first of those is free in {} s, try again then", at.since(now).as_secs() + 1),
        );
        let msg = format!(
            "no {family} address is free in the node's pod CIDRs ({}): {used} are in use, {quarantined} were released less than {} s ago; {advice}",
            cidrs.join(", "),
            self.config.quarantine.as_secs()
        );
        CniError::new(ErrorCode::TRY_AGAIN, msg)
    }

    fn del(&mut self, request: RequestId, attachment: &Attachment) -> Vec<Reply> {
        let name = host_name(attachment);
        let Some(endpoint) = self.state.endpoints.by_host_name(&name) else {
            self.requests.unknown_del.push((request, name));
            return Vec::new();
        };
        if !is_of(endpoint, attachment) {
            // Another container whose name has the same hash: this one has nothing here.
            return vec![done(request)];
        }
        let id = endpoint.record.id;
        let cancelled = match &endpoint.phase {
            Phase::Creating { request, .. } => Some(refuse(
                *request,
                ErrorCode::TRY_AGAIN,
                "a DEL for the same container came while it was being added",
            )),
            _ => None,
        };
        self.begin_leaving(id, Some(request));
        cancelled.into_iter().collect()
    }

    fn gc(&mut self, request: RequestId, valid: &[Attachment]) {
        let valid: BTreeSet<String> = valid.iter().map(host_name).collect();
        // One that is just being added is newer than the list.
        let stale = |endpoint: &&Endpoint| {
            !valid.contains(&endpoint.record.host_name) && !matches!(endpoint.phase, Phase::Creating { .. })
        };
        let outstanding: BTreeSet<EndpointId> =
            self.state.endpoints.iter().filter(stale).map(|endpoint| endpoint.record.id).collect();
        for id in &outstanding {
            self.begin_leaving(*id, Some(request));
        }
        self.requests
            .gc
            .insert(request, GcRequest { valid, links_done: false, outstanding, errors: Vec::new() });
    }

    fn check(
        &mut self,
        request: RequestId,
        attachment: &Attachment,
        netns: Netns,
        prev_result: &CniResult,
    ) -> Result<(), CniError> {
        let endpoint = self
            .state
            .endpoints
            .by_host_name(&host_name(attachment))
            .filter(|found| is_of(found, attachment));
        let endpoint = endpoint.ok_or_else(|| {
            let msg = format!(
                "{} of container {} is not known to the agent",
                attachment.ifname, attachment.container_id
            );
            CniError::new(ErrorCode::UNKNOWN_CONTAINER, msg)
        })?;
        match endpoint.phase {
            Phase::Ready => {}
            Phase::Leaving(_) => {
                return Err(CniError::new(
                    ErrorCode::CHECK_FAILED,
                    "the container's interface is being removed",
                ));
            }
            Phase::Restoring | Phase::Creating { .. } => {
                return Err(CniError::new(
                    ErrorCode::TRY_AGAIN,
                    "the container's interface is not complete yet",
                ));
            }
        }
        let problems = differences(&endpoint.record, attachment, prev_result);
        if problems.is_empty() {
            self.requests.check.push((request, endpoint.record.id, netns));
            Ok(())
        } else {
            Err(CniError::new(ErrorCode::CHECK_FAILED, problems.join("; ")))
        }
    }
}

fn no_netns(path: &str) -> CniError {
    let msg = format!("the network namespace CNI_NETNS={path} did not come with the request; it may be gone");
    CniError::new(ErrorCode::INVALID_ENVIRONMENT, msg)
}

/// Whether the endpoint is the attachment's. One that was found on the node without a document is known by its link's name alone.
fn is_of(endpoint: &Endpoint, attachment: &Attachment) -> bool {
    endpoint.record.attachment.as_ref().is_none_or(|of| of == attachment)
}

fn refuse_second_add(existing: &Endpoint, attachment: &Attachment) -> CniError {
    let Attachment { container_id, ifname } = attachment;
    if !is_of(existing, attachment) {
        let msg =
            format!("the link {} belongs to another container with the same hash", existing.record.host_name);
        return CniError::new(ErrorCode::INTERNAL, msg);
    }
    match existing.phase {
        Phase::Creating { .. } => {
            let msg = format!(
                "another ADD of {ifname} for container {container_id} is under way; wait for its answer"
            );
            CniError::new(ErrorCode::TRY_AGAIN, msg)
        }
        Phase::Leaving(_) => {
            let msg = format!("{ifname} of container {container_id} is still being removed; try again");
            CniError::new(ErrorCode::TRY_AGAIN, msg)
        }
        Phase::Restoring | Phase::Ready => {
            let addresses: Vec<String> = existing.record.addresses.iter().map(ToString::to_string).collect();
            let msg = format!(
                "container CNI_CONTAINERID={container_id} already has CNI_IFNAME={ifname} ({}); call DEL before another ADD",
                addresses.join(", ")
            );
            CniError::new(ErrorCode::ATTACHMENT_EXISTS, msg)
        }
    }
}

/// What `prevResult` says of our interface that is not so. Interfaces, addresses and routes of plugins later in the chain do not matter.
fn differences(record: &EndpointRecord, attachment: &Attachment, prev: &CniResult) -> Vec<String> {
    let mut problems = Vec::new();
    let ours = |name: &str, on_host: bool| {
        prev.interfaces.iter().position(|found| found.name == name && found.sandbox.is_empty() == on_host)
    };
    let mut same_mac = |index: Option<usize>, name: &str, mac: [u8; 6], whose: &str| match index {
        None => problems.push(format!("prevResult has no {whose} interface {name}")),
        Some(index) if !prev.interfaces[index].mac.eq_ignore_ascii_case(&mac_text(mac)) => {
            problems.push(format!(
                "{name} has the MAC address {}, prevResult says `{}`",
                mac_text(mac),
                prev.interfaces[index].mac
            ));
        }
        Some(_) => {}
    };
    same_mac(ours(&record.host_name, true), &record.host_name, record.host_mac, "host");
    let pod = ours(&attachment.ifname, false);
    same_mac(pod, &attachment.ifname, record.pod_mac, "container");
    for address in &record.addresses {
        let net = host_net(*address);
        if !prev.ips.iter().any(|ip| ip.address == net) {
            problems.push(format!("prevResult lacks the address {net}"));
        }
    }
    for ip in &prev.ips {
        if ip.interface.is_some() && ip.interface == pod && !record.addresses.contains(&ip.address.addr()) {
            problems.push(format!(
                "prevResult has the address {}, which {} does not have",
                ip.address, attachment.ifname
            ));
        }
    }
    problems
}
