//! What `bristle-sim` does with a failure, from the command line: exit codes, what is told, and the files that are left.

use std::path::Path;
use std::process::{Command, Output};

use pcap_parser::data::{PacketData, get_packetdata};
use pcap_parser::{PcapBlockOwned, PcapError, create_reader};
use sim_scenario::model::Fault;
use sim_scenario::{Replay, Scenario};

/// A scenario that wants a pod not to be ready which nothing keeps from it; the rest has nothing to do with that.
const FAILS: &str = "
bristle: scenario/v1
name: not-to-be-ready
cluster: {nodes: 2}
steps:
  - pod: {name: a, node: node-1}
  - pod: {name: b, node: node-2, serve: ['tcp:9000']}
  - wait: ready
  - traffic: {id: t, from: pod/a, to: pod/b, kind: tcp, port: 9000, count: 3}
  - fault: {node: node-2, kill: {restart-after: 100ms}}
  - wait: rest
  - expect: {not-ready: b}
";

fn sim(args: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bristle-sim"));
    command.args(args).current_dir(dir).output().expect("bristle-sim runs")
}

/// Exit code, standard output and standard error.
fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A directory with the scenario and what its run with seed 3 left.
fn failed() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("bug.yaml"), FAILS).expect("is written");
    let (code, out, err) = told(&sim(&["run", "bug.yaml", "--seed", "3", "--out", "found"], dir.path()));
    assert_eq!(code, Some(1), "{out}{err}");
    (dir, out)
}

/// The Ethernet frames of a capture.
fn frames(path: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut reader = create_reader(1 << 20, file).unwrap_or_else(|error| panic!("{error}"));
    let (mut frames, mut link) = (Vec::new(), None);
    loop {
        match reader.next() {
            Ok((length, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => link = Some(header.network),
                    PcapBlockOwned::Legacy(packet) => {
                        let link = link.expect("the header comes first");
                        let data = get_packetdata(packet.data, link, packet.caplen as usize);
                        let Some(PacketData::L2(bytes)) = data else { panic!("no Ethernet frame") };
                        frames.push(bytes.to_vec());
                    }
                    PcapBlockOwned::NG(_) => panic!("another format"),
                }
                reader.consume(length);
            }
            Err(PcapError::Eof) => return frames,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap_or_else(|error| panic!("{error}")),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn good_seeds_are_explored_and_leave_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let words = ["explore", "--seeds", "4", "--profile", "quiet", "--jobs", "2", "-o", "json"];
    let (code, out, err) = told(&sim(&words, dir.path()));
    assert_eq!(code, Some(0), "{out}{err}");
    let sum: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    assert_eq!((&sum["runs"], &sum["failures"], &sum["first"]), (&4.into(), &0.into(), &1.into()));
    // Nothing breaks there; that all is healed at the end is a word of its own.
    let never = |field: &str| sum[field].as_array().map(Vec::len);
    assert_eq!(never("faults-never"), Some(Fault::WORDS.len() - 1), "{out}");
    assert!(never("drops-never") > Some(0), "{out}");
    assert!(!dir.path().join("sim-failures").exists());

    let (code, out, _) = told(&sim(&["explore", "--seeds", "2", "--first", "9"], dir.path()));
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("2 runs of profile mixed in "), "{out}");
    let (code, _, err) = told(&sim(&["explore", "--profile", "loud"], dir.path()));
    assert_eq!(code, Some(2));
    assert!(err.starts_with("error: there is no profile loud; there are mixed, "), "{err}");
}

#[test]
fn a_scenario_that_fails_says_what_and_when_and_leaves_replay_and_capture() {
    let (dir, out) = failed();
    let first = out.lines().next().expect("a line");
    assert!(first.starts_with("expectation broken at "), "{first}");
    let told = first.strip_prefix("expectation broken at ").and_then(|rest| rest.split_once(" s: "));
    let (at, message) = told.expect("a moment and a sentence");
    assert!(at.parse::<f64>().expect("seconds of virtual time") > 0.1, "{first}");
    assert!(message.starts_with("step 7: ") && message.contains("default/b"), "{first}");
    for line in [
        "replay:  cargo xtask sim replay found/not-to-be-ready-3.yaml",
        "smaller: cargo xtask sim shrink found/not-to-be-ready-3.yaml",
        "frames:  found/not-to-be-ready-3.pcap",
    ] {
        assert!(out.lines().any(|there| there == line), "no `{line}` in {out}");
    }
    let replay = Replay::load(dir.path().join("found/not-to-be-ready-3.yaml")).expect("a replay").replay;
    assert_eq!((replay.seed, replay.profile), (3, None));
    assert_eq!(replay.scenario, Scenario::parse(FAILS, "here").expect("a scenario"));
    assert_eq!(
        (replay.violation.invariant.as_str(), replay.violation.message.as_str()),
        ("expectation", message)
    );
    assert_eq!(format!("{:.6}", replay.violation.at.as_secs_f64()), at);
    assert!(out.contains(&format!("trace {}", replay.trace_hash)), "{out}");
    let frames = frames(&dir.path().join("found/not-to-be-ready-3.pcap"));
    // TCP between two pods is among them.
    let is_tcp = |frame: &Vec<u8>| frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&6);
    assert!(frames.iter().any(is_tcp), "{} frames", frames.len());
}

