//! Entering the namespaces of a machine of the lab.
//!
//! Namespaces are a property of a thread. Work inside a machine is done by short-lived threads that enter it, so that the
//! supervisor's own threads never leave the root namespaces.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// Descriptors of the namespaces that make up a machine.
///
/// A descriptor keeps its namespace alive, so a set must be dropped for a machine to vanish.
#[derive(Debug)]
pub struct NsSet {
    /// In the order in which they are entered. The PID namespace counts for children of the thread only.
    entries: Vec<(CloneFlags, OwnedFd)>,
}

/// Failure to open or enter a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NsError {
    /// The process is gone or its namespaces may not be opened.
    #[error("open namespace {kind} of process {pid}")]
    Open {
        /// The process.
        pid: u32,
        /// Name below /proc/<pid>/ns.
        kind: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("enter namespace")]
    Enter(#[source] io::Error),
}

const NODE_KINDS: [(&str, CloneFlags); 5] = [
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    // The namespace that children of the process are born in: for an init process its own, for a
    // container's shim that of the container.
    ("pid_for_children", CloneFlags::CLONE_NEWPID),
];

impl NsSet {
    /// Opens all five namespaces of a process (net, mount, UTS, IPC, and the PID namespace of its children).
    pub fn of_process(pid: u32) -> Result<Self, NsError> {
        let mut entries = Vec::with_capacity(NODE_KINDS.len());
        for (kind, flag) in NODE_KINDS {
            let file = File::open(format!("/proc/{pid}/ns/{kind}")).map_err(|source| NsError::Open {
                pid,
                kind,
                source,
            })?;
            entries.push((flag, OwnedFd::from(file)));
        }
        Ok(Self { entries })
    }

    /// Opens a network namespace alone, by path.
    pub fn of_netns(path: &Path) -> io::Result<Self> {
        Ok(Self { entries: vec![(CloneFlags::CLONE_NEWNET, OwnedFd::from(File::open(path)?))] })
    }

    /// Another handle on the same namespaces.
    pub fn try_clone(&self) -> io::Result<Self> {
        let entries =
            self.entries.iter().map(|(flag, fd)| Ok((*flag, fd.try_clone()?))).collect::<io::Result<_>>()?;
        Ok(Self { entries })
    }

    /// The network namespace's descriptor.
    pub fn net(&self) -> Option<&OwnedFd> {
        self.entries.iter().find(|(flag, _)| *flag == CloneFlags::CLONE_NEWNET).map(|(_, fd)| fd)
    }

    /// Moves the calling thread into these namespaces, for good: use it on a thread that ends afterwards.
    pub fn enter(&self) -> Result<(), NsError> {
        self.enter_all(true)
    }

    fn enter_all(&self, pids: bool) -> Result<(), NsError> {
        // A mount namespace can be entered only by a task that shares its root and working directory with no other.
        unshare(CloneFlags::CLONE_FS).map_err(|e| NsError::Enter(e.into()))?;
        for (flag, fd) in self.entries.iter().filter(|(flag, _)| pids || *flag != CloneFlags::CLONE_NEWPID) {
            setns(fd.as_fd(), *flag).map_err(|e| NsError::Enter(e.into()))?;
        }
        Ok(())
    }

    /// Runs `work` on a thread of its own inside these namespaces; waits for it without blocking the caller's executor.
    ///
    /// # Panics
    /// When `work` panics.
    pub async fn run<T, F>(self: &Arc<Self>, work: F) -> Result<T, NsError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.run_in(true, work).await
    }

    /// As [`NsSet::run`], but children of `work` stay in the caller's PID namespace; in return it may start threads, which the
    /// kernel refuses to one whose children belong elsewhere.
    pub async fn run_outside_pids<T, F>(self: &Arc<Self>, work: F) -> Result<T, NsError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.run_in(false, work).await
    }

    async fn run_in<T, F>(self: &Arc<Self>, pids: bool, work: F) -> Result<T, NsError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (done, wait) = tokio::sync::oneshot::channel();
        let set = Arc::clone(self);
        thread::Builder::new()
            .name("in-machine".into())
            .spawn(move || {
                let result = set.enter_all(pids).map(|()| work());
                // The descriptors go before the answer, so that who waits may count on the namespace being free.
                drop(set);
                let _ = done.send(result);
            })
            .map_err(NsError::Enter)?;
        wait.await.expect("work inside a machine does not panic")
    }

    /// As [`NsSet::run`], for callers without an executor.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn run_blocking<T, F>(&self, work: F) -> Result<T, NsError>
    where
        T: Send,
        F: FnOnce() -> T + Send,
    {
        thread::scope(|scope| {
            scope
                .spawn(|| self.enter().map(|()| work()))
                .join()
                .expect("work inside a machine does not panic")
        })
    }
}
