//! The thread that owns the agent's mind and hands: everything that happens comes in by one channel, one at a time.
//!
//! Nothing else in the process changes maps, links or routes, so there are no locks and no races between sources.
//! Readers of the local API ask by [`Control::query`], which runs on this thread between two batches.

use crate::health_ports::Healths;
use crate::kernel::{KernelMaps, KernelNode};
use crate::metrics::Metrics;
use crate::monitor::NamesChanged;
use crate::publish::Told;
use crate::underlay::Underlay;
use agent_api::status::{AgentState, ReconcileStatus};
use agent_api::{Timestamp, cni};
use agent_control::{Agent, CniRequest, Event, NetnsHandle, Now, ReconcileReport, RequestId};
use agent_crd::NodePolicyStatus;
use anyhow::{Context as _, Result, anyhow};
use dataplane_loader::clock::monotonic_ns;
use nix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

/// How many runtime requests one reconcile takes together. More would save a little work in all and make the first of them wait for the last.
const CNI_BATCH: usize = 8;

/// How often the underlay device is looked at when nothing else asks for it.
const UNDERLAY_INTERVAL: Duration = Duration::from_secs(10);

/// How often the CNI configuration is looked at: what others removed is put back.
const CONFLIST_INTERVAL: Duration = Duration::from_secs(30);

/// How often at most all policies are looked at for what is wrong with them.
const POLICY_STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How long it takes until it is told that only revisions have risen.
const REVISIONS_INTERVAL: Duration = Duration::from_secs(60);

/// What a query may see.
#[derive(Debug)]
pub struct View<'a> {
    /// The state.
    pub agent: &'a Agent,
    /// The tables, for reading what the dataplane wrote.
    pub maps: &'a mut KernelMaps,
    /// The loop's own figures.
    pub reconcile: &'a ReconcileStatus,
    /// When the query runs.
    pub now: Now,
}

type Query = Box<dyn FnOnce(&mut View<'_>) + Send>;

enum Input {
    Event(Event),
    Cni { request: CniRequest, netns: Option<OwnedFd>, reply: oneshot::Sender<cni::Reply> },
    Query(Query),
}

/// The way to the control thread; cheap to copy.
#[derive(Clone, Debug)]
pub struct Control {
    inputs: mpsc::Sender<Input>,
}

/// The control thread is gone, so the process is about to end.
#[derive(Debug, thiserror::Error)]
#[error("the agent is stopping")]
pub struct StoppedError;

impl Control {
    /// Tells the agent that something happened.
    pub fn event(&self, event: Event) {
        // A dead control thread ends the process (see `start`), so nobody is left who could miss the event.
        drop(self.inputs.send(Input::Event(event)));
    }

    /// Passes on a request of the runtime and waits for the answer.
    ///
    /// # Errors
    /// When the agent stops before it answers.
    pub async fn cni(&self, request: CniRequest, netns: Option<OwnedFd>) -> Result<cni::Reply, StoppedError> {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Cni { request, netns, reply }).map_err(|_| StoppedError)?;
        answer.await.map_err(|_| StoppedError)
    }

    /// Runs `ask` on the control thread and returns what it says.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut View<'_>) -> T + Send + 'static,
    ) -> Result<T, StoppedError> {
        let (reply, answer) = oneshot::channel();
        let query: Query = Box::new(move |view| drop(reply.send(ask(view))));
        self.inputs.send(Input::Query(query)).map_err(|_| StoppedError)?;
        answer.await.map_err(|_| StoppedError)
    }
}

/// What the thread starts with.
#[derive(Debug)]
pub struct Parts {
    /// The mind.
    pub agent: Agent,
    /// The tables.
    pub maps: KernelMaps,
    /// Links, routes, programs, state directory.
    pub node: KernelNode,
    /// Finds the underlay device.
    pub underlay: Underlay,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// CNI configuration to write when pods can be added: directory and socket.
    pub conflist: Option<(PathBuf, PathBuf)>,
    /// Where to say what cookies of events stand for.
    pub(crate) names: mpsc::Sender<NamesChanged>,
    /// Where to say what the cluster shall be told, if it shall.
    pub(crate) told: Option<watch::Sender<Told>>,
    /// Where to say what services have on this node, if somebody asks.
    pub(crate) healths: Option<watch::Sender<Healths>>,
}

