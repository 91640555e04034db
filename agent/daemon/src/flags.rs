//! The agent's command line. Every flag can also be given by the environment variable in brackets in `--help`.

use agent_control::{NODE_PORTS, SNAT_PORTS};
use agent_crd::{CiliumIdentity, LabelFilter};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dataplane_abi::config::VXLAN_PORT;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bristle's node agent: gives pods their network and keeps the eBPF dataplane as Kubernetes wants it.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "bristle-agent",
    version,
    about,
    after_help = "\
Examples:
  bristle-agent --kubeconfig /etc/bristle/kubeconfig --node-name node-1
  bristle-agent --routing native --device eth0 --log-format json
  bristle-agent cleanup --yes       remove everything the agent made on this node

Inside a pod with a service account no --kubeconfig is needed.
`bristle status` shows how the agent is."
)]
pub struct Flags {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// How the agent runs.
    #[command(flatten)]
    pub run: RunFlags,
}

/// What the program can do besides running as the agent.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Remove links, programs, maps, routes and files that the agent made on this node. Pods lose their network.
    Cleanup {
        /// Really do it; without this it only says what it would remove.
        #[arg(long)]
        yes: bool,
    },
}

/// How the agent runs.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct RunFlags {
    /// Name of this node's Node object [default: the host name].
    #[arg(long, env = "BRISTLE_NODE_NAME", global = true)]
    pub node_name: Option<String>,

    /// Kubeconfig to reach the API server with [default: that of `KUBECONFIG`, else the pod's service account].
    #[arg(long, env = "BRISTLE_KUBECONFIG", global = true)]
    pub kubeconfig: Option<PathBuf>,

    /// How pods on different nodes reach each other.
    #[arg(long, env = "BRISTLE_ROUTING", value_enum, default_value_t = Routing::Vxlan, global = true)]
    pub routing: Routing,

    /// Underlay device [default: the one that has the node's InternalIP].
    #[arg(long, env = "BRISTLE_DEVICE", global = true)]
    pub device: Option<String>,

    /// MTU of the underlay in bytes; 0 takes it from the device.
    #[arg(long, env = "BRISTLE_MTU", default_value_t = 0, global = true)]
    pub mtu: u32,

    /// Give pods IPv4 addresses; auto does so when the node has an IPv4 pod CIDR.
    #[arg(long, env = "BRISTLE_IPV4", value_enum, default_value_t = Family::Auto, global = true)]
    pub ipv4: Family,

    /// Give pods IPv6 addresses; auto does so when the node has an IPv6 pod CIDR.
    #[arg(long, env = "BRISTLE_IPV6", value_enum, default_value_t = Family::Auto, global = true)]
    pub ipv6: Family,

    /// Directory of the sockets.
    #[arg(long, env = "BRISTLE_RUN_DIR", default_value = agent_api::paths::RUN_DIR, global = true)]
    pub run_dir: PathBuf,

    /// Directory of what survives a restart of the agent [default: <run-dir>/state].
    #[arg(long, env = "BRISTLE_STATE_DIR", global = true)]
    pub state_dir: Option<PathBuf>,

    /// Where the BPF file system is mounted.
    #[arg(long, env = "BRISTLE_BPFFS", default_value = "/sys/fs/bpf", global = true)]
    pub bpffs: PathBuf,

    /// The eBPF object [default: bristle.bpf.o beside this program, else /usr/lib/bristle/bristle.bpf.o].
    #[arg(long, env = "BRISTLE_BPF_OBJECT", global = true)]
    pub bpf_object: Option<PathBuf>,

    /// Directory of CNI configurations; 05-bristle.conflist appears there when pods can be added. `none` writes none.
    #[arg(long, env = "BRISTLE_CNI_CONF_DIR", default_value = "/etc/cni/net.d", global = true)]
    pub cni_conf_dir: PathBuf,

    /// Which trace events the dataplane sends.
    #[arg(long, env = "BRISTLE_MONITOR_AGGREGATION", value_enum, default_value_t = Aggregation::Medium, global = true)]
    pub monitor_aggregation: Aggregation,

    /// Give pods identities and enforce network policies.
    ///
    /// Needs the CustomResourceDefinitions of deploy/crds in the cluster, a running bristle-operator, which gives out identities,
    /// and deploy/rbac.yaml. Without them pods are not added. `off` lets every pod reach every other.
    #[arg(long, env = "BRISTLE_POLICY", value_enum, default_value_t = Switch::On, global = true)]
    pub policy: Switch,

    /// Name of the cluster, as bristle-operator has it; it is a label of every identity.
    #[arg(long, env = "BRISTLE_CLUSTER_NAME", default_value = agent_crd::identity_labels::DEFAULT_CLUSTER, global = true)]
    pub cluster_name: String,

    /// Which labels of pods and namespaces are part of identities, as bristle-operator has it: patterns with spaces between them.
    ///
    /// `k8s:app k8s:role` takes keys that begin so and those that are always taken; `k8s:!job-name` leaves out. Policies select by
    /// no other labels.
    #[arg(long, env = "BRISTLE_LABELS", default_value_t, value_parser = LabelFilter::read, global = true)]
    pub labels: LabelFilter,

    /// Which pods are isolated: default does as policies say, always isolates also those that no policy selects, never enforces nothing.
    #[arg(long, env = "BRISTLE_ENABLE_POLICY", value_enum, default_value_t = Enforcement::Default, global = true)]
    pub enable_policy: Enforcement,

    /// Let through what policies forbid, and tell of it in the monitor.
    #[arg(long, env = "BRISTLE_POLICY_AUDIT_MODE", global = true)]
    pub policy_audit_mode: bool,

    /// Put policies for nodes (nodeSelector) in force: they judge what the node itself, and pods in its network, send and receive.
    ///
    /// A policy that would cut this node off from the API server is only audited, unless it has the annotation
    /// bristle.io/allow-api-cut: "true".
    #[arg(long, env = "BRISTLE_HOST_FIREWALL", global = true)]
    pub host_firewall: bool,

    /// Send calls of pods and processes of this node to services (cluster IPs) to their endpoints, as kube-proxy would.
    ///
    /// Programs on the cgroup of --cgroup-root do it when a socket is connected or sends a datagram.
    #[arg(long, env = "BRISTLE_KUBE_PROXY_REPLACEMENT", global = true)]
    pub kube_proxy_replacement: bool,

    /// Where calls to services are translated: socket for all processes of the node when they call, packet for what its pods send, both for what
    /// was not translated at the socket either.
    ///
    /// With packet, processes of the node itself are not served.
    #[arg(long, env = "BRISTLE_SERVICE_TRANSLATION", value_enum, default_value_t = Translation::Socket, global = true)]
    pub service_translation: Translation,

    /// Whether calls to services that come from outside the cluster (node ports, external IPs, addresses of load balancers) are sent to
    /// their endpoints too.
    ///
    /// Only with --kube-proxy-replacement. Endpoints of other nodes are called from this node, by a port of --snat-port-range.
    #[arg(long, env = "BRISTLE_ENABLE_NODE_PORT", value_enum, default_value_t = Switch::On, global = true)]
    pub enable_node_port: Switch,

    /// Ports that the API server gives to services at every node (its --service-node-port-range).
    #[arg(long, env = "BRISTLE_NODE_PORT_RANGE", default_value_t = Ports(NODE_PORTS), value_parser = ports, global = true)]
    pub node_port_range: Ports,

    /// Whether processes of the node itself are kept from ports that services have at every node (on kernels from 5.14 on).
    #[arg(long, env = "BRISTLE_NODE_PORT_BIND_PROTECTION", value_enum, default_value_t = Switch::On, global = true)]
    pub node_port_bind_protection: Switch,

    /// Whether load balancers are told at services' `healthCheckNodePort` if this node has endpoints of them.
    #[arg(long, env = "BRISTLE_ENABLE_HEALTH_CHECK_NODEPORT", value_enum, default_value_t = Switch::On, global = true)]
    pub enable_health_check_nodeport: Switch,

    /// Address of `/healthz` in place of kube-proxy's, as in `0.0.0.0:10256`; `off` serves none.
    #[arg(long, env = "BRISTLE_KUBE_PROXY_REPLACEMENT_HEALTHZ_BIND_ADDRESS", default_value = "off", value_parser = optional_addr, global = true)]
    pub kube_proxy_replacement_healthz_bind_address: OptionalAddr,

    /// Send what pods send to the world by IPv4 with the node's address, and bring the answers back to them.
    ///
    /// Pods and nodes of the cluster, and the prefixes of --ipv4-native-routing-cidr and --masquerade-exclude, see pods' own addresses.
    #[arg(long, env = "BRISTLE_ENABLE_IPV4_MASQUERADE", global = true)]
    pub enable_ipv4_masquerade: bool,

    /// The same by IPv6.
    #[arg(long, env = "BRISTLE_ENABLE_IPV6_MASQUERADE", global = true)]
    pub enable_ipv6_masquerade: bool,

    /// Ports of the node by which masqueraded connections and calls from outside leave; none that services may have at every node, and not the tunnel's.
    #[arg(long, env = "BRISTLE_SNAT_PORT_RANGE", default_value_t = Ports(SNAT_PORTS), value_parser = snat_ports, global = true)]
    pub snat_port_range: Ports,

    /// Prefixes to which the network routes pods' IPv4 addresses, so that pods are not masqueraded there [default: the cluster's pods].
    #[arg(long, env = "BRISTLE_IPV4_NATIVE_ROUTING_CIDR", value_delimiter = ',', global = true)]
    pub ipv4_native_routing_cidr: Vec<Ipv4Net>,

    /// The same for IPv6.
    #[arg(long, env = "BRISTLE_IPV6_NATIVE_ROUTING_CIDR", value_delimiter = ',', global = true)]
    pub ipv6_native_routing_cidr: Vec<Ipv6Net>,

    /// Other prefixes, of either family, to which pods speak with their own addresses.
    #[arg(long, env = "BRISTLE_MASQUERADE_EXCLUDE", value_delimiter = ',', global = true)]
    pub masquerade_exclude: Vec<IpNet>,

    /// Cgroup (version 2) whose processes call services: the root of the hierarchy [default: where it is mounted].
    #[arg(long, env = "BRISTLE_CGROUP_ROOT", global = true)]
    pub cgroup_root: Option<PathBuf>,

    /// How long adding a pod waits for its identity, as in `10s` or `500ms`; then it runs isolated until it has one.
    ///
    /// When the operator is killed another one needs nearly twice its --lease-duration before it gives out identities.
    #[arg(long, env = "BRISTLE_IDENTITY_WAIT", default_value_t = Wait(CiliumIdentity::WAIT), value_parser = wait, global = true)]
    pub identity_wait: Wait,

    /// How long an identity is known before a pod whose labels have changed takes it, as in `5s` or `500ms`.
    ///
    /// Until then the pod keeps the identity that it has, so that nodes that have not heard of the new one do not drop
    /// what both may do. Identities that are known already are taken at once.
    #[arg(long, env = "BRISTLE_IDENTITY_CHANGE_GRACE_PERIOD", default_value_t = Wait(CiliumIdentity::CHANGE_GRACE), value_parser = wait, global = true)]
    pub identity_change_grace_period: Wait,

    /// How log lines look.
    #[arg(long, env = "BRISTLE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,

    /// What is logged, as in `info` or `info,agent_control=debug`.
    #[arg(long, env = "BRISTLE_LOG", default_value = "info,kube_client=off,kube_runtime=off", global = true)]
    pub log: String,

    /// Address of the Prometheus metrics; `off` serves them on the unix socket only.
    #[arg(long, env = "BRISTLE_METRICS_ADDR", default_value = "127.0.0.1:9962", value_parser = optional_addr, global = true)]
    pub metrics_addr: OptionalAddr,
}

