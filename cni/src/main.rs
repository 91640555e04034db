//! bristle-cni.
fn main() {}
