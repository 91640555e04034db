//! bristle-e2e.
fn main() {}
