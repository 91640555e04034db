//! `bristle-lab fault`: breaking things by hand.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use lab::control::{Request, Response};
use lab::fault::{ApiFault, CniFault, Fault, FaultKind, LinkFault};
use lab::plan::LabName;

use super::{ask, say};

/// Shown below the help.
pub(crate) const EXAMPLES: &str = "\
Faults that last go on until their --for is over or until `fault heal`. Without NODE they happen to all nodes.

Examples:
  cargo xtask lab up --software-fabric --record-state 1m
  cargo xtask lab fault link node-1 --loss 0.1 --delay 20ms --jitter 5ms --for 30s
  cargo xtask lab fault partition node-2
  cargo xtask lab fault kill node-1 --restart-after 5s --snapshot-age 10s
  cargo xtask lab fault stall node-1 --for 10s
  cargo xtask lab fault api down node-1 --for 20s
  cargo xtask lab fault cni late-del 3s
  cargo xtask lab fault list
  cargo xtask lab fault heal

Watch meanwhile: `lab shell client -- ping node-2`, `lab logs -f node-1`, `lab shell node-1 -- /opt/bristle/bin/bristle monitor`.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Break a node's link; needs a lab made with --software-fabric
    Link {
        /// Node; all without
        node: Option<String>,
        #[command(flatten)]
        link: Link,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Cut a node from the other nodes, not from the API server; needs a lab made with --software-fabric
    Partition {
        /// Node; all without
        node: Option<String>,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Kill a node's agent and start it again
    Kill {
        /// Node; all without
        node: Option<String>,
        /// Start it again so much later
        #[arg(long, default_value = "0s", value_name = "TIME", value_parser = duration)]
        restart_after: Duration,
        /// Let it find its state directory as it was so much before; needs a lab made with --record-state
        #[arg(long, default_value = "0s", value_name = "TIME", value_parser = duration)]
        snapshot_age: Duration,
    },
    /// Let a node's agent stand still while packets go on
    Stall {
        /// Node; all without
        node: Option<String>,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Let the API server misbehave towards a node (everything that calls from the node's addresses)
    Api {
        #[command(subcommand)]
        fault: Api,
    },
    /// Let a node's container runtime misbehave
    Cni {
        #[command(subcommand)]
        fault: Cni,
    },
    /// Show what is broken, and what happened on links so far
    List,
    /// Mend everything that lasts
    Heal {
        /// Node; all without
        node: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Lasts {
    /// How long it lasts; without it until `fault heal`
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasts: Option<Duration>,
}

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = true)]
pub(crate) struct Link {
    /// Probability that a frame is lost, 0 to 1
    #[arg(long, value_name = "P")]
    loss: Option<f64>,
    /// Probability that a frame comes twice
    #[arg(long, value_name = "P")]
    duplicate: Option<f64>,
    /// Probability that a frame is overtaken by later ones
    #[arg(long, value_name = "P")]
    reorder: Option<f64>,
    /// Probability that a byte is changed
    #[arg(long, value_name = "P")]
    corrupt: Option<f64>,
    /// Delay of every frame, each way
    #[arg(long, value_name = "TIME", value_parser = duration)]
    delay: Option<Duration>,
    /// Up to so much more delay, at random
    #[arg(long, value_name = "TIME", value_parser = duration)]
    jitter: Option<Duration>,
    /// Let larger IP packets vanish
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct Where {
    /// Node; all without
    node: Option<String>,
    #[command(flatten)]
    lasts: Lasts,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Api {
    /// Cut watches; the agent must list again
    Cut {
        /// Node; all without
        node: Option<String>,
    },
    /// Break every connection
    Down(Where),
    /// Deliver changes late
    Slow {
        /// How late
        #[arg(value_parser = duration)]
        lag: Duration,
        #[command(flatten)]
        at: Where,
    },
    /// Show only the last of several changes of an object
    Coalesce(Where),
    /// Deliver every change twice
    Duplicate(Where),
    /// Deliver changes of different objects in another order
    Reorder(Where),
    /// Answer the next list as a replica that is behind
    Stale {
        /// Behind by so many changes
        changes: u32,
        /// Node; all without
        node: Option<String>,
    },
    /// Break off the next list half way
    PartialList {
        /// Node; all without
        node: Option<String>,
    },
    /// Answer lists and watches with an error; 410: watches alone
    Error {
        /// HTTP status
        status: u16,
        #[command(flatten)]
        at: Where,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cni {
    /// Send every ADD twice
    RepeatAdd(Where),
    /// Send every DEL again later
    RepeatDel {
        /// How much later
        #[arg(value_parser = duration)]
        after: Duration,
        #[command(flatten)]
        at: Where,
    },
    /// Send DELs late, when the pod is gone
    LateDel {
        /// How late
        #[arg(value_parser = duration)]
        after: Duration,
        #[command(flatten)]
        at: Where,
    },
    /// Send a DEL before every ADD
    DelFirst(Where),
    /// Remove the pod's network namespace before the ADD
    NetnsGone(Where),
    /// Call GC once, with the attachments that are there
    Gc {
        /// Node; all without
        node: Option<String>,
    },
}

/// Reads `150ms`, `2s`, `1m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    parsed.ok_or_else(|| format!("`{text}` is no time: write 250us, 150ms, 2s, 5m or 1h"))
}

/// Runs `fault`.
pub(crate) fn fault(name: &LabName, command: Command) -> anyhow::Result<()> {
    let fault = match command {
        Command::List => return list(name),
        Command::Heal { node } => {
            ask(name, &Request::Heal { node })?;
            say(format_args!("healed"));
            return Ok(());
        }
        Command::Link { node, link, lasts } => of(node, &lasts, FaultKind::Link(link.fault())),
        Command::Partition { node, lasts } => of(node, &lasts, FaultKind::Partition),
        Command::Kill { node, restart_after, snapshot_age } => {
            once(node, FaultKind::Kill { restart_after, snapshot_age })
        }
        Command::Stall { node, lasts } => of(node, &lasts, FaultKind::Stall),
        Command::Api { fault } => fault.fault(),
        Command::Cni { fault } => fault.fault(),
    };
    let what = fault.kind.name();
    let node = fault.node.clone().unwrap_or_else(|| "all nodes".to_owned());
    let until = match (fault.kind.is_momentary(), fault.lasts) {
        (true, _) => String::new(),
        (false, Some(lasts)) => format!(" for {lasts:?}"),
        (false, None) => " until `fault heal`".to_owned(),
    };
    ask(name, &Request::Fault(fault))?;
    say(format_args!("{what} on {node}{until}"));
    Ok(())
}

fn of(node: Option<String>, lasts: &Lasts, kind: FaultKind) -> Fault {
    Fault { node, lasts: lasts.lasts, kind }
}

fn once(node: Option<String>, kind: FaultKind) -> Fault {
    Fault { node, lasts: None, kind }
}

fn list(name: &LabName) -> anyhow::Result<()> {
    let Response::Faults { active, links } = ask(name, &Request::Faults)? else {
        bail!("unexpected answer");
    };
    if active.is_empty() {
        say(format_args!("nothing is broken"));
    }
    for fault in active {
        let left = fault.left.map_or_else(
            || "until `fault heal`".to_owned(),
            |left| format!("{:.1} s left", left.as_secs_f64()),
        );
        say(format_args!("{:<10} {:<18} {left}", fault.node, fault.name));
    }
    for (node, c) in links {
        say(format_args!(
            "{node:<10} {} frames, {} lost, {} twice, {} held back, {} changed, {} too large",
            c.frames, c.lost, c.duplicated, c.reordered, c.corrupted, c.too_large
        ));
    }
    Ok(())
}

impl Link {
    fn fault(&self) -> LinkFault {
        LinkFault {
            loss: self.loss.unwrap_or_default(),
            duplicate: self.duplicate.unwrap_or_default(),
            reorder: self.reorder.unwrap_or_default(),
            corrupt: self.corrupt.unwrap_or_default(),
            delay: self.delay.unwrap_or_default(),
            jitter: self.jitter.unwrap_or_default(),
            mtu: self.mtu,
        }
    }
}

impl Api {
    fn fault(self) -> Fault {
        let lasting = |at: Where, fault| of(at.node, &at.lasts, FaultKind::Api(fault));
        let once = |node, fault| once(node, FaultKind::Api(fault));
        match self {
            Self::Cut { node } => once(node, ApiFault::Cut),
            Self::Down(at) => lasting(at, ApiFault::Down),
            Self::Slow { lag, at } => lasting(at, ApiFault::Slow(lag)),
            Self::Coalesce(at) => lasting(at, ApiFault::Coalesce),
            Self::Duplicate(at) => lasting(at, ApiFault::Duplicate),
            Self::Reorder(at) => lasting(at, ApiFault::Reorder),
            Self::Stale { changes, node } => once(node, ApiFault::Stale(changes)),
            Self::PartialList { node } => once(node, ApiFault::PartialList),
            Self::Error { status, at } => lasting(at, ApiFault::Error(status)),
        }
    }
}

impl Cni {
    fn fault(self) -> Fault {
        let lasting = |at: Where, fault| of(at.node, &at.lasts, FaultKind::Cni(fault));
        match self {
            Self::RepeatAdd(at) => lasting(at, CniFault::RepeatAdd),
            Self::RepeatDel { after, at } => lasting(at, CniFault::RepeatDel(after)),
            Self::LateDel { after, at } => lasting(at, CniFault::LateDel(after)),
            Self::DelFirst(at) => lasting(at, CniFault::DelFirst),
            Self::NetnsGone(at) => lasting(at, CniFault::NetnsGone),
            Self::Gc { node } => once(node, FaultKind::Gc),
        }
    }
}
