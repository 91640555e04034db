//! Pods that come and go: interfaces, documents, addresses, answers.

use agent_api::cni::{CniError, ErrorCode, Reply as Outcome};
use tracing::{info, warn};

use super::{Run, due};
use crate::agent::{Agent, done, refuse};
use crate::backoff::Failure;
use crate::cni::{Netns, NetnsHandle, Reply, RequestId};
use crate::controllers::programs::OF_POD;
use crate::ports::{PortError, PortErrorKind};
use crate::state::documents::{self, IpamDocument};
use crate::state::endpoints::{EndpointId, Phase, host_net};

/// Answers a DEL, or adds to what a GC waits for. `error`: it failed for this endpoint.
fn answer(
    agent: &mut Agent,
    run: &mut Run<'_>,
    waiter: RequestId,
    id: EndpointId,
    error: Option<&PortError>,
) {
    if let Some(gc) = agent.requests.gc.get_mut(&waiter) {
        gc.outstanding.remove(&id);
        gc.errors.extend(error.map(ToString::to_string));
        return;
    }
    run.report.replies.push(match error {
        None => done(waiter),
        Some(error) => {
            refuse(waiter, ErrorCode::TRY_AGAIN, format!("{error}; the agent goes on trying, try again"))
        }
    });
}

impl Agent {
    fn ids(&self, wanted: impl Fn(&Phase) -> bool) -> Vec<EndpointId> {
        self.state
            .endpoints
            .iter()
            .filter(|endpoint| wanted(&endpoint.phase))
            .map(|endpoint| endpoint.record.id)
            .collect()
    }

    /// Answers all requests that wait, because nothing can be done now.
    pub(super) fn refuse_waiting(&mut self, run: &mut Run<'_>) {
        let why =
            self.failures.read_back.as_ref().map_or_else(String::new, |failure| failure.error.to_string());
        let msg = format!("the agent cannot read back the state of the node and will try again: {why}");
        let requests = std::mem::take(&mut self.requests);
        let waiting = requests
            .unknown_del
            .into_iter()
            .map(|(id, _)| id)
            .chain(requests.check.into_iter().map(|(id, ..)| id))
            .chain(requests.gc.keys().copied());
        let mut waiting: Vec<RequestId> = waiting.collect();
        for id in self.ids(|phase| matches!(phase, Phase::Leaving(_))) {
            if let Some(endpoint) = self.state.endpoints.get_mut(id)
                && let Phase::Leaving(leaving) = &mut endpoint.phase
            {
                waiting.extend(leaving.waiters.drain(..).filter(|waiter| !requests.gc.contains_key(waiter)));
            }
        }
        run.report.replies.extend(waiting.into_iter().map(|id| refuse(id, ErrorCode::TRY_AGAIN, &msg)));
    }

    /// Removes the interfaces of endpoints that go, and links without an endpoint that a DEL or GC names.
    pub(super) fn remove_interfaces(&mut self, run: &mut Run<'_>) {
        self.meet_unknown_dels();
        let now = run.now;
        let leaving = self.ids(
            |phase| matches!(phase, Phase::Leaving(leaving) if !leaving.link_gone && due(leaving.failure.as_ref(), now)),
        );
        if leaving.len() > 1 {
            let name = |id: &EndpointId| Some(self.state.endpoints.get(*id)?.record.host_name.clone());
            let names: Vec<String> = leaving.iter().filter_map(name).collect();
            run.node.delete_pod_interfaces_soon(&names);
        }
        for id in leaving {
            let Some(endpoint) = self.state.endpoints.get_mut(id) else { continue };
            let Phase::Leaving(leaving) = &mut endpoint.phase else { continue };
            let host_name = endpoint.record.host_name.clone();
            let addresses = endpoint.record.addresses.clone();
            match run.node.delete_pod_interface(&host_name) {
                Ok(()) => {
                    leaving.link_gone = true;
                    run.report.node_changes += 1;
                    for program in OF_POD {
                        // They went with the link.
                        self.outside.programs.want((host_name.clone(), program), None);
                        self.outside.programs.lost(&(host_name.clone(), program));
                    }
                    self.dirty.endpoint(id, &addresses);
                }
                Err(error) => self.leaving_failed(run, id, error),
            }
        }
        for (request, host_name) in std::mem::take(&mut self.requests.unknown_del) {
            run.report.replies.push(match run.node.delete_pod_interface(&host_name) {
                Ok(()) => done(request),
                Err(error) => refuse(request, ErrorCode::TRY_AGAIN, format!("{error}; try again")),
            });
        }
        self.remove_stray_links(run);
    }

