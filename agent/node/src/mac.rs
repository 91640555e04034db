//! Ethernet addresses.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::str::FromStr;

/// An Ethernet (EUI-48) address, in the order of transmission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A random address, unicast and locally administered.
    ///
    /// # Errors
    /// When the kernel's random source cannot be read.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 6];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self::local(bytes))
    }

    /// An address made from an IP address: the same one for the same address, so that neighbour entries stay right when an address comes
    /// back, and different ones for different IPv4 addresses. `salt` tells apart the two ends of one veth pair.
    pub fn from_ip(ip: IpAddr, salt: u8) -> Self {
        let mut bytes = [0x0a, salt, 0, 0, 0, 0];
        match ip {
            IpAddr::V4(ip) => bytes[2..].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => {
                // The lower half tells pods of one node apart, the upper one nodes; fold them.
                for (index, octet) in ip.octets().into_iter().enumerate() {
                    bytes[2 + index % 4] = bytes[2 + index % 4].rotate_left(3) ^ octet;
                }
            }
        }
        Self::local(bytes)
    }

    /// Makes an address unicast and locally administered.
    const fn local(mut bytes: [u8; 6]) -> Self {
        bytes[0] = bytes[0] & 0xfc | 0x02;
        Self(bytes)
    }

    /// The address's bytes in the order of transmission.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

/// The text is not six hexadecimal bytes with colons between them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address of the form aa:bb:cc:dd:ee:ff")]
pub struct ParseMacError(String);

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseMacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).ok().ok_or_else(error)?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_reads_back() {
        let mac = Mac([0x0a, 0, 0xff, 1, 2, 3]);
        assert_eq!(mac.to_string(), "0a:00:ff:01:02:03");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for bad in [
            "",
            "0a:00:ff:01:02",
            "0a:00:ff:01:02:03:04",
            "0a:00:ff:01:02:+3",
            "0a-00-ff-01-02-03",
            "a:00:ff:01:02:03",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn made_addresses_are_local_unicast_and_differ() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(Mac::from_ip(ip("10.1.2.3"), 0).to_string(), "0a:00:0a:01:02:03");
        let all = [
            Mac::from_ip(ip("10.1.2.3"), 0),
            Mac::from_ip(ip("10.1.2.3"), 1),
            Mac::from_ip(ip("10.1.2.4"), 0),
            Mac::from_ip(ip("fd00:10:1::3"), 0),
            Mac::from_ip(ip("fd00:10:1::4"), 0),
            Mac::from_ip(ip("fd00:10:2::3"), 0),
            Mac::random().unwrap(),
        ];
        for (index, mac) in all.iter().enumerate() {
            assert_eq!(mac.0[0] & 3, 2, "{mac}");
            assert!(!all[..index].contains(mac), "{mac} twice");
        }
    }
}
