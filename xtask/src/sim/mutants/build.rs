//! The build with all mutants: a copy of the sources, the switch, and cargo.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use super::list::Mutant;
use super::{CFG, copy, weave};
use crate::cmd;

/// The variable that switches a mutant on by name where no program asks for one.
pub(super) const VARIABLE: &str = "BRISTLE_MUTANT";

/// Where the switch is put.
const ABI_ROOT: &str = "dataplane/abi/src/lib.rs";
const SWITCH: &str = "dataplane/abi/src/mutant.rs";

/// A copy of the sources with all mutants, ready to build.
pub(super) struct Build {
    sources: PathBuf,
    target: PathBuf,
    /// Which mutants are in which file, for who meets an error there.
    places: String,
}

/// Makes or refreshes the copy.
pub(super) fn prepare(mutants: &[Mutant]) -> anyhow::Result<Build> {
    let root = cmd::root();
    let read = |file: &str| Ok(std::fs::read_to_string(root.join(file))?);
    let mut changed = weave::all(mutants, read)?;
    let places = changed.keys().fold(String::new(), |mut text, file| {
        let ids: Vec<&str> =
            mutants.iter().filter(|mutant| mutant.file == *file).map(|mutant| mutant.id.as_str()).collect();
        let _ = writeln!(text, "  {file}: {}", ids.join(", "));
        text
    });
    let abi = match changed.remove(ABI_ROOT) {
        Some(woven) => woven,
        None => read(ABI_ROOT).with_context(|| format!("cannot read {ABI_ROOT}"))?,
    };
    changed.insert(ABI_ROOT.to_owned(), format!("{abi}\npub mod mutant;\n"));
    changed.insert(SWITCH.to_owned(), switch(mutants));
    let home = cmd::target_dir().join("mutants");
    let sources = home.join("src");
    std::fs::create_dir_all(&sources).with_context(|| format!("cannot make {}", sources.display()))?;
    copy::refresh(&sources, &changed)?;
    Ok(Build { sources, target: home.join("target"), places })
}

impl Build {
    /// Where the programs are once they are built.
    pub(super) fn bin_dir(&self) -> PathBuf {
        self.target.join("release")
    }

    /// Builds the simulator.
    pub(super) fn simulator(&self) -> anyhow::Result<()> {
        let mut cargo = self.cargo("build");
        cargo.args(["--package", "sim-native"]);
        cmd::run("build the simulator with all mutants", &mut cargo).with_context(|| self.hint())
    }

    /// Cargo in the copy: optimised, and with the assertions that a defect may trip over.
    pub(super) fn cargo(&self, job: &str) -> Command {
        let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
        // What is woven in is not pretty.
        let _ = write!(flags, " --cfg {CFG} --cap-lints allow");
        let mut cargo = cmd::cargo();
        cargo
            .args([job, "--release", "--locked", "--target-dir"])
            .arg(&self.target)
            .current_dir(&self.sources)
            .env("RUSTFLAGS", flags.trim())
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
            .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
        cargo
    }

    /// Who is to blame for an error of the compiler.
    pub(super) fn hint(&self) -> String {
        format!(
            "if the error is in one of these files below {}, one of its mutants does not compile:\n{}",
            self.sources.display(),
            self.places
        )
    }
}

/// The module that says which mutant is on.
fn switch(mutants: &[Mutant]) -> String {
    let names = mutants.iter().fold(String::new(), |mut text, mutant| {
        let _ = writeln!(text, "    {:?},", mutant.id);
        text
    });
    SWITCH_SOURCE.replace("NAMES_GO_HERE", names.trim()).replace("VARIABLE_GOES_HERE", VARIABLE)
}

const SWITCH_SOURCE: &str = r#"//! Generated: which of the mutants is on.

extern crate std;

use core::sync::atomic::{AtomicU32, Ordering};

/// Names of all mutants; the first has number 1.
pub const NAMES: &[&str] = &[
    NAMES_GO_HERE
];

/// Nobody has said yet which one is on.
const UNSAID: u32 = u32::MAX;

static ACTIVE: AtomicU32 = AtomicU32::new(UNSAID);

/// Whether this mutant is on.
#[inline(always)]
pub fn on(number: u32) -> bool {
    let active = ACTIVE.load(Ordering::Relaxed);
    if active == UNSAID { from_environment() == number } else { active == number }
}

/// Switches this mutant on and all others off; zero: all off.
pub fn set(number: u32) {
    ACTIVE.store(number, Ordering::Relaxed);
}

/// The number of a mutant.
pub fn by_name(name: &str) -> Option<u32> {
    NAMES.iter().zip(1..).find(|(known, _)| **known == name).map(|(_, number)| number)
}

#[cold]
fn from_environment() -> u32 {
    let name = std::env::var("VARIABLE_GOES_HERE").unwrap_or_default();
    let number = match name.as_str() {
        "" => 0,
        name => by_name(name).expect("VARIABLE_GOES_HERE names a mutant"),
    };
    set(number);
    number
}
"#;
