//! Something breaks.

use std::time::Duration;

use super::Generator;
use crate::model::{Action, ApiFault, CniFault, Failures, Fault, FaultKind, Kill, LinkFault, OPERATOR};
use crate::profile::{Breakage, Subject};
use crate::rng::Rng;

/// DELs come no later than this.
pub(super) const LATEST_DEL: Duration = Duration::from_secs(5);

fn ms(rng: &mut Rng, between: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.range(between))
}

fn small(rng: &mut Rng, between: std::ops::RangeInclusive<u64>) -> u32 {
    u32::try_from(rng.range(between)).unwrap_or(u32::MAX)
}

impl Generator<'_> {
    pub(super) fn break_something(&mut self) {
        let Some(breakage) = self.breakage() else {
            return;
        };
        let mut kind = self.kind(breakage);
        if breakage == Breakage::Operator {
            let lasts = crate::validate::fault::lasts(&kind).then(|| ms(&mut self.rng, 200..=6000));
            self.push(Action::Fault(Fault { node: Some(OPERATOR.to_owned()), lasts, kind }));
            return;
        }
        // A connection that goes on long after a short fault must survive it.
        let through = matches!(breakage, Breakage::Link | Breakage::Partition) && self.rng.chance(0.5);
        if through {
            self.stream(150..=250);
            self.pause(100..=1000);
        }
        let n = self.rng.range(1..=u64::from(self.cluster.nodes));
        let everywhere = self.rng.chance(0.2);
        let node = (!everywhere).then(|| format!("node-{n}"));
        let hands_over = breakage == Breakage::Cni
            && node.is_some()
            && self.cluster.pod_cidr_bits > 28
            && self.rng.chance(0.3);
        let time = ms(&mut self.rng, if through { 200..=2000 } else { 200..=6000 });
        if hands_over {
            kind = FaultKind::Cni(CniFault::RepeatDel(LATEST_DEL));
        }
        let until_healed = !through && self.rng.chance(0.25);
        let lasts = crate::validate::fault::lasts(&kind);
        self.open_faults |= lasts && until_healed;
        let unwritten = match &kind {
            FaultKind::TableFull { table, .. } => Some(table.clone()),
            FaultKind::Failures(failures) => failures.of.clone(),
            _ => None,
        };
        let named = node.clone();
        let cut = matches!(kind, FaultKind::Api(ApiFault::PartialList));
        let starts = self.starts_amid(&mut kind);
        self.push(Action::Fault(Fault { node, lasts: (lasts && !until_healed).then_some(time), kind }));
        if hands_over {
            self.address_changes_hands(named.as_ref());
        } else if matches!(unwritten.as_deref(), Some("state" | "ENDPOINTS" | "IPCACHE"))
            && self.rng.chance(0.5)
        {
            self.pod_amid_failures(named.as_ref(), unwritten.as_deref() == Some("state"));
        } else if self.policed && unwritten.is_some() && self.rng.chance(0.7) {
            for _ in 0..self.rng.range(1..=3) {
                self.policy_changes();
                self.pause(10..=300);
            }
        } else if breakage == Breakage::Failures && self.rng.chance(0.5) {
            self.death_amid_failures(named.as_ref());
        }
        if starts {
            self.agent_dies(named.clone(), Duration::ZERO);
        }
        if cut && self.rng.chance(0.5) {
            self.far_node_goes_between_lists();
        }
    }

    /// Whether agents that a fault of the API hits are started just then: they know nothing but what a list had that was cut off, or that
    /// was of long ago.
    fn starts_amid(&self, kind: &mut FaultKind) -> bool {
        let mut rng = Rng::stream(self.seed, "starts", u64::from(self.traffic_made));
        match kind {
            FaultKind::Api(ApiFault::Stale(lag)) if rng.chance(0.5) => {
                *lag = small(&mut rng, 1..=20);
                true
            }
            FaultKind::Api(ApiFault::PartialList) => rng.chance(0.5),
            _ => false,
        }
    }

    /// The agent dies at once, and is there again after this time.
    pub(super) fn agent_dies(&mut self, node: Option<String>, restart_after: Duration) {
        let kill = Kill { after_commands: None, restart_after, snapshot_age: Duration::ZERO };
        self.push(Action::Fault(Fault { node, lasts: None, kind: FaultKind::Kill(kill) }));
    }

    /// Pods of a node that nothing needs, or of any.
    fn spare_pods(&self, node: Option<&String>) -> Vec<usize> {
        (0..self.pods.len())
            .filter(|i| !self.pods[*i].anchor && (node.is_none() || self.pods[*i].node.as_ref() == node))
            .collect()
    }

    /// A pod goes, and others get its address before its DEL is repeated.
    fn address_changes_hands(&mut self, node: Option<&String>) {
        let Some(index) = self.rng.pick(&self.spare_pods(node)).copied() else { return };
        self.delete(index);
        // Pods have a second to end, and clusters where this shows keep addresses back for two.
        self.pause(3200..=3600);
        for _ in 0..4 {
            self.make_pod_on(node.cloned());
        }
    }

    /// A pod is made of which something cannot be written, and is spoken with; perhaps the agent dies before it can be.
    fn pod_amid_failures(&mut self, node: Option<&String>, dies: bool) {
        let before = self.pods.len();
        let any = format!("node-{}", self.rng.range(1..=u64::from(self.cluster.nodes)));
        let node = node.cloned().unwrap_or(any);
        self.make_pod_on(Some(node.clone()));
        if self.pods.len() == before {
            return;
        }
        self.pause(200..=1200);
        if dies {
            let after = ms(&mut self.rng, 0..=50);
            self.agent_dies(Some(node), after);
        } else {
            self.speak_with_the_last_pod();
        }
    }

    /// A pod goes while commands fail, the agent dies before it can try again, and others come for the addresses.
    fn death_amid_failures(&mut self, node: Option<&String>) {
        let Some(index) = self.rng.pick(&self.spare_pods(node)).copied() else { return };
        let node = self.pods[index].node.clone();
        self.delete(index);
        // Pods have a second to end.
        self.pause(900..=1400);
        let after = ms(&mut self.rng, 0..=50);
        self.agent_dies(node.clone(), after);
        for _ in 0..4 {
            self.make_pod_on(node.clone());
        }
    }

    fn breakage(&mut self) -> Option<Breakage> {
        let sum: u32 = self.profile.breakages.iter().map(|(_, weight)| weight).sum();
        let mut left = self.rng.below(u64::from(sum));
        self.profile.breakages.iter().find_map(|(breakage, weight)| {
            match left.checked_sub(u64::from(*weight)) {
                Some(less) => {
                    left = less;
                    None
                }
                None => Some(*breakage),
            }
        })
    }

    fn kind(&mut self, breakage: Breakage) -> FaultKind {
        let breaks_api = self.profile.breakages.iter().any(|(breakage, _)| *breakage == Breakage::Api);
        let rng = &mut self.rng;
        match breakage {
            Breakage::Kill => FaultKind::Kill(kill(rng)),
            Breakage::Operator if rng.chance(0.15) => FaultKind::Stall,
            Breakage::Operator if breaks_api && rng.chance(0.25) => FaultKind::Api(api(rng)),
            Breakage::Operator => {
                let kill = kill(rng);
                // It issues few commands.
                FaultKind::Kill(Kill { after_commands: kill.after_commands.map(|n| n % 4 + 1), ..kill })
            }
            Breakage::Snapshot => FaultKind::Kill(Kill { snapshot_age: ms(rng, 100..=20_000), ..kill(rng) }),
            Breakage::Stall => FaultKind::Stall,
            Breakage::Skew => FaultKind::Skew(ms(rng, 500..=90_000)),
            Breakage::Api => FaultKind::Api(api(rng)),
            Breakage::Cni => FaultKind::Cni(cni(rng)),
            Breakage::Link => FaultKind::Link(link(rng)),
            Breakage::Partition => FaultKind::Partition,
            Breakage::Table => {
                let tables = [
                    "CT4",
                    "CT6",
                    "FRAGS4",
                    "FRAGS6",
                    "ENDPOINTS",
                    "IPCACHE",
                    "POLICY",
                    "POLICY_BLOCKS",
                    "POLICY_L4",
                ];
                let table = rng.pick(&tables).copied().unwrap_or("CT4").to_owned();
                FaultKind::TableFull { table, rows: small(rng, 0..=12) }
            }
            Breakage::Ring => FaultKind::RingFull(small(rng, 0..=64)),
            Breakage::Failures => {
                FaultKind::Failures(failures(rng, self.policed, self.profile.subject != Subject::All))
            }
        }
    }
}

