//! bristle-bench.
fn main() {}
