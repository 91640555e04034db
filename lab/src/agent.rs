//! A node's agent process, or the operator: started inside its machine, started again when it ends, under the control of tests.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::machine::rootfs::BIN_DIR;
use crate::ns::NsSet;
use crate::state::ProcessId;

/// First pause before an agent that ended by itself is started again; doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// An agent that ran this long has not failed at its start.
const SETTLED: Duration = Duration::from_secs(10);

/// How an agent is started.
#[derive(Debug, Clone)]
pub struct AgentCommand {
    /// The program, as the node sees it.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment besides `PATH`.
    pub env: BTreeMap<String, String>,
    /// Where its output goes, on the host; appended to.
    pub log: PathBuf,
    /// What it is, for logs.
    pub what: &'static str,
}

impl AgentCommand {
    /// The agent of this build.
    pub fn new(args: Vec<String>, log: PathBuf) -> Self {
        Self {
            program: Path::new(BIN_DIR).join("bristle-agent"),
            args,
            env: BTreeMap::new(),
            log,
            what: "agent",
        }
    }

    /// The operator at `program`.
    pub fn operator(program: PathBuf, args: Vec<String>, log: PathBuf) -> Self {
        Self { program, args, env: BTreeMap::new(), log, what: "operator" }
    }
}

#[derive(Debug)]
struct Shared {
    command: Mutex<AgentCommand>,
    process: watch::Sender<Option<ProcessId>>,
    starts: watch::Sender<u64>,
    wanted: watch::Sender<bool>,
    /// Set by [`AgentControl::kill`]: what happens next was asked for, so there is no pause before the next start.
    asked: Mutex<bool>,
}

/// Control over one node's agent. Dropping it ends the process.
#[derive(Debug)]
pub struct Agent {
    control: AgentControl,
    task: JoinHandle<()>,
}

/// A handle on an [`Agent`] that does not keep it.
#[derive(Debug, Clone)]
pub struct AgentControl(Arc<Shared>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    /// Starts the agent inside the node and keeps it running.
    pub fn start(node: &str, ns: Arc<NsSet>, command: AgentCommand) -> Self {
        let shared = Arc::new(Shared {
            command: Mutex::new(command),
            process: watch::Sender::new(None),
            starts: watch::Sender::new(0),
            wanted: watch::Sender::new(true),
            asked: Mutex::new(false),
        });
        let task = tokio::spawn(keep_running(node.to_owned(), ns, Arc::clone(&shared)));
        Self { control: AgentControl(shared), task }
    }

    /// A further handle.
    pub fn control(&self) -> AgentControl {
        self.control.clone()
    }
}

impl std::ops::Deref for Agent {
    type Target = AgentControl;

    fn deref(&self) -> &AgentControl {
        &self.control
    }
}

impl AgentControl {
    /// The running process, in the root PID namespace's numbers.
    pub fn process(&self) -> Option<ProcessId> {
        *self.0.process.borrow()
    }

    /// How often it was started.
    pub fn starts(&self) -> u64 {
        *self.0.starts.borrow()
    }

    /// Sends a signal to the running process. After one that ends it, it is started again at once. False if none runs.
    pub fn kill(&self, signal: Signal) -> bool {
        let Some(process) = self.process() else { return false };
        *locked(&self.0.asked) = true;
        process.signal(signal).is_ok()
    }

    /// Lets the running process stand still (SIGSTOP), or go on (SIGCONT). False if none runs.
    pub fn stall(&self, still: bool) -> bool {
        let signal = if still { Signal::SIGSTOP } else { Signal::SIGCONT };
        self.process().is_some_and(|process| process.signal(signal).is_ok())
    }

    /// Ends the agent with SIGKILL; `pause` later `prepare` runs and the agent is started again. Aborting the task leaves it down until
    /// [`AgentControl::resume`]. Must be called within a tokio runtime.
    pub fn kill_for(&self, pause: Duration, prepare: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        self.0.wanted.send_replace(false);
        let control = self.clone();
        tokio::spawn(async move {
            control.stop().await;
            tokio::time::sleep(pause).await;
            // Files are changed, which may take a moment.
            let _ = tokio::task::spawn_blocking(prepare).await;
            control.resume();
        })
    }

    /// Ends the agent with SIGKILL and leaves it down until [`AgentControl::resume`].
    pub async fn stop(&self) {
        self.0.wanted.send_replace(false);
        let mut process = self.0.process.subscribe();
        // The keeper ends only with this value.
        let _ = process.wait_for(Option::is_none).await;
    }

    /// Starts a stopped agent again.
    pub fn resume(&self) {
        self.0.wanted.send_replace(true);
    }

    /// Changes how it is started from the next start on.
    pub fn reconfigure(&self, change: impl FnOnce(&mut AgentCommand)) {
        change(&mut locked(&self.0.command));
    }

    /// Waits until it was started more than `starts` times.
    pub async fn wait_started_after(&self, starts: u64) -> ProcessId {
        let mut count = self.0.starts.subscribe();
        let _ = count.wait_for(|now| *now > starts).await;
        let mut process = self.0.process.subscribe();
        loop {
            if let Some(process) = *process.borrow_and_update() {
                return process;
            }
            if process.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
        let Some(process) = self.control.process() else { return };
        let _ = process.signal(Signal::SIGKILL);
        // A machine ends only when all its processes have been waited for. The runtime waits for those of a task that is aborted
        // when it hears of the next child that ends, and there may be none.
        if let Ok(pid) = i32::try_from(process.pid) {
            while waitpid(Pid::from_raw(pid), None) == Err(Errno::EINTR) {}
        }
    }
}

async fn keep_running(node: String, ns: Arc<NsSet>, shared: Arc<Shared>) {
    let mut wanted = shared.wanted.subscribe();
    let mut backoff = MIN_BACKOFF;
    loop {
        if wanted.wait_for(|w| *w).await.is_err() {
            return;
        }
        let command = locked(&shared.command).clone();
        let (started, what) = (Instant::now(), command.what);
        match spawn(&ns, command).await {
            Ok(mut child) => {
                let process = child.id().and_then(ProcessId::of);
                shared.process.send_replace(process);
                shared.starts.send_modify(|n| *n += 1);
                info!(node, pid = child.id(), "{what} started");
                let status = tokio::select! {
                    status = child.wait() => status,
                    () = unwanted(&mut wanted) => {
                        let _ = child.start_kill();
                        child.wait().await
                    }
                };
                shared.process.send_replace(None);
                let asked = std::mem::take(&mut *locked(&shared.asked));
                if asked || !*wanted.borrow() {
                    backoff = MIN_BACKOFF;
                    continue;
                }
                warn!(node, status = %status.map_or_else(|e| e.to_string(), |s| s.to_string()), "{what} ended by itself");
            }
            Err(e) => warn!(node, error = %e, "{what} did not start"),
        }
        if started.elapsed() > SETTLED {
            backoff = MIN_BACKOFF;
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// Waits until the process is no longer wanted. (Its own function, because the guard that the channel returns may not live on.)
async fn unwanted(wanted: &mut watch::Receiver<bool>) {
    let _ = wanted.wait_for(|w| !*w).await;
}

async fn spawn(ns: &Arc<NsSet>, command: AgentCommand) -> io::Result<tokio::process::Child> {
    // Opened outside: the log is the host's.
    let log = OpenOptions::new().create(true).append(true).open(&command.log)?;
    let runtime = tokio::runtime::Handle::current();
    ns.run(move || {
        let _guard = runtime.enter();
        tokio::process::Command::new(&command.program)
            .args(&command.args)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(&command.env)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
    })
    .await
    .map_err(io::Error::other)?
}
