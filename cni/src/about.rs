//! What the plugin says of itself when a person calls it.

use std::process::ExitCode;

use agent_api::cni::{
    CONFIG_KEY_SOCKET, CONFIG_KEY_TIMEOUT, DEFAULT_SOCKET, DEFAULT_TIMEOUT_S, SUPPORTED_VERSIONS,
};

/// Version of the plugin.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answers a command line argument.
pub(crate) fn answer(argument: &str) -> ExitCode {
    match argument {
        "--version" | "-V" => {
            println!("bristle-cni {VERSION}");
            ExitCode::SUCCESS
        }
        "--help" | "-h" => {
            println!("{}", help());
            ExitCode::SUCCESS
        }
        other => {
            eprintln!(
                "bristle-cni: unknown argument {other:?}; CNI plugins are called with environment variables, see bristle-cni --help"
            );
            ExitCode::from(2)
        }
    }
}

/// Called without a command: the text that plugins of the reference library print then, on stderr and without failing.
pub(crate) fn introduce() -> ExitCode {
    eprintln!("CNI plugin bristle-cni {VERSION}");
    eprintln!("CNI protocol versions supported: {}", SUPPORTED_VERSIONS.join(", "));
    ExitCode::SUCCESS
}

fn help() -> String {
    format!(
        "bristle-cni {VERSION}: CNI plugin of Bristle

Container runtimes call it; it passes the call to bristle-agent on this node.

Environment: CNI_COMMAND (ADD, DEL, CHECK, GC, STATUS, VERSION), CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_ARGS
Standard input: the network configuration as JSON; own keys:
  {CONFIG_KEY_SOCKET}            the agent's CNI socket (default {DEFAULT_SOCKET})
  {CONFIG_KEY_TIMEOUT}   how long to wait for the agent (default {DEFAULT_TIMEOUT_S})
CNI versions: {}

Options:
  -h, --help     print this text
  -V, --version  print the version",
        SUPPORTED_VERSIONS.join(", ")
    )
}
