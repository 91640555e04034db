//! `cargo xtask diff`: the differential test. The test itself is in dataplane/loader/tests/differential.

use crate::{cmd, ebpf, setup};

/// What CI runs on each change.
const CI_FRAMES: u64 = 200_000;

/// Options of `diff`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many frames to try at least.
    #[arg(long, default_value_t = 1_000_000)]
    frames: u64,
    /// The seed of the first scenario; a mismatch names the one to repeat it with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Args {
    /// What CI runs: at least 100,000 frames.
    pub(crate) fn ci() -> Self {
        Self { frames: CI_FRAMES, seed: 1 }
    }
}

/// Runs the differential test.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    cmd::need_root("the differential test")?;
    setup::ensure("build")?;
    let object = ebpf::build()?;
    let mut test = cmd::cargo();
    test.args(["test", "--locked", "--package", "dataplane-loader", "--test", "differential"])
        // Optimised where it counts, with overflow checks as in every test.
        .args(["--config", "profile.test.opt-level=2", "--", "--nocapture"])
        .env("BRISTLE_DIFF_FRAMES", args.frames.to_string())
        .env("BRISTLE_DIFF_SEED", args.seed.to_string())
        .env("BRISTLE_BPF_OBJECT", &object)
        .env("BRISTLE_REQUIRE_ALL", "1");
    cmd::run(&format!("differential test, {} frames from seed {}", args.frames, args.seed), &mut test)
}
