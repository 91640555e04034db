//! One container of a pod, from its first start to its last end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sim_api::Store;
use sim_api::object::{name, namespace, uid};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::context::{EventKind, Events, NodeContext};
use super::environment::{self, EnvironmentError, hostname, pod_dir};
use super::log::ContainerLog;
use super::probe::{self, Outcome, Target};
use super::sandbox::{Sandbox, container_id};
use super::spec::{Container, PodSpec, RestartPolicy, expand};
use super::state::{Ended, Phase, SharedState};
use crate::container::{CANNOT_START, ContainerConfig, Mount, RUNNING};
use crate::image::{Image, unknown_image};
use crate::machine::rootfs::BIN_DIR;
use crate::state::ProcessId;

/// First pause before a container that ended runs again, and the longest (kubelet: 10 s to 5 min).
const MIN_BACKOFF: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// A container that ran this long starts with the first pause again.
const SETTLED: Duration = Duration::from_secs(600);
/// Pause before something that a container needs is looked for again.
const RETRY: Duration = Duration::from_secs(2);

/// How far a pod is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It stays.
    No,
    /// SIGTERM, and SIGKILL after this time.
    Gracefully(Duration),
    /// SIGKILL.
    Now,
}

/// What all containers of a pod share.
#[derive(Clone)]
pub(crate) struct PodContext {
    /// The node.
    pub node: Arc<NodeContext>,
    /// The cluster's objects.
    pub store: Store,
    /// The Pod object; changes with it.
    pub pod: watch::Receiver<Arc<Value>>,
    /// Its spec at the start.
    pub spec: Arc<PodSpec>,
    /// Its state.
    pub state: Arc<SharedState>,
    /// Its events.
    pub events: Arc<Events>,
    /// Whether it is to end.
    pub stop: watch::Receiver<Stop>,
}

impl PodContext {
    /// Reports about the pod.
    pub(crate) fn event(&self, kind: EventKind, reason: &str, message: &str) {
        let pod = self.pod.borrow().clone();
        self.events.report(&self.store, &self.node.name, &pod, kind, reason, message);
    }

    /// Waits until the pod is to end.
    pub(crate) async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // The sender lives as long as the pod's worker.
        let _ = stop.wait_for(|s| *s != Stop::No).await;
    }
}

/// How a run ended.
struct Run {
    ended: Ended,
    /// By a probe rather than by itself.
    killed: bool,
}

