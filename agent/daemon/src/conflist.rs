//! The CNI network configuration, which tells the container runtime that pods can be added.

use agent_api::cni::{CONFIG_KEY_SOCKET, NETWORK_NAME, PLUGIN_TYPE};
use anyhow::{Context as _, Result};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Runtimes take the first file by name, so ours comes before what distributions install.
const FILE_NAME: &str = "05-bristle.conflist";

/// Where the configuration lies.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

/// What the file holds for an agent whose CNI socket is `socket`.
fn content(socket: &Path) -> String {
    let list = serde_json::json!({
        // The version in use for runtimes that know only this key; `cniVersions` (spec 1.1.0, section 1) lets newer
        // runtimes choose. containerd 1.6 reads only the first and speaks at most 1.0.0.
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": NETWORK_NAME,
        "plugins": [{ "type": PLUGIN_TYPE, CONFIG_KEY_SOCKET: socket }],
    });
    format!("{list:#}\n")
}

/// Writes the configuration unless it is there already; true when it wrote.
///
/// The file is renamed into place within its directory: runtimes that watch the directory see the rename, and nobody
/// sees half a file. It stays when the agent stops, so that DEL and the runtime's network status go on working.
///
/// # Errors
/// When the directory or file cannot be written.
pub(crate) fn write(dir: &Path, socket: &Path) -> Result<bool> {
    let (path, content) = (path(dir), content(socket));
    if fs::read(&path).is_ok_and(|old| old == content.as_bytes()) {
        return Ok(false);
    }
    fs::create_dir_all(dir)
        .with_context(|| format!("cannot make the CNI configuration directory {}", dir.display()))?;
    let temporary = dir.join(format!(".{FILE_NAME}.tmp"));
    let write = || {
        drop(fs::remove_file(&temporary));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| {
        format!("cannot write {}; point --cni-conf-dir at a writable directory", path.display())
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{path, write};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    #[test]
    fn the_one_in_deploy_is_the_same() {
        let deployed = include_str!("../../../deploy/cni/05-bristle.conflist");
        assert_eq!(super::content(Path::new("/run/bristle/cni.sock")), deployed);
    }

    #[test]
    fn is_written_once_and_readable_by_all() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("net.d");
        assert!(write(&conf, Path::new("/run/bristle/cni.sock")).unwrap());
        assert!(
            !write(&conf, Path::new("/run/bristle/cni.sock")).unwrap(),
            "unchanged content is left alone"
        );
        let file = path(&conf);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(value["name"], "bristle");
        assert_eq!(value["plugins"][0]["type"], "bristle-cni");
        assert_eq!(value["plugins"][0]["agent-socket"], "/run/bristle/cni.sock");
        assert_eq!(std::fs::read_dir(&conf).unwrap().count(), 1, "no temporary file stays");
        assert!(write(&conf, Path::new("/elsewhere/cni.sock")).unwrap(), "a changed socket is written");
    }
}
