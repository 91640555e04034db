//! The programs that labs and tests run: built once, in one place.

use std::path::PathBuf;

use crate::{cmd, ebpf};

/// Packages whose binaries labs and tests run, built together so that features agree.
const PACKAGES: &[&str] = &["agent-daemon", "bristle-operator", "bristle-cli", "lab", "e2e", "sim-native"];

/// The plugin, which is built by itself: without shared libraries. It runs in the host's mount namespace, whatever libraries
/// are there, and a process that need not load any starts in half the time, which every pod waits for twice.
const PLUGIN: &[&str] =
    &["--package", "bristle-cni", "--bin", "bristle-cni", "--", "-Ctarget-feature=+crt-static"];

/// Builds the programs of some packages that need neither root nor eBPF, and returns the directory that holds them.
pub(crate) fn build_only(what: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let mut cargo = cmd::cargo();
    cargo.args(["build", "--release", "--bins", "--locked"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    cmd::run(&format!("build {what}"), &mut cargo)?;
    Ok(cmd::target_dir().join("release"))
}

/// Builds the programs and the eBPF object and returns the directory that holds them all.
pub(crate) fn build(extra: &[&str]) -> anyhow::Result<PathBuf> {
    let mut cargo = cmd::cargo();
    cargo.args(["build", "--release", "--bins", "--locked"]);
    for package in PACKAGES.iter().chain(extra) {
        cargo.args(["--package", package]);
    }
    cmd::run("build the programs", &mut cargo)?;
    cmd::run("build the plugin", cmd::cargo().args(["rustc", "--release", "--locked"]).args(PLUGIN))?;
    let dir = cmd::target_dir().join("release");
    let object = ebpf::build()?;
    std::fs::copy(&object, dir.join("bristle.bpf.o"))?;
    Ok(dir)
}
