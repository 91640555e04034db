//! The scenario as data. The YAML form and this are the same thing: field names are in kebab case, times are written `150ms`, `2s`, `1m`.

mod asked;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use asked::{AnsweredBy, Method, Request, TrafficExpect};

/// Stands for the cluster's operator where a fault names a node.
pub const OPERATOR: &str = "operator";

/// Version of the form; the value of the field `bristle`.
pub const FORMAT: &str = "scenario/v1";

/// A whole scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// Always [`FORMAT`].
    pub bristle: String,
    /// A short name: lower case letters, digits and `-`.
    pub name: String,
    /// What it shows, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The cluster, which is up and at rest before the first step.
    #[serde(default, skip_serializing_if = "omit::default")]
    pub cluster: Cluster,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// The cluster that a scenario begins with.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Cluster {
    /// Number of nodes, `node-1` and on; at least 1.
    #[serde(skip_serializing_if = "omit::nodes")]
    pub nodes: u16,
    /// IP families of pods and nodes.
    #[serde(skip_serializing_if = "omit::family")]
    pub family: Families,
    /// How packets travel between nodes.
    #[serde(skip_serializing_if = "omit::routing")]
    pub routing: Routing,
    /// MTU of the underlay in bytes, 1280 to 9000.
    #[serde(skip_serializing_if = "omit::mtu")]
    pub mtu: u16,
    /// Prefix length of a node's IPv4 pod CIDR (16 to 30): small ones run out of addresses.
    #[serde(skip_serializing_if = "omit::pod_cidr_bits")]
    pub pod_cidr_bits: u8,
    /// Capacities of tables that shall be smaller than usual, by their name (`CT4`, `IPCACHE`, …).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, u32>,
    /// Policies for nodes are in force.
    #[serde(skip_serializing_if = "omit::default")]
    pub host_firewall: bool,
    /// Which pods are isolated.
    #[serde(skip_serializing_if = "omit::default")]
    pub enforcement: Enforcement,
    /// What policies deny passes, and is only told of.
    #[serde(skip_serializing_if = "omit::default")]
    pub audit: bool,
    /// Calls to services (cluster IPs) go to their endpoints.
    #[serde(skip_serializing_if = "omit::default")]
    pub kube_proxy_replacement: bool,
    /// Where calls to services are translated.
    #[serde(skip_serializing_if = "omit::default")]
    pub service_translation: Translation,
    /// What pods send to the world leaves with their node's address.
    #[serde(skip_serializing_if = "omit::default")]
    pub masquerade: bool,
    /// There are identities and policies; agents without serve pods from what they remember of their node alone.
    #[serde(skip_serializing_if = "omit::yes")]
    pub policy: bool,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            nodes: 3,
            family: Families::Dual,
            routing: Routing::Vxlan,
            mtu: 1500,
            pod_cidr_bits: 24,
            tables: BTreeMap::new(),
            host_firewall: false,
            enforcement: Enforcement::Default,
            audit: false,
            kube_proxy_replacement: false,
            service_translation: Translation::Socket,
            masquerade: false,
            policy: true,
        }
    }
}

/// Which pods are isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// Those that policies select.
    #[default]
    Default,
    /// All.
    Always,
    /// None: nothing is enforced.
    Never,
}

/// Where calls to services are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Translation {
    /// At the socket.
    #[default]
    Socket,
    /// Packet by packet.
    Packet,
    /// At the socket, and packet by packet what was not translated there.
    Both,
}

/// IP families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Dual,
}

/// How packets travel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Routing {
    /// VXLAN.
    Vxlan,
    /// Plain routes.
    Native,
}

/// One step. Steps begin in the order in which they stand; what a step starts (traffic, a fault with an end) goes on beside the next ones.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// Not before this time after the start of the steps. Without it: as soon as the step before has been begun (waits: has ended).
    #[serde(skip_serializing_if = "Option::is_none", with = "time::option")]
    pub at: Option<Duration>,
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
}

/// What a step does; the key of the step says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Makes a pod.
    Pod(Pod),
    /// Deletes a pod by `namespace/name`, or by name alone in namespace `default`.
    DeletePod(String),
    /// Applies Kubernetes objects as they are.
    Apply(Vec<serde_json::Value>),
    /// Deletes a Kubernetes object.
    Delete(ObjectRef),
    /// Waits.
    Wait(Wait),
    /// Sends traffic.
    Traffic(Traffic),
    /// Breaks something.
    Fault(Fault),
    /// Asks the API server, whose answer must be as it says.
    Request(Request),
    /// Says what must be so now.
    Expect(Expect),
}

