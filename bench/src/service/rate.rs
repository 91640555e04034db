//! Contenders of `bench service` and their turns.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::model::{SIZES, Size};
use super::proxies::Proxy;
use super::{Options, Part, cpu, ours};
use crate::net::contender::Contender;
use crate::net::netns;
use crate::net::summary::{self as net_summary, LIMIT, Row};
use crate::net::yardsticks;
use crate::traffic::Metric;

/// Sets everything up, measures in turns, prints a table for each metric.
pub async fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let started = Instant::now();
    netns::sweep();
    let cpu = cpu(options)?;
    let (sizes, largest) = sizes(options);
    let at_nodes = |size: &Size| size.services == largest && options.wants(Part::NodePort);

    // Labs first, so that they go last.
    let mut labs = Vec::new();
    for size in &sizes {
        crate::go_on()?;
        labs.push(ours::up(size, at_nodes(size), options.bin_dir.as_ref()).await?);
        eprintln!("{} after {:.0} s", size.ours, started.elapsed().as_secs_f64());
    }
    let mut contenders = vec![Contender::start(LIMIT, yardsticks::limit(LIMIT)?, cpu)?];
    let mut outer = Vec::new();
    for proxy in Proxy::ALL {
        if let Err(error) = proxy.try_out() {
            println!("{}: left out: {error:#}", proxy.word());
            continue;
        }
        for size in &sizes {
            crate::go_on()?;
            let name = proxy.contender(size);
            let (topology, outside) =
                proxy.set_up(size, at_nodes(size)).with_context(|| format!("set up {name}"))?;
            contenders.push(Contender::start(name, topology, cpu)?);
            outer.extend(outside.map(|topology| Contender::beside(proxy.from_outside(), topology, cpu)));
            eprintln!("{name} after {:.0} s", started.elapsed().as_secs_f64());
        }
    }
    for (size, lab) in sizes.iter().zip(&mut labs) {
        if let Some(topology) = lab.inside.take() {
            contenders.push(Contender::start(size.ours, topology, cpu)?);
        }
        let Some(topology) = lab.outside.take() else { continue };
        let contender = Contender::beside(ours::FROM_OUTSIDE, topology, cpu);
        match contender.measure(Metric::Rr, SHORT) {
            Ok(_) => outer.push(contender),
            Err(error) => println!("{}: left out: nobody outside is answered: {error:#}", ours::FROM_OUTSIDE),
        }
    }
    for contender in contenders.iter().chain(&outer) {
        contender.settle()?;
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    eprintln!(
        "{} contenders ready after {:.0} s, load {}",
        contenders.len() + outer.len(),
        started.elapsed().as_secs_f64(),
        load.split_whitespace().next().unwrap_or("?")
    );

    let mut rows = Vec::new();
    if options.wants(Part::Rate) {
        for metric in [Metric::Rr, Metric::Crr] {
            turns(&contenders, metric, options, &mut rows)?;
            println!("{}", net_summary::table(&rows, metric));
        }
    }
    if !outer.is_empty() {
        let mut from_outside = Vec::new();
        turns(&outer, Metric::Crr, options, &mut from_outside)?;
        println!("from outside, by the node's port: {}", net_summary::table(&from_outside, Metric::Crr));
        rows.extend(from_outside);
    }
    drop(outer);
    drop(contenders);
    drop(labs);
    eprintln!("{:.0} s in all", started.elapsed().as_secs_f64());
    Ok(rows)
}

const SHORT: Duration = Duration::from_millis(20);

/// The wanted sizes, and how many services the largest has.
fn sizes(options: &Options) -> (Vec<Size>, u32) {
    let mut all = SIZES.into_iter().filter(|size| options.sizes.is_empty() || options.sizes.contains(size));
    let all: Vec<Size> =
        if options.wants(Part::Rate) { all.collect() } else { all.next_back().into_iter().collect() };
    let largest = all.iter().map(|size| size.services).max().unwrap_or_default();
    (all, largest)
}

fn turns(
    contenders: &[Contender],
    metric: Metric,
    options: &Options,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let repeats = options.repeats.unwrap_or(if options.quick { 3 } else { 7 });
    let length = Duration::from_secs_f64(options.seconds.unwrap_or(if options.quick { 0.3 } else { 0.6 }));
    for repeat in 0..repeats {
        for contender in contenders {
            crate::go_on()?;
            match contender.measure(metric, length) {
                Ok(sample) => rows.push(Row { contender: contender.name(), metric, repeat, sample }),
                // One lost measurement is no reason to lose the others; it is missing from the table.
                Err(error) => eprintln!("{} {}: {error:#}", contender.name(), metric.word()),
            }
        }
    }
    Ok(())
}
