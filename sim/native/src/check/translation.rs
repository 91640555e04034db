//! Services packet by packet: a call goes to an endpoint that the objects allow, stays with it, and is answered by whom was called;
//! and nothing else of a packet is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dataplane_abi::program::Program;
use dataplane_core::Verdict;
use sim_net::Frame;
use sim_oracle::Protocol;
use sim_scenario::model::Translation;

use super::conntrack::End;
use crate::queue::NodeId;
use crate::view::{TCP, UDP, View, untranslated};
use crate::world::World;

/// What stands for a pod that speaks with itself through a service.
pub(super) const LOOPBACK: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 42, 1)), IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 0x2a01))];

/// Client and service of a conversation on a node.
type Talk = (NodeId, u8, End, End);

/// Who speaks with services, and who answers.
#[derive(Debug, Default)]
pub(crate) struct Talks {
    /// By who answers at present.
    now: BTreeMap<Talk, Answers>,
    /// With all who ever did: what they sent may come late.
    ever: BTreeSet<(Talk, End, IpAddr)>,
}

/// Who answers.
#[derive(Debug, Clone, Copy)]
struct Answers {
    backend: End,
    /// Who calls, as the backend sees it.
    caller: IpAddr,
}

const fn begins(view: &View) -> bool {
    view.proto == TCP && view.flags & 0x12 == 2
}

const fn place(end: End) -> SocketAddr {
    SocketAddr::new(end.0, end.1)
}

const fn protocol(proto: u8) -> Protocol {
    if proto == UDP { Protocol::Udp } else { Protocol::Tcp }
}

impl World {
    /// Whether calls are translated packet by packet.
    pub(super) fn translates_packets(&self) -> bool {
        self.cluster.kube_proxy_replacement && self.cluster.service_translation != Translation::Socket
    }

    /// A program has run on a packet. Whether conntrack knows the packet as it is afterwards: it goes to a backend now.
    pub(crate) fn check_translation(
        &mut self,
        n: NodeId,
        program: Program,
        id: u64,
        before: &[u8],
        after: &[u8],
        verdict: &Verdict,
    ) -> bool {
        let Some((was, is)) = View::of(before).zip(View::of(after)) else { return false };
        if was.is_icmp_error() {
            self.check_error(n, id, &was, is);
            return false;
        }
        if !matches!(was.proto, TCP | UDP) {
            return false;
        }
        let spoiled = self.trace.packet(id).is_some_and(|passport| passport.spoiled);
        let source = was.src != is.src || ports_of(&was, 0) != ports_of(&is, 0);
        let destination = was.dst != is.dst || ports_of(&was, 1) != ports_of(&is, 1);
        // Of a pod that speaks with itself both ends change, either way.
        let calls = destination && !LOOPBACK.contains(&was.dst);
        if !source && !destination {
            if self.translates_packets() && !spoiled {
                self.check_untouched(n, program, id, &was, verdict);
            }
            return false;
        }
        if !self.translates_packets() {
            self.violate_packet("integrity", id, "a packet is translated and nobody asked for it");
            return false;
        }
        if untranslated(before) != untranslated(after) {
            self.violate_packet("integrity", id, "more of a packet is translated than its ends");
            return false;
        }
        if calls {
            self.check_called(n, program, id, &was, &is);
            self.trace.turn(id, is, None);
            return true;
        }
        self.check_answered(n, id, &was, &is);
        self.trace.turn(id, is, Some(was));
        false
    }