/// Runs a container until it has ended for good or the pod is to end; returns the last exit code, if it ever ran.
pub(crate) async fn run(
    pod: PodContext,
    container: Container,
    sandbox: Sandbox,
    mounts: Arc<Vec<Mount>>,
    volumes: Arc<BTreeMap<String, PathBuf>>,
    policy: RestartPolicy,
) -> Option<i32> {
    let name = container.name.clone();
    let mut attempt = 0;
    let mut backoff = MIN_BACKOFF;
    let mut last_code = None;
    loop {
        let started = Instant::now();
        let prepared = loop {
            let attempted = prepare(&pod, &container, &sandbox, &mounts, &volumes);
            match attempted {
                Ok(config) => break Some(config),
                Err((reason, message)) => {
                    pod.state
                        .container(&name, |c| c.phase = Phase::Waiting { reason, message: message.clone() });
                    pod.event(
                        EventKind::Warning,
                        if reason == "ImagePullBackOff" { "Failed" } else { reason },
                        &message,
                    );
                    tokio::select! {
                        () = pod.stopped() => break None,
                        () = sleep(RETRY) => {}
                    }
                }
            }
        };
        let Some(config) = prepared else { break };
        let run = run_once(&pod, &container, &sandbox, config, attempt).await;
        last_code = Some(run.ended.code);
        let stopping = *pod.stop.borrow() != Stop::No;
        let again =
            !stopping && (run.killed && policy != RestartPolicy::Never || policy.restarts(run.ended.code));
        if !again {
            pod.state.container(&name, |c| c.phase = Phase::Ended(run.ended));
            break;
        }
        if started.elapsed() > SETTLED {
            backoff = MIN_BACKOFF;
        }
        // The first new start comes at once, as the kubelet does it; the pauses begin with the second.
        if attempt > 0 {
            let pod_name = super::full_name(&pod.pod.borrow());
            let message =
                format!("back-off {}s restarting failed container={name} pod={pod_name}", backoff.as_secs());
            pod.event(EventKind::Warning, "BackOff", &message);
            pod.state.container(&name, |c| {
                c.last = Some(run.ended);
                c.phase = Phase::Waiting { reason: "CrashLoopBackOff", message };
            });
            tokio::select! {
                () = pod.stopped() => {
                    // What is shown last is how it ended, not that it waits.
                    pod.state.container(&name, |c| if let Some(last) = c.last.take() { c.phase = Phase::Ended(last) });
                    break;
                }
                () = sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        } else {
            pod.state.container(&name, |c| c.last = Some(run.ended));
        }
        attempt += 1;
        pod.state.container(&name, |c| c.restarts += 1);
    }
    last_code
}

/// Everything the shim needs, or why the container cannot be made now (reason and message of its waiting state).
fn prepare(
    pod: &PodContext,
    container: &Container,
    sandbox: &Sandbox,
    mounts: &[Mount],
    volumes: &BTreeMap<String, PathBuf>,
) -> Result<ContainerConfig, (&'static str, String)> {
    let object = pod.pod.borrow().clone();
    // The image is the one thing of a container that may be changed in place.
    let image = PodSpec::of(&object)
        .containers
        .iter()
        .find(|c| c.name == container.name)
        .map_or_else(|| container.image.clone(), |c| c.image.clone());
    let image = Image::by_name(&image).ok_or_else(|| ("ImagePullBackOff", unknown_image(&image)))?;
    let hostname = hostname(&object, &pod.spec, &pod.node);
    let env = environment::variables(&pod.store, &pod.node, &object, &hostname, container, &sandbox.ips)
        .map_err(|e: EnvironmentError| ("CreateContainerConfigError", crate::error_chain(&e)))?;
    let words = |list: &[String]| list.iter().map(|w| expand(w, &env)).collect::<Vec<_>>();
    let program = image.program(&words(&container.command), &words(&container.args));
    let mut all = mounts.to_vec();
    for mount in &container.volume_mounts {
        let Some(from) = volumes.get(&mount.name) else {
            return Err(("CreateContainerConfigError", format!("volume \"{}\" not found", mount.name)));
        };
        let from = if mount.sub_path.is_empty() {
            from.clone()
        } else {
            from.join(mount.sub_path.trim_start_matches('/'))
        };
        all.push(Mount { from, to: PathBuf::from(&mount.mount_path), read_only: mount.read_only });
    }
    Ok(ContainerConfig {
        hostname,
        netns: sandbox.netns.clone(),
        cgroup: Some(sandbox.cgroup.clone()),
        base: pod_dir(uid(&object)).join("containers").join(&container.name),
        mounts: all,
        program,
        env,
        working_dir: container.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
    })
}

async fn run_once(
    pod: &PodContext,
    container: &Container,
    sandbox: &Sandbox,
    config: ContainerConfig,
    attempt: u32,
) -> Run {
    let started = pod.store.now();
    let object = pod.pod.borrow().clone();
    let id = format!("bristle-lab://{}", container_id(uid(&object), &container.name, attempt));
    let fail = |message: String| {
        pod.event(EventKind::Warning, "Failed", &format!("Error: {message}"));
        let ended = Ended {
            code: CANNOT_START.into(),
            reason: "StartError",
            message,
            started,
            finished: pod.store.now(),
            id: id.clone(),
        };
        Run { ended, killed: false }
    };
    let dir = format!("{}_{}_{}", namespace(&object), name(&object), uid(&object));
    let path = pod.node.logs.join(dir).join(&container.name).join(format!("{attempt}.log"));
    let log = match ContainerLog::create(path) {
        Ok(log) => log,
        Err(e) => return fail(format!("open the log: {e}")),
    };
    let (mut child, control) = match spawn(&pod.node, &config).await {
        Ok(started) => started,
        Err(e) => return fail(format!("start the shim: {e}")),
    };
    let Some(shim) = child.id().and_then(ProcessId::of) else {
        return fail("the shim ended at once".to_owned());
    };
    let mut copies = JoinSet::new();
    if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
        copies.spawn(Arc::clone(&log).copy("stdout", out));
        copies.spawn(Arc::clone(&log).copy("stderr", err));
    }
    pod.state.container(&container.name, |c| c.logs = [Some(Arc::clone(&log)), c.logs[0].take()]);
    let (answers, mut control) = control.into_split();
    let (mut answers, mut answer) = (BufReader::new(answers), String::new());
    let running = tokio::select! {
        read = answers.read_line(&mut answer) => read.is_ok() && answer == RUNNING,
        () = pod.stopped() => false,
    };
    let (unhealthy, mut must_end) = mpsc::channel(1);
    let mut probes = JoinSet::new();
    if running {
        pod.state.container(&container.name, |c| {
            c.phase = Phase::Running { since: started, shim, id: id.clone() };
            c.started = container.startup_probe.is_none();
            c.ready = c.started && container.readiness_probe.is_none();
        });
        pod.event(EventKind::Normal, "Started", &format!("Started container {}", container.name));
        probes = start_probes(pod, container, shim, sandbox.ips.first().copied(), unhealthy);
    }
    let mut killed = false;
    let status = tokio::select! {
        status = child.wait() => status,
        () = pod.stopped() => {
            let stop = *pod.stop.borrow();
            end(pod, &mut child, &mut control, stop).await
        }
        Some(()) = must_end.recv(), if running => {
            killed = true;
            end(pod, &mut child, &mut control, Stop::Gracefully(grace(&pod.spec))).await
        }
    };
    drop((probes, control));
    // What the container wrote last is read before it counts as ended; something it left behind may hold the pipe open.
    let _ = timeout(Duration::from_millis(500), async { while copies.join_next().await.is_some() {} }).await;
    log.end();
    let code = status.ok().and_then(|s| s.code()).unwrap_or(137);
    let cannot_start = !running && *pod.stop.borrow() == Stop::No;
    let reason = match code {
        0 => "Completed",
        _ if cannot_start => "StartError",
        _ => "Error",
    };
    let message = if cannot_start { log.tail(1).trim().to_owned() } else { String::new() };
    pod.state.container(&container.name, |c| (c.ready, c.started) = (false, false));
    Run { ended: Ended { code, reason, message, started, finished: pod.store.now(), id }, killed }
}

