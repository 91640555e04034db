//! Files: scenarios by hand and by builder are the same, replay files come back, other versions are told apart.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

use std::time::Duration;

use serde_json::json;
use sim_scenario::builder::{ms, secs};
use sim_scenario::model::{
    ApiFault, CniFault, Enforcement, Expect, Families, FaultKind, LinkFault, Routing, TrafficExpect,
};
use sim_scenario::replay::{RunOptions, Violation};
use sim_scenario::{Known, Replay, Scenario};

/// One of everything, as a person writes it.
const FILE: &str = "\
bristle: scenario/v1
name: everything
description: one of everything
cluster:
  nodes: 2
  routing: native
  mtu: 9000
  pod-cidr-bits: 28
  tables:
    CT4: 64
  host-firewall: true
  enforcement: always
  audit: true
steps:
- pod:
    name: a
    node: node-1
    labels:
      app: web
    serve:
    - http:8080
    - udp:53
- pod:
    name: b
    namespace: shop
- apply:
  - apiVersion: v1
    kind: Service
    metadata:
      name: web
    spec:
      ports:
      - port: 80
- wait: ready
- wait:
    for: rest
    within: 1m
- at: 1500ms
  traffic:
    id: t1
    from: pod/shop/b
    to: pod/a
    kind: udp
    port: 53
    family: dual
    count: 3
    interval: 5ms
    size: 9000
    timeout: 2s
    expect: survive
    background: true
- traffic:
    id: t2
    from: node/node-1
    to: service/web
    kind: ping
- wait:
    for:
      traffic: t1
- wait: 250us
- fault:
    node: node-1
    for: 2s
    link:
      loss: 0.25
      delay: 20ms
      mtu: 1400
- fault:
    node: node-1
    kill:
      after-commands: 3
      restart-after: 1s
      snapshot-age: 5s
- fault: partition
- fault:
    node: node-2
    stall: null
- fault:
    skew: 1h
- fault:
    api: cut
- fault:
    for: 1s
    api:
      slow: 30ms
- fault:
    api:
      error: 503
- fault:
    cni:
      late-del: 2s
- fault:
    for: 1s
    cni: netns-gone
- fault:
    table-full:
      table: CT4
      rows: 0
- fault:
    ring-full: 16
- fault: heal
- expect:
    pods-ready: 2
- expect:
    allocated: 4
- expect: no-drops
- expect:
    drops:
      reason: INVALID_SOURCE_IP
      at-least: 1
- expect:
    lost:
      traffic: t1
      at-most: 2
- expect:
    not-ready: shop/b
- delete-pod: shop/b
- delete:
    apiVersion: v1
    kind: Service
    name: web
";

fn built() -> Scenario {
    let link = LinkFault { loss: 0.25, delay: ms(20), mtu: Some(1400), ..LinkFault::default() };
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    Scenario::builder("everything")
        .description("one of everything")
        .nodes(2)
        .family(Families::Dual)
        .routing(Routing::Native)
        .mtu(9000)
        .pod_cidr_bits(28)
        .table("CT4", 64)
        .host_firewall()
        .enforcement(Enforcement::Always)
        .audit()
        .pod("a", |p| p.node("node-1").label("app", "web").serve("http:8080").serve("udp:53"))
        .pod("b", |p| p.namespace("shop"))
        .apply(vec![service])
        .wait_ready()
        .wait_rest()
        .within(secs(60))
        .at(ms(1500))
        .traffic("t1", "pod/shop/b", "pod/a", |t| {
            let t = t.udp(53).family(Families::Dual).count(3).every(ms(5)).size(9000).timeout(secs(2));
            t.expect(TrafficExpect::Survive).background()
        })
        .traffic("t2", "node/node-1", "service/web", |t| t)
        .wait_traffic("t1")
        .wait(Duration::from_micros(250))
        .fault(FaultKind::Link(link), |f| f.node("node-1").lasts(secs(2)))
        .kill("node-1", |k| k.after_commands(3).restart_after(secs(1)).snapshot_age(secs(5)))
        .fault(FaultKind::Partition, |f| f)
        .fault(FaultKind::Stall, |f| f.node("node-2"))
        .fault(FaultKind::Skew(secs(3600)), |f| f)
        .fault(FaultKind::Api(ApiFault::Cut), |f| f)
        .fault(FaultKind::Api(ApiFault::Slow(ms(30))), |f| f.lasts(secs(1)))
        .fault(FaultKind::Api(ApiFault::Error(503)), |f| f)
        .fault(FaultKind::Cni(CniFault::LateDel(secs(2))), |f| f)
        .fault(FaultKind::Cni(CniFault::NetnsGone), |f| f.lasts(secs(1)))
        .fault(FaultKind::TableFull { table: "CT4".to_owned(), rows: 0 }, |f| f)
        .fault(FaultKind::RingFull(16), |f| f)
        .heal()
        .expect(Expect::PodsReady(2))
        .expect(Expect::Allocated(4))
        .expect(Expect::NoDrops)
        .expect(Expect::Drops { reason: "INVALID_SOURCE_IP".to_owned(), at_least: 1 })
        .expect(Expect::Lost { traffic: "t1".to_owned(), at_most: 2 })
        .expect(Expect::NotReady("shop/b".to_owned()))
        .delete_pod("shop/b")
        .delete("Service", "web")
        .build()
        .unwrap()
}

