//! The report as `JUnit` XML, in the dialect that CI systems read.

use std::fmt::Write as _;

use super::{Outcome, Report};

/// The whole file.
pub fn junit(report: &Report) -> String {
    let mut out = String::new();
    let counts = format!("tests=\"{}\" failures=\"{}\"", report.total, report.failed);
    let time = format!("time=\"{:.3}\"", report.seconds);
    // Writing to a string cannot fail.
    let _: std::fmt::Result = write!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"connectivity\" {counts} {time}>\n  <testsuite name=\"connectivity\" {counts} {time}>\n"
    );
    for case in &report.cases {
        let name = escape(&format!("{} {}", case.id, case.title));
        let class = escape(&case.group);
        let head =
            format!("    <testcase classname=\"{class}\" name=\"{name}\" time=\"{:.3}\"", case.seconds);
        let _: std::fmt::Result = match case.result {
            Outcome::Passed => writeln!(out, "{head}/>"),
            Outcome::Failed => {
                let reason = case.reason.as_deref().unwrap_or("no reason was given");
                let first = reason.lines().next().unwrap_or_default();
                let (first, reason) = (escape(first), escape(reason));
                writeln!(
                    out,
                    "{head}>\n      <failure message=\"{first}\">{reason}</failure>\n    </testcase>"
                )
            }
        };
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

/// Text and attribute values; control characters that XML 1.0 cannot hold become U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn failures_carry_their_reason_and_nothing_breaks_the_markup() {
        insta::assert_snapshot!(junit(&example::report()), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="connectivity" tests="2" failures="1" time="7.250">
          <testsuite name="connectivity" tests="2" failures="1" time="7.250">
            <testcase classname="no-policies" name="1 pod-to-pod client → pod/echo-same-node (same-node)" time="0.412"/>
            <testcase classname="echo-ingress-from-other-client" name="x1 pod-to-pod client → pod/echo-same-node (same-node)" time="5.000">
              <failure message="v4: curl said &lt;&quot;28&quot; &amp; more&gt; | and a pipe">v4: curl said &lt;&quot;28&quot; &amp; more&gt; | and a pipe
        second line</failure>
            </testcase>
          </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn control_characters_do_not_reach_the_file() {
        assert_eq!(escape("a\u{1b}[31m\u{0}b"), "a\u{fffd}[31m\u{fffd}b");
    }
}
