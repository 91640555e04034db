//! Writes the file that tells `kubectl` and others where the server is.

use std::io;
use std::path::Path;

/// The text of a kubeconfig for the server at `url` (for example `http://127.0.0.1:16443`), with one context.
/// `name` becomes the name of cluster, user and context.
pub fn kubeconfig(name: &str, url: &str) -> String {
    // A bearer token is needed even though nobody checks it: without any credentials kubectl asks for a password
    // on a terminal when a call is refused.
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {name}\nclusters:\n- name: {name}\n  cluster:\n    server: {url}\n\
         contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\nusers:\n- name: {name}\n  user:\n    token: simulated\n"
    )
}

/// Writes a kubeconfig for `url` to `path`.
///
/// # Errors
/// The file cannot be written.
pub fn write_kubeconfig(path: &Path, name: &str, url: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(path, kubeconfig(name, url))
}