/// How pods on different nodes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Routing {
    /// VXLAN to UDP port 8472: needs nothing from the network between the nodes.
    Vxlan,
    /// Plain packets: nodes share a segment, or the network between them routes pod CIDRs.
    Native,
}

/// Whether an address family is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// Use it; wait for a pod CIDR of it.
    True,
    /// Leave it alone even where the node has a pod CIDR of it.
    False,
    /// Use it when the node has a pod CIDR of it.
    Auto,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// Where calls to services are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Translation {
    /// At the socket.
    Socket,
    /// Packet by packet.
    Packet,
    /// At the socket, and packet by packet what was not translated there.
    Both,
}

/// Which pods are isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Enforcement {
    /// Those that policies select.
    Default,
    /// All, in both directions.
    Always,
    /// None, whatever policies say.
    Never,
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub Duration);

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(span) = self;
        if span.subsec_millis() == 0 {
            write!(f, "{}s", span.as_secs())
        } else {
            write!(f, "{}ms", span.as_millis())
        }
    }
}

fn wait(text: &str) -> Result<Wait, String> {
    let parse = |number: &str| number.parse::<u64>().ok();
    let span = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => parse(number).map(Duration::from_millis),
        (None, Some(number)) => parse(number).map(Duration::from_secs),
        (None, None) => None,
    };
    span.filter(|span| *span <= MOST_WAIT)
        .map(Wait)
        .ok_or_else(|| "give seconds or milliseconds, 0s to 120s, as in 10s or 500ms".to_owned())
}

