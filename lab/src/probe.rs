//! `bristle-lab probe`: tries many receivers at the same moment and says of each whether it answered.
//!
//! It runs in pods. Each is tried once with one message of [`crate::traffic`]: a whole TCP connection with an echoed byte, a datagram,
//! the opening of an SCTP association, a ping.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::traffic::{self, Kind, Tally};

/// Who is tried, written `tcp/10.0.0.1:80`, `udp/[fd00::1]:80`, `ping/10.0.0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// What is spoken.
    pub kind: Kind,
    /// Address of the receiver.
    pub to: IpAddr,
    /// Its port; 0 for a ping.
    pub port: u16,
}

/// Whom to try, and how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Receivers: tcp/10.0.0.1:80, udp/[fd00::1]:80, ping/10.0.0.1
    #[arg(required = true, value_name = "RECEIVER")]
    targets: Vec<Target>,
    /// How long each may take, in microseconds
    #[arg(long, default_value_t = 1_000_000, value_name = "US")]
    timeout_us: u64,
}

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What was sent came back.
    Answered,
    /// A reset or an ICMP error came back.
    Refused,
    /// Nothing came back.
    Silent,
}

impl From<Tally> for Answer {
    fn from(tally: Tally) -> Self {
        match tally {
            Tally { answered: 1.., .. } => Self::Answered,
            Tally { resets: 0, errors: 0, .. } => Self::Silent,
            _ => Self::Refused,
        }
    }
}

/// Tries all, and prints their [`Answer`]s in the same order as one line of JSON.
pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    let answers: Vec<Answer> = thread::scope(|scope| {
        let start = |target: &Target| {
            let options = target.options(options.timeout_us);
            scope.spawn(move || traffic::tally(&options))
        };
        let running: Vec<_> = options.targets.iter().map(start).collect();
        let end = |(handle, target): (thread::ScopedJoinHandle<'_, anyhow::Result<Tally>>, &Target)| {
            let ended = handle.join().map_err(|_| anyhow::anyhow!("the thread ended early"));
            ended.flatten().map(Answer::from).with_context(|| format!("try {target}"))
        };
        running.into_iter().zip(&options.targets).map(end).collect::<anyhow::Result<_>>()
    })?;
    println!("{}", serde_json::to_string(&answers).context("write the answers")?);
    Ok(ExitCode::SUCCESS)
}

impl Target {
    fn options(&self, timeout_us: u64) -> traffic::Options {
        traffic::Options {
            kind: self.kind,
            to: self.to,
            port: self.port,
            count: 1,
            interval_us: 0,
            size: 8,
            timeout_us,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = SocketAddr::new(self.to, self.port);
        match self.kind {
            Kind::Ping => write!(f, "ping/{}", self.to),
            Kind::Http => write!(f, "http/{address}"),
            Kind::Tcp => write!(f, "tcp/{address}"),
            Kind::Udp => write!(f, "udp/{address}"),
            Kind::Sctp => write!(f, "sctp/{address}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not KIND/ADDRESS:PORT, or ping/ADDRESS");
        let (kind, address) = text.split_once('/').ok_or_else(wrong)?;
        if kind == "ping" {
            let to = address.parse().map_err(|_| wrong())?;
            return Ok(Self { kind: Kind::Ping, to, port: 0 });
        }
        let kind = match kind {
            "http" => Kind::Http,
            "tcp" => Kind::Tcp,
            "udp" => Kind::Udp,
            "sctp" => Kind::Sctp,
            _ => return Err(wrong()),
        };
        let address: SocketAddr = address.parse().map_err(|_| wrong())?;
        Ok(Self { kind, to: address.ip(), port: address.port() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_read_as_they_are_written() {
        for text in
            ["tcp/10.0.0.1:80", "udp/[fd00::1]:81", "http/10.0.0.1:8080", "sctp/[fd00::1]:82", "ping/fd00::1"]
        {
            assert_eq!(text.parse::<Target>().map(|target| target.to_string()), Ok(text.to_owned()));
        }
        for wrong in ["", "tcp", "tcp/10.0.0.1", "ping/10.0.0.1:80", "dccp/10.0.0.1:80", "udp/fd00::1:80"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_outweighs_errors_and_errors_outweigh_silence() {
        let tally = |answered, resets, errors| Tally { sent: 1, answered, resets, errors };
        for (tally, answer) in [
            (tally(1, 0, 1), Answer::Answered),
            (tally(0, 1, 0), Answer::Refused),
            (tally(0, 0, 1), Answer::Refused),
            (tally(0, 0, 0), Answer::Silent),
        ] {
            assert_eq!(Answer::from(tally), answer);
        }
    }
}
