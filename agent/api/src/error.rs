//! What the local API answers when it cannot do what was asked.

use serde::{Deserialize, Serialize};

/// Body of every answer with a status of 400 and above.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What is wrong and what to do about it, in one sentence.
    pub error: String,
}
