//! What the engine is told once.

use dataplane_abi::Identity;

use crate::peers::Families;

/// When an endpoint is isolated without a policy that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Enforcement {
    /// As policies say.
    #[default]
    Default,
    /// Always, in both directions. Not for the node itself and other reserved endpoints.
    Always,
    /// Nothing is enforced, whatever policies say.
    Never,
}

/// Configuration of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address families in use.
    pub families: Families,
    /// Enforcement for endpoints that have no mode of their own.
    pub enforcement: Enforcement,
    /// What is dropped by policy passes, and is told of.
    pub audit: bool,
    /// Pods whose labels are not known yet (identity `init`) are isolated, unless enforcement is off.
    pub isolate_init: bool,
    /// Name of the cluster, as identities have it.
    pub cluster: String,
    /// Most rows of one policy, 1 to 1,048,576.
    pub max_rows: usize,
}

impl Config {
    /// Whether a pod of this identity is isolated in both directions, whatever policies say, in that mode of enforcement.
    pub fn isolates(&self, mode: Enforcement, identity: Identity) -> bool {
        let unknown = matches!(identity, Identity::INIT | Identity::UNKNOWN);
        match mode {
            Enforcement::Never => false,
            Enforcement::Always => unknown || !identity.is_reserved(),
            Enforcement::Default => unknown && self.isolate_init,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            families: Families { v4: true, v6: true },
            enforcement: Enforcement::Default,
            audit: false,
            isolate_init: true,
            cluster: "default".to_owned(),
            max_rows: 16_384,
        }
    }
}
