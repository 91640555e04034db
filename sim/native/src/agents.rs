//! Agents: the real minds, what they are told, their lives and deaths.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use agent_control::ports::Document;
use agent_control::{Agent, Config, Event, Now, PolicyConfig, ReconcileReport, Reply, ServiceTranslation};
use sim_net::{Server, ServerKind};
use sim_scenario::model::{Routing, Translation};

use crate::cni::Call;
use crate::listen::{KINDS, Watches};
use crate::node::UPTIME;
use crate::ports::Commands;
use crate::queue::{NodeId, Task};
use crate::watch::{PAUSES, Watch};
use crate::world::World;

/// Snapshots of the state directory that are kept for each node.
const SNAPSHOTS: usize = 64;

/// How an agent ends, and how the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Death {
    /// The next one is started so much later.
    pub(crate) restart_after: Duration,
    /// It finds the state directory as it was so much before.
    pub(crate) snapshot_age: Duration,
}

/// The process of a node's agent.
#[derive(Debug, Default)]
pub(crate) struct AgentProcess {
    /// The mind; `None` while it runs and while there is none.
    pub(crate) agent: Option<Agent>,
    /// There is a process.
    pub(crate) alive: bool,
    /// It is in the middle of a reconcile.
    pub(crate) running: bool,
    /// What it has not taken yet.
    pub(crate) inbox: VecDeque<Event>,
    /// When it is due next.
    pub(crate) due: Option<Duration>,
    /// Calls that wait for its answer.
    pub(crate) calls: BTreeMap<u64, Call>,
    /// Its view of the API server.
    pub(crate) watch: Watch,
    /// Its view of the other objects.
    pub(crate) watches: Watches,
    /// When what it tells the cluster is looked at next.
    pub(crate) publisher_due: Option<Duration>,
    /// Before the next try to tell.
    pub(crate) publisher_pause: Duration,
    /// Whether it has told all, where that has been looked at.
    pub(crate) told: Cell<Option<bool>>,
    /// It stands still until then.
    pub(crate) stalled_until: Duration,
    /// Its last reconcile left nothing to do.
    pub(crate) idle: bool,
    /// How many lives before this one.
    pub(crate) life: u64,
    /// How it will end when its commands are used up.
    pub(crate) death: Death,
    /// When the last life ended.
    pub(crate) died: Option<Duration>,
    /// How often in a row it has wanted to go on at once.
    pub(crate) hurried: u32,
}

/// An agent that has wanted to go on at once so often in a row will go on for ever: the longest work that is cut into pieces, a look
/// through full tables, has far fewer.
const MOST_HURRIED: u32 = 5_000;

/// Ports by which masqueraded connections leave a node: of every second one so few that they meet.
pub(crate) const fn snat_ports(n: NodeId) -> std::ops::RangeInclusive<u16> {
    if n.is_multiple_of(2) { agent_control::SNAT_PORTS } else { 40_000..=40_063 }
}

impl World {
    /// What the agent's clock says.
    pub(crate) fn agent_now(&self, n: NodeId) -> Now {
        Now::since_boot(UPTIME + self.now + self.nodes[n].skew)
    }

