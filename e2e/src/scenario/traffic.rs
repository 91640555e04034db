//! Traffic: a client in the sending pod or node, and what it says of its messages while it goes on.

use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, bail};
use lab::Cluster;
use lab::machine::rootfs::BIN_DIR;
use lab::traffic::{Tally, Told};
use sim_scenario::answers::{Answers, Wanted, pod_name};
use sim_scenario::flows::{self, AFTERMATH, Packets};
use sim_scenario::model::{Families, Place, Traffic, TrafficExpect, TrafficKind, World};
use sim_scenario::outcome::TrafficOutcome;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::flows::Monitors;
use super::{Arm, objects};

/// What is known of traffic.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Both families together.
    pub(super) tally: Tally,
    /// Who has answered, where answers say it.
    answers: Answers,
    /// When a message was last answered.
    pub(super) last_answer: Option<Instant>,
    /// It has ended.
    pub(super) ended: bool,
    /// When it ended.
    ended_at: Option<Instant>,
    /// Why it could not be sent.
    pub(super) problem: Option<String>,
}

impl Progress {
    /// It has ended, and what is told now may still be of it.
    pub(super) fn is_just_over(&self) -> bool {
        self.ended_at.is_some_and(|at| at.elapsed() <= AFTERMATH)
    }
}

/// Traffic that goes on or has ended; it ends when dropped.
#[derive(Debug)]
pub(super) struct Running {
    /// What it is.
    pub(super) traffic: Traffic,
    /// How many messages it shall be.
    pub(super) wanted: u32,
    progress: Arc<Mutex<Progress>>,
    /// What answers must be like.
    who: Wanted,
    /// Which packets are its own, for each family; empty: that is not known before.
    packets: Vec<Packets>,
    begun: Instant,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts clients, one after the other for two families. What cannot be started is noted, as nothing is answered then either.
    pub(super) async fn start(arm: &Arm, traffic: &Traffic, families: Families) -> Self {
        let progress: Arc<Mutex<Progress>> = Arc::default();
        let v4 = match traffic.family {
            Some(Families::Dual) => vec![true, false],
            Some(family) => vec![family == Families::V4],
            None => vec![match &traffic.to {
                Place::Address(address) => address.is_ipv4(),
                _ => families != Families::V6,
            }],
        };
        let (mut commands, mut packets) = (Vec::new(), Vec::new());
        for v4 in v4 {
            packets.extend(own_packets(arm, traffic, v4).await);
            match command(arm, traffic, v4).await {
                Ok(command) => commands.push(command),
                Err(e) => {
                    let mut progress = locked(&progress);
                    progress.problem = Some(format!("{e:#}"));
                    progress.tally.sent += traffic.count;
                }
            }
        }
        let who = match wanted(arm, traffic).await {
            Ok(wanted) => wanted,
            Err(e) => {
                locked(&progress).problem.get_or_insert_with(|| format!("{e:#}"));
                Wanted::default()
            }
        };
        let runs = if traffic.family == Some(Families::Dual) { 2 } else { 1 };
        let wanted = traffic.count.saturating_mul(runs);
        let task = tokio::spawn(run(commands, Arc::clone(&progress)));
        Self { traffic: traffic.clone(), wanted, progress, who, packets, begun: Instant::now(), task }
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        locked(&self.progress).clone()
    }

    /// Messages that were not answered so far.
    pub(super) fn lost(&self) -> u32 {
        let tally = self.progress().tally;
        tally.sent.saturating_sub(tally.answered)
    }

    /// What came of it, with what monitors have told of it.
    pub(super) fn outcome(&self, monitors: &Monitors) -> TrafficOutcome {
        let Progress { tally, ended_at, .. } = self.progress();
        TrafficOutcome {
            sent: tally.sent,
            answered: tally.answered,
            resets: tally.resets,
            verdict: verdict(&tally).to_owned(),
            flows: ended_at.and_then(|ended| monitors.of(&self.packets, self.begun, ended)),
        }
    }

