//! The cases of the Kubernetes network policy conformance suite.

use std::collections::BTreeMap;
use std::time::Instant;

use kube::Client;
use lab::probe::Target;
use serde_json::{Value, json};
use sim_policy::suite::{self, Case, Change, Expectation, Need, Step};

use super::objects::Reference;
use super::question::{Question, complaint, kind};
use super::standing::Standing;
use super::{LABELS_LIMIT, Options, choose, finish, report};
use crate::cluster::{Family, usable_nodes};
use crate::report::{self as reports, Report};

/// The word for it on the command line and in reports.
pub const NAME: &str = "network-policy";

/// The version and kind of its policies.
const POLICY: [&str; 2] = ["networking.k8s.io/v1", "NetworkPolicy"];

/// Cases by numbers from 1 or by names, as in `1-6,ports`; all without a wish.
///
/// # Errors
/// When there is no such case.
pub fn select(wish: Option<&str>) -> anyhow::Result<Vec<(u64, Case)>> {
    choose(suite::cases()?, wish, |case| &case.name)
}

/// Makes the pods and runs the cases.
///
/// # Errors
/// When the run itself cannot be made.
pub async fn run(
    client: &Client,
    cases: &[(u64, Case)],
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let started = Instant::now();
    let nodes = usable_nodes(client).await?;
    let standing = Standing::make(client, &suite::objects(), &nodes, options.ready_limit).await?;
    progress(&format!("pods are ready after {:.1} s", started.elapsed().as_secs_f64()));
    let mut session = Session { standing, families: options.families.clone() };
    let mut reports = Vec::new();
    for (number, case) in cases {
        let started = Instant::now();
        let reason = session.rounds(case).await.err();
        let title = format!("{}: {}", case.name, case.shows);
        let report = report(*number, NAME, title, reason, started.elapsed());
        progress(&reports::case_line(&report));
        reports.push(report);
    }
    finish(client, &nodes, options, reports, started).await
}

struct Session {
    standing: Standing,
    families: Vec<Family>,
}

impl Session {
    /// Blocks of addresses are of one family, so cases with blocks of pods have a round for each.
    async fn rounds(&mut self, case: &Case) -> Result<(), String> {
        let all = self.families.clone();
        let each = if case.needs.contains(&Need::BlocksMatchPods) { 1 } else { all.len().max(1) };
        let mut done = Ok(());
        for families in all.chunks(each) {
            self.families = families.to_vec();
            let round = self.case(case).await;
            let reset = self.reset(case).await.map_err(|why| format!("its traces stay: {why}"));
            done = done.and(round).and(reset);
        }
        self.families = all;
        done
    }

    async fn case(&mut self, case: &Case) -> Result<(), String> {
        for (index, step) in case.steps.iter().enumerate() {
            self.step(step).await.map_err(|why| format!("step {}: {why}", index + 1))?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        let before = self.standing.revisions().await?;
        let (mut least, mut policies, mut labels) = (0, false, false);
        for change in self.changes(step)? {
            match self.change(change).await.map_err(|error| format!("{error:#}"))? {
                Done::Applied(version) => {
                    least = least.max(version);
                    policies = true;
                }
                Done::Deleted => policies = true,
                Done::Labelled => labels = true,
            }
        }
        if policies {
            self.standing.wait(&before, least).await?;
        }
        let questions = self.questions(&step.expect)?;
        let deadline = Instant::now() + LABELS_LIMIT;
        loop {
            let wrong = self.standing.wrong(&questions).await.map_err(|error| format!("{error:#}"))?;
            // Nobody says when a label has come into force; policies do.
            if wrong.is_empty() || !labels || Instant::now() >= deadline {
                return complaint(&wrong, questions.len()).map_or(Ok(()), Err);
            }
        }
    }

    /// What is to be done. Blocks of addresses are of the first family.
    fn changes(&self, step: &Step) -> Result<Vec<Change>, String> {
        let family = self.families.first().copied().unwrap_or(Family::V4);
        step.changes(|pod| self.standing.address(pod, family)).map_err(|error| error.to_string())
    }

    async fn change(&mut self, change: Change) -> anyhow::Result<Done> {
        let objects = &mut self.standing.objects;
        match change {
            Change::Apply(object) => return Ok(Done::Applied(objects.apply(&object).await?)),
            Change::Delete(policy) => {
                objects
                    .delete(&Reference::new(POLICY[0], POLICY[1], &policy.namespace, &policy.name))
                    .await?;
                return Ok(Done::Deleted);
            }
            Change::LabelNamespace { name, labels } => {
                objects.label(&Reference::new("v1", "Namespace", "", &name), &labels).await?;
            }
            Change::LabelPod { pod, labels } => {
                objects.label(&Reference::new("v1", "Pod", &pod.namespace, &pod.name), &labels).await?;
            }
        }
        Ok(Done::Labelled)
    }

    fn questions(&self, expectations: &[Expectation]) -> Result<Vec<Question>, String> {
        let mut questions = Vec::new();
        for expectation in expectations {
            let kind = kind(expectation.protocol);
            for family in &self.families {
                for (from, to) in
                    suite::pods().flat_map(|from| suite::pods().map(move |to| (from.clone(), to)))
                {
                    let Some(expected) = expectation.is_reachable(&from, &to) else { continue };
                    let address = self.standing.address(&to, *family);
                    let address = address.ok_or_else(|| format!("pod {} has no address", to.name))?;
                    let target = Target { kind, to: address, port: expectation.port };
                    questions.push(Question { from, to, target, expected });
                }
            }
        }
        Ok(questions)
    }

    /// Takes the case's policies and labels away. The next case waits for its own policies, which come into force after that.
    async fn reset(&mut self, case: &Case) -> Result<(), String> {
        let mut gone: BTreeMap<Reference, Option<Value>> = BTreeMap::new();
        for step in &case.steps {
            for change in self.changes(step)? {
                match change {
                    Change::Apply(object) => drop(gone.insert(Reference::of(&object), None)),
                    Change::Delete(_) => {}
                    Change::LabelNamespace { name, labels } => {
                        unlabel(&mut gone, Reference::new("v1", "Namespace", "", &name), &labels);
                    }
                    Change::LabelPod { pod, labels } => {
                        unlabel(&mut gone, Reference::new("v1", "Pod", &pod.namespace, &pod.name), &labels);
                    }
                }
            }
        }
        for (object, labels) in gone {
            let objects = &mut self.standing.objects;
            let done = match labels {
                Some(labels) => objects.label(&object, &labels).await,
                None => objects.delete(&object).await,
            };
            done.map_err(|error| format!("{error:#}"))?;
        }
        Ok(())
    }
}

enum Done {
    /// With this `resourceVersion`.
    Applied(u64),
    Deleted,
    Labelled,
}

fn unlabel(gone: &mut BTreeMap<Reference, Option<Value>>, object: Reference, labels: &Value) {
    let nothing = gone.entry(object).or_default().get_or_insert_with(|| json!({}));
    for (key, _) in labels.as_object().into_iter().flatten() {
        nothing[key] = Value::Null;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_named_by_number_and_by_name_in_the_order_of_the_suite() {
        assert_eq!(select(None).expect("all").len(), 48);
        let names: Vec<String> =
            select(Some("ports,1-2")).expect("some").into_iter().map(|(_, case)| case.name).collect();
        assert_eq!(names, ["default-deny-ingress", "default-deny-all", "ports"]);
        for wrong in ["0", "49", "nothing"] {
            assert!(select(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
