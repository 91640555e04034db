//! `cargo xtask ebpf`: builds the eBPF object and loads it on every kernel of the matrix.
// CONTRACT for main: Args, run, build() -> path of target/bpf/bristle.bpf.o, verify_all(), check(). Owner B fills this in.

use std::path::PathBuf;

use crate::cmd;

/// Options of `ebpf`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Builds, and verifies if asked.
pub(crate) fn run(_args: &Args) -> anyhow::Result<()> {
    build().map(|_| ())
}

/// Builds the object and returns its path.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    Ok(cmd::target_dir().join("bpf/bristle.bpf.o"))
}

/// This kernel and the VM kernels; fails on growth of more than 20 %.
pub(crate) fn verify_all() -> anyhow::Result<()> {
    Ok(())
}

/// Lints of the eBPF crate for its own target and the growth check where possible (`cargo xtask check`).
pub(crate) fn check() -> anyhow::Result<()> {
    Ok(())
}
