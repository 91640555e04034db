//! Debian packages: installed on the system, or taken from another suite into the cache without touching the system.
//!
//! Another suite is read with an apt configuration of its own. Its mirror is the one that the machine itself uses, so no
//! host is named here and a machine behind a local mirror stays behind it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{find_program, tools_dir};
use crate::cmd;

/// A Debian release whose kernel we test on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Suite {
    /// Debian 11.
    Bullseye,
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
}

impl Suite {
    /// All, oldest first.
    pub(crate) const ALL: [Self; 3] = [Self::Bullseye, Self::Bookworm, Self::Trixie];

    fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// The version of its kernel.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Bullseye => "5.10",
            Self::Bookworm => "6.1",
            Self::Trixie => "6.12",
        }
    }
}

/// Installs packages. `what` names what is missing, for the sentence where it cannot be done.
pub(super) fn install(what: &str, packages: &[&str]) -> anyhow::Result<()> {
    let mut packages = packages.to_vec();
    packages.sort_unstable();
    packages.dedup();
    let list = packages.join(" ");
    if find_program("apt-get").is_none() {
        bail!("missing: {what}; this is no Debian, so install them yourself (Debian calls them {list})");
    }
    if !cmd::is_root() {
        bail!("missing: {what}; run `cargo xtask setup` as root, or `apt-get install {list}`");
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["--yes", "--quiet=2", "--no-install-recommends"])
            .args(["-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    // The lists may be missing (a fresh container) or old; one update settles both.
    let with_packages =
        |verb: &'static str| -> Vec<&str> { std::iter::once(verb).chain(packages.iter().copied()).collect() };
    let known = apt(&with_packages("install")).arg("--simulate").output()?.status.success();
    if !known {
        cmd::run("read the package lists", &mut apt(&["update"]))?;
    }
    let title = format!("install {list} (for {what})");
    if cmd::run(&title, &mut apt(&with_packages("install"))).is_err() {
        // A list that is older than the mirror names files that are gone.
        cmd::run("read the package lists again", &mut apt(&["update"]))?;
        cmd::run(&title, &mut apt(&with_packages("install")))?;
    }
    Ok(())
}

/// Whether apt could install a package. Reads the lists anew before it says no: they may be missing or old.
pub(super) fn has(package: &str) -> bool {
    let known = || {
        Command::new("apt-cache").args(["policy", package]).output().is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout).lines().any(|line| {
                line.trim().strip_prefix("Candidate:").is_some_and(|rest| rest.trim() != "(none)")
            })
        })
    };
    if known() {
        return true;
    }
    if find_program("apt-get").is_none() || !cmd::is_root() {
        return false;
    }
    let mut update = Command::new("apt-get");
    cmd::run("read the package lists", update.args(["--quiet=2", "update"])).is_ok() && known()
}

/// Downloads a package of another suite and unpacks it into `into`; nothing is installed.
pub(super) fn unpack(suite: Suite, package: &str, into: &Path) -> anyhow::Result<()> {
    let apt = PrivateApt::new(suite)?;
    apt.update()?;
    apt.unpack(package, into)
}

/// A kernel to start in a VM.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// Modules that programs cannot be attached without.
    pub(crate) modules: Vec<PathBuf>,
}

/// What kernels without TCX attach programs with, where it is not built in.
const MODULES: [&str; 2] = ["sch_ingress.ko", "cls_bpf.ko"];

impl Suite {
    fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Bullseye | Self::Bookworm => &MODULES,
            Self::Trixie => &[],
        }
    }
}

/// The kernel of a suite, from the cache or downloaded.
pub(super) fn kernel(suite: Suite) -> anyhow::Result<Kernel> {
    if let Some(kernel) = cached_kernel(suite) {
        return Ok(kernel);
    }
    if std::env::consts::ARCH != "x86_64" {
        bail!("the VM kernels are x86-64 ones and this machine is {}", std::env::consts::ARCH);
    }
    eprintln!("==> fetch Debian's cloud kernel {} ({})", suite.version(), suite.name());
    let apt = PrivateApt::new(suite)?;
    apt.update()?;
    let package = apt.dependency("linux-image-cloud-amd64", "linux-image-")?;
    let dir = kernel_dir(suite);
    apt.unpack(&package, &dir)?;
    fs::create_dir_all(dir.join("modules"))?;
    for name in suite.modules() {
        let found =
            find_file(&dir.join("lib"), name).with_context(|| format!("package {package} has no {name}"))?;
        fs::rename(found, dir.join("modules").join(name))?;
    }
    // The rest of the modules is large and not needed: what verifies eBPF is built in.
    for superfluous in ["lib", "usr"] {
        let path = dir.join(superfluous);
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
    }
    cached_kernel(suite)
        .with_context(|| format!("package {package} has no boot/vmlinuz-{}…", suite.version()))
}

