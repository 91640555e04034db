//! Where a cluster runs. Both arms are used through the Kubernetes API and the same commands.

use std::fmt;

/// The kind of cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ArmKind {
    /// Network namespaces on this machine.
    Netns,
    /// A kind cluster (containers, real Kubernetes).
    Kind,
}

impl fmt::Display for ArmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Netns => "netns",
            Self::Kind => "kind",
        })
    }
}

/// The arm cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this version has no {0} arm yet: use --on netns")]
pub struct NoSuchArmError(ArmKind);

impl ArmKind {
    /// Whether clusters can be made on this arm.
    ///
    /// # Errors
    /// For the kind arm, which is not there yet.
    pub fn check(self) -> Result<(), NoSuchArmError> {
        match self {
            Self::Netns => Ok(()),
            Self::Kind => Err(NoSuchArmError(self)),
        }
    }
}