    /// A packet was sent to a backend.
    fn check_called(&mut self, n: NodeId, program: Program, id: u64, was: &View, is: &View) {
        if program != Program::FromContainer {
            let message = format!("{} sends a packet to a backend", program.name());
            return self.violate_packet("service", id, &message);
        }
        if self.check.was_full.contains(&n) || self.trace.packet(id).is_some_and(|passport| passport.spoiled)
        {
            return;
        }
        let Some((client, called, _)) = self.check.connections.ends(n, was) else { return };
        self.check.connections.forget(n, [client, called], was.proto);
        let key = (n, was.proto, client, called);
        let now = self.ticks(n);
        let known = self.check.talks.now.get(&key).copied();
        let backend = (is.dst, is.ports.map_or(0, |(_, port)| port));
        let stands = known.filter(|known| {
            // Pods that speak with themselves are not followed.
            if LOOPBACK.contains(&known.caller) {
                return known.backend == backend;
            }
            let ends = [(known.caller, client.1), known.backend];
            self.check.connections.lives(n, ends, was.proto, now, begins(was))
        });
        if was.later_fragment {
            if stands.is_some_and(|stands| stands.backend.0 != is.dst) && !LOOPBACK.contains(&is.src) {
                self.violate_packet("service", id, "a fragment goes to another backend than the first");
            }
            return;
        }
        let stays = stands.is_some_and(|stands| stands.backend == backend);
        if stays && was.proto == TCP {
            return;
        }
        self.look_for_rest();
        let since = self.check.views.rest();
        if stays {
            if !self.check.services.is_named(place(called), place(backend), since) {
                let message = format!(
                    "datagrams of {} to {} go on to {}, which is no endpoint of it any more",
                    place(client),
                    place(called),
                    place(backend)
                );
                self.violate_packet("service", id, &message);
            }
            return;
        }
        let node = self.nodes[n].name.clone();
        if let Some(stands) = stands {
            let is_kept = self.check.services.is_kept(place(called), place(stands.backend), since);
            if (was.proto == TCP && !begins(was)) || (is_kept && !self.nodes[n].troubled) {
                let message = format!(
                    "what {} says to {} went to {}, and now goes to {}",
                    place(client),
                    place(called),
                    place(stands.backend),
                    place(backend)
                );
                return self.violate_packet("service", id, &message);
            }
        }
        let views = &self.check.services;
        if let Some(possible) = views.possible(&node, place(called), protocol(was.proto), since)
            && !possible.backends.contains(&place(backend))
        {
            let message = format!(
                "a packet on {node} to {} goes to {}, may be: {possible:?}",
                place(called),
                place(backend)
            );
            return self.violate_packet("service", id, &message);
        }
        self.check.talks.now.insert(key, Answers { backend, caller: is.src });
        self.check.talks.ever.insert((key, backend, is.src));
    }

    /// A packet was made one of a service.
    fn check_answered(&mut self, n: NodeId, id: u64, was: &View, is: &View) {
        if self.check.was_full.contains(&n) || self.trace.packet(id).is_some_and(|passport| passport.spoiled)
        {
            return;
        }
        let Some((backend, caller, _)) = self.check.connections.ends(n, was) else { return };
        let port = is.ports.map(|(port, _)| port);
        let is_known = self.check.talks.ever.iter().any(|((m, proto, client, called), other, as_whom)| {
            (*m, *proto, *client) == (n, was.proto, (is.dst, caller.1))
                && called.0 == is.src
                && port.is_none_or(|port| port == called.1)
                && (*other, *as_whom) == (backend, caller.0)
        });
        if !is_known {
            let message = format!("what {} sends is taken for an answer of {}", place(backend), is.src);
            self.violate_packet("service", id, &message);
        }
    }

    /// A program has run on an ICMP error.
    fn check_error(&mut self, n: NodeId, id: u64, was: &View, is: View) {
        let Some((quoted, quotes)) = was.quotes.as_ref().zip(is.quotes.as_ref()) else { return };
        let ends = |view: &View| (view.src, view.dst, view.ports);
        if ends(quoted) == ends(quotes) && (was.src, was.dst) == (is.src, is.dst) {
            return;
        }
        let full = self.check.was_full.contains(&n);
        if !full && self.trace.packet(id).is_some_and(|passport| !passport.spoiled) {
            let place = |ip, ports: Option<(u16, u16)>, which| {
                ports.map(|(from, to)| (ip, if which == 0 { from } else { to }))
            };
            // Of the call, or of the answer: the client's end as it is, and who stands at the other.
            let of_call = |call: &View, turned: &View| {
                let (client, called) = (place(call.src, call.ports, 0), place(call.dst, call.ports, 1));
                let backend = place(turned.dst, turned.ports, 1);
                self.is_talk(n, call.proto, client, called, backend, turned.src)
            };
            let of_answer = |answer: &View, turned: &View| {
                let (client, called) =
                    (place(answer.dst, answer.ports, 1), place(answer.src, answer.ports, 0));
                let backend = place(turned.src, turned.ports, 0);
                self.is_talk(n, answer.proto, client, called, backend, turned.dst)
            };
            if !of_call(quotes, quoted) && !of_answer(quoted, quotes) {
                self.violate_packet("service", id, "an ICMP error is made one about another conversation");
            }
            if !is.sums_ok {
                self.violate_packet("integrity", id, "an ICMP error is translated and its checksum is wrong");
            }
        }
        // On its way to a backend it is what the backend shall get.
        let to_backend = was.dst != is.dst && !LOOPBACK.contains(&was.dst);
        self.trace.turn(id, is, (!to_backend).then(|| was.clone()));
    }

