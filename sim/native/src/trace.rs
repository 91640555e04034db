//! What is known of packets that are, or were just, under way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use dataplane_abi::program::Program;
use dataplane_core::Verdict;
use sim_net::{Frame, StackDrop};

use crate::kubelet::SandboxId;
use crate::queue::NodeId;
use crate::view::{View, digest};

/// Packets that are remembered.
const PACKETS: usize = 8192;
/// Frames that are kept for a capture.
const FRAMES: usize = 4096;

/// Who made a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A pod.
    Pod(NodeId, SandboxId),
    /// The stack of a node.
    Node(NodeId),
}

/// Something that happened to a packet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Hop {
    /// A program ran.
    Program(Program, Verdict),
    /// It went into the pod behind that link.
    Delivered(u32),
    /// It ended in the node's stack.
    Local,
    /// It came from the wire.
    Arrived,
    /// It went onto the wire.
    Wire,
    /// It was at a link that is not there (any more).
    NoLink,
    /// The stack had no use or no way for it.
    StackDrop(StackDrop),
}

impl Hop {
    fn number(&self) -> u64 {
        match self {
            Self::Program(program, verdict) => {
                let verdict = match verdict {
                    Verdict::Pass => 0,
                    Verdict::Skip => 1,
                    Verdict::Drop(reason) => 256 + *reason as u64,
                    Verdict::Peer { ifindex } => 0x1_0000 + u64::from(*ifindex),
                    Verdict::Egress { ifindex } => 0x2_0000 + u64::from(*ifindex),
                    Verdict::Ingress { ifindex } => 0x3_0000 + u64::from(*ifindex),
                    Verdict::Tunnel { ifindex } => 0x4_0000 + u64::from(*ifindex),
                    Verdict::Neighbour { ifindex, .. } => 0x5_0000 + u64::from(*ifindex),
                };
                (*program as u64) << 32 | verdict
            }
            Self::Delivered(ifindex) => 1 << 40 | u64::from(*ifindex),
            Self::Local => 2 << 40,
            Self::Arrived => 3 << 40,
            Self::Wire => 4 << 40,
            Self::NoLink => 5 << 40,
            Self::StackDrop(why) => 6 << 40 | digest(0, format!("{why:?}").as_bytes()) >> 32,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Program(program, Verdict::Drop(reason)) => {
                format!("{}: drop, {} ({})", program.name(), reason.text(), *reason as u8)
            }
            Self::Program(program, verdict) => format!("{}: {verdict:?}", program.name()),
            Self::Delivered(ifindex) => format!("into the pod behind link {ifindex}"),
            Self::Local => "into the node's stack, where it ends".to_owned(),
            Self::Arrived => "in from the wire".to_owned(),
            Self::Wire => "out onto the wire".to_owned(),
            Self::NoLink => "to a link that is not there".to_owned(),
            Self::StackDrop(why) => format!("dropped by the stack: {why:?}"),
        }
    }
}

/// What is known of a packet.
#[derive(Debug, Clone)]
pub(crate) struct Passport {
    /// When it was made.
    pub(crate) born: Duration,
    /// Who made it.
    pub(crate) origin: Origin,
    /// The packet as it was made, if it is an IP packet.
    pub(crate) view: Option<View>,
    /// Its source is an address of who made it, and it is none that only a tunnel may bring.
    pub(crate) honest: bool,
    /// Its link layer source is that of the pod that made it.
    pub(crate) own_mac: bool,
    /// A wire has changed it.
    pub(crate) spoiled: bool,
    /// What it was between client and backend, since it comes from a service.
    pub(crate) untold: Option<View>,
    /// Where it was.
    pub(crate) way: Vec<(Duration, NodeId, Hop)>,
}

impl Passport {
    /// Nodes that it was on.
    pub(crate) fn nodes(&self) -> usize {
        let mut nodes: Vec<NodeId> = self.way.iter().map(|(_, n, _)| *n).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.len()
    }

    /// Its way, a line a stage.
    pub(crate) fn describe(&self, name: impl Fn(NodeId) -> String) -> Vec<String> {
        let line = |(at, n, hop): &(Duration, NodeId, Hop)| {
            format!("{:>14} {:<10} {}", moment(*at), name(*n), hop.text())
        };
        self.way.iter().map(line).collect()
    }
}

/// A moment of virtual time, for people.
pub(crate) fn moment(at: Duration) -> String {
    format!("{:.6} s", at.as_secs_f64())
}

/// A frame as it was seen somewhere.
#[derive(Debug, Clone)]
pub(crate) struct Captured {
    /// When.
    pub(crate) at: Duration,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

/// Packets, their ways, and the digest of all that happened.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    packets: BTreeMap<u64, Passport>,
    frames: VecDeque<Captured>,
    /// Captures that were asked for, by place.
    pub(crate) taps: BTreeMap<String, Vec<Captured>>,
    hash: u64,
    notes: u64,
}

impl Trace {
    /// Adds to the digest of the run.
    pub(crate) fn mix(&mut self, now: Duration, n: NodeId, what: u64) {
        let ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        for value in [ns, n as u64, what] {
            // The finalizer of splitmix64 (Steele, Lea, Flood 2014) over a running sum.
            let mut z = (self.hash ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            self.hash = z ^ (z >> 31);
        }
        self.notes += 1;
    }

    /// The digest, with the number of things in it.
    pub(crate) fn hash(&self) -> String {
        format!("{:016x}-{}", self.hash, self.notes)
    }

    /// A packet is made.
    pub(crate) fn born(&mut self, id: u64, passport: Passport) {
        self.packets.insert(id, passport);
        if self.packets.len() > PACKETS {
            self.packets.pop_first();
        }
    }

    /// Something happens to it.
    pub(crate) fn hop(&mut self, id: u64, now: Duration, n: NodeId, hop: Hop) {
        self.mix(now, n, hop.number() ^ id << 48);
        if let Some(passport) = self.packets.get_mut(&id) {
            passport.way.push((now, n, hop));
        }
    }

    /// What is known of a packet.
    pub(crate) fn packet(&self, id: u64) -> Option<&Passport> {
        self.packets.get(&id)
    }

    /// It is translated: from now on this is what it shall be, and with `untold` what it was before.
    pub(crate) fn turn(&mut self, id: u64, mut view: View, untold: Option<View>) {
        if let Some(passport) = self.packets.get_mut(&id) {
            view.hops = passport.view.as_ref().map_or(view.hops, |born| born.hops);
            passport.view = Some(view);
            passport.untold = untold;
        }
    }

    /// A wire changes it.
    pub(crate) fn spoil(&mut self, id: u64) {
        if let Some(passport) = self.packets.get_mut(&id) {
            passport.spoiled = true;
        }
    }

    /// A frame is seen.
    pub(crate) fn capture(&mut self, now: Duration, frame: &Frame) {
        if self.frames.len() >= FRAMES {
            self.frames.pop_front();
        }
        self.frames.push_back(Captured { at: now, bytes: frame.bytes.clone() });
    }

    /// A frame is seen at a place that somebody captures at.
    pub(crate) fn tap(&mut self, now: Duration, place: &str, bytes: &[u8]) {
        if let Some(tap) = self.taps.get_mut(place) {
            tap.push(Captured { at: now, bytes: bytes.to_vec() });
        }
    }

    /// The last frames that were seen.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &Captured> {
        self.frames.iter()
    }
}
