//! What a scenario may ask for: the rules, one by one.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

use sim_scenario::builder::{Builder, ms, secs};
use sim_scenario::model::{ApiFault, CniFault, Expect, FaultKind, LinkFault, TrafficExpect};
use sim_scenario::{Scenario, judge};

use TrafficExpect::{Any, Fail, Ok, Survive};

/// Pods a (node-1), b and c (node-2), ready.
fn start() -> Builder {
    Scenario::builder("t")
        .pod("a", |p| p.node("node-1").serve("tcp:9000").serve("udp:53"))
        .pod("b", |p| p.node("node-2").serve("tcp:9000").serve("udp:53"))
        .pod("c", |p| p.node("node-2").serve("http:80"))
        .wait_ready()
}

fn loss() -> FaultKind {
    FaultKind::Link(LinkFault { loss: 0.1, ..LinkFault::default() })
}

fn full(table: &str) -> FaultKind {
    FaultKind::TableFull { table: table.to_owned(), rows: 1 }
}

#[test]
fn while_policies_are_there_nothing_gets_through_for_sure() {
    let policy = |verb: &str| {
        format!(
            r"
bristle: scenario/v1
name: t
steps:
  - pod: {{name: a, node: node-1}}
  - pod: {{name: b, node: node-2}}
  - wait: {{for: ready, within: 120s}}
  - apply: [{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: q, namespace: default}}, spec: {{podSelector: {{}}}}}}]
  {verb}
  - wait: {{for: rest, within: 120s}}
  - traffic: {{id: t, from: pod/a, to: pod/b, kind: ping}}
"
        )
    };
    let deleted =
        "- delete: {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, name: q, namespace: default}";
    for (verb, expected) in [("", Any), (deleted, Ok)] {
        let scenario = Scenario::parse(&policy(verb), "t.yaml").unwrap();
        assert_eq!(judge::strongest(&scenario)["t"], expected, "{verb}");
    }
}

/// A ping of 10 in 2 s at most each.
fn ping(builder: Builder) -> Builder {
    builder.traffic("t", "pod/a", "pod/b", |t| t.count(10).timeout(secs(2)))
}

/// A stream of 20 s.
fn stream(builder: Builder) -> Builder {
    builder.traffic("t", "pod/a", "pod/b", |t| t.tcp(9000).count(200).timeout(secs(2)).background())
}

#[track_caller]
fn sure(builder: Builder, expected: TrafficExpect) {
    let scenario = builder.build().unwrap();
    assert_eq!(judge::strongest(&scenario)["t"], expected, "{}", scenario.to_yaml());
}

#[test]
fn both_ends_must_be_ready_and_stay() {
    sure(ping(start()), Ok);
    sure(ping(start().pod("d", |p| p)), Ok);
    sure(start().pod("d", |p| p).traffic("t", "pod/a", "pod/d", |t| t), Any);
    sure(start().pod("d", |p| p).wait_rest().traffic("t", "pod/a", "pod/d", |t| t), Ok);
    sure(ping(start()).delete_pod("c"), Ok);
    sure(ping(start()).delete_pod("a"), Any);
    sure(ping(start()).wait_traffic("t").delete_pod("a"), Ok);
    sure(ping(start()).wait_rest().delete_pod("b"), Ok);
    // Ten times 2.1 s at most.
    sure(ping(start()).wait(secs(20)).delete_pod("b"), Any);
    sure(ping(start()).wait(secs(23)).delete_pod("b"), Ok);
    sure(stream(start()).wait_rest().delete_pod("b"), Any);
    sure(stream(start()).wait_traffic("t").delete_pod("b"), Ok);
}

#[test]
fn places_that_answer() {
    sure(start().traffic("t", "node/node-1", "pod/b", |t| t), Ok);
    sure(start().traffic("t", "pod/b", "node/node-1", |t| t), Ok);
    sure(start().traffic("t", "node/node-1", "node/node-3", |t| t), Ok);
    sure(start().traffic("t", "pod/a", "pod/c", |t| t.http(80)), Ok);
    sure(start().traffic("t", "pod/a", "pod/c", |t| t.http(81).expect(Fail)), Fail);
    // Another pod listens there and may get the address.
    sure(start().traffic("t", "pod/a", "pod/c", |t| t.tcp(9000).expect(Fail)), Any);
    sure(start().traffic("t", "pod/a", "node/node-2", |t| t.tcp(9000)), Any);
    sure(start().traffic("t", "pod/a", "world/first", |t| t), Any);
}

