//! What faults do, when they end, and what is asked of traffic that lives through them: as it is with network namespaces.

use rstest::rstest;
use sim_native::Options;
use sim_scenario::Scenario;
use sim_scenario::validate::Known;

/// Three nodes with a pod each that answers on port 9000.
const PODS: &str = "
bristle: scenario/v1
name: faults
cluster: {nodes: 3}
steps:
- pod: {name: a, node: node-1, serve: ['tcp:9000']}
- pod: {name: b, node: node-2, serve: ['tcp:9000']}
- pod: {name: c, node: node-3, serve: ['tcp:9000']}
- wait: {for: rest, within: 60s}
";

fn failures(steps: &str) -> Vec<String> {
    let scenario = Scenario::parse(&format!("{PODS}{steps}"), "test.yaml").expect("a scenario");
    scenario.validate(&Known::default()).unwrap_or_else(|error| panic!("{error}"));
    sim_native::run(&scenario, &Options { seed: 1, plain_pods: true, ..Options::default() }).outcome.failures
}

#[rstest]
#[case::a_fault_without_an_end_goes_on_at_rest(
    "
- fault: {node: node-2, link: {delay: 5ms}}
- wait: rest
- traffic: {id: t, from: pod/a, to: pod/b, kind: ping}
- wait: rest"
)]
#[case::who_is_healed_is_healed_alone(
    "
- fault: {link: {loss: 1}}
- fault: {node: node-1, heal: }
- fault: {node: node-2, heal: }
- traffic: {id: whole, from: pod/a, to: pod/b, kind: ping, count: 3}
- traffic: {id: lossy, from: pod/a, to: pod/c, kind: ping, count: 3, timeout: 500ms, expect: fail}
- wait: {for: {traffic: whole}}
- wait: {for: {traffic: lossy}}
- fault: heal
- wait: {for: rest, within: 60s}"
)]
#[case::to_heal_starts_what_was_killed(
    "
- fault: {node: node-1, kill: {restart-after: 600s}}
- pod: {name: late, node: node-1}
- wait: {for: {time: 2s}}
- expect: {not-ready: late}
- fault: heal
- wait: {for: rest, within: 60s}
- expect: {pods-ready: 4}"
)]
#[case::a_partition_is_between_nodes(
    "
- fault: {node: node-1, partition: }
- traffic: {id: out, from: node/node-1, to: world/first, kind: ping, count: 3}
- traffic: {id: over, from: pod/a, to: pod/b, kind: ping, count: 3, timeout: 500ms, expect: fail}
- wait: {for: {traffic: out}}
- wait: {for: {traffic: over}}
- fault: heal
- wait: {for: rest, within: 60s}"
)]
#[case::the_longer_of_two_stalls_counts(
    "
- fault: {node: node-1, stall: , for: 2s}
- fault: {node: node-1, stall: , for: 9s}
- pod: {name: late, node: node-1}
- wait: {for: {time: 6s}}
- expect: {not-ready: late}
- wait: {for: rest, within: 60s}
- expect: {pods-ready: 4}"
)]
#[case::a_stream_survives_a_partition(
    "
- traffic: {id: t, from: pod/a, to: pod/b, kind: tcp, port: 9000, count: 300, interval: 50ms, timeout: 20s, expect: survive}
- wait: {for: {time: 1s}}
- fault: {node: node-1, partition: , for: 2s}
- wait: {for: rest, within: 60s}"
)]
fn passes(#[case] steps: &str) {
    assert_eq!(failures(steps), Vec::<String>::new());
}

#[rstest]
#[case::who_was_never_answered_has_not_survived(
    "
- fault: {node: node-2, partition: , for: 10s}
- traffic: {id: t, from: pod/a, to: pod/b, kind: ping, count: 5, interval: 100ms, timeout: 1s, expect: survive}
- wait: {for: rest, within: 60s}",
    "should survive"
)]
#[case::who_is_not_answered_after_a_fault_has_not_survived(
    "
- traffic: {id: t, from: pod/a, to: pod/b, kind: ping, count: 60, interval: 100ms, timeout: 200ms, expect: survive}
- delete-pod: b
- wait: {for: {time: 3s}}
- fault: {node: node-2, link: {delay: 1ms}, for: 200ms}
- wait: {for: rest, within: 60s}",
    "should survive"
)]
#[case::an_older_state_excuses_its_own_node_only(
    "
- fault: {node: node-3, kill: {snapshot-age: 1s}}
- wait: {for: rest, within: 60s}
- traffic: {id: t, from: pod/a, to: pod/b, kind: tcp, port: 9000, count: 20, interval: 100ms}
- wait: {for: {time: 500ms}}
- delete-pod: b
- wait: {for: rest, within: 60s}",
    "should be answered"
)]
fn fails(#[case] steps: &str, #[case] why: &str) {
    let failures = failures(steps);
    assert!(failures.iter().any(|failure| failure.contains(why)), "{failures:?}");
}