/// Starts the thread. The receiver resolves when it ends, which it does only by a mistake of ours or at the end of the process.
///
/// # Errors
/// When the system has no thread left.
pub fn start(parts: Parts) -> Result<(Control, oneshot::Receiver<()>)> {
    let (inputs, receiver) = mpsc::channel();
    let (ended, end) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            // Dropped when the thread ends in any way.
            let _ended = ended;
            Loop::new(parts).run(&receiver);
        })
        .context("cannot start the control thread")?;
    Ok((Control { inputs }, end))
}

/// Time since boot with suspend, as [`Now`] wants it.
///
/// # Panics
/// On a kernel without `CLOCK_BOOTTIME`, which is older than any that the agent runs on.
pub fn now() -> Now {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME can be read");
    Now::since_boot(Duration::from(time))
}

/// A request that has not been answered.
struct Waiting {
    reply: oneshot::Sender<cni::Reply>,
    command: &'static str,
    since: Instant,
    netns: Option<NetnsHandle>,
}

struct Loop {
    parts: Parts,
    waiting: HashMap<RequestId, Waiting>,
    status: ReconcileStatus,
    state: (AgentState, Option<String>),
    underlay_due: Instant,
    conflist_due: Instant,
    conflist_problem: Option<String>,
    last_errors: Vec<String>,
    /// Whether all was heard, the revision of policy, and the status of policies, when the cluster was last told.
    told: Option<(bool, u64, u64)>,
    /// The agent's number for what services have here, when it was last told.
    healths_told: Option<u64>,
    /// What holds for policies on this node, and the agent's number for it.
    policy_status: (u64, Option<NodePolicyStatus>),
    /// It is not looked at before.
    policy_status_due: Instant,
    /// How often it was looked at.
    policy_status_told: u64,
}

impl Loop {
    fn new(parts: Parts) -> Self {
        Self {
            parts,
            waiting: HashMap::new(),
            status: ReconcileStatus::default(),
            state: (AgentState::Starting, None),
            underlay_due: Instant::now(),
            conflist_due: Instant::now(),
            conflist_problem: None,
            last_errors: Vec::new(),
            told: None,
            healths_told: None,
            policy_status: (0, None),
            policy_status_due: Instant::now(),
            policy_status_told: 0,
        }
    }

