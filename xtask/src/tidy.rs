//! Small rules of the house that no compiler knows.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::cmd;

/// Lines after which a file wants to be two.
const MOST_LINES: usize = 900;

/// Fails with every finding.
pub(crate) fn check() -> anyhow::Result<()> {
    eprintln!("==> tidy");
    let root = cmd::root();
    let mut findings = Vec::new();
    let files = tracked(&root)?;
    for file in &files {
        let path = root.join(file);
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let name = file.to_string_lossy();
        if Path::new(name.as_ref()).extension().is_some_and(|end| end == "rs") {
            rust(&name, &text, &mut findings);
        }
        if Path::new(name.as_ref()).extension().is_some_and(|end| end == "md") {
            links(&root, file, &text, &mut findings);
            paths(&files, &name, &text, &mut findings);
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!("tidy found:\n  {}", findings.join("\n  "))
}

/// The repository's files, relative to its root: tracked ones and new ones that are not ignored.
pub(crate) fn tracked(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot run git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect())
}

fn rust(name: &str, text: &str, findings: &mut Vec<String>) {
    // Below tests/ a file of the module's name would be a test of its own.
    if name.ends_with("/mod.rs") && !name.contains("/tests/") {
        findings.push(format!("{name}: name the file after the module, not mod.rs"));
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        findings.push(format!("{name}: {lines} lines, more than {MOST_LINES}: one subject a file"));
    }
    let documented = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("#!["))
        .is_some_and(|line| line.starts_with("//!"));
    if !documented {
        findings.push(format!("{name}: begins without a //! line that says what it is"));
    }
}

/// Every relative link of a document leads to a file.
fn links(root: &Path, file: &Path, text: &str, findings: &mut Vec<String>) {
    for part in text.split("](").skip(1) {
        let Some(target) = part.split(')').next() else {
            continue;
        };
        let path = target.split('#').next().unwrap_or_default();
        if path.is_empty() || path.contains("://") || path.contains(' ') {
            continue;
        }
        let base = root.join(file).parent().map(Path::to_path_buf).unwrap_or_default();
        if !base.join(path).exists() {
            findings.push(format!("{}: the link {target} leads nowhere", file.display()));
        }
    }
}

/// Ends of names that are files wherever they stand.
const ENDS: [&str; 7] = ["rs", "yaml", "yml", "md", "toml", "json", "sh"];

/// Every file of the repository that a document names is there: from the root, or below what the document is about.
fn paths(files: &[PathBuf], name: &str, text: &str, findings: &mut Vec<String>) {
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "/._-*{}<>…$".contains(c);
    for word in text.split(|c: char| !is_of_path(c)) {
        let word = word.trim_end_matches('.');
        let Some((top, _)) = word.split_once('/') else { continue };
        let is_file = Path::new(word)
            .extension()
            .is_some_and(|end| ENDS.iter().any(|known| end.eq_ignore_ascii_case(known)));
        // What is not below a directory of ours is the reader's own, or is named from somewhere else.
        let is_ours =
            !top.is_empty() && !top.starts_with('.') && files.iter().any(|file| file.starts_with(top));
        let is_pattern = word.contains(|c: char| "*{}<>…$".contains(c));
        let is_there = || files.iter().any(|file| file.ends_with(word));
        if is_file && is_ours && !is_pattern && !is_there() {
            findings.push(format!("{name}: names {word}, which is not there"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undocumented_file_is_found() {
        let mut findings = Vec::new();
        rust("a/src/b.rs", "#![no_std]\nfn f() {}\n", &mut findings);
        assert_eq!(findings.len(), 1);
        findings.clear();
        rust("a/src/b.rs", "//! What it is.\nfn f() {}\n", &mut findings);
        assert!(findings.is_empty());
    }

    #[test]
    fn a_link_to_nothing_is_found() {
        let mut findings = Vec::new();
        links(&cmd::root(), Path::new("docs/x.md"), "[a](nowhere.md) [b](../Cargo.toml)", &mut findings);
        assert_eq!(findings, ["docs/x.md: the link nowhere.md leads nowhere"]);
    }

    #[test]
    fn a_document_that_names_a_file_that_is_not_there_is_found() {
        let mut findings = Vec::new();
        let text = "| run `cargo xtask sim run sim/scenarios/none.yaml` | `sim/scenarios/traffic.yaml`, `sim/NAME/*.yaml` |\n\
                    See xtask/src/tidy.rs and, below `agent/control/src`, `agent/cni.rs`. Yours: `sim-failures/crash-17.yaml`, `./bug.yaml`, `https://example.org/sim/a.md`\n";
        let files = ["sim/scenarios/traffic.yaml", "xtask/src/tidy.rs", "agent/control/src/agent/cni.rs"];
        let files = files.map(PathBuf::from);
        paths(&files, "docs/x.md", text, &mut findings);
        assert_eq!(findings, ["docs/x.md: names sim/scenarios/none.yaml, which is not there"]);
    }
}
