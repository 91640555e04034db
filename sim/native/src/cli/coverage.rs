//! What random runs have reached of what there is, and above all what they have not.

use std::collections::BTreeMap;

use dataplane_abi::DropReason;
use serde_json::{Value, json};
use sim_scenario::model::Fault;

/// Reasons for which the packet programs may drop.
const DROP_REASONS: [DropReason; 24] = [
    DropReason::InvalidSourceIp,
    DropReason::PolicyDenied,
    DropReason::InvalidPacket,
    DropReason::CtInvalidHeader,
    DropReason::CtUnknownProtocol,
    DropReason::UnsupportedL3,
    DropReason::WriteError,
    DropReason::UnknownIcmp4Type,
    DropReason::UnknownIcmp6Type,
    DropReason::NoTunnelKey,
    DropReason::UnknownTarget,
    DropReason::CtCreateFailed,
    DropReason::InvalidExtensionHeader,
    DropReason::NoTunnelEndpoint,
    DropReason::UnknownCtState,
    DropReason::NoConfig,
    DropReason::EncapProhibited,
    DropReason::FragmentNotFound,
    DropReason::ForbiddenIcmp6,
    DropReason::PolicyDenyRule,
    DropReason::VlanFiltered,
    DropReason::NoServiceBackend,
    DropReason::NatNoMapping,
    DropReason::NatUnsupportedProtocol,
];

/// How often something was seen, by its word.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    faults: BTreeMap<&'static str, u64>,
    drops: BTreeMap<String, u64>,
}

impl Coverage {
    /// Faults were made.
    pub(crate) fn add_faults(&mut self, faults: &BTreeMap<&'static str, u64>) {
        for (word, n) in faults {
            *self.faults.entry(word).or_default() += n;
        }
    }

    /// Packets were dropped.
    pub(crate) fn add_drops(&mut self, drops: &BTreeMap<String, u64>) {
        for (reason, n) in drops {
            *self.drops.entry(reason.clone()).or_default() += n;
        }
    }

    fn faults_never(&self) -> Vec<&'static str> {
        Fault::WORDS.iter().copied().filter(|word| !self.faults.contains_key(word)).collect()
    }

    fn drops_never(&self) -> Vec<&'static str> {
        DROP_REASONS
            .iter()
            .map(|reason| reason.name())
            .filter(|name| !self.drops.contains_key(*name))
            .collect()
    }

    /// For people: what was seen how often, and what never.
    pub(crate) fn text(&self) -> String {
        let (faults, drops) = (self.faults_never(), self.drops_never());
        format!(
            "faults: {}\n  {} of {}, never: {}\ndrops:  {}\n  {} of {} reasons that the dataplane can give, never: {}",
            list(self.faults.iter()),
            Fault::WORDS.len() - faults.len(),
            Fault::WORDS.len(),
            joined(&faults),
            list(self.drops.iter()),
            DROP_REASONS.len() - drops.len(),
            DROP_REASONS.len(),
            joined(&drops),
        )
    }

    /// For programs: the same, to be added to what is told of the runs.
    pub(crate) fn json(&self) -> [(&'static str, Value); 4] {
        [
            ("faults", json!(self.faults)),
            ("faults-never", json!(self.faults_never())),
            ("drops", json!(self.drops)),
            ("drops-never", json!(self.drops_never())),
        ]
    }
}

fn list<'a, W: std::fmt::Display + 'a>(rows: impl Iterator<Item = (W, &'a u64)>) -> String {
    joined(&rows.map(|(word, n)| format!("{word} {n}")).collect::<Vec<String>>())
}

fn joined<W: AsRef<str>>(words: &[W]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn what_was_not_reached_is_told() {
        let mut coverage = Coverage::default();
        coverage.add_faults(&BTreeMap::from([("api cut", 3), ("stall", 1)]));
        coverage.add_faults(&BTreeMap::from([("api cut", 1)]));
        coverage.add_drops(&BTreeMap::from([("POLICY_DENIED".to_owned(), 7)]));
        let text = coverage.text();
        assert!(text.starts_with("faults: api cut 4, stall 1\n  2 of 42, never: link loss, "), "{text}");
        assert!(
            text.contains("\ndrops:  POLICY_DENIED 7\n  1 of 24 reasons that the dataplane can give, never: INVALID_SOURCE_IP, "),
            "{text}"
        );
        let never = &coverage.json()[1].1;
        assert_eq!(never.as_array().map(Vec::len), Some(40), "{never}");
    }

    /// Files below a directory.
    fn files(dir: &Path, found: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for path in entries.map(|entry| entry.expect("a directory can be read").path()) {
            if path.is_dir() { files(&path, found) } else { found.push(path) }
        }
    }

    #[test]
    fn the_reasons_are_those_that_the_programs_name() {
        let mut sources = Vec::new();
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dataplane/core/src"), &mut sources);
        let mut named = BTreeSet::new();
        for source in sources {
            let text = std::fs::read_to_string(&source).unwrap_or_else(|error| panic!("{error}"));
            for part in text.split("DropReason::").skip(1) {
                let word: String = part.chars().take_while(char::is_ascii_alphanumeric).collect();
                // Variants have capitals, functions have none.
                if word.starts_with(|first: char| first.is_ascii_uppercase()) {
                    named.insert(word);
                }
            }
        }
        let listed: BTreeSet<String> = DROP_REASONS.iter().map(|reason| format!("{reason:?}")).collect();
        assert_eq!(named, listed);
    }
}