#[test]
fn file_and_builder_say_the_same() {
    assert_eq!(Scenario::parse_valid(FILE, "t", &Known::default()).unwrap(), built());
    assert_eq!(built().to_yaml(), FILE);
}

/// The page about the format shows a file that can be used.
#[test]
fn the_documented_file_is_one() {
    let page = include_str!("../../../docs/scenario-format.md");
    let example = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let scenario = Scenario::parse_valid(example, "scenario-format.md", &Known::default()).unwrap();
    assert_eq!(scenario.steps.len(), 6);
}

/// Every profile is in the table of the page, with every field and kind.
#[test]
fn the_page_has_all_words() {
    let page = include_str!("../../../docs/scenario-format.md");
    let profiles = sim_scenario::profile::PROFILES.iter().map(|profile| profile.name);
    let file = FILE.lines().skip(4).filter_map(|line| line.trim_start_matches(['-', ' ']).split_once(':'));
    let objects =
        ["apiVersion", "kind", "metadata", "spec", "ports", "app", "CT4", "api", "http", "udp", "pods"];
    for word in file.map(|(word, _)| word).chain(profiles).filter(|word| !objects.contains(word)) {
        assert!(page.contains(&format!("`{word}`")) || page.contains(&format!("{word}:")), "{word}");
    }
}

#[test]
fn what_goes_without_saying_is_not_written() {
    let scenario = Scenario::builder("small").pod("a", |p| p).build().unwrap();
    assert_eq!(scenario.to_yaml(), "bristle: scenario/v1\nname: small\nsteps:\n- pod:\n    name: a\n");
}

#[test]
fn long_and_short_forms_are_one() {
    let steps = |steps: &str| {
        Scenario::parse(&format!("bristle: scenario/v1\nname: t\nsteps: [{steps}]"), "t").unwrap().steps
    };
    for (long, short) in [
        ("wait: {for: rest}", "wait: rest"),
        ("wait: {for: ready, within: 30s}", "wait: ready"),
        ("wait: {for: {time: 2s}}", "wait: 2000ms"),
        ("fault: {heal: }", "fault: heal"),
        ("fault: {heal: null}", "fault: heal"),
        ("delete: {kind: Service, name: s}", "delete: {apiVersion: v1, kind: Service, name: s}"),
        (
            "traffic: {id: t, from: pod/default/a, to: node/n, kind: ping}",
            "traffic: {id: t, from: pod/a, to: node/n, kind: ping, count: 1, interval: 100ms, size: 56, timeout: 5s, expect: ok, background: false}",
        ),
    ] {
        assert_eq!(steps(long), steps(short));
    }
}

