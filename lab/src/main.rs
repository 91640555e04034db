//! bristle-lab.
fn main() {}