fn kill(rng: &mut Rng) -> Kill {
    let at_once = rng.chance(0.3);
    let commands = small(rng, 0..=40);
    let restart_after = if rng.chance(0.3) { Duration::ZERO } else { ms(rng, 10..=4000) };
    Kill { after_commands: (!at_once).then_some(commands), restart_after, snapshot_age: Duration::ZERO }
}

/// All commands now and then, or nearly all to one place. `of_policies`: what is looked for are orders of rows of policy.
fn failures(rng: &mut Rng, policed: bool, of_policies: bool) -> Failures {
    if rng.chance(if of_policies { 0.15 } else { 0.4 }) {
        let probability = rng.pick(&[0.1, 0.3, 0.5]).copied().unwrap_or(0.1);
        return Failures { probability, of: None };
    }
    let places = ["state", "state", "state", "links", "routes", "ENDPOINTS", "IPCACHE"];
    let of_policy = ["ENDPOINTS", "IPCACHE", "POLICY", "POLICY", "POLICY_BLOCKS", "POLICY_L4", "POLICY_L4"];
    let places = if policed && rng.chance(if of_policies { 0.9 } else { 0.6 }) { of_policy } else { places };
    let of = rng.pick(&places).copied().unwrap_or("state");
    // Where an order matters, some must succeed.
    let probability = if of == "state" || rng.chance(0.4) { 0.5 } else { 0.9 };
    Failures { probability, of: Some(of.to_owned()) }
}

