//! The list of mutants as it is written down.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::cmd;

/// The list, from the repository's root.
pub(super) const LIST: &str = "sim/mutants/mutants.yaml";

/// Sources that may have mutants: those of crates that the simulator runs and that know `dataplane-abi`, where the switch is.
const PLACES: &[&str] = &[
    "dataplane/abi/src/",
    "dataplane/core/src/",
    "dataplane/native/src/",
    "agent/control/src/",
    "agent/policy/src/",
];

/// A defect to be found.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mutant {
    /// Its name: lower case words with `-` between.
    pub(super) id: String,
    /// The defect as a bug report would say it, one sentence.
    pub(super) what: String,
    /// What has to happen for it to show, where ordinary traffic is not enough.
    #[serde(default)]
    pub(super) needs: Option<String>,
    /// Why no run of the simulator can show it, where that is so; a test of its own does.
    #[serde(default)]
    pub(super) unseen: Option<String>,
    /// What it is about, one word.
    pub(super) kind: String,
    /// The source file, from the repository's root.
    pub(super) file: String,
    /// The right code. Occurs once in the file, or in `within` where that is given. White space is as good as other white space.
    pub(super) find: String,
    /// Code around `find` that occurs once in the file, where `find` alone occurs more often.
    #[serde(default)]
    pub(super) within: Option<String>,
    /// The wrong code.
    pub(super) put: String,
    /// What kind of code both are.
    #[serde(default)]
    pub(super) form: Form,
    /// The simulator's profile that is most likely to find it.
    #[serde(default)]
    pub(super) profile: Profile,
}

/// Kinds of code, by how a choice between two of them is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    /// An expression: `(if … { put } else { find })`.
    #[default]
    Expression,
    /// Whole statements, without a `let` that anything behind them needs: `if … { put } else { find }`.
    Statement,
    /// An arm of a match, with its comma: `put's pattern if … => put's body, find`.
    Arm,
}

/// Profiles of the simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Profile {
    #[default]
    Mixed,
    Quiet,
    Crash,
    Api,
    Net,
    Cni,
    Full,
    Policy,
    Order,
    Split,
    Fresh,
}

impl Profile {
    /// As the list and the simulator say it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Quiet => "quiet",
            Self::Crash => "crash",
            Self::Api => "api",
            Self::Net => "net",
            Self::Cni => "cni",
            Self::Full => "full",
            Self::Policy => "policy",
            Self::Order => "order",
            Self::Split => "split",
            Self::Fresh => "fresh",
        }
    }
}

/// Reads the list; fails with all that is wrong with it by itself.
pub(super) fn read() -> anyhow::Result<Vec<Mutant>> {
    let path = cmd::root().join(LIST);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mutants: Vec<Mutant> =
        serde_yaml_ng::from_str(&text).with_context(|| format!("{LIST} is no list of mutants"))?;
    let findings = findings(&mutants);
    if findings.is_empty() {
        return Ok(mutants);
    }
    bail!("{LIST}:\n  {}", findings.join("\n  "))
}

fn findings(mutants: &[Mutant]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut ids = BTreeSet::new();
    for mutant in mutants {
        let Mutant { id, what, kind, file, find, put, .. } = mutant;
        if !is_name(id) || !is_name(kind) {
            findings.push(format!("`{id}` ({kind}): id and kind are lower case words with - between"));
        }
        if !ids.insert(id) {
            findings.push(format!("{id} is there twice: name one of them differently"));
        }
        if what.trim().is_empty() || find.trim().is_empty() {
            findings.push(format!("{id}: `what` and `find` may not be empty"));
        }
        if find.split_whitespace().eq(put.split_whitespace()) {
            findings.push(format!("{id}: `put` is the same as `find`"));
        }
        if !PLACES.iter().any(|place| file.starts_with(place)) {
            findings.push(format!("{id}: {file} is not below one of {}", PLACES.join(", ")));
        }
    }
    findings
}

fn is_name(text: &str) -> bool {
    text.split('-').all(|word| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

/// The mutants with these ids; all of them where none is named.
pub(super) fn choose<'a>(all: &'a [Mutant], only: &[String]) -> anyhow::Result<Vec<&'a Mutant>> {
    if only.is_empty() {
        return Ok(all.iter().collect());
    }
    only.iter()
        .map(|id| {
            all.iter().find(|mutant| mutant.id == *id).with_context(|| {
                format!("there is no mutant {id}: `cargo xtask sim mutants --list` names them")
            })
        })
        .collect()
}

#[cfg(test)]
pub(super) mod example {
    //! Mutants for tests.

    use super::{Form, Mutant, Profile};

    /// A mutant of one file.
    pub(in super::super) fn mutant(id: &str, form: Form, find: &str, put: &str) -> Mutant {
        Mutant {
            id: id.to_owned(),
            what: "A defect.".to_owned(),
            needs: None,
            unseen: None,
            kind: "parse".to_owned(),
            file: "dataplane/core/src/a.rs".to_owned(),
            find: find.to_owned(),
            within: None,
            put: put.to_owned(),
            form,
            profile: Profile::Mixed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::example::mutant;
    use super::*;

    #[test]
    fn what_is_wrong_with_a_list_is_said() {
        let good = mutant("a-1", Form::Expression, "a", "b");
        assert_eq!(findings(std::slice::from_ref(&good)), [""; 0]);
        let elsewhere = Mutant { file: "agent/daemon/src/main.rs".to_owned(), ..good.clone() };
        for (bad, says) in [
            (mutant("A_1", Form::Expression, "a", "b"), "lower case"),
            (mutant("a", Form::Expression, " ", "b"), "may not be empty"),
            (mutant("a", Form::Expression, "a  + b", "a + b"), "the same"),
            (elsewhere, "not below"),
        ] {
            let found = findings(&[bad]);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(says), "{found:?}");
        }
        assert!(findings(&[good.clone(), good])[0].contains("twice"));
    }

    #[test]
    fn an_unknown_id_is_refused() {
        let all = [mutant("a", Form::Expression, "a", "b")];
        assert_eq!(choose(&all, &[]).unwrap().len(), 1);
        assert_eq!(choose(&all, &["a".to_owned()]).unwrap().len(), 1);
        assert!(choose(&all, &["b".to_owned()]).unwrap_err().to_string().contains("--list"));
    }
}
