//! The report as Markdown, for pull requests and people.

use std::fmt::Write as _;

use super::{Outcome, Report};

/// The whole file.
pub fn markdown(report: &Report) -> String {
    let families: Vec<&str> = report.families.iter().map(|family| family.word()).collect();
    let mut out = format!(
        "# Connectivity: {} of {} passed\n\nServer {}, families {}, nodes {}, {:.0} s.\n\n\
         | Case | Group | What | Result | Seconds | Reason |\n|--:|---|---|---|--:|---|\n",
        report.passed,
        report.total,
        cell(&report.server),
        families.join(" and "),
        cell(&report.nodes.join(", ")),
        report.seconds,
    );
    for case in &report.cases {
        let result = match case.result {
            Outcome::Passed => "passed",
            Outcome::Failed => "**failed**",
        };
        // Writing to a string cannot fail.
        let _: std::fmt::Result = writeln!(
            out,
            "| {} | {} | {} | {result} | {:.1} | {} |",
            case.id,
            cell(&case.group),
            cell(&case.title),
            case.seconds,
            cell(case.reason.as_deref().unwrap_or_default()),
        );
    }
    out
}

/// Text that stays within its cell.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn every_case_is_one_row() {
        insta::assert_snapshot!(markdown(&example::report()), @r#"
        # Connectivity: 1 of 2 passed

        Server v1.33.0, families v4, nodes node-1, node-2, 7 s.

        | Case | Group | What | Result | Seconds | Reason |
        |--:|---|---|---|--:|---|
        | 1 | no-policies | pod-to-pod client → pod/echo-same-node (same-node) | passed | 0.4 |  |
        | x1 | echo-ingress-from-other-client | pod-to-pod client → pod/echo-same-node (same-node) | **failed** | 5.0 | v4: curl said &lt;"28" & more> \| and a pipe second line |
        "#);
    }
}
