//! Simpler clusters, pods, traffic, faults and times.

use std::time::Duration;

use super::Shrinker;
use crate::model::{
    Action, ApiFault, Cluster, CniFault, Families, Fault, FaultKind, Kill, LinkFault, Place, Pod, Routing,
    Scenario, Step, Traffic, Translation, Until, Wait,
};

/// No fault lasts, and nothing is late, for less than this.
const LEAST: Duration = Duration::from_millis(1);

/// Fewer nodes, one family, VXLAN, everything else as usual.
pub(super) fn cluster(shrinker: &mut Shrinker<'_>) {
    let usual = Cluster::default();
    shrinker.attempt_with("a usual cluster", |s| {
        s.cluster = Cluster { nodes: s.cluster.nodes, family: s.cluster.family, ..Cluster::default() };
    });
    let mut nodes = used_nodes(&shrinker.best).max(1);
    if nodes < shrinker.best.cluster.nodes {
        shrinker.attempt_with("fewer nodes", |s| s.cluster.nodes = nodes);
    }
    // What is on the last node moves to the first, or to the one before.
    nodes = shrinker.best.cluster.nodes;
    while nodes > 1 {
        let moved = [1, nodes - 1].into_iter().any(|to| {
            shrinker.attempt_with("fewer nodes", |s| {
                move_node(s, nodes, to);
                s.cluster.nodes = nodes - 1;
            })
        });
        if !moved {
            break;
        }
        nodes -= 1;
    }
    for table in shrinker.best.cluster.tables.clone().into_keys() {
        shrinker.attempt_with("no small tables", |s| s.cluster.tables.retain(|name, _| *name != table));
    }
    shrinker.attempt_with("no policies for nodes", |s| s.cluster.host_firewall = false);
    shrinker.attempt_with("policies say who is isolated", |s| s.cluster.enforcement = usual.enforcement);
    shrinker.attempt_with("no audit", |s| s.cluster.audit = false);
    shrinker.attempt_with("services at the socket", |s| s.cluster.service_translation = Translation::Socket);
    shrinker.attempt_with("no services", |s| {
        s.cluster.kube_proxy_replacement = false;
        s.cluster.service_translation = Translation::Socket;
    });
    shrinker.attempt_with("no masquerade", |s| s.cluster.masquerade = false);
    shrinker.attempt_with("identities", |s| s.cluster.policy = true);
    shrinker.attempt_with("a usual pod CIDR", |s| s.cluster.pod_cidr_bits = usual.pod_cidr_bits);
    shrinker.attempt_with("a usual MTU", |s| s.cluster.mtu = usual.mtu);
    shrinker.attempt_with("vxlan", |s| s.cluster.routing = Routing::Vxlan);
    for family in [Families::V4, Families::V6] {
        if shrinker.best.cluster.family == Families::Dual {
            shrinker.attempt_with("one family", |s| one_family(s, family));
        }
    }
}

