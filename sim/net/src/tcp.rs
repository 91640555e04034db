//! TCP by smoltcp, over IP packets that our own layers bring and take.
//!
//! The engine has no addresses and takes every packet that reaches it for its own: the layers below have looked. Connections cost
//! memory only while they are there: the listening socket of a server is made when a SYN comes in, and a connection that would wait
//! out `TIME-WAIT` is removed at once.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpEndpoint, IpListenEndpoint, Ipv4Address, Ipv6Address};

mod patience;
pub(crate) mod serve;

use patience::Patience;

/// What a socket that could not act waits.
const TICK: Duration = Duration::from_millis(1);

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Handle(SocketHandle);

/// All TCP connections of a stack.
pub(crate) struct Tcp {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    pairs: BTreeMap<(SocketAddr, SocketAddr), SocketHandle>,
    served: Vec<serve::Connection>,
    /// Closed by their users, but still talking.
    closing: Vec<Closing>,
    /// Ports of connections that ended.
    free: Vec<u16>,
    /// When the sockets last had their turn.
    stepped: Duration,
}

/// A connection that its user has closed.
struct Closing {
    handle: SocketHandle,
    port: u16,
    patience: Patience,
}

impl Tcp {
    pub(crate) fn new(now: Duration, seed: u64, mtu: u32) -> Self {
        let mut wire =
            Wire { mtu: usize::try_from(mtu).unwrap_or(1500), inbound: None, outbound: VecDeque::new() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, instant(now));
        interface.set_any_ip(true);
        // The way out is our own routing's matter; here there is one to everywhere.
        interface.routes_mut().update(|routes| {
            let v4 = smoltcp::iface::Route::new_ipv4_gateway(Ipv4Address::new(192, 0, 2, 1));
            let v6 =
                smoltcp::iface::Route::new_ipv6_gateway(Ipv6Address::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 1));
            // Two fit: the least that smoltcp can be built with.
            let _ = routes.push(v4).and_then(|()| routes.push(v6));
        });
        Self {
            interface,
            wire,
            sockets: SocketSet::new(Vec::new()),
            pairs: BTreeMap::new(),
            served: Vec::new(),
            closing: Vec::new(),
            free: Vec::new(),
            stepped: now,
        }
    }

    /// Nothing is going on.
    pub(crate) fn is_idle(&self) -> bool {
        self.pairs.is_empty() && self.wire.outbound.is_empty()
    }

    /// A connection between the two is there.
    pub(crate) fn knows(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.pairs.contains_key(&(local, remote))
    }

    /// A segment came in, for a connection or a server or nobody.
    pub(crate) fn receive(&mut self, now: Duration, packet: Vec<u8>) {
        self.wire.inbound = Some(packet);
        self.interface.poll_ingress_single(instant(now), &mut self.wire, &mut self.sockets);
    }

    /// Begins a connection. Nothing if the ends are none.
    pub(crate) fn connect(&mut self, local: SocketAddr, remote: SocketAddr, buffer: usize) -> Option<Handle> {
        let mut socket = new_socket(buffer, buffer);
        let from = IpListenEndpoint { addr: Some(local.ip().into()), port: local.port() };
        socket.connect(self.interface.context(), IpEndpoint::from(remote), from).ok()?;
        let handle = self.sockets.add(socket);
        self.pairs.insert((local, remote), handle);
        Some(Handle(handle))
    }

    pub(crate) fn socket(&mut self, handle: Handle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle.0)
    }

    /// The user is done; what was written still goes out. The handle and, when the connection has ended, the port are free.
    pub(crate) fn close(&mut self, handle: Handle, port: u16) {
        let socket = self.sockets.get_mut::<Socket<'_>>(handle.0);
        if socket.state() == State::SynSent {
            // Linux says nothing either when an attempt is given up.
            self.remove(handle.0);
            self.free.push(port);
            return;
        }
        socket.close();
        self.closing.push(Closing { handle: handle.0, port, patience: Patience::default() });
    }

    /// Gives up a connection: the other side gets a reset, and the port is free.
    pub(crate) fn abort(&mut self, now: Duration, handle: Handle, port: u16) {
        self.free.push(port);
        self.break_off(now, handle.0);
    }

    fn break_off(&mut self, now: Duration, handle: SocketHandle) {
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        if socket.state() != State::SynSent {
            socket.abort();
            self.flush(now);
        }
        self.remove(handle);
    }

    fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
        self.pairs.retain(|_, of| *of != handle);
    }

    fn flush(&mut self, now: Duration) {
        while self.interface.poll_egress(instant(now), &mut self.wire, &mut self.sockets) != PollResult::None
        {
        }
    }

    /// Lets servers and sockets act; gives back the ports of connections that ended.
    pub(crate) fn step(&mut self, now: Duration) -> Vec<u16> {
        self.flush(now);
        self.serve(now);
        self.flush(now);
        self.stepped = now;
        let mut closing = std::mem::take(&mut self.closing);
        closing.retain_mut(|connection| {
            let socket = self.sockets.get::<Socket<'_>>(connection.handle);
            let ended = matches!(socket.state(), State::Closed | State::TimeWait);
            if ended {
                self.remove(connection.handle);
            } else if connection.patience.is_over(now, socket) {
                self.break_off(now, connection.handle);
            } else {
                return true;
            }
            self.free.push(connection.port);
            false
        });
        self.closing = closing;
        std::mem::take(&mut self.free)
    }

    /// A packet that is to be sent.
    pub(crate) fn outbound(&mut self) -> Option<Vec<u8>> {
        self.wire.outbound.pop_front()
    }

    /// When [`Tcp::step`] is due.
    pub(crate) fn next(&mut self, now: Duration) -> Option<Duration> {
        let sockets = self.interface.poll_at(instant(now), &self.sockets).map(|at| {
            let at = Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or_default());
            // A socket that has just had its turn and still wants one waits for the other side.
            if at <= self.stepped { self.stepped + TICK } else { at }
        });
        let closing = self.closing.iter().filter_map(|connection| connection.patience.until());
        let served = self.served.iter().filter_map(serve::Connection::until);
        sockets.into_iter().chain(closing).chain(served).min().map(|at| at.max(now))
    }
}

fn new_socket(receive: usize, send: usize) -> Socket<'static> {
    let mut socket = Socket::new(SocketBuffer::new(vec![0; receive]), SocketBuffer::new(vec![0; send]));
    // Each segment is answered at once, and each write is a segment: what a trace shows is then what the users did.
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    socket
}

/// Time as smoltcp has it, in whole microseconds. Rounded up, so that what is due at a time is due when that time is given back.
fn instant(now: Duration) -> Instant {
    let micros = now.as_nanos().div_ceil(1000);
    Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// The device below: one packet in, any number out.
struct Wire {
    mtu: usize,
    inbound: Option<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
}

struct Inbound(Vec<u8>);
struct Outbound<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Inbound {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outbound<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Inbound;
    type TxToken<'a> = Outbound<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Inbound, Outbound<'_>)> {
        let packet = self.inbound.take()?;
        Some((Inbound(packet), Outbound(&mut self.outbound)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outbound<'_>> {
        Some(Outbound(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}