    /// Whether a conversation is known.
    fn is_talk(
        &self,
        n: NodeId,
        proto: u8,
        client: Option<End>,
        called: Option<End>,
        backend: Option<End>,
        caller: IpAddr,
    ) -> bool {
        let (Some(client), Some(called), Some(backend)) = (client, called, backend) else { return false };
        self.check.talks.ever.contains(&((n, proto, client, called), backend, caller))
    }

    /// A packet was left as it is.
    fn check_untouched(&mut self, n: NodeId, program: Program, id: u64, view: &View, verdict: &Verdict) {
        let Some(passport) = self.trace.packet(id) else { return };
        let is_own = passport.honest && passport.own_mac;
        let goes_on = !matches!(verdict, Verdict::Drop(_)) && view.hops > 1;
        if program != Program::FromContainer || !is_own || !goes_on || view.later_fragment {
            return;
        }
        if view.is_to_many() || view.is_of_link() || self.check.was_full.contains(&n) {
            return;
        }
        let Some((client, to, _)) = self.check.connections.ends(n, view) else { return };
        // A client that calls its backend itself is answered by it.
        self.check.talks.now.retain(|(m, proto, caller, _), answers| {
            (*m, *proto, *caller) != (n, view.proto, client) || answers.backend != to
        });
        self.check.talks.ever.retain(|((m, proto, caller, _), backend, _)| {
            (*m, *proto, *caller) != (n, view.proto, client) || *backend != to
        });
        if view.proto == TCP && !begins(view) {
            return;
        }
        let since = self.check.views.rest();
        let node = self.nodes[n].name.clone();
        let possible = self.check.services.possible(&node, place(to), protocol(view.proto), since);
        if possible.is_some_and(|possible| !possible.none) {
            self.violate_packet("service", id, "a packet to a service goes on as it is");
        }
    }

    /// A packet reaches a pod as its sender made it: it is none of a conversation with a service.
    pub(super) fn check_told(&mut self, n: NodeId, frame: &Frame, view: &View) {
        if !self.translates_packets() || self.check.was_full.contains(&n) {
            return;
        }
        // An error is about what the client has sent.
        let (about, back) = view.quotes.as_ref().map_or((view, false), |quoted| (&**quoted, true));
        let Some((from, to)) = about.ports.filter(|_| matches!(about.proto, TCP | UDP)) else { return };
        let mut ends = ((about.src, from), (about.dst, to));
        if back {
            ends = (ends.1, ends.0);
        }
        let (backend, client) = ends;
        let now = self.ticks(n);
        let asks = |((m, proto, its, _), answers): (&Talk, &Answers)| {
            (*m, *proto, *its) == (n, about.proto, client)
                && answers.backend == backend
                && self.check.connections.lives(n, [client, backend], about.proto, now, false)
        };
        if self.check.talks.now.iter().any(asks) {
            self.violate_packet(
                "service",
                frame.id.0,
                "an answer of a backend is not made one of its service",
            );
        }
    }

    /// Whether who is called may have no backend.
    pub(super) fn may_be_without_backends(&self, n: NodeId, view: &View) -> bool {
        let Some((_, port)) = view.ports else { return view.later_fragment };
        let since = self.check.views.rest();
        let to = SocketAddr::new(view.dst, port);
        let views = &self.check.services;
        let possible = views.possible(&self.nodes[n].name, to, protocol(view.proto), since);
        possible.is_none_or(|possible| possible.nobody) || self.check.was_full.contains(&n)
    }

    /// Whether the sender of a packet speaks from its port with somebody who may be a backend of whom it calls.
    pub(super) fn speaks_with_backends(&self, n: NodeId, view: &View) -> bool {
        let Some((from, port)) = view.ports else { return view.later_fragment };
        let since = self.check.views.rest();
        let to = SocketAddr::new(view.dst, port);
        let views = &self.check.services;
        let Some(possible) = views.possible(&self.nodes[n].name, to, protocol(view.proto), since) else {
            return true;
        };
        let peers = self.check.connections.peers(n, (view.src, from), view.proto, self.ticks(n));
        peers.into_iter().any(|peer| possible.backends.contains(&place(peer)))
            || self.check.was_full.contains(&n)
    }
}

/// One of the ports of a packet that has them.
fn ports_of(view: &View, which: usize) -> Option<u16> {
    view.ports.map(|(from, to)| if which == 0 { from } else { to })
}
