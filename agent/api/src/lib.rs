//! agent-api.
