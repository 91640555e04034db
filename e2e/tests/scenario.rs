//! Scenarios on network namespaces. Those that need root and the built programs say loudly when they are skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::scenario::{self, Options};
use lab::preflight::can_test;
use sim_scenario::{Outcome, Scenario};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim/scenarios")
}

fn shipped(name: &str) -> Scenario {
    scenario::load(&directory().join(name)).expect("a shipped scenario is right")
}

fn parse(text: &str) -> Scenario {
    Scenario::parse(text, "test.yaml").expect("a scenario")
}

/// Runs a scenario on a lab of its own; `None` where that is not possible.
fn outcome(scenario: &Scenario) -> Option<Outcome> {
    can_test().then(|| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let arm = scenario::up(scenario, &Options { seed: 1, ..Options::default() }, |_| {}).await;
            let arm = arm.unwrap_or_else(|e| panic!("{e:#}"));
            scenario::run(&arm, scenario, |_| {}).await.unwrap_or_else(|e| panic!("{e:#}"))
        })
    })
}

#[test]
fn every_shipped_scenario_can_run_here() {
    let files: Vec<PathBuf> = std::fs::read_dir(directory())
        .expect("there are scenarios")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    assert!(files.len() >= 6);
    for file in files {
        let scenario = scenario::load(&file).unwrap_or_else(|e| panic!("{e:#}"));
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        assert_eq!(scenario::refuse::all(&scenario), Vec::<String>::new(), "{}", file.display());
        assert_eq!(stem, Some(scenario.name.as_str()), "a file is named after its scenario");
    }
}

#[test]
fn traffic_of_every_kind_passes_and_the_end_is_reported() {
    let Some(outcome) = outcome(&shipped("traffic.yaml")) else { return };
    assert_eq!(outcome.failures, Vec::<String>::new());
    assert_eq!(outcome.traffic["tcp-far"].answered, 40);
    assert_eq!(
        (outcome.traffic["nobody"].resets, outcome.traffic["nobody"].verdict.as_str()),
        (2, "refused")
    );
    let pods = |names: &[&str]| names.iter().map(|name| format!("default/{name}")).collect();
    assert_eq!(outcome.end.pods["node-1"], pods(&["client", "near"]));
    assert_eq!(outcome.end.pods, outcome.end.endpoints);
    // Of each family a pod CIDR, the addresses of the node and of its router, and those of its pods.
    assert_eq!(outcome.end.ipcache["node-1"]["node-2"], 8);
    assert_eq!(outcome.end.ipcache["node-2"]["node-1"], 10);
}

#[test]
fn killed_agents_break_no_stream() {
    let Some(outcome) = outcome(&shipped("agent-killed.yaml")) else { return };
    assert_eq!(outcome.failures, Vec::<String>::new());
    for id in ["stream", "stream6", "pings"] {
        assert!(outcome.traffic[id].answered > 50, "{id} went on: {:?}", outcome.traffic[id]);
    }
}

#[test]
fn what_is_not_as_the_scenario_says_is_told() {
    let scenario = parse(
        "
bristle: scenario/v1
name: wrong
cluster: {nodes: 1, family: v4}
steps:
- pod: {name: a, node: node-1}
- pod: {name: b, node: node-1, serve: ['udp:5353']}
- wait: {for: rest, within: 60s}
- traffic: {id: deaf, from: pod/a, to: pod/b, port: 9, kind: udp, count: 2, timeout: 300ms}
- traffic: {id: heard, from: pod/a, to: pod/b, port: 5353, kind: udp, count: 2, expect: fail}
- traffic: {id: nowhere, from: pod/a, to: 10.99.0.1, kind: ping, count: 2, timeout: 300ms, expect: any}
- wait: {for: {traffic: deaf}}
- expect: {pods-ready: 7}
- expect: {allocated: 3}
- expect: {not-ready: a}
- expect: {lost: {traffic: deaf, at-most: 1}}
- expect: {drops: {reason: POLICY_DENIED, at-least: 1}}
- apply: [{apiVersion: v1, kind: Pod, metadata: {name: never}, spec: {nodeName: node-1, containers: [{name: c, image: no/such}]}}]
- wait: {for: ready, within: 2s}
- expect: {pods-ready: 99}
",
    );
    let Some(outcome) = outcome(&scenario) else { return };
    let told = outcome.failures.join("\n");
    for words in [
        "step 8: 2 pods are ready, not 7",
        "step 9: 2 addresses are allocated, not 3",
        "step 10: pod default/a is ready",
        "step 11: traffic deaf lost 2, more than 1",
        "step 12: 0 packets were dropped for POLICY_DENIED, not 1",
        "step 14: pod default/never is not ready or not yet gone after 2s",
        "traffic deaf: 0 of 2 answered",
        "traffic heard: 2 of 2 answered, 0 resets, 0 ICMP errors; none shall be answered",
    ] {
        assert!(told.contains(words), "{words} is not in\n{told}");
    }
    assert!(!told.contains("99"), "nothing after a wait in vain: {told}");
    assert_eq!(outcome.traffic["deaf"].verdict, "refused", "an ICMP error came back");
}

#[test]
fn the_command_says_by_its_exit_code_what_happened() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = |text: &str, more: &[&str]| {
        let file = dir.path().join("scenario.yaml");
        std::fs::write(&file, text).expect("written");
        let output = Command::new(env!("CARGO_BIN_EXE_bristle-e2e"))
            .arg("scenario")
            .arg(&file)
            .args(more)
            .output()
            .expect("the command runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), output.stdout)
    };
    let head = "bristle: scenario/v1\nname: t\ncluster: {nodes: 1}\nsteps:\n";
    let (code, said, _) = run(&format!("{head}- fault: {{skew: 1h}}\n"), &[]);
    assert_eq!(code, Some(2));
    assert!(said.contains("step 1 (fault skew)"), "{said}");
    let (code, said, _) = run(&format!("{head}- wait: {{for: never}}\n"), &[]);
    assert_eq!(code, Some(2));
    assert!(said.contains("scenario.yaml:5:"), "{said}");
    if !can_test() {
        return;
    }
    let json = dir.path().join("outcome.json");
    let json = json.to_str().expect("a path in UTF-8");
    let (code, said, shown) =
        run(&format!("{head}- expect: {{allocated: 3}}\n"), &["-o", "json", "--outcome", json]);
    assert_eq!(code, Some(1), "{said}");
    let shown: Outcome = serde_json::from_slice(&shown).expect("an outcome");
    let written = std::fs::read(json).expect("written");
    assert_eq!(shown, serde_json::from_slice(&written).expect("an outcome"));
    assert_eq!(shown.failures, ["step 1: 0 addresses are allocated, not 3"]);
    assert_eq!(run(&format!("{head}- expect: {{pods-ready: 0}}\n"), &[]).0, Some(0));
}
