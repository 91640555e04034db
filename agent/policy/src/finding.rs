//! What is wrong with the input, or worth knowing.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A part of the object is not used.
    Warning,
    /// Something is not enforced as it is asked for.
    Error,
}

/// One finding. The present ones are part of the state; one that is mended disappears.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Finding {
    /// The object or the endpoint, such as `NetworkPolicy/shop/web`.
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong and what was done about it.
    pub message: String,
}

impl Finding {
    pub(crate) fn warning(subject: &impl ToString, message: impl Into<String>) -> Self {
        Self { subject: subject.to_string(), severity: Severity::Warning, message: message.into() }
    }

    pub(crate) fn error(subject: &impl ToString, message: impl Into<String>) -> Self {
        Self { subject: subject.to_string(), severity: Severity::Error, message: message.into() }
    }
}
