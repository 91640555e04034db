//! Errors as the CNI specification defines them.

use serde::{Deserialize, Serialize};

/// Error code of the CNI specification (0–99 are the spec's, 100 and above ours).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// The runtime asks for a version that we do not speak.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A configuration key has a value that we do not support; the message quotes both.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// The container is unknown; the runtime need not clean up.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// An environment variable is missing or bad; the message names it.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// Reading or writing failed.
    pub const IO_FAILURE: Self = Self(5);
    /// The input is not what it should be.
    pub const DECODING_FAILURE: Self = Self(6);
    /// The network configuration is invalid.
    pub const INVALID_NETWORK_CONFIG: Self = Self(7);
    /// The network namespace does not exist or is none (code of the reference library).
    pub const INVALID_NETNS: Self = Self(8);
    /// A condition that goes away by itself or by an operator's hand (no agent, no free address); the runtime should try again.
    pub const TRY_AGAIN: Self = Self(11);
    /// STATUS: an ADD could not be served now.
    pub const UNAVAILABLE: Self = Self(50);
    /// STATUS: an ADD could not be served now, and running pods may have limited connectivity.
    pub const UNAVAILABLE_LIMITED: Self = Self(51);
    /// CHECK: interface, address or route differ from what ADD made.
    pub const CHECK_FAILED: Self = Self(101);
    /// ADD: this container has this interface already.
    pub const ATTACHMENT_EXISTS: Self = Self(102);
    /// A mistake of ours (code of the reference library).
    pub const INTERNAL: Self = Self(999);
}

/// A failed command, in the fields of the spec's error object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg} (code {})", code.0)]
pub struct CniError {
    /// What kind of failure it is, for the runtime.
    pub code: ErrorCode,
    /// One sentence for the operator: what is wrong and what to do about it.
    pub msg: String,
    /// Cause chain and the like; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: ErrorCode, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }
}
