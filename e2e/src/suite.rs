//! Many policies on one standing cluster: what pods reach each other is compared with what must be so.
//!
//! [`network_policy`] and [`connectivity`] run the cases of `sim-policy`'s suites and compare with their tables; [`generated`] runs random policies and
//! compares with the oracle. [`native`] runs all of them in the simulator; on a cluster all make their pods once ([`standing`]) and change only policies and labels from case to case, through the Kubernetes API.
//! [`services`] is another thing: pods and services come and go in it, so its cases are scenarios.
//! A question to the cluster is one try of `bristle-lab probe` in a pod, so pods need the lab's own image.

pub mod connectivity;
pub mod generated;
pub mod native;
pub mod network_policy;
pub mod services;

mod objects;
mod question;
mod standing;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::Client;

use crate::cluster::{Family, NodeFacts};
use crate::matrix::CaseId;
use crate::report::{CaseReport, Outcome, Report};

/// How long a label may take until it is in force: the identity is given by another program than the agents.
const LABELS_LIMIT: Duration = Duration::from_secs(15);

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Families to ask in.
    pub families: Vec<Family>,
    /// How long the pods may take to become ready.
    pub ready_limit: Duration,
}

/// Cases by their numbers, from 1; in the order of the numbers.
///
/// # Errors
/// When the text is not like `1-6,20`, or names a number above `most`.
pub fn numbers(text: &str, most: u64) -> anyhow::Result<Vec<u64>> {
    let mut numbers = BTreeSet::new();
    for part in text.split(',').map(str::trim) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u64>().with_context(|| format!("`{part}` is no case"));
        let (low, high) = (number(low)?, number(high)?);
        if low == 0 || low > high || high > most {
            bail!("`{part}` is no range of cases from 1 to {most}");
        }
        numbers.extend(low..=high);
    }
    Ok(numbers.into_iter().collect())
}

/// Cases with their numbers, from 1, that are named by number or by name, as in `1-6,ports`; all without a wish.
fn choose<C>(cases: Vec<C>, wish: Option<&str>, name: impl Fn(&C) -> &str) -> anyhow::Result<Vec<(u64, C)>> {
    let all: Vec<(u64, C)> = (1..).zip(cases).collect();
    let Some(wish) = wish else { return Ok(all) };
    let mut wanted = BTreeSet::new();
    for part in wish.split(',').map(str::trim) {
        match all.iter().find(|(_, case)| name(case) == part) {
            Some((number, _)) => drop(wanted.insert(*number)),
            None => wanted.extend(numbers(part, all.len() as u64)?),
        }
    }
    Ok(all.into_iter().filter(|(number, _)| wanted.contains(number)).collect())
}

/// The report of a run on a cluster that began at `started`.
async fn finish(
    client: &Client,
    nodes: &[NodeFacts],
    options: &Options,
    reports: Vec<CaseReport>,
    started: Instant,
) -> anyhow::Result<Report> {
    let names = nodes.iter().map(|node| node.name.clone()).collect();
    let families = options.families.clone();
    Ok(Report::new(version(client).await?, families, names, reports, started.elapsed().as_secs_f64()))
}

fn report(number: u64, group: &str, title: String, reason: Option<String>, took: Duration) -> CaseReport {
    let id = u16::try_from(number).map_or_else(|_| CaseId::Name(number.to_string()), CaseId::Number);
    CaseReport {
        id,
        group: group.to_owned(),
        title,
        result: if reason.is_none() { Outcome::Passed } else { Outcome::Failed },
        reason,
        seconds: took.as_secs_f64(),
        captures: Vec::new(),
        runs: Vec::new(),
    }
}

async fn version(client: &Client) -> anyhow::Result<String> {
    Ok(client.apiserver_version().await.context("reach the API server")?.git_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_named_one_by_one_or_by_ranges_up_to_the_last() {
        assert_eq!(numbers("7, 1-3,2", 7).expect("numbers"), [1, 2, 3, 7]);
        for wrong in ["", "0", "8", "3-2", "1-8", "x"] {
            assert!(numbers(wrong, 7).is_err(), "{wrong}");
        }
    }
}
