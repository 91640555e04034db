//! Two hosts side by side through a scenario.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use dataplane_abi::program::Program;
use dataplane_loader::Clock;

use crate::SLACK_S;
use crate::frame;
use crate::host::{Dump, Host, Outcome, TIMED, split_times};
use crate::scenario::{Input, Scenario, Step};

/// Where the hosts differ.
#[derive(Debug)]
pub(crate) struct Mismatch {
    step: usize,
    input: Option<Input>,
    what: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "step {}", self.step)?;
        if let Some(input) = &self.input {
            writeln!(
                f,
                "program {} on device {}, mark {:#x}, segments of {}\nframe {}",
                input.program.name(),
                input.ifindex,
                input.mark,
                input.gso_size,
                hex(&input.frame)
            )?;
        }
        f.write_str(&self.what)
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("strings take all");
    }
    text
}

/// What was tried, to see that the generator still reaches what it should.
#[derive(Default)]
pub(crate) struct Tally {
    /// Frames that both hosts ran.
    pub(crate) compared: usize,
    /// Frames that the kernel does not make.
    pub(crate) refused: usize,
    verdicts: BTreeMap<(&'static str, i32), usize>,
    events: BTreeMap<(u8, u8), usize>,
    rows: BTreeMap<&'static str, usize>,
    /// Packets that got another destination, and another source.
    calls: usize,
    answers: usize,
    /// Packets that left by the underlay and came in there for others than before.
    left: usize,
    came: usize,
    /// Packets of callers outside that went into the tunnel by a port of the node, and answers to such ports.
    sent_on: usize,
    came_back: usize,
}

impl Tally {
    fn add(&mut self, input: &Input, outcome: &Outcome) {
        self.compared += 1;
        *self.verdicts.entry((input.program.name(), outcome.verdict)).or_default() += 1;
        if outcome.verdict != 2
            && let Some((was, is)) = frame::ends(&input.frame).zip(frame::ends(&outcome.frame))
        {
            self.calls += usize::from(was.1 != is.1);
            self.answers += usize::from(was.0 != is.0);
            self.left += usize::from(input.program == Program::ToNetdev && was.0 != is.0);
            self.came += usize::from(input.program == Program::FromNetdev && was.1 != is.1);
            self.sent_on += usize::from(input.program == Program::FromHost && was.0 != is.0);
            self.came_back += usize::from(input.program == Program::FromOverlay && was.1 != is.1);
        }
        for event in &outcome.events {
            *self.events.entry((event.header.kind, event.header.subtype)).or_default() += 1;
        }
    }

