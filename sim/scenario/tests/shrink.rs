//! The shrinker ends at the least that fails, by the same way each time, and never tries the impossible.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

use std::time::Duration;

use sim_scenario::builder::{ms, secs};
use sim_scenario::model::{Action, ApiFault, FaultKind, TrafficExpect, TrafficKind, Until};
use sim_scenario::shrink::MOST_TRIES;
use sim_scenario::{Known, Profile, Scenario, generate, judge, shrink};

/// Shrinks and returns the file without its head.
fn shrunk(scenario: Scenario, fails: impl Fn(&Scenario) -> bool) -> String {
    assert!(fails(&scenario), "it must fail to begin with");
    let mut tries = 0;
    let smallest = shrink(
        scenario,
        &mut |candidate| {
            candidate.validate(&Known::default()).expect("only possible ones are tried");
            tries += 1;
            fails(candidate)
        },
        &mut |_| {},
    );
    assert!(fails(&smallest) && tries <= MOST_TRIES);
    let text = smallest.to_yaml();
    text.lines()
        .filter(|line| {
            !line.starts_with("bristle") && !line.starts_with("name") && !line.starts_with("description")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn mixed(wanted: impl Fn(&Scenario) -> bool) -> Scenario {
    let profile = Profile::by_name("mixed").unwrap();
    (0..1000).map(|seed| generate(seed, profile, None)).find(|scenario| wanted(scenario)).unwrap()
}

fn has(scenario: &Scenario, wanted: impl Fn(&Action) -> bool) -> bool {
    scenario.steps.iter().any(|step| wanted(&step.action))
}

#[test]
fn one_bad_link_remains() {
    let fails = |scenario: &Scenario| {
        has(
            scenario,
            |action| matches!(action, Action::Fault(f) if matches!(&f.kind, FaultKind::Link(l) if l.loss > 0.05)),
        )
    };
    let rich = |scenario: &Scenario| {
        let busy = |l: &sim_scenario::model::LinkFault| l.loss > 0.05 && !l.delay.is_zero();
        has(
            scenario,
            |action| matches!(action, Action::Fault(f) if f.lasts.is_some() && matches!(&f.kind, FaultKind::Link(l) if busy(l))),
        )
    };
    let text = shrunk(mixed(rich), fails);
    let loss = text.split("loss: ").nth(1).unwrap().to_owned();
    assert_eq!(
        text,
        format!(
            "cluster:\n  nodes: 1\n  family: v4\nsteps:\n- fault:\n    node: node-1\n    for: 1ms\n    link:\n      loss: {loss}"
        )
    );
}

#[test]
fn what_a_step_needs_remains_with_it() {
    let scenario = Scenario::builder("t")
        .nodes(4)
        .pod("x", |p| p.serve("http:80"))
        .pod("a", |p| p.node("node-2").label("app", "a").serve("udp:53"))
        .pod("b", |p| p.node("node-4").serve("http:80").serve("tcp:9000"))
        .wait_ready()
        .at(secs(1))
        .traffic("noise", "pod/x", "pod/b", |t| t.http(80).count(20))
        .kill("node-2", |k| k.after_commands(3).restart_after(secs(2)).snapshot_age(secs(9)))
        .traffic("stream", "pod/a", "pod/b", |t| t.tcp(9000).count(50).every(ms(20)).size(400))
        .wait(ms(800))
        .delete_pod("x")
        .wait_rest()
        .build()
        .unwrap();
    let fails = |scenario: &Scenario| {
        let kill = scenario.steps.iter().position(
            |step| matches!(&step.action, Action::Fault(f) if matches!(&f.kind, FaultKind::Kill(k) if k.restart_after > ms(500))),
        );
        let stream = scenario.steps.iter().position(
            |step| matches!(&step.action, Action::Traffic(t) if t.kind == TrafficKind::Tcp && t.count >= 7),
        );
        kill.zip(stream).is_some_and(|(kill, stream)| kill < stream)
    };
    assert_eq!(
        shrunk(scenario, fails),
        "cluster:\n  nodes: 1\n  family: v4\nsteps:\n- pod:\n    name: a\n    node: node-1\n- pod:\n    name: b\n    node: node-1\n    serve:\n    - tcp:9000\n\
         - wait: ready\n- fault:\n    node: node-1\n    kill:\n      restart-after: 2s\n\
         - traffic:\n    id: stream\n    from: pod/a\n    to: pod/b\n    kind: tcp\n    port: 9000\n    count: 7"
    );
}

/// Whatever fails at traffic to pods that are not ready would fail at once without the wait, and for another reason.
#[test]
fn a_sure_scenario_stays_sure() {
    for seed in 0..10 {
        let scenario = generate(seed, Profile::by_name("crash").unwrap(), None);
        let ok = |action: &Action| matches!(action, Action::Traffic(t) if t.expect == TrafficExpect::Ok && t.kind == TrafficKind::Ping);
        // Where there are policies, and hardly a pod in the end, none is sure.
        if !has(&scenario, ok) {
            continue;
        }
        let smallest = shrink(
            scenario,
            &mut |candidate| {
                assert_eq!(judge::doubts(candidate).len(), 0);
                has(candidate, ok)
            },
            &mut |_| {},
        );
        assert!(has(&smallest, ok));
        assert!(smallest.steps.len() <= 4, "{}", smallest.to_yaml());
    }
}

#[test]
fn the_way_is_the_same_each_time_and_ends() {
    let scenario = generate(5, Profile::by_name("api").unwrap(), None);
    let run = || {
        let mut way = Vec::new();
        let late =
            |action: &Action| matches!(action, Action::Fault(f) if matches!(f.kind, FaultKind::Api(_)));
        let smallest = shrink(
            scenario.clone(),
            &mut |candidate| has(candidate, late) && candidate.steps.len() % 2 == scenario.steps.len() % 2,
            &mut |progress| way.push(progress.clone()),
        );
        (smallest, way)
    };
    let (first, way) = run();
    assert_eq!((first, way.clone()), run());
    assert!(way.iter().any(|progress| progress.kept));
    let tries: Vec<u32> = way.iter().map(|progress| progress.tries).collect();
    assert_eq!(tries, (1..=u32::try_from(way.len()).unwrap()).collect::<Vec<_>>());
}

#[test]
fn what_never_fails_again_stays_as_it_is() {
    let scenario = generate(6, Profile::by_name("mixed").unwrap(), None);
    let mut tries = 0;
    let same = shrink(
        scenario.clone(),
        &mut |_| {
            tries += 1;
            false
        },
        &mut |_| {},
    );
    assert_eq!(same, scenario);
    assert!((10..=MOST_TRIES).contains(&tries), "{tries}");
}

#[test]
fn lateness_shrinks_to_what_matters() {
    let scenario = Scenario::builder("t")
        .fault(FaultKind::Api(ApiFault::Slow(ms(3000))), |f| f.lasts(secs(6)))
        .build()
        .unwrap();
    let fails = |scenario: &Scenario| {
        has(scenario, |action| {
            let slow =
                |kind: &FaultKind| matches!(kind, FaultKind::Api(ApiFault::Slow(by)) if *by >= ms(700));
            matches!(action, Action::Fault(f) if slow(&f.kind) && f.lasts > Some(Duration::from_secs(2)))
        })
    };
    assert_eq!(
        shrunk(scenario, fails),
        "cluster:\n  nodes: 1\n  family: v4\nsteps:\n- fault:\n    node: node-1\n    for: 3s\n    api:\n      slow: 750ms"
    );
}

#[test]
fn pauses_become_one() {
    let scenario = Scenario::builder("t")
        .wait(ms(700))
        .wait(ms(600))
        .wait_rest()
        .wait(ms(10))
        .wait(ms(900))
        .build()
        .unwrap();
    let paused = |scenario: &Scenario| {
        let times = scenario.steps.iter().filter_map(|step| match &step.action {
            Action::Wait(wait) => match wait.until {
                Until::Time(time) => Some(time),
                _ => None,
            },
            _ => None,
        });
        times.sum::<Duration>() >= ms(1500)
    };
    assert_eq!(shrunk(scenario, paused), "cluster:\n  nodes: 1\n  family: v4\nsteps:\n- wait: 1600ms");
}
