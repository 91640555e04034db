//! `bristle-lab container-init`: process 1 of a container.

use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{CANNOT_START, ContainerConfig, Program};
use crate::image;
use crate::machine::init::SHARE_DIR;
use crate::machine::rootfs::{self, BIN_DIR, HOST_ROOT};

/// Builds the container's file system and runs its program.
pub fn main() -> anyhow::Result<ExitCode> {
    // Process 1 does not get a signal that it does not handle; blocked ones wait until somebody looks.
    let signals = SigSet::all();
    signals.thread_block().context("block signals")?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("tie the container to its shim")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("read the configuration")?;
    let config: ContainerConfig = serde_json::from_str(&line).context("parse the configuration")?;
    if let Err(e) = build(&config) {
        eprintln!("cannot start the container: {e:#}");
        return Ok(ExitCode::from(CANNOT_START));
    }
    let mut shim =
        File::from(std::io::stdin().as_fd().try_clone_to_owned().context("keep the way to the shim")?);
    let null = File::open("/dev/null").context("open /dev/null")?;
    nix::unistd::dup2_stdin(&null).context("replace standard input")?;
    match &config.program {
        Program::Builtin(args) => {
            shim.write_all(b"r").context("tell the shim")?;
            drop(shim);
            image::run(args)
        }
        Program::Command(command) => run_command(&config, command, &signals, shim),
    }
}

fn build(config: &ContainerConfig) -> anyhow::Result<()> {
    rootfs::make_private()?;
    let root = rootfs::overlay(Path::new(HOST_ROOT), &config.base)?;
    rootfs::kernel_file_systems(&root, Some(Path::new("/sys/fs/cgroup")))?;
    for dir in [BIN_DIR, SHARE_DIR] {
        rootfs::bind(Path::new(dir), &root.join(dir.trim_start_matches('/')), false)?;
    }
    // A link (as /etc/resolv.conf often is) would lead the mount out of the container.
    for name in ["etc/resolv.conf", "etc/hosts", "etc/hostname"] {
        rootfs::write_file(&root, name, "")?;
    }
    for mount in &config.mounts {
        let to = root.join(mount.to.strip_prefix("/").unwrap_or(&mount.to));
        rootfs::bind(&mount.from, &to, true)?;
        if mount.read_only {
            rootfs::make_read_only(&to)?;
        }
    }
    rootfs::pivot(&root)?;
    nix::unistd::sethostname(&config.hostname).context("set the host name")?;
    Ok(())
}

/// Runs a program as a child, so that it has ordinary signal handling (process 1 ignores what it does not handle), passes
/// signals to it and reaps orphans.
fn run_command(
    config: &ContainerConfig,
    command: &[String],
    signals: &SigSet,
    mut shim: File,
) -> anyhow::Result<ExitCode> {
    let signal_fd = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("open a signal descriptor")?;
    let (program, args) = command.split_first().context("the container has no command")?;
    while let Ok(Some(info)) = signal_fd.read_signal() {
        if info.ssi_signo == Signal::SIGTERM as u32 {
            return Ok(ExitCode::from(128 + Signal::SIGTERM as u8));
        }
    }
    // The child inherits the mask, and it must not be born deaf. A signal that comes in this moment is lost, as one that comes before
    // a program has set its handlers always is.
    signals.thread_unblock().context("unblock signals")?;
    let child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(&config.env)
        .current_dir(&config.working_dir)
        .stdin(Stdio::null())
        .spawn();
    signals.thread_block().context("block signals")?;
    let child = match child {
        Ok(child) => child,
        Err(e) => {
            eprintln!("exec: \"{program}\": {e}");
            return Ok(ExitCode::from(CANNOT_START));
        }
    };
    shim.write_all(b"r").context("tell the shim")?;
    drop(shim);
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a PID fits")?);
    loop {
        // Before waiting: the child may have ended while signals were not blocked.
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(who, code)) if who == pid => {
                    return Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)));
                }
                Ok(WaitStatus::Signaled(who, signal, _)) if who == pid => {
                    return Ok(ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(1)));
                }
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let mut fds = [PollFd::new(signal_fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
        while let Ok(Some(info)) = signal_fd.read_signal() {
            if let Some(signal) = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok())
                && signal != Signal::SIGCHLD
            {
                let _ = kill(pid, signal);
            }
        }
    }
}

/// Exit code of a process as shells see it.
pub(crate) fn exit_code(status: std::process::ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