    /// A DEL that came before the links were read back may be for one that has become an endpoint since.
    fn meet_unknown_dels(&mut self) {
        for (request, host_name) in std::mem::take(&mut self.requests.unknown_del) {
            let found = self.state.endpoints.by_host_name(&host_name);
            // One that is being added came after the DEL.
            let found = found.filter(|endpoint| !matches!(endpoint.phase, Phase::Creating { .. }));
            match found.map(|endpoint| endpoint.record.id) {
                Some(id) => self.begin_leaving(id, Some(request)),
                None => self.requests.unknown_del.push((request, host_name)),
            }
        }
    }

    /// For GC: links of pods that are neither valid nor known.
    fn remove_stray_links(&mut self, run: &mut Run<'_>) {
        for gc in self.requests.gc.values_mut().filter(|gc| !gc.links_done) {
            gc.links_done = true;
            let links = match run.node.list_pod_links() {
                Ok(links) => links,
                Err(error) => {
                    gc.errors.push(error.to_string());
                    continue;
                }
            };
            for link in links {
                let known = self.state.endpoints.by_host_name(&link.name).is_some();
                if known || gc.valid.contains(&link.name) {
                    continue;
                }
                match run.node.delete_pod_interface(&link.name) {
                    Ok(()) => run.report.node_changes += 1,
                    Err(error) => gc.errors.push(error.to_string()),
                }
            }
        }
    }

    fn leaving_failed(&mut self, run: &mut Run<'_>, id: EndpointId, error: PortError) {
        let Some(endpoint) = self.state.endpoints.get_mut(id) else { return };
        let Phase::Leaving(leaving) = &mut endpoint.phase else { return };
        warn!(endpoint = id, "endpoint cannot be removed yet: {error}");
        leaving.failure = Some(Failure::again(leaving.failure.as_ref(), run.now, error.clone()));
        let waiters = std::mem::take(&mut leaving.waiters);
        for waiter in waiters {
            answer(self, run, waiter, id, Some(&error));
        }
        run.report.errors.push(error);
    }

    /// Makes the interfaces of new endpoints.
    pub(super) fn make_interfaces(&mut self, run: &mut Run<'_>) {
        for id in self.ids(|phase| matches!(phase, Phase::Creating { made: false, .. })) {
            if self.plan.base.is_none() {
                let why = self.can_add().err().unwrap_or_default();
                self.add_failed(run, id, CniError::new(ErrorCode::TRY_AGAIN, why));
                continue;
            }
            let Some(endpoint) = self.state.endpoints.get(id) else { continue };
            let Phase::Creating { netns, .. } = &endpoint.phase else { continue };
            let spec = endpoint.record.interface(netns.clone());
            // The announcement: a successor finds it and takes away what was made for it.
            let announced = run.node.save_state(&documents::endpoint(&endpoint.record));
            let made = announced.and_then(|()| run.node.create_pod_interface(&spec));
            match made {
                Ok(facts) => {
                    run.report.node_changes += 1;
                    let Some(endpoint) = self.state.endpoints.get_mut(id) else { continue };
                    let record = &mut endpoint.record;
                    (record.ifindex, record.host_mac, record.pod_mac) =
                        (facts.host_ifindex, facts.host_mac, facts.pod_mac);
                    if let Phase::Creating { made, .. } = &mut endpoint.phase {
                        *made = true;
                    }
                    let addresses = endpoint.record.addresses.clone();
                    self.dirty.endpoint(id, &addresses);
                }
                Err(error) => {
                    run.report.errors.push(error.clone());
                    self.add_failed(run, id, explain_interface(&error, &spec.netns, &spec.pod_name));
                }
            }
        }
    }

    /// Answers an ADD with an error; what was made for it goes.
    fn add_failed(&mut self, run: &mut Run<'_>, id: EndpointId, error: CniError) {
        let Some(endpoint) = self.state.endpoints.get(id) else { return };
        if let Phase::Creating { request, .. } = &endpoint.phase {
            warn!(endpoint = id, pod = endpoint.record.display_name(), "ADD failed: {error}");
            run.report.replies.push(Reply { id: *request, outcome: Outcome::Error { error } });
        }
        self.begin_leaving(id, None);
    }

