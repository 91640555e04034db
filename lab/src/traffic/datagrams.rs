//! Messages that go out at their times, whatever comes back.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use super::{Options, Report, until};

/// Longest sleep in a receive, so that nothing depends on how sockets round.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Received {
    /// The answer with this payload.
    Answer(Vec<u8>),
    /// An ICMP error.
    Error,
}

/// A socket for messages.
pub(super) trait Datagrams {
    /// Sends a payload.
    fn send(&mut self, number: u32, payload: &[u8]) -> io::Result<()>;
    /// Waits so long at most for something that comes back.
    fn receive(&mut self, wait: Duration) -> io::Result<Option<Received>>;
}

/// Sends all messages and waits for their answers.
pub(super) fn run(options: &Options, socket: &mut impl Datagrams, report: &mut Report) -> io::Result<()> {
    let mut waiting: BTreeMap<u32, Instant> = BTreeMap::new();
    let mut number = 0;
    let mut next = Instant::now();
    while number < options.count || !waiting.is_empty() {
        let now = Instant::now();
        if number < options.count && now >= next {
            let payload = options.payload(number);
            // An error of an earlier one comes back here too. No route or no room: it counts as lost when its time is over.
            if let Err(error) = socket.send(number, &payload)
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                report.change(|tally| tally.errors += 1);
                let _ = socket.send(number, &payload);
            }
            waiting.insert(number, now + options.timeout());
            number += 1;
            // A pause, not a schedule: a sender that was held up does not send in a burst afterwards.
            next = now + options.interval();
        }
        let over: Vec<u32> =
            waiting.iter().filter(|(_, deadline)| **deadline <= now).map(|(n, _)| *n).collect();
        for lost in over {
            waiting.remove(&lost);
            report.change(|tally| tally.sent += 1);
        }
        let more = (number < options.count).then_some(next);
        let Some(wake) = waiting.values().copied().chain(more).min() else { return Ok(()) };
        match socket.receive(until(wake).min(LONGEST_WAIT))? {
            Some(Received::Answer(payload)) => {
                if let Some(number) = answered(&waiting, &payload, options.size) {
                    waiting.remove(&number);
                    report
                        .change(|tally| (tally.sent, tally.answered) = (tally.sent + 1, tally.answered + 1));
                }
            }
            Some(Received::Error) => report.change(|tally| tally.errors += 1),
            None => {}
        }
    }
    Ok(())
}

/// Which message an answer is for: the first with its number, as far as the payload has room for one.
fn answered(waiting: &BTreeMap<u32, Instant>, payload: &[u8], size: u16) -> Option<u32> {
    if payload.len() != usize::from(size) {
        return None;
    }
    let room = payload.len().min(4);
    waiting.keys().copied().find(|number| number.to_le_bytes()[..room] == payload[..room])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Kind, Tally};

    fn options(count: u32, size: u16) -> Options {
        Options {
            kind: Kind::Udp,
            to: std::net::IpAddr::from([127, 0, 0, 1]),
            port: 9,
            count,
            interval_us: 1000,
            size,
            timeout_us: 50_000,
        }
    }

    /// Answers what it is told to; each answer comes twice.
    struct Server {
        answers: Vec<u32>,
        back: Vec<Received>,
    }

    impl Datagrams for Server {
        fn send(&mut self, number: u32, payload: &[u8]) -> io::Result<()> {
            if self.answers.contains(&number) {
                self.back.extend([Received::Answer(payload.to_vec()), Received::Answer(payload.to_vec())]);
            }
            Ok(())
        }

        fn receive(&mut self, wait: Duration) -> io::Result<Option<Received>> {
            let answer = self.back.pop();
            if answer.is_none() {
                std::thread::sleep(wait);
            }
            Ok(answer)
        }
    }

    #[test]
    fn each_message_is_answered_once_or_lost() {
        for (size, answers, expected) in
            [(56, vec![0, 1, 2], 3), (56, vec![0, 2], 2), (4, vec![1], 1), (56, vec![], 0)]
        {
            let mut report = Report::default();
            let mut server = Server { answers, back: Vec::new() };
            run(&options(3, size), &mut server, &mut report).expect("it runs");
            let tally = Tally { sent: 3, answered: expected, resets: 0, errors: 0 };
            assert_eq!(report.told.tally, tally, "{size}");
        }
    }

    #[test]
    fn answers_are_told_apart_as_far_as_there_is_room() {
        let waiting: BTreeMap<u32, Instant> = [3, 7, 259].map(|n| (n, Instant::now())).into();
        let of = |number: u32, size: u16| answered(&waiting, &options(1, size).payload(number), size);
        assert_eq!((of(7, 56), of(259, 56), of(8, 56)), (Some(7), Some(259), None));
        assert_eq!(of(259, 1), Some(3), "the first with that byte");
        assert_eq!(of(8, 0), Some(3), "any");
        assert_eq!(answered(&waiting, b"1234", 56), None, "of another size");
    }
}
