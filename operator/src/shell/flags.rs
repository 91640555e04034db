//! The operator's command line. Every flag can also be given by the environment variable in brackets in `--help`.

use std::net::SocketAddr;
use std::path::PathBuf;

use agent_crd::{CiliumIdentity, LabelFilter};
use clap::{ArgAction, Parser, ValueEnum};

use super::lease::LeaseSettings;

/// Bristle's operator: gives pods' labels their security identities, collects unused ones, and checks policies.
///
/// One for each cluster does the work; more may wait to take over, by a Lease.
/// Without it pods with labels that are already known go on as they are; new sets of labels wait for an identity.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "bristle-operator",
    version,
    about,
    after_help = "\
Examples:
  bristle-operator --kubeconfig ~/.kube/config            run against a cluster from outside
  bristle-operator --once --leader-elect false            do what is to be done now, and end
  bristle-operator --install-crds false --listen 0.0.0.0:9963

What it needs of the API is in deploy/operator-rbac.yaml. What it does shows in
  kubectl get ciliumidentities      one for each set of labels in use
  kubectl get cnp,ccnp -A           column VALID; `kubectl describe` says what is wrong
  kubectl -n kube-system get lease bristle-operator
and at /metrics, /healthz and /readyz of --listen."
)]
pub struct Flags {
    /// Kubeconfig to reach the API server with [default: that of `KUBECONFIG`, else the pod's service account].
    #[arg(long, env = "BRISTLE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of the cluster; it is a label of every identity, so changing it changes all identities.
    #[arg(long, env = "BRISTLE_CLUSTER_NAME", default_value = agent_crd::identity_labels::DEFAULT_CLUSTER)]
    pub cluster_name: String,

    /// Which labels of pods and namespaces are part of identities, as agents have it: patterns with spaces between them.
    ///
    /// `k8s:app k8s:role` takes keys that begin so and those that are always taken; `k8s:!job-name` leaves out. Changing it
    /// changes identities.
    #[arg(long, env = "BRISTLE_LABELS", default_value_t, value_parser = LabelFilter::read)]
    pub labels: LabelFilter,

    /// Create or update the CustomResourceDefinitions at start; those of a newer version are left alone.
    #[arg(long, env = "BRISTLE_INSTALL_CRDS", default_value_t = true, action = ArgAction::Set)]
    pub install_crds: bool,

    /// Seconds an identity must have been unused before it is deleted.
    #[arg(
        long = "collect-after",
        env = "BRISTLE_COLLECT_AFTER",
        default_value_t = 900,
        value_name = "SECONDS"
    )]
    pub collect_after_s: u64,

    /// Act only while holding the lease; false only where nobody else can run.
    #[arg(long, env = "BRISTLE_LEADER_ELECT", default_value_t = true, action = ArgAction::Set)]
    pub leader_elect: bool,

    /// Namespace of the lease.
    #[arg(long, env = "BRISTLE_LEASE_NAMESPACE", default_value = "kube-system")]
    pub lease_namespace: String,

    /// Name of the lease.
    #[arg(long, env = "BRISTLE_LEASE_NAME", default_value = "bristle-operator")]
    pub lease_name: String,

    /// Who this one is in the lease; no two may be the same [default: host name and process id].
    #[arg(long, env = "BRISTLE_LEASE_IDENTITY")]
    pub lease_identity: Option<String>,

    /// Seconds after which others may take a lease that is not renewed. This one stops acting after two thirds of it.
    ///
    /// New sets of labels may get no identity for nearly twice as long when a leader is killed: agents should wait that long
    /// (their --identity-wait).
    #[arg(long = "lease-duration", env = "BRISTLE_LEASE_DURATION", default_value_t = CiliumIdentity::LEASE_DURATION.as_secs(), value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..=3600))]
    pub lease_duration_s: u64,

    /// Do what is to be done now, and end.
    #[arg(long, env = "BRISTLE_ONCE")]
    pub once: bool,

    /// Address of /metrics, /healthz and /readyz; `off` serves none.
    #[arg(long, env = "BRISTLE_LISTEN", default_value = "127.0.0.1:9963", value_parser = listen)]
    pub listen: Listen,

    /// How log lines look.
    #[arg(long, env = "BRISTLE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged, as in `info` or `info,bristle_operator=debug`.
    #[arg(long, env = "BRISTLE_LOG", default_value = "info,kube_client=off,kube_runtime=off")]
    pub log: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where figures and health are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

fn listen(text: &str) -> Result<Listen, String> {
    match text {
        "off" | "" => Ok(Listen(None)),
        text => text
            .parse()
            .map(|address| Listen(Some(address)))
            .map_err(|error| format!("{error}; give ADDRESS:PORT such as 127.0.0.1:9963, or off")),
    }
}

impl Flags {
    /// How the lease is held, if one is needed.
    pub(super) fn lease(&self) -> Option<LeaseSettings> {
        self.leader_elect.then(|| {
            let own = || {
                let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                format!("{}_{}", host.trim(), std::process::id())
            };
            LeaseSettings::new(
                self.lease_namespace.clone(),
                self.lease_name.clone(),
                self.lease_identity.clone().unwrap_or_else(own),
                std::time::Duration::from_secs(self.lease_duration_s),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Flags, Listen};
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        for flag in Flags::command().get_arguments() {
            let name = flag.get_id().as_str();
            if !["help", "version"].contains(&name) {
                let variable = flag.get_env().unwrap_or_else(|| panic!("--{name} has no variable"));
                assert!(variable.to_string_lossy().starts_with("BRISTLE_"), "{variable:?}");
            }
        }
    }

    #[test]
    fn what_is_given_counts() {
        let flags = Flags::try_parse_from(["x", "--listen", "off", "--leader-elect", "false"]).unwrap();
        assert_eq!(flags.listen, Listen(None));
        assert!(flags.lease().is_none());
        assert!(Flags::try_parse_from(["x", "--listen", "here"]).is_err());
        assert!(Flags::try_parse_from(["x", "--lease-duration", "2"]).is_err());
        assert!(Flags::try_parse_from(["x", "--lease-duration", "3601"]).is_err());
    }
}