/// A pod in few words; becomes a core/v1 Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pod {
    /// Name.
    pub name: String,
    /// Namespace; made if it is not there.
    #[serde(default = "default_namespace", skip_serializing_if = "is_default_namespace")]
    pub namespace: String,
    /// The node it shall run on (`node-2`); without one the scheduler chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What listens in it: `http:8080`, `tcp:9000` (echo), `udp:5353` (echo).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serve: Vec<Serve>,
    /// Names of ports that it serves, for services that name them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// It is in the network of its node.
    #[serde(default, skip_serializing_if = "is_false")]
    pub host_network: bool,
    /// Whether it ever becomes ready; one that does not serves all the same.
    #[serde(default = "yes", skip_serializing_if = "omit::yes")]
    pub ready: bool,
    /// For so long it goes on to serve after it was deleted, in whole seconds.
    #[serde(default, with = "time", skip_serializing_if = "omit::default")]
    pub linger: Duration,
}

impl Pod {
    /// A pod in `default` that the scheduler places and that serves nothing.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: default_namespace(),
            node: None,
            labels: BTreeMap::new(),
            serve: Vec::new(),
            ports: BTreeMap::new(),
            host_network: false,
            ready: true,
            linger: Duration::ZERO,
        }
    }
}

/// Something that listens in a pod. Written `http:8080`, `tcp:9000`, `udp:5353`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serve {
    /// What it speaks.
    pub kind: ServeKind,
    /// Its port.
    pub port: u16,
}

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServeKind {
    /// HTTP/1.1: 200 to every request.
    Http,
    /// Sends back what comes, over TCP.
    Tcp,
    /// Sends back what comes, over UDP.
    Udp,
}

/// Names a Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ObjectRef {
    /// `apiVersion`; `v1` if it is left out.
    #[serde(default = "core_v1")]
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; `default` if it is left out and the kind has namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wait {
    /// What must be so.
    #[serde(rename = "for")]
    pub until: Until,
    /// How long it may take at most; after that the scenario fails. Not for `time`.
    #[serde(default = "half_a_minute", with = "time", skip_serializing_if = "omit::half_a_minute")]
    pub within: Duration,
}

impl Wait {
    /// For so long as it may take by default.
    pub const fn new(until: Until) -> Self {
        Self { until, within: half_a_minute() }
    }
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// All pods are ready, and deleted ones are gone.
    Ready,
    /// As `ready`, all traffic without `background` has ended, all faults with an end have ended, and every agent has seen every object and has nothing left to do.
    Rest,
    /// This one traffic has ended.
    Traffic(String),
    /// Time alone.
    #[serde(with = "time")]
    Time(Duration),
}

/// Traffic from one place to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Traffic {
    /// Names it in waits, expectations and reports; unique.
    pub id: String,
    /// Who sends: `pod/NAME`, `pod/NAMESPACE/NAME` or `node/NAME`.
    pub from: Place,
    /// Who is addressed: the same, or `service/NAME`, `world/first`, `world/second`, `node-port/NODE`, or an IP address.
    pub to: Place,
    /// What is spoken.
    pub kind: TrafficKind,
    /// Port at the receiver; not for `ping`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Family to use; `dual` uses both, one after the other. Default: IPv4 unless the cluster is IPv6 alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Families>,
    /// Requests, echo requests, datagrams, or segments of a stream (one after the other).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
    /// Pause between two of them.
    #[serde(default = "hundred_ms", with = "time", skip_serializing_if = "omit::hundred_ms")]
    pub interval: Duration,
    /// Bytes of payload of each, 0 to 65000 (datagrams and echo requests larger than the MTU are sent in fragments).
    #[serde(default = "fifty_six", skip_serializing_if = "omit::fifty_six")]
    pub size: u16,
    /// How long each may take before it counts as lost.
    #[serde(default = "five_seconds", with = "time", skip_serializing_if = "omit::five_seconds")]
    pub timeout: Duration,
    /// What must come of it.
    #[serde(default, skip_serializing_if = "omit::default")]
    pub expect: TrafficExpect,
    /// Which pods must have answered, in each family; of `http` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<AnsweredBy>,
    /// Whose address those who answered must have seen, of `http` alone: a pod or a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_as: Option<Place>,
    /// Runs until the end of the scenario or its count is reached; `wait: rest` does not wait for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub background: bool,
}