    /// Starts the agent of a node.
    pub(crate) fn start_agent(&mut self, n: NodeId, life: u64) {
        let process = &self.nodes[n].agent;
        if process.alive || process.life != life {
            return;
        }
        let routing = match self.cluster.routing {
            Routing::Vxlan => agent_control::Routing::Vxlan,
            Routing::Native => agent_control::Routing::Native,
        };
        let identities = self.has_identities();
        let mut policy = PolicyConfig::default();
        crate::modes::tell(&mut policy, self.oracle.options());
        let kube_proxy_replacement = self.cluster.kube_proxy_replacement;
        let masquerade = self.cluster.masquerade;
        let translation = match self.cluster.service_translation {
            Translation::Socket => ServiceTranslation::Socket,
            Translation::Packet => ServiceTranslation::Packet,
            Translation::Both => ServiceTranslation::Both,
        };
        let node = &mut self.nodes[n];
        let mut config = Config::new(node.name.clone(), routing);
        config.quarantine = self.quarantine;
        config.kube_proxy_replacement = kube_proxy_replacement;
        config.service_translation = translation;
        config.masquerade.ipv4 = masquerade;
        config.masquerade.ipv6 = masquerade;
        config.masquerade.ports = snat_ports(n);
        config.policy = identities.then_some(policy);
        let agent = Agent::new(config, node.memory.documents());
        let device = node.device();
        node.commands = Commands::default();
        let process = &mut node.agent;
        process.agent = Some(agent);
        process.alive = true;
        process.running = false;
        process.idle = false;
        process.watch = Watch::default();
        process.publisher_due = None;
        process.publisher_pause = PAUSES.0;
        process.told.set(None);
        process.inbox.push_back(Event::Underlay(device));
        self.staged_unread(n);
        // It listens before it reads the queue of what came meanwhile.
        self.replay_queue(n);
        if self.nodes[n].listened {
            self.nodes[n].agent.inbox.push_back(Event::Listeners(true));
        }
        self.note(n, "agent starts", life);
        self.wake_agent(n, Duration::ZERO);
        let pause = self.first_list(KINDS - 1);
        self.wake_watch(n, pause);
        self.begin_to_listen(n);
    }

    /// Kills the agent of a node, wherever it is.
    pub(crate) fn kill_agent(&mut self, n: NodeId, death: Death) {
        let node = &mut self.nodes[n];
        if !node.agent.alive {
            return;
        }
        node.agent.death = death;
        if node.agent.running {
            // It notices at its next command, which has no effect any more.
            node.commands.dead = true;
        } else {
            self.agent_died(n);
        }
    }