fn number(node: &str) -> u16 {
    node.strip_prefix("node-").and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// All names of nodes in the steps.
fn nodes_of(action: &mut Action) -> Vec<&mut String> {
    match action {
        Action::Pod(pod) => pod.node.iter_mut().collect(),
        Action::Fault(fault) => fault.node.iter_mut().collect(),
        Action::Traffic(traffic) => [&mut traffic.from, &mut traffic.to]
            .into_iter()
            .chain(&mut traffic.seen_as)
            .filter_map(|place| match place {
                Place::Node(name) | Place::NodePort(name) => Some(name),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn used_nodes(scenario: &Scenario) -> u16 {
    let mut steps = scenario.steps.clone();
    steps.iter_mut().flat_map(|step| nodes_of(&mut step.action)).map(|name| number(name)).max().unwrap_or(0)
}

fn move_node(scenario: &mut Scenario, from: u16, to: u16) {
    for name in scenario.steps.iter_mut().flat_map(|step| nodes_of(&mut step.action)) {
        if number(name) == from {
            *name = format!("node-{to}");
        }
    }
}

fn one_family(scenario: &mut Scenario, family: Families) {
    scenario.cluster.family = family;
    for step in &mut scenario.steps {
        if let Action::Traffic(traffic) = &mut step.action {
            traffic.family = None;
        }
    }
}

/// Pauses one after the other become one.
fn one_pause(shrinker: &mut Shrinker<'_>) {
    for index in (1..shrinker.best.steps.len()).rev() {
        let [first, second] = [index - 1, index].map(|at| pause(&shrinker.best.steps[at]));
        if let (Some(first), Some(second)) = (first, second) {
            shrinker.attempt_with("one pause", |s| {
                s.steps.remove(index);
                s.steps[index - 1].action = Action::Wait(Wait::new(Until::Time(first + second)));
            });
        }
    }
}

fn pause(step: &Step) -> Option<Duration> {
    match step {
        Step { at: None, action: Action::Wait(Wait { until: Until::Time(time), .. }) } => Some(*time),
        _ => None,
    }
}

/// Each step for itself.
pub(super) fn steps(shrinker: &mut Shrinker<'_>) {
    one_pause(shrinker);
    for index in 0..shrinker.best.steps.len() {
        if shrinker.best.steps[index].at.is_some() {
            shrinker.attempt_with("no set time", |s| s.steps[index].at = None);
        }
        match shrinker.best.steps[index].action.clone() {
            Action::Pod(pod) => simpler_pod(shrinker, index, &pod),
            Action::Traffic(traffic) => simpler_traffic(shrinker, index, &traffic),
            Action::Fault(fault) => simpler_fault(shrinker, index, &fault),
            Action::Wait(wait) => {
                if let Until::Time(time) = wait.until {
                    halve(shrinker, "a shorter pause", time, Duration::ZERO, |s, time| {
                        if let Action::Wait(wait) = &mut s.steps[index].action {
                            wait.until = Until::Time(time);
                        }
                    });
                }
            }
            _ => {}
        }
    }
}

/// The least first, then halves of the rest of the way.
fn halve(
    shrinker: &mut Shrinker<'_>,
    what: &'static str,
    mut time: Duration,
    least: Duration,
    set: impl Fn(&mut Scenario, Duration),
) {
    if time <= least || shrinker.attempt_with(what, |s| set(s, least)) {
        return;
    }
    loop {
        // Whole milliseconds: short to write.
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / 2;
        let half = Duration::from_millis(ms);
        if half <= least || half >= time || !shrinker.attempt_with(what, |s| set(s, half)) {
            return;
        }
        time = half;
    }
}

fn simpler_pod(shrinker: &mut Shrinker<'_>, index: usize, pod: &Pod) {
    let with = |s: &mut Scenario, change: &dyn Fn(&mut Pod)| {
        if let Action::Pod(pod) = &mut s.steps[index].action {
            change(pod);
        }
    };
    if !pod.linger.is_zero() {
        shrinker.attempt_with("no lingering", |s| with(s, &|pod| pod.linger = Duration::ZERO));
    }
    if !pod.labels.is_empty() {
        shrinker.attempt_with("no labels", |s| with(s, &|pod| pod.labels.clear()));
    }
    for server in pod.serve.iter().rev() {
        shrinker.attempt_with("fewer servers", |s| with(s, &|pod| pod.serve.retain(|other| other != server)));
    }
}

fn simpler_traffic(shrinker: &mut Shrinker<'_>, index: usize, traffic: &Traffic) {
    let usual = Traffic::new(&traffic.id, traffic.from.clone(), traffic.to.clone(), traffic.kind);
    let with = |s: &mut Scenario, change: &dyn Fn(&mut Traffic)| {
        if let Action::Traffic(traffic) = &mut s.steps[index].action {
            change(traffic);
        }
    };
    let mut count = traffic.count;
    while count > 1 {
        let tried = [1, count / 2, count - 1];
        let Some(fewer) = tried.into_iter().filter(|fewer| *fewer > 0 && *fewer < count).find(|fewer| {
            shrinker.attempt_with("less traffic", |s| with(s, &|traffic| traffic.count = *fewer))
        }) else {
            break;
        };
        count = fewer;
    }
    if traffic.answered_by.is_some() {
        shrinker.attempt_with("whoever answers", |s| with(s, &|traffic| traffic.answered_by = None));
    }
    if traffic.seen_as.is_some() {
        shrinker.attempt_with("whoever is seen", |s| with(s, &|traffic| traffic.seen_as = None));
    }
    if traffic.background {
        shrinker
            .attempt_with("nothing in the background", |s| with(s, &|traffic| traffic.background = false));
    }
    if traffic.family.is_some() {
        shrinker.attempt_with("the usual family", |s| with(s, &|traffic| traffic.family = None));
    }
    if traffic.size != usual.size {
        shrinker.attempt_with("a usual size", |s| with(s, &|traffic| traffic.size = usual.size));
    }
    if traffic.interval != usual.interval {
        shrinker.attempt_with("a usual interval", |s| with(s, &|traffic| traffic.interval = usual.interval));
    }
    if traffic.timeout != usual.timeout {
        shrinker.attempt_with("a usual timeout", |s| with(s, &|traffic| traffic.timeout = usual.timeout));
    }
}

fn simpler_fault(shrinker: &mut Shrinker<'_>, index: usize, fault: &Fault) {
    let set = move |s: &mut Scenario, kind: FaultKind| {
        if let Action::Fault(fault) = &mut s.steps[index].action {
            fault.kind = kind;
        }
    };
    match &fault.kind {
        FaultKind::Link(link) => {
            for part in LINK_PARTS {
                let mut less = match &shrinker.best.steps[index].action {
                    Action::Fault(Fault { kind: FaultKind::Link(now), .. }) => now.clone(),
                    _ => link.clone(),
                };
                part(&mut less);
                shrinker.attempt_with("a better link", |s| set(s, FaultKind::Link(less)));
            }
        }
        FaultKind::Kill(kill) => simpler_kill(shrinker, kill, set),
        FaultKind::Skew(by) => halve(shrinker, "less skew", *by, Duration::from_secs(1), |s, by| {
            set(s, FaultKind::Skew(by));
        }),
        FaultKind::Api(ApiFault::Slow(by)) => {
            halve(shrinker, "less late", *by, LEAST, |s, by| set(s, FaultKind::Api(ApiFault::Slow(by))));
        }
        FaultKind::Api(ApiFault::Stale(_)) => {
            shrinker.attempt_with("less stale", |s| set(s, FaultKind::Api(ApiFault::Stale(1))));
        }
        FaultKind::Cni(CniFault::RepeatDel(by)) => {
            halve(shrinker, "less late", *by, LEAST, |s, by| set(s, FaultKind::Cni(CniFault::RepeatDel(by))));
        }
        FaultKind::Cni(CniFault::LateDel(by)) => {
            halve(shrinker, "less late", *by, LEAST, |s, by| set(s, FaultKind::Cni(CniFault::LateDel(by))));
        }
        _ => {}
    }
    if let Some(lasts) = fault.lasts {
        halve(shrinker, "a shorter fault", lasts, LEAST, |s, lasts| {
            if let Action::Fault(fault) = &mut s.steps[index].action {
                fault.lasts = Some(lasts);
            }
        });
    }
    if fault.node.is_none() && !matches!(fault.kind, FaultKind::Heal) {
        for n in 1..=shrinker.best.cluster.nodes {
            let one = shrinker.attempt_with("a fault of one node", |s| {
                if let Action::Fault(fault) = &mut s.steps[index].action {
                    fault.node = Some(format!("node-{n}"));
                }
            });
            if one {
                break;
            }
        }
    }
}

/// Each takes one thing away.
const LINK_PARTS: [fn(&mut LinkFault); 7] = [
    |link| link.loss = 0.0,
    |link| link.duplicate = 0.0,
    |link| link.reorder = 0.0,
    |link| link.corrupt = 0.0,
    |link| link.delay = Duration::ZERO,
    |link| link.jitter = Duration::ZERO,
    |link| link.mtu = None,
];

fn simpler_kill(shrinker: &mut Shrinker<'_>, kill: &Kill, set: impl Fn(&mut Scenario, FaultKind)) {
    let mut now = kill.clone();
    let simpler = [
        Kill { snapshot_age: Duration::ZERO, ..now.clone() },
        Kill { snapshot_age: Duration::ZERO, restart_after: Duration::ZERO, ..now.clone() },
        Kill { restart_after: Duration::ZERO, ..now.clone() },
        Kill { after_commands: None, ..now.clone() },
    ];
    for kill in simpler {
        // Each is a step from the first: what an earlier one took away stays away.
        let both = Kill {
            after_commands: now.after_commands.and(kill.after_commands),
            restart_after: now.restart_after.min(kill.restart_after),
            snapshot_age: now.snapshot_age.min(kill.snapshot_age),
        };
        if shrinker.attempt_with("a simpler death", |s| set(s, FaultKind::Kill(both.clone()))) {
            now = both;
        }
    }
}
