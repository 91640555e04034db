//! A copy of the sources that cargo can build again and again: only files that differ are written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::{cmd, tidy};

/// Makes `to` hold the repository's files, with `changed` in place of those it names, and nothing else.
pub(super) fn refresh(to: &Path, changed: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let root = cmd::root();
    let mut kept = BTreeSet::new();
    for file in tidy::tracked(&root)? {
        let from = root.join(&file);
        // A file that was deleted and not committed yet is listed, too.
        if from.is_file() && !changed.contains_key(file.to_string_lossy().as_ref()) {
            let content = std::fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
            write(&to.join(&file), &content)?;
            kept.insert(file);
        }
    }
    for (file, text) in changed {
        write(&to.join(file), text.as_bytes())?;
        kept.insert(PathBuf::from(file));
    }
    remove_others(to, Path::new(""), &kept)
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if std::fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Removes files that are not in the repository any more, or that tests have left.
fn remove_others(to: &Path, dir: &Path, kept: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
    let full = to.join(dir);
    for entry in std::fs::read_dir(&full).with_context(|| format!("cannot read {}", full.display()))? {
        let entry = entry?;
        let file = dir.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(to, &file, kept)?;
        } else if !kept.contains(&file) {
            std::fs::remove_file(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}
