//! `bench lab`: how fast a cluster comes up, and what many pods on one node cost.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lab::plan::Routing;

use crate::clusters::{Lab, resident_mib};
use crate::cni;
use crate::figure::Figure;

/// Pods that are started at once on one node.
const CROWD: usize = 250;
/// Pods beside which the agent's memory is taken.
const COMPANY: usize = 100;
const LIMIT: Duration = Duration::from_mins(3);

/// Brings up a lab of three nodes and measures on it.
pub async fn run(quick: bool, bin_dir: Option<&PathBuf>) -> anyhow::Result<Vec<Figure>> {
    let started = Instant::now();
    let lab = Lab::up("lab", 3, Routing::Vxlan, bin_dir).await?;
    for n in 0..4 {
        lab.create_pod(&format!("first-{n}"), &lab.node(n % 3)?, &[]).context("create the first pods")?;
    }
    for n in 0..4 {
        lab.wait_running(&format!("first-{n}"), 1, LIMIT)?;
    }
    while lab.ready_nodes()? < 3 {
        crate::go_on()?;
        std::thread::sleep(Duration::from_millis(25));
    }
    let up_s = started.elapsed().as_secs_f64();
    eprintln!("three nodes Ready and four pods Running after {up_s:.1} s");
    let mut figures = vec![Figure::at_most("lab.up", up_s, "s", 10.0)];

    figures.extend(cni::measure(&lab.cluster.nodes()[0], if quick { 60 } else { 200 })?);

    lab.create_deployment("company", &lab.node(1)?, COMPANY)?;
    lab.wait_running("company", COMPANY, LIMIT)?;
    let memory = resident_mib(lab.agent(1)?)?;
    figures.push(Figure::at_most("lab.agent.rss.100pods", memory, "MiB", 30.0));
    eprintln!("the agent has {memory:.1} MiB resident beside {COMPANY} pods");

    if !quick {
        let refused_before = lab.refused()?;
        let started = Instant::now();
        lab.create_deployment("crowd", &lab.node(2)?, CROWD)?;
        lab.wait_running("crowd", CROWD, LIMIT)?;
        figures.push(Figure::at_most("lab.pods250.running", started.elapsed().as_secs_f64(), "s", 60.0));
        #[expect(clippy::cast_precision_loss, reason = "a few failures at most")]
        let refused = (lab.refused()? - refused_before) as f64;
        figures.push(Figure::at_most("lab.pods250.refused", refused, "pods", 0.0));
        figures.push(Figure::plain("lab.agent.rss.250pods", resident_mib(lab.agent(2)?)?, "MiB"));
    }
    Ok(figures)
}
