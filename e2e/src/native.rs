//! The matrix in the simulator: each case in each family is a scenario of its own, on virtual time, without privileges.
//!
//! Workloads, services and policies are the objects that a real cluster gets, and what a case comes to is judged by the
//! same packet profiles; only commands and captures are the simulator's. Its invariants are watched meanwhile, and one
//! that does not hold fails the case.

mod judge;
mod reason;
mod scenario;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, bail};
use sim_scenario::model::{Cluster, Families, Routing, Translation};

use crate::cluster::Family;
use crate::matrix::{Case, Matrix};
use crate::report::{self, CaseReport, Outcome, Report, Run};

use scenario::Plan;

/// What stands in the report for the API server's version.
const SERVER: &str = "simulated";

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How packets travel between nodes.
    pub routing: Routing,
    /// Families of nodes and pods.
    pub family: Families,
    /// How many nodes, at least 2.
    pub nodes: u16,
    /// Decides every order and delay.
    pub seed: u64,
    /// Whether agents send calls to services to their endpoints.
    pub kube_proxy_replacement: bool,
    /// Where they do it.
    pub service_translation: Translation,
    /// Where captures are written.
    pub captures: PathBuf,
}

/// Runs the cases; `progress` is told each line worth showing as it happens.
pub fn run(
    matrix: &Matrix,
    cases: &[&Case],
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let started = Instant::now();
    let letters = &matrix.topology.nodes;
    if usize::from(options.nodes) < letters.len() {
        bail!("the matrix needs {} nodes", letters.len());
    }
    std::fs::create_dir_all(&options.captures)
        .with_context(|| format!("create {}", options.captures.display()))?;
    let families = match options.family {
        Families::V4 => vec![Family::V4],
        Families::V6 => vec![Family::V6],
        Families::Dual => Family::ALL.to_vec(),
    };
    let names: Vec<String> = (1..=letters.len()).map(|n| format!("node-{n}")).collect();
    let session = Session {
        matrix,
        options,
        families: &families,
        nodes: letters.iter().cloned().zip(names.iter().cloned()).collect(),
        policy_missing: reason::policy_missing(),
    };
    let mut reports = Vec::new();
    for case in cases {
        let report = session.case(case);
        progress(&report::case_line(&report));
        reports.push(report);
    }
    Ok(Report::new(SERVER.to_owned(), families, names, reports, started.elapsed().as_secs_f64()))
}

/// What all cases of a run share.
struct Session<'m> {
    matrix: &'m Matrix,
    options: &'m Options,
    families: &'m [Family],
    /// Real nodes by letter.
    nodes: BTreeMap<String, String>,
    /// Why there can be no policies, if so.
    policy_missing: Option<String>,
}

impl Session<'_> {
    fn cluster(&self) -> Cluster {
        Cluster {
            nodes: self.options.nodes,
            family: self.options.family,
            routing: self.options.routing,
            kube_proxy_replacement: self.options.kube_proxy_replacement,
            service_translation: self.options.service_translation,
            // Nobody outside knows the way to pods.
            masquerade: true,
            ..Cluster::default()
        }
    }

    fn plan<'a>(&'a self, case: &'a Case, family: Family) -> Plan<'a> {
        Plan { matrix: self.matrix, nodes: &self.nodes, cluster: self.cluster(), case, family }
    }

    fn case(&self, case: &Case) -> CaseReport {
        let started = Instant::now();
        let with_policies = !case.policies.is_empty() || !case.proves_gone.is_empty();
        let mut runs = Vec::new();
        let mut reason = self.policy_missing.clone().filter(|_| with_policies);
        if reason.is_none() && case.expect.is_traffic() {
            runs.extend(self.families.iter().map(|family| self.traffic(case, *family)));
            let reasons: Vec<String> = runs
                .iter()
                .filter_map(|run| run.reason.as_ref().map(|why| format!("{}: {why}", run.family.word())))
                .collect();
            reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        } else if reason.is_none() {
            reason = self.policy_step(case).err();
        }
        CaseReport {
            id: case.id.clone(),
            group: case.group.clone(),
            title: case.title(),
            result: if reason.is_none() { Outcome::Passed } else { Outcome::Failed },
            reason,
            seconds: started.elapsed().as_secs_f64(),
            captures: runs.iter().flat_map(|run| run.captures.clone()).collect(),
            runs,
        }
    }

    /// A case in which policies come or go and nothing is sent.
    fn policy_step(&self, case: &Case) -> Result<(), String> {
        let scenario = self.plan(case, self.families[0]).policies_alone();
        let report = sim_native::run(&scenario, &self.simulation(Vec::new()));
        judge::broken(&report).map_or(Ok(()), Err)?;
        judge::behind(&report).map_or(Ok(()), Err)
    }

    fn simulation(&self, taps: Vec<String>) -> sim_native::Options {
        // Captures are judged packet by packet.
        sim_native::Options {
            seed: self.options.seed,
            plain_pods: true,
            taps,
            ..sim_native::Options::default()
        }
    }

    fn traffic(&self, case: &Case, family: Family) -> Run {
        let mut run = Run {
            family,
            result: Outcome::Failed,
            reason: None,
            command: String::new(),
            exit_code: None,
            captures: Vec::new(),
        };
        run.reason = self.judged(case, &mut run).err();
        if run.reason.is_none() {
            run.result = Outcome::Passed;
        }
        run
    }

    /// Runs a case in a family and judges it; the error is the reason why it failed.
    fn judged(&self, case: &Case, run: &mut Run) -> Result<(), String> {
        let plan = self.plan(case, run.family);
        let traffic = plan.traffic()?;
        run.command = scenario::command(&traffic);
        let scenario = plan.scenario(&traffic);
        let ends = plan.ends()?;
        let taps = ends.iter().map(|end| end.tap.clone()).collect();
        let report = sim_native::run(&scenario, &self.simulation(taps));
        let mut problems = Vec::new();
        if let Some(problem) = judge::broken(&report) {
            problems.push(problem);
        } else if let Some(problem) = judge::answer(case, &traffic, &report) {
            let hint = reason::hint(&plan, &traffic, |scenario| {
                sim_native::run(scenario, &self.simulation(Vec::new()))
            });
            problems.push(hint.map_or_else(|| problem.clone(), |hint| format!("{hint}: {problem}")));
        }
        let flow = plan.flow(&traffic, &report);
        for end in &ends {
            let file = format!("{:0>3}-{}-{}.pcap", case.id.to_string(), run.family.word(), end.word);
            let path = self.options.captures.join(file);
            let frames = report.taps.get(&end.tap).map_or(&[][..], Vec::as_slice);
            let complaint = judge::capture(end, flow.as_ref(), frames, &path);
            run.captures.push(path);
            problems.extend(complaint);
        }
        if problems.is_empty() {
            return Ok(());
        }
        // Nothing came, as it shall be, but not for the reason for which it shall not.
        let unresolved = reason::unresolved(&plan, &traffic);
        let problems = problems.join("; ");
        Err(unresolved.map_or_else(|| problems.clone(), |reason| format!("{reason}: {problems}")))
    }
}