/// Container runtimes do not wait longer for a pod's network, and nodes that have not heard of an identity by then are cut off.
const MOST_WAIT: Duration = Duration::from_secs(120);

/// A range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(pub RangeInclusive<u16>);

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(range) = self;
        write!(f, "{}-{}", range.start(), range.end())
    }
}

fn ports(text: &str) -> Result<Ports, String> {
    range(text, NODE_PORTS)
}

fn snat_ports(text: &str) -> Result<Ports, String> {
    range(text, SNAT_PORTS)
}

fn range(text: &str, example: RangeInclusive<u16>) -> Result<Ports, String> {
    let parsed =
        text.split_once('-').and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
    parsed
        .filter(|range: &RangeInclusive<u16>| *range.start() > 0 && !range.is_empty())
        .map(Ports)
        .ok_or_else(|| format!("give the first and the last port, as in {}", Ports(example)))
}

/// Flags that do not go together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlagsError {
    /// Masqueraded connections and services at nodes would share ports.
    #[error(
        "--snat-port-range {0} and --node-port-range {1} overlap; give ports that services cannot have at nodes"
    )]
    NodePorts(Ports, Ports),
    /// Masqueraded connections would have the tunnel's port.
    #[error("--snat-port-range {0} contains the tunnel's port {VXLAN_PORT}; give ports without it")]
    TunnelPort(Ports),
}