    /// Answers the ADD of every endpoint whose interface, rows and programs are in place.
    pub(super) fn finish_adds(&mut self, run: &mut Run<'_>) {
        for id in self.ids(|phase| matches!(phase, Phase::Creating { made: true, .. })) {
            if self.state.policy.holds_back(id) {
                continue;
            }
            if let Some(error) = self.obstacle(id) {
                let full = error.kind == PortErrorKind::Full;
                let advice = if full { "; remove pods from this node" } else { "; try again" };
                self.add_failed(run, id, CniError::new(ErrorCode::TRY_AGAIN, format!("{error}{advice}")));
                continue;
            }
            let Some(endpoint) = self.state.endpoints.get_mut(id) else { continue };
            let Phase::Creating { request, .. } = endpoint.phase else { continue };
            endpoint.record.ready = true;
            match run.node.save_state(&documents::endpoint(&endpoint.record)) {
                Ok(()) => {
                    let record = &endpoint.record;
                    info!(endpoint = id, pod = record.display_name(), addresses = ?record.addresses, link = record.host_name, "endpoint added");
                    let outcome = Outcome::Added { result: record.result() };
                    run.report.replies.push(Reply { id: request, outcome });
                    run.report.endpoints_touched = true;
                    endpoint.phase = Phase::Ready;
                }
                Err(error) => {
                    endpoint.record.ready = false;
                    run.report.errors.push(error.clone());
                    let msg = format!("the state directory cannot be written: {error}; try again");
                    self.add_failed(run, id, CniError::new(ErrorCode::TRY_AGAIN, msg));
                }
            }
        }
    }

    /// Why an endpoint is not complete after everything has been tried.
    fn obstacle(&self, id: EndpointId) -> Option<PortError> {
        let endpoint = self.state.endpoints.get(id)?;
        let outside = &self.outside;
        if outside.config.is_none() || self.failures.config.is_some() {
            let failure = self.failures.config.as_ref().map(|failure| failure.error.clone());
            return Some(
                failure.unwrap_or_else(|| PortError::retryable("set up the dataplane", "not possible yet")),
            );
        }
        let unsettled =
            |what: &str| PortError::retryable(format!("write {what}"), "the row could not be written yet");
        for address in &endpoint.record.addresses {
            if !outside.endpoints.settled(address) {
                return Some(
                    outside.endpoints.failure(address).cloned().unwrap_or_else(|| unsettled("ENDPOINTS")),
                );
            }
            let prefix = host_net(*address);
            if !outside.ipcache.settled(&prefix) {
                return Some(
                    outside.ipcache.failure(&prefix).cloned().unwrap_or_else(|| unsettled("IPCACHE")),
                );
            }
        }
        for program in OF_POD {
            let key = (endpoint.record.host_name.clone(), program);
            if !outside.programs.settled(&key) {
                let failure = outside.programs.failure(&key).cloned();
                return Some(failure.unwrap_or_else(|| unsettled(program.name())));
            }
        }
        None
    }

    /// Releases what endpoints had whose links and rows are gone, and answers their DEL.
    pub(super) fn finish_leaving(&mut self, run: &mut Run<'_>) {
        for id in self.ids(|phase| matches!(phase, Phase::Leaving(leaving) if leaving.link_gone)) {
            let Some(endpoint) = self.state.endpoints.get(id) else { continue };
            let Phase::Leaving(leaving) = &endpoint.phase else { continue };
            if !due(leaving.failure.as_ref(), run.now) {
                continue;
            }
            let result = match self.remaining_row(id) {
                Some(error) => Err(error),
                // Quarantine first: if the document went first, a crash in between would forget it.
                None => match self.failures.documents.as_ref().filter(|_| self.ipam_unsaved()) {
                    Some(failure) => Err(failure.error.clone()),
                    None => run.node.remove_state(&documents::endpoint_name(id)),
                },
            };
            if let Err(error) = result {
                self.leaving_failed(run, id, error);
                continue;
            }
            self.unsaved.remove(&id);
            if let Some(endpoint) = self.state.endpoints.remove(id) {
                run.report.endpoints_touched = true;
                self.state.policy.remove_own(id);
                let record = endpoint.record;
                info!(endpoint = id, pod = record.display_name(), addresses = ?record.addresses, "endpoint removed");
                for address in record.addresses {
                    self.state.ipam.give_back(address, id);
                }
                if let Phase::Leaving(leaving) = endpoint.phase {
                    for waiter in leaving.waiters {
                        answer(self, run, waiter, id, None);
                    }
                }
            }
        }
    }

    /// A row of the endpoint that could not be removed yet.
    fn remaining_row(&self, id: EndpointId) -> Option<PortError> {
        let endpoint = self.state.endpoints.get(id)?;
        let outside = &self.outside;
        endpoint.record.addresses.iter().find_map(|address| {
            let prefix = host_net(*address);
            if outside.endpoints.settled(address) && outside.ipcache.settled(&prefix) {
                return None;
            }
            let failure =
                outside.endpoints.failure(address).or_else(|| outside.ipcache.failure(&prefix)).cloned();
            Some(failure.unwrap_or_else(|| {
                PortError::retryable("remove rows", format!("those of {address} are still there"))
            }))
        })
    }

    fn ipam_document(&self) -> IpamDocument {
        IpamDocument { last_id: self.state.endpoints.last_id(), ipam: self.state.ipam.record().clone() }
    }

    fn ipam_unsaved(&self) -> bool {
        self.ipam_document() != self.outside.saved_ipam
    }

