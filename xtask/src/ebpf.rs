//! `cargo xtask ebpf`: builds the eBPF object and loads it on every kernel of the matrix.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::setup::{self, Chain, Kind};
use crate::{cmd, verify};

/// Options of `ebpf`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Load every program on the running kernel and on those of the VMs; compare the instruction counts with the docs.
    #[arg(long)]
    verify: bool,
    /// Only these kernels: `running`, `5.10`, `6.1`, `6.12`.
    #[arg(long, value_delimiter = ',', requires = "verify")]
    kernel: Vec<String>,
    /// Verify this object instead of building one.
    #[arg(long, requires = "verify")]
    object: Option<PathBuf>,
    /// Write the counts into the docs instead of comparing.
    #[arg(long, requires = "verify")]
    update: bool,
}

/// The target that the object is for.
const TARGET: &str = "bpfel-unknown-none";

/// Builds, and verifies if asked.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let object = if let Some(object) = &args.object {
        object.clone()
    } else {
        setup::ensure("build")?;
        build()?
    };
    eprintln!("    {}", object.display());
    if args.verify {
        verify::run(&object, &args.kernel, args.update)?;
    }
    Ok(())
}

/// Builds the object and returns its path.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    build_with(&[])
}

/// Options that turn warnings into an error without building anything again.
const DENY_WARNINGS: [&str; 4] = ["-Z", "warnings", "--config", "build.warnings=\"deny\""];

fn build_with(options: &[&str]) -> anyhow::Result<PathBuf> {
    let chain = setup::bpf_chain()?;
    let build_dir = cmd::target_dir().join("bpf-build");
    let mut cargo = command(&chain, "build");
    cargo.arg("--release").args(options);
    cmd::run("build the eBPF object", &mut cargo)?;
    let built = build_dir.join(TARGET).join("release/bristle-bpf");
    let object = cmd::target_dir().join("bpf/bristle.bpf.o");
    copy_if_changed(&built, &object)?;
    Ok(object)
}

/// How the object is made.
/// The linker's default way of expanding copies turns small zeroing into calls that write bytes (20 ns a packet) and crashes
/// on some of ours, so the compiler's own way is taken. The third instruction set has 32-bit arithmetic and is in every
/// kernel since 5.1.
const LINK_FLAGS: &str =
    "-C link-arg=--btf -C link-arg=--disable-expand-memcpy-in-order -C target-cpu=v3 -C debuginfo=2";

/// A cargo command for the eBPF crate with the toolchain that was found.
fn command(chain: &Chain, verb: &str) -> Command {
    let mut cargo = cmd::cargo();
    cargo
        .args([verb, "--locked", "--quiet", "--package", "dataplane-ebpf", "--target", TARGET])
        .env("CARGO_TARGET_DIR", cmd::target_dir().join("bpf-build"))
        .env("RUSTC", &chain.rustc)
        // It would cut the crates into other units, which are optimised otherwise: what one is told is verified would not be what is shipped.
        .env("CARGO_INCREMENTAL", "0")
        // The target is not a stable one: this lets the stable compiler take its options.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", format!("-C linker={} {LINK_FLAGS}", chain.linker.display()))
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if chain.kind == Kind::Rustup {
        cargo.args(["-Z", "build-std=core"]);
    }
    cargo
}

/// Copies unless the bytes are the same, so that nothing that depends on the object is built again for nothing.
fn copy_if_changed(from: &Path, to: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(dir) = to.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Whoever is reading the old object keeps it: the new one takes its name in one step.
    let part = to.with_extension("part");
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, to).with_context(|| format!("write {}", to.display()))
}

/// This kernel and the VM kernels; fails on growth of more than 20 %.
pub(crate) fn verify_all() -> anyhow::Result<()> {
    let object = build()?;
    verify::run(&object, &[], false)
}

/// Lints of the eBPF crate for its own target and the growth check where possible (`cargo xtask check`).
///
/// The lints are the compiler's: clippy has no library for the target.
pub(crate) fn check() -> anyhow::Result<()> {
    let object = build_with(&DENY_WARNINGS)?;
    if !cmd::is_root() {
        eprintln!("==> instruction counts: SKIPPED, loading programs needs root");
        return Ok(());
    }
    verify::run(&object, &["running".to_owned()], false)
}
