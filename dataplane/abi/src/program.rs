//! The packet programs by name.

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

/// The program that fills [`crate::clock`] when it is run with `BPF_PROG_TEST_RUN`; never attached.
pub const CLOCK_PROBE: &str = "clock_probe";
