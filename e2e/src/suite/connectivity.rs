//! The connectivity suite: policies of every kind one after the other, and what they say of pods, nodes and the world.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kube::Client;
use lab::probe::Target;
use lab::traffic::Kind;
use sim_policy::connectivity::{self, By, Case, Step, Way, Who};
use sim_policy::suite::Pod;

use super::objects::Reference;
use super::question::{Question, complaint};
use super::standing::Standing;
use super::{Options, choose, finish, report};
use crate::cluster::{Family, usable_nodes};
use crate::report::{self as reports, Report};

/// The word for it on the command line and in reports.
pub const NAME: &str = "connectivity";

/// The kind that no revision tells of, and how long it may take.
const UNTOLD: &str = "CiliumCIDRGroup";
const UNTOLD_LIMIT: Duration = Duration::from_secs(3);

/// Cases by numbers from 1 or by names, as in `1-6,client-ingress`; all without a wish.
///
/// # Errors
/// When there is no such case.
pub fn select(wish: Option<&str>) -> anyhow::Result<Vec<(u64, Case)>> {
    choose(connectivity::cases()?, wish, |case| &case.name)
}

/// Makes the pods and runs the cases. `world`: the addresses of the two servers outside.
///
/// # Errors
/// When the run itself cannot be made.
pub async fn run(
    client: &Client,
    cases: &[(u64, Case)],
    world: [Vec<IpAddr>; 2],
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let started = Instant::now();
    let nodes = usable_nodes(client).await?;
    let standing = Standing::make(client, &connectivity::objects(), &nodes, options.ready_limit).await?;
    progress(&format!("pods are ready after {:.1} s", started.elapsed().as_secs_f64()));
    let mut session = Session { standing, world, families: options.families.clone() };
    let mut reports = Vec::new();
    for (number, case) in cases {
        let started = Instant::now();
        let reason = session.case(case).await.err();
        let title = format!("{}: {}", case.name, case.shows);
        let report = report(*number, NAME, title, reason, started.elapsed());
        progress(&reports::case_line(&report));
        reports.push(report);
    }
    finish(client, &nodes, options, reports, started).await
}

struct Session {
    standing: Standing,
    world: [Vec<IpAddr>; 2],
    families: Vec<Family>,
}

impl Session {
    /// Policies that speak of addresses speak of one family, so each has a round of its own.
    async fn case(&mut self, case: &Case) -> Result<(), String> {
        let all = self.families.clone();
        let rounds: Vec<&[Family]> =
            if case.has_addresses() { all.chunks(1).collect() } else { vec![&all[..]] };
        for families in rounds {
            let mut set = BTreeSet::new();
            let mut done = Ok(());
            for (index, step) in case.steps.iter().enumerate() {
                done = self.step(step, families, &mut set).await;
                if let Err(why) = &mut done {
                    *why = format!("step {}: {why}", index + 1);
                    break;
                }
            }
            let reset = self.reset(set).await.map_err(|why| format!("its traces stay: {why}"));
            done.and(reset)?;
        }
        Ok(())
    }

    async fn step(
        &mut self,
        step: &Step,
        families: &[Family],
        set: &mut BTreeSet<Reference>,
    ) -> Result<(), String> {
        let objects =
            step.objects(|who| self.address(who, families[0])).map_err(|error| error.to_string())?;
        let before = self.standing.revisions().await?;
        let (mut least, mut told, mut untold) = (0, false, false);
        for object in &objects {
            let version = self.standing.objects.apply(object).await.map_err(|error| format!("{error:#}"))?;
            set.insert(Reference::of(object));
            if object["kind"] == UNTOLD {
                untold = true;
            } else {
                told = true;
                least = least.max(version);
            }
        }
        if told {
            self.standing.wait(&before, least).await?;
        }
        let questions = self.questions(step, families)?;
        let deadline = Instant::now() + UNTOLD_LIMIT;
        loop {
            let wrong = self.standing.wrong(&questions).await.map_err(|error| format!("{error:#}"))?;
            if wrong.is_empty() || !untold || Instant::now() >= deadline {
                return complaint(&wrong, questions.len()).map_or(Ok(()), Err);
            }
        }
    }

    fn questions(&self, step: &Step, families: &[Family]) -> Result<Vec<Question>, String> {
        let mut questions = Vec::new();
        for tried in &step.expect {
            let ways = tried.ways().map_err(|error| error.to_string())?;
            for (way, family) in ways.iter().flat_map(|way| families.iter().map(move |family| (way, *family)))
            {
                questions.push(self.question(way, family).map_err(|error| format!("{error:#}"))?);
            }
        }
        Ok(questions)
    }

    fn question(&self, way: &Way, family: Family) -> anyhow::Result<Question> {
        let to = self.address(&way.to, family);
        let to = to.with_context(|| format!("{} has no address", way.to.word()))?;
        let (kind, port) = match way.by {
            By::Tcp(port) => (Kind::Tcp, port),
            By::Udp(port) => (Kind::Udp, port),
            By::Http(port) => (Kind::Http, port),
            By::Ping => (Kind::Ping, 0),
        };
        let from = match &way.from {
            Who::Pod(pod) => pod.clone(),
            Who::Node(node) => connectivity::host_pod(*node),
            Who::World(_) => anyhow::bail!("nothing can be tried from {}", way.from.word()),
        };
        let name = match &way.to {
            Who::Pod(pod) => pod.clone(),
            other => Pod::new("outside", &other.word()),
        };
        Ok(Question { from, to: name, target: Target { kind, to, port }, expected: way.open })
    }

    fn address(&self, who: &Who, family: Family) -> Option<IpAddr> {
        match who {
            Who::Pod(pod) => self.standing.address(pod, family),
            Who::Node(node) => self.standing.address(&connectivity::host_pod(*node), family),
            Who::World(number) => family.pick(self.world.get(*number)?),
        }
    }

    /// Takes away what a case has set, and waits until it is out of force: the next case may be of another kind.
    async fn reset(&mut self, set: BTreeSet<Reference>) -> Result<(), String> {
        let before = self.standing.revisions().await?;
        let told = set.iter().any(|object| object.kind != UNTOLD);
        for object in &set {
            self.standing.objects.delete(object).await.map_err(|error| format!("{error:#}"))?;
        }
        if told { self.standing.wait(&before, 0).await } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_named_by_number_and_by_name_in_the_order_of_the_suite() {
        let names: Vec<String> = select(Some("client-ingress,1-2"))
            .expect("some")
            .into_iter()
            .map(|(_, case)| case.name)
            .collect();
        assert_eq!(names, ["no-policies", "allow-all-except-world", "client-ingress"]);
        for wrong in ["0", "99", "nothing"] {
            assert!(select(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
