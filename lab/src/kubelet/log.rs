//! Logs of containers: files in the CRI format, turned over when they grow, readable while they are written.
//!
//! A line is `<time> <stdout|stderr> <F|P> <text>`; `P` marks a part of a line that is too long for one record.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use sim_api::runtime::{LogLine, LogRequest};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;

/// A file is turned over at this size; one older file is kept beside it.
const MAX_FILE_LEN: u64 = 10 * 1024 * 1024;
/// Longest record.
const MAX_RECORD_LEN: u64 = 16 * 1024;

/// The log of one run of a container.
#[derive(Debug)]
pub(crate) struct ContainerLog {
    path: PathBuf,
    open: Mutex<Open>,
    /// Changes with every line, and once more (`ended`) when the container has ended.
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    lines: u64,
    turns: u64,
    ended: bool,
}

impl ContainerLog {
    /// Opens a new log file.
    pub(crate) fn create(path: PathBuf) -> io::Result<Arc<Self>> {
        // Two levels, the pod's and the container's. Not more: after the lab's end its directory must not come back.
        for dir in path.ancestors().skip(1).take(2).collect::<Vec<_>>().into_iter().rev() {
            match fs::create_dir(dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Arc::new(Self {
            path,
            open: Mutex::new(Open { file, length: 0 }),
            progress: watch::Sender::default(),
        }))
    }

    /// Copies a stream of the container into the log until it ends.
    pub(crate) async fn copy(self: Arc<Self>, name: &'static str, stream: impl AsyncRead + Unpin) {
        let mut reader = tokio::io::BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(MAX_RECORD_LEN).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.write(name, &line),
            }
        }
    }

    fn write(&self, stream: &str, line: &[u8]) {
        let (tag, text) = line.strip_suffix(b"\n").map_or(("P", line), |text| ("F", text));
        let mut record = format!("{} {stream} {tag} ", Timestamp::now()).into_bytes();
        record.extend_from_slice(text);
        record.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turned = 0;
        if open.length + record.len() as u64 > MAX_FILE_LEN
            && fs::rename(&self.path, older(&self.path)).is_ok()
            && let Ok(file) = OpenOptions::new().create(true).append(true).open(&self.path)
        {
            *open = Open { file, length: 0 };
            turned = 1;
        }
        // A full disk costs log lines, not the container.
        if open.file.write_all(&record).is_ok() {
            open.length += record.len() as u64;
        }
        drop(open);
        self.progress.send_modify(|p| {
            p.lines += 1;
            p.turns += turned;
        });
    }

    /// Tells readers that nothing more will come.
    pub(crate) fn end(&self) {
        self.progress.send_modify(|p| p.ended = true);
    }

    /// The last bytes that the container wrote, for its termination message.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let all: Vec<LogLine> = read_records(&self.path);
        all.iter()
            .skip(all.len().saturating_sub(lines))
            .map(|l| String::from_utf8_lossy(&l.text).into_owned())
            .collect()
    }

    /// The lines that a request asks for; with `follow` the stream goes on until the container ends.
    pub(crate) fn read(self: &Arc<Self>, request: &LogRequest) -> BoxStream<'static, LogLine> {
        let mut progress = self.progress.subscribe();
        let seen = *progress.borrow_and_update();
        let mut lines: VecDeque<LogLine> = read_records(&older(&self.path)).into();
        let mut file_reader = FileReader::open(&self.path);
        lines.extend(file_reader.as_mut().map(FileReader::read).unwrap_or_default());
        if let Some(since) = request.since {
            lines.retain(|l| l.at >= since);
        }
        if let Some(tail) = request.tail_lines.and_then(|n| usize::try_from(n).ok()) {
            lines.drain(..lines.len().saturating_sub(tail));
        }
        let existing = stream::iter(lines);
        if !request.follow {
            return existing.boxed();
        }
        let follower =
            Follower { log: Arc::clone(self), progress, seen, reader: file_reader, pending: VecDeque::new() };
        existing.chain(stream::unfold(follower, Follower::next)).boxed()
    }
}

struct Follower {
    log: Arc<ContainerLog>,
    progress: watch::Receiver<Progress>,
    seen: Progress,
    reader: Option<FileReader>,
    pending: VecDeque<LogLine>,
}

impl Follower {
    async fn next(mut self) -> Option<(LogLine, Self)> {
        loop {
            if let Some(line) = self.pending.pop_front() {
                return Some((line, self));
            }
            if self.seen.ended {
                return None;
            }
            let now = *self.progress.borrow_and_update();
            if now == self.seen {
                self.progress.changed().await.ok()?;
                continue;
            }
            self.pending.extend(self.reader.as_mut().map(FileReader::read).unwrap_or_default());
            if now.turns != self.seen.turns {
                self.reader = FileReader::open(&self.log.path);
                self.pending.extend(self.reader.as_mut().map(FileReader::read).unwrap_or_default());
            }
            self.seen = now;
        }
    }
}

struct FileReader(BufReader<File>);

impl FileReader {
    fn open(path: &Path) -> Option<Self> {
        File::open(path).ok().map(|file| Self(BufReader::new(file)))
    }

    /// All records from where the last call ended. Writers write whole records, so the end of the file is the end of one.
    fn read(&mut self) -> Vec<LogLine> {
        let mut lines = Vec::new();
        let mut record = Vec::new();
        while self.0.read_until(b'\n', &mut record).is_ok_and(|n| n > 0) {
            lines.extend(parse(&record));
            record.clear();
        }
        lines
    }
}

fn read_records(path: &Path) -> Vec<LogLine> {
    FileReader::open(path).map(|mut r| r.read()).unwrap_or_default()
}

fn parse(record: &[u8]) -> Option<LogLine> {
    let record = record.strip_suffix(b"\n")?;
    let mut parts = record.splitn(4, |b| *b == b' ');
    let at = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let (_stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?);
    let mut text = text.to_vec();
    if tag == b"F" {
        text.push(b'\n');
    }
    Some(LogLine { at, text: Bytes::from(text) })
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("bristle-lab-log-{}-{name}", std::process::id())).join("0.log")
    }

    #[tokio::test]
    async fn follows_until_the_container_ends() {
        let path = temp("follow");
        let log = ContainerLog::create(path.clone()).expect("a log");
        log.write("stdout", b"one\n");
        log.write("stderr", b"two\n");
        let mut all = log.read(&LogRequest { follow: true, tail_lines: Some(1), ..LogRequest::default() });
        assert_eq!(all.next().await.expect("a line").text, "two\n");
        log.write("stdout", b"three");
        log.end();
        assert_eq!(all.next().await.expect("a line").text, "three");
        assert!(all.next().await.is_none());
        assert_eq!(log.tail(2), "two\nthree");
        let _ = fs::remove_dir_all(path.parent().expect("a directory"));
    }

    #[tokio::test]
    async fn turns_over_and_readers_see_both_files() {
        let path = temp("turn");
        let log = ContainerLog::create(path.clone()).expect("a log");
        let line = [b"x".repeat(10_000), b"\n".to_vec()].concat();
        let mut reader = log.read(&LogRequest { follow: true, ..LogRequest::default() });
        for _ in 0..1500 {
            log.write("stdout", &line);
        }
        log.end();
        let mut seen = 0;
        while reader.next().await.is_some() {
            seen += 1;
        }
        assert_eq!(seen, 1500);
        assert!(fs::metadata(&path).expect("a file").len() < MAX_FILE_LEN);
        let _ = fs::remove_dir_all(path.parent().expect("a directory"));
    }
}
