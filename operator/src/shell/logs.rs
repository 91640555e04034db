//! Log lines: one per change of state, with the noun as a field, to standard error.

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

use super::flags::LogFormat;

/// Starts logging.
///
/// # Errors
/// When the filter is not one, with what is wrong in it.
pub(super) fn init(format: LogFormat, filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("--log `{filter}` is no filter; try `info` or `info,bristle_operator=debug`")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
