//! A private corner of the kernel for tests and measurements: network and mount namespaces and a bpffs of their own.
//!
//! Everything in a sandbox goes with the thread that it runs on, also when that thread panics: devices, links, pins and
//! the mount need no cleaning up.

use std::io;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::pins::Pins;
use crate::probe;

/// What runs in the sandbox sees.
#[derive(Debug)]
pub struct Sandbox {
    bpffs: PathBuf,
}

impl Sandbox {
    /// Runs `body` on a thread of its own in fresh namespaces and returns what it returns. A panic goes on in the caller.
    ///
    /// Needs root (`CAP_SYS_ADMIN`). The loopback device is down, as in every fresh network namespace.
    pub fn run<T: Send>(body: impl FnOnce(&Self) -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| -> io::Result<T> {
                let sandbox = Self::enter()?;
                Ok(body(&sandbox))
            });
            match inside.join() {
                Ok(result) => result,
                Err(payload) => panic::resume_unwind(payload),
            }
        })
    }

    /// Moves the calling thread into fresh namespaces. They end with the thread.
    fn enter() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
        // Nothing that is mounted from here on may be seen outside.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        // A fresh tmpfs in front of /tmp would hide files that the body wants, so the mount point lies below /sys/fs/bpf
        // or, where there is none, in a directory of its own that only this namespace fills.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let usual = Path::new("/sys/fs/bpf");
        let bpffs = if usual.is_dir() {
            usual.to_owned()
        } else {
            std::env::temp_dir().join(format!("bristle-bpffs-{}-{number}", std::process::id()))
        };
        std::fs::create_dir_all(&bpffs)?;
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)?;
        debug_assert!(probe::is_bpffs(&bpffs));
        Ok(Self { bpffs })
    }

    /// The private bpffs.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Pins in the private bpffs.
    pub fn pins(&self) -> Pins {
        Pins::new(&self.bpffs)
    }
}
