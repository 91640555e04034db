//! The report on a terminal: a line per case while it runs, a table by group at the end.

use std::fmt::Write as _;

use super::{CaseReport, Outcome, Report};

/// One case in one line.
pub fn case_line(case: &CaseReport) -> String {
    let word = match case.result {
        Outcome::Passed => "pass",
        Outcome::Failed => "FAIL",
    };
    let line = format!("{:>3}  {word}  {:>5.1} s  {}", case.id.to_string(), case.seconds, case.title);
    match &case.reason {
        Some(reason) => format!("{line}\n{:21}{}", "", reason.replace('\n', " ")),
        None => line,
    }
}

/// Passed and failed by group, and in all.
pub fn table(report: &Report) -> String {
    let mut groups: Vec<(&str, usize, usize)> = Vec::new();
    for case in &report.cases {
        if groups.last().is_none_or(|(name, ..)| *name != case.group) {
            groups.push((&case.group, 0, 0));
        }
        if let Some((_, passed, total)) = groups.last_mut() {
            *total += 1;
            *passed += usize::from(case.result == Outcome::Passed);
        }
    }
    let width = groups.iter().map(|(name, ..)| name.len()).max().unwrap_or_default().max("group".len());
    let mut out = format!("{:<width$}  passed  failed  total\n", "group");
    for (name, passed, total) in groups.iter().copied().chain([("all", report.passed, report.total)]) {
        // Writing to a string cannot fail.
        let _: std::fmt::Result =
            writeln!(out, "{name:<width$}  {passed:>6}  {:>6}  {total:>5}", total - passed);
    }
    let families: Vec<&str> = report.families.iter().map(|family| family.word()).collect();
    let _: std::fmt::Result = write!(
        out,
        "{}/{} passed in {:.0} s ({}, nodes {})",
        report.passed,
        report.total,
        report.seconds,
        families.join(" and "),
        report.nodes.join(", ")
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn the_table_adds_up() {
        insta::assert_snapshot!(table(&example::report()), @r"
        group                           passed  failed  total
        no-policies                          1       0      1
        echo-ingress-from-other-client       0       1      1
        all                                  1       1      2
        1/2 passed in 7 s (v4, nodes node-1, node-2)
        ");
    }

    #[test]
    fn a_failed_case_says_why_below() {
        let report = example::report();
        insta::assert_snapshot!(case_line(&report.cases[0]), @"  1  pass    0.4 s  pod-to-pod client → pod/echo-same-node (same-node)");
        insta::assert_snapshot!(case_line(&report.cases[1]), @r#"
         x1  FAIL    5.0 s  pod-to-pod client → pod/echo-same-node (same-node)
                             v4: curl said <"28" & more> | and a pipe second line
        "#);
    }
}
