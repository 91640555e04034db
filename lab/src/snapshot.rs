//! Older states of a directory: what a restored disk holds.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// How often the directory is looked at.
const EVERY: Duration = Duration::from_millis(100);

/// Files by their path below the directory.
type Files = BTreeMap<PathBuf, Vec<u8>>;
/// States with the time since which they were there, oldest first.
type States = VecDeque<(Instant, Files)>;

/// Remembers the states of a directory of small files; ends when dropped.
#[derive(Debug)]
pub struct Recorder {
    dir: PathBuf,
    states: Arc<Mutex<States>>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Begins to remember the states of the last `keep`; must be called within a tokio runtime. The directory need not exist yet.
    pub fn start(dir: PathBuf, keep: Duration) -> Self {
        let states: Arc<Mutex<States>> = Arc::default();
        let (from, to) = (dir.clone(), Arc::clone(&states));
        let task = tokio::spawn(async move {
            loop {
                let dir = from.clone();
                if let Ok(Ok(files)) = tokio::task::spawn_blocking(move || read(&dir)).await {
                    note(&mut locked(&to), files, Instant::now(), keep);
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { dir, states, task }
    }

    /// A handle that restores states after this recorder's borrow has ended.
    pub fn restorer(&self) -> Restorer {
        Restorer { dir: self.dir.clone(), states: Arc::clone(&self.states) }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Puts an older state back.
#[derive(Debug, Clone)]
pub struct Restorer {
    dir: PathBuf,
    states: Arc<Mutex<States>>,
}

impl Restorer {
    /// Makes the directory as it was at this time; as at the earliest known time if that was later.
    ///
    /// # Errors
    /// When nothing is known or files cannot be written.
    pub fn restore(&self, at: Instant) -> io::Result<()> {
        let files = pick(&locked(&self.states), at).cloned();
        let files = files.ok_or_else(|| io::Error::other("no state has been recorded yet"))?;
        write(&self.dir, &files)
    }
}

fn locked(states: &Mutex<States>) -> MutexGuard<'_, States> {
    states.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(states: &mut States, files: Files, now: Instant, keep: Duration) {
    if states.back().is_none_or(|(_, last)| *last != files) {
        states.push_back((now, files));
    }
    // The state that was in force at the edge of what is kept stays.
    while states.get(1).is_some_and(|(since, _)| now.duration_since(*since) > keep) {
        states.pop_front();
    }
}

fn pick(states: &States, at: Instant) -> Option<&Files> {
    let last = states.iter().rev().find(|(since, _)| *since <= at);
    last.or(states.front()).map(|(_, files)| files)
}

fn read(dir: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                // A file that is renamed just now is there under its new name next time.
                let below = path.strip_prefix(dir).unwrap_or(&path).to_owned();
                files.insert(below, bytes);
            }
        }
    }
    Ok(files)
}

fn write(dir: &Path, files: &Files) -> io::Result<()> {
    for path in read(dir)?.keys().filter(|path| !files.contains_key(*path)) {
        fs::remove_file(dir.join(path))?;
    }
    for (path, bytes) in files {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn the_state_of_a_time_is_the_last_one_before_it() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let keep = Duration::from_secs(10);
        let mut states = States::new();
        let (old, new) = (files(&[("a", "1")]), files(&[("a", "2")]));
        note(&mut states, old.clone(), at(0), keep);
        note(&mut states, old.clone(), at(1), keep);
        note(&mut states, new.clone(), at(5), keep);
        assert_eq!(states.len(), 2, "the same state is kept once");
        for (time, expected) in [(0, &old), (4, &old), (5, &new), (9, &new)] {
            assert_eq!(pick(&states, at(time)), Some(expected), "{time}");
        }
        note(&mut states, new.clone(), at(14), keep);
        assert_eq!(pick(&states, at(4)), Some(&old), "in force ten seconds ago");
        note(&mut states, new.clone(), at(16), keep);
        assert_eq!(pick(&states, at(4)), Some(&new), "older than what is kept");
    }

    #[test]
    fn a_directory_becomes_what_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let then = files(&[("a", "1"), ("sub/b", "2")]);
        write(dir.path(), &then).expect("it can be written");
        fs::write(dir.path().join("a"), "other").expect("changed");
        fs::write(dir.path().join("c"), "new").expect("added");
        fs::remove_file(dir.path().join("sub/b")).expect("removed");
        write(dir.path(), &then).expect("it can be written again");
        assert_eq!(read(dir.path()).expect("readable"), then);
    }
}
