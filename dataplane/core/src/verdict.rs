//! What a program decides. Effects are data: the host carries them out.

use dataplane_abi::DropReason;

/// The end of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a verdict that is not carried out is a packet that goes astray"]
pub enum Verdict {
    /// On to the node's stack (ingress side) or out of the device (egress side).
    Pass,
    /// The same for a packet that is none of our business; other programs on the hook may look at it.
    Skip,
    /// Gone, for one reason.
    Drop(DropReason),
    /// Into the other end of a veth pair, in another namespace, as if it had been received there.
    Peer {
        /// The end on this side.
        ifindex: u32,
    },
    /// Out of a device.
    Egress {
        /// The device.
        ifindex: u32,
    },
    /// As if it had been received on a device.
    Ingress {
        /// The device.
        ifindex: u32,
    },
    /// Out of the overlay device, through the tunnel that was set on the packet.
    Tunnel {
        /// The overlay device.
        ifindex: u32,
    },
    /// Out of a device to a next hop, whose link layer address the stack finds.
    Neighbour {
        /// The device.
        ifindex: u32,
        /// Family of `address`: 1 IPv4 (first four bytes), 2 IPv6.
        family: u8,
        /// The next hop.
        address: [u8; 16],
    },
}

/// What a stage decides: go on, or how the program ends. One byte, so that it fits a register;
/// where the packet goes is in the [`crate::flight::Route`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Step {
    /// Go on with the next stage.
    Next,
    /// Go on with [`crate::closer::look_closer`].
    Closer,
    /// End with [`Verdict::Pass`].
    Pass,
    /// End with [`Verdict::Skip`].
    Skip,
    /// The packet was turned into its answer: back to where it came from.
    Answer,
    /// End with [`Verdict::Peer`], by the route.
    Peer,
    /// End with [`Verdict::Egress`], by the route.
    Egress,
    /// End with [`Verdict::Tunnel`], by the route.
    Tunnel,
    /// End with [`Verdict::Neighbour`], by the route.
    Neighbour,
    /// End with [`Verdict::Drop`].
    Drop(DropReason),
}

const _: () = assert!(size_of::<Step>() == 1);