#[test]
fn agents_servers_and_runtimes_touch_no_packet() {
    let faults = [
        FaultKind::Stall,
        FaultKind::Skew(secs(9)),
        FaultKind::Api(ApiFault::Down),
        FaultKind::Api(ApiFault::PartialList),
        FaultKind::Cni(CniFault::DelFirst),
        FaultKind::RingFull(0),
        full("ENDPOINTS"),
    ];
    for kind in faults {
        sure(stream(start().fault(kind.clone(), |f| f).kill("node-1", |k| k)).fault(kind, |f| f).heal(), Ok);
    }
}

#[test]
fn an_old_list_takes_nodes_away_for_a_moment() {
    let stale = |n| FaultKind::Api(ApiFault::Stale(n));
    sure(ping(start().fault(stale(1), |f| f.node("node-1"))), Any);
    sure(ping(start().fault(stale(1), |f| f.node("node-3"))), Ok);
    sure(ping(start().fault(stale(4), |f| f).wait_rest()), Ok);
    sure(start().fault(stale(4), |f| f).traffic("t", "pod/b", "pod/c", |t| t), Ok);
}

#[test]
fn links_touch_what_crosses_them() {
    sure(ping(start().fault(loss(), |f| f.node("node-2"))), Any);
    sure(ping(start()).fault(loss(), |f| f.node("node-2")), Any);
    sure(ping(start()).fault(FaultKind::Partition, |f| f), Any);
    sure(ping(start().fault(loss(), |f| f.node("node-3"))), Ok);
    sure(start().fault(loss(), |f| f).traffic("t", "pod/b", "pod/c", |t| t), Ok);
    // A pod that the scheduler placed may be anywhere.
    let unplaced = || start().pod("d", |p| p).wait_ready();
    sure(unplaced().fault(loss(), |f| f.node("node-3")).traffic("t", "pod/d", "pod/c", |t| t), Any);
}

#[test]
fn rest_ends_the_aftermath() {
    let timed = || start().fault(loss(), |f| f.lasts(secs(2)));
    sure(ping(timed().wait(secs(5))), Any);
    sure(ping(timed().wait_rest()), Ok);
    sure(ping(start().fault(loss(), |f| f).heal()), Any);
    sure(ping(start().fault(loss(), |f| f).heal().wait_rest()), Ok);
    sure(
        ping(
            start()
                .fault(loss(), |f| f.node("node-1"))
                .fault(FaultKind::Heal, |f| f.node("node-2"))
                .wait_rest(),
        ),
        Any,
    );
}

#[test]
fn streams_survive_what_ends_long_before_they_do() {
    sure(stream(start()).wait(secs(1)).fault(loss(), |f| f.lasts(secs(3))), Survive);
    // It may not have its connection yet.
    sure(stream(start()).fault(loss(), |f| f.lasts(secs(3))), Any);
    sure(stream(start()).wait(secs(2)).fault(FaultKind::Partition, |f| f).wait(secs(3)).heal(), Survive);
    // 2 s, 4 s of fault, 16 s of calm: more than 19.9 s.
    sure(stream(start()).wait(secs(2)).fault(loss(), |f| f.lasts(secs(4))), Any);
    sure(stream(start()).fault(loss(), |f| f), Any);
    // Nobody knows when a wait ends.
    sure(stream(start()).wait_ready().fault(loss(), |f| f.lasts(secs(1))), Any);
    sure(stream(start().fault(loss(), |f| f.lasts(secs(1)))), Any);
    let two = || {
        stream(start()).wait(secs(1)).fault(loss(), |f| f.node("node-1")).fault(loss(), |f| f.node("node-2"))
    };
    sure(two().heal(), Survive);
    sure(two().fault(FaultKind::Heal, |f| f.node("node-1")), Any);
}

#[test]
fn full_and_small_tables() {
    sure(ping(start()).fault(full("CT4"), |f| f.node("node-1")), Any);
    sure(ping(start()).fault(full("CT4"), |f| f.node("node-3")), Ok);
    sure(ping(start().fault(full("CT4"), |f| f).heal().wait_rest().within(secs(600))), Ok);
    sure(ping(start().table("CT6", 16)), Any);
    sure(ping(start().table("EVENTS", 4096)), Ok);
}

