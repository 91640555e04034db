//! What a case came to: broken invariants, the answer, the captures.

use std::path::Path;

use sim_native::{Report, Seen};
use sim_scenario::model::{Traffic, TrafficKind};

use crate::capture;
use crate::matrix::{Case, Expect};
use crate::profile::{self, Flow};

use super::scenario::{End, TRAFFIC};

/// What was not as it must be in every scenario: an invariant, or a step that could not be done.
pub(super) fn broken(report: &Report) -> Option<String> {
    match &report.violation {
        Some(violation) if violation.invariant == "expectation" => Some(violation.message.clone()),
        Some(violation) => {
            let at = violation.at.as_secs_f64();
            Some(format!(
                "the invariant {} does not hold at {at:.6} s: {}",
                violation.invariant, violation.message
            ))
        }
        None => report.outcome.failures.first().cloned(),
    }
}

/// A node on which the policies that are there are not in force, by what its agent says.
pub(super) fn behind(report: &Report) -> Option<String> {
    let latest = report.policy_version;
    let behind = report.policy_revisions.iter().find(|(_, revision)| **revision < latest);
    behind.map(|(node, revision)| {
        format!("node {node} has the policy revision {revision}, the latest policy is {latest}")
    })
}

/// What is wrong with the answer, if anything.
pub(super) fn answer(case: &Case, traffic: &Traffic, report: &Report) -> Option<String> {
    let tool = match traffic.kind {
        TrafficKind::Http => "http",
        _ => "ping",
    };
    let Some(outcome) = report.outcome.traffic.get(TRAFFIC) else {
        return Some(format!("{tool} was not sent"));
    };
    let answered = outcome.verdict == "ok";
    match case.expect {
        Expect::NoAnswer if answered => {
            Some(format!("{tool} was answered, and policy should have stopped it"))
        }
        Expect::NoAnswer => None,
        _ if answered => None,
        _ if outcome.sent == 0 => Some(format!("{tool} could not be sent")),
        _ if outcome.verdict == "refused" => Some(format!("{tool} was refused")),
        _ => Some(format!("{tool} was not answered within {} s", traffic.timeout.as_secs())),
    }
}

/// Writes a capture and says what it lacks or has too much of.
pub(super) fn capture(end: &End<'_>, flow: Option<&Flow>, frames: &[Seen], path: &Path) -> Option<String> {
    let failed = |why: String| Some(format!("no capture at the {}: {why}", end.word));
    if let Err(error) = sim_native::write_capture(path, frames) {
        return failed(error.to_string());
    }
    let Some(flow) = flow else { return failed("an end has no address of this family".to_owned()) };
    let capture = match capture::read_file(path) {
        Ok(capture) => capture,
        Err(error) => return failed(error.to_string()),
    };
    let findings = profile::check(&end.requirements, flow, &capture);
    if findings.is_empty() {
        return None;
    }
    let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
    Some(format!("capture at the {}: {}", end.word, list.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;
    use std::time::Duration;

    use sim_scenario::model::Place;
    use sim_scenario::outcome::TrafficOutcome;

    use crate::matrix::{Matrix, Requirements, Token};

    fn report() -> Report {
        sim_native::run(
            &sim_scenario::Scenario::builder("empty").nodes(1).wait_rest().build().expect("is valid"),
            &sim_native::Options::default(),
        )
    }

    #[test]
    fn an_answer_is_judged_by_what_the_case_expects() {
        let matrix = Matrix::built_in().expect("the matrix that is compiled in can be read");
        let case = |expect| matrix.cases.iter().find(|case| case.expect == expect).expect("a case");
        let place: Place = "pod/a".parse().expect("a place");
        let mut traffic = Traffic::new(TRAFFIC, place.clone(), place, TrafficKind::Http);
        traffic.timeout = Duration::from_secs(5);
        let mut report = report();
        for (expect, verdict, problem) in [
            (Expect::HttpOk, "ok", None),
            (Expect::HttpOk, "silent", Some("http was not answered within 5 s")),
            (Expect::HttpOk, "refused", Some("http was refused")),
            (Expect::NoAnswer, "silent", None),
            (Expect::NoAnswer, "ok", Some("http was answered, and policy should have stopped it")),
        ] {
            let outcome =
                TrafficOutcome { sent: 1, verdict: verdict.to_owned(), ..TrafficOutcome::default() };
            report.outcome.traffic.insert(TRAFFIC.to_owned(), outcome);
            assert_eq!(answer(case(expect), &traffic, &report).as_deref(), problem, "{verdict}");
        }
        report.outcome.traffic.clear();
        assert_eq!(answer(case(Expect::HttpOk), &traffic, &report).as_deref(), Some("http was not sent"));
    }

    #[test]
    fn a_capture_without_the_packets_of_its_profile_is_complained_of() {
        let requirements = Requirements { need: vec![Token::Syn], never: vec![] };
        let end = End { word: "source", tap: String::new(), requirements: Cow::Borrowed(&requirements) };
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.pcap");
        let source = "10.0.0.1".parse().expect("an address");
        let flow = Some(Flow { source, target: None, ports: vec![80] });
        let complaint = capture(&end, flow.as_ref(), &[], &path);
        assert_eq!(complaint.as_deref(), Some("capture at the source: no SYN"));
        assert!(path.is_file());
        let nowhere = capture(&end, flow.as_ref(), &[], &dir.path().join("no/a.pcap"));
        assert!(nowhere.is_some_and(|why| why.starts_with("no capture at the source")));
    }
}
