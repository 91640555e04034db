//! Running other programs: says what it runs, and turns a failure into one sentence.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies one level below the repository's root")
        .to_path_buf()
}

/// The directory that cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that started this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Prints `title` and the command, runs it, and fails unless it succeeded.
pub(crate) fn run(title: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("==> {title}");
    let status =
        command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{title} failed ({status}): {}", line(command));
    }
    Ok(())
}

/// A program that we hand over to failed and has said why; we end with its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed(pub(crate) u8);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it ended with code {}", self.0)
    }
}

impl std::error::Error for Failed {}

/// Hands over to a program of ours: fails with [`Failed`] if it does.
pub(crate) fn pass(command: &mut Command) -> anyhow::Result<()> {
    let status =
        command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failed(u8::try_from(code).unwrap_or(1)).into()),
        None => bail!("{} was killed ({status})", command.get_program().display()),
    }
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// Whether this process runs as root, by the effective uid that the kernel reports.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_whitespace().nth(1))
            == Some("0")
    })
}

/// Fails with one sentence where `what` needs root and this is not.
pub(crate) fn need_root(what: &str) -> anyhow::Result<()> {
    if !is_root() {
        bail!(
            "{what} needs root for network namespaces and eBPF: run it as root (sudo -E env PATH=\"$PATH\" cargo xtask …); `cargo test` runs what needs none"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_program_is_passed_on() {
        let mut shell = Command::new("sh");
        let error = pass(shell.args(["-c", "exit 2"])).expect_err("it failed");
        assert_eq!(error.downcast_ref::<Failed>(), Some(&Failed(2)));
        assert!(pass(Command::new("sh").args(["-c", "exit 0"])).is_ok());
    }
}
