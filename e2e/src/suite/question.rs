//! Questions to the cluster: does this pod reach that one?

use std::fmt;

use lab::probe::{Answer, Target};
use lab::traffic::Kind;
use sim_oracle::Protocol;
use sim_policy::suite::Pod;

/// One try, and what must come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) from: Pod,
    pub(super) to: Pod,
    pub(super) target: Target,
    /// Whether it must be answered; if not, nothing at all may come back.
    pub(super) expected: bool,
}

impl Question {
    /// Whether the answer is the right one: what policy forbids is dropped in silence.
    pub(super) fn is_right(&self, answer: Answer) -> bool {
        answer == if self.expected { Answer::Answered } else { Answer::Silent }
    }
}

/// A question and its wrong answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) question: Question,
    pub(super) answer: Answer,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Question { from, to, target, expected } = &self.question;
        let came = match self.answer {
            Answer::Answered => "was answered",
            Answer::Refused => "was refused",
            Answer::Silent => "was not answered",
        };
        let must = if *expected { "must be" } else { "must be dropped" };
        write!(
            f,
            "{}/{} to {}/{} ({target}) {came} and {must}",
            from.namespace, from.name, to.namespace, to.name
        )
    }
}

/// The first few of them in words, and how many there are; none if there are none.
pub(super) fn complaint(wrong: &[Wrong], asked: usize) -> Option<String> {
    let first: Vec<String> = wrong.iter().take(3).map(ToString::to_string).collect();
    (!wrong.is_empty()).then(|| format!("{} of {asked} wrong: {}", wrong.len(), first.join("; ")))
}

/// How a protocol is tried.
pub(super) const fn kind(protocol: Protocol) -> Kind {
    match protocol {
        Protocol::Tcp => Kind::Tcp,
        Protocol::Udp => Kind::Udp,
        Protocol::Icmp => Kind::Ping,
        Protocol::Sctp => Kind::Sctp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(expected: bool) -> Question {
        Question {
            from: Pod::new("x", "a"),
            to: Pod::new("y", "b"),
            target: "tcp/10.0.0.1:80".parse().expect("a receiver"),
            expected,
        }
    }

    #[test]
    fn what_policy_forbids_is_dropped_in_silence() {
        for (expected, answer, right) in [
            (true, Answer::Answered, true),
            (true, Answer::Refused, false),
            (true, Answer::Silent, false),
            (false, Answer::Answered, false),
            (false, Answer::Refused, false),
            (false, Answer::Silent, true),
        ] {
            assert_eq!(question(expected).is_right(answer), right, "{expected} {answer:?}");
        }
    }

    #[test]
    fn complaints_name_the_first_few() {
        assert_eq!(complaint(&[], 9), None);
        let wrong = Wrong { question: question(false), answer: Answer::Answered };
        assert_eq!(
            complaint(&[wrong], 9).as_deref(),
            Some("1 of 9 wrong: x/a to y/b (tcp/10.0.0.1:80) was answered and must be dropped")
        );
    }
}
