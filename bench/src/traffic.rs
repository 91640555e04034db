//! The traffic generator: one server and one client, both this program, each in its own network namespace.
//!
//! One TCP and one UDP port of the same number carry everything. The first byte of a TCP connection says what it is
//! for ([`Purpose`]). Both sides are pinned to one CPU by the caller, so that no wake-up crosses CPUs and the whole
//! cost of the path, softirqs included, is charged to the two processes.

pub mod client;
pub mod server;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Port of the server unless told otherwise.
pub const PORT: u16 = 5000;
/// Payload of a UDP datagram, in bytes.
pub const UDP_BYTES: usize = 64;

/// What a TCP connection is for: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Every byte comes back, until the client closes.
    Echo,
    /// One byte comes back and the server closes.
    Once,
    /// Whatever comes is thrown away.
    Sink,
    /// A [`Report`] comes back and the server closes.
    Report,
}

impl Purpose {
    const fn byte(self) -> u8 {
        match self {
            Self::Echo => b'E',
            Self::Once => b'O',
            Self::Sink => b'S',
            Self::Report => b'R',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Echo, Self::Once, Self::Sink, Self::Report].into_iter().find(|purpose| purpose.byte() == byte)
    }
}

/// What the server has seen since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Report {
    datagrams: u64,
    sink_bytes: u64,
    cpu_ns: u64,
}

impl Report {
    const BYTES: usize = 24;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        for (slot, value) in out.chunks_exact_mut(8).zip([self.datagrams, self.sink_bytes, self.cpu_ns]) {
            slot.copy_from_slice(&value.to_be_bytes());
        }
        out
    }

    fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let mut values =
            bytes.chunks_exact(8).map(|chunk| chunk.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)));
        let mut next = || values.next().unwrap_or_default();
        Self { datagrams: next(), sink_bytes: next(), cpu_ns: next() }
    }
}

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// One byte there and back on one connection.
    Rr,
    /// Connect, one byte there and back, close.
    Crr,
    /// Datagrams of 64 bytes as fast as they go.
    Udp,
    /// One TCP stream in large writes.
    Stream,
}

impl Metric {
    /// All of them, in the order in which they are run.
    pub const ALL: [Self; 4] = [Self::Rr, Self::Crr, Self::Udp, Self::Stream];

    /// `rr`, `crr`, `udp` or `stream`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Crr => "crr",
            Self::Udp => "udp",
            Self::Stream => "stream",
        }
    }

    /// Unit of [`Sample::rate`].
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Rr => "trans/s",
            Self::Crr => "conn/s",
            Self::Udp => "pkt/s",
            Self::Stream => "Gbit/s",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Units per second, see [`Metric::unit`]; of datagrams those that arrived.
    pub rate: f64,
    /// Median latency, in microseconds; 0 for `udp` and `stream`.
    pub p50_us: f64,
    /// 99th percentile of the latency, in microseconds; 0 for `udp` and `stream`.
    pub p99_us: f64,
    /// 99th percentile of how long the first packet of a connection and its answer take, in microseconds; 0 for all but `crr`.
    pub first_p99_us: f64,
    /// CPU charged to client and server per unit (transaction, connection, datagram sent, byte), in nanoseconds.
    pub cpu_ns_per_unit: f64,
}

/// Enters a network namespace and pins this thread, and all that it starts, to a CPU.
pub fn settle(netns: Option<&Path>, cpu: Option<usize>) -> anyhow::Result<()> {
    if let Some(path) = netns {
        let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", path.display()))?;
    }
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu).with_context(|| format!("CPU {cpu}"))?;
        sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("pin to CPU {cpu}"))?;
    }
    Ok(())
}

/// CPU time of this process so far, user and system, in nanoseconds.
fn cpu_ns() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0 };
    let ns = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or_default())
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())
    };
    u64::try_from((ns(usage.user_time()) + ns(usage.system_time())).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_wire() {
        let report = Report { datagrams: 1, sink_bytes: u64::MAX, cpu_ns: 0x0102_0304_0506_0708 };
        assert_eq!(Report::from_bytes(report.to_bytes()), report);
    }

    #[test]
    fn purposes_are_told_apart_by_their_byte() {
        for purpose in [Purpose::Echo, Purpose::Once, Purpose::Sink, Purpose::Report] {
            assert_eq!(Purpose::of(purpose.byte()), Some(purpose));
        }
        assert_eq!(Purpose::of(0), None);
    }

    /// Server and client on the loopback device: every metric gives figures that can be.
    #[test]
    fn each_metric_measures_something_on_loopback() {
        let port = server::spawn_for_test();
        for metric in Metric::ALL {
            let target = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            let sample = client::measure(target, metric, Duration::from_millis(50)).expect("measures");
            assert!(sample.rate > 0.0, "{metric:?}: {sample:?}");
            let latency = matches!(metric, Metric::Rr | Metric::Crr);
            assert_eq!(
                latency,
                sample.p50_us > 0.0 && sample.p99_us >= sample.p50_us,
                "{metric:?}: {sample:?}"
            );
            let first = sample.first_p99_us;
            assert_eq!(metric == Metric::Crr, first > 0.0, "{metric:?}: {sample:?}");
            assert!(first <= sample.p99_us, "a connection takes longer than its first packet: {sample:?}");
        }
    }
}
