//! Nanoseconds per packet of each program, by `BPF_PROG_TEST_RUN`.
//!
//! A node is set up in a sandbox: devices that nothing is sent through, two pods, another node, and a few hundred other
//! flows (the first entry of an LRU map reads slower than any later one). What is measured is the program alone, with
//! its packet in the cache: no driver, no stack.
//!
//! - *established*: a frame of a known connection, so often as its hop limit lets it be forwarded in one call, and the
//!   median over many calls.
//! - *drop*: a frame with a forged sender; the program changes nothing, so it runs as often as one likes. Without drop
//!   events, whose cost depends on who reads them.
//! - *policy*: the same two with the policies of both ends in force, of few identities and of many, in turns with a node
//!   without policy.
//! - *call*: frames of known connections that were called by a service's address, packet by packet, beside others.
//! - *new*: frames of connections that were never seen, one run each. A single run is measured with the kernel's own
//!   overhead of starting and stopping its clock, so that of an established packet is taken off and its true cost added.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use dataplane_abi::config::{Config, ConfigFlags, NodeConfig, Routing};
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey, Endpoints};
use dataplane_abi::ipcache::{IpCache, IpCacheEntry, IpCacheKey};
use dataplane_abi::program::Program;
use dataplane_abi::{ABI_VERSION, Identity, Table as _};
use thiserror::Error;

use crate::attach::ifindex;
use crate::clock::{Clock, ClockError};
use crate::events::EventReader;
use crate::object::{LoadError, LoadOptions, Object};
use crate::sandbox::Sandbox;
use crate::table::{TableError, TypedTable};
use crate::test_run::{Context, TestRun, TestRunError};

mod frames;
mod policy;
mod service;

use frames::{End, udp};

/// One measured figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The program.
    pub program: Program,
    /// What kind of packet.
    pub case: Case,
    /// Whether the packet is IPv6.
    pub v6: bool,
    /// Where the packet goes: "pod", "tunnel", "network", "stack".
    pub to: &'static str,
    /// Nanoseconds per packet: the median.
    pub ns: f64,
}

impl Figure {
    /// A name that sorts well: `from_container/established/pod/v4`.
    pub fn name(&self) -> String {
        format!(
            "{}/{}/{}/{}",
            self.program.name(),
            self.case.name(),
            self.to,
            if self.v6 { "v6" } else { "v4" }
        )
    }
}

/// What kind of packet is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    /// The first packet of a connection.
    New,
    /// A packet of a known connection.
    Established,
    /// The first packet of a connection that two policies of 10 identities allow.
    NewPolicySmall,
    /// The first packet of a connection that two policies of 10,000 identities allow.
    NewPolicyLarge,
    /// A packet of a known connection between pods without policy, measured in turns with the next.
    EstablishedOpen,
    /// A packet of a known connection between pods with policies of 10,000 identities.
    EstablishedPolicy,
    /// A TCP packet of a known connection, measured in turns with the next.
    DirectTcp,
    /// A TCP packet of a known connection that was called by a service's address.
    CallTcp,
    /// As [`Case::DirectTcp`], a datagram.
    DirectUdp,
    /// As [`Case::CallTcp`], a datagram.
    CallUdp,
    /// A packet that is dropped.
    Drop,
    /// Any packet, in programs that keep no connections.
    Any,
}

impl Case {
    /// As figures show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::NewPolicySmall => "new-policy-10",
            Self::NewPolicyLarge => "new-policy-10000",
            Self::EstablishedOpen => "established-open",
            Self::EstablishedPolicy => "established-policy",
            Self::DirectTcp => "established-direct-tcp",
            Self::CallTcp => "established-call-tcp",
            Self::DirectUdp => "established-direct-udp",
            Self::CallUdp => "established-call-udp",
            Self::Drop => "drop",
            Self::Any => "any",
        }
    }
}

