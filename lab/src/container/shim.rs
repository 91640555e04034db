//! `bristle-lab shim`: starts one container, passes signals to it and ends with its exit code.
//!
//! Standard input is a socket. It first brings the [`ContainerConfig`] and then one line `signal N` for each signal; when it closes,
//! the container is killed. The shim answers with [`RUNNING`] once the container's program runs; if it never does, what went wrong is on
//! standard error and the exit code is [`CANNOT_START`]. Standard output and standard error are the container's own.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::{CANNOT_START, ContainerConfig, RUNNING};
use crate::cgroup;

/// Runs the container to its end.
pub fn main() -> anyhow::Result<ExitCode> {
    // One byte at a time: what comes after the first line is for the loop below, which polls the descriptor.
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned().context("keep standard input")?);
    let line = read_line(&mut stdin).context("read the configuration")?;
    let config: ContainerConfig = serde_json::from_str(&line).context("parse the configuration")?;
    // Before anything is started: only now is the signal sure to be seen.
    let signals = SigSet::from_iter([Signal::SIGCHLD]);
    signals.thread_block().context("block signals")?;
    let signal_fd = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("open a signal descriptor")?;
    let mut child = match start(&config, &line) {
        Ok((child, mut ready)) => {
            // One byte when the program runs, none when it does not.
            if ready.read(&mut [0]).is_ok_and(|n| n == 1) {
                let _ = stdin.write_all(RUNNING.as_bytes());
            }
            child
        }
        Err(e) => {
            // Goes to the container's log, where its user looks.
            eprintln!("cannot start the container: {e:#}");
            return Ok(ExitCode::from(CANNOT_START));
        }
    };
    loop {
        if let Some(status) = child.try_wait().context("wait for the container")? {
            let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        let mut fds = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(signal_fd.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
        let control = fds[0].revents().is_some_and(|r| !r.is_empty());
        while let Ok(Some(_)) = signal_fd.read_signal() {}
        if control {
            pass_signals(&mut stdin, &mut child)?;
        }
    }
}

fn read_line(input: &mut File) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && input.read(&mut byte)? == 1 {
        line.push(byte[0]);
    }
    String::from_utf8(line).map_err(io::Error::other)
}

/// Reads control lines; the end of the input means SIGKILL.
fn pass_signals(stdin: &mut File, child: &mut Child) -> anyhow::Result<()> {
    let mut chunk = [0; 256];
    let read = stdin.read(&mut chunk).context("read control lines")?;
    if read == 0 {
        let _ = child.kill();
        let _ = child.wait();
        return Ok(());
    }
    for line in String::from_utf8_lossy(&chunk[..read]).lines() {
        let signal = line
            .strip_prefix("signal ")
            .and_then(|n| n.parse::<i32>().ok())
            .and_then(|n| Signal::try_from(n).ok());
        if let (Some(signal), Ok(pid)) = (signal, i32::try_from(child.id())) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
    Ok(())
}

fn start(config: &ContainerConfig, line: &str) -> anyhow::Result<(Child, UnixStream)> {
    if let Some(path) = &config.cgroup {
        cgroup::join(path).with_context(|| format!("join cgroup {}", path.display()))?;
    }
    if let Some(path) = &config.netns {
        let netns = File::open(path).with_context(|| format!("open network namespace {}", path.display()))?;
        setns(netns, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter network namespace {}", path.display()))?;
    }
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWPID,
    )
    .context("make namespaces")?;
    let (mut ours, theirs) = UnixStream::pair().context("make a socket pair")?;
    let child = Command::new("/proc/self/exe")
        .arg("container-init")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .context("start process 1")?;
    ours.write_all(line.as_bytes()).context("pass the configuration")?;
    Ok((child, ours))
}