#[test]
fn what_a_program_reads_of_a_failure_is_the_outcome_alone() {
    let (dir, _) = failed();
    let (code, out, err) = told(&sim(&["run", "bug.yaml", "-o", "json"], dir.path()));
    assert_eq!(code, Some(1));
    let outcome: sim_scenario::Outcome =
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    assert_eq!(outcome.failures.len(), 1, "{outcome:?}");
    assert!(err.contains("sim-failures/not-to-be-ready-1.yaml"), "{err}");
    assert!(dir.path().join("sim-failures/not-to-be-ready-1.yaml").is_file());
}

#[test]
fn a_failure_is_repeated_exactly() {
    let (dir, first) = failed();
    let words = ["replay", "found/not-to-be-ready-3.yaml", "--pcap", "again.pcap"];
    let (code, again, err) = told(&sim(&words, dir.path()));
    assert_eq!(code, Some(1), "{again}{err}");
    assert!(again.ends_with("the run is the same as the one recorded\n"), "{again}");
    assert_eq!(first.lines().next(), again.lines().next());
    let read = |file: &str| std::fs::read(dir.path().join(file)).expect("a capture");
    assert!(read("again.pcap") == read("found/not-to-be-ready-3.pcap"), "the frames are the same");
    assert_eq!(err, "");

    let text = std::fs::read_to_string(dir.path().join("found/not-to-be-ready-3.yaml")).expect("a replay");
    let other = text.replace("not-ready: b", "pods-ready: 2");
    std::fs::write(dir.path().join("mended.yaml"), other).expect("is written");
    let (code, out, _) = told(&sim(&["replay", "mended.yaml"], dir.path()));
    assert_eq!(code, Some(0));
    assert!(out.starts_with("nothing is broken any more (it was expectation: step 7: "), "{out}");
}

#[test]
fn a_failure_is_made_smaller_and_fails_still() {
    let (dir, _) = failed();
    let (code, out, err) = told(&sim(&["shrink", "found/not-to-be-ready-3.yaml"], dir.path()));
    assert_eq!(code, Some(0), "{out}{err}");
    let small = dir.path().join("found/not-to-be-ready-3.small.yaml");
    let replay = Replay::load(&small).expect("a replay").replay;
    assert!(replay.scenario.steps.len() < 4, "{}", replay.to_yaml());
    assert_eq!(replay.violation.invariant, "expectation");
    assert!(replay.violation.message.contains("default/b"), "{}", replay.violation.message);
    let (code, out, _) = told(&sim(&["replay", "found/not-to-be-ready-3.small.yaml"], dir.path()));
    assert_eq!(code, Some(1));
    assert!(out.ends_with("the run is the same as the one recorded\n"), "{out}");

    let words = ["shrink", "bug.yaml", "--seed", "3", "-o", "of-a-scenario.yaml"];
    let (code, out, err) = told(&sim(&words, dir.path()));
    assert_eq!(code, Some(0), "{out}{err}");
    let same = Replay::load(dir.path().join("of-a-scenario.yaml")).expect("a replay").replay;
    assert_eq!(same, replay, "whether from its replay or from the scenario");
}

#[test]
fn what_does_not_fail_is_not_made_smaller() {
    let (dir, _) = failed();
    let text = std::fs::read_to_string(dir.path().join("bug.yaml")).expect("the scenario");
    std::fs::write(dir.path().join("good.yaml"), text.replace("not-ready: b", "pods-ready: 2"))
        .expect("is written");
    let (code, _, err) = told(&sim(&["shrink", "good.yaml", "--seed", "3"], dir.path()));
    assert_eq!(code, Some(2));
    assert_eq!(err, "error: good.yaml does not fail with seed 3: there is nothing to shrink\n");
    let (code, _, err) = told(&sim(&["shrink", "bug.yaml"], dir.path()));
    assert_eq!(code, Some(2));
    assert!(err.contains("found format `scenario/v1`, this reads `replay/v1` alone"), "{err}");
}

#[test]
fn a_replay_of_another_format_is_refused_and_of_another_version_told_of() {
    let (dir, _) = failed();
    let text = std::fs::read_to_string(dir.path().join("found/not-to-be-ready-3.yaml")).expect("a replay");
    let write = |text: String| std::fs::write(dir.path().join("other.yaml"), text).expect("is written");
    write(text.replace("replay/v1", "replay/v2"));
    let (code, out, err) = told(&sim(&["replay", "other.yaml"], dir.path()));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(err, "error: other.yaml:1:10: found format `replay/v2`, this reads `replay/v1` alone\n");
    write(text.replace(&format!("version: {}", env!("CARGO_PKG_VERSION")), "version: 99.0.0"));
    let (code, out, err) = told(&sim(&["replay", "other.yaml"], dir.path()));
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.starts_with("warning: other.yaml was written by version 99.0.0 and this is "), "{err}");
}

#[test]
fn the_scenarios_that_the_help_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (code, out, _) = told(&sim(&["--help"], &root));
    assert_eq!(code, Some(0));
    let named: Vec<&str> = out.split_whitespace().filter(|word| word.starts_with("sim/scenarios/")).collect();
    assert!(!named.is_empty(), "{out}");
    for file in named {
        assert!(root.join(file).is_file(), "{file}");
    }
}
