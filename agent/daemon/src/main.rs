//! bristle-agent.
fn main() {}
