//! The command line of `bristle policy`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `bristle policy …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// All policies that the agent knows, the pods of its node that they select, and what is wrong with them.
    List,
    /// Whether a connection passes, and which rule or object decides.
    Explain(ExplainFlags),
    /// What is wrong with policies, before they are applied.
    Validate(ValidateFlags),
    /// On which nodes of a cluster policies are in force, and what is in the way.
    Status(StatusFlags),
}

/// `bristle policy status`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The agent of each node tells the cluster up to which version of policies all are in force there, which are not enforced
as they are written, and what staged ones would have decided otherwise. This shows it by node, and by policy for those
policies that are in the files too; those of Cilium's kinds say the same in their condition Enforced.

Examples:
  kubectl get nps -o json | bristle policy status -f -
  kubectl get nps,netpol,cnp,ccnp,clusternetworkpolicies -A -o json | bristle policy status -f -
  kubectl get nps,netpol -A -o json | bristle policy status shop/db -f - -o json")]
pub(crate) struct StatusFlags {
    /// Only what is said of these policies.
    #[arg(value_name = "[[KIND/]NAMESPACE/]NAME")]
    pub(crate) policies: Vec<String>,

    /// YAML or JSON with the objects; a directory: all such files in it; `-`: standard input. May be repeated.
    #[arg(short, long = "filename", value_name = "FILE|DIR", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// `bristle policy explain`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Without files the agent of this node answers, by what it knows; it is root's to ask.
With them the answer is worked out from the files alone by the engine that agents use; no agent and no cluster is asked.
It needs the pods and namespaces that the question is about, the policies, and the objects that say who their peers
are (nodes, services):
  kubectl get pods,namespaces,nodes,services,endpointslices,networkpolicies -A -o yaml >cluster.yaml
Deployments and other workloads stand for their pods, so that a directory of manifests will do as well.

An end is one of
  shop/web, web            a pod; without namespace it is looked for in all of them
  shop/deploy/web          the pods of a workload (deploy, sts, ds, rs, job)
  node/worker-1            a node
  10.0.1.7, 192.0.2.0/24   whoever has the address; outside of the cluster if nobody in the files has it
  host, remote-node, world, world-ipv4, world-ipv6, health, init, ingress, unmanaged, kube-apiserver
                           an entity of CiliumNetworkPolicy; host is the node of the pod at the other end

With --with and --without the agent works out what would be; it takes policies and CIDR groups only, for all else it
knows from the cluster.

Exit code: 0 with an answer; with --with or --without 0 when the answer stays as it is and 1 when it changes;
2 when there is no answer.

Examples:
  bristle policy explain --from shop/web --to shop/db --port 5432
  bristle policy explain --from shop/web --to shop/db --port 5432 --with new-policy.yaml
  bristle policy explain --from shop/web --to shop/db --port 5432/TCP -f cluster.yaml
  bristle policy explain --from 192.0.2.7 --to shop/web --port https/TCP -f manifests/
  bristle policy explain --from shop/web --to shop/db --port 5432 -f cluster.yaml --with new-policy.yaml
  bristle policy explain --from shop/web --to shop/db --port 5432 -f cluster.yaml \\
      --without NetworkPolicy/shop/db
  kubectl get pods,ns,netpol -A -o json | \\
      bristle policy explain --from shop/web --to world --port EchoRequest/ICMP -f - -o json")]
pub(crate) struct ExplainFlags {
    /// Who opens the connection.
    #[arg(long, value_name = "POD|IP|CIDR|ENTITY")]
    pub(crate) from: String,

    /// To whom.
    #[arg(long, value_name = "POD|IP|CIDR|ENTITY")]
    pub(crate) to: String,

    /// Port and protocol there: 8080/TCP, 53/UDP, http/TCP (a name that the pod gives it), EchoRequest/ICMP; TCP if none is named.
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub(crate) port: String,

    /// YAML or JSON with the objects; a directory: all such files in it; `-`: standard input. May be repeated. Without it the agent is asked.
    #[arg(short, long = "filename", value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,

    /// What if these objects were applied on top? May be repeated.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) with: Vec<PathBuf>,

    /// What if this object were deleted? May be repeated.
    #[arg(long, value_name = "KIND/[NAMESPACE/]NAME")]
    pub(crate) without: Vec<String>,
}

/// `bristle policy validate`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Each policy is read as an agent reads it. An object that is refused has no effect, or keeps the one that it had:
its field and what is wrong with it are named. Warnings are about parts that are not enforced as they are written.

Exit code: 0 when nothing is refused, 1 when something is, 2 when a file cannot be read.

Examples:
  bristle policy validate -f policy.yaml
  bristle policy validate -f manifests/ -o json
  kubectl get netpol,cnp,ccnp -A -o yaml | bristle policy validate -f -")]
pub(crate) struct ValidateFlags {
    /// YAML or JSON with the objects; a directory: all such files in it; `-`: standard input. May be repeated.
    #[arg(short, long = "filename", value_name = "FILE|DIR", required = true)]
    pub(crate) files: Vec<PathBuf>,
}