#[test]
fn a_builder_says_what_is_wrong_by_step() {
    let wrong = Scenario::builder("t")
        .pod("a", |p| p.serve("http"))
        .traffic("t", "pod/a", "elsewhere", |t| t)
        .pod("b", |p| p)
        .within(secs(1))
        .build()
        .unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "step 1, pod.serve: `http` is no server: write http:PORT, tcp:PORT or udp:PORT\n\
         step 2, traffic.to: `elsewhere` is no place: write pod/NAME, pod/NAMESPACE/NAME, node/NAME, service/NAME, node-port/NODE, world/first, world/second or an IP address\n\
         step 3: `within` comes right after a wait"
    );
    let impossible = Scenario::builder("t").pod("a", |p| p.node("node-9")).build().unwrap_err();
    assert_eq!(
        impossible.to_string(),
        "step 1, pod.node: there is no node `node-9`: they are node-1 to node-3"
    );
}

fn replay() -> Replay {
    let violation = Violation {
        invariant: "no-address-twice".to_owned(),
        at: Duration::from_nanos(12_345_678_901),
        message: "10.1.0.2 belongs to a and b: \"twice\"".to_owned(),
    };
    let mut replay = Replay::new(u64::MAX, built(), violation, "00ff");
    replay.profile = Some("cni".to_owned());
    replay.options =
        Some(RunOptions { quarantine: Some(Duration::from_secs(2)), odd_cidrs: true, plain_pods: true });
    replay
}

#[test]
fn a_replay_file_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("failed.yaml");
    replay().save(&path).unwrap();
    let read = Replay::load(&path).unwrap();
    assert_eq!((read.replay, read.warning), (replay(), None));
    let scenario = directory.path().join("scenario.yaml");
    std::fs::write(&scenario, built().to_yaml()).unwrap();
    assert_eq!(Scenario::load(&scenario).unwrap(), built());
    let nowhere = directory.path().join("none/failed.yaml");
    assert_eq!(
        replay().save(&nowhere).unwrap_err().to_string(),
        format!("cannot write {}", nowhere.display())
    );
}

#[test]
fn a_replay_file_without_options_is_told_from_one_with_the_usual_ones() {
    let options = |options: Option<RunOptions>| {
        let text = Replay { options, ..replay() }.to_yaml();
        Replay::parse(&text, "f.yaml").unwrap().replay.options
    };
    for wanted in [None, Some(RunOptions::default()), replay().options] {
        assert_eq!(options(wanted), wanted);
    }
    let text = replay().to_yaml().replace("quarantine: 2s", "quarantine: soon");
    assert!(Replay::parse(&text, "f.yaml").unwrap_err().to_string().contains("`soon` is no time"));
}

#[test]
fn another_version_of_the_project_is_a_warning() {
    let text =
        replay().to_yaml().replace(&format!("version: {}", env!("CARGO_PKG_VERSION")), "version: 99.1.2");
    let read = Replay::parse(&text, "f.yaml").unwrap();
    assert_eq!(read.replay.scenario, built());
    assert_eq!(
        read.warning.unwrap(),
        format!(
            "f.yaml was written by version 99.1.2 and this is {}: the run may be another one",
            env!("CARGO_PKG_VERSION")
        )
    );
}

#[test]
fn another_version_of_the_format_is_an_error() {
    for (from, to, expected) in [
        (
            "bristle: replay/v1",
            "bristle: replay/v2",
            "f.yaml:1:10: found format `replay/v2`, this reads `replay/v1` alone",
        ),
        (
            "bristle: replay/v1",
            "bristle: scenario/v1",
            "f.yaml:1:10: found format `scenario/v1`, this reads `replay/v1` alone",
        ),
        (
            "bristle: scenario/v1",
            "bristle: scenario/v0",
            "f.yaml:15:12: found format `scenario/v0`, this reads `scenario/v1` alone",
        ),
        (
            "seed: 18446744073709551615",
            "seed: -1",
            "f.yaml:3:7: found the number -1, expected a whole number, not negative",
        ),
        ("trace-hash: 00ff\n", "", "f.yaml:1:1: the field `trace-hash` is missing"),
    ] {
        let text = replay().to_yaml();
        assert!(text.contains(from), "{text}");
        assert_eq!(Replay::parse(&text.replace(from, to), "f.yaml").unwrap_err().to_string(), expected);
    }
}
