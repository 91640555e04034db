//! The command line.

use crate::policy::flags::PolicyCommand;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Shows what Bristle's agent on this node knows and does.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "bristle",
    version,
    about,
    after_help = "\
Examples:
  bristle status                        how the agent is; exit code 0 when pods can be added
  bristle endpoint list                 the pods of this node with their addresses
  bristle monitor --kind drop           drops as they happen, with their reason
  bristle monitor --endpoint 12         everything seen of one pod (ids: bristle endpoint list)
  bristle bpf ct list | grep 10.0.1.7   connections of one address
  bristle service list                  where calls to services go
  bristle ipcache list -o json          the same as data, for jq and scripts
  bristle policy explain --help         why a connection passes or not: by an agent, or from manifests alone

Run it as root on the node; `bristle policy` runs anywhere. Inside the agent's container it works without further flags."
)]
pub(crate) struct Flags {
    /// The agent's socket.
    #[arg(long, env = "BRISTLE_SOCKET", default_value = agent_api::paths::API_SOCKET, global = true, value_name = "PATH")]
    pub(crate) socket: PathBuf,

    /// How the answer is printed.
    #[arg(short, long, env = "BRISTLE_OUTPUT", value_enum, default_value_t = Output::Table, global = true)]
    pub(crate) output: Output,

    /// What to show.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How the answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// As the local API has it; fields are documented in docs/api.md and stay.
    Json,
}

/// What to show.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// How the agent is: network, API server, endpoints, errors.
    #[command(after_help = "\
Exit code: 0 when pods can be added, 1 when not or when the agent is not reached.

Examples:
  bristle status
  bristle status --wait 60              wait until the agent is ready, at most a minute
  bristle status -o json | jq .ipam")]
    Status {
        /// Wait so many seconds for the agent to become ready.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// The pods of this node.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Sets of labels and their numbers.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Which identity an address has and how it is reached.
    #[command(subcommand)]
    Ipcache(IpcacheCommand),
    /// Services as callers on this node meet them.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// The nodes of the cluster as this agent knows them.
    #[command(subcommand)]
    Node(NodeCommand),
    /// What is in the dataplane's tables.
    #[command(subcommand)]
    Bpf(Bpf),
    /// Drops, traces and policy verdicts as they happen.
    Monitor(MonitorFlags),
    /// Policies, of the agent or in files: what they allow, what would change, what is wrong with them.
    #[command(subcommand)]
    Policy(PolicyCommand),
}

/// `bristle endpoint …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// All pods of this node.
    List,
    /// One pod in full.
    Get {
        /// Its id, as in `bristle endpoint list`.
        id: u16,
    },
    /// What is set for one pod alone; with KEY=VALUE, sets it. It stays until the pod goes, also when the agent starts again.
    #[command(after_help = "\
Keys and their values; `node` is what the agent's flags say for all pods:
  PolicyEnforcement=node|default|always|never
                           when policies isolate the pod: where they select it, always, or never (then nothing is enforced)
  PolicyAuditMode=node|Enabled|Disabled
                           whether what policies deny passes, and only the monitor tells of it

Examples:
  bristle endpoint config 12
  bristle endpoint config 12 PolicyAuditMode=Enabled
  bristle endpoint config 12 PolicyEnforcement=never PolicyAuditMode=node")]
    Config {
        /// Its id, as in `bristle endpoint list`.
        id: u16,
        /// What to set.
        #[arg(value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
}

/// `bristle identity …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// All identities with their labels and the pods of this node that have them.
    List,
}

/// `bristle ipcache …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum IpcacheCommand {
    /// All prefixes.
    List,
}

/// `bristle service …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// All services with their addresses and endpoints, port by port and family by family.
    List,
}

/// `bristle node …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// All nodes with their addresses and pod CIDRs.
    List,
}

/// `bristle bpf …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Bpf {
    /// Connections that the dataplane tracks.
    #[command(subcommand)]
    Ct(BpfCt),
    /// Services as the dataplane has them.
    #[command(subcommand)]
    Lb(BpfLb),
    /// Ports of the node by which connections to the world leave.
    #[command(subcommand)]
    Nat(BpfNat),
    /// Any table, raw.
    #[command(subcommand)]
    Map(BpfMap),
}

/// `bristle bpf ct …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BpfCt {
    /// All connections of both families.
    List,
}

/// `bristle bpf lb …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BpfLb {
    /// All frontends with the backends in their slots.
    List,
}

/// `bristle bpf nat …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BpfNat {
    /// All ports of both families with who has them.
    List,
}

/// `bristle bpf map …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BpfMap {
    /// All tables with their sizes.
    List,
    /// The rows of one table; of a large one the first ten thousand.
    Get {
        /// Its name, as in `bristle bpf map list`; upper or lower case.
        name: String,
    },
}

/// `bristle monitor`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Each line: time, what happened, endpoint, identities, packet. A drop names its reason as Hubble does.
How many traces there are is set by the agent's --monitor-aggregation (drops are always shown).

Examples:
  bristle monitor
  bristle monitor --kind drop
  bristle monitor --endpoint 12,13 --kind trace -o json")]
pub(crate) struct MonitorFlags {
    /// Only events of these endpoints, as sender's or receiver's side.
    #[arg(long, value_delimiter = ',', value_name = "ID")]
    pub(crate) endpoint: Vec<u16>,

    /// Only events of these kinds.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) kind: Vec<Kind>,

    /// End after so many events.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

/// Kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Packets dropped, with the reason.
    Drop,
    /// Packets seen at a trace point.
    Trace,
    /// What policies decided about new connections.
    PolicyVerdict,
    /// Messages for developers.
    Debug,
}

impl Kind {
    /// As the API has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Trace => "trace",
            Self::PolicyVerdict => "policy-verdict",
            Self::Debug => "debug",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, Flags, Output};
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn global_flags_may_follow_the_command() {
        let flags =
            Flags::try_parse_from(["bristle", "endpoint", "list", "-o", "json", "--socket", "/x"]).unwrap();
        assert_eq!(flags.output, Output::Json);
        assert_eq!(flags.socket.to_str(), Some("/x"));
    }

    #[test]
    fn monitor_takes_lists() {
        let flags =
            Flags::try_parse_from(["bristle", "monitor", "--endpoint", "1,2", "--kind", "drop,trace"])
                .unwrap();
        let Command::Monitor(wanted) = flags.command else { panic!("monitor") };
        assert_eq!(wanted.endpoint, [1, 2]);
        assert_eq!(wanted.kind.len(), 2);
    }
}
