//! `NO_MASQUERADE`: prefixes to which pods speak with their own address, beside what the ipcache knows to be in the cluster.
//! Written by the agent; asked for the first packet of a connection only.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ipcache::IpCacheKey;
use crate::table::{F_NO_PREALLOC, table};

table! {
    /// The table. Its keys are those of the ipcache.
    NoMasquerade = "NO_MASQUERADE": LpmTrie<IpCacheKey, NoMasqueradeEntry>[16_384], flags F_NO_PREALLOC, writer Agent
}

/// Why pods are not masqueraded there.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NoMasqueradeEntry {
    /// [`Why`] as number. The programs do not read it.
    pub why: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Reasons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Why {
    /// The network routes pods' addresses there.
    NativeRouting = 1,
    /// The operator of the cluster says so.
    Excluded = 2,
}

impl Why {
    /// The reason with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::NativeRouting,
            2 => Self::Excluded,
            _ => return None,
        })
    }

    /// As lists show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NativeRouting => "native-routing",
            Self::Excluded => "excluded",
        }
    }
}

const _: () = assert!(size_of::<NoMasqueradeEntry>() == 4);
