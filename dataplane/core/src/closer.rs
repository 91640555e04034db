//! Packets that conntrack alone does not decide about: first ones, those of conversations with services, and those of which it is
//! not sure. What services make of them ([`crate::calls`]), and their connection ([`crate::learn`]).

use core::hint::black_box;

use dataplane_abi::DropReason;
use dataplane_abi::config::ConfigFlags;
use dataplane_abi::program::Program;

use crate::calls::{Called, again, answer, call, from_outside, itself, note, turn, turn_error};
use crate::conntrack::{self, Hit};
use crate::flight::{Flight, Kind, Route, Turned};
use crate::host::Host;
use crate::ip::Ip;
use crate::learn::learn;
use crate::masquerade;
use crate::ports::Leaving;
use crate::verdict::Step;

/// A packet that is looked at closely. It does not lie on the stack, which has no room for all that is done with it; and of what a
/// table holds the kernel's verifier knows nothing, so that it does not follow each outcome by itself.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Room<F: Ip> {
    /// What is known of it.
    pub flight: Flight<F>,
    /// Where it goes.
    pub route: Route,
    /// With which address and port it leaves the node.
    pub leaving: Leaving<F>,
    /// Whom it has been given for a receiver already. Set where callers outside the cluster may be meant.
    pub turned: Turned,
    /// Conntrack could not decide about it.
    pub is_unsure: u8,
    /// It is one of a call, and goes to a backend now.
    pub is_called: u8,
    /// What is to be done next.
    next: Next,
    /// How the program ends, or [`Step::Next`].
    step: Step,
}

/// What is to be done with a packet that may be one of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Next {
    /// Its way is to be found, if it is not known.
    Way = 0,
    /// It is to be sent to a backend.
    Turn = 1,
    /// Nothing: the program ends.
    End = 2,
}

impl<F: Ip> Room<F> {
    /// Nothing known yet.
    pub const EMPTY: Self = Self {
        flight: Flight::EMPTY,
        route: Route::NONE,
        leaving: Leaving::NONE,
        turned: Turned::No,
        is_unsure: 0,
        is_called: 0,
        next: Next::Way,
        step: Step::Next,
    };

    /// Writes down what was found of a call.
    #[inline(always)]
    fn note(&mut self, called: Called) {
        match called {
            Called::No => self.next = Next::Way,
            Called::Yes => self.next = Next::Turn,
            Called::Known => (self.next, self.is_unsure, self.is_called) = (Next::Way, 0, 1),
            Called::Unsure => (self.next, self.is_unsure, self.is_called) = (Next::Way, 1, 1),
            Called::Ends(step) => (self.next, self.step) = (Next::End, step),
        }
        self.settle();
    }

    /// Makes the compiler read anew what was just written, so that the kernel's verifier does not know it.
    #[inline(always)]
    fn settle(&mut self) {
        black_box(self);
    }
}

/// Notes that a packet has not been given another receiver.
#[inline(always)]
pub fn nobody_turned<H: Host, F: Ip>(host: H) {
    F::room(host, |room| room.turned = Turned::No);
}

/// Puts a packet away that has to be looked at more closely than conntrack does; [`look_closer`] goes on with it.
#[inline(always)]
pub fn put_away<H: Host, F: Ip>(host: H, flight: &Flight<F>, route: &Route, hit: Hit) -> Step {
    F::room(host, |room| {
        room.flight = *flight;
        room.route = *route;
        room.is_unsure = u8::from(hit == Hit::Unsure);
        room.is_called = 0;
        room.next = Next::Way;
        room.step = Step::Next;
    });
    Step::Closer
}

