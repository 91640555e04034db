//! The shrinker.

use sim_oracle::{Cluster, Options, Reason};
use sim_policy::{Plan, PolicyCase, generate, shrink};

/// Whether some attempt is denied by a rule of Cilium's kinds.
fn is_denied(case: &PolicyCase) -> bool {
    let mut cluster = Cluster::with_options(Options::by_identity());
    for object in &case.objects {
        // What is refused does not count.
        drop(cluster.set(object));
    }
    case.attempts.iter().any(|attempt| {
        cluster.judge(attempt).why.iter().any(
            |because| matches!(&because.reason, Reason::Denied(rule) if rule.policy.to_string().starts_with("Cilium")),
        )
    })
}

#[test]
fn what_fails_becomes_as_small_as_it_can() {
    let plan = Plan { attempts: 60, ..Plan::default() };
    let mut shrunk = 0;
    for seed in (0..60).filter(|seed| is_denied(&generate(*seed, &plan))).take(10) {
        let before = generate(seed, &plan);
        let case = shrink(before.clone(), &mut is_denied);
        assert!(is_denied(&case), "seed {seed}");
        assert_eq!(case, shrink(before, &mut is_denied), "seed {seed}");
        assert_eq!(case.attempts.len(), 1, "seed {seed}: {case}");
        // The policy, and the pods or nodes at both ends; a namespace, group, service or slice if the rule is about one.
        assert!(case.objects.len() <= 6, "seed {seed}: {case}");
        let policies: Vec<String> = case
            .objects
            .iter()
            .filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("NetworkPolicy")))
            .map(ToString::to_string)
            .collect();
        let [policy] = policies.as_slice() else { panic!("seed {seed}: {case}") };
        assert!(policy.len() < 420, "seed {seed}: {case}");
        shrunk += 1;
    }
    assert_eq!(shrunk, 10);
}

#[test]
fn nothing_is_lost_that_is_needed() {
    let case = generate(1, &Plan { attempts: 5, ..Plan::default() });
    let all = case.clone();
    assert_eq!(shrink(case, &mut |candidate| *candidate == all), all);
}
