//! Benchmarks of the whole: packets per program, paths between pods beside their yardsticks, clusters.
//!
//! What it must not know: how the agent and the dataplane work inside. It runs what users run and measures from
//! outside; goals are bounds that are reported, never enforced. Start reading at [`figure`] (what is reported),
//! then [`net`] and [`traffic`].
#![forbid(unsafe_code)]

pub mod api;
pub mod clusters;
pub mod figure;

pub mod cni;
pub mod dataplane;
pub mod lab_bench;
pub mod net;
pub mod policy;
pub mod service;
pub mod sim;
pub mod traffic;

/// Set when the user wants to stop; looked at while a benchmark waits and between its measurements.
pub static STOP: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// An error if the user wants to stop, so that everything is taken down on the way out.
pub fn go_on() -> anyhow::Result<()> {
    if STOP.load(std::sync::atomic::Ordering::Relaxed) {
        anyhow::bail!("interrupted");
    }
    Ok(())
}