    /// Fails when a run of some length has not met what matters.
    pub(crate) fn assert_variety(&self) {
        if self.compared < 50_000 {
            return;
        }
        for program in
            ["from_container", "to_container", "from_overlay", "from_netdev", "to_netdev", "from_host"]
        {
            let kinds = self.verdicts.keys().filter(|(name, _)| *name == program).count();
            assert!(kinds >= 3, "{program} came to {kinds} kinds of verdict only: {self}");
        }
        for table in ["CT4", "CT6", "FRAGS4", "FRAGS6", "NAT4", "NAT6", "METRICS", "STAGED"] {
            assert!(self.rows.get(table).is_some_and(|&rows| rows > 100), "few rows in {table}: {self}");
        }
        assert!(self.calls > 500 && self.answers > 300, "few packets were translated: {self}");
        assert!(self.left > 500 && self.came > 200, "few packets were masqueraded: {self}");
        assert!(self.sent_on > 10 && self.came_back > 10, "few callers were outside: {self}");
        assert!(self.events.len() >= 15, "few kinds of events: {self}");
        // Drops by policy, and verdicts: allowed, denied, denied by a rule.
        for event in [(1, 133), (1, 181), (5, 0), (5, 133), (5, 181)] {
            assert!(self.events.get(&event).is_some_and(|&count| count > 100), "few of {event:?}: {self}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "verdicts")?;
        for ((program, verdict), count) in &self.verdicts {
            write!(f, " {program}:{verdict}×{count}")?;
        }
        write!(f, "; events")?;
        for ((kind, subtype), count) in &self.events {
            write!(f, " {kind}/{subtype}×{count}")?;
        }
        write!(f, "; calls {} answers {}", self.calls, self.answers)?;
        write!(f, " masqueraded {} back {}", self.left, self.came)?;
        write!(f, " sent on {} back {}; rows", self.sent_on, self.came_back)?;
        for (table, count) in &self.rows {
            write!(f, " {table}×{count}")?;
        }
        Ok(())
    }
}

/// Runs a scenario on both hosts. The tables are compared at the end, or after each step with `closely`.
pub(crate) fn run(
    scenario: &Scenario,
    kernel: &mut impl Host,
    native: &mut impl Host,
    clock: &Clock,
    closely: bool,
    tally: &mut Tally,
) -> Result<(), Mismatch> {
    let slack = SLACK_S * clock.ticks_per_s();
    kernel.reset(&scenario.world);
    native.reset(&scenario.world);
    for (number, step) in scenario.steps.iter().enumerate() {
        let mismatch =
            |input: Option<&Input>, what: String| Mismatch { step: number, input: input.cloned(), what };
        match step {
            Step::Packet(input) => {
                // The kernel first: its ticks are those of this moment, and the native host is told them.
                let Some(there) = kernel.packet(input, 0) else {
                    tally.refused += 1;
                    continue;
                };
                let here = native
                    .packet(input, clock.now())
                    .ok_or_else(|| mismatch(Some(input), "the native host refuses the frame".to_owned()))?;
                if here != there {
                    return Err(mismatch(Some(input), differences(&here, &there)));
                }
                tally.add(input, &there);
            }
            Step::Age(ticks) => {
                kernel.age(*ticks);
                native.age(*ticks);
            }
            Step::Configure(config) => {
                kernel.configure(config);
                native.configure(config);
            }
            Step::Endpoint { key, entry } => {
                kernel.endpoint(key, entry.as_ref());
                native.endpoint(key, entry.as_ref());
            }
            Step::Backend { number, entry } => {
                kernel.backend(*number, entry.as_ref());
                native.backend(*number, entry.as_ref());
            }
            Step::Policy { key, entry } => {
                kernel.policy(key, entry.as_ref());
                native.policy(key, entry.as_ref());
            }
        }
        if closely && let Some(what) = tables(&native.dump(), &kernel.dump(), slack) {
            let input = if let Step::Packet(input) = step { Some(input) } else { None };
            return Err(mismatch(input, what));
        }
    }
    let there = kernel.dump();
    for (table, rows) in &there {
        *tally.rows.entry(table).or_default() += rows.len();
    }
    match tables(&native.dump(), &there, slack) {
        Some(what) => Err(Mismatch { step: scenario.steps.len(), input: None, what }),
        None => Ok(()),
    }
}

fn differences(native: &Outcome, kernel: &Outcome) -> String {
    let mut lines = Vec::new();
    if native.verdict != kernel.verdict {
        lines.push(format!("verdict: native {}, kernel {}", native.verdict, kernel.verdict));
    }
    if native.frame != kernel.frame {
        lines.push(format!("frame: native {}\n       kernel {}", hex(&native.frame), hex(&kernel.frame)));
    }
    if native.mark != kernel.mark {
        lines.push(format!("mark: native {:#x}, kernel {:#x}", native.mark, kernel.mark));
    }
    if native.events != kernel.events {
        let list = |outcome: &Outcome| -> Vec<String> {
            outcome.events.iter().map(|event| format!("{:?} {}", event.header, hex(&event.payload))).collect()
        };
        lines.push(format!("events: native {:#?}\n        kernel {:#?}", list(native), list(kernel)));
    }
    lines.join("\n")
}

/// The first difference between the tables, if there is one.
fn tables(native: &Dump, kernel: &Dump, slack: u32) -> Option<String> {
    for (table, there) in kernel {
        let here = &native[table];
        let keys: std::collections::BTreeSet<&Vec<u8>> = here.keys().chain(there.keys()).collect();
        for key in keys {
            let (mine, theirs) = (here.get(key), there.get(key));
            let same = match (mine, theirs) {
                (Some(mine), Some(theirs)) if TIMED.contains(table) => same_connection(mine, theirs, slack),
                (mine, theirs) => mine == theirs,
            };
            if !same {
                let show = |row: Option<&Vec<u8>>| row.map_or_else(|| "none".to_owned(), |row| hex(row));
                return Some(format!(
                    "table {table}, key {}\nnative {}\nkernel {}",
                    hex(key),
                    show(mine),
                    show(theirs)
                ));
            }
        }
    }
    None
}

/// Rows with times are the same when all but the times is, and the times are close.
fn same_connection(native: &[u8], kernel: &[u8], slack: u32) -> bool {
    let ((mine, here), (theirs, there)) = (split_times(native), split_times(kernel));
    let close = |(a, b): (&u32, &u32)| a.wrapping_sub(*b).min(b.wrapping_sub(*a)) <= slack;
    here == there && mine.iter().zip(&theirs).all(close)
}
