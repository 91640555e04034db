//! `cargo xtask setup`: finds or installs what builds, labs and tests need.
//!
//! It says what it does and why, does nothing twice, and is silent and quick when nothing is missing: every other job
//! calls [`ensure`] first.

mod apt;
mod chain;
pub(crate) mod engine;
mod kubectl;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::ValueEnum;

use crate::cmd;
pub(crate) use apt::{Kernel, Suite};
pub(crate) use chain::{Chain, Kind};

/// Options of `setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For what: what a build needs, what a lab needs as well, what the VM kernels need, or all that CI runs.
    #[arg(long = "for", value_enum, default_value_t = Profile::Lab)]
    profile: Profile,
    /// Only say what there is and what is missing.
    #[arg(long)]
    check: bool,
}

/// What the machine is to be made ready for. Each profile but `verify` holds those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Debug)]
pub(crate) enum Profile {
    /// The programs and the eBPF object.
    Build,
    /// A cluster on this machine.
    Lab,
    /// The eBPF object on other kernels, in VMs.
    Verify,
    /// Everything.
    Ci,
}

impl Profile {
    fn includes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Ci, _) | (Self::Lab | Self::Verify, Self::Build) => true,
            (mine, other) => mine == other,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build => "build",
            Self::Lab => "lab",
            Self::Verify => "verify",
            Self::Ci => "ci",
        })
    }
}

/// A program and the Debian package that brings it.
struct Program {
    name: &'static str,
    package: &'static str,
    for_what: Profile,
}

const fn program(for_what: Profile, name: &'static str, package: &'static str) -> Program {
    Program { name, package, for_what }
}

/// What must be on the PATH (or in the system directories that root's PATH has).
const PROGRAMS: &[Program] = &[
    program(Profile::Build, "cc", "gcc"),
    program(Profile::Lab, "ip", "iproute2"),
    program(Profile::Lab, "tcpdump", "tcpdump"),
    program(Profile::Lab, "curl", "curl"),
    program(Profile::Lab, "ping", "iputils-ping"),
    program(Profile::Lab, "nslookup", "bind9-dnsutils"),
    program(Profile::Verify, "qemu-system-x86_64", "qemu-system-x86"),
    // Without these `bench service` has less to compare with.
    program(Profile::Ci, "nft", "nftables"),
    program(Profile::Ci, "iptables-restore", "iptables"),
    program(Profile::Ci, "bpftool", "bpftool"),
    program(Profile::Ci, "busybox", "busybox-static"),
    program(Profile::Ci, "containerd", "containerd"),
    program(Profile::Ci, "runc", "runc"),
];

/// Finds or installs everything and says what it did.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.check {
        return report(args.profile);
    }
    install(args.profile)?;
    report(args.profile)
}

/// Makes sure that what `profile` (build, lab, verify, ci) needs is there; silent and fast if so.
pub(crate) fn ensure(profile: &str) -> anyhow::Result<()> {
    let profile = Profile::from_str(profile, true).map_err(anyhow::Error::msg)?;
    install(profile)
}

/// A kubectl of 1.32 or later, if there is one.
pub(crate) fn kubectl() -> Option<PathBuf> {
    kubectl::find()
}

/// The kernel of a Debian suite, downloaded if it is not there yet.
pub(crate) fn kernel(suite: Suite) -> anyhow::Result<Kernel> {
    apt::kernel(suite)
}

/// The toolchain for the eBPF object.
pub(crate) fn bpf_chain() -> anyhow::Result<Chain> {
    match Chain::find() {
        Some(chain) => Ok(chain),
        None => bail!("no toolchain for eBPF: run `cargo xtask setup` as root, or {}", chain::BY_HAND),
    }
}

/// Where tools are kept that are not installed system-wide: `BRISTLE_TOOLS`, or `bristle` in the user's cache directory.
fn tools_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("BRISTLE_TOOLS") {
        return PathBuf::from(dir);
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    cache.unwrap_or_else(cmd::target_dir).join("bristle")
}

/// The program `name`, on the PATH or where root's programs are.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn missing_programs(profile: Profile) -> Vec<&'static Program> {
    PROGRAMS
        .iter()
        .filter(|program| profile.includes(program.for_what))
        .filter(|program| find_program(program.name).is_none())
        .collect()
}

fn install(profile: Profile) -> anyhow::Result<()> {
    let programs = missing_programs(profile);
    if !programs.is_empty() {
        let names: Vec<&str> = programs.iter().map(|program| program.name).collect();
        let packages: Vec<&str> = programs.iter().map(|program| program.package).collect();
        apt::install(&names.join(", "), &packages)?;
    }
    if Chain::find().is_none() {
        chain::install()?;
    }
    if profile.includes(Profile::Lab) && kubectl::find().is_none() {
        kubectl::install()?;
    }
    if profile.includes(Profile::Verify) {
        for suite in Suite::ALL {
            apt::kernel(suite)?;
        }
    }
    if profile.includes(Profile::Ci) && engine::find().is_none() {
        engine::install()?;
    }
    Ok(())
}

/// Prints one line per thing; fails when something is missing.
fn report(profile: Profile) -> anyhow::Result<()> {
    let mut missing = 0;
    let mut line = |what: &str, found: Option<String>, mend: &str| {
        if let Some(found) = found {
            eprintln!("  {what:<20} {found}");
        } else {
            missing += 1;
            eprintln!("  {what:<20} MISSING: {mend}");
        }
    };
    eprintln!("==> what `{profile}` needs");
    for program in PROGRAMS.iter().filter(|program| profile.includes(program.for_what)) {
        let found = find_program(program.name).map(|path| path.display().to_string());
        line(program.name, found, &format!("Debian package {}", program.package));
    }
    line("eBPF toolchain", Chain::find().map(|chain| chain.to_string()), chain::BY_HAND);
    if profile.includes(Profile::Lab) {
        let found = kubectl::find().map(|path| path.display().to_string());
        line("kubectl", found, "1.32 or later, on the PATH or from Debian's trixie");
    }
    if profile.includes(Profile::Verify) {
        for suite in Suite::ALL {
            let found = apt::cached_kernel(suite).map(|kernel| kernel.image.display().to_string());
            line(&format!("Linux {}", suite.version()), found, "Debian's cloud kernel");
        }
    }
    if profile.includes(Profile::Ci) {
        let found = engine::find().map(|programs| programs.dockerd.display().to_string());
        line("dockerd", found, "Docker, on the PATH or from Debian's bookworm");
    }
    if missing > 0 {
        bail!("{missing} missing: run `cargo xtask setup --for {profile}` as root");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_hold_what_they_build_on() {
        assert!(Profile::Lab.includes(Profile::Build));
        assert!(!Profile::Lab.includes(Profile::Verify));
        assert!(Profile::Verify.includes(Profile::Build));
        assert!(!Profile::Verify.includes(Profile::Lab));
        for profile in Profile::value_variants() {
            assert!(Profile::Ci.includes(*profile));
            assert!(profile.includes(*profile));
        }
    }

    #[test]
    fn the_shell_is_found() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-anywhere").is_none());
    }
}