impl Traffic {
    /// One of a kind, everything else as in a file that does not say it.
    pub fn new(id: &str, from: Place, to: Place, kind: TrafficKind) -> Self {
        Self {
            id: id.to_owned(),
            from,
            to,
            kind,
            port: None,
            family: None,
            count: one(),
            interval: hundred_ms(),
            size: fifty_six(),
            timeout: five_seconds(),
            expect: TrafficExpect::Ok,
            answered_by: None,
            seen_as: None,
            background: false,
        }
    }
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrafficKind {
    /// ICMP echo.
    Ping,
    /// One TCP connection and one HTTP request for each.
    Http,
    /// One TCP connection; each segment is echoed before the next.
    Tcp,
    /// Datagrams that are echoed.
    Udp,
}

/// A place that sends or is addressed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `pod/NAME` or `pod/NAMESPACE/NAME`.
    Pod {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// `node/NAME`.
    Node(String),
    /// `service/NAME` or `service/NAMESPACE/NAME`.
    Service {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// `node-port/NODE`: with the port, a port of a node.
    NodePort(String),
    /// `world/first`, `world/second`: servers outside of the cluster.
    World(World),
    /// An address as it is.
    Address(IpAddr),
}

/// A server outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum World {
    /// Answers on 80 and 443.
    First,
    /// The same at another address.
    Second,
}

/// Something that is broken on purpose.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(remote = "Self", rename_all = "kebab-case")]
pub struct Fault {
    /// The node it happens to; without one: to all (or, for a crash, to one that the seed chooses).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How long it lasts; without it what has a duration lasts until [`FaultKind::Heal`].
    #[serde(rename = "for", skip_serializing_if = "Option::is_none", with = "time::option")]
    pub lasts: Option<Duration>,
    /// What breaks.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// Kinds of faults. Probabilities are 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum FaultKind {
    /// The link of the node to the underlay.
    Link(LinkFault),
    /// The node reaches no other node and is reached by none.
    Partition,
    /// The agent is killed.
    Kill(Kill),
    /// The agent's process stands still (`for`), while packets go on.
    Stall,
    /// The node's clock that the agent reads jumps ahead by this.
    #[serde(with = "time")]
    Skew(Duration),
    /// Calls to the API server and watches.
    Api(ApiFault),
    /// What the container runtime does.
    Cni(CniFault),
    /// A table of the node takes no new rows beyond so many.
    TableFull {
        /// Name of the table.
        table: String,
        /// Rows it may hold.
        rows: u32,
    },
    /// The ring buffer of events holds only so many records and nobody reads it.
    RingFull(u32),
    /// Commands of the agent to tables, links, routes and its state directory fail (`for`).
    Failures(Failures),
    /// Ends every fault that lasts (of the node, or all).
    Heal,
}

impl FaultKind {
    /// The kind's word, as in the file.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Link(_) => "link",
            Self::Partition => "partition",
            Self::Kill(_) => "kill",
            Self::Stall => "stall",
            Self::Skew(_) => "skew",
            Self::Api(_) => "api",
            Self::Cni(_) => "cni",
            Self::TableFull { .. } => "table-full",
            Self::RingFull(_) => "ring-full",
            Self::Failures(_) => "failures",
            Self::Heal => "heal",
        }
    }
}

/// Which commands of an agent fail. Written as the probability alone, or with what it is about:
/// `{probability: 0.5, of: state}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Failures {
    /// That one fails.
    pub probability: f64,
    /// Only those on this: one of [`Failures::PLACES`], or a table by its name; without it all of them.
    pub of: Option<String>,
}

impl Failures {
    /// What commands may be about that is no table.
    pub const PLACES: [&str; 3] = ["links", "routes", "state"];

    /// Whether a command on something may fail.
    pub fn affects(&self, place: &str) -> bool {
        self.of.as_ref().is_none_or(|of| of == place)
    }
}

