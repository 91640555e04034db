//! `bristle`: shows what the agent on this node knows and does.
//!
//! Of an agent it knows no more than the local API says: each command is one request and a table of the answer.
//! Only `policy` also answers from files, with the agent's own engine.
//! Start reading at [`flags`], then `run` below.

#![forbid(unsafe_code)]

mod client;
mod endpoint_config;
mod flags;
mod live;
mod monitor;
mod policy;
mod services;
mod show;
mod table;

use agent_api::policy::Identity;
use agent_api::{
    CtEntry, Endpoint, IpcacheEntry, LbFrontend, MapDump, MapInfo, NatEntry, Node, Service, paths,
};
use anyhow::Result;
use clap::Parser as _;
use client::Client;
use flags::{
    Bpf, BpfCt, BpfLb, BpfMap, BpfNat, Command, EndpointCommand, Flags, IdentityCommand, IpcacheCommand,
    NodeCommand, Output, ServiceCommand,
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
            // Where 1 is an answer, an error is something else.
            let is_policy = matches!(flags.command, Command::Policy(_));
            ExitCode::from(if is_policy { 2 } else { 1 })
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
        Command::Endpoint(EndpointCommand::Config { id, set }) => {
            endpoint_config::run(&client, *id, set, output)?;
        }
        Command::Identity(IdentityCommand::List) => {
            print(output, &client.get::<Vec<Identity>>(paths::IDENTITIES)?, |list| live::identities(list))?;
        }
        Command::Ipcache(IpcacheCommand::List) => {
            print(output, &client.get::<Vec<IpcacheEntry>>(paths::IPCACHE)?, |list| show::ipcache(list))?;
        }
        Command::Node(NodeCommand::List) => {
            print(output, &client.get::<Vec<Node>>(paths::NODES)?, |list| show::nodes(list))?;
        }
        Command::Bpf(Bpf::Ct(BpfCt::List)) => {
            print(output, &client.get::<Vec<CtEntry>>(paths::CT)?, |list| show::connections(list))?;
        }
        Command::Bpf(Bpf::Nat(BpfNat::List)) => {
            print(output, &client.get::<Vec<NatEntry>>(paths::NAT)?, |list| show::ports(list))?;
        }
        Command::Service(ServiceCommand::List) => {
            print(output, &client.get::<Vec<Service>>(paths::SERVICES)?, |list| services::services(list))?;
        }
        Command::Bpf(Bpf::Lb(BpfLb::List)) => {
            print(output, &client.get::<Vec<LbFrontend>>(paths::LB)?, |list| services::frontends(list))?;
        }
        Command::Bpf(Bpf::Map(BpfMap::List)) => {
            print(output, &client.get::<Vec<MapInfo>>(paths::MAPS)?, |list| show::maps(list))?;
        }
        Command::Bpf(Bpf::Map(BpfMap::Get { name })) => {
            print(output, &client.get::<MapDump>(&format!("{}/{name}", paths::MAPS))?, show::map)?;
        }
        Command::Policy(question) => return policy::run(&client, question, output),
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
