//! The services suite: what the Kubernetes end-to-end suite for services asks for, case by case as the steps of a scenario.
//!
//! In the simulator each case has a cluster of its own; on network namespaces all have one lab, which is emptied after each.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use serde::Deserialize;
use serde_yaml_ng::{Mapping, Value};
use sim_scenario::Scenario;
use sim_scenario::model::{
    Action, Cluster, FORMAT, Families, Place, Routing, Step, Translation, Until, Wait,
};

use super::{choose, report};
use crate::cluster::Family;
use crate::report::{self as reports, CaseReport, Report};
use crate::scenario;

/// The word for it on the command line and in reports.
pub const NAME: &str = "services";

/// The cases as data.
const CASES: &str = include_str!("../../services.yaml");
/// Where they stand, for messages.
const FILE: &str = "e2e/services.yaml";
/// What stands in a report of the simulator for the API server's version.
const SIMULATED: &str = "simulated";

/// A case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub shows: String,
    scenario: Scenario,
}

/// A case of the suite of Kubernetes that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub shows: String,
    /// Why it is left out.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    cluster: Value,
    /// What several cases have, by anchors.
    #[serde(rename = "shared")]
    _shared: Value,
    cases: Vec<Listed>,
    left_out: Vec<LeftOut>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: String,
    shows: String,
    steps: Value,
}

/// Which cluster to run on.
#[derive(Debug, Clone)]
pub struct Options {
    /// Families of nodes and pods, in which each case is asked.
    pub families: Vec<Family>,
    /// How packets travel between nodes.
    pub routing: Routing,
    /// Whether agents send calls to services to their endpoints; without, nobody does.
    pub kube_proxy_replacement: bool,
    /// Where they do it.
    pub service_translation: Translation,
    /// In the simulator it decides every order and delay.
    pub seed: u64,
    /// Directory of the programs and the eBPF object of a lab; without one beside this program.
    pub bin_dir: Option<PathBuf>,
}

impl Options {
    fn family(&self) -> Families {
        match self.families[..] {
            [Family::V4] => Families::V4,
            [Family::V6] => Families::V6,
            _ => Families::Dual,
        }
    }

    /// The scenario of a case on this cluster.
    fn scenario(&self, case: &Case) -> Scenario {
        let mut scenario = case.scenario.clone();
        scenario.cluster = self.cluster(&scenario.cluster);
        let family = self.family();
        scenario.steps.retain_mut(|step| of_family(step, family));
        // The last traffic is over before it is judged.
        scenario.steps.push(wait(Until::Rest));
        scenario
    }

    fn cluster(&self, usual: &Cluster) -> Cluster {
        Cluster {
            family: self.family(),
            routing: self.routing,
            kube_proxy_replacement: self.kube_proxy_replacement,
            service_translation: self.service_translation,
            ..usual.clone()
        }
    }
}

const fn wait(until: Until) -> Step {
    Step { at: None, action: Action::Wait(Wait::new(until)) }
}

/// Makes traffic go in the families that there are; false if it can go in none.
fn of_family(step: &mut Step, family: Families) -> bool {
    let Action::Traffic(traffic) = &mut step.action else { return true };
    let own = match (&traffic.to, traffic.family) {
        (Place::Address(IpAddr::V4(_)), _) => Some(Families::V4),
        (Place::Address(IpAddr::V6(_)), _) => Some(Families::V6),
        (_, wanted) => wanted,
    };
    traffic.family = own.or(Some(family));
    family == Families::Dual || traffic.family == Some(family)
}

fn file() -> anyhow::Result<File> {
    let mut value: Value = serde_yaml_ng::from_str(CASES).context(FILE)?;
    value.apply_merge().context(FILE)?;
    serde_yaml_ng::from_value(value).context(FILE)
}

fn cases() -> anyhow::Result<Vec<Case>> {
    let File { cluster, cases, .. } = file()?;
    cases.into_iter().map(|listed| case(&cluster, listed)).collect()
}

/// The scenario goes through its own reader, so that what is wrong with it is said as of a file of its own.
fn case(cluster: &Value, listed: Listed) -> anyhow::Result<Case> {
    let Listed { name, shows, steps } = listed;
    let fields = [
        ("bristle", FORMAT.into()),
        ("name", name.clone().into()),
        ("cluster", cluster.clone()),
        ("steps", steps),
    ];
    let document: Mapping = fields.into_iter().map(|(key, value)| (Value::from(key), value)).collect();
    let text = serde_yaml_ng::to_string(&document).context("write a case down")?;
    let scenario = Scenario::parse_valid(&text, &format!("{FILE}, case {name}"), &sim_native::known())?;
    Ok(Case { name, shows, scenario })
}

/// Cases that are left out, with the reasons.
///
/// # Errors
/// When the file of cases cannot be read.
pub fn left_out() -> anyhow::Result<Vec<LeftOut>> {
    Ok(file()?.left_out)
}