    fn run(mut self, inputs: &mpsc::Receiver<Input>) {
        // The first reconcile reads back what an earlier agent left, so that known endpoints are served before any list arrives.
        self.look_at_underlay();
        self.reconcile(Vec::new());
        loop {
            let deadline = self.parts.agent.next_deadline().map_or(UNDERLAY_INTERVAL, |at| at.since(now()));
            let mut wait = deadline.min(self.underlay_due.saturating_duration_since(Instant::now()));
            if self.parts.told.is_some() && self.policy_status.0 != self.parts.agent.policy_news() {
                wait = wait.min(self.policy_status_due.saturating_duration_since(Instant::now()));
            }
            // Requests that wait already belong to the same batch: the setting is not switched between them.
            let first = inputs.try_recv().or_else(|_| {
                self.parts.node.end_batch();
                inputs.recv_timeout(wait)
            });
            let first = match first {
                Ok(input) => Some(input),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let mut replies = Vec::new();
            if first.is_none() {
                replies.extend(self.parts.agent.handle(now(), Event::Tick));
            }
            let mut queries = Vec::new();
            let mut requests = 0;
            let mut next = first;
            while let Some(input) = next.take() {
                match input {
                    Input::Event(event) => {
                        // A change of Node objects may be what tells which device is the underlay.
                        if matches!(event, Event::NodeUpsert(_)) && !self.parts.underlay.found() {
                            self.underlay_due = Instant::now();
                        }
                        replies.extend(self.parts.agent.handle(now(), event));
                    }
                    Input::Cni { request, netns, reply } => {
                        requests += 1;
                        replies.extend(self.take_request(request, netns, reply));
                    }
                    Input::Query(query) => queries.push(query),
                }
                if requests < CNI_BATCH {
                    next = inputs.try_recv().ok();
                }
            }
            if Instant::now() >= self.underlay_due {
                self.look_at_underlay();
            }
            if requests > 0 {
                self.parts.node.begin_batch();
            }
            self.reconcile(replies);
            for query in queries {
                query(&mut View {
                    agent: &self.parts.agent,
                    maps: &mut self.parts.maps,
                    reconcile: &self.status,
                    now: now(),
                });
            }
        }
    }

    fn take_request(
        &mut self,
        request: CniRequest,
        netns: Option<OwnedFd>,
        reply: oneshot::Sender<cni::Reply>,
    ) -> Vec<agent_control::Reply> {
        let handle = request.netns;
        if let (Some(handle), Some(netns)) = (handle, netns) {
            self.parts.node.hold_netns(handle, netns);
        }
        let waiting =
            Waiting { reply, command: request.operation.command(), since: Instant::now(), netns: handle };
        self.waiting.insert(request.id, waiting);
        self.parts.agent.handle(now(), Event::Cni(request))
    }

    fn look_at_underlay(&mut self) {
        self.underlay_due = Instant::now() + UNDERLAY_INTERVAL;
        let node_ips = self.parts.agent.network().node_ips;
        match self.parts.underlay.look(&node_ips) {
            Ok(Some(facts)) => {
                info!(device = facts.name, ifindex = facts.ifindex, mtu = facts.mtu, "underlay device");
                for reply in self.parts.agent.handle(now(), Event::Underlay(facts)) {
                    self.answer(reply);
                }
            }
            Ok(None) => {}
            Err(problem) => warn!("{problem:#}"),
        }
    }

    fn reconcile(&mut self, replies: Vec<agent_control::Reply>) {
        let started = Instant::now();
        let since_ns = monotonic_ns();
        let report = self.parts.agent.reconcile(now(), &mut self.parts.maps, &mut self.parts.node);
        let took = started.elapsed();
        let names = self.parts.agent.take_rule_names();
        if !names.is_empty() {
            // Without a monitor nobody misses them.
            drop(self.parts.names.send(NamesChanged { since_ns, names }));
        }
        self.note(&report, took);
        for reply in replies.into_iter().chain(report.replies) {
            self.answer(reply);
        }
        self.tell_cluster(report.endpoints_touched);
        self.tell_balancers();
        self.follow_state();
    }

    fn answer(&mut self, reply: agent_control::Reply) {
        let Some(Waiting { reply: sender, command, since, netns }) = self.waiting.remove(&reply.id) else {
            return;
        };
        if let Some(handle) = netns {
            self.parts.node.release_netns(handle);
        }
        let code = match &reply.outcome {
            cni::Reply::Error { error } => Some(error.code.0),
            cni::Reply::Added { .. } | cni::Reply::Done => None,
        };
        self.parts.metrics.cni(command, code, since.elapsed());
        if let cni::Reply::Error { error } = &reply.outcome {
            warn!(command, code = error.code.0, "CNI request failed: {}", error.msg);
        }
        // The plugin may have given up waiting; the runtime then sends a DEL.
        drop(sender.send(reply.outcome));
    }

    /// Keeps the figures of one reconcile, and logs errors when they change rather than each time they are met.
    fn note(&mut self, report: &ReconcileReport, took: Duration) {
        self.status.runs += 1;
        self.status.last_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.status.pending = (report.pending + report.changing) as u64;
        let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
        if !errors.is_empty() {
            self.status.failed_runs += 1;
        }
        self.status.error = errors.first().cloned();
        for error in errors.iter().filter(|error| !self.last_errors.contains(error)) {
            error!(pending = report.pending, "reconcile: {error}");
        }
        if errors.is_empty() && !self.last_errors.is_empty() && report.pending == 0 {
            info!("reconcile: all is in place again");
        }
        self.last_errors = errors;
        self.parts.metrics.reconcile(report, took);
    }

    /// Says what the cluster shall be told, if that may have changed. After the answers: no pod waits for it.
    fn tell_cluster(&mut self, endpoints_touched: bool) {
        let Some(sender) = &self.parts.told else { return };
        let agent = &self.parts.agent;
        let is_news = self.policy_status.0 != agent.policy_news();
        // Each write of a policy's status raises the revision. Were that told at once, it would be a write of each node for each.
        let late = if is_news { Duration::ZERO } else { REVISIONS_INTERVAL };
        if self.policy_status_due + late <= Instant::now() {
            self.policy_status = (agent.policy_news(), agent.policy_status());
            self.policy_status_due = Instant::now() + POLICY_STATUS_INTERVAL;
            self.policy_status_told += 1;
        }
        let state = Some((Told::is_synced(agent), agent.policy_revision(), self.policy_status_told));
        if !endpoints_touched && self.told == state {
            return;
        }
        self.told = state;
        let told = Told::by(agent, self.policy_status.1.clone());
        sender.send_if_modified(|before| {
            let changed = *before != told;
            *before = told;
            changed
        });
    }

    /// Says what services have on this node, if that may have changed.
    fn tell_balancers(&mut self) {
        let news = self.parts.agent.service_health_news();
        if let Some(sender) = self.parts.healths.as_ref().filter(|_| news != self.healths_told)
            && let Some(healths) = self.parts.agent.service_health()
        {
            self.healths_told = news;
            sender.send_replace(healths);
        }
    }

    fn follow_state(&mut self) {
        let state = self.parts.agent.state();
        if state != self.state {
            let (name, reason) = &state;
            info!(state = ?name, reason, "agent state");
            self.state = state;
        }
        if self.state.0 == AgentState::Ready && Instant::now() >= self.conflist_due {
            self.conflist_due = Instant::now() + CONFLIST_INTERVAL;
            self.write_conflist();
        }
    }

    fn write_conflist(&mut self) {
        let Some((dir, socket)) = &self.parts.conflist else { return };
        match crate::conflist::write(dir, socket) {
            Ok(true) => info!(file = %crate::conflist::path(dir).display(), "CNI configuration written"),
            Ok(false) => {}
            Err(problem) => {
                let problem = format!("{problem:#}");
                if self.conflist_problem.as_ref() != Some(&problem) {
                    warn!("{problem}");
                }
                self.conflist_problem = Some(problem);
                return;
            }
        }
        self.conflist_problem = None;
    }
}

/// Gives out numbers for requests and descriptors.
#[derive(Debug, Default)]
pub struct Numbers(std::sync::atomic::AtomicU64);

impl Numbers {
    /// The next number; never the same twice.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

/// A request as the control thread takes it.
pub fn request(numbers: &Numbers, request: cni::Request, has_netns: bool) -> CniRequest {
    let id = numbers.next();
    CniRequest {
        id: RequestId(id),
        received: Timestamp::now(),
        netns: has_netns.then_some(NetnsHandle(id)),
        pod: request.pod(),
        operation: request.operation,
    }
}

/// What a thread that ended says to the process.
pub fn ended() -> anyhow::Error {
    anyhow!("the control thread ended; this is a mistake in the agent, its panic message is above")
}

#[cfg(test)]
impl Control {
    /// A control whose requests of the runtime are answered by `answer`; it takes no notice of anything else.
    pub(crate) fn answered_by(mut answer: impl FnMut(CniRequest) -> cni::Reply + Send + 'static) -> Self {
        let (inputs, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for input in receiver {
                if let Input::Cni { request, reply, .. } = input {
                    drop(reply.send(answer(request)));
                }
            }
        });
        Self { inputs }
    }

    /// A control whose thread has ended.
    pub(crate) fn nobody() -> Self {
        Self { inputs: mpsc::channel().0 }
    }

    /// A control that hands on the events it is told of, and nothing else.
    pub(crate) fn heard_by(mut hear: impl FnMut(Event) + Send + 'static) -> Self {
        let (inputs, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for input in receiver {
                if let Input::Event(event) = input {
                    hear(event);
                }
            }
        });
        Self { inputs }
    }
}
