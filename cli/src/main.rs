//! `bristle`: shows what the agent on this node knows and does.
//!
//! It must not know more than the local API says: each command is one request and a table of the answer.
//! Start reading at [`flags`], then `run` below.

#![forbid(unsafe_code)]

mod client;
mod flags;
mod monitor;
mod policy;
mod show;
mod table;

use agent_api::policy::{Explanation, Identity, Policy};
use agent_api::{CtEntry, Endpoint, IpcacheEntry, MapDump, MapInfo, Node, paths};
use anyhow::Result;
use clap::Parser as _;
use client::Client;
use flags::{
    Bpf, BpfCt, BpfMap, Command, EndpointCommand, ExplainFlags, Flags, IdentityCommand, IpcacheCommand,
    NodeCommand, Output, PolicyCommand,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(code) => code,
        // `bristle … | head` ends the reader first; that is no failure.
        Err(problem) if is_broken_pipe(&problem) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bristle: {problem:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(problem: &anyhow::Error) -> bool {
    problem.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

fn run(flags: &Flags) -> Result<ExitCode> {
    let client = Client::new(&flags.socket);
    let output = flags.output;
    match &flags.command {
        Command::Status { wait } => return status(&client, output, *wait),
        Command::Endpoint(EndpointCommand::List) => {
            print(output, &client.get::<Vec<Endpoint>>(paths::ENDPOINTS)?, |list| show::endpoints(list))?;
        }
        Command::Endpoint(EndpointCommand::Get { id }) => {
            print(output, &client.get::<Endpoint>(&format!("{}/{id}", paths::ENDPOINTS))?, show::endpoint)?;
        }
        Command::Identity(IdentityCommand::List) => {
            print(output, &client.get::<Vec<Identity>>(paths::IDENTITIES)?, |list| policy::identities(list))?;
        }
        Command::Policy(PolicyCommand::List) => {
            print(output, &client.get::<Vec<Policy>>(paths::POLICIES)?, |list| policy::policies(list))?;
        }
        Command::Policy(PolicyCommand::Explain(wanted)) => return explain(&client, output, wanted),
        Command::Ipcache(IpcacheCommand::List) => {
            print(output, &client.get::<Vec<IpcacheEntry>>(paths::IPCACHE)?, |list| show::ipcache(list))?;
        }
        Command::Node(NodeCommand::List) => {
            print(output, &client.get::<Vec<Node>>(paths::NODES)?, |list| show::nodes(list))?;
        }
        Command::Bpf(Bpf::Ct(BpfCt::List)) => {
            print(output, &client.get::<Vec<CtEntry>>(paths::CT)?, |list| show::connections(list))?;
        }
        Command::Bpf(Bpf::Map(BpfMap::List)) => {
            print(output, &client.get::<Vec<MapInfo>>(paths::MAPS)?, |list| show::maps(list))?;
        }
        Command::Bpf(Bpf::Map(BpfMap::Get { name })) => {
            print(output, &client.get::<MapDump>(&format!("{}/{name}", paths::MAPS))?, show::map)?;
        }
        Command::Monitor(wanted) => monitor::run(&client, wanted, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit code 0 when pods can be added, 1 when not: for scripts and probes.
fn status(client: &Client, output: Output, wait: Option<u64>) -> Result<ExitCode> {
    let status = client.status(wait.map(std::time::Duration::from_secs))?;
    print(output, &status, show::status)?;
    Ok(if client::is_serving(&status) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Exit code 0 when the connection passes, 1 when not.
fn explain(client: &Client, output: Output, wanted: &ExplainFlags) -> Result<ExitCode> {
    let ExplainFlags { from, to, port } = wanted;
    let path =
        format!("{}?from={from}&to={to}&port={}&protocol={}", paths::EXPLAIN, port.number, port.protocol);
    let explanation = client.get::<Explanation>(&path)?;
    print(output, &explanation, policy::explanation)?;
    Ok(if explanation.passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The answer as JSON exactly as the API has it, or as a table.
fn print<T: Serialize + DeserializeOwned>(
    output: Output,
    answer: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<()> {
    let mut out = io::stdout().lock();
    match output {
        Output::Json => {
            // Not straight into `out`: its errors would come back as errors of JSON.
            let text = serde_json::to_string_pretty(answer)?;
            writeln!(out, "{text}")?;
        }
        Output::Table => out.write_all(table(answer).as_bytes())?,
    }
    out.flush()?;
    Ok(())
}
