//! Network namespaces of a benchmark, by `ip netns`: named after this process, gone when dropped.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

const PREFIX: &str = "bristle-bench-";

/// A named network namespace with its loopback device up.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes the namespace of a role in a contender.
    pub fn new(contender: &str, role: &str) -> anyhow::Result<Self> {
        let name = format!("{PREFIX}{}-{contender}-{role}", std::process::id());
        command("ip", &["netns", "add", &name], None)?;
        let netns = Self { name };
        netns.set("net/ipv4/ip_local_port_range", "1024 65535")?;
        // Neighbour discovery and MLD would only be noise.
        netns.set("net/ipv6/conf/all/disable_ipv6", "1")?;
        netns.set("net/ipv6/conf/default/disable_ipv6", "1")?;
        netns.ip(&["link set lo up"])?;
        Ok(netns)
    }

    /// Its name, as `ip` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip` lines in it, as one batch.
    pub fn ip(&self, lines: &[&str]) -> anyhow::Result<()> {
        let batch = lines.join("\n") + "\n";
        command("ip", &["-n", &self.name, "-batch", "-"], Some(&batch))
            .with_context(|| format!("ip in {}: {}", self.name, lines.join("; ")))
    }

    /// Runs another program in it.
    pub fn exec(&self, program: &[&str], stdin: Option<&str>) -> anyhow::Result<()> {
        command("ip", &[&["netns", "exec", &self.name][..], program].concat(), stdin)
    }

    /// Writes a file below `/proc/sys`.
    pub fn set(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let script = "printf %s \"$1\" > \"/proc/sys/$0\"";
        self.exec(&["sh", "-c", script, key, value], None)
            .with_context(|| format!("set {key} in {}", self.name))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = command("ip", &["netns", "del", &self.name], None) {
            eprintln!("left behind: network namespace {}: {error:#}", self.name);
        }
    }
}

/// Removes namespaces of benchmarks whose process is gone.
pub fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if !std::path::Path::new("/proc").join(pid).exists() {
            drop(Netns { name });
        }
    }
}

/// Runs a program; its complaint is the error.
pub fn command(program: &str, args: &[&str], stdin: Option<&str>) -> anyhow::Result<()> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}"))?;
    if let (Some(text), Some(pipe)) = (stdin, child.stdin.as_mut()) {
        std::io::Write::write_all(pipe, text.as_bytes()).with_context(|| format!("write to {program}"))?;
    }
    drop(child.stdin.take());
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
