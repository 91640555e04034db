//! A real `kubectl` against a cluster.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A `kubectl` with its kubeconfig and caches in a directory of its own.
pub(crate) struct Kubectl {
    program: PathBuf,
    home: tempfile::TempDir,
}

/// Minor version of the oldest `kubectl` this must work with.
const OLDEST: u64 = 32;

/// The `kubectl` of `$KUBECTL` or `$PATH`; `None`, with a word why, if there is none that is new enough.
fn find() -> Option<PathBuf> {
    let named = std::env::var_os("KUBECTL").map(PathBuf::from);
    let program = named.clone().unwrap_or_else(|| "kubectl".into());
    let answer = Command::new(&program).args(["version", "--client", "-o", "json"]).output();
    let version: Option<Value> = answer.ok().and_then(|o| serde_json::from_slice(&o.stdout).ok());
    let minor =
        version.and_then(|v| v["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse::<u64>().ok());
    match minor {
        Some(minor) if minor >= OLDEST => Some(program),
        _ => {
            assert!(named.is_none(), "KUBECTL={} is no kubectl 1.{OLDEST} or later", program.display());
            eprintln!(
                "SKIPPED: needs kubectl 1.{OLDEST} or later in PATH or KUBECTL (found minor version {minor:?})"
            );
            None
        }
    }
}

impl Kubectl {
    /// A `kubectl` for the server at `url`, if there is one.
    pub(crate) fn find(url: &str) -> Option<Self> {
        let program = find()?;
        let home = tempfile::tempdir().unwrap();
        sim_api::write_kubeconfig(&home.path().join("config"), "test", url).unwrap();
        Some(Self { program, home })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("KUBECONFIG", self.home.path().join("config"))
            .env("HOME", self.home.path())
            .env_remove("KUBECTL");
        command
    }

    fn output(&self, args: &[&str], stdin: &str) -> Output {
        let mut command = self.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Runs a command that must succeed and say nothing on stderr, and returns what it prints.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        self.run_with(args, "")
    }

    /// As [`Kubectl::run`] with standard input.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> String {
        let out = self.output(args, stdin);
        let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
        assert!(out.status.success(), "kubectl {args:?} failed: {stderr}{stdout}");
        assert!(
            !stderr.contains("Error") && !stderr.contains("Warning: unknown"),
            "kubectl {args:?} complains: {stderr}"
        );
        stdout
    }

    /// Runs a command that must fail, and returns its exit code and what it says.
    pub(crate) fn fails(&self, args: &[&str], stdin: &str) -> (i32, String) {
        let out = self.output(args, stdin);
        assert!(!out.status.success(), "kubectl {args:?} succeeds: {}", text(&out.stdout));
        (out.status.code().unwrap_or(-1), text(&out.stderr) + &text(&out.stdout))
    }

    /// Starts a command and lets it run; it ends with the value.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running(
            self.command(args)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A command that runs beside the test.
pub(crate) struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
