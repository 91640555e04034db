//! How many pods of a PodDisruptionBudget may go.

use serde_json::json;
use sim_api::Selector;
use sim_api::object::{at, namespace};
use sim_api::resource::{PODDISRUPTIONBUDGETS, PODS};

use crate::Context;
use crate::pods::{is_active, is_ready, write_status};
use crate::quantity::of_total;

pub(crate) fn run(ctx: &Context<'_>) {
    for budget in ctx.store.list(&PODDISRUPTIONBUDGETS, "") {
        let selector = Selector::from_label_selector(at(&budget, &["spec", "selector"]));
        let pods = ctx.store.list(&PODS, namespace(&budget));
        let covered: Vec<_> = pods.iter().filter(|p| is_active(p) && selector.matches(p)).collect();
        let expected = i64::try_from(covered.len()).unwrap_or(i64::MAX);
        let healthy = i64::try_from(covered.iter().filter(|p| is_ready(p)).count()).unwrap_or(0);
        let desired = match of_total(at(&budget, &["spec", "maxUnavailable"]), expected, true) {
            Some(unavailable) => expected - unavailable,
            None => of_total(at(&budget, &["spec", "minAvailable"]), expected, true).unwrap_or(1),
        };
        let mut status = json!({
            "observedGeneration": budget["metadata"]["generation"], "expectedPods": expected, "currentHealthy": healthy,
            "desiredHealthy": desired.max(0), "disruptionsAllowed": (healthy - desired).max(0),
        });
        let conditions = at(&budget, &["status", "conditions"]);
        if !conditions.is_null() {
            status["conditions"] = conditions.clone();
        }
        write_status(ctx, &PODDISRUPTIONBUDGETS, &budget, status);
    }
}