/// Why nothing could be measured.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// The sandbox or its devices could not be made.
    #[error("make a sandbox with devices (needs root and iproute2)")]
    Sandbox(#[source] io::Error),
    /// The object could not be loaded.
    #[error("load the object to measure")]
    Load(#[from] LoadError),
    /// A table could not be filled.
    #[error("fill a table")]
    Table(#[from] TableError),
    /// The kernel's tick clock could not be read.
    #[error("read the tick clock")]
    Clock(#[from] ClockError),
    /// A run was refused.
    #[error("run a program")]
    Run(#[from] TestRunError),
    /// A packet did not take the way that is to be measured.
    #[error("{figure}: the program returned {verdict}, {wanted} was to be measured")]
    Astray {
        /// Which figure.
        figure: String,
        /// What the program returned.
        verdict: i32,
        /// What it should have returned.
        wanted: i32,
    },
}

/// `TC_ACT_UNSPEC`, `TC_ACT_OK`, `TC_ACT_SHOT`, `TC_ACT_REDIRECT`.
const SKIPPED: i32 = -1;
const DROPPED: i32 = 2;
const REDIRECTED: i32 = 7;

/// Runs per call: a frame with hop limit 255 is forwarded so often.
const REPEAT: u32 = 250;
/// Runs after which the ring of events is read: a small part of what fits it.
const READ_EVERY: usize = 250;
/// Other flows that are in the conntrack tables.
const OTHERS: u16 = 400;

/// Measures every program. `samples`: calls for each figure (a few hundred give a steady median).
///
/// Needs root; runs on a thread of its own in private namespaces and leaves nothing behind.
pub fn all(object: &[u8], samples: usize) -> Result<Vec<Figure>, MeasureError> {
    Sandbox::run(|_| {
        let mut figures = Vec::new();
        for routing in [Routing::Vxlan, Routing::Native] {
            let node = Node::new(object, routing)?;
            for v6 in [false, true] {
                node.measure(v6, samples.max(3), &mut figures)?;
                if routing == Routing::Vxlan {
                    node.measure_policy(v6, samples, &mut figures)?;
                }
            }
        }
        Ok(figures)
    })
    .map_err(MeasureError::Sandbox)?
}

/// Measures packets of calls to services that are translated packet by packet, as [`all`] measures others.
pub fn services(object: &[u8], samples: usize) -> Result<Vec<Figure>, MeasureError> {
    Sandbox::run(|_| {
        let mut figures = Vec::new();
        let node = Node::new(object, Routing::Vxlan)?;
        for v6 in [false, true] {
            node.fill(v6)?;
            node.measure_services(v6, samples, &mut figures)?;
        }
        Ok(figures)
    })
    .map_err(MeasureError::Sandbox)?
}

/// A node with two pods.
struct Node {
    object: Object,
    routing: Routing,
    devices: Devices,
}

#[derive(Clone, Copy)]
struct Devices {
    pods: [u32; 2],
    host: u32,
    overlay: u32,
    underlay: u32,
}

impl Devices {
    fn make() -> Result<Self, MeasureError> {
        let device = |name: &str| -> io::Result<u32> {
            if let Some(index) = ifindex(name) {
                return Ok(index);
            }
            let peer = format!("{name}x");
            let output = Command::new("ip")
                .args(["link", "add", name, "type", "veth", "peer", "name", &peer])
                .output()?;
            ifindex(name)
                .ok_or_else(|| io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
        };
        let all = || -> io::Result<Self> {
            Ok(Self {
                pods: [device("pod0")?, device("pod1")?],
                host: device("host")?,
                overlay: device("overlay")?,
                underlay: device("underlay")?,
            })
        };
        all().map_err(MeasureError::Sandbox)
    }
}

/// Everybody of the measurements, in both families.
#[derive(Clone, Copy)]
enum Who {
    Pod(u8),
    Node,
    Router,
    Remote,
    RemoteNode,
    Service,
}

impl Who {
    fn ip(self, v6: bool) -> IpAddr {
        let v4 = |c: u8, d: u8| IpAddr::V4(Ipv4Addr::new(10, c, 0, d));
        let of_v6 = |net: u16, host: u16| IpAddr::V6(Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, host));
        match (self, v6) {
            (Self::Pod(number), false) => v4(1, 10 + number),
            (Self::Pod(number), true) => of_v6(1, 10 + u16::from(number)),
            (Self::Router, false) => v4(1, 1),
            (Self::Router, true) => of_v6(1, 1),
            (Self::Remote, false) => v4(2, 10),
            (Self::Remote, true) => of_v6(2, 10),
            (Self::Node, false) => v4(9, 1),
            (Self::Node, true) => of_v6(9, 1),
            (Self::RemoteNode, false) => v4(9, 2),
            (Self::RemoteNode, true) => of_v6(9, 2),
            (Self::Service, false) => v4(96, 1),
            (Self::Service, true) => of_v6(96, 1),
        }
    }

    fn end(self, v6: bool, port: u16) -> End {
        End { ip: self.ip(v6), port }
    }
}

/// The addresses of an IP as configuration rows hold them.
fn octets(who: Who) -> ([u8; 4], [u8; 16]) {
    let v4 = match who.ip(false) {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    let v6 = match who.ip(true) {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(_) => [0; 16],
    };
    (v4, v6)
}

const POD_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 2, 0];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 3, 0];

fn mac(mut base: [u8; 6], number: u8) -> [u8; 6] {
    base[5] = number;
    base
}

impl Node {
    fn new(object: &[u8], routing: Routing) -> Result<Self, MeasureError> {
        let devices = Devices::make()?;
        let options = LoadOptions::default().conntrack_rows(65_536).max_entries(IpCache::SPEC.name, 1024);
        let object = Object::load_bytes(object, None, &options)?;
        let ticks_per_s = Clock::calibrate(&object)?.ticks_per_s();
        let (node_v4, node_v6) = octets(Who::Node);
        let (router_v4, router_v6) = octets(Who::Router);
        let config = NodeConfig {
            abi_version: ABI_VERSION,
            revision: 1,
            flags: ConfigFlags::IPV4
                | ConfigFlags::IPV6
                | ConfigFlags::SOURCE_CHECK
                | ConfigFlags::TRACE_EVENTS,
            routing: routing as u8,
            aggregation: 3,
            monitor_flags: 7,
            payload_len: 128,
            ticks_per_s,
            monitor_interval_ticks: 5 * ticks_per_s,
            underlay_ifindex: devices.underlay,
            overlay_ifindex: if routing == Routing::Vxlan { devices.overlay } else { 0 },
            host_ifindex: devices.host,
            underlay_mtu: 1500,
            overlay_mtu: 1450,
            host_identity: Identity::HOST,
            router_v4,
            router_v6,
            node_v4,
            node_v6,
            world_v4: Identity::WORLD_IPV4,
            world_v6: Identity::WORLD_IPV6,
            ..NodeConfig::default()
        };
        typed::<Config>(&object)?.upsert(&0, &config)?;
        let endpoints = typed::<Endpoints>(&object)?;
        let ipcache = typed::<IpCache>(&object)?;
        for v6 in [false, true] {
            for number in 0..2_u8 {
                let entry = EndpointEntry {
                    ifindex: devices.pods[usize::from(number)],
                    id: 100 + u16::from(number),
                    identity: Identity(256 + u32::from(number)),
                    mac: mac(POD_MAC, number),
                    node_mac: mac(GATEWAY_MAC, number),
                    ..EndpointEntry::default()
                };
                endpoints.upsert(&EndpointKey::from_ip(Who::Pod(number).ip(v6)), &entry)?;
            }
            for who in [Who::Node, Who::Router] {
                let entry = EndpointEntry {
                    flags: EndpointFlags::HOST,
                    identity: Identity::HOST,
                    ..EndpointEntry::default()
                };
                endpoints.upsert(&EndpointKey::from_ip(who.ip(v6)), &entry)?;
            }
            // The other node is reached by IPv4, as nearly everywhere; next hops are of the packet's own family.
            let next_hop = Who::RemoteNode.ip(v6 && routing == Routing::Native);
            let len = if v6 { 64 } else { 24 };
            ipcache.upsert(
                &IpCacheKey::prefix(Who::Remote.ip(v6), len),
                &IpCacheEntry::behind(Identity::UNMANAGED, next_hop),
            )?;
        }
        Ok(Self { object, routing, devices })
    }

    /// Other flows come first.
    fn fill(&self, v6: bool) -> Result<(), MeasureError> {
        for port in 0..OTHERS {
            for to in [Who::Pod(1), Who::Remote] {
                let (from, to) = (Who::Pod(0).end(v6, 1000 + port), to.end(v6, 80));
                let frame = udp(mac(GATEWAY_MAC, 0), mac(POD_MAC, 0), from, to);
                self.run(Program::FromContainer, self.devices.pods[0], &frame)?;
            }
        }
        Ok(())
    }

    fn measure(&self, v6: bool, samples: usize, figures: &mut Vec<Figure>) -> Result<(), MeasureError> {
        let (pod, other, far) = (Who::Pod(0), Who::Pod(1), Who::Remote);
        let local = self.devices.pods[0];
        let from_pod =
            |to: Who, port: u16| udp(mac(GATEWAY_MAC, 0), mac(POD_MAC, 0), pod.end(v6, port), to.end(v6, 80));
        let to_pod =
            |from: Who, port: u16| udp(mac(POD_MAC, 9), FAR_MAC, from.end(v6, 80), pod.end(v6, port));
        self.fill(v6)?;
        // Both ends have spoken.
        self.run(Program::FromContainer, local, &from_pod(far, 5000))?;
        let answer = udp(mac(GATEWAY_MAC, 1), mac(POD_MAC, 1), other.end(v6, 80), pod.end(v6, 5000));
        self.run(Program::FromContainer, local, &from_pod(other, 5000))?;
        self.run(Program::FromContainer, self.devices.pods[1], &answer)?;

        let vxlan = self.routing == Routing::Vxlan;
        let away = if vxlan { "tunnel" } else { "network" };
        let mut add = |program, case, to, ns| figures.push(Figure { program, case, v6, to, ns });

        let out = Program::FromContainer;
        let established = self.repeated(out, local, &from_pod(far, 5000), samples, REDIRECTED)?;
        add(out, Case::Established, away, established);
        let known = self.single(out, samples, REDIRECTED, |_| (local, from_pod(far, 5000)))?;
        let port = |sample: usize| u16::try_from(10_000 + sample % 50_000).unwrap_or(u16::MAX);
        let new = self.single(out, samples, REDIRECTED, |sample| (local, from_pod(far, port(sample))))?;
        add(out, Case::New, away, new - known + established);

        let (arrival, device) = if vxlan {
            (Program::FromOverlay, self.devices.overlay)
        } else {
            (Program::FromNetdev, self.devices.underlay)
        };
        add(
            arrival,
            Case::Established,
            "pod",
            self.repeated(arrival, device, &to_pod(far, 5000), samples, REDIRECTED)?,
        );
        if !vxlan {
            // The rest does not depend on the routing.
            return Ok(());
        }

        let established = self.repeated(out, local, &from_pod(other, 5000), samples, REDIRECTED)?;
        add(out, Case::Established, "pod", established);
        let known = self.single(out, samples, REDIRECTED, |_| (local, from_pod(other, 5000)))?;
        let new = self.single(out, samples, REDIRECTED, |sample| (local, from_pod(other, port(sample))))?;
        add(out, Case::New, "pod", new - known + established);
        let forged = udp(mac(GATEWAY_MAC, 0), mac(POD_MAC, 0), Who::RemoteNode.end(v6, 1), other.end(v6, 80));
        add(out, Case::Drop, "nowhere", self.repeated(out, local, &forged, samples, DROPPED)?);

        let from_node = udp(mac(POD_MAC, 0), mac(GATEWAY_MAC, 0), Who::Node.end(v6, 7), pod.end(v6, 5000));
        self.run(Program::ToContainer, local, &from_node)?;
        add(
            Program::ToContainer,
            Case::Established,
            "pod",
            self.repeated(Program::ToContainer, local, &from_node, samples, 0)?,
        );
        for (to, name) in [(far, "tunnel"), (pod, "pod")] {
            let frame = udp(FAR_MAC, FAR_MAC, Who::Router.end(v6, 7), to.end(v6, 5000));
            let ns = self.repeated(Program::FromHost, self.devices.host, &frame, samples, REDIRECTED)?;
            add(Program::FromHost, Case::Any, name, ns);
        }
        let plain = udp(FAR_MAC, FAR_MAC, Who::Node.end(v6, 7), Who::RemoteNode.end(v6, 5000));
        for (program, device) in [
            (Program::FromNetdev, self.devices.underlay),
            (Program::ToNetdev, self.devices.underlay),
            (Program::ToHost, self.devices.host),
        ] {
            // A packet of the node's own, as the outer packets of the tunnel are.
            let frame = if program == Program::FromNetdev {
                udp(FAR_MAC, FAR_MAC, Who::RemoteNode.end(v6, 7), Who::Node.end(v6, 5000))
            } else {
                plain.clone()
            };
            add(program, Case::Any, "stack", self.repeated(program, device, &frame, samples, SKIPPED)?);
        }
        Ok(())
    }

    fn run(&self, program: Program, ifindex: u32, frame: &[u8]) -> Result<i32, MeasureError> {
        let context = Context { ifindex, ..Context::default() };
        Ok(self.object.test_run(program.name(), &TestRun::new(frame).context(context))?.verdict.cast_signed())
    }

    /// The median of many calls that run the program many times.
    fn repeated(
        &self,
        program: Program,
        ifindex: u32,
        frame: &[u8],
        samples: usize,
        wanted: i32,
    ) -> Result<f64, MeasureError> {
        let run = TestRun::new(frame).context(Context { ifindex, ..Context::default() }).repeat(REPEAT);
        let mut times = Vec::with_capacity(samples);
        for _ in 0..samples {
            let result = self.object.test_run(program.name(), &run)?;
            straight(program, result.verdict.cast_signed(), wanted)?;
            times.push(result.duration.as_secs_f64() * 1e9);
        }
        Ok(median(times))
    }

    /// The median of many calls that run the program once, each on a frame of its own.
    fn single(
        &self,
        program: Program,
        samples: usize,
        wanted: i32,
        frame: impl Fn(usize) -> (u32, Vec<u8>),
    ) -> Result<f64, MeasureError> {
        // First packets are told; as on a node, somebody reads it.
        let mut events = EventReader::of(&self.object)?;
        let mut times = Vec::new();
        for sample in 0..samples * 10 {
            if sample % READ_EVERY == 0 {
                while events.next_bytes(|_| ()).is_some() {}
            }
            let (ifindex, frame) = frame(sample);
            let run = TestRun::new(&frame).context(Context { ifindex, ..Context::default() });
            let result = self.object.test_run(program.name(), &run)?;
            straight(program, result.verdict.cast_signed(), wanted)?;
            times.push(result.duration.as_secs_f64() * 1e9);
        }
        Ok(median(times))
    }
}

fn straight(program: Program, verdict: i32, wanted: i32) -> Result<(), MeasureError> {
    if verdict == wanted {
        return Ok(());
    }
    Err(MeasureError::Astray { figure: program.name().to_owned(), verdict, wanted })
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn typed<T: dataplane_abi::Table>(object: &Object) -> Result<TypedTable<T>, TableError> {
    object.table(T::SPEC.name)?.try_clone()?.typed()
}