/// Looks closer at a packet that was put away, at what services make of it, and at its connection. After [`Step::Next`] the route
/// has a way. A step that is another than [`Step::Closer`] stays.
#[inline(always)]
pub fn look_closer<H: Host, F: Ip, const PROGRAM: u8>(host: H, route: &mut Route, step: Step) -> Step {
    if step != Step::Closer {
        return step;
    }
    let step = closer::<H, F, PROGRAM>(host);
    F::room(host, |room| *route = room.route);
    // The kernel's verifier would follow each outcome to the end by itself.
    black_box(step)
}

/// Looks up the connection between backend and client, which an answer is of now.
#[inline(never)]
fn is_known<H: Host, F: Ip, const PROGRAM: u8>(host: H, room: &mut Room<F>) -> bool {
    let Some(config) = host.config() else { return false };
    conntrack::lookup::<H, F, PROGRAM>(host, config, &mut room.flight, &mut room.route, 0) != Hit::Unsure
}

#[inline(never)]
fn closer<H: Host, F: Ip, const PROGRAM: u8>(host: H) -> Step {
    F::room(host, |room| in_room::<H, F, PROGRAM>(host, room)).unwrap_or(Step::Drop(DropReason::NoConfig))
}

#[inline(always)]
fn in_room<H: Host, F: Ip, const PROGRAM: u8>(host: H, room: &mut Room<F>) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let is_netdev = PROGRAM == Program::FromNetdev as u8;
    let of_pods = config.flags.contains(ConfigFlags::SERVICE_PACKETS);
    if is_netdev && from_outside::<F>(config) {
        room.route.turned = room.turned;
        room.settle();
    }
    if PROGRAM == Program::FromOverlay as u8
        && from_outside::<F>(config)
        && room.is_unsure != 0
        && F::is_node(config, room.flight.dst())
    {
        match black_box(masquerade::answers(host, room)) {
            Step::Next => {
                room.route.turned = Turned::ToClient;
                room.is_unsure = u8::from(!is_known::<H, F, PROGRAM>(host, room));
                room.settle();
            }
            Step::Drop(reason) => return Step::Drop(reason),
            _ => {}
        }
    }
    let may_be_called = if PROGRAM == Program::FromContainer as u8 {
        of_pods
    } else {
        is_netdev && from_outside::<F>(config) && room.route.turned == Turned::No
    };
    if may_be_called {
        let called = call::<H, F, PROGRAM>(host, &room.flight, &mut room.route);
        room.note(called);
        if room.next == Next::Turn {
            let called = if room.flight.kind == Kind::Error {
                turn_error(host, &room.flight, &mut room.route)
            } else {
                turn(host, &room.flight, &mut room.route)
            };
            room.note(called);
        }
        if room.next == Next::Turn {
            let called = again::<H, F, PROGRAM>(host, &mut room.flight, &mut room.route);
            room.note(called);
        }
        if room.next == Next::End {
            return room.step;
        }
        if PROGRAM != Program::FromContainer as u8 {
            if room.is_called != 0 {
                room.route.turned = Turned::ToBackend;
            }
            // The node's own connections have rows only where they are judged.
            if room.is_called == 0
                && F::is_node(config, room.flight.dst())
                && !config.flags.contains(ConfigFlags::HOST_FIREWALL)
            {
                return Step::Skip;
            }
            if room.is_unsure != 0 {
                room.step = Step::Skip;
                room.settle();
            }
        } else if room.is_unsure != 0 {
            room.step = itself(host, &room.flight, &mut room.route, room.is_called != 0);
            room.settle();
        }
    } else if room.is_unsure != 0 {
        room.step = Step::Skip;
    }
    if room.step == Step::Skip {
        room.step = learn::<H, F, PROGRAM>(host, &room.flight, &mut room.route);
        room.settle();
    }
    if room.step != Step::Next || !(of_pods || (is_netdev && from_outside::<F>(config))) {
        return room.step;
    }
    if room.is_called == 0 {
        answer::<H, F, PROGRAM>(host, &room.flight, &mut room.route)
    } else if room.flight.kind == Kind::Error {
        Step::Next
    } else {
        note(host, &room.flight)
    }
}
