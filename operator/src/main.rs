//! `bristle-operator`: see `bristle-operator --help` and docs/operator.md.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use bristle_operator::shell::{self, Flags};
use clap::Parser as _;

fn main() -> ExitCode {
    let flags = Flags::parse();
    match shell::start(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            tracing::error!("{problem:#}");
            ExitCode::FAILURE
        }
    }
}
