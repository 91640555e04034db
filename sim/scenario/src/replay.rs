//! The replay file: everything that is needed to see a violation again.

use std::path::Path as FilePath;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ScenarioError;
use crate::model::{Scenario, omit, time};
use crate::read::{content, document, yaml};

/// Version of the form; the value of the field `bristle`.
pub const FORMAT: &str = "replay/v1";

/// A run that broke an invariant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Replay {
    /// Always [`FORMAT`].
    pub bristle: String,
    /// Version of the project that wrote it.
    pub version: String,
    /// Seed of the run.
    pub seed: u64,
    /// The profile by which the scenario was made, if it was made by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What of the run was not as usual; without it, what the profile and the seed say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<RunOptions>,
    /// What was broken.
    pub violation: Violation,
    /// Digest of the run's trace: a replay that is one has the same.
    pub trace_hash: String,
    /// What was run.
    pub scenario: Scenario,
}

/// What of a run was not as usual. It lies beside the scenario because it is no wish of whoever writes one: random runs have it,
/// by profile and seed, and what they found may not show without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RunOptions {
    /// How long agents kept addresses back.
    #[serde(with = "time::option", skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Duration>,
    /// Nodes had more than one pod CIDR of a family, and small ones.
    #[serde(skip_serializing_if = "omit::default")]
    pub odd_cidrs: bool,
    /// Pods sent nothing of their own accord.
    #[serde(skip_serializing_if = "omit::default")]
    pub plain_pods: bool,
}

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Violation {
    /// Which one.
    pub invariant: String,
    /// Virtual time since the cluster began, which is before the first step.
    #[serde(with = "time")]
    pub at: Duration,
    /// What was seen.
    pub message: String,
}

/// A replay file that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// What it says.
    pub replay: Replay,
    /// A sentence for the user if another version of the project wrote it: the run may not be the same.
    pub warning: Option<String>,
}

impl Replay {
    /// A replay of this version.
    pub fn new(seed: u64, scenario: Scenario, violation: Violation, trace_hash: impl Into<String>) -> Self {
        Self {
            bristle: FORMAT.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed,
            profile: None,
            options: None,
            violation,
            trace_hash: trace_hash.into(),
            scenario,
        }
    }

    /// Reads a replay file's text; `file` is its name for errors.
    ///
    /// # Errors
    /// Another version of the format; the first thing that has another form than it should, with line and column.
    pub fn parse(text: &str, file: &str) -> Result<Read, ScenarioError> {
        let replay: Self = document(text, file, &[("", FORMAT), ("scenario", crate::model::FORMAT)])?;
        let ours = env!("CARGO_PKG_VERSION");
        let warning = (replay.version != ours).then(|| {
            let theirs = &replay.version;
            format!("{file} was written by version {theirs} and this is {ours}: the run may be another one")
        });
        Ok(Read { replay, warning })
    }

    /// Reads a replay file.
    ///
    /// # Errors
    /// The file cannot be read, and those of [`Replay::parse`].
    pub fn load(path: impl AsRef<FilePath>) -> Result<Read, ScenarioError> {
        let (file, text) = content(path.as_ref())?;
        Self::parse(&text, &file)
    }

    /// The replay as a file that reads back the same.
    pub fn to_yaml(&self) -> String {
        yaml(self)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, path: impl AsRef<FilePath>) -> Result<(), ScenarioError> {
        let path = path.as_ref();
        std::fs::write(path, self.to_yaml())
            .map_err(|source| ScenarioError::Write { file: path.display().to_string(), source })
    }
}
