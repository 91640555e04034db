//! `bristle-agent`: see `bristle-agent --help` and docs/run-by-hand.md.

#![forbid(unsafe_code)]

use agent_daemon::flags::{Command, Flags};
use agent_daemon::{cleanup, logs, start};
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let result = logs::init(flags.run.log_format, &flags.run.log).and_then(|()| match flags.command {
        Some(Command::Cleanup { yes }) => cleanup::run(&flags.run, yes),
        None => start::run(&flags.run),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            tracing::error!("{problem:#}");
            ExitCode::FAILURE
        }
    }
}
