//! `bristle-cni`: the CNI plugin. Environment and stdin in, one exchange with the agent, result or error on stdout.
//!
//! It decides nothing: it checks the runtime's input, opens the pod's network namespace, hands the descriptor to the agent and translates
//! between the versions of the specification. It must start within a few milliseconds, so it has no runtime, no threads and no log file.
//!
//! Start reading at [`commands`].

#![forbid(unsafe_code)]

mod about;
mod agent;
mod commands;
mod config;
mod environment;
mod output;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(argument) = std::env::args().nth(1) {
        return about::answer(&argument);
    }
    let mut get = |name: &str| std::env::var(name).ok();
    match get("CNI_COMMAND").filter(|command| !command.is_empty()) {
        None => about::introduce(),
        Some(command) => commands::run(&command, &mut get, &mut std::io::stdin().lock()),
    }
}
