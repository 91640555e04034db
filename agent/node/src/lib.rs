//! agent-node.
