//! Addresses as they lie in tables.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A 16-bit number in network byte order with alignment one (ports).
pub type Be16 = zerocopy::network_endian::U16;

/// Link-layer address.
pub type Mac = [u8; 6];

/// Address family as tables store it. Zero means "no address".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 1,
    /// IPv6.
    V6 = 2,
}

impl Family {
    /// The family with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::V4),
            2 => Some(Self::V6),
            _ => None,
        }
    }

    /// Length of an address in bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// An address of either family in 16 bytes; IPv4 in the first four, the others zero.
/// The family lies beside it, in the row.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// All zero: no address.
    pub const ZERO: Self = Self([0; 16]);

    /// An IPv4 address.
    #[inline(always)]
    pub const fn v4(a: [u8; 4]) -> Self {
        let [b0, b1, b2, b3] = a;
        Self([b0, b1, b2, b3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// An IPv6 address.
    #[inline(always)]
    pub const fn v6(a: [u8; 16]) -> Self {
        Self(a)
    }

    /// The first four bytes.
    #[inline(always)]
    pub const fn to_v4(self) -> [u8; 4] {
        let [b0, b1, b2, b3, ..] = self.0;
        [b0, b1, b2, b3]
    }

    /// The IPv4 address that an IPv6 one stands for (`::ffff:a.b.c.d`, RFC 4291 2.5.5.2), if it does.
    #[inline(always)]
    pub const fn unmapped(self) -> Option<[u8; 4]> {
        match self.0 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
            _ => None,
        }
    }

    /// The IPv6 address that stands for an IPv4 one.
    #[inline(always)]
    pub const fn mapped(a: [u8; 4]) -> Self {
        let [a, b, c, d] = a;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// Address and family of a standard address.
    pub const fn from_ip(ip: IpAddr) -> (Self, Family) {
        match ip {
            IpAddr::V4(a) => (Self::v4(a.octets()), Family::V4),
            IpAddr::V6(a) => (Self::v6(a.octets()), Family::V6),
        }
    }

    /// As a standard address of the given family.
    pub const fn to_ip(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => {
                let [a, b, c, d] = self.to_v4();
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            Family::V6 => IpAddr::V6(Ipv6Addr::from_octets(self.0)),
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv6Addr::from_octets(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_those_of_the_standard_library() {
        let v4 = Ipv4Addr::new(10, 96, 0, 1);
        assert_eq!(Addr::mapped(v4.octets()).0, v4.to_ipv6_mapped().octets());
        assert_eq!(Addr::mapped(v4.octets()).unmapped(), Some(v4.octets()));
        assert_eq!(Addr::v6(Ipv6Addr::LOCALHOST.octets()).unmapped(), None);
        assert_eq!(Addr::v4(v4.octets()).unmapped(), None, "not as IPv4 lies in tables");
    }
}