    /// Cleans up behind a process that is gone.
    pub(crate) fn agent_died(&mut self, n: NodeId) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let process = &mut node.agent;
        let death = std::mem::take(&mut process.death);
        process.agent = None;
        process.alive = false;
        process.running = false;
        process.inbox.clear();
        process.due = None;
        process.life += 1;
        process.died = Some(now);
        let life = process.life;
        let calls = std::mem::take(&mut process.calls);
        if !death.snapshot_age.is_zero() {
            node.restored = true;
            restore(node, now.saturating_sub(death.snapshot_age));
        }
        for (_, call) in calls {
            self.connection_lost(n, call);
        }
        self.follow_health(n);
        self.note(n, "agent died", life);
        self.after(death.restart_after, Task::StartAgent(n, life));
    }

    /// The agent's process listens where services ask whether the node has endpoints of them, and not where they do no more.
    fn follow_health(&mut self, n: NodeId) {
        let node = &mut self.nodes[n];
        let wanted = match &node.agent.agent {
            Some(agent) => agent.service_health(),
            None => Some(Vec::new()),
        };
        let Some(wanted) = wanted else { return };
        let wanted: BTreeMap<u16, bool> =
            wanted.iter().map(|health| (health.port, health.local_endpoints > 0)).collect();
        for port in node.health_ports.keys().filter(|port| !wanted.contains_key(port)) {
            node.stack.close(*port);
        }
        for (port, healthy) in &wanted {
            let kind = if *healthy { ServerKind::Http } else { ServerKind::HttpFails };
            node.stack.serve(Server { kind, port: *port });
        }
        node.health_ports = wanted;
    }

    /// Makes the agent run soon.
    pub(crate) fn wake_agent(&mut self, n: NodeId, after: Duration) {
        let at = self.now + after;
        let process = &mut self.nodes[n].agent;
        let at = at.max(process.stalled_until);
        if !process.alive || process.due.is_some_and(|due| due <= at) {
            return;
        }
        process.due = Some(at);
        self.push(at, Task::Agent(n));
    }

    /// Tells the agent something.
    pub(crate) fn tell_agent(&mut self, n: NodeId, event: Event) {
        if self.nodes[n].agent.alive {
            self.nodes[n].agent.inbox.push_back(event);
            let after = self.latency(Duration::from_millis(1));
            self.wake_agent(n, after);
        }
    }

    /// Takes the mind and what it shall take in; `None` if it is not due.
    pub(crate) fn begin_agent(&mut self, n: NodeId, at: Duration) -> Option<(Agent, Now, Vec<Event>)> {
        let process = &mut self.nodes[n].agent;
        if process.due != Some(at) {
            return None;
        }
        process.due = None;
        if !process.alive || process.running {
            return None;
        }
        if process.stalled_until > self.now {
            self.wake_agent(n, Duration::ZERO);
            return None;
        }
        self.stats.reconciles += 1;
        let waiting = self.nodes[n].agent.inbox.len();
        // Usually all that waits, as the daemon does; now and then only the first of it.
        let take = if self.one_by_one {
            1
        } else if waiting > 1 && self.rng.chance(0.25) {
            1 + usize::try_from(self.rng.below(waiting as u64)).unwrap_or(0)
        } else {
            waiting
        };
        let now = self.agent_now(n);
        let process = &mut self.nodes[n].agent;
        let mut events: Vec<Event> = process.inbox.drain(..take.min(waiting)).collect();
        if process.inbox.is_empty() {
            // After a list of all nodes there is room for as many events again, in every agent.
            process.inbox = VecDeque::new();
        }
        if events.is_empty() {
            events.push(Event::Tick);
        }
        if self.rng.chance(0.04) {
            events.push(Event::CtGc);
        }
        self.stats.events += events.len() as u64;
        let agent = process.agent.take()?;
        process.running = true;
        Some((agent, now, events))
    }

    /// Puts the mind back, hands out its answers and sees when it is due again.
    pub(crate) fn end_agent(
        &mut self,
        n: NodeId,
        agent: Agent,
        replies: Vec<Reply>,
        report: ReconcileReport,
    ) {
        let node = &mut self.nodes[n];
        node.agent.running = false;
        if node.commands.dead {
            drop(agent);
            self.agent_died(n);
            return;
        }
        let deadline = agent.next_deadline();
        let has_written_all = report.pending == 0 && report.errors.is_empty();
        node.agent.idle = has_written_all && report.changing == 0;
        node.agent.agent = Some(agent);
        node.agent.told.set(None);
        self.follow_health(n);
        if !self.has_told_all(n) {
            let after = self.latency(Duration::from_millis(10));
            self.wake_publisher(n, after);
        }
        for reply in replies.into_iter().chain(report.replies) {
            self.agent_answers(n, reply);
        }
        if has_written_all {
            self.note_identities(n);
        }
        self.check_half_made(n);
        if !self.nodes[n].agent.inbox.is_empty() {
            let after = self.latency(Duration::from_millis(1));
            self.wake_agent(n, after);
        } else if let Some(deadline) = deadline {
            let at = deadline.as_duration().saturating_sub(UPTIME + self.nodes[n].skew);
            // Never at once again: a loop of ours would stop time.
            let after = at.saturating_sub(self.now).max(Duration::from_micros(500));
            self.wake_agent(n, after);
            self.check_hurry(n, at <= self.now);
        }
    }

    /// Nobody does the same again and again without a pause.
    fn check_hurry(&mut self, n: NodeId, at_once: bool) {
        let process = &mut self.nodes[n].agent;
        process.hurried = if at_once { process.hurried + 1 } else { 0 };
        if process.hurried == MOST_HURRIED {
            let message = format!("the agent of {} always has something to do at once", self.nodes[n].name);
            self.violate("busy", message);
        }
    }

    /// Remembers the state directory as it is now.
    pub(crate) fn keep_snapshot(&mut self, n: NodeId) {
        if !self.cluster_faults.snapshots {
            return;
        }
        let now = self.now;
        let node = &mut self.nodes[n];
        node.snapshots.push_back((now, node.memory.documents()));
        if node.snapshots.len() > SNAPSHOTS {
            node.snapshots.pop_front();
        }
    }
}

/// Puts the state directory back to what it was at a moment; the oldest that is known if that is not long enough ago.
fn restore(node: &mut crate::node::SimNode, moment: Duration) {
    let known = node.snapshots.iter().rev().find(|(at, _)| *at <= moment).or(node.snapshots.front());
    let Some(documents) = known.map(|(_, documents)| documents.clone()) else { return };
    for Document { name, .. } in node.memory.documents() {
        node.memory.set_document(&name, None);
    }
    for Document { name, content } in documents {
        node.memory.set_document(&name, Some(content));
    }
}
