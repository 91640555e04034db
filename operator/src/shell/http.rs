//! What others see of the operator: figures for Prometheus, and whether it is well.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::core::{Figures, Kind};

/// A loop that has not turned for so long hangs.
const LONGEST_TURN: Duration = Duration::from_secs(30);

/// What the loop tells and the pages show.
#[derive(Debug, Default)]
pub struct Shared(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    leading: bool,
    figures: Figures,
    last_turn: Option<Instant>,
    /// Commands by name and whether they were done.
    commands: BTreeMap<(&'static str, bool), u64>,
    watch_failures: BTreeMap<&'static str, u64>,
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop turns, or waits to lead.
    pub(super) fn beat(&self) {
        self.told().last_turn = Some(Instant::now());
    }

    pub(super) fn turn(&self, figures: Figures) {
        let mut told = self.told();
        told.figures = figures;
        told.last_turn = Some(Instant::now());
    }

    pub(super) fn lead(&self, leading: bool) {
        let mut told = self.told();
        told.leading = leading;
        if !leading {
            told.figures = Figures::default();
        }
    }

    pub(super) fn command(&self, name: &'static str, done: bool) {
        *self.told().commands.entry((name, done)).or_default() += 1;
    }

    pub(super) fn watch_failed(&self, kind: Kind) {
        *self.told().watch_failures.entry(kind.plural()).or_default() += 1;
    }

    /// Whether this one leads, and its figures.
    pub fn figures(&self) -> (bool, Figures) {
        let told = self.told();
        (told.leading, told.figures)
    }

    /// Figures in the Prometheus text format.
    pub fn metrics(&self) -> String {
        let told = self.told();
        let figures = &told.figures;
        let mut page = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            // Writing to a String does not fail.
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(page, "{name}{labels} {value}");
            }
        };
        let one = |value: usize| vec![(String::new(), value as u64)];
        let gauges = [
            ("leading", "1 while this operator leads.", usize::from(told.leading)),
            ("synced", "1 when everything has been listed since it leads.", usize::from(figures.synced)),
            ("identities", "Identities that exist.", figures.identities),
            ("identities_unused", "Identities that nobody uses.", figures.unused),
            ("identities_waiting", "Sets of labels without an identity.", figures.waiting),
            ("identities_exhausted", "1 when all numbers are taken.", usize::from(figures.exhausted)),
            ("commands_in_flight", "Calls to the API server under way.", figures.in_flight),
        ];
        for (name, help, value) in gauges {
            family(&format!("bristle_operator_{name}"), "gauge", help, &one(value));
        }
        let policies = [(true, figures.valid_policies), (false, figures.invalid_policies)];
        let policies = policies.map(|(valid, count)| (format!("{{valid=\"{valid}\"}}"), count as u64));
        family(
            "bristle_operator_policies",
            "gauge",
            "Policies by whether they could be understood.",
            &policies,
        );
        let commands: Vec<_> = told
            .commands
            .iter()
            .map(|((name, done), count)| {
                let result = if *done { "done" } else { "failed" };
                (format!("{{command=\"{name}\",result=\"{result}\"}}"), *count)
            })
            .collect();
        family("bristle_operator_commands_total", "counter", "Calls to the API server.", &commands);
        let failures: Vec<_> = told
            .watch_failures
            .iter()
            .map(|(kind, count)| (format!("{{kind=\"{kind}\"}}"), *count))
            .collect();
        family("bristle_operator_watch_failures_total", "counter", "Watches that broke.", &failures);
        page
    }

    fn is_alive(&self) -> bool {
        self.told().last_turn.is_some_and(|last| last.elapsed() < LONGEST_TURN)
    }

    /// One that waits is ready to take over.
    fn is_ready(&self) -> bool {
        let told = self.told();
        !told.leading || told.figures.synced
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz`.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) -> Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route(
            "/healthz",
            get(async |State(shared): State<Arc<Shared>>| answer(shared.is_alive(), "the loop hangs")),
        )
        .route(
            "/readyz",
            get(async |State(shared): State<Arc<Shared>>| answer(shared.is_ready(), "not synced")),
        )
        .with_state(shared);
    axum::serve(listener, router).await.context("metrics address")
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics()).into_response()
}

fn answer(well: bool, otherwise: &'static str) -> Response {
    if well { "ok\n".into_response() } else { (StatusCode::SERVICE_UNAVAILABLE, otherwise).into_response() }
}
