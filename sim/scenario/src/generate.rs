//! Random scenarios that are valid and ask for nothing that a correct product could fail to give.
//!
//! A scenario begins with pods that are ready, goes through rounds (pods come and go, something breaks, traffic flows, sometimes everything
//! heals and comes to rest), and ends with: everything healed and at rest, pings between the pods that are left, all pods deleted, and no
//! address allocated. What each traffic must come to is decided at the end by [`crate::judge`], whose rules are written there.
//!
//! Each round has random numbers of its own, so that rounds do not shift each other's.

mod faults;
mod masquerade;
mod nodes;
mod pods;
mod policies;
mod services;
mod traffic;

use std::time::Duration;

use crate::judge;
use crate::model::{
    Action, Cluster, Expect, FORMAT, Families, Fault, FaultKind, Routing, Scenario, Step, Until, Wait,
};
use crate::profile::{Profile, Subject};
use crate::rng::Rng;
use pods::Live;

/// Longer than any wait that is sure; the judge gives each its own time in the end.
const LONG: Duration = Duration::from_secs(1200);
/// Pairs of pods that are pinged at the end, at most.
const MOST_PINGS: usize = 12;
/// Of clusters without policies so many have no identities either.
const WITHOUT_IDENTITIES: f64 = 0.4;

/// The scenario of a seed. With `nodes`, the cluster has so many.
pub fn generate(seed: u64, profile: &Profile, nodes: Option<u16>) -> Scenario {
    let mut rng = Rng::stream(seed, "cluster", 0);
    let cluster = cluster(&mut rng, profile, nodes);
    let rounds = match profile.subject {
        Subject::Rows | Subject::Splits | Subject::Fresh => rng.range(8..=16),
        Subject::All | Subject::Policy => rng.range(3..=7),
    };
    let policed = policies::decide(&mut Rng::stream(seed, "policies", 0), profile.policies);
    let mut of_nodes = Rng::stream(seed, "policies for nodes", 0);
    let host_firewall = policed && of_nodes.chance(0.5);
    let policy = policed || !Rng::stream(seed, "no identities", 0).chance(WITHOUT_IDENTITIES);
    let kube_proxy_replacement = services::decide(seed, policy);
    let service_translation = services::translation(seed, kube_proxy_replacement);
    // Where it is about the order of rows, rows are to decide.
    let is_about_all = matches!(profile.subject, Subject::All | Subject::Policy);
    let (enforcement, audit) = policies::modes(seed, policed && is_about_all);
    let cluster = Cluster {
        host_firewall,
        enforcement,
        audit,
        kube_proxy_replacement,
        service_translation,
        masquerade: masquerade::decide(seed),
        policy,
        ..cluster
    };
    let mut generator = Generator {
        profile,
        cluster,
        steps: Vec::new(),
        pods: Vec::new(),
        pods_made: 0,
        far_nodes: Vec::new(),
        traffic_made: 0,
        streams: Vec::new(),
        open_faults: false,
        policed,
        may_cut: of_nodes.chance(0.4),
        policies: Vec::new(),
        policies_made: 0,
        pods_relabelled: 0,
        are_blue: [false; 2],
        seed,
        of_services: Rng::stream(seed, "services", 1),
        of_outer_services: Rng::stream(seed, "services", 2),
        services: Vec::new(),
        services_made: 0,
        services_called: 0,
        of_world: Rng::stream(seed, "world", 0),
        world_called: 0,
        rng,
    };
    generator.rng = Rng::stream(seed, "start", 0);
    generator.start();
    for round in 0..rounds {
        generator.rng = Rng::stream(seed, "round", round);
        match profile.subject {
            Subject::Rows => generator.round_of_rows(),
            Subject::Splits => generator.split(),
            Subject::Fresh => generator.fresh(),
            Subject::All | Subject::Policy => generator.round(),
        }
    }
    generator.rng = Rng::stream(seed, "end", 0);
    generator.end();
    let mut scenario = Scenario {
        bristle: FORMAT.to_owned(),
        name: format!("{}-{seed}", profile.name),
        description: format!("random: {}", profile.description),
        cluster: generator.cluster,
        steps: generator.steps,
    };
    judge::settle(&mut scenario);
    scenario
}

