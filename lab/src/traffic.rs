//! `bristle-lab traffic`: sends messages to a server, and says how many were answered.
//!
//! It runs in pods and nodes. After everything that is settled it prints a [`Tally`] as one line of JSON, so that whoever watches knows
//! how far it is, also when it is ended early.
//! Datagrams and pings go out at their times whether or not earlier ones were answered; TCP segments and HTTP requests one after the other.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

mod datagrams;
mod icmp;
mod sctp;
mod stream;
mod udp;

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// ICMP echo
    Ping,
    /// One connection and one request for each
    Http,
    /// One connection; each segment is echoed before the next
    Tcp,
    /// Datagrams that are echoed
    Udp,
    /// Requests for SCTP associations
    Sctp,
}

/// What is to be sent.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// What is spoken
    #[arg(value_enum)]
    pub kind: Kind,
    /// Address of the receiver
    pub to: IpAddr,
    /// Port of the receiver; a ping has none
    #[arg(long, default_value_t = 0, required_if_eq_any = [("kind", "http"), ("kind", "tcp"), ("kind", "udp"), ("kind", "sctp")])]
    pub port: u16,
    /// How many messages
    #[arg(long, default_value_t = 1)]
    pub count: u32,
    /// Pause between two of them in microseconds
    #[arg(long, default_value_t = 100_000, value_name = "US")]
    pub interval_us: u64,
    /// Bytes of payload of each
    #[arg(long, default_value_t = 56)]
    pub size: u16,
    /// How long each may take before it counts as lost, in microseconds
    #[arg(long, default_value_t = 5_000_000, value_name = "US")]
    pub timeout_us: u64,
}

/// What came of it so far; messages that are under way do not count yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Messages that were answered or lost.
    pub sent: u32,
    /// Those that were answered.
    pub answered: u32,
    /// Connections that were reset or refused.
    pub resets: u32,
    /// ICMP errors that came back.
    pub errors: u32,
}

/// What is told of it while it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    /// What came of it.
    #[serde(flatten)]
    pub tally: Tally,
    /// Answers over HTTP of servers that say who they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answers>,
}

/// Answers of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Its own address.
    pub server: IpAddr,
    /// The address at which it saw the client.
    pub caller: IpAddr,
    /// How many.
    pub count: u32,
}

impl Options {
    fn interval(&self) -> Duration {
        Duration::from_micros(self.interval_us)
    }

    fn timeout(&self) -> Duration {
        // Sockets take a timeout of zero for none.
        Duration::from_micros(self.timeout_us.max(1))
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.to, self.port)
    }

    /// Payload of the message with this number: the number in front, as far as there is room.
    fn payload(&self, number: u32) -> Vec<u8> {
        let mut payload = vec![b'x'; self.size.into()];
        for (to, from) in payload.iter_mut().zip(number.to_le_bytes()) {
            *to = from;
        }
        payload
    }
}

/// Sends everything, and prints how far it is.
pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    let tally = run(options, Report { told: Told::default(), aloud: true })?;
    Ok(if tally.answered == options.count { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends everything, and says in the end what came of it.
///
/// # Errors
/// When there is no socket to be had.
pub fn tally(options: &Options) -> anyhow::Result<Tally> {
    run(options, Report::default())
}

fn run(options: &Options, mut report: Report) -> anyhow::Result<Tally> {
    match options.kind {
        Kind::Ping => {
            let mut socket = icmp::Pinger::open(options.to).context("open a socket for pings")?;
            datagrams::run(options, &mut socket, &mut report)?;
        }
        Kind::Udp => {
            let mut socket = udp::Client::open(options.address()).context("open a UDP socket")?;
            datagrams::run(options, &mut socket, &mut report)?;
        }
        Kind::Sctp => {
            let mut socket = sctp::Client::open(options.address()).context("open a socket for SCTP")?;
            datagrams::run(options, &mut socket, &mut report)?;
        }
        Kind::Tcp => stream::run(options, &mut stream::Segments::default(), &mut report),
        Kind::Http => stream::run(options, &mut stream::Requests, &mut report),
    }
    Ok(report.told.tally)
}

/// What is told, printed whenever the tally changes if so wanted.
#[derive(Debug, Default)]
struct Report {
    told: Told,
    aloud: bool,
}

impl Report {
    /// Takes in who has given an answer that is counted next.
    fn answered(&mut self, server: IpAddr, caller: IpAddr) {
        let answers = &mut self.told.answers;
        match answers.iter_mut().find(|known| (known.server, known.caller) == (server, caller)) {
            Some(known) => known.count += 1,
            None => answers.push(Answers { server, caller, count: 1 }),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.told.tally);
        if self.aloud
            && let Ok(line) = serde_json::to_string(&self.told)
        {
            // Nobody reads any more: then nobody wants to know.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }
}

/// The time until a moment, as sockets take it: never zero.
fn until(moment: Instant) -> Duration {
    moment.saturating_duration_since(Instant::now()).max(Duration::from_micros(1))
}
