//! Random conversations: two ends, any TCP flags, datagrams, errors about them, silence, revisions, intruders and restarts of
//! tunnels, each packet through the program that it would meet. Beside them runs a model of what a row may say.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dataplane_abi::conntrack::{CtEntry, CtState, WayKind};
use dataplane_abi::{DropReason, Identity};
use dataplane_core::Verdict;
use dataplane_core::conntrack::{begins, next_state};
use dataplane_native::craft::Craft;

use crate::world::{A1, A2, B1, FAMILIES, HZ, Pod, World};
use crate::{Random, settings};

/// Who has the ends of a conversation, beside A1: a pod of this node, or one behind the tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peer {
    Here,
    Behind,
}

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Tcp,
    Udp,
    Echo,
}

/// One conversation and what its row shall say.
struct Conversation {
    family: u8,
    peer: Peer,
    protocol: Protocol,
    /// Port, or identifier, of A1.
    port: u16,
    row: Option<Model>,
}

/// The row as the documentation has it.
#[derive(Clone, Copy, Debug)]
struct Model {
    /// A1 began.
    by_a1: bool,
    state: CtState,
    /// Flags seen and packets counted, of the one who began and of the other.
    flags: [u8; 2],
    packets: [u64; 2],
    /// Ticks of the last packet.
    seen: u64,
    /// Identity of the peer: its own, or what the tunnel said when the connection was judged last.
    peer: u32,
    revision: u32,
}

/// A packet of a conversation.
#[derive(Clone, Copy, Debug)]
struct Step {
    from_a1: bool,
    flags: u8,
    /// Key of the tunnel, where it comes out of one.
    key: u32,
}

impl Conversation {
    fn peer(&self) -> &'static Pod {
        if self.peer == Peer::Here { &A2 } else { &B1 }
    }

    fn ips(&self) -> (IpAddr, IpAddr) {
        (A1.ip(self.family), self.peer().ip(self.family))
    }

    fn frame(&self, step: Step) -> Vec<u8> {
        let (sender, receiver) = if step.from_a1 { (&A1, self.peer()) } else { (self.peer(), &A1) };
        let craft =
            Craft::new(sender.ip(self.family), receiver.ip(self.family)).macs(sender.mac, sender.gateway);
        let (sport, dport) = if step.from_a1 { (self.port, 80) } else { (80, self.port) };
        match self.protocol {
            Protocol::Tcp => craft.tcp(sport, dport, step.flags, b"x"),
            Protocol::Udp => craft.udp(sport, dport, b"x"),
            // Only A1 asks; the identifier is its port.
            Protocol::Echo => craft.echo(step.from_a1, self.port, 1, b"x"),
        }
    }

    fn found(&self, world: &World) -> Option<CtEntry> {
        let (a, b) = self.ips();
        match self.protocol {
            Protocol::Tcp => world.ct(a, b, self.port, 80, 6),
            Protocol::Udp => world.ct(a, b, self.port, 80, 17),
            Protocol::Echo => world.ct(a, b, self.port, 0, if self.family == 4 { 1 } else { 58 }),
        }
    }

    /// Sends the packet through the program that it meets.
    fn send(&self, world: &World, step: Step) -> Verdict {
        let bytes = self.frame(step);
        if step.from_a1 {
            world.pod_sends(&A1, &bytes).0
        } else if self.peer == Peer::Here {
            world.pod_sends(&A2, &bytes).0
        } else {
            world.tunnel_brings(&bytes, step.key).0
        }
    }

    fn expected(&self, step: Step) -> Verdict {
        match (step.from_a1, self.peer) {
            (true, Peer::Here) => Verdict::Peer { ifindex: A2.ifindex },
            (true, Peer::Behind) => Verdict::Tunnel { ifindex: crate::OVERLAY },
            (false, _) => Verdict::Peer { ifindex: A1.ifindex },
        }
    }

    /// What the packet makes of the row.
    fn follow(&mut self, step: Step, now: u64, revision: u32) {
        let tcp = self.protocol == Protocol::Tcp;
        let over = |row: &Model| {
            now - row.seen > u64::from(row.state.timeout_s()) * u64::from(HZ)
                || (tcp && begins(step.flags) && row.state == CtState::Closing)
        };
        let silent = self.row.is_some_and(|row| now - row.seen > u64::from(HZ) * 10);
        let judged = silent || self.row.is_none_or(|row| over(&row) || row.revision != revision);
        // What the peer is: a pod here by its row, one behind the tunnel by the key, if that says anything; else by the ipcache,
        // which knows less than the row of a connection that the peer began.
        let knows = |row: &Model| !judged || (step.from_a1 && !row.by_a1 && !over(row));
        let peer = match (self.peer, step.from_a1, self.row.filter(knows)) {
            (_, _, Some(row)) => row.peer,
            (Peer::Here, _, None) => A2.identity,
            (Peer::Behind, false, None) if step.key != 0 => step.key,
            (Peer::Behind, _, None) => Identity::UNMANAGED.0,
        };
        let flags = if tcp { step.flags } else { 0 };
        let mut row = self.row.filter(|row| !over(row)).unwrap_or(Model {
            by_a1: step.from_a1,
            state: match tcp {
                false => CtState::Any,
                true if flags & 4 != 0 => CtState::Closing,
                true if flags & 2 != 0 => CtState::Syn,
                true => CtState::Established,
            },
            flags: [0; 2],
            packets: [0; 2],
            seen: now,
            peer,
            revision,
        });
        let fresh = row.packets == [0; 2];
        let (own, other) = if step.from_a1 == row.by_a1 { (0, 1) } else { (1, 0) };
        row.flags[own] |= flags;
        if fresh && self.protocol == Protocol::Echo {
            row.flags[own] = match (self.family, step.from_a1) {
                (4, true) => 8,
                (4, false) => 0,
                (_, true) => 128,
                (_, false) => 129,
            };
        }
        row.packets[own] += 1;
        if tcp && !fresh {
            let next = next_state(row.state as u8, flags, row.flags[own], row.flags[other]);
            row.state = CtState::from_number(next).expect("a state");
        }
        (row.seen, row.peer, row.revision) = (now, peer, revision);
        self.row = Some(row);
    }

    fn check(&self, world: &World, context: &dyn Fn() -> String) {
        let (found, model) = (self.found(world), self.row);
        let (Some(found), Some(model)) = (found, model) else {
            assert_eq!(found.is_some(), model.is_some(), "{}", context());
            return;
        };
        let (identities, ways) = (found.dirs.map(|dir| dir.identity.0), found.dirs.map(|dir| dir.way.kind));
        let away = if self.peer == Peer::Here { WayKind::Local } else { WayKind::Tunnel } as u8;
        let (mut whose, mut where_to) = ([A1.identity, model.peer], [away, WayKind::Local as u8]);
        if !model.by_a1 {
            whose.reverse();
            where_to.reverse();
        }
        assert_eq!(CtState::from_number(found.state), Some(model.state), "state: {}", context());
        assert_eq!(found.dirs.map(|dir| dir.packets), model.packets, "packets: {}", context());
        assert_eq!(found.dirs.map(|dir| dir.tcp_flags), model.flags, "flags: {}", context());
        assert_eq!(found.dirs.map(|dir| dir.revision), [model.revision; 2], "revision: {}", context());
        assert_eq!((identities, ways), (whose, where_to), "ends: {}", context());
    }
}