fn cluster(rng: &mut Rng, profile: &Profile, nodes: Option<u16>) -> Cluster {
    let mut cluster = Cluster {
        nodes: nodes.unwrap_or_else(|| rng.pick(profile.nodes).copied().unwrap_or(2)),
        family: rng
            .pick(&[Families::V4, Families::V6, Families::Dual, Families::Dual])
            .copied()
            .unwrap_or(Families::Dual),
        routing: if rng.chance(0.6) { Routing::Vxlan } else { Routing::Native },
        mtu: rng.pick(&[1500, 1500, 1500, 9000, 1400]).copied().unwrap_or(1500),
        ..Cluster::default()
    };
    if percent(rng, profile.tiny_cidrs) {
        cluster.pod_cidr_bits = if rng.chance(0.5) { 28 } else { 29 };
    }
    if percent(rng, profile.small_tables) {
        for table in ["CT4", "CT6", "FRAGS4", "FRAGS6"] {
            let rows = rng.range(4..=64);
            if rng.chance(0.5) {
                cluster.tables.insert(table.to_owned(), u32::try_from(rows).unwrap_or(u32::MAX));
            }
        }
    }
    cluster
}

fn percent(rng: &mut Rng, percent: u32) -> bool {
    rng.below(100) < u64::from(percent)
}

struct Generator<'a> {
    profile: &'a Profile,
    cluster: Cluster,
    rng: Rng,
    steps: Vec<Step>,
    pods: Vec<Live>,
    pods_made: u32,
    /// Names of Node objects of machines that are not simulated.
    far_nodes: Vec<String>,
    traffic_made: u32,
    /// Ids of background streams whose two pods are there.
    streams: Vec<(String, [String; 2])>,
    /// Faults without an end are on.
    open_faults: bool,
    /// There are policies.
    policed: bool,
    /// Policies for nodes may cut them off from the API server.
    may_cut: bool,
    policies: Vec<policies::Standing>,
    policies_made: u32,
    pods_relabelled: u32,
    /// Of which team namespaces are, where that is known.
    are_blue: [bool; 2],
    seed: u64,
    /// Random numbers of their own, so that services do not shift anything else.
    of_services: Rng,
    /// Likewise for what services have outside.
    of_outer_services: Rng,
    services: Vec<(&'static str, String)>,
    services_made: u32,
    services_called: u32,
    /// Likewise for what is said to the world.
    of_world: Rng,
    world_called: u32,
}

