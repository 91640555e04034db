//! `cargo xtask diff`: the differential test by option.

/// Options of `diff`.
#[derive(clap::Args)]
pub(crate) struct Args {}

impl Args {
    /// What CI runs: at least 100,000 frames.
    pub(crate) fn ci() -> Self {
        Self {}
    }
}

/// Runs the differential test.
pub(crate) fn run(_args: &Args) -> anyhow::Result<()> {
    Ok(())
}
