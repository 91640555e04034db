//! Nanoseconds per packet of the host in memory.
fn main() {}
