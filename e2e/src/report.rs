//! What a run found: one value, written as JSON, `JUnit` XML, Markdown and as a table for the terminal.

mod junit;
mod markdown;
mod table;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::cluster::Family;
use crate::matrix::CaseId;

pub use junit::junit;
pub use markdown::markdown;
pub use table::{case_line, table};

/// Whether a case passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The command came to what was expected, and the captures show it.
    Passed,
    /// Anything else, a missing feature included.
    Failed,
}

/// One command of a case: the case in one IP family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The family.
    pub family: Family,
    /// Whether it passed.
    pub result: Outcome,
    /// Why not.
    pub reason: Option<String>,
    /// The command as it was run in the pod.
    pub command: String,
    /// Its exit code, if it ran.
    pub exit_code: Option<i32>,
    /// Its capture files.
    pub captures: Vec<PathBuf>,
}

/// One case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseReport {
    /// Its id in the matrix.
    pub id: CaseId,
    /// Its group in the matrix.
    pub group: String,
    /// The case in words.
    pub title: String,
    /// Whether it passed, in every family.
    pub result: Outcome,
    /// Why not.
    pub reason: Option<String>,
    /// How long it took, captures and policy changes included.
    pub seconds: f64,
    /// All capture files.
    pub captures: Vec<PathBuf>,
    /// Its commands, one per family.
    pub runs: Vec<Run>,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Cases that were selected and run.
    pub total: usize,
    /// Those that passed.
    pub passed: usize,
    /// Those that did not.
    pub failed: usize,
    /// How long it took, set-up included.
    pub seconds: f64,
    /// The cluster's version as its API server tells it.
    pub server: String,
    /// Families that every traffic case was run in.
    pub families: Vec<Family>,
    /// The nodes that the letters of the matrix were bound to.
    pub nodes: Vec<String>,
    /// The cases in the order in which they were run.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// Counts the cases.
    pub fn new(
        server: String,
        families: Vec<Family>,
        nodes: Vec<String>,
        cases: Vec<CaseReport>,
        seconds: f64,
    ) -> Self {
        let passed = cases.iter().filter(|case| case.result == Outcome::Passed).count();
        Self {
            total: cases.len(),
            passed,
            failed: cases.len() - passed,
            seconds,
            server,
            families,
            nodes,
            cases,
        }
    }

    /// Writes the JSON file, and `JUnit` XML and Markdown beside it (same name, `.xml` and `.md`).
    pub fn write(&self, json: &Path) -> anyhow::Result<()> {
        if let Some(dir) = json.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let text = serde_json::to_string_pretty(self).context("write the report as JSON")?;
        for (path, text) in [
            (json.to_owned(), text + "\n"),
            (json.with_extension("xml"), junit(self)),
            (json.with_extension("md"), markdown(self)),
        ] {
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod example {
    //! A report with everything in it that a writer can meet.

    use super::*;

    pub(crate) fn report() -> Report {
        let captures: Vec<PathBuf> =
            ["c/001-v4-source.pcap", "c/001-v4-target.pcap"].map(PathBuf::from).to_vec();
        let passed = CaseReport {
            id: CaseId::Number(1),
            group: "no-policies".into(),
            title: "pod-to-pod client → pod/echo-same-node (same-node)".into(),
            result: Outcome::Passed,
            reason: None,
            seconds: 0.41234,
            captures: captures.clone(),
            runs: vec![Run {
                family: Family::V4,
                result: Outcome::Passed,
                reason: None,
                command: "curl http://10.11.0.3:8080/".into(),
                exit_code: Some(0),
                captures,
            }],
        };
        let failed = CaseReport {
            id: CaseId::Name("x1".into()),
            group: "echo-ingress-from-other-client".into(),
            title: "pod-to-pod client → pod/echo-same-node (same-node)".into(),
            result: Outcome::Failed,
            reason: Some("v4: curl said <\"28\" & more> | and a pipe\nsecond line".into()),
            seconds: 5.0,
            captures: vec![],
            runs: vec![],
        };
        Report::new(
            "v1.33.0".into(),
            vec![Family::V4],
            vec!["node-1".into(), "node-2".into()],
            vec![passed, failed],
            7.25,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_fields_that_others_read() {
        let value = serde_json::to_value(example::report()).expect("is JSON");
        insta::assert_json_snapshot!(value, @r#"
        {
          "total": 2,
          "passed": 1,
          "failed": 1,
          "seconds": 7.25,
          "server": "v1.33.0",
          "families": [
            "v4"
          ],
          "nodes": [
            "node-1",
            "node-2"
          ],
          "cases": [
            {
              "id": 1,
              "group": "no-policies",
              "title": "pod-to-pod client → pod/echo-same-node (same-node)",
              "result": "passed",
              "reason": null,
              "seconds": 0.41234,
              "captures": [
                "c/001-v4-source.pcap",
                "c/001-v4-target.pcap"
              ],
              "runs": [
                {
                  "family": "v4",
                  "result": "passed",
                  "reason": null,
                  "command": "curl http://10.11.0.3:8080/",
                  "exit_code": 0,
                  "captures": [
                    "c/001-v4-source.pcap",
                    "c/001-v4-target.pcap"
                  ]
                }
              ]
            },
            {
              "id": "x1",
              "group": "echo-ingress-from-other-client",
              "title": "pod-to-pod client → pod/echo-same-node (same-node)",
              "result": "failed",
              "reason": "v4: curl said <\"28\" & more> | and a pipe\nsecond line",
              "seconds": 5.0,
              "captures": [],
              "runs": []
            }
          ]
        }
        "#);
    }

    #[test]
    fn three_files_are_written_and_missing_directories_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let json = dir.path().join("deep/er/e2e.json");
        example::report().write(&json).expect("is written");
        for name in ["e2e.json", "e2e.xml", "e2e.md"] {
            assert!(
                dir.path().join("deep/er").join(name).metadata().is_ok_and(|meta| meta.len() > 0),
                "{name}"
            );
        }
    }
}
