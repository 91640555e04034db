//! What is wrong with an object.

/// An object of a known kind that the API server would not have taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {problem}")]
pub struct OracleError {
    /// Kind, namespace and name of the object, as far as they are known: `NetworkPolicy default/db`.
    pub object: String,
    /// Path of the field: `spec.ingress[0].ports[1].endPort`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}
