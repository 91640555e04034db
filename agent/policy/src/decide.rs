//! The decision for one peer in one direction, over all protocols and ports.

use std::collections::{BTreeMap, BTreeSet};

use crate::ports::{PortRange, prefixes};
use crate::rows::{L4Prefix, L4Set, Outcome, Staged, Verdict};
use crate::rule::{Action, Origin, Rule, Spec, Tier};

/// An entry that is about the peer, with its ports by number.
#[derive(Debug, Clone)]
pub(crate) struct Candidate<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) rule: &'a Rule,
    /// `None`: every protocol and port.
    pub(crate) ports: Option<Vec<PortRange>>,
}

impl Candidate<'_> {
    /// `None`: a protocol of which no rule speaks.
    fn matches(&self, at: Option<(u8, u16)>) -> bool {
        match (&self.ports, at) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ranges), Some((proto, port))) => ranges.iter().any(|range| range.has(proto, port)),
        }
    }

    fn origin(&self) -> Origin {
        self.spec.origin(Some(self.rule))
    }
}

/// Whether what nothing allows is denied, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Isolation {
    /// It is, whatever policies say.
    pub(crate) closed: bool,
    /// Rules that isolate.
    pub(crate) by: Vec<Origin>,
    /// Staged rules that would.
    pub(crate) staged_by: Vec<Origin>,
}

/// A decision with its origins, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) outcome: Outcome,
    pub(crate) origins: Vec<Origin>,
}