/// The kernel of a suite, if it was fetched before.
pub(super) fn cached_kernel(suite: Suite) -> Option<Kernel> {
    let dir = kernel_dir(suite);
    let modules: Vec<PathBuf> = suite.modules().iter().map(|name| dir.join("modules").join(name)).collect();
    if !modules.iter().all(|module| module.is_file()) {
        return None;
    }
    let prefix = format!("vmlinuz-{}", suite.version());
    let image = fs::read_dir(dir.join("boot"))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))?;
    Some(Kernel { image, modules })
}

/// A file of this name somewhere below a directory.
fn find_file(dir: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        // Links are not followed: a package of kernel modules points to sources elsewhere.
        let found = match entry.file_type() {
            Ok(kind) if kind.is_dir() => find_file(&entry.path(), name),
            Ok(kind) if kind.is_file() && entry.file_name() == name => Some(entry.path()),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn kernel_dir(suite: Suite) -> PathBuf {
    tools_dir().join("kernels").join(suite.version())
}

/// An apt with lists, cache and sources of its own.
struct PrivateApt {
    dir: PathBuf,
    config: PathBuf,
}

impl PrivateApt {
    fn new(suite: Suite) -> anyhow::Result<Self> {
        if find_program("apt-get").is_none() {
            bail!(
                "Debian's {} packages are needed and this machine has no apt-get: do this on Debian",
                suite.name()
            );
        }
        let dir = tools_dir().join("apt").join(suite.name());
        for part in ["lists/partial", "cache/archives/partial", "etc", "download"] {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("make {}", dir.display()))?;
        }
        let source = own_mirror()?;
        fs::write(dir.join("etc/sources.list"), source.line(suite.name()))?;
        // No package counts as installed, so that dependencies are seen whole.
        fs::write(dir.join("status"), "")?;
        let config = dir.join("apt.conf");
        let at = dir.display();
        fs::write(
            &config,
            format!(
                "Dir::Etc::SourceList \"{at}/etc/sources.list\";\n\
                 Dir::Etc::SourceParts \"/dev/null\";\n\
                 Dir::Etc::PreferencesParts \"/dev/null\";\n\
                 Dir::State \"{at}\";\n\
                 Dir::State::Lists \"{at}/lists\";\n\
                 Dir::State::status \"{at}/status\";\n\
                 Dir::Cache \"{at}/cache\";\n\
                 Acquire::Languages \"none\";\n\
                 Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
                 Acquire::Check-Valid-Until \"false\";\n\
                 APT::Sandbox::User \"root\";\n"
            ),
        )?;
        Ok(Self { dir, config })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).current_dir(self.dir.join("download"));
        command
    }

    fn update(&self) -> anyhow::Result<()> {
        let mut update = self.command("apt-get");
        cmd::run("read that suite's package list", update.args(["--quiet=2", "update"]))
    }

    /// The first dependency of `package` whose name begins with `prefix`.
    fn dependency(&self, package: &str, prefix: &str) -> anyhow::Result<String> {
        let output = self.command("apt-cache").args(["depends", package]).output()?;
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix))
            .map(ToOwned::to_owned)
            .with_context(|| format!("package {package} depends on no {prefix}…"))
    }

    fn unpack(&self, package: &str, into: &Path) -> anyhow::Result<()> {
        let download = self.dir.join("download");
        let debs = || -> anyhow::Result<Vec<PathBuf>> {
            Ok(fs::read_dir(&download)?
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|ext| ext == "deb"))
                .collect())
        };
        for old in debs()? {
            fs::remove_file(old)?;
        }
        let mut get = self.command("apt-get");
        cmd::run(&format!("download {package}"), get.args(["--quiet=2", "download", package]))?;
        let found = debs()?;
        let [deb] = found.as_slice() else {
            bail!("apt-get download {package} left {} files in {}", found.len(), download.display());
        };
        if into.exists() {
            fs::remove_dir_all(into)?;
        }
        fs::create_dir_all(into)?;
        let mut unpack = Command::new("dpkg");
        cmd::run(&format!("unpack it to {}", into.display()), unpack.arg("-x").arg(deb).arg(into))?;
        fs::remove_file(deb)?;
        Ok(())
    }
}

