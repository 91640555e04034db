//! What is asked of traffic and of who answers it, and of the answers of the API server.

use serde::{Deserialize, Serialize};

/// What must come of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrafficExpect {
    /// Every one is answered, no connection is reset.
    #[default]
    Ok,
    /// None is answered.
    Fail,
    /// None is answered, and each is told so at once: by a reset or an ICMP error, or because the call itself fails.
    Refused,
    /// Nothing is asked of it.
    Any,
    /// Connections stay alive and at least one is answered after the last fault has ended; single losses are allowed.
    Survive,
}

/// Which pods must have answered, by `NAME` or `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum AnsweredBy {
    /// Each of these, and nobody else.
    Each(Vec<String>),
    /// One of these, always the same.
    One(Vec<String>),
    /// More than one of these, and nobody else.
    Several(Vec<String>),
}

impl AnsweredBy {
    /// The pods that it names.
    pub fn pods(&self) -> &[String] {
        match self {
            Self::Each(pods) | Self::One(pods) | Self::Several(pods) => pods,
        }
    }
}

/// A request to the API server, and what it must answer. A `PATCH` is a JSON merge patch (RFC 7396).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// What is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
    /// It must be refused with this status; without it, it must succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<u16>,
    /// Fields of the answer: mappings may have more, lists have as many items, null stands for what is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has: Option<serde_json::Value>,
    /// Words in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads an object or a list.
    Get,
    /// Makes an object.
    Post,
    /// Replaces one.
    Put,
    /// Changes one.
    Patch,
    /// Deletes one, or all that a selector selects.
    Delete,
}

impl Method {
    /// As HTTP has it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// The media type of what is sent with it.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Patch => "application/merge-patch+json",
            _ => "application/json",
        }
    }
}
