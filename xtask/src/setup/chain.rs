//! The toolchain for the eBPF object, in two ways: Debian's compiler with a ready-built core library for BPF, or
//! rustup's with the library's source (`-Z build-std`). Both link with bpf-linker.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{apt, find_program, is_executable, tools_dir};
use crate::cmd;

/// The version that the object's instruction counts were taken with; compiler and linker move together.
const BPF_LINKER: &str = "0.13.0";

/// What to do where nothing can be installed.
pub(super) const BY_HAND: &str = "install Debian's rustc-web, libstd-rust-web-dev-bpf and llvm-22-dev (or rustup's rust-src) \
     and `LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22`";

/// Where the core library for BPF comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Ready-built, beside Debian's compiler.
    Debian,
    /// Built along, from rustup's `rust-src`.
    Rustup,
}

/// A compiler and a linker that together make eBPF.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// How.
    pub(crate) kind: Kind,
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// bpf-linker.
    pub(crate) linker: PathBuf,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.kind {
            Kind::Debian => "Debian's, with a ready-built core for BPF",
            Kind::Rustup => "with -Z build-std and rustup's rust-src",
        };
        write!(f, "{} ({how})", self.rustc.display())?;
        write!(f, ", {}", self.linker.display())
    }
}

impl Chain {
    /// What is there; `BRISTLE_BPF_TOOLCHAIN` = `debian` or `rustup` asks for one of them.
    pub(crate) fn find() -> Option<Self> {
        let linker = find_linker()?;
        let (kind, rustc) = find_compiler()?;
        Some(Self { kind, rustc, linker })
    }
}

fn find_compiler() -> Option<(Kind, PathBuf)> {
    let wish = std::env::var("BRISTLE_BPF_TOOLCHAIN").unwrap_or_default();
    let debian = || debian_rustc().map(|rustc| (Kind::Debian, rustc));
    let rustup = || rustup_rustc().map(|rustc| (Kind::Rustup, rustc));
    match wish.as_str() {
        "debian" => debian(),
        "rustup" => rustup(),
        // The ready-built library needs no nightly option, so it comes first.
        _ => debian().or_else(rustup),
    }
}

fn debian_rustc() -> Option<PathBuf> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    let sysroot = sysroot(&rustc)?;
    sysroot.join("lib/rustlib/bpfel-unknown-none/lib").is_dir().then_some(rustc)
}

fn rustup_rustc() -> Option<PathBuf> {
    // Inside `cargo xtask`, PATH has the toolchain's own directory first; the one of rustup asks for the same.
    let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let sysroot = sysroot(&rustc)?;
    let rustc = Some(sysroot.join("bin/rustc")).filter(|path| is_executable(path)).unwrap_or(rustc);
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file().then_some(rustc)
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

fn find_linker() -> Option<PathBuf> {
    Some(linker_root().join("bin/bpf-linker"))
        .filter(|path| is_executable(path))
        .or_else(|| find_program("bpf-linker"))
}

fn linker_root() -> PathBuf {
    tools_dir().join(format!("bpf-linker-{BPF_LINKER}"))
}

/// Installs what is missing of one way, and says which and why.
pub(super) fn install() -> anyhow::Result<()> {
    let compiler = match find_compiler() {
        Some((kind, rustc)) => {
            eprintln!("==> eBPF compiler: {} is there ({kind:?})", rustc.display());
            rustc
        }
        None => install_compiler()?,
    };
    if let Some(linker) = find_linker() {
        eprintln!("==> eBPF linker: {} is there", linker.display());
        return Ok(());
    }
    install_linker(&llvm_of(&compiler)?)
}

fn install_compiler() -> anyhow::Result<PathBuf> {
    let wish = std::env::var("BRISTLE_BPF_TOOLCHAIN").unwrap_or_default();
    if wish != "rustup" && apt::has("libstd-rust-web-dev-bpf") {
        eprintln!(
            "==> eBPF compiler: Debian's, because it has a ready-built core library for BPF (no nightly, no build-std)"
        );
        apt::install("a compiler for eBPF", &["rustc-web", "libstd-rust-web-dev-bpf"])?;
        return debian_rustc()
            .context("Debian's rustc-web is installed but has no bpfel-unknown-none library");
    }
    if wish == "debian" {
        bail!(
            "Debian's libstd-rust-web-dev-bpf was asked for and apt does not know it: unset BRISTLE_BPF_TOOLCHAIN"
        );
    }
    if find_program("rustup").is_none() {
        bail!("no compiler for eBPF: apt knows no libstd-rust-web-dev-bpf and there is no rustup; {BY_HAND}");
    }
    eprintln!("==> eBPF compiler: rustup's with -Z build-std, because apt knows no libstd-rust-web-dev-bpf");
    cmd::run("add rust-src", Command::new("rustup").args(["component", "add", "rust-src"]))?;
    rustup_rustc().context("rustup added rust-src but the library's source is not in the sysroot")
}

/// The LLVM version of a compiler, which its bitcode asks of the linker.
fn llvm_of(rustc: &Path) -> anyhow::Result<String> {
    let output =
        Command::new(rustc).arg("-vV").output().with_context(|| format!("run {}", rustc.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = version.and_then(|version| version.split('.').next());
    major
        .map(ToOwned::to_owned)
        .with_context(|| format!("{} does not tell its LLVM version", rustc.display()))
}

fn install_linker(llvm: &str) -> anyhow::Result<()> {
    let mut prefix = std::env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let usual = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if prefix.is_none() {
        if !usual.join("bin/llvm-config").exists() || find_program("c++").is_none() {
            let llvm_dev = format!("llvm-{llvm}-dev");
            let polly = format!("libpolly-{llvm}-dev");
            let packages = [&*llvm_dev, &*polly, "libzstd-dev", "zlib1g-dev", "libxml2-dev", "g++"];
            apt::install("LLVM, to build bpf-linker with", &packages)?;
        }
        prefix = Some(usual);
    }
    let root = linker_root();
    let feature = format!("llvm-{llvm}");
    let mut install = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    install
        .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"])
        .args(["--no-default-features", "--features", &feature, "--root"])
        .arg(&root)
        // Built apart from the workspace, with the workspace's compiler.
        .env("CARGO_TARGET_DIR", root.join("build"))
        .env_remove("RUSTFLAGS")
        .current_dir("/");
    if let Some(prefix) = prefix {
        install.env("LLVM_PREFIX", prefix);
    }
    cmd::run(&format!("build bpf-linker {BPF_LINKER} with LLVM {llvm} (about a minute)"), &mut install)?;
    std::fs::remove_dir_all(root.join("build")).context("remove bpf-linker's build directory")
}