#[test]
fn fragments_come_one_at_a_time() {
    let large = |builder: Builder, id: &str| builder.traffic(id, "pod/a", "pod/b", |t| t.udp(53).size(9000));
    sure(large(start(), "t"), Ok);
    sure(large(large(start(), "t"), "u"), Any);
    sure(large(large(start(), "u").wait_traffic("u"), "t"), Ok);
    sure(large(large(start(), "u").fault(loss(), |f| f.lasts(ms(1))).wait_rest(), "t"), Any);
    sure(start().traffic("t", "pod/a", "node/node-2", |t| t.size(9000)), Any);
}

#[track_caller]
fn doubts(builder: Builder, expected: &[&str]) {
    let found: Vec<String> = judge::doubts(&builder.build().unwrap())
        .into_iter()
        .map(|doubt| format!("{}: {}", doubt.subject, doubt.why))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn waits_that_are_not_sure() {
    let rest = |builder: Builder, within: u64| builder.wait_rest().within(secs(within));
    doubts(rest(start().wait_rest().within(secs(60)), 60), &["wait for ready: it may take 60 s"]);
    let pods = |bits| {
        Scenario::builder("t")
            .nodes(1)
            .pod_cidr_bits(bits)
            .pod("a", |p| p)
            .pod("b", |p| p)
            .pod("c", |p| p)
            .wait_ready()
            .within(secs(60))
    };
    let (sure, tight) = (|| pods(24), || pods(29));
    doubts(sure(), &[]);
    doubts(rest(sure().fault(loss(), |f| f), 600), &["wait for rest: the fault `link` has no end"]);
    doubts(rest(sure().fault(loss(), |f| f.lasts(secs(5))), 64), &["wait for rest: it may take 65 s"]);
    doubts(
        rest(sure().kill("node-1", |k| k.restart_after(secs(5))), 64),
        &["wait for rest: it may take 65 s"],
    );
    doubts(
        rest(sure().traffic("t", "pod/a", "pod/b", |t| t.count(2)), 60),
        &["wait for rest: it may take 70 s"],
    );
    doubts(rest(tight().kill("node-1", |k| k), 149), &["wait for rest: it may take 150 s"]);
    let two_more = || tight().pod("d", |p| p).pod("e", |p| p);
    doubts(rest(two_more(), 60), &[]);
    doubts(rest(two_more().pod("f", |p| p), 600), &["wait for rest: there are more pods than addresses"]);
    let reuse = || two_more().wait_rest().within(secs(60)).delete_pod("a").pod("f", |p| p);
    doubts(rest(reuse(), 60), &["wait for rest: it may take 150 s"]);
    doubts(rest(reuse(), 150), &[]);
    doubts(
        sure().traffic("t", "pod/a", "pod/b", |t| t.count(2)).wait_traffic("t").within(secs(5)),
        &["wait for traffic t: it may take 11 s"],
    );
}

#[test]
fn expectations_that_follow() {
    let ready = || Scenario::builder("t").nodes(1).pod("a", |p| p).wait_rest().within(secs(60));
    doubts(ready().expect(Expect::PodsReady(1)), &[]);
    doubts(
        ready().pod("b", |p| p).expect(Expect::PodsReady(2)),
        &["expect pods-ready: it does not follow from the steps before"],
    );
    doubts(
        ready().expect(Expect::Allocated(1)),
        &["expect allocated: it does not follow from the steps before"],
    );
    let gone = || ready().delete_pod("a").wait_rest().within(secs(60));
    doubts(gone().expect(Expect::Allocated(0)), &[]);
    doubts(
        ready().delete_pod("a").expect(Expect::Allocated(0)),
        &["expect allocated: it does not follow from the steps before"],
    );
    let late = || {
        let fault = FaultKind::Cni(CniFault::LateDel(secs(5)));
        ready().fault(fault, |f| f.lasts(secs(1))).delete_pod("a").wait_rest().within(secs(80))
    };
    doubts(
        late().expect(Expect::Allocated(0)),
        &["expect allocated: it does not follow from the steps before"],
    );
    doubts(late().wait(secs(7)).wait_rest().within(secs(80)).expect(Expect::Allocated(0)), &[]);
    doubts(ready().expect(Expect::NoDrops), &["expect no-drops: it does not follow from the steps before"]);
}