/// Where the machine gets Debian from.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mirror {
    uri: String,
    signed_by: Option<String>,
}

impl Mirror {
    fn line(&self, suite: &str) -> String {
        let options = self.signed_by.as_ref().map_or_else(String::new, |key| format!("[signed-by={key}] "));
        format!("deb {options}{} {suite} main\n", self.uri)
    }
}

/// The mirror of the machine's own release, from its apt sources.
fn own_mirror() -> anyhow::Result<Mirror> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .context("/etc/os-release has no VERSION_CODENAME: this is no Debian release")?;
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut more: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    let mut found = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|ext| ext.to_str()) {
            Some("list") => found.extend(from_lines(&text, &codename)),
            Some("sources") => found.extend(from_stanzas(&text, &codename)),
            _ => {}
        }
    }
    found.into_iter().next().with_context(|| {
        format!(
            "the machine's apt sources name no mirror of {codename} main, so none is known for other suites"
        )
    })
}

/// Mirrors in the one-line format (sources.list(5)).
fn from_lines(text: &str, codename: &str) -> Vec<Mirror> {
    text.lines()
        .filter_map(|line| {
            let mut rest = line.trim().strip_prefix("deb ")?.trim();
            let mut signed_by = None;
            if let Some(options) = rest.strip_prefix('[') {
                let (options, after) = options.split_once(']')?;
                signed_by =
                    options.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")).map(str::to_owned);
                rest = after.trim();
            }
            let mut words = rest.split_whitespace();
            let uri = words.next()?.to_owned();
            let suite = words.next()?;
            (suite == codename && words.any(|part| part == "main")).then_some(Mirror { uri, signed_by })
        })
        .collect()
}

/// Mirrors in the deb822 format (sources.list(5)).
fn from_stanzas(text: &str, codename: &str) -> Vec<Mirror> {
    text.split("\n\n")
        .filter_map(|stanza| {
            let field = |name: &str| -> Option<String> {
                stanza.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let has = |name: &str, word: &str| {
                field(name).is_some_and(|value| value.split_whitespace().any(|w| w == word))
            };
            if !has("Types", "deb") || !has("Suites", codename) || !has("Components", "main") {
                return None;
            }
            if field("Enabled").is_some_and(|value| value == "no") {
                return None;
            }
            let uri = field("URIs")?.split_whitespace().next()?.to_owned();
            Some(Mirror { uri, signed_by: field("Signed-By").filter(|key| key.starts_with('/')) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_found_in_both_formats() {
        let stanzas = "\
# comment
Types: deb
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/k.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main
";
        let mirror = Mirror {
            uri: "http://mirror.test/debian".to_owned(),
            signed_by: Some("/usr/share/keyrings/k.gpg".to_owned()),
        };
        assert_eq!(from_stanzas(stanzas, "bookworm").first(), Some(&mirror));
        assert_eq!(from_stanzas(stanzas, "trixie"), []);
        assert_eq!(
            mirror.line("trixie"),
            "deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror.test/debian trixie main\n"
        );

        let lines = "\
# deb http://old.test/debian bookworm main
deb-src http://mirror.test/debian bookworm main
deb http://mirror.test/debian-security bookworm-security main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm main
";
        assert_eq!(
            from_lines(lines, "bookworm"),
            [Mirror { uri: "http://mirror.test/debian".to_owned(), signed_by: Some("/k.gpg".to_owned()) }]
        );
        assert_eq!(from_lines("deb http://mirror.test/x bookworm contrib", "bookworm"), []);
    }
}
