//! A kubectl that is recent enough: the machine's own, or Debian trixie's in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

use super::apt::{self, Suite};
use super::{find_program, is_executable, tools_dir};

/// Oldest kubectl that the project is tested with.
const OLDEST: (u32, u32) = (1, 32);

fn cached() -> PathBuf {
    tools_dir().join("kubectl/usr/bin/kubectl")
}

/// The first kubectl of 1.32 or later: `KUBECTL`, the cache, the PATH.
pub(super) fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KUBECTL").map(PathBuf::from).filter(|path| is_executable(path)) {
        return Some(path);
    }
    // What was unpacked into the cache was checked when it was put there.
    let cached = cached();
    if is_executable(&cached) {
        return Some(cached);
    }
    find_program("kubectl").filter(|path| is_recent(path))
}

/// Puts Debian trixie's kubectl into the cache.
pub(super) fn install() -> anyhow::Result<()> {
    eprintln!(
        "==> kubectl: none of {}.{} or later is here, taking Debian trixie's (unpacked, not installed)",
        OLDEST.0, OLDEST.1
    );
    apt::unpack(Suite::Trixie, "kubectl", &tools_dir().join("kubectl"))?;
    let path = cached();
    if !is_recent(&path) {
        bail!(
            "{} is not {}.{} or later: put a newer kubectl on the PATH",
            path.display(),
            OLDEST.0,
            OLDEST.1
        );
    }
    Ok(())
}

fn is_recent(kubectl: &Path) -> bool {
    let output = Command::new(kubectl).args(["version", "--client", "--output=json"]).output();
    output.is_ok_and(|output| version(&output.stdout).is_some_and(|version| version >= OLDEST))
}

fn version(json: &[u8]) -> Option<(u32, u32)> {
    let json: serde_json::Value = serde_json::from_slice(json).ok()?;
    let number = |key: &str| -> Option<u32> {
        let text = json["clientVersion"][key].as_str()?;
        text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
    };
    Some((number("major")?, number("minor")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version(br#"{"clientVersion":{"major":"1","minor":"32+"}}"#), Some((1, 32)));
        assert_eq!(version(br#"{"clientVersion":{"major":"1","minor":"20"}}"#), Some((1, 20)));
        assert_eq!(version(b"{}"), None);
        assert_eq!(version(b"not json"), None);
    }
}
