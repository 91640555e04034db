//! agent-control.
