//! Which mutants the tests of their crates find. Those that none finds show what only the simulator can, or are no defects at all.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::build::{Build, VARIABLE};
use super::list::Mutant;

/// Packages with mutants, and those whose tests run them.
const PACKAGES: &[&str] = &["dataplane-abi", "dataplane-core", "dataplane-native", "agent-control"];

/// How long the tests of one program may take: a defect may make one wait for ever.
const LONGEST: Duration = Duration::from_secs(60);

/// A program of tests.
struct Program {
    executable: PathBuf,
    /// Where cargo would run it.
    dir: PathBuf,
}

/// What cargo says of what it built.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    manifest_path: PathBuf,
}

/// Builds the tests once and runs them with each mutant. Fails if one fails without any, not if a mutant lives.
pub(super) fn run(build: &Build, mutants: &[&Mutant]) -> anyhow::Result<()> {
    let programs = programs(build)?;
    let log = build.bin_dir().join("tests.log");
    let failures = failures(&programs, &log, "")?;
    if !failures.is_empty() {
        bail!("tests fail without any mutant: {}", failures.join(", "));
    }
    let mut alive = Vec::new();
    let width = mutants.iter().map(|mutant| mutant.id.len()).max().unwrap_or(0);
    for mutant in mutants {
        let failures = self::failures(&programs, &log, &mutant.id)?;
        let first = failures.first().map_or("-", String::as_str);
        println!("{:width$}  {:<14} {:>3}  {first}", mutant.id, mutant.kind, failures.len());
        if failures.is_empty() {
            alive.push(mutant.id.as_str());
        }
    }
    println!("{} of {} mutants are found by tests", mutants.len() - alive.len(), mutants.len());
    if !alive.is_empty() {
        println!("not found: {}", alive.join(", "));
    }
    Ok(())
}

fn programs(build: &Build) -> anyhow::Result<Vec<Program>> {
    eprintln!("==> build the tests with all mutants");
    let mut cargo = build.cargo("test");
    cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    let output = cargo.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests cannot be built; {}", build.hint());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut programs = Vec::new();
    for line in text.lines() {
        let message: Message = serde_json::from_str(line).context("cargo printed no JSON")?;
        if let Some(executable) = message.executable {
            let dir = message.manifest_path.parent().map(Path::to_path_buf).unwrap_or_default();
            programs.push(Program { executable, dir });
        }
    }
    Ok(programs)
}

/// Names of the tests that fail with this mutant.
fn failures(programs: &[Program], log: &Path, mutant: &str) -> anyhow::Result<Vec<String>> {
    let mut failed = Vec::new();
    for Program { executable, dir } in programs {
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(executable)
            .current_dir(dir)
            .env(VARIABLE, mutant)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", executable.display()))?;
        let status = wait(&mut child)?;
        let before = failed.len();
        let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
        failed.extend(text.lines().filter_map(failed_test).map(str::to_owned));
        let name = executable.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match status {
            None => failed.push(format!("{name} does not end")),
            Some(status) if !status.success() && failed.len() == before => {
                failed.push(format!("{name} ends with {status}"));
            }
            Some(_) => {}
        }
    }
    Ok(failed)
}

/// The name in a line of libtest about a test that failed.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// How the program ended; `None`: it did not, and was stopped.
fn wait(child: &mut Child) -> anyhow::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a program of tests")? {
            return Ok(Some(status));
        }
        if start.elapsed() > LONGEST {
            child.kill().context("cannot stop a program of tests")?;
            child.wait().context("cannot wait for a program of tests")?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
