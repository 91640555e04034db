//! What is known about labs on this machine, in files below `/run/bristle-lab`.
//!
//! One directory per lab. It says everything that is needed to remove the lab, so that also a lab whose supervisor crashed
//! can be cleaned up.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::plan::{LabName, MAX_INDEX, Plan};

/// Directory of all labs.
pub const STATE_ROOT: &str = "/run/bristle-lab";

/// A process that cannot be mistaken for another one that got its number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// PID in the root namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of /proc/<pid>/stat).
    pub start_time: u64,
}

impl ProcessId {
    /// Identity of a running process; `None` when there is none with this PID.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name is in parentheses and may contain anything, so count from the last one.
        let rest = stat.rsplit_once(')')?.1;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, start_time })
    }

    /// Whether this very process still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal if this very process still runs.
    pub fn signal(self, signal: Signal) -> Result<(), Errno> {
        if !self.is_alive() {
            return Err(Errno::ESRCH);
        }
        kill(Pid::from_raw(i32::try_from(self.pid).map_err(|_| Errno::ESRCH)?), signal)
    }

    /// Waits until the process is gone; false when it still runs after `patience`.
    pub fn wait_gone(self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// Who runs a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnerKind {
    /// A supervisor started by `bristle-lab up`.
    Supervisor,
    /// A program that uses this library (a test).
    Library,
}

/// The record of one lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabRecord {
    /// Shape and addresses.
    pub plan: Plan,
    /// Who runs it.
    pub owner_kind: OwnerKind,
    /// The process that runs it.
    pub owner: ProcessId,
    /// First processes of its machines.
    pub machines: Vec<ProcessId>,
}

/// Failure to read or change the records.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is such a lab already.
    #[error(
        "lab '{0}' exists already: see it with `lab status --name {0}`, remove it with `lab down --name {0}`"
    )]
    Exists(LabName),
    /// No index is left.
    #[error("there are {MAX_INDEX} labs on this machine already: remove some with `lab down`")]
    NoIndex,
    /// There is no such lab.
    #[error("there is no lab '{0}': create it with `lab up --name {0}`, or see `lab list`")]
    Unknown(LabName),
    /// File trouble.
    #[error("{step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

fn io_at(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { step, path, source }
}

/// The directory of one lab.
#[derive(Debug, Clone)]
pub struct LabDir {
    name: LabName,
    path: PathBuf,
}

impl LabDir {
    /// The directory of the lab with this name, existing or not.
    pub fn of(name: &LabName) -> Self {
        Self { name: name.clone(), path: Path::new(STATE_ROOT).join(name.as_str()) }
    }

    /// Reserves name and index and writes the record. `plan.index` is set here.
    ///
    /// # Errors
    /// [`StateError::Exists`] also for the remains of a crashed lab.
    pub fn create(mut plan: Plan, owner_kind: OwnerKind) -> Result<(Self, LabRecord), StateError> {
        let root = Path::new(STATE_ROOT);
        fs::create_dir_all(root).map_err(io_at("make directory", root))?;
        let _lock = lock(root)?;
        let dir = Self::of(&plan.name);
        if dir.path.exists() {
            return Err(StateError::Exists(plan.name));
        }
        let used: Vec<u8> =
            Self::all().into_iter().filter_map(|d| d.record().ok()).map(|r| r.plan.index).collect();
        plan.index = (1..=MAX_INDEX).find(|i| !used.contains(i)).ok_or(StateError::NoIndex)?;
        let owner = ProcessId::of(std::process::id()).expect("this process runs");
        let record = LabRecord { plan, owner_kind, owner, machines: Vec::new() };
        for sub in ["share", "nodes", "machines"] {
            let path = dir.path.join(sub);
            fs::create_dir_all(&path).map_err(io_at("make directory", &path))?;
        }
        dir.write_record(&record)?;
        Ok((dir, record))
    }

