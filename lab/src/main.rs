//! `bristle-lab`: clusters on this machine, for people.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lab::arm::ArmKind;
use lab::container::{attach, init, shim};
use lab::control::AgentAction;
use lab::machine;
use lab::plan::{Family, LabName, Routing};
use lab::{probe, traffic};

mod cli;

#[derive(Debug, Parser)]
#[command(
    name = "bristle-lab",
    version,
    about = "Clusters on this machine: real agents, real CNI calls, real eBPF"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Which lab.
#[derive(Debug, Args)]
struct Name {
    /// Name of the lab
    #[arg(long, default_value = "default", env = "BRISTLE_LAB")]
    name: LabName,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch on the command line")]
struct Up {
    #[command(flatten)]
    lab: Name,
    /// Nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=200))]
    nodes: u8,
    /// Address families of nodes and pods
    #[arg(long, value_enum, default_value_t = Family::Dual)]
    family: Family,
    /// How packets reach pods of other nodes
    #[arg(long, value_enum, default_value_t = Routing::Vxlan)]
    routing: Routing,
    /// What the cluster is made of
    #[arg(long, value_enum, default_value_t = ArmKind::Netns)]
    on: ArmKind,
    /// Directory with bristle-lab, bristle-agent, bristle-operator and bristle-cni
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Names of the two web servers outside the cluster
    #[arg(long, value_delimiter = ',', num_args = 2, default_values_t = lab::plan::default_outside_names())]
    outside_names: Vec<String>,
    /// Start without the pods to play with (client, echo)
    #[arg(long)]
    bare: bool,
    /// A further argument of every agent; may be given several times
    #[arg(long = "agent-arg", allow_hyphen_values = true)]
    agent_args: Vec<String>,
    /// Agents send calls to services (cluster IPs) to their endpoints; without it nobody does
    #[arg(long)]
    kube_proxy_replacement: bool,
    /// Without identities and policies: no operator, no CustomResourceDefinitions, every pod reaches every other
    #[arg(long)]
    no_policy: bool,
    /// MTU of the links between machines in bytes
    #[arg(long, default_value_t = lab::plan::DEFAULT_MTU)]
    mtu: u16,
    /// Prefix length of a node's IPv4 pod CIDR: large ones run out of addresses
    #[arg(long, default_value_t = lab::plan::DEFAULT_POD_CIDR_BITS, value_name = "BITS")]
    pod_cidr_bits: u8,
    /// The router knows which node has which pods, so that the servers outside answer them
    #[arg(long)]
    pod_routes: bool,
    /// Join the nodes by a switch that can break links (see `fault link`), slower than the kernel's bridge
    #[arg(long)]
    software_fabric: bool,
    /// Decides about the switch's chances
    #[arg(long, default_value_t = 1, value_name = "SEED", requires = "software_fabric")]
    fabric_seed: u64,
    /// Remember the states of agents' directories for so long (see `fault kill --snapshot-age`)
    #[arg(long, value_name = "TIME", value_parser = cli::fault::duration)]
    record_state: Option<Duration>,
}

#[derive(Debug, Args)]
struct Capture {
    #[command(flatten)]
    lab: Name,
    /// Node, pod, or namespace/pod; also `fabric` and `outside`
    target: String,
    /// Interface
    #[arg(short, long, default_value = "any")]
    interface: String,
    /// Write packets to this file instead of showing them
    #[arg(short, long)]
    write: Option<PathBuf>,
    /// Filter as tcpdump takes it, and further options of tcpdump after `--`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a cluster and wait until it works
    Up(Up),
    /// Show nodes and pods
    Status(Name),
    /// Remove a cluster, also the remains of a crashed one
    Down {
        #[command(flatten)]
        lab: Name,
        /// Remove all labs of this machine
        #[arg(long)]
        all: bool,
    },
    /// Show the labs of this machine
    List,
    /// Open a shell in a pod or node, or run a command there
    Shell {
        #[command(flatten)]
        lab: Name,
        /// Node, pod, or namespace/pod; also `fabric` and `outside`
        target: String,
        /// Command instead of a shell
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Watch packets at a pod or node with tcpdump
    Capture(Capture),
    /// Run kubectl with the lab's kubeconfig
    Kubectl {
        #[command(flatten)]
        lab: Name,
        /// Arguments of kubectl
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Show the log of a node's agent or of the operator
    Logs {
        #[command(flatten)]
        lab: Name,
        /// Node, or `operator`
        node: String,
        /// Go on as it is written
        #[arg(short, long)]
        follow: bool,
    },
    /// Kill, stop or start a node's agent
    Agent {
        #[command(flatten)]
        lab: Name,
        /// What to do
        action: AgentAction,
        /// Node
        node: String,
    },
    /// Break something on purpose, see what is broken, mend it
    #[command(after_help = cli::fault::EXAMPLES)]
    Fault {
        #[command(flatten)]
        lab: Name,
        #[command(subcommand)]
        command: cli::fault::Command,
    },
    /// Send messages from where it runs and count the answers; one line of JSON after each
    Traffic(traffic::Options),
    /// Try many receivers at the same moment; one line of JSON with what came of each
    Probe(probe::Options),
    /// Runs a lab (internal)
    #[command(hide = true)]
    Supervise { spec: String },
    /// First process of a machine (internal)
    #[command(hide = true)]
    NodeInit,
    /// Starts and watches a container (internal)
    #[command(hide = true)]
    Shim,
    /// First process of a container (internal)
    #[command(hide = true)]
    ContainerInit,
    /// Runs a program in the namespaces of a process (internal)
    #[command(hide = true)]
    NodeExec(attach::Target),
    /// Second half of node-exec (internal)
    #[command(hide = true)]
    ExecInner {
        #[arg(long)]
        tty: bool,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::NodeInit => machine::init::main().map(|()| ExitCode::SUCCESS),
        Command::Shim => shim::main(),
        Command::ContainerInit => init::main(),
        Command::NodeExec(target) => attach::outer(&target),
        Command::ExecInner { tty, command } => attach::inner(tty, &command),
        Command::Supervise { spec } => cli::up::supervise(&spec).map(|()| ExitCode::SUCCESS),
        Command::Up(up) => cli::up::up(up).map(|()| ExitCode::SUCCESS),
        Command::Status(lab) => cli::status::status(&lab.name).map(|()| ExitCode::SUCCESS),
        Command::Down { lab, all } => cli::down::down(&lab.name, all).map(|()| ExitCode::SUCCESS),
        Command::List => {
            cli::status::list();
            Ok(ExitCode::SUCCESS)
        }
        Command::Shell { lab, target, command } => cli::inside::shell(&lab.name, &target, &command),
        Command::Capture(capture) => cli::inside::capture(&capture),
        Command::Kubectl { lab, args } => cli::kubectl::kubectl(&lab.name, &args),
        Command::Logs { lab, node, follow } => {
            cli::inside::logs(&lab.name, &node, follow).map(|()| ExitCode::SUCCESS)
        }
        Command::Agent { lab, action, node } => {
            cli::inside::agent(&lab.name, &node, action).map(|()| ExitCode::SUCCESS)
        }
        Command::Traffic(options) => traffic::main(&options),
        Command::Probe(options) => probe::main(&options),
        Command::Fault { lab, command } => cli::fault::fault(&lab.name, command).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn faults_are_read_as_they_are_taught() {
        for line in
            cli::fault::EXAMPLES.lines().filter_map(|line| line.trim().strip_prefix("cargo xtask lab "))
        {
            let words = std::iter::once("bristle-lab").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for wrong in ["fault link node-1", "fault kill --restart-after soon", "fault api error x"] {
            assert!(
                Cli::try_parse_from(std::iter::once("bristle-lab").chain(wrong.split(' '))).is_err(),
                "{wrong}"
            );
        }
    }
}
