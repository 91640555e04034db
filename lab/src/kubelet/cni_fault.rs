//! What container runtimes do wrong, or at least differently, on purpose.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Kubelets;
use super::cni::{Attachment, CONF_DIR, CniError, NetworkConfig};
use super::context::NodeContext;

/// What a node's runtime does until it is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CniFault {
    /// Sends every ADD twice.
    RepeatAdd,
    /// Sends every DEL again this much later.
    RepeatDel(Duration),
    /// Sends DELs this late: the pod's namespace and its object are gone by then.
    LateDel(Duration),
    /// Sends a DEL before every ADD of the same container.
    DelFirst,
    /// Removes the pod's network namespace before the ADD, which fails then and is tried again with the next container.
    NetnsGone,
}

/// GC could not be called.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct GcError(String);

impl Kubelets {
    /// Sets what a node's runtime does wrong; nothing if the list is empty. False if there is no such node.
    pub fn set_faults(&self, node: &str, faults: Vec<CniFault>) -> bool {
        let Some(node) = self.0.nodes.get(node) else { return false };
        *node.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
        true
    }

    /// Calls GC on a node with the attachments that are there (CNI spec 1.1.0).
    ///
    /// # Errors
    /// When there is no such node, or with the plugin's own words.
    pub async fn gc(&self, node: &str) -> Result<(), GcError> {
        let found = self.0.nodes.get(node).cloned();
        let node = found.ok_or_else(|| GcError(format!("there is no node {node}")))?;
        let failed = |e: CniError| GcError(crate::error_chain(&e));
        let config = NetworkConfig::load(&node.file(CONF_DIR)).map_err(failed)?;
        let valid: Vec<Attachment> = node.attachments().values().cloned().collect();
        config.gc(&node.ns, &valid).await.map_err(failed)
    }
}

/// Sends a DEL later, if the node is still there then.
pub(super) fn del_later(node: &Arc<NodeContext>, pod: Attachment, after: Duration) {
    let node: Weak<NodeContext> = Arc::downgrade(node);
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        let Some(node) = node.upgrade() else { return };
        let sent = match NetworkConfig::load(&node.file(CONF_DIR)) {
            Ok(config) => config.del(&node.ns, &pod, None).await,
            Err(e) => Err(e),
        };
        if let Err(e) = sent {
            tracing::warn!(node = node.name, pod = pod.name, "late DEL failed: {}", crate::error_chain(&e));
        }
    });
}