/// Grace of the spec, 30 s without.
pub(crate) fn grace(spec: &PodSpec) -> Duration {
    Duration::from_secs(spec.termination_grace_period_seconds.unwrap_or(30))
}

async fn spawn(node: &Arc<NodeContext>, config: &ContainerConfig) -> std::io::Result<(Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut control = UnixStream::from_std(ours)?;
    let runtime = tokio::runtime::Handle::current();
    let spawned = node.ns.run(move || {
        let _guard = runtime.enter();
        Command::new(format!("{BIN_DIR}/bristle-lab"))
            .arg("shim")
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
    });
    let child = spawned.await.map_err(std::io::Error::other)??;
    let line = serde_json::to_string(config).map_err(std::io::Error::other)? + "\n";
    control.write_all(line.as_bytes()).await?;
    Ok((child, control))
}

/// Ends a container: SIGTERM, then SIGKILL when its time is over. A later, stricter order of the pod shortens the time.
async fn end(
    pod: &PodContext,
    child: &mut Child,
    control: &mut OwnedWriteHalf,
    stop: Stop,
) -> std::io::Result<std::process::ExitStatus> {
    if let Stop::Gracefully(grace) = stop {
        let _ = control.write_all(b"signal 15\n").await;
        let mut orders = pod.stop.clone();
        let stricter = async {
            if orders.wait_for(|s| *s == Stop::Now).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            status = child.wait() => return status,
            () = sleep(grace) => {}
            () = stricter => {}
        }
    }
    let _ = control.write_all(b"signal 9\n").await;
    // The shim follows its container; should it hang, it goes too, and with it the container.
    if let Ok(status) = timeout(Duration::from_secs(2), child.wait()).await {
        return status;
    }
    child.start_kill()?;
    child.wait().await
}

fn start_probes(
    pod: &PodContext,
    container: &Container,
    shim: ProcessId,
    ip: Option<IpAddr>,
    unhealthy: mpsc::Sender<()>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let target = Target { node: Arc::clone(&pod.node), container: container.clone(), shim, ip };
    let context = pod.clone();
    let container = container.clone();
    tasks.spawn(async move {
        if let Some(probe) = container.startup_probe.clone() {
            let (done, mut wait) = mpsc::channel(1);
            let fail = unhealthy.clone();
            let report = |outcome| match outcome {
                Outcome::Success => drop(done.try_send(())),
                Outcome::Failure(why) => {
                    context.event(EventKind::Warning, "Unhealthy", &format!("Startup probe failed: {why}"));
                    let _ = fail.try_send(());
                }
            };
            tokio::select! {
                () = probe::watch(target.clone(), probe, report) => {}
                _ = wait.recv() => {}
            }
            let ready = container.readiness_probe.is_none();
            context.state.container(&container.name, |c| (c.started, c.ready) = (true, ready));
        }
        let readiness = async {
            if let Some(probe) = container.readiness_probe.clone() {
                let report = |outcome: Outcome| {
                    if let Outcome::Failure(why) = &outcome {
                        context.event(
                            EventKind::Warning,
                            "Unhealthy",
                            &format!("Readiness probe failed: {why}"),
                        );
                    }
                    let ready = outcome == Outcome::Success;
                    if context.state.lock().containers.get(&container.name).is_some_and(|c| c.ready != ready)
                    {
                        context.state.container(&container.name, |c| c.ready = ready);
                    }
                };
                probe::watch(target.clone(), probe, report).await;
            }
        };
        let liveness = async {
            if let Some(probe) = container.liveness_probe.clone() {
                let report = |outcome| {
                    if let Outcome::Failure(why) = outcome {
                        context.event(
                            EventKind::Warning,
                            "Unhealthy",
                            &format!("Liveness probe failed: {why}"),
                        );
                        context.event(
                            EventKind::Normal,
                            "Killing",
                            &format!("Container {} failed liveness probe, will be restarted", container.name),
                        );
                        let _ = unhealthy.try_send(());
                    }
                };
                probe::watch(target.clone(), probe, report).await;
            }
        };
        tokio::join!(readiness, liveness);
    });
    tasks
}
