//! Commands that look into a lab's machines and pods.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, bail};
use lab::cluster::OPERATOR;
use lab::control::{AgentAction, Place, Request, Response};
use lab::ns::NsSet;
use lab::plan::LabName;
use lab::state::LabDir;

use super::{ask, say};
use crate::Capture;

fn find(name: &LabName, target: &str) -> anyhow::Result<Place> {
    match ask(name, &Request::Find { target: target.to_owned() })? {
        Response::Found(place) => Ok(place),
        other => bail!("unexpected answer: {other:?}"),
    }
}

/// Runs `shell`: becomes `node-exec`, or runs it on a terminal of its own if the user has one.
pub(crate) fn shell(name: &LabName, target: &str, command: &[OsString]) -> anyhow::Result<ExitCode> {
    let place = find(name, target)?;
    let own = std::env::current_exe().context("find this program")?;
    let mut exec = Command::new(own);
    exec.args(["node-exec", "--pid", &place.pid.to_string()]);
    if let Some(cgroup) = &place.cgroup {
        exec.arg("--cgroup").arg(cgroup);
    }
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if terminal {
        exec.arg("--tty");
    }
    exec.arg("--");
    if command.is_empty() {
        let shell = if Path::new("/bin/bash").exists() { "bash" } else { "sh" };
        exec.args(["env", &format!("PS1={target}# "), shell]);
        if shell == "bash" {
            exec.args(["--norc", "--noprofile"]);
        }
    } else {
        exec.args(command);
    }
    if !terminal {
        return Err(exec.exec()).context("run node-exec");
    }
    let status = super::terminal::run(&mut exec).context("run node-exec")?;
    Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
}

/// Runs `capture`: tcpdump in the target's network namespace, with the files of this machine.
pub(crate) fn capture(options: &Capture) -> anyhow::Result<ExitCode> {
    let place = find(&options.lab.name, &options.target)?;
    let netns = NsSet::of_netns(Path::new(&format!("/proc/{}/ns/net", place.pid)))
        .context("open the network namespace")?;
    netns.enter()?;
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args(["-n", "-U", "-Z", "root", "-i", &options.interface]);
    match &options.write {
        Some(file) => {
            // The newer format of `any` holds numbers of interfaces. Who reads the file is in another network namespace, and
            // tcpdump would show the names that these numbers have there.
            if options.interface == "any" {
                tcpdump.args(["-y", "LINUX_SLL"]);
            }
            tcpdump.arg("-w").arg(file)
        }
        None => tcpdump.arg("-l"),
    };
    tcpdump.args(&options.filter);
    Err(tcpdump.exec()).context("run tcpdump")
}

/// Runs `logs`.
pub(crate) fn logs(name: &LabName, node: &str, follow: bool) -> anyhow::Result<()> {
    let dir = LabDir::of(name);
    let record = dir.record()?;
    let path = if node == OPERATOR { dir.operator_log() } else { dir.agent_log(node) };
    if !path.exists() && node == OPERATOR {
        bail!("lab '{name}' has no operator: it was started with --no-policy");
    }
    if !path.exists() {
        bail!("lab '{name}' has no node {node}: its nodes are node-1 to node-{}", record.plan.nodes);
    }
    let mut file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut chunk = vec![0; 64 * 1024];
    let mut out = io::stdout().lock();
    loop {
        match file.read(&mut chunk)? {
            0 if !follow => return Ok(()),
            0 => std::thread::sleep(Duration::from_millis(200)),
            n => match out.write_all(&chunk[..n]).and_then(|()| out.flush()) {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                result => result?,
            },
        }
    }
}

/// Runs `agent`.
pub(crate) fn agent(name: &LabName, node: &str, action: AgentAction) -> anyhow::Result<()> {
    ask(name, &Request::Agent { node: node.to_owned(), action })?;
    let done = match action {
        AgentAction::Kill => "killed; it is started again",
        AgentAction::Stop => "stopped",
        AgentAction::Start => "started",
    };
    say(format_args!("agent of {node} {done}"));
    Ok(())
}
