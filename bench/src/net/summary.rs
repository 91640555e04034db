//! From samples to ratios, tables and figures.

use std::fmt::Write as _;

use crate::figure::{Figure, median};
use crate::traffic::{Metric, Sample};

/// The contender that every ratio is to.
pub const LIMIT: &str = "limit";

/// One sample of one contender.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Which contender.
    pub contender: &'static str,
    /// What was sent.
    pub metric: Metric,
    /// In which repeat.
    pub repeat: u32,
    /// What came of it.
    pub sample: Sample,
}

/// A value of a sample with its name in figures and its unit.
type Measure = (&'static str, fn(&Sample) -> f64, &'static str);

const P50: Measure = ("p50", |sample| sample.p50_us, "µs");
const P99: Measure = ("p99", |sample| sample.p99_us, "µs");
const CPU: Measure = ("cpu", |sample| sample.cpu_ns_per_unit, "ns");

/// The highest ratio to the direct veth pair that is good enough.
const GOALS: [(&str, Metric, &str, f64); 9] = [
    ("bristle-same-node", Metric::Rr, "p50", 1.10),
    ("bristle-same-node", Metric::Crr, "p50", 1.12),
    ("bristle-same-node", Metric::Udp, "cpu", 1.15),
    ("bristle-native", Metric::Rr, "p50", 1.20),
    ("bristle-native", Metric::Crr, "p50", 1.25),
    ("bristle-native", Metric::Udp, "cpu", 1.35),
    ("bristle-vxlan", Metric::Rr, "p50", 1.48),
    ("bristle-vxlan", Metric::Crr, "p50", 1.55),
    ("bristle-vxlan", Metric::Udp, "cpu", 2.05),
];

const fn is_latency(metric: Metric) -> bool {
    matches!(metric, Metric::Rr | Metric::Crr)
}

/// Contenders of which there are samples, in the order of these.
pub fn contenders(rows: &[Row], metric: Metric) -> Vec<&'static str> {
    let mut names = Vec::new();
    for row in rows.iter().filter(|row| row.metric == metric) {
        if !names.contains(&row.contender) {
            names.push(row.contender);
        }
    }
    names
}

/// What a contender's samples say.
pub fn values(rows: &[Row], metric: Metric, contender: &str, of: fn(&Sample) -> f64) -> Vec<f64> {
    let ours = rows.iter().filter(|row| row.metric == metric && row.contender == contender);
    ours.map(|row| of(&row.sample)).collect()
}

/// The median over the repeats of the ratio to another contender in the same repeat; not a number where one has no samples.
pub fn ratio(rows: &[Row], metric: Metric, contender: &str, to: &str, of: fn(&Sample) -> f64) -> f64 {
    let find = |name: &str, repeat| {
        rows.iter().find(|row| row.metric == metric && row.contender == name && row.repeat == repeat)
    };
    let ratios: Vec<f64> = rows
        .iter()
        .filter(|row| row.metric == metric && row.contender == contender)
        .filter_map(|row| Some(of(&row.sample) / of(&find(to, row.repeat)?.sample)))
        .collect();
    median(&ratios)
}

/// The table of one metric.
pub fn table(rows: &[Row], metric: Metric) -> String {
    let unit = if metric == Metric::Stream {
        "byte"
    } else {
        metric.unit().trim_end_matches("/s").trim_end_matches('s')
    };
    let mut out = format!(
        "{} ({}; cpu in ns per {unit})\n  {:<18}{:>10}{:>8}{:>9}{:>8}",
        metric.word(),
        metric.unit(),
        "contender",
        "rate",
        "/limit",
        "cpu",
        "/limit"
    );
    if is_latency(metric) {
        out.push_str("   p50 µs  /limit   p99 µs");
    }
    if metric == Metric::Crr {
        out.push_str("  first packet p99 µs");
    }
    out.push('\n');
    for name in contenders(rows, metric) {
        let middle = |of| median(&values(rows, metric, name, of));
        let rate = middle(|sample| sample.rate);
        let (rate_digits, cpu_digits) = if metric == Metric::Stream { (2, 3) } else { (0, 0) };
        // Writing to a string cannot fail.
        let _: std::fmt::Result = write!(
            out,
            "  {name:<18}{rate:>10.rate_digits$}{:>8.3}{:>9.cpu_digits$}{:>8.3}",
            ratio(rows, metric, name, LIMIT, |sample| sample.rate),
            middle(CPU.1),
            ratio(rows, metric, name, LIMIT, CPU.1),
        );
        if is_latency(metric) {
            let _: std::fmt::Result = write!(
                out,
                "{:>9.2}{:>8.3}{:>9.1}",
                middle(P50.1),
                ratio(rows, metric, name, LIMIT, P50.1),
                middle(P99.1)
            );
        }
        if metric == Metric::Crr {
            let _: std::fmt::Result = write!(out, "{:>21.1}", middle(|sample| sample.first_p99_us));
        }
        out.push('\n');
    }
    out
}