/// What a link does to packets, each for itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LinkFault {
    /// Probability of loss.
    #[serde(skip_serializing_if = "omit::default")]
    pub loss: f64,
    /// Probability that a packet comes twice.
    #[serde(skip_serializing_if = "omit::default")]
    pub duplicate: f64,
    /// Probability that a packet is held back so that later ones overtake it.
    #[serde(skip_serializing_if = "omit::default")]
    pub reorder: f64,
    /// Probability that one byte is changed.
    #[serde(skip_serializing_if = "omit::default")]
    pub corrupt: f64,
    /// Delay of every packet.
    #[serde(with = "time", skip_serializing_if = "omit::default")]
    pub delay: Duration,
    /// Up to so much more, at random.
    #[serde(with = "time", skip_serializing_if = "omit::default")]
    pub jitter: Duration,
    /// Larger IP packets vanish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// The end of an agent and its next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Kill {
    /// It dies after so many more commands (rows, routes, links, documents); without it: at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_commands: Option<u32>,
    /// It is started again so much later.
    #[serde(with = "time", skip_serializing_if = "omit::default")]
    pub restart_after: Duration,
    /// It finds its state directory as it was so much before its death (a restored disk); zero: as it left it.
    #[serde(with = "time", skip_serializing_if = "omit::default")]
    pub snapshot_age: Duration,
}

/// What the API server does to a node's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApiFault {
    /// Watches are cut; the agent lists again.
    Cut,
    /// Not reached at all (`for`).
    Down,
    /// Changes are delivered this late.
    #[serde(with = "time")]
    Slow(Duration),
    /// Of several changes of one object only the last is seen (`for`).
    Coalesce,
    /// Every change is delivered twice, the second time later and behind others (`for`).
    Duplicate,
    /// The next list is answered by a replica that is behind by so many changes.
    Stale(u32),
    /// The next list ends half way; then it is tried again.
    PartialList,
    /// Lists and watches answer with this HTTP status (`for`): 429, 500, 503; or 410 for watches.
    Error(u16),
    /// Changes of different objects come in another order than they were made (`for`).
    Reorder,
}

/// What the container runtime does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CniFault {
    /// Every ADD is sent twice (`for`).
    RepeatAdd,
    /// Every DEL is sent again this much later (`for`).
    #[serde(with = "time")]
    RepeatDel(Duration),
    /// DELs are sent this late: the pod's object is gone and its namespace too (`for`).
    #[serde(with = "time")]
    LateDel(Duration),
    /// ADD and DEL of one pod are sent at once, DEL first (`for`).
    DelFirst,
    /// The pod's network namespace is gone before the ADD is served (`for`).
    NetnsGone,
    /// GC is called with the present attachments.
    Gc,
}

/// What must be so at a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Expect {
    /// So many pods are ready.
    PodsReady(u32),
    /// So many addresses are allocated on all nodes together (quarantined ones do not count).
    Allocated(u32),
    /// No packet of a pod was dropped by a program since the start of the steps or the last `no-drops`.
    NoDrops,
    /// Packets were dropped for this reason (the reason's word, such as `INVALID_SOURCE_IP`), at least so many.
    Drops {
        /// The reason.
        reason: String,
        /// How many at least.
        at_least: u64,
    },
    /// Traffic so far has lost at most so many.
    Lost {
        /// Which traffic.
        traffic: String,
        /// How many at most.
        at_most: u32,
    },
    /// A pod is not ready (it cannot get an address, say).
    NotReady(String),
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn is_default_namespace(namespace: &String) -> bool {
    namespace == "default"
}

fn core_v1() -> String {
    "v1".to_owned()
}

const fn yes() -> bool {
    true
}

