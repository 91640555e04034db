//! The agent with many services: events in, rows of the kernel's tables out, measured in processes of their own.

use std::process::Command;

use anyhow::Context as _;
use lab::bins::BinDir;
use serde_json::Value;

use crate::figure::Figure;
use crate::sim;

/// Seconds from nothing until the tables hold 10,000 services.
const COLD_GOAL_S: f64 = 3.0;
/// Milliseconds from a changed slice until the tables say so, of 99 in 100.
const UPDATE_GOAL_MS: f64 = 5.0;
/// Most memory of an agent that knows 30,000 services, in MiB.
const MEMORY_GOAL_MIB: f64 = 120.0;

/// Measures `programming` or `memory`.
pub fn measure(bins: &BinDir, what: &str, quick: bool) -> anyhow::Result<Vec<Figure>> {
    let mut command = Command::new(bins.path.join("examples").join("service_scale"));
    command.arg(what).arg(&bins.object).args(quick.then_some("--quick"));
    let measured: Value = sim::json_of(&mut command).with_context(|| {
        format!("measure the agent ({what}); `cargo xtask bench service` builds what it needs")
    })?;
    Ok(figures(what, &measured))
}

fn figures(what: &str, measured: &Value) -> Vec<Figure> {
    let number = |key: &str| measured[key].as_f64().unwrap_or(f64::NAN);
    let name = |word: &str| format!("service.{what}.{word}");
    if what == "memory" {
        return vec![
            Figure::at_most(name("resident"), number("resident_mib"), "MiB", MEMORY_GOAL_MIB),
            Figure::plain(name("before"), number("before_mib"), "MiB"),
            Figure::plain(name("peak"), number("peak_mib"), "MiB"),
            Figure::plain(name("services"), number("services"), "services"),
            Figure::plain(name("cold"), number("first_s"), "s"),
        ];
    }
    vec![
        Figure::at_most(name("cold"), number("taking_s") + number("first_s"), "s", COLD_GOAL_S),
        Figure::plain(name("cold.taking-in"), number("taking_s"), "s"),
        Figure::plain(name("cold.cpu"), number("cpu_s"), "s"),
        Figure::plain(name("cold.rows"), number("rows"), "rows"),
        Figure::plain(name("services"), number("services"), "services"),
        Figure::plain(name("update.p50"), number("update_p50_ms"), "ms"),
        Figure::at_most(name("update.p99"), number("update_p99_ms"), "ms", UPDATE_GOAL_MS),
        Figure::plain(name("update.rows"), number("update_rows"), "rows"),
        Figure::plain(name("restart"), number("restart_s"), "s"),
        Figure::plain(name("restart.rows"), number("restart_rows"), "rows"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_and_memory_are_judged_and_counts_are_not() {
        let judged = |what: &str, measured: &Value| -> Vec<_> {
            let judged = figures(what, measured).into_iter();
            judged.filter_map(|figure| Some((figure.name.clone(), figure.met?))).collect()
        };
        let measured = json!({"taking_s": 1.0, "first_s": 2.5, "update_p99_ms": 4.0});
        let expected = [("service.programming.cold", false), ("service.programming.update.p99", true)];
        assert_eq!(judged("programming", &measured), expected.map(|(name, met)| (name.to_owned(), met)));
        let memory = json!({"resident_mib": 119.0});
        assert_eq!(judged("memory", &memory), [("service.memory.resident".to_owned(), true)]);
    }
}