fn api(rng: &mut Rng) -> ApiFault {
    match rng.below(9) {
        0 => ApiFault::Cut,
        1 => ApiFault::Down,
        2 => ApiFault::Slow(ms(rng, 50..=3000)),
        3 => ApiFault::Coalesce,
        4 => ApiFault::Duplicate,
        5 => ApiFault::Stale(small(rng, 1..=6)),
        6 => ApiFault::PartialList,
        7 => ApiFault::Error(rng.pick(&[429, 500, 503, 410]).copied().unwrap_or(500)),
        _ => ApiFault::Reorder,
    }
}

fn cni(rng: &mut Rng) -> CniFault {
    let latest = u64::try_from(LATEST_DEL.as_millis()).unwrap_or(u64::MAX);
    match rng.below(6) {
        0 => CniFault::RepeatAdd,
        1 => CniFault::RepeatDel(ms(rng, 10..=latest)),
        2 => CniFault::LateDel(ms(rng, 10..=latest)),
        3 => CniFault::DelFirst,
        4 => CniFault::NetnsGone,
        _ => CniFault::Gc,
    }
}

/// One to three things that a link can do.
fn link(rng: &mut Rng) -> LinkFault {
    let mut link = LinkFault::default();
    for _ in 0..rng.range(1..=3) {
        // Hundredths, which can be read and written.
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let p = rng.range(1..=30) as f64 / 100.0;
        match rng.below(7) {
            0 => link.loss = p,
            1 => link.duplicate = p,
            2 => link.reorder = p,
            3 => link.corrupt = p,
            4 => link.delay = ms(rng, 1..=200),
            5 => link.jitter = ms(rng, 1..=100),
            _ => link.mtu = rng.pick(&[576, 1280, 1400]).copied(),
        }
    }
    link
}