const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_one(count: &u32) -> bool {
    *count == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

const fn fifty_six() -> u16 {
    56
}

const fn hundred_ms() -> Duration {
    Duration::from_millis(100)
}

const fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

const fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

/// Which values are not written because they go without saying.
pub(crate) mod omit {
    use std::time::Duration;

    use super::{Cluster, Families, Routing};

    pub(crate) fn default<T: Default + PartialEq>(value: &T) -> bool {
        *value == T::default()
    }

    macro_rules! same_as {
        ($($name:ident: $type:ty = $value:expr;)*) => {$(
            pub(super) fn $name(value: &$type) -> bool {
                *value == $value
            }
        )*};
    }

    same_as! {
        nodes: u16 = Cluster::default().nodes;
        family: Families = Cluster::default().family;
        routing: Routing = Cluster::default().routing;
        mtu: u16 = Cluster::default().mtu;
        pod_cidr_bits: u8 = Cluster::default().pod_cidr_bits;
        yes: bool = true;
        half_a_minute: Duration = super::half_a_minute();
        hundred_ms: Duration = super::hundred_ms();
        fifty_six: u16 = super::fifty_six();
        five_seconds: Duration = super::five_seconds();
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scoped = |f: &mut fmt::Formatter<'_>, kind: &str, namespace: &str, name: &str| {
            if namespace == "default" {
                write!(f, "{kind}/{name}")
            } else {
                write!(f, "{kind}/{namespace}/{name}")
            }
        };
        match self {
            Self::Pod { namespace, name } => scoped(f, "pod", namespace, name),
            Self::Service { namespace, name } => scoped(f, "service", namespace, name),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::NodePort(name) => write!(f, "node-port/{name}"),
            Self::World(World::First) => f.write_str("world/first"),
            Self::World(World::Second) => f.write_str("world/second"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let mut parts = text.split('/');
        let (kind, first, second, end) = (parts.next(), parts.next(), parts.next(), parts.next());
        let scoped = || match (first, second) {
            (Some(name), None) => Some(("default".to_owned(), name.to_owned())),
            (Some(namespace), Some(name)) => Some((namespace.to_owned(), name.to_owned())),
            _ => None,
        };
        let place = match (kind, first, second, end) {
            (_, Some(""), _, _) | (_, _, Some(""), _) | (_, _, _, Some(_)) => None,
            (Some("pod"), ..) => scoped().map(|(namespace, name)| Self::Pod { namespace, name }),
            (Some("service"), ..) => scoped().map(|(namespace, name)| Self::Service { namespace, name }),
            (Some("node"), Some(name), None, _) => Some(Self::Node(name.to_owned())),
            (Some("node-port"), Some(name), None, _) => Some(Self::NodePort(name.to_owned())),
            (Some("world"), Some("first"), None, _) => Some(Self::World(World::First)),
            (Some("world"), Some("second"), None, _) => Some(Self::World(World::Second)),
            _ => None,
        };
        place.ok_or_else(|| {
            format!(
                "`{text}` is no place: write pod/NAME, pod/NAMESPACE/NAME, node/NAME, service/NAME, node-port/NODE, world/first, world/second or an IP address"
            )
        })
    }
}

impl fmt::Display for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ServeKind::Http => "http",
            ServeKind::Tcp => "tcp",
            ServeKind::Udp => "udp",
        };
        write!(f, "{kind}:{}", self.port)
    }
}

impl std::str::FromStr for Serve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once(':').and_then(|(kind, port)| {
            let kind = match kind {
                "http" => ServeKind::Http,
                "tcp" => ServeKind::Tcp,
                "udp" => ServeKind::Udp,
                _ => return None,
            };
            Some(Self { kind, port: port.parse().ok().filter(|port| *port != 0)? })
        });
        parsed.ok_or_else(|| format!("`{text}` is no server: write http:PORT, tcp:PORT or udp:PORT"))
    }
}

/// Serde for types that are written as text.
macro_rules! as_text {
    ($($type:ty, $what:literal;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(crate::form::Text { what: $what, read: str::parse })
            }
        }
    )*};
}

as_text! {
    Place, "a place such as pod/NAME";
    Serve, "a server such as http:8080";
}

/// Durations as `250us`, `150ms`, `2s`, `5m`, `1h`.
pub mod time {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    pub(crate) const EXPECTED: &str = "a time such as 250us, 150ms, 2s, 5m or 1h";

    const UNITS: [(&str, u64); 6] = [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];

    /// The shortest way to write a duration exactly.
    pub fn text(duration: Duration) -> String {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if ns == 0 {
            return "0s".to_owned();
        }
        let (unit, scale) = UNITS.into_iter().find(|(_, scale)| ns % scale == 0).unwrap_or(("ns", 1));
        format!("{}{unit}", ns / scale)
    }

    /// Reads what [`text`] writes.
    ///
    /// # Errors
    /// With a sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Duration, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale = UNITS.into_iter().find(|(name, _)| *name == unit).map(|(_, scale)| scale);
        number
            .parse::<u64>()
            .ok()
            .zip(scale)
            .and_then(|(number, scale)| number.checked_mul(scale))
            .map(Duration::from_nanos)
            .ok_or_else(|| format!("`{text}` is no time: write 250us, 150ms, 2s, 5m or 1h"))
    }

    /// For serde's `with`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*duration))
    }

    /// For serde's `with`.
    ///
    /// # Errors
    /// Not a time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(crate::form::Text { what: EXPECTED, read: parse })
    }

    /// The same where the time may be missing.
    pub mod option {
        use std::time::Duration;

        use serde::{Deserializer, Serializer};

        /// For serde's `with`.
        ///
        /// # Errors
        /// Those of the serializer.
        pub fn serialize<S: Serializer>(
            duration: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// For serde's `with`, of a field with a default.
        ///
        /// # Errors
        /// Not a time.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}
