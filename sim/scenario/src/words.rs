//! Faults by finer words than their kinds: for reports on what random scenarios have reached.

use crate::model::{ApiFault, CniFault, Failures, Fault, FaultKind, LinkFault, OPERATOR};

impl Fault {
    /// All that [`Fault::words`] may say.
    pub const WORDS: &[&str] = &[
        "link loss",
        "link duplicate",
        "link reorder",
        "link corrupt",
        "link delay",
        "link jitter",
        "link mtu",
        "partition",
        "kill",
        "kill after-commands",
        "kill snapshot-age",
        "stall",
        "skew",
        "api cut",
        "api down",
        "api slow",
        "api coalesce",
        "api duplicate",
        "api stale",
        "api partial-list",
        "api error 410",
        "api error 429",
        "api error 500",
        "api error 503",
        "api reorder",
        "cni repeat-add",
        "cni repeat-del",
        "cni late-del",
        "cni del-first",
        "cni netns-gone",
        "cni gc",
        "table-full",
        "ring-full",
        "failures of all",
        "failures of links",
        "failures of routes",
        "failures of state",
        "failures of a table",
        "heal",
        "operator kill",
        "operator stall",
        "operator api",
    ];

    /// What breaks, more exactly than [`FaultKind::word`]; a link may have several things that are wrong with it, and what
    /// happens to the operator is another matter than what happens to agents.
    pub fn words(&self) -> Vec<&'static str> {
        match (&self.kind, self.node.as_deref()) {
            (FaultKind::Kill(_), Some(OPERATOR)) => vec!["operator kill"],
            (FaultKind::Stall, Some(OPERATOR)) => vec!["operator stall"],
            (FaultKind::Api(_), Some(OPERATOR)) => vec!["operator api"],
            (FaultKind::Link(link), _) => of_link(link),
            (FaultKind::Kill(kill), _) => {
                let when = if kill.after_commands.is_some() { "kill after-commands" } else { "kill" };
                let older = (!kill.snapshot_age.is_zero()).then_some("kill snapshot-age");
                [Some(when), older].into_iter().flatten().collect()
            }
            (FaultKind::Api(fault), _) => vec![of_api(fault)],
            (FaultKind::Cni(fault), _) => vec![of_cni(fault)],
            (FaultKind::Failures(failures), _) => vec![of_failures(failures)],
            (kind, _) => vec![kind.word()],
        }
    }
}

fn of_link(link: &LinkFault) -> Vec<&'static str> {
    let LinkFault { loss, duplicate, reorder, corrupt, delay, jitter, mtu } = link;
    let words = [
        (*loss > 0.0, "link loss"),
        (*duplicate > 0.0, "link duplicate"),
        (*reorder > 0.0, "link reorder"),
        (*corrupt > 0.0, "link corrupt"),
        (!delay.is_zero(), "link delay"),
        (!jitter.is_zero(), "link jitter"),
        (mtu.is_some(), "link mtu"),
    ];
    words.into_iter().filter_map(|(there, word)| there.then_some(word)).collect()
}

const fn of_api(fault: &ApiFault) -> &'static str {
    match fault {
        ApiFault::Cut => "api cut",
        ApiFault::Down => "api down",
        ApiFault::Slow(_) => "api slow",
        ApiFault::Coalesce => "api coalesce",
        ApiFault::Duplicate => "api duplicate",
        ApiFault::Stale(_) => "api stale",
        ApiFault::PartialList => "api partial-list",
        ApiFault::Error(410) => "api error 410",
        ApiFault::Error(429) => "api error 429",
        ApiFault::Error(500) => "api error 500",
        // Nothing else is valid.
        ApiFault::Error(_) => "api error 503",
        ApiFault::Reorder => "api reorder",
    }
}

const fn of_cni(fault: &CniFault) -> &'static str {
    match fault {
        CniFault::RepeatAdd => "cni repeat-add",
        CniFault::RepeatDel(_) => "cni repeat-del",
        CniFault::LateDel(_) => "cni late-del",
        CniFault::DelFirst => "cni del-first",
        CniFault::NetnsGone => "cni netns-gone",
        CniFault::Gc => "cni gc",
    }
}

fn of_failures(failures: &Failures) -> &'static str {
    match failures.of.as_deref() {
        None => "failures of all",
        Some("links") => "failures of links",
        Some("routes") => "failures of routes",
        Some("state") => "failures of state",
        Some(_) => "failures of a table",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::generate::generate;
    use crate::model::Action;
    use crate::profile::PROFILES;

    /// Seeds of each profile.
    const SEEDS: u64 = 60;

    #[test]
    fn random_scenarios_have_faults_of_almost_every_word_and_of_no_other() {
        let mut seen = BTreeSet::new();
        for profile in PROFILES {
            for scenario in (1..=SEEDS).map(|seed| generate(seed, profile, None)) {
                for step in &scenario.steps {
                    let Action::Fault(fault) = &step.action else { continue };
                    let words = fault.words();
                    assert!(!words.is_empty(), "{fault:?}");
                    seen.extend(words);
                }
            }
        }
        let all: BTreeSet<&str> = Fault::WORDS.iter().copied().collect();
        assert_eq!(all.len(), Fault::WORDS.len(), "each is there once");
        assert_eq!(seen.difference(&all).count(), 0, "{seen:?}");
        assert!(seen.len() * 4 > all.len() * 3, "never: {:?}", all.difference(&seen));
    }

    #[test]
    fn of_a_link_every_trouble_is_told() {
        let link = LinkFault { loss: 0.1, mtu: Some(1300), ..LinkFault::default() };
        let fault = Fault { node: None, lasts: None, kind: FaultKind::Link(link) };
        assert_eq!(fault.words(), ["link loss", "link mtu"]);
    }
}
