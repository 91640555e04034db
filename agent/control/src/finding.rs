//! What is wrong with the input, or worth knowing: never an error of ours.

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// A part of the object is not used.
    Warning,
    /// Something does not work because of it.
    Error,
}

/// One finding about one object. The present ones are part of the status; one that is mended disappears.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object, such as `node/worker-1`.
    pub subject: String,
    /// What is wrong and what was done about it.
    pub message: String,
}

impl Finding {
    /// Something does not work because of this.
    pub(crate) fn error(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, subject: subject.into(), message: message.into() }
    }

    /// A part of the object is not used.
    pub(crate) fn warning(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, subject: subject.into(), message: message.into() }
    }
}
