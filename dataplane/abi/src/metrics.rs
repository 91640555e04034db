//! `METRICS`: packets and bytes per reason and direction, per CPU. Each run of a packet program adds to exactly one row,
//! programs on calls of sockets only where something went wrong.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::table;

table! {
    /// The table: per CPU, one row for each [`index`].
    Metrics = "METRICS": PerCpuArray<u32, MetricsEntry>[METRICS_ROWS], flags 0, writer Programs
}

/// Rows: 256 reasons × four directions.
pub const METRICS_ROWS: u32 = 1024;

/// Row (of no direction) that counts events lost because the ring was full.
pub const EVENTS_LOST: u32 = 1;

/// Direction of a packet, seen from the pod.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// Towards the pod.
    Ingress = 1,
    /// From the pod.
    Egress = 2,
    /// In service translation.
    Service = 3,
}

impl Direction {
    /// As metrics show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "INGRESS",
            Self::Egress => "EGRESS",
            Self::Service => "SERVICE",
        }
    }

    /// The direction with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ingress),
            2 => Some(Self::Egress),
            3 => Some(Self::Service),
            _ => None,
        }
    }
}

/// Row of a reason (drop or forward) and a direction.
#[inline(always)]
pub const fn index(reason: u8, direction: Direction) -> u32 {
    ((direction as u32) << 8) | reason as u32
}

/// Reason and direction of a row.
pub const fn from_index(index: u32) -> (u8, Option<Direction>) {
    let [reason, direction, ..] = index.to_le_bytes();
    (reason, Direction::from_number(direction))
}

/// Counters of one row.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MetricsEntry {
    /// Packets (a GSO packet counts once).
    pub packets: u64,
    /// Bytes from the link layer on.
    pub bytes: u64,
}

const _: () = assert!(size_of::<MetricsEntry>() == 16);