    /// Puts the addresses of endpoints whose rows are gone into quarantine and writes that down.
    pub(super) fn save_ipam(&mut self, run: &mut Run<'_>) {
        for id in self
            .ids(|phase| matches!(phase, Phase::Leaving(leaving) if leaving.link_gone && leaving.was_used))
        {
            if self.remaining_row(id).is_some() {
                continue;
            }
            let Some(endpoint) = self.state.endpoints.get(id) else { continue };
            for address in &endpoint.record.addresses {
                self.state.ipam.release(run.now, *address, id);
            }
        }
        let document = self.ipam_document();
        if document == self.outside.saved_ipam || !due(self.failures.documents.as_ref(), run.now) {
            return;
        }
        let result = run.node.save_state(&documents::ipam(&document));
        let mut slot = self.failures.documents.take();
        if run.note(&mut slot, result) {
            self.outside.saved_ipam = document;
            run.report.node_changes += 1;
        }
        self.failures.documents = slot;
    }

    /// Writes the documents that are not tied to an answer: the own node, and endpoints that were mended at start.
    pub(super) fn save_documents(&mut self, run: &mut Run<'_>) {
        if !due(self.failures.documents.as_ref(), run.now) {
            return;
        }
        let own = self.state.nodes.own_object();
        let mut result = Ok(());
        if own.is_some() && own != self.outside.saved_node {
            result = own.as_ref().map_or(Ok(()), |own| run.node.save_state(&documents::node(own)));
            if result.is_ok() {
                self.outside.saved_node = own;
                run.report.node_changes += 1;
            }
        }
        for id in std::mem::take(&mut self.unsaved) {
            let Some(endpoint) = self.state.endpoints.get(id) else { continue };
            if result.is_ok() {
                result = run.node.save_state(&documents::endpoint(&endpoint.record));
            }
            if result.is_err() {
                self.unsaved.insert(id);
            }
        }
        let mut slot = self.failures.documents.take();
        run.note(&mut slot, result);
        self.failures.documents = slot;
    }

    /// Answers every GC whose endpoints are gone.
    pub(super) fn finish_gc(&mut self, run: &mut Run<'_>) {
        let finished: Vec<RequestId> = self
            .requests
            .gc
            .iter()
            .filter(|(_, gc)| gc.links_done && gc.outstanding.is_empty())
            .map(|(request, _)| *request)
            .collect();
        for request in finished {
            let Some(gc) = self.requests.gc.remove(&request) else { continue };
            run.report.replies.push(if gc.errors.is_empty() {
                done(request)
            } else {
                refuse(
                    request,
                    ErrorCode::TRY_AGAIN,
                    format!("not everything could be removed: {}", gc.errors.join("; ")),
                )
            });
        }
    }

    /// Looks at the interfaces that a CHECK asks for.
    pub(super) fn check_interfaces(&mut self, run: &mut Run<'_>) {
        for (request, id, netns) in std::mem::take(&mut self.requests.check) {
            let Some(endpoint) =
                self.state.endpoints.get(id).filter(|endpoint| endpoint.phase == Phase::Ready)
            else {
                run.report.replies.push(refuse(
                    request,
                    ErrorCode::UNKNOWN_CONTAINER,
                    "the container was removed meanwhile",
                ));
                continue;
            };
            let spec = endpoint.record.interface(netns);
            let mut problems = match run.node.check_pod_interface(&spec) {
                Ok(problems) => problems,
                Err(error) => {
                    let error = explain_interface(&error, &spec.netns, &spec.pod_name);
                    run.report.replies.push(Reply { id: request, outcome: Outcome::Error { error } });
                    continue;
                }
            };
            problems.extend(self.obstacle(id).map(|error| error.to_string()));
            run.report.replies.push(if problems.is_empty() {
                done(request)
            } else {
                refuse(request, ErrorCode::CHECK_FAILED, problems.join("; "))
            });
        }
    }
}

/// What the runtime is told when a pod's interface cannot be made or looked at.
fn explain_interface(error: &PortError, netns: &Netns, ifname: &str) -> CniError {
    let Netns { handle: NetnsHandle(_), path } = netns;
    let (code, msg) = match error.kind {
        PortErrorKind::NetnsGone => {
            (ErrorCode::INVALID_NETNS, format!("CNI_NETNS={path} is gone or is no network namespace"))
        }
        PortErrorKind::InterfaceExists => (
            ErrorCode::INVALID_ENVIRONMENT,
            format!(
                "CNI_IFNAME={ifname} exists already in {path}; remove it or call DEL of the plugin that made it"
            ),
        ),
        _ => (
            ErrorCode::IO_FAILURE,
            format!("the interface {ifname} cannot be set up; see the agent's log and try again"),
        ),
    };
    CniError::new(code, msg).with_details(error.to_string())
}
