//! A machine of the lab: namespaces kept alive by a process 1 of their own.
//!
//! Nodes, the fabric and the outside world are machines. Nothing of a machine is visible in the root namespaces except its
//! processes, so ending process 1 removes all of it.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::ns::{NsError, NsSet};

pub mod init;
pub mod rootfs;

use init::InitConfig;

/// A running machine; it ends when this is dropped.
#[derive(Debug)]
pub struct Machine {
    name: String,
    child: Child,
    /// Closing it ends the machine; see [`init`].
    stdin: Option<ChildStdin>,
    ns: Arc<NsSet>,
    cgroup: Option<PathBuf>,
}

/// Why a machine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartMachineError {
    /// No new namespaces, or the program did not start.
    #[error("start machine {name}")]
    Spawn {
        /// Machine.
        name: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Process 1 gave up; `message` is what it printed.
    #[error("machine {name} did not get ready: {message}")]
    Init {
        /// Machine.
        name: String,
        /// Its own words.
        message: String,
    },
    /// Its namespaces could not be opened.
    #[error(transparent)]
    Ns(#[from] NsError),
}

impl Machine {
    /// Starts a machine with new network, mount, UTS, IPC and PID namespaces; returns when it is ready. Blocks for some
    /// milliseconds. `program` is the `bristle-lab` binary.
    pub fn start(program: &Path, config: &InitConfig) -> Result<Self, StartMachineError> {
        let name = config.hostname.clone();
        let spawn_error = |source| StartMachineError::Spawn { name: name.clone(), source };
        let mut child = spawn_unshared(program).map_err(spawn_error)?;
        let mut stdin = child.stdin.take().expect("standard input is piped");
        let stdout = child.stdout.take().expect("standard output is piped");
        let text = serde_json::to_string(config).expect("a configuration is plain data");
        let sent = writeln!(stdin, "{text}");
        let mut line = String::new();
        let answered = BufReader::new(stdout).read_line(&mut line);
        if sent.is_err() || answered.is_err() || line.trim() != "ready" {
            drop(stdin);
            let _ = child.kill();
            let mut message = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                let _ = stderr.read_to_string(&mut message);
            }
            let _ = child.wait();
            return Err(StartMachineError::Init { name, message: message.trim().to_owned() });
        }
        let ns = match NsSet::of_process(child.id()) {
            Ok(ns) => Arc::new(ns),
            Err(e) => {
                drop(stdin);
                let _ = child.wait();
                return Err(e.into());
            }
        };
        let cgroup = config.root.as_ref().map(|root| root.cgroup.clone());
        Ok(Self { name, child, stdin: Some(stdin), ns, cgroup })
    }

    /// Host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process 1, as the root PID namespace numbers it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its namespaces.
    pub fn ns(&self) -> &Arc<NsSet> {
        &self.ns
    }

    /// Its cgroup on the host, if it has one. Processes that are started inside afterwards are to join it: what is attached to
    /// it, as the programs on calls to services are, counts for those in it alone.
    pub fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    /// Ends the machine with everything inside. Repeated calls do nothing.
    pub fn stop(&mut self) {
        if self.stdin.take().is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts process 1 from a thread that has left the caller's namespaces; the thread ends, the process stays.
fn spawn_unshared(program: &Path) -> io::Result<Child> {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(
                    CloneFlags::CLONE_NEWNS
                        | CloneFlags::CLONE_NEWNET
                        | CloneFlags::CLONE_NEWUTS
                        | CloneFlags::CLONE_NEWIPC
                        | CloneFlags::CLONE_NEWPID,
                )?;
                Command::new(program)
                    .arg("node-init")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .process_group(0)
                    .spawn()
            })
            .join()
            .expect("the starting thread does not panic")
    })
}

use std::os::unix::process::CommandExt as _;