impl Generator<'_> {
    fn push(&mut self, action: Action) {
        self.steps.push(Step { at: None, action });
    }

    fn pause(&mut self, between: std::ops::RangeInclusive<u64>) {
        let time = Duration::from_millis(self.rng.range(between));
        self.push(Action::Wait(Wait::new(Until::Time(time))));
    }

    fn wait(&mut self, until: Until) {
        let settles = matches!(until, Until::Ready | Until::Rest);
        self.push(Action::Wait(Wait { until, within: LONG }));
        if settles {
            self.pods.iter_mut().for_each(|pod| pod.ready = true);
        }
    }

    fn heal(&mut self) {
        self.open_faults = false;
        self.push(Action::Fault(Fault { node: None, lasts: None, kind: FaultKind::Heal }));
    }

    fn start(&mut self) {
        self.make_namespaces();
        for _ in 0..self.rng.range(3..=6) {
            self.make_pod();
        }
        self.wait(Until::Ready);
        if matches!(self.profile.subject, Subject::Splits | Subject::Fresh) {
            self.some_traffic();
            if self.profile.subject == Subject::Splits {
                self.get_to_know_teams();
            }
            return;
        }
        for _ in 0..self.rng.range(1..=3) {
            self.stream(50..=250);
        }
        for _ in 0..self.rng.range(2..=4) {
            self.some_traffic();
        }
        self.services();
        self.calls_of_world();
    }

    fn round(&mut self) {
        for _ in 0..self.rng.range(0..=self.profile.churn) {
            self.delete_pod();
        }
        for _ in 0..self.rng.range(0..=self.profile.churn) {
            self.make_pod();
        }
        if percent(&mut self.rng, self.profile.node_churn) {
            self.far_node();
        }
        for _ in 0..self.rng.range(0..=self.profile.changes) {
            self.policy_changes();
        }
        // Sometimes what follows meets pods that are not ready yet.
        if !self.open_faults && self.rng.chance(0.4) {
            self.wait(Until::Ready);
        }
        if self.rng.chance(0.3) {
            self.stream(50..=250);
        }
        for _ in 0..self.rng.range(0..=self.profile.most_faults) {
            if self.rng.chance(0.5) {
                self.pause(0..=800);
            }
            self.break_something();
            if self.rng.chance(0.4) {
                self.some_traffic();
            }
        }
        self.services();
        self.calls_of_world();
        // Pods come and go under faults too.
        if self.rng.chance(0.5) {
            self.make_pod();
        }
        if self.rng.chance(0.3) {
            self.delete_pod();
        }
        for _ in 0..self.rng.range(1..=4) {
            self.some_traffic();
            if self.rng.chance(0.3) {
                self.pause(10..=1000);
            }
            if self.rng.chance(0.4) {
                self.policy_changes();
            }
        }
        self.services();
        self.calls_of_world();
        self.pause(200..=4000);
        if self.rng.chance(0.6) {
            self.heal();
            self.wait(Until::Rest);
        } else if self.rng.chance(0.5) {
            self.heal();
        }
    }

    /// Something about policies changes, while rows cannot be written or the agent dies. The fewer objects change at one moment, the
    /// less can be meant by what packets meet on the way.
    fn round_of_rows(&mut self) {
        if self.rng.chance(0.1) {
            self.delete_pod();
        }
        if self.rng.chance(0.15) {
            self.make_pod();
        }
        for _ in 0..self.rng.range(0..=self.profile.most_faults) {
            self.break_something();
        }
        let many = self.rng.chance(0.2);
        for _ in 0..if many { self.rng.range(3..=self.profile.changes) } else { self.rng.range(1..=2) } {
            self.policy_changes();
        }
        if self.rng.chance(0.1) {
            self.some_traffic();
        }
        self.pause(50..=800);
        if self.rng.chance(0.8) {
            self.heal();
            self.wait(Until::Rest);
        }
    }

    fn end(&mut self) {
        self.heal();
        // Who was asked for its link address in vain is asked again a second later.
        self.pause(3000..=3000);
        self.wait(Until::Rest);
        if self.policed {
            self.remove_policies();
            self.wait(Until::Rest);
        }
        let pods = u32::try_from(self.pods.len()).unwrap_or(u32::MAX);
        self.push(Action::Expect(Expect::PodsReady(pods)));
        let mut pairs: Vec<(usize, usize)> = (0..self.pods.len())
            .flat_map(|from| (0..self.pods.len()).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect();
        self.rng.shuffle(&mut pairs);
        pairs.truncate(MOST_PINGS);
        pairs.sort_unstable();
        for (from, to) in pairs {
            self.ping(from, to);
        }
        for (id, _) in std::mem::take(&mut self.streams) {
            self.wait(Until::Traffic(id));
        }
        self.wait(Until::Rest);
        while !self.pods.is_empty() {
            let index = self.rng.index(self.pods.len());
            self.delete(index);
        }
        // Late DELs come at most so late.
        self.push(Action::Wait(Wait::new(Until::Time(faults::LATEST_DEL + Duration::from_secs(2)))));
        self.wait(Until::Rest);
        self.push(Action::Expect(Expect::Allocated(0)));
    }
}