    /// Name of the lab.
    pub fn name(&self) -> &LabName {
        &self.name
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Directory that all machines see.
    pub fn share(&self) -> PathBuf {
        self.path.join("share")
    }

    /// Directory of a node's logs.
    pub fn node(&self, node: &str) -> PathBuf {
        self.path.join("nodes").join(node)
    }

    /// Mount point, empty outside, on which a machine builds its root.
    pub fn machine_base(&self, machine: &str) -> PathBuf {
        self.path.join("machines").join(machine)
    }

    /// The kubeconfig for users.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// The supervisor's log.
    pub fn supervisor_log(&self) -> PathBuf {
        self.path.join("supervisor.log")
    }

    /// Lines of progress that `up` shows.
    pub fn progress(&self) -> PathBuf {
        self.path.join("progress")
    }

    /// The supervisor's control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Log of a node's agent.
    pub fn agent_log(&self, node: &str) -> PathBuf {
        self.node(node).join("agent.log")
    }

    /// Log of the operator.
    pub fn operator_log(&self) -> PathBuf {
        self.path.join("operator.log")
    }

    /// Reads the record.
    pub fn record(&self) -> Result<LabRecord, StateError> {
        let path = self.path.join("lab.json");
        let text = fs::read_to_string(&path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                StateError::Unknown(self.name.clone())
            } else {
                io_at("read", &path)(source)
            }
        })?;
        serde_json::from_str(&text).map_err(|e| io_at("parse", &path)(e.into()))
    }

    /// Replaces the record in one step.
    pub fn write_record(&self, record: &LabRecord) -> Result<(), StateError> {
        let path = self.path.join("lab.json");
        let new = self.path.join("lab.json.new");
        let text = serde_json::to_string_pretty(record).expect("a record is plain data");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(io_at("write", &path))?;
        let pid_file = self.path.join("supervisor.pid");
        fs::write(&pid_file, format!("{} {}\n", record.owner.pid, record.owner.start_time))
            .map_err(io_at("write", &pid_file))
    }

    /// All labs, by name; also remains that have no readable record.
    pub fn all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir(STATE_ROOT) else { return Vec::new() };
        let mut all: Vec<Self> = entries
            .filter_map(Result::ok)
            .filter(|e| e.path().is_dir())
            .filter_map(|e| e.file_name().into_string().ok()?.parse().ok())
            .map(|name| Self::of(&name))
            .collect();
        all.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        all
    }

    /// Removes what a lab left whose owner has ended: processes, cgroups, files. Network namespaces, mounts and pinned maps
    /// live only as long as its processes.
    pub fn sweep(&self) -> Result<(), StateError> {
        if let Ok(record) = self.record() {
            for machine in &record.machines {
                let _ = machine.signal(Signal::SIGKILL);
            }
            for machine in &record.machines {
                machine.wait_gone(Duration::from_secs(10));
            }
        }
        if let Ok(cgroup) = cgroup::lab_path(&self.name) {
            cgroup::remove(&cgroup);
            // The group of all labs, if this was the last one.
            let _ = cgroup.parent().map(fs::remove_dir);
        }
        // A task of the supervisor that is still on its way out may put a last file (a container's log) in meanwhile.
        for _ in 0..40 {
            match fs::remove_dir_all(&self.path) {
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_at("remove", &self.path)(e)),
                _ => return Ok(()),
            }
        }
        fs::remove_dir_all(&self.path).map_err(io_at("remove", &self.path))
    }
}

/// Serialises changes to the set of labs between processes. Unlocked when dropped.
fn lock(root: &Path) -> Result<File, StateError> {
    let path = root.join(".lock");
    let file = File::create(&path).map_err(io_at("open", &path))?;
    file.lock().map_err(io_at("lock", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let me = ProcessId::of(std::process::id()).expect("this process runs");
        assert!(me.is_alive());
        let earlier = ProcessId { start_time: me.start_time.saturating_sub(1), ..me };
        assert!(!earlier.is_alive());
        assert_eq!(earlier.signal(Signal::SIGKILL), Err(Errno::ESRCH));
    }
}
