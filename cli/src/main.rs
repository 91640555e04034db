//! bristle.
fn main() {}
