//! The programs by name: those on packets and those on calls of sockets.

/// One program of the object. Direction words are the pod's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Program {
    /// Ingress of a pod's host side device: what a pod sends.
    FromContainer = 1,
    /// Egress of a pod's host side device: what the node's stack sends to a pod.
    ToContainer = 2,
    /// Ingress of the overlay device: what other nodes sent through the tunnel.
    FromOverlay = 3,
    /// Ingress of the underlay device.
    FromNetdev = 4,
    /// Egress of the underlay device.
    ToNetdev = 5,
    /// Egress of `bristle_host`: what the node's stack sends to pods, here or elsewhere.
    FromHost = 6,
    /// Ingress of `bristle_host`.
    ToHost = 7,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::FromContainer,
        Self::ToContainer,
        Self::FromOverlay,
        Self::FromNetdev,
        Self::ToNetdev,
        Self::FromHost,
        Self::ToHost,
    ];

    /// Symbol in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromContainer => "from_container",
            Self::ToContainer => "to_container",
            Self::FromOverlay => "from_overlay",
            Self::FromNetdev => "from_netdev",
            Self::ToNetdev => "to_netdev",
            Self::FromHost => "from_host",
            Self::ToHost => "to_host",
        }
    }

    /// The program with this symbol.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// The program with this number (as events carry it).
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|p| *p as u8 == number)
    }

    /// Whether it belongs on the egress side of its device.
    pub const fn on_egress(self) -> bool {
        matches!(self, Self::ToContainer | Self::ToNetdev | Self::FromHost)
    }
}

/// One program on calls of sockets, in the cgroup of those who call. Each has a hook of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SocketProgram {
    /// `connect` to an IPv4 address.
    Connect4,
    /// `connect` to an IPv6 address, which may stand for an IPv4 one.
    Connect6,
    /// A datagram without connection to an IPv4 address.
    Sendmsg4,
    /// A datagram without connection to an IPv6 address.
    Sendmsg6,
    /// The sender of a datagram is told, of an IPv4 socket.
    Recvmsg4,
    /// The sender of a datagram is told, of an IPv6 socket.
    Recvmsg6,
    /// `getpeername` of an IPv4 socket.
    Getpeername4,
    /// `getpeername` of an IPv6 socket.
    Getpeername6,
    /// `bind` of an IPv4 socket.
    Bind4,
    /// `bind` of an IPv6 socket.
    Bind6,
}

impl SocketProgram {
    /// All of them, in the order in which they are put in place: what tells a process whom it called comes before what
    /// sends it elsewhere.
    pub const ALL: [Self; 10] = [
        Self::Recvmsg4,
        Self::Recvmsg6,
        Self::Getpeername4,
        Self::Getpeername6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::Connect4,
        Self::Connect6,
        Self::Bind4,
        Self::Bind6,
    ];

    /// Symbol in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "sock_connect4",
            Self::Connect6 => "sock_connect6",
            Self::Sendmsg4 => "sock_sendmsg4",
            Self::Sendmsg6 => "sock_sendmsg6",
            Self::Recvmsg4 => "sock_recvmsg4",
            Self::Recvmsg6 => "sock_recvmsg6",
            Self::Getpeername4 => "sock_getpeer4",
            Self::Getpeername6 => "sock_getpeer6",
            Self::Bind4 => "sock_bind4",
            Self::Bind6 => "sock_bind6",
        }
    }

    /// The program with this symbol.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.name() == name)
    }

    /// Whether addresses in the call are IPv6 ones.
    pub const fn is_v6(self) -> bool {
        matches!(self, Self::Connect6 | Self::Sendmsg6 | Self::Recvmsg6 | Self::Getpeername6 | Self::Bind6)
    }
}

/// The program that fills [`crate::clock`] when it is run with `BPF_PROG_TEST_RUN`; never attached.
pub const CLOCK_PROBE: &str = "clock_probe";
