//! The wires between the nodes, and what goes wrong on them.

use std::collections::BTreeMap;
use std::time::Duration;

use sim_net::Frame;
use sim_scenario::model::LinkFault;
use sim_scenario::rng::Rng;

use crate::queue::NodeId;
use crate::view::View;

/// How long a frame takes from port to port when nothing is wrong.
const LATENCY: Duration = Duration::from_micros(40);
/// Frames of one way come at least this far apart, so that they keep their order.
const GAP: Duration = Duration::from_nanos(100);
/// How long a frame that others shall overtake is held back.
const HOLD: Duration = Duration::from_millis(3);

/// Where a wire ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Port {
    /// The underlay device of a node.
    Node(NodeId),
    /// The router's end on the nodes' side.
    RouterInside,
    /// The router's end on the outside.
    RouterOutside,
    /// A server outside: 0 or 1.
    Server(usize),
}

impl Port {
    const fn is_inside(self) -> bool {
        matches!(self, Self::Node(_) | Self::RouterInside)
    }
}

/// What became of a frame on its way to one port.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Passage {
    /// It arrives then.
    Arrives {
        /// Where.
        at: Port,
        /// When.
        when: Duration,
        /// What.
        frame: Frame,
        /// Some of its bytes were changed.
        spoiled: bool,
    },
    /// It does not arrive.
    Lost {
        /// Where it would have.
        at: Port,
        /// Why, in a word.
        why: &'static str,
    },
}

/// Two segments, of the nodes and of the outside, each like a switch that knows every address.
#[derive(Debug)]
pub(crate) struct Fabric {
    ports: BTreeMap<Port, [u8; 6]>,
    faults: BTreeMap<NodeId, Vec<(u64, LinkFault)>>,
    partitions: BTreeMap<NodeId, Vec<u64>>,
    last: BTreeMap<(Port, Port), Duration>,
    mtu: u32,
    rng: Rng,
    /// Random numbers of their own, so that they do not shift anything else.
    of_lengths: Rng,
}

impl Fabric {
    /// Wires for frames with IP packets of up to `mtu` bytes.
    pub(crate) fn new(mtu: u32, seed: u64) -> Self {
        Self {
            ports: BTreeMap::new(),
            faults: BTreeMap::new(),
            partitions: BTreeMap::new(),
            last: BTreeMap::new(),
            mtu,
            rng: Rng::stream(seed, "fabric", 0),
            of_lengths: Rng::stream(seed, "lengths on wires", 0),
        }
    }

    /// Connects a port.
    pub(crate) fn connect(&mut self, port: Port, mac: [u8; 6]) {
        self.ports.insert(port, mac);
    }

    /// A link fault begins; `id` names it.
    pub(crate) fn begin(&mut self, node: NodeId, id: u64, fault: LinkFault) {
        self.faults.entry(node).or_default().push((id, fault));
    }

    /// A partition begins.
    pub(crate) fn part(&mut self, node: NodeId, id: u64) {
        self.partitions.entry(node).or_default().push(id);
    }

    /// The fault of that name ends for a node.
    pub(crate) fn end(&mut self, node: NodeId, id: u64) {
        self.faults.entry(node).or_default().retain(|(fault, _)| *fault != id);
        self.partitions.entry(node).or_default().retain(|partition| *partition != id);
    }

    /// Sends a frame from a port to all that it is for.
    pub(crate) fn send(&mut self, now: Duration, from: Port, frame: &Frame) -> Vec<Passage> {
        let Some(to) = frame.bytes.first_chunk::<6>() else { return Vec::new() };
        let group = to[0] & 1 != 0;
        let ends: Vec<Port> = self
            .ports
            .iter()
            .filter(|(port, mac)| {
                **port != from && port.is_inside() == from.is_inside() && (group || *mac == to)
            })
            .map(|(port, _)| *port)
            .collect();
        ends.into_iter().flat_map(|end| self.pass(now, from, end, frame)).collect()
    }

