//! DEL requests that came while no agent listened.
//!
//! A directory of one JSON file per request, `<run dir>/delete-queue`, with a lock file in it.
//!
//! # How the two sides avoid losing a request
//!
//! The danger is an agent that starts between the plugin's failed connection and its writing of the file: the file would wait for the
//! agent's next start. So
//! - the plugin takes the lock, tries to *connect* once more, and only if that fails writes the file, then releases the lock;
//! - the agent listens on its socket first and only then takes the lock, reads the queue, handles it, removes the files and releases it.
//!
//! The plugin never waits for an *answer* while it holds the lock, so an agent that serves nobody before its replay is done cannot
//! deadlock with it. Requests are idempotent: replaying one twice does no harm.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Attachment, Operation, Request};

/// Name of the queue's directory inside the run directory.
pub const DIR_NAME: &str = "delete-queue";

/// Name of the lock file inside the queue's directory.
const LOCK_NAME: &str = "lock";

/// The queue that belongs to the agent listening on `socket`.
pub fn dir_for_socket(socket: &Path) -> PathBuf {
    socket.parent().unwrap_or_else(|| Path::new("/")).join(DIR_NAME)
}

/// One request in the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueuedDelete {
    /// The DEL request as it would have been sent; no descriptor belongs to it.
    pub request: Request,
}

impl QueuedDelete {
    /// The attachment to delete; `None` if the file holds another command, which is to be ignored.
    pub const fn attachment(&self) -> Option<&Attachment> {
        match &self.request.operation {
            Operation::Del { attachment, .. } => Some(attachment),
            _ => None,
        }
    }
}

/// The queue, locked against the other side. Dropping it unlocks.
#[derive(Debug)]
pub struct DeleteQueue {
    dir: PathBuf,
    /// Held for its lock.
    _lock: File,
}

/// A file of the queue.
#[derive(Debug)]
pub struct QueueEntry {
    /// Where it lies.
    pub path: PathBuf,
    /// What it says; an unreadable file has the reason. It should be logged and removed, for it will not get better.
    pub content: io::Result<QueuedDelete>,
}

impl DeleteQueue {
    /// Makes the directory if need be (mode 0700 where it is made) and waits for the lock.
    ///
    /// # Errors
    /// When directory or lock file cannot be made.
    pub fn lock(dir: &Path) -> io::Result<Self> {
        make_private_dir(dir)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK_NAME))?;
        lock.lock()?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// Adds a request. The file appears at once and whole, and a repeated request replaces the earlier one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push(&self, delete: &QueuedDelete) -> io::Result<PathBuf> {
        let attachment = delete
            .attachment()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "only DEL can be queued"))?;
        let path = self.dir.join(file_name(attachment));
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, serde_json::to_vec(delete)?)?;
        fs::rename(&temporary, &path)?;
        Ok(path)
    }

    /// All requests in order of their files' names. Half-written files of a plugin that died are removed.
    ///
    /// # Errors
    /// When the directory cannot be read; a single bad file is an entry with an error.
    pub fn entries(&self) -> io::Result<Vec<QueueEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => {
                    let content = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
                    entries.push(QueueEntry { path, content });
                }
                // The lock is ours, so whoever wrote this is gone.
                Some("tmp") => fs::remove_file(&path)?,
                _ => {}
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Removes an entry that was handled.
    ///
    /// # Errors
    /// When the file is there and cannot be removed.
    pub fn remove(&self, entry: &QueueEntry) -> io::Result<()> {
        match fs::remove_file(&entry.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A name that is unique per attachment and short enough for any file system, whatever the length of the id.
fn file_name(attachment: &Attachment) -> String {
    let start: String = attachment.container_id.chars().take(64).collect();
    let id = attachment.container_id.bytes().chain([0]).chain(attachment.ifname.bytes());
    // FNV-1a: only has to tell attachments apart, nobody attacks it who could not also write the file.
    let hash = id.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{start}-{hash:016x}.json")
}

fn make_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A directory of its own that goes away with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir =
                std::env::temp_dir().join(format!("bristle-delete-queue-{name}-{}", std::process::id()));
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn delete(id: &str, ifname: &str) -> QueuedDelete {
        QueuedDelete {
            request: Request {
                protocol: super::super::PROTOCOL_VERSION,
                cni_version: "1.1.0".into(),
                network: "bristle".into(),
                args: BTreeMap::new(),
                config: serde_json::json!({}),
                operation: Operation::Del {
                    attachment: Attachment { container_id: id.into(), ifname: ifname.into() },
                    netns: None,
                    prev_result: None,
                },
            },
        }
    }

    #[test]
    fn what_is_pushed_is_read_and_removed() {
        let scratch = Scratch::new("push");
        let queue = DeleteQueue::lock(&scratch.0).unwrap();
        for (id, ifname) in
            [("a", "eth0"), ("a", "eth1"), ("b", "eth0"), ("a", "eth0"), (&"c".repeat(400), "eth0")]
        {
            queue.push(&delete(id, ifname)).unwrap();
        }
        let entries = queue.entries().unwrap();
        assert_eq!(entries.len(), 4, "a repeated DEL is one entry");
        assert_eq!(
            *entries[0].content.as_ref().unwrap().attachment().unwrap(),
            Attachment { container_id: "a".into(), ifname: "eth1".into() }
        );
        for entry in &entries {
            queue.remove(entry).unwrap();
            queue.remove(entry).unwrap();
        }
        assert!(queue.entries().unwrap().is_empty());
    }

    #[test]
    fn damaged_and_half_written_files_do_not_stop_the_rest() {
        let scratch = Scratch::new("damaged");
        let queue = DeleteQueue::lock(&scratch.0).unwrap();
        queue.push(&delete("a", "eth0")).unwrap();
        fs::write(scratch.0.join("x.json"), "{").unwrap();
        fs::write(scratch.0.join("y.tmp"), "{").unwrap();
        let entries = queue.entries().unwrap();
        assert_eq!(entries.iter().map(|entry| entry.content.is_ok()).collect::<Vec<_>>(), [true, false]);
        assert!(!scratch.0.join("y.tmp").exists());
    }

    #[test]
    fn the_lock_keeps_the_other_side_out() {
        let scratch = Scratch::new("lock");
        let queue = DeleteQueue::lock(&scratch.0).unwrap();
        let other = OpenOptions::new().write(true).open(scratch.0.join(LOCK_NAME)).unwrap();
        assert!(matches!(other.try_lock(), Err(fs::TryLockError::WouldBlock)));
        drop(queue);
        other.try_lock().unwrap();
    }

    #[test]
    fn the_queue_lies_beside_the_socket() {
        assert_eq!(
            dir_for_socket(Path::new(super::super::DEFAULT_SOCKET)),
            Path::new("/run/bristle/delete-queue")
        );
    }
}
