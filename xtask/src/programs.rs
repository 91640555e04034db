//! The programs that labs and tests run: built once, in one place.

use std::path::PathBuf;

use crate::{cmd, ebpf};

/// Packages whose binaries a lab runs, built together so that features agree.
const PACKAGES: &[&str] = &["agent-daemon", "bristle-cni", "bristle-cli", "lab", "e2e"];

/// Builds the programs and the eBPF object and returns the directory that holds them all.
pub(crate) fn build(extra: &[&str]) -> anyhow::Result<PathBuf> {
    let mut cargo = cmd::cargo();
    cargo.args(["build", "--release", "--bins", "--locked"]);
    for package in PACKAGES.iter().chain(extra) {
        cargo.args(["--package", package]);
    }
    cmd::run("build the programs", &mut cargo)?;
    let dir = cmd::target_dir().join("release");
    let object = ebpf::build()?;
    std::fs::copy(&object, dir.join("bristle.bpf.o"))?;
    Ok(dir)
}