/// Which trace events the dataplane sends. Drops are always sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Aggregation {
    /// Every packet at every point.
    None,
    /// Every packet where it leaves us, not where it arrives.
    Low,
    /// First packets, new TCP flags, and one packet per connection, direction and 5 seconds.
    Medium,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// An address to serve something on, if it shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalAddr(pub Option<SocketAddr>);

fn optional_addr(text: &str) -> Result<OptionalAddr, String> {
    match text {
        "off" | "" => Ok(OptionalAddr(None)),
        text => text
            .parse()
            .map(|addr| OptionalAddr(Some(addr)))
            .map_err(|error| format!("{error}; give ADDRESS:PORT such as 127.0.0.1:9962, or off")),
    }
}

impl RunFlags {
    /// What is wrong with flags together.
    ///
    /// # Errors
    /// A masqueraded connection might get a port that is somebody else's.
    pub(crate) fn check(&self) -> Result<(), FlagsError> {
        if !(self.enable_ipv4_masquerade || self.enable_ipv6_masquerade || self.translates_from_outside()) {
            return Ok(());
        }
        let (Ports(ports), Ports(at_nodes)) = (&self.snat_port_range, &self.node_port_range);
        if ports.start() <= at_nodes.end() && at_nodes.start() <= ports.end() {
            return Err(FlagsError::NodePorts(self.snat_port_range.clone(), self.node_port_range.clone()));
        }
        if self.routing == Routing::Vxlan && ports.contains(&VXLAN_PORT) {
            return Err(FlagsError::TunnelPort(self.snat_port_range.clone()));
        }
        Ok(())
    }

    /// Whether the programs on calls of sockets are wanted.
    pub(crate) fn translates_at_sockets(&self) -> bool {
        self.kube_proxy_replacement && self.service_translation != Translation::Packet
    }

    /// Whether calls from outside the cluster are translated.
    pub(crate) fn translates_from_outside(&self) -> bool {
        self.kube_proxy_replacement && self.enable_node_port == Switch::On
    }

    /// Where the CNI configuration is written, unless it shall not be.
    pub fn cni_conf_dir(&self) -> Option<&Path> {
        (self.cni_conf_dir != Path::new("none")).then_some(&self.cni_conf_dir)
    }

    /// The state directory, by flag or below the runtime directory.
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| self.run_dir.join("state"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Flags, OptionalAddr, Wait};
    use clap::{CommandFactory as _, Parser as _};
    use std::path::Path;
    use std::time::Duration;

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        for arg in Flags::command().get_arguments().filter(|arg| arg.get_long().is_some()) {
            let long = arg.get_long().unwrap();
            if matches!(long, "help" | "version") {
                continue;
            }
            let want = format!("BRISTLE_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(want.as_str()), "--{long}");
        }
    }