    /// What is not as it shall be; `healed` is when faults ended. Those that went on after it ask nothing of it.
    pub(super) fn failure(&self, healed: &[Instant]) -> Option<String> {
        let progress = self.progress();
        if let Some(why) = self.who.wrong(&progress.answers) {
            return Some(format!("traffic {}: {why}", self.traffic.id));
        }
        let Tally { sent, answered, resets, errors } = progress.tally;
        let Traffic { id, expect, background, .. } = &self.traffic;
        let why = progress.problem.map(|why| format!(" ({why})")).unwrap_or_default();
        let told = format!(
            "traffic {id}: {answered} of {sent} answered, {resets} resets, {errors} ICMP errors{why}"
        );
        let whole = sent == self.wanted || *background && sent > 0;
        match expect {
            TrafficExpect::Any => None,
            TrafficExpect::Ok if whole && answered == sent && resets == 0 => None,
            TrafficExpect::Ok if !whole => Some(format!("{told}; it ended before its {}", self.wanted)),
            TrafficExpect::Ok => Some(format!("{told}; all shall be answered")),
            TrafficExpect::Fail if answered == 0 => None,
            TrafficExpect::Fail => Some(format!("{told}; none shall be answered")),
            TrafficExpect::Refused if answered == 0 && sent > 0 && resets + errors >= sent => None,
            TrafficExpect::Refused => Some(format!("{told}; each shall be refused")),
            TrafficExpect::Survive if resets > 0 => Some(format!("{told}; connections shall stay alive")),
            TrafficExpect::Survive => match (progress.last_answer, last_before(healed, progress.ended_at)) {
                (None, _) => Some(format!("{told}; it shall survive")),
                (Some(last), Some(healed)) if last < healed => {
                    Some(format!("{told}; none was answered after the last fault ended"))
                }
                _ => None,
            },
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The last of some moments that was before the end, if there was one.
fn last_before(moments: &[Instant], end: Option<Instant>) -> Option<Instant> {
    moments.iter().copied().filter(|at| end.is_none_or(|end| *at < end)).max()
}

fn locked(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

fn verdict(tally: &Tally) -> &'static str {
    if tally.answered > 0 && tally.answered == tally.sent {
        "ok"
    } else if tally.answered > 0 {
        "lost"
    } else if tally.resets > 0 || tally.errors > 0 {
        "refused"
    } else {
        "silent"
    }
}

/// Runs the clients and takes in what they say.
async fn run(commands: Vec<Command>, progress: Arc<Mutex<Progress>>) {
    for mut command in commands {
        if let Err(e) = follow(&mut command, &progress).await {
            locked(&progress).problem = Some(format!("{e:#}"));
        }
    }
    let mut progress = locked(&progress);
    progress.ended = true;
    progress.ended_at = Some(Instant::now());
}

async fn follow(command: &mut Command, progress: &Mutex<Progress>) -> anyhow::Result<()> {
    let (before, answers) = {
        let before = locked(progress);
        (before.tally, before.answers.clone())
    };
    let mut child: Child = command.spawn().context("start the client")?;
    let mut lines = BufReader::new(child.stdout.take().context("standard output is piped")?).lines();
    let complaint = child.stderr.take().context("standard error is piped")?;
    let complaint = tokio::spawn(read_all(complaint));
    while let Some(line) = lines.next_line().await.context("read from the client")? {
        let Told { tally: now, answers: told } =
            serde_json::from_str(&line).with_context(|| format!("the client said `{line}`"))?;
        let mut progress = locked(progress);
        progress.answers.clone_from(&answers);
        for answer in told {
            progress.answers.add(answer.server, answer.caller, answer.count);
        }
        let answered = before.answered + now.answered;
        if answered > progress.tally.answered {
            progress.last_answer = Some(Instant::now());
        }
        progress.tally = Tally {
            sent: before.sent + now.sent,
            answered,
            resets: before.resets + now.resets,
            errors: before.errors + now.errors,
        };
    }
    let status = child.wait().await.context("wait for the client")?;
    let complaint = complaint.await.unwrap_or_default();
    // Not everything answered is its exit code 1; it complains of nothing then.
    if !status.success() && !complaint.trim().is_empty() {
        bail!("the client ended with {status}: {}", complaint.trim());
    }
    Ok(())
}

async fn read_all(mut from: impl tokio::io::AsyncRead + Unpin) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut text = String::new();
    let _ = from.read_to_string(&mut text).await;
    text
}

/// The client for one family, as it is started inside the sender.
async fn command(arm: &Arm, traffic: &Traffic, v4: bool) -> anyhow::Result<Command> {
    let cluster = &arm.cluster;
    let mut command = Command::new(cluster.bins().lab());
    command.arg("node-exec");
    match &traffic.from {
        Place::Node(name) => {
            let machine = cluster.node(name)?.machine();
            command.args(["--pid", &machine.pid().to_string()]);
            if let Some(cgroup) = machine.cgroup() {
                command.arg("--cgroup").arg(cgroup);
            }
        }
        Place::Pod { namespace, name } => {
            let found = cluster.kubelets().container_process(namespace, name, None);
            let (process, cgroup) = found.with_context(|| format!("pod {namespace}/{name} does not run"))?;
            command.args(["--pid", &process.pid.to_string()]).arg("--cgroup").arg(cgroup);
        }
        other => bail!("{other} cannot send"),
    }
    let kind = match traffic.kind {
        TrafficKind::Ping => "ping",
        TrafficKind::Http => "http",
        TrafficKind::Tcp => "tcp",
        TrafficKind::Udp => "udp",
    };
    let to = address(arm, &traffic.to, v4).await?;
    command.arg("--").arg(Path::new(BIN_DIR).join("bristle-lab")).args(["traffic", kind, &to.to_string()]);
    for (flag, value) in [
        ("--port", u128::from(traffic.port.unwrap_or(0))),
        ("--count", traffic.count.into()),
        ("--interval-us", traffic.interval.as_micros()),
        ("--size", traffic.size.into()),
        ("--timeout-us", traffic.timeout.as_micros()),
    ] {
        command.args([flag, &value.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// What answers to traffic must be like, with the addresses of those who are named.
async fn wanted(arm: &Arm, traffic: &Traffic) -> anyhow::Result<Wanted> {
    let mut wanted = Wanted { by: traffic.answered_by.clone(), ..Wanted::default() };
    if let Some(by) = &traffic.answered_by {
        let named: Vec<String> = by.pods().iter().map(|pod| pod_name(pod)).collect();
        let mut pods = objects::Pods::list(&arm.client).await?.addresses();
        // Pods in a node's network share its address: it is of those that are named.
        pods.sort_by_key(|(name, _)| named.contains(name));
        for (name, addresses) in pods {
            wanted.servers.extend(addresses.into_iter().map(|ip| (ip, name.clone())));
        }
    }
    if let Some(place) = &traffic.seen_as {
        wanted.callers = Some(addresses(arm, place).await?.into_iter().collect());
    }
    Ok(wanted)
}

/// What its packets are like; `None`: a service chooses whom they go to, or an end has no address.
async fn own_packets(arm: &Arm, traffic: &Traffic, v4: bool) -> Option<Packets> {
    let Traffic { from, to, kind, port, .. } = traffic;
    if !flows::are_known(traffic) {
        return None;
    }
    let sender = if flows::keep_sender(traffic) { Some(address(arm, from, v4).await.ok()?) } else { None };
    Some(Packets { kind: *kind, from: sender, to: address(arm, to, v4).await.ok()?, port: *port })
}

/// The address of a place in one family.
async fn address(arm: &Arm, place: &Place, v4: bool) -> anyhow::Result<IpAddr> {
    let family = if v4 { "IPv4" } else { "IPv6" };
    let found = addresses(arm, place).await?.into_iter().find(|address| address.is_ipv4() == v4);
    found.with_context(|| format!("{place} has no {family} address"))
}

/// All addresses of a place.
async fn addresses(arm: &Arm, place: &Place) -> anyhow::Result<Vec<IpAddr>> {
    let node = |name: &str, cluster: &Cluster| cluster.node(name).map(lab::cluster::Node::addresses);
    Ok(match place {
        Place::Address(address) => vec![*address],
        Place::Pod { namespace, name } => objects::pod_addresses(&arm.client, namespace, name).await?,
        Place::Service { namespace, name } => service_addresses(arm, namespace, name).await?,
        Place::Node(name) | Place::NodePort(name) => node(name, &arm.cluster)?,
        Place::World(world) => {
            let [first, second] = arm.cluster.plan().outside_servers();
            match world {
                World::First => first,
                World::Second => second,
            }
        }
    })
}

/// Cluster addresses of a service, or those that it had when it was last called.
async fn service_addresses(arm: &Arm, namespace: &str, name: &str) -> anyhow::Result<Vec<IpAddr>> {
    let now = objects::service_addresses(&arm.client, namespace, name).await?;
    let mut known = arm.services.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.entry(format!("{namespace}/{name}")).or_default();
    if !now.is_empty() {
        known.clone_from(&now);
    }
    Ok(known.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn running(expect: TrafficExpect, progress: Progress) -> Running {
        let pod = |name: &str| Place::Pod { namespace: "default".into(), name: name.into() };
        let traffic =
            Traffic { expect, count: 4, ..Traffic::new("t", pod("a"), pod("b"), TrafficKind::Ping) };
        let (packets, begun, progress) = (Vec::new(), Instant::now(), Arc::new(Mutex::new(progress)));
        let who = Wanted::default();
        Running { traffic, wanted: 4, progress, who, packets, begun, task: tokio::spawn(async {}) }
    }

    fn tally(sent: u32, answered: u32, resets: u32) -> Tally {
        Tally { sent, answered, resets, errors: 0 }
    }

    #[tokio::test]
    async fn each_expectation_is_judged_by_the_numbers() {
        use TrafficExpect::{Any, Fail, Ok, Refused, Survive};
        for (expect, tally, good) in [
            (Ok, tally(4, 4, 0), true),
            (Ok, tally(4, 3, 0), false),
            (Ok, tally(3, 3, 0), false),
            (Ok, tally(4, 4, 1), false),
            (Fail, tally(4, 0, 4), true),
            (Fail, tally(4, 1, 0), false),
            (Refused, tally(4, 0, 4), true),
            (Refused, tally(4, 0, 3), false),
            (Refused, tally(4, 1, 3), false),
            (Refused, tally(0, 0, 0), false),
            (Any, tally(0, 0, 0), true),
            (Survive, tally(4, 1, 0), true),
            (Survive, tally(4, 1, 1), false),
            (Survive, tally(4, 0, 0), false),
        ] {
            let last_answer = (tally.answered > 0).then(Instant::now);
            let progress = Progress { tally, last_answer, ended: true, ..Progress::default() };
            assert_eq!(running(expect, progress).failure(&[]).is_none(), good, "{expect:?} {tally:?}");
        }
    }

    #[tokio::test]
    async fn what_survives_is_answered_after_the_last_fault() {
        let before = Instant::now();
        let healed = before + Duration::from_secs(1);
        let after = healed + Duration::from_secs(1);
        for (last, ended, good) in [
            (after, None, true),
            (before, None, false),
            (before, Some(before), true),
            (before, Some(after), false),
        ] {
            let (tally, last_answer) = (tally(4, 2, 0), Some(last));
            let progress =
                Progress { tally, last_answer, ended: true, ended_at: ended, ..Progress::default() };
            let failure = running(TrafficExpect::Survive, progress).failure(&[before, healed]);
            assert_eq!(failure.is_none(), good, "{failure:?}");
        }
    }

    #[test]
    fn verdicts_are_the_words_of_outcomes() {
        for (tally, word) in [
            (tally(4, 4, 0), "ok"),
            (tally(4, 2, 1), "lost"),
            (tally(4, 0, 1), "refused"),
            (Tally { errors: 1, ..tally(4, 0, 0) }, "refused"),
            (tally(4, 0, 0), "silent"),
            (tally(0, 0, 0), "silent"),
        ] {
            assert_eq!(verdict(&tally), word, "{tally:?}");
        }
    }
}