    fn pass(&mut self, now: Duration, from: Port, at: Port, frame: &Frame) -> Vec<Passage> {
        let lost = |why| vec![Passage::Lost { at, why }];
        if frame.bytes.len() > self.mtu as usize + 14 {
            return lost("larger than the wire's MTU");
        }
        let mut frame = frame.clone();
        let mut delay = LATENCY;
        let (mut copies, mut held, mut spoiled) = (1, false, false);
        let is_cut = |port: &Port| match port {
            Port::Node(node) => self.partitions.get(node).is_some_and(|of| !of.is_empty()),
            _ => false,
        };
        let between_nodes = matches!((from, at), (Port::Node(_), Port::Node(_)));
        if between_nodes && (is_cut(&from) || is_cut(&at)) {
            return lost("partition");
        }
        for node in [from, at].into_iter().filter_map(|port| match port {
            Port::Node(node) => Some(node),
            _ => None,
        }) {
            for (_, fault) in self.faults.get(&node).map(Vec::as_slice).unwrap_or_default() {
                if self.rng.chance(fault.loss) {
                    return lost("lost on the wire");
                }
                if fault.mtu.is_some_and(|mtu| frame.bytes.len() > usize::from(mtu) + 14) {
                    return lost("larger than the faulty wire takes");
                }
                if self.rng.chance(fault.duplicate) {
                    copies += 1;
                }
                held |= self.rng.chance(fault.reorder);
                if self.rng.chance(fault.corrupt) && frame.bytes.len() > 14 {
                    let mut at = 14 + self.rng.index(frame.bytes.len() - 14);
                    if self.of_lengths.chance(LENGTHS) {
                        at = length_at(&frame.bytes).unwrap_or(at);
                    }
                    if is_unprotected(&frame.bytes, at) {
                        return lost("spoiled on the wire");
                    }
                    spoiled = true;
                    frame.bytes[at] ^= 1 << self.rng.below(8);
                }
                delay += fault.delay;
                if !fault.jitter.is_zero() {
                    delay += Duration::from_nanos(self.rng.below(nanos(fault.jitter) + 1));
                }
            }
        }
        let mut passages = Vec::new();
        for _ in 0..copies {
            let mut when = now + delay;
            if held {
                when += HOLD;
            } else {
                let last = self.last.entry((from, at)).or_default();
                when = when.max(*last + GAP);
                *last = when;
            }
            passages.push(Passage::Arrives { at, when, frame: frame.clone(), spoiled });
        }
        passages
    }
}

/// `EtherType` of ARP.
const ARP: [u8; 2] = [0x08, 0x06];
/// Where the header of a VXLAN packet lies behind those of Ethernet, IP and UDP.
const VXLAN_V4: std::ops::Range<usize> = 42..50;
const VXLAN_V6: std::ops::Range<usize> = 62..70;

/// Of the bytes that go wrong so many are in the length of a packet: what then lies behind its end looks like a part of it.
const LENGTHS: f64 = 0.25;

/// Where the lower byte of the length is of an IP packet in a frame, of that in the tunnel if it is in one.
fn length_at(frame: &[u8]) -> Option<usize> {
    let tunnel = View::of(frame).filter(View::is_for_tunnel);
    let ethernet = tunnel.map_or(0, |view| if view.src.is_ipv4() { VXLAN_V4 } else { VXLAN_V6 }.end);
    let at = match *frame.get(ethernet + 12..ethernet + 14)? {
        [0x08, 0x00] => ethernet + 17,
        [0x86, 0xDD] => ethernet + 19,
        _ => return None,
    };
    (at < frame.len()).then_some(at)
}

/// Whether no checksum but that of the link, which real ones have, would tell that a byte is wrong: ARP has none, and stacks here
/// keep what they have learned; the tunnel's header has none, and its identity is believed.
fn is_unprotected(frame: &[u8], at: usize) -> bool {
    let tunnel = || View::of(frame).filter(View::is_for_tunnel);
    frame.get(12..14) == Some(&ARP)
        || tunnel().is_some_and(|view| if view.src.is_ipv4() { VXLAN_V4 } else { VXLAN_V6 }.contains(&at))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
