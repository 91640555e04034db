//! Network namespaces: open, make, enter, delete.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::libc;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// An operation on a network namespace that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} network namespace {name}")]
pub struct NetnsError {
    /// What was tried: `open`, `enter`, `create`, `delete`.
    pub operation: &'static str,
    /// Its path, or what it is known by.
    pub name: String,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl NetnsError {
    fn new(operation: &'static str, name: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { operation, name: name.into(), source: source.into() }
    }

    /// True if there is nothing at the path, or something that is no network namespace (an unmounted leftover file).
    pub fn is_gone(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput)
    }
}

/// Tells network namespaces apart for as long as one of them is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsId {
    /// Device number of the file system of namespaces.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: OwnedFd,
    name: String,
    id: NetnsId,
}

impl Netns {
    /// Opens the namespace at a path (`/run/netns/x`, `/proc/1/ns/net`).
    ///
    /// # Errors
    /// When nothing is there or it is no network namespace; [`NetnsError::is_gone`] tells these from other failures.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetnsError> {
        let name = path.as_ref().display().to_string();
        let file = File::open(path).map_err(|error| NetnsError::new("open", &name, error))?;
        Self::from_file(file.into(), name)
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace of a process.
    ///
    /// # Errors
    /// When there is no such process or it may not be looked at.
    pub fn of_process(pid: u32) -> Result<Self, NetnsError> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// Takes a descriptor that somebody sent, after checking that it is one of a network namespace.
    /// `name` is used in messages.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_file(file: OwnedFd, name: impl Into<String>) -> Result<Self, NetnsError> {
        let name = name.into();
        // _IO(0xb7, 3)
        const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
        // SAFETY: the descriptor is open and the request takes no argument; on files that are no namespaces it fails with ENOTTY.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "the file is not a network namespace");
            return Err(NetnsError::new("open", name, error));
        }
        let file = File::from(file);
        let meta = file.metadata().map_err(|error| NetnsError::new("open", &name, error))?;
        Ok(Self { file: file.into(), name, id: NetnsId { device: meta.dev(), inode: meta.ino() } })
    }

    /// Makes a new, empty namespace that lives only as long as this value (and whatever else refers to it).
    ///
    /// # Errors
    /// When the kernel refuses (no `CAP_SYS_ADMIN`, limit on namespaces).
    pub fn create_anonymous() -> Result<Self, NetnsError> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| NetnsError::new("create", "(anonymous)", errno))?;
            Self::current()
        };
        let mut netns =
            on_thread(make).map_err(|error| NetnsError::new("create", "(anonymous)", error))??;
        "(anonymous)".clone_into(&mut netns.name);
        Ok(netns)
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its identity; two paths or descriptors of one namespace have the same.
    pub const fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs something on a thread of its own inside this namespace, waits for it and returns what it returned.
    ///
    /// The thread ends afterwards, so no thread of the caller is ever in a namespace where it does not belong, not even after a panic
    /// (which is passed on). A process spawned inside inherits the namespace.
    /// What is mounted stays as it is: `/sys/class/net` shows the caller's namespace, `/proc/sys/net` and `/proc/thread-self/net` this one.
    ///
    /// # Errors
    /// When the namespace cannot be entered (no `CAP_SYS_ADMIN`) or no thread be made.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let enter = || setns(&self.file, CloneFlags::CLONE_NEWNET).map(|()| work());
        on_thread(enter)
            .and_then(|result| result.map_err(io::Error::from))
            .map_err(|error| NetnsError::new("enter", &self.name, error))
    }

    /// Runs something inside this namespace on the calling thread, which is back where it was when this returns, also by a panic.
    ///
    /// For short work in which the hand-over to another thread would cost more than the work itself (on a busy machine a scheduler tick
    /// each way). Otherwise [`Netns::run`] is the safer choice.
    ///
    /// # Errors
    /// When the namespace cannot be entered (no `CAP_SYS_ADMIN`); the work has not run then.
    ///
    /// # Panics
    /// Aborts the process if the thread cannot return: going on in a pod's namespace would mean to change the pod instead of the node.
    pub fn run_here<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetnsError> {
        let home = Self::current()?;
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetnsError::new("enter", &self.name, errno))?;
        let _return = Return(home);
        Ok(work())
    }

    /// A second handle on the same namespace.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone(&self) -> Result<Self, NetnsError> {
        let file = self.file.try_clone().map_err(|error| NetnsError::new("open", &self.name, error))?;
        Ok(Self { file, name: self.name.clone(), id: self.id })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Takes the thread back into its namespace when it is dropped.
struct Return(Netns);

impl Drop for Return {
    fn drop(&mut self) {
        if setns(&self.0.file, CloneFlags::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
    }
}

/// Runs something on a scoped thread; a panic in it goes on in the caller.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().map_err(|panic| std::panic::resume_unwind(panic))
    })
}

/// Takes a namespace's mount and file away. The namespace itself ends when its last process and descriptor are gone.
/// A path where nothing is counts as done.
///
/// # Errors
/// When mount or file cannot be removed.
pub fn delete_named(path: &Path) -> Result<(), NetnsError> {
    use nix::errno::Errno;
    let error = |source: io::Error| NetnsError::new("delete", path.display().to_string(), source);
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: a file on which nothing is mounted.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
        Err(errno) => return Err(error(errno.into())),
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error(source)),
        _ => Ok(()),
    }
}