    #[test]
    fn state_lies_below_the_runtime_directory_unless_said_otherwise() {
        let flags = Flags::try_parse_from(["bristle-agent", "--run-dir", "/tmp/x"]).unwrap();
        assert_eq!(flags.run.state_dir(), Path::new("/tmp/x/state"));
        let flags = Flags::try_parse_from(["bristle-agent", "--state-dir", "/tmp/y"]).unwrap();
        assert_eq!(flags.run.state_dir(), Path::new("/tmp/y"));
    }

    #[test]
    fn the_cni_configuration_can_be_left_to_others() {
        let flags = Flags::try_parse_from(["bristle-agent"]).unwrap();
        assert_eq!(flags.run.cni_conf_dir(), Some(Path::new("/etc/cni/net.d")));
        let flags = Flags::try_parse_from(["bristle-agent", "--cni-conf-dir", "none"]).unwrap();
        assert_eq!(flags.run.cni_conf_dir(), None);
    }

    #[test]
    fn waits_have_a_unit_and_an_end() {
        let wait = |text: &str| {
            Flags::try_parse_from(["bristle-agent".to_owned(), format!("--identity-wait={text}")])
                .map(|flags| flags.run.identity_wait)
        };
        for text in ["500ms", "30s"] {
            assert_eq!(wait(text).unwrap().to_string(), text);
        }
        assert_eq!(wait("500ms").unwrap(), Wait(Duration::from_millis(500)));
        assert_eq!(wait("0s").unwrap(), Wait(Duration::ZERO));
        for wrong in ["10", "1m", "-1s", "121s", "s", ""] {
            assert!(wait(wrong).unwrap_err().to_string().contains("10s or 500ms"), "{wrong}");
        }
    }

    #[test]
    fn ranges_of_ports_have_two_ends() {
        let range = |text: &str| {
            Flags::try_parse_from(["bristle-agent".to_owned(), format!("--node-port-range={text}")])
                .map(|flags| flags.run.node_port_range)
        };
        assert_eq!(range("20000-22767").unwrap().0, 20_000..=22_767);
        let usual = Flags::try_parse_from(["bristle-agent"]).unwrap().run.node_port_range;
        assert_eq!(usual.to_string(), "30000-32767");
        for wrong in ["30000", "30000-", "0-9", "9-1", "1-70000", "30000,32767", ""] {
            assert!(range(wrong).unwrap_err().to_string().contains("30000-32767"), "{wrong}");
        }
    }

    #[test]
    fn masqueraded_connections_have_ports_of_their_own() {
        let check = |text: &str| {
            let flags = ["bristle-agent"].into_iter().chain(text.split(' '));
            Flags::try_parse_from(flags).unwrap().run.check().map_err(|error| error.to_string())
        };
        assert_eq!(check("--enable-ipv4-masquerade"), Ok(()));
        assert_eq!(check("--snat-port-range=1-65535"), Ok(()), "nobody is masqueraded");
        let services = "--kube-proxy-replacement --snat-port-range=1-65535";
        assert!(check(services).is_err(), "calls from outside leave by them");
        assert_eq!(check(&format!("{services} --enable-node-port=off")), Ok(()));
        let error = check("--enable-ipv6-masquerade --snat-port-range=32767-40000").unwrap_err();
        assert!(error.contains("32767-40000 and --node-port-range 30000-32767 overlap"), "{error}");
        let error = check("--enable-ipv4-masquerade --snat-port-range=8000-9000").unwrap_err();
        assert!(error.contains("8000-9000 contains the tunnel's port 8472"), "{error}");
        assert_eq!(check("--enable-ipv4-masquerade --snat-port-range=8000-9000 --routing=native"), Ok(()));
        let flags = Flags::try_parse_from([
            "bristle-agent",
            "--masquerade-exclude=10.0.0.0/8,fd00::/8",
            "--ipv4-native-routing-cidr=10.1.0.0/16",
        ]);
        let run = flags.unwrap().run;
        assert_eq!((run.masquerade_exclude.len(), run.ipv4_native_routing_cidr.len()), (2, 1));
    }

    #[test]
    fn metrics_can_be_off_and_bad_addresses_say_what_is_wanted() {
        let flags = Flags::try_parse_from(["bristle-agent", "--metrics-addr", "off"]).unwrap();
        assert_eq!(flags.run.metrics_addr, OptionalAddr(None));
        let error =
            Flags::try_parse_from(["bristle-agent", "--metrics-addr", "9962"]).unwrap_err().to_string();
        assert!(error.contains("ADDRESS:PORT"), "{error}");
    }
}