/// Cases by numbers from 1 or by names, as in `1-6,hairpin`; all without a wish.
///
/// # Errors
/// When there is no such case.
pub fn select(wish: Option<&str>) -> anyhow::Result<Vec<(u64, Case)>> {
    choose(cases()?, wish, |case| &case.name)
}

/// Runs the cases in the simulator.
pub fn run_native(cases: &[(u64, Case)], options: &Options, progress: &mut dyn FnMut(&str)) -> Report {
    let begin = Instant::now();
    let simulation =
        sim_native::Options { seed: options.seed, plain_pods: true, ..sim_native::Options::default() };
    let mut reports = Vec::new();
    for (number, case) in cases {
        let started = Instant::now();
        let mut scenario = options.scenario(case);
        // The simulator looks at what is left when nobody is there any more who ends by himself.
        scenario.steps.push(wait(Until::Ready));
        let outcome = sim_native::run(&scenario, &simulation).outcome;
        reports.push(told(*number, case, &outcome.failures, started, progress));
    }
    finish(SIMULATED.to_owned(), options, reports, begin)
}

/// Brings up a lab, runs the cases on it one after the other, and takes it down.
///
/// # Errors
/// When the lab fails.
pub async fn run_netns(
    cases: &[(u64, Case)],
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let begin = Instant::now();
    let Some((_, first)) = cases.first() else {
        return Ok(finish(String::new(), options, Vec::new(), begin));
    };
    // A fault of one case may ask for more of the lab than the others do; none of them does.
    let lab = scenario::Options { bin_dir: options.bin_dir.clone(), seed: options.seed };
    let arm = scenario::up(&options.scenario(first), &lab, |step| eprintln!("{step}")).await?;
    let mut reports = Vec::new();
    for (number, case) in cases {
        let started = Instant::now();
        let of_case = options.scenario(case);
        let outcome = scenario::run(&arm, &of_case, |step| tracing::info!("{step}")).await?;
        let cleared = scenario::clear(&arm, &of_case).await?;
        let failures = [outcome.failures, cleared].concat();
        reports.push(told(*number, case, &failures, started, progress));
    }
    let version = super::version(&arm.client()).await?;
    drop(arm);
    Ok(finish(version, options, reports, begin))
}

fn told(
    number: u64,
    case: &Case,
    failures: &[String],
    started: Instant,
    progress: &mut dyn FnMut(&str),
) -> CaseReport {
    let title = format!("{}: {}", case.name, case.shows);
    let reason = (!failures.is_empty()).then(|| failures.join("; "));
    let report = report(number, NAME, title, reason, started.elapsed());
    progress(&reports::case_line(&report));
    report
}

fn finish(server: String, options: &Options, reports: Vec<CaseReport>, begin: Instant) -> Report {
    let nodes = ["node-1", "node-2"].map(str::to_owned).to_vec();
    Report::new(server, options.families.clone(), nodes, reports, begin.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(families: &[Family], routing: Routing) -> Options {
        Options {
            families: families.to_vec(),
            routing,
            kube_proxy_replacement: true,
            service_translation: Translation::Socket,
            seed: 1,
            bin_dir: None,
        }
    }

    #[test]
    fn there_are_as_many_cases_as_kubernetes_has() {
        let (cases, left_out) = (select(None).expect("all"), left_out().expect("some"));
        assert_eq!(cases.len() + left_out.len(), 51);
        let names: Vec<String> =
            select(Some("hairpin,1-2")).expect("some").into_iter().map(|(_, case)| case.name).collect();
        assert_eq!(names, ["api-server", "basic-endpoints", "hairpin"]);
        for wrong in ["0", "99", "nothing"] {
            assert!(select(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cases_can_be_carried_out_in_every_family() {
        for families in [&[Family::V4][..], &[Family::V6], &Family::ALL] {
            let options = options(families, Routing::Vxlan);
            for (_, case) in select(None).expect("all") {
                let scenario = options.scenario(&case);
                assert_eq!(scenario.validate(&sim_native::known()), Ok(()), "{}", case.name);
                let refused = scenario::refuse::all(&scenario);
                assert_eq!(refused, Vec::<String>::new(), "{}", case.name);
            }
        }
    }

    #[test]
    fn the_suite_passes_in_the_simulator() {
        let cases = select(None).expect("all");
        let report = run_native(&cases, &options(&Family::ALL, Routing::Vxlan), &mut |_| {});
        let failed: Vec<_> = report.cases.iter().filter(|case| case.reason.is_some()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }

    #[test]
    fn without_those_who_serve_services_cases_fail() {
        let options = Options { kube_proxy_replacement: false, ..options(&Family::ALL, Routing::Vxlan) };
        let cases = select(Some("hairpin,node-port,external-ip")).expect("some");
        let report = run_native(&cases, &options, &mut |_| {});
        assert_eq!(report.failed, 3);
    }
}