fn conversations(random: &mut Random) -> Vec<Conversation> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for peer in [Peer::Here, Peer::Behind] {
            for protocol in [Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Echo] {
                let port = 1024 + u16::from(random.byte()) * 8 + u16::try_from(all.len() % 8).unwrap_or(0);
                all.push(Conversation { family, peer, protocol, port, row: None });
            }
        }
    }
    all
}

/// What must not get in: a stranger's packet into a living or a new conversation. Nothing of it may show in a row.
fn intrude(random: &mut Random, world: &World, talk: &Conversation, context: &dyn Fn() -> String) {
    let step = Step { from_a1: true, flags: random.byte() & 0x1F, key: 300 };
    let bytes = talk.frame(step);
    let verdict = match random.below(3) {
        // Another pod sends it.
        0 => world.pod_sends(&A2, &bytes).0,
        // It comes out of the tunnel with an address of this node. A row would let it in, as it would the pod's own:
        // whoever can write to the tunnel is a node. Without one it is refused.
        1 if talk.row.is_none() => world.tunnel_brings(&bytes, 300).0,
        // A fresh port and a MAC that is not the pod's.
        _ => {
            let forged = Conversation { port: 60_000, row: None, ..*talk };
            let mut bytes = forged.frame(step);
            bytes[11] ^= 0xFF;
            world.pod_sends(&A1, &bytes).0
        }
    };
    let refused = matches!(verdict, Verdict::Drop(DropReason::InvalidSourceIp | DropReason::UnknownTarget));
    assert!(refused, "{verdict:?}: {}", context());
}

#[test]
fn any_conversation_keeps_the_row_of_the_model() {
    let (seconds, seed) = settings();
    let mut random = Random(seed ^ 0x636f_6e76);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut rounds, mut packets) = (0_u64, 0_u64);
    while rounds == 0 || Instant::now() < end {
        rounds += 1;
        let mut world = World::vxlan();
        let mut talks = conversations(&mut random);
        let mut story = Vec::new();
        for _ in 0..400 {
            let at = random.below(talks.len());
            match random.below(40) {
                0 => {
                    // From less than a tick to more than the longest timeout.
                    let seconds = [0, 1, 8, 12, 58, 65, 4000, 9000][random.below(8)];
                    world.seconds(seconds);
                    story.push(format!("{seconds} s pass"));
                    continue;
                }
                1 => {
                    world.revise();
                    story.push("revision".to_owned());
                    continue;
                }
                2 | 3 => {
                    let context = || format!("seed {seed}, round {rounds}, intruder after {story:#?}");
                    intrude(&mut random, &world, &talks[at], &context);
                    continue;
                }
                _ => {}
            }
            let talk = &mut talks[at];
            // Answers of echo need a question: an answer without one begins nothing that the model follows.
            let from_a1 = random.below(2) == 0 || (talk.protocol == Protocol::Echo && talk.row.is_none());
            let flags = [2, 18, 16, 16, 16, 24, 17, 4, 20, random.byte() & 0x3F][random.below(10)];
            let key = [0, 300, 300, 4242][random.below(4)];
            let step = Step { from_a1, flags, key };
            let (now, revision) = (world.native.clock().ticks, world.config.revision);
            story.push(format!("{:?} {:?} v{} {step:?}", talk.protocol, talk.peer, talk.family));
            let verdict = talk.send(&world, step);
            talk.follow(step, now, revision);
            packets += 1;
            let context = || format!("seed {seed}, round {rounds}, after {story:#?}");
            assert_eq!(verdict, talk.expected(step), "{}", context());
            talk.check(&world, &context);
            if packets.is_multiple_of(64) {
                world.events();
            }
        }
        // Nobody's row was changed by what others said.
        let context = || format!("seed {seed}, round {rounds}, at the end of {story:#?}");
        for talk in &talks {
            talk.check(&world, &context);
        }
    }
    println!("{packets} packets in {rounds} rounds, seed {seed}");
}