/// All figures: the ratios with their goals first, then what they are made of.
pub fn figures(rows: &[Row]) -> Vec<Figure> {
    let (mut judged, mut plain) = (Vec::new(), Vec::new());
    for metric in Metric::ALL {
        for name in contenders(rows, metric) {
            let measures: &[Measure] = if is_latency(metric) { &[P50, CPU] } else { &[CPU] };
            for (word, of, unit) in measures {
                let title = format!("net.{name}.{}.{word}", metric.word());
                plain.push(Figure::plain(title.clone(), median(&values(rows, metric, name, *of)), unit));
                if name == LIMIT {
                    continue;
                }
                let value = ratio(rows, metric, name, LIMIT, *of);
                let goal = GOALS.iter().find(|goal| (goal.0, goal.1, goal.2) == (name, metric, word));
                match goal {
                    Some((.., goal)) => {
                        judged.push(Figure::at_most(format!("{title}_ratio"), value, "x", *goal));
                    }
                    None => plain.push(Figure::plain(format!("{title}_ratio"), value, "x")),
                }
            }
            if is_latency(metric) {
                let title = format!("net.{name}.{}.p99", metric.word());
                plain.push(Figure::plain(title, median(&values(rows, metric, name, P99.1)), P99.2));
            }
            let rate = median(&values(rows, metric, name, |sample| sample.rate));
            plain.push(Figure::plain(format!("net.{name}.{}.rate", metric.word()), rate, metric.unit()));
        }
    }
    judged.extend(plain);
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sample;

    fn rows() -> Vec<Row> {
        let mut rows = Vec::new();
        // The machine halves its speed in the second repeat; ratios within a repeat do not care.
        for (repeat, slow) in [(0, 1.0), (1, 2.0), (2, 1.0)] {
            for (contender, factor) in [(LIMIT, 1.0), ("bridge", 1.2), ("bristle-same-node", 1.08)] {
                for metric in [Metric::Rr, Metric::Udp] {
                    rows.push(Row {
                        contender,
                        metric,
                        repeat,
                        sample: sample(6.0 * slow * factor, 2000.0 * slow * factor),
                    });
                }
            }
        }
        rows
    }

    #[test]
    fn ratios_are_taken_within_a_repeat() {
        let rows = rows();
        assert!((ratio(&rows, Metric::Rr, "bridge", LIMIT, P50.1) - 1.2).abs() < 1e-9);
        let without_limit: Vec<Row> = rows.into_iter().filter(|row| row.contender != LIMIT).collect();
        assert!(ratio(&without_limit, Metric::Rr, "bridge", LIMIT, P50.1).is_nan());
    }

    #[test]
    fn ours_are_judged_by_the_goals_and_others_are_not() {
        let figures = figures(&rows());
        let judged: Vec<&Figure> = figures.iter().filter(|figure| figure.goal.is_some()).collect();
        let names: Vec<&str> = judged.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(names, ["net.bristle-same-node.rr.p50_ratio", "net.bristle-same-node.udp.cpu_ratio"]);
        assert!(judged.iter().all(|figure| figure.met == Some(true)));
        assert!(
            figures.iter().any(|figure| figure.name == "net.bridge.rr.p50_ratio" && figure.goal.is_none())
        );
        assert!(figures.iter().any(|figure| figure.name == "net.limit.rr.p50" && figure.unit == "µs"));
    }

    #[test]
    fn tables_have_a_line_for_each_contender() {
        let table = table(&rows(), Metric::Rr);
        assert_eq!(table.lines().count(), 5, "{table}");
        assert!(table.contains("p99"), "{table}");
    }
}
