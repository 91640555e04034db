//! What a benchmark reports: named figures with units and goals, as a table and as JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

/// One measured figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured, as `benchmark.subject.measure`.
    pub name: String,
    /// The value, in `unit`.
    pub value: f64,
    /// The unit; `x` is a ratio.
    pub unit: &'static str,
    /// The highest value that is good enough, or the lowest (see `at_least`); none where a figure is only for comparison.
    pub goal: Option<f64>,
    /// Whether the goal is met; none without a goal.
    pub met: Option<bool>,
    /// The goal is a lower bound.
    #[serde(skip)]
    pub at_least: bool,
}

impl Figure {
    /// A figure without a goal.
    pub fn plain(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, goal: None, met: None, at_least: false }
    }

    /// A figure that should not be above its goal.
    pub fn at_most(name: impl Into<String>, value: f64, unit: &'static str, goal: f64) -> Self {
        let met = Some(value <= goal);
        Self { name: name.into(), value, unit, goal: Some(goal), met, at_least: false }
    }

    /// A figure that should not be below its goal.
    pub fn at_least(name: impl Into<String>, value: f64, unit: &'static str, goal: f64) -> Self {
        let met = Some(value >= goal);
        Self { name: name.into(), value, unit, goal: Some(goal), met, at_least: true }
    }
}

/// The figures as a table for people.
pub fn table(figures: &[Figure]) -> String {
    let width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or_default().max("figure".len());
    let mut out = format!("{:<width$}  {:>12}  {:<9}  {:>9}  met\n", "figure", "value", "unit", "goal");
    for figure in figures {
        let bound = if figure.at_least { '≥' } else { '≤' };
        let goal = figure.goal.map(|goal| format!("{bound} {}", number(goal))).unwrap_or_default();
        let met = match figure.met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        // Writing to a string cannot fail.
        let _: std::fmt::Result = writeln!(
            out,
            "{:<width$}  {:>12}  {:<9}  {goal:>9}  {met}",
            figure.name,
            number(figure.value),
            figure.unit
        );
    }
    out
}

/// Three digits or so, whatever the size.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Writes the figures as a JSON list.
pub fn write(figures: &[Figure], path: &Path) -> anyhow::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let text = serde_json::to_string_pretty(figures).context("write the figures as JSON")?;
    std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
}

/// The middle value; of an even number the mean of the middle two, of none not a number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

/// The value that a share `q` (0 to 1) of the values does not exceed (nearest rank).
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank is small and not negative"
    )]
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_bounds_and_missing_ones_are_null() {
        let figures = [
            Figure::at_most("net.vxlan.rr", 1.47, "x", 1.48),
            Figure::at_most("lab.up", 12.5, "s", 10.0),
            Figure::plain("net.limit.rr.p50", 5.7, "µs"),
            Figure::at_least("sim.packets", 1_900_000.0, "packets/s", 2_000_000.0),
        ];
        let json = serde_json::to_value(&figures).expect("is JSON");
        assert_eq!(
            json[0],
            serde_json::json!({"name": "net.vxlan.rr", "value": 1.47, "unit": "x", "goal": 1.48, "met": true})
        );
        assert_eq!(json[1]["met"], false);
        assert!(json[2]["goal"].is_null() && json[2]["met"].is_null());
        let table = table(&figures);
        assert_eq!(table.lines().count(), 5);
        assert!(table.contains("≤ 10.00  NO"), "{table}");
        assert!(table.contains("≥ 2000000  NO"), "{table}");
    }

    #[test]
    fn medians_and_quantiles_of_small_samples() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        assert!(median(&[]).is_nan() && quantile(&[], 0.5).is_nan());
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.99).to_bits(), 99.0_f64.to_bits());
        assert_eq!(quantile(&hundred, 1.0).to_bits(), 100.0_f64.to_bits());
        assert_eq!(quantile(&[7.0], 0.01).to_bits(), 7.0_f64.to_bits());
    }
}
