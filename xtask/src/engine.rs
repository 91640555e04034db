//! A Docker engine for the time of the tests, where none answers. It has no network of its own and leaves the machine's alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::setup;

/// How long it may take to come up, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(100);

/// An engine of ours; it ends with this, and takes its images with it.
pub(crate) struct Engine {
    process: Child,
    programs: setup::engine::Programs,
    dir: PathBuf,
}

impl Engine {
    /// Starts one; nothing if one answers already.
    pub(crate) fn start() -> anyhow::Result<Option<Self>> {
        if answers(&mut Command::new("docker")) {
            return Ok(None);
        }
        let programs = setup::engine::find().context("no Docker engine: run `cargo xtask setup --for ci`")?;
        // Short, because names of sockets must be.
        let dir = std::env::temp_dir().join(format!("bristle-docker-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let log = fs::File::create(dir.join("log")).context("make the engine's log")?;
        let process = Command::new(&programs.dockerd)
            .arg(format!("--host=unix://{}", socket(&dir).display()))
            .arg(format!("--data-root={}", dir.join("data").display()))
            .arg(format!("--exec-root={}", dir.join("exec").display()))
            .arg(format!("--pidfile={}", dir.join("pid").display()))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--ip-forward=false", "--ip-masq=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", programs.dockerd.display()))?;
        let mut engine = Self { process, programs, dir };
        engine.wait()?;
        Ok(Some(engine))
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let mut client = Command::new(&self.programs.docker);
            self.apply(&mut client);
            if answers(&mut client) {
                return Ok(());
            }
            let ended = self.process.try_wait()?;
            if ended.is_some() || since.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it said nothing");
                bail!("the Docker engine did not come up: {last}");
            }
            sleep(TICK);
        }
    }

    /// Lets a command find this engine and its client.
    pub(crate) fn apply(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = self.programs.docker.parent().map(Path::to_path_buf);
        if let Ok(path) = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))) {
            command.env("PATH", path);
        }
        command.env("DOCKER_HOST", format!("unix://{}", socket(&self.dir).display()));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Told to end it takes its containers and mounts with it; killed it would leave them.
        let told = Command::new("kill").arg(self.process.id().to_string()).status();
        let since = Instant::now();
        while told.as_ref().is_ok_and(std::process::ExitStatus::success)
            && since.elapsed() < PATIENCE
            && matches!(self.process.try_wait(), Ok(None))
        {
            sleep(TICK);
        }
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        // It leaves behind the mount of the namespace that containers in the network of the machine had.
        for namespace in fs::read_dir(self.dir.join("exec/netns")).into_iter().flatten().flatten() {
            let _ = Command::new("umount").arg(namespace.path()).status();
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("sock")
}

fn answers(client: &mut Command) -> bool {
    let version = client.args(["version", "--format", "{{.Server.Version}}"]).stderr(Stdio::null()).output();
    version.is_ok_and(|output| output.status.success())
}