/// Decides for one protocol and port. Candidates are in the order of evaluation.
pub(crate) fn judge(
    candidates: &[Candidate<'_>],
    isolation: &Isolation,
    at: Option<(u8, u16)>,
    staged: bool,
) -> Judgement {
    let in_force =
        || candidates.iter().filter(|candidate| (staged || !candidate.spec.staged) && candidate.matches(at));
    let of = |tier| in_force().filter(move |candidate: &&Candidate<'_>| candidate.spec.tier == tier);
    let first = |tier| of(tier).next().map(|candidate| (candidate.rule.action, vec![candidate.origin()]));
    let decided = |outcome, origins| Judgement { outcome, origins };

    match first(Tier::Admin) {
        Some((Action::Allow, origins)) => return decided(Outcome::Allow, origins),
        Some((Action::Proxy, origins)) => return decided(Outcome::Redirect, origins),
        Some((Action::Deny, origins)) => return decided(Outcome::Deny, origins),
        Some((Action::Pass, _)) | None => {}
    }
    for (action, outcome) in [
        (Action::Deny, Outcome::Deny),
        // What is allowed without conditions is not subject to those of others.
        (Action::Allow, Outcome::Allow),
        (Action::Proxy, Outcome::Redirect),
    ] {
        let mut origins: Vec<Origin> =
            of(Tier::Network).filter(|c| c.rule.action == action).map(Candidate::origin).collect();
        if !origins.is_empty() {
            origins.sort();
            return decided(outcome, origins);
        }
    }
    let staged_by: &[Origin] = if staged { &isolation.staged_by } else { &[] };
    if isolation.closed || !isolation.by.is_empty() || !staged_by.is_empty() {
        let mut origins: Vec<Origin> = isolation.by.iter().chain(staged_by).cloned().collect();
        origins.sort();
        return decided(Outcome::NoRule, origins);
    }
    match first(Tier::Baseline) {
        Some((Action::Deny, origins)) => decided(Outcome::Deny, origins),
        Some((Action::Proxy, origins)) => decided(Outcome::Redirect, origins),
        Some((Action::Allow, origins)) => decided(Outcome::Allow, origins),
        Some((Action::Pass, _)) | None => decided(Outcome::Allow, Vec::new()),
    }
}

/// The decision over all protocols and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The same for all.
    All(Verdict),
    /// By protocol and port.
    Set(L4Set),
}

/// Decides for everything at once. `cookie` gives the number for origins.
pub(crate) fn decide(
    candidates: &[Candidate<'_>],
    isolation: &Isolation,
    cookie: &mut impl FnMut(Vec<Origin>) -> u32,
) -> Decision {
    let any_staged =
        !isolation.staged_by.is_empty() || candidates.iter().any(|candidate| candidate.spec.staged);
    let mut verdict = |candidates: &[Candidate<'_>], at| {
        let now = judge(candidates, isolation, at, false);
        let mut verdict =
            Verdict { outcome: now.outcome, cookie: 0, staged: Staged::Nothing, staged_cookie: 0 };
        if any_staged {
            let then = judge(candidates, isolation, at, true);
            if then.outcome.passes() != now.outcome.passes() {
                verdict.staged = if then.outcome.passes() { Staged::WouldAllow } else { Staged::WouldDeny };
                verdict.staged_cookie = cookie(then.origins);
            }
        }
        verdict.cookie = cookie(now.origins);
        verdict
    };

    let otherwise = verdict(candidates, None);
    let protocols: BTreeSet<u8> =
        candidates.iter().filter_map(|c| c.ports.as_ref()).flatten().map(|range| range.proto).collect();
    let mut rows = vec![(L4Prefix::ANY, otherwise)];
    for proto in protocols {
        // Candidates that say nothing of the protocol only cost time below.
        let about: Vec<Candidate<'_>> = candidates
            .iter()
            .filter(|c| c.ports.as_ref().is_none_or(|ports| ports.iter().any(|range| range.proto == proto)))
            .cloned()
            .collect();
        let segments = segments(&about, proto, |port| verdict(&about, Some((proto, port))));
        rows.extend(shortest(proto, &segments, otherwise));
    }
    if rows.len() == 1 {
        return Decision::All(otherwise);
    }
    rows.sort();
    Decision::Set(L4Set(rows))
}

/// Ports in ascending segments (first, last) of equal verdicts.
fn segments(
    candidates: &[Candidate<'_>],
    proto: u8,
    mut verdict: impl FnMut(u16) -> Verdict,
) -> Vec<(u16, u16, Verdict)> {
    let ranges =
        || candidates.iter().filter_map(|c| c.ports.as_ref()).flatten().filter(|range| range.proto == proto);
    let starts: BTreeSet<u16> = ranges()
        .map(|range| range.first)
        .chain(ranges().filter_map(|range| range.last.checked_add(1)))
        .chain([0])
        .collect();
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([u16::MAX]);
    let mut found: Vec<(u16, u16, Verdict)> = Vec::new();
    for (first, last) in starts.iter().copied().zip(ends) {
        let verdict = verdict(first);
        match found.last_mut() {
            Some(before) if before.2 == verdict => before.1 = last,
            _ => found.push((first, last, verdict)),
        }
    }
    found
}

/// Rows for a protocol: of the verdicts that may hold for the whole protocol the one that leaves the fewest rows.
fn shortest(proto: u8, segments: &[(u16, u16, Verdict)], otherwise: Verdict) -> Vec<(L4Prefix, Verdict)> {
    let mut costs: BTreeMap<Verdict, usize> = BTreeMap::from([(otherwise, 0)]);
    for (first, last, verdict) in segments {
        *costs.entry(*verdict).or_default() += prefixes(*first, *last).len();
    }
    let total: usize = costs.values().sum();
    // Rows of its own are saved by the default; a default that is not that of all protocols costs one.
    let rows_with = |verdict: Verdict, own: usize| total - own + usize::from(verdict != otherwise);
    let default = costs
        .iter()
        .min_by_key(|(verdict, own)| (rows_with(**verdict, **own), **verdict != otherwise, **verdict))
        .map_or(otherwise, |(verdict, _)| *verdict);
    let whole =
        (default != otherwise).then_some((L4Prefix { proto: Some(proto), bits: 0, port: 0 }, default));
    let parts =
        segments.iter().filter(|(_, _, verdict)| *verdict != default).flat_map(|(first, last, verdict)| {
            prefixes(*first, *last)
                .into_iter()
                .map(|(port, bits)| (L4Prefix { proto: Some(proto), bits, port }, *verdict))
        });
    whole.into_iter().chain(parts).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;

    use super::*;
    use crate::ports::{Ports, proto};
    use crate::rule::{Kind, ObjectRef, Peers, Section};
    use crate::selector::Selector;

    fn spec(tier: Tier, priority: u16, staged: bool, rules: &[(Action, Option<PortRange>)]) -> Spec {
        Spec {
            object: Arc::new(ObjectRef {
                kind: Kind::NetworkPolicy,
                namespace: String::new(),
                name: format!("{tier:?}-{priority}-{staged}"),
            }),
            index: 0,
            tier,
            priority,
            staged,
            host: false,
            subject: Arc::new(Selector::labels([])),
            isolates_ingress: tier == Tier::Network,
            isolates_egress: false,
            rules: (0..)
                .zip(rules)
                .map(|(index, (action, range))| Rule {
                    section: Section::Ingress,
                    index,
                    action: *action,
                    peers: Arc::new(Peers::everybody()),
                    ports: Arc::new(range.map_or(Ports::All, |range| Ports::Some {
                        ranges: BTreeSet::from([range]),
                        names: BTreeSet::new(),
                    })),
                })
                .collect(),
        }
    }

    fn candidates(specs: &[Spec]) -> (Vec<Candidate<'_>>, Isolation) {
        let candidates = specs
            .iter()
            .flat_map(|spec| {
                spec.rules.iter().map(move |rule| Candidate { spec, rule, ports: rule.ports.resolve(&[]) })
            })
            .collect();
        let isolates = |staged| {
            specs
                .iter()
                .filter(|s| s.isolates_ingress && s.staged == staged)
                .map(|s| s.origin(None))
                .collect()
        };
        (candidates, Isolation { closed: false, by: isolates(false), staged_by: isolates(true) })
    }

    #[expect(clippy::unnecessary_wraps, reason = "beside `None` in the tables below")]
    fn web() -> Option<PortRange> {
        Some(PortRange::one(proto::TCP, 80))
    }

    #[rstest]
    #[case::nothing(&[], Outcome::Allow)]
    #[case::isolated(&[spec(Tier::Network, 0, false, &[])], Outcome::NoRule)]
    #[case::allowed(&[spec(Tier::Network, 0, false, &[(Action::Allow, web())])], Outcome::Allow)]
    #[case::deny_over_allow(&[spec(Tier::Network, 0, false, &[(Action::Allow, web()), (Action::Deny, None)])], Outcome::Deny)]
    #[case::plain_over_proxy(&[spec(Tier::Network, 0, false, &[(Action::Proxy, web()), (Action::Allow, None)])], Outcome::Allow)]
    #[case::proxy(&[spec(Tier::Network, 0, false, &[(Action::Proxy, web())])], Outcome::Redirect)]
    #[case::admin_first(&[spec(Tier::Admin, 1, false, &[(Action::Allow, None)]), spec(Tier::Admin, 2, false, &[(Action::Deny, None)])], Outcome::Allow)]
    #[case::admin_over_network(&[spec(Tier::Admin, 1, false, &[(Action::Deny, None)]), spec(Tier::Network, 0, false, &[(Action::Allow, None)])], Outcome::Deny)]
    #[case::pass(&[spec(Tier::Admin, 1, false, &[(Action::Pass, None), (Action::Deny, None)]), spec(Tier::Network, 0, false, &[(Action::Allow, None)])], Outcome::Allow)]
    #[case::pass_skips_the_tier(&[spec(Tier::Admin, 1, false, &[(Action::Pass, None)]), spec(Tier::Admin, 2, false, &[(Action::Deny, None)])], Outcome::Allow)]
    #[case::baseline(&[spec(Tier::Baseline, 1, false, &[(Action::Deny, None)])], Outcome::Deny)]
    #[case::network_over_baseline(&[spec(Tier::Network, 0, false, &[(Action::Allow, None)]), spec(Tier::Baseline, 1, false, &[(Action::Deny, None)])], Outcome::Allow)]
    #[case::isolated_never_reaches_baseline(&[spec(Tier::Network, 0, false, &[]), spec(Tier::Baseline, 1, false, &[(Action::Allow, None)])], Outcome::NoRule)]
    #[case::staged_is_not_in_force(&[spec(Tier::Network, 0, true, &[(Action::Deny, None)])], Outcome::Allow)]
    fn precedence(#[case] specs: &[Spec], #[case] expected: Outcome) {
        let (candidates, isolation) = candidates(specs);
        assert_eq!(judge(&candidates, &isolation, Some((proto::TCP, 80)), false).outcome, expected);
    }

    #[test]
    fn staged_policies_tell_what_they_would_change_and_nothing_else() {
        let specs = [
            spec(Tier::Network, 0, false, &[(Action::Allow, web())]),
            spec(Tier::Network, 0, true, &[(Action::Deny, Some(PortRange::all(proto::TCP)))]),
        ];
        let (candidates, isolation) = candidates(&specs);
        let Decision::Set(set) =
            decide(&candidates, &isolation, &mut |origins| u32::try_from(origins.len()).unwrap())
        else {
            panic!("ports differ")
        };
        let web = set.look_up(proto::TCP, 80).unwrap();
        assert_eq!((web.outcome, web.staged), (Outcome::Allow, Staged::WouldDeny));
        let other = set.look_up(proto::TCP, 81).unwrap();
        assert_eq!((other.outcome, other.staged), (Outcome::NoRule, Staged::Nothing));
    }

    #[test]
    fn a_denied_port_in_an_allowed_protocol_costs_one_row() {
        let specs = [spec(
            Tier::Network,
            0,
            false,
            &[(Action::Allow, Some(PortRange::all(proto::TCP))), (Action::Deny, web())],
        )];
        let (candidates, isolation) = candidates(&specs);
        let Decision::Set(set) = decide(&candidates, &isolation, &mut |_| 0) else { panic!("ports differ") };
        assert_eq!(set.0.len(), 3);
        assert_eq!(set.look_up(proto::TCP, 80).unwrap().outcome, Outcome::Deny);
        assert_eq!(set.look_up(proto::TCP, 443).unwrap().outcome, Outcome::Allow);
        assert_eq!(set.look_up(proto::UDP, 80).unwrap().outcome, Outcome::NoRule);
    }
}
