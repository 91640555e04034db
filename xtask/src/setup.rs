//! `cargo xtask setup`: finds or installs what builds, labs and tests need.
// CONTRACT for main: Args, run, ensure(profile) (fast, quiet when nothing is missing), kubectl(). Owner B fills this in.

use std::path::PathBuf;

/// Options of `setup`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Finds or installs everything and says what it did.
pub(crate) fn run(_args: &Args) -> anyhow::Result<()> {
    Ok(())
}

/// Makes sure that what `profile` (build, lab, verify, ci) needs is there; silent and fast if so.
pub(crate) fn ensure(_profile: &str) -> anyhow::Result<()> {
    Ok(())
}

/// A kubectl of 1.32 or later, if there is one.
pub(crate) fn kubectl() -> Option<PathBuf> {
    None
}
