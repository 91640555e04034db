//! `bench cni`: how long the plugin takes, called as a container runtime calls it, on a node of a real lab.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use lab::cluster::Node;
use lab::plan::Routing;
use serde_json::Value;

use crate::clusters::Lab;
use crate::figure::{Figure, median, quantile};

const CONFLIST: &str = "/etc/cni/net.d/05-bristle.conflist";
/// Calls under way at once.
const PARALLEL: usize = 20;

/// Brings up a lab of one node and measures on it.
pub async fn run(quick: bool, bin_dir: Option<&PathBuf>) -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::up("cni", 1, Routing::Vxlan, bin_dir).await?;
    measure(&lab.cluster.nodes()[0], if quick { 60 } else { 200 })
}

/// ADD and DEL of so many containers on a node.
pub fn measure(node: &Node, containers: usize) -> anyhow::Result<Vec<Figure>> {
    let config = plugin_config(node)?;
    let names: Vec<String> = (0..containers).map(|n| format!("bench{}x{n}", std::process::id())).collect();
    for name in &names {
        let output =
            node.run("ip", &["netns", "add", name]).context("make a network namespace on the node")?;
        if !output.status.success() {
            bail!("make a network namespace: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    let mut figures = Vec::new();
    let result = (|| {
        let adds = call_all(node, &config, "ADD", &names, PARALLEL)?;
        figures.push(Figure::at_most("cni.add.parallel20.median", median(&adds), "ms", 25.0));
        figures.push(Figure::at_most("cni.add.parallel20.p99", quantile(&adds, 0.99), "ms", 100.0));
        let dels = call_all(node, &config, "DEL", &names, PARALLEL)?;
        figures.push(Figure::plain("cni.del.parallel20.median", median(&dels), "ms"));
        // Another id for each container: the same one again would be a repeated ADD.
        let alone: Vec<String> = names.iter().take(10).cloned().collect();
        let adds = call_all(node, &config, "ADD", &alone, 1)?;
        figures.push(Figure::plain("cni.add.alone.median", median(&adds), "ms"));
        call_all(node, &config, "DEL", &alone, 1)?;
        anyhow::Ok(())
    })();
    for name in &names {
        // The node goes away with its lab; this only keeps it usable for what is measured next.
        let _: std::io::Result<std::process::Output> = node.run("ip", &["netns", "del", name]);
    }
    result.map(|()| figures)
}

/// Calls the plugin for every container, so many at once; the times in milliseconds.
fn call_all(
    node: &Node,
    config: &str,
    verb: &str,
    names: &[String],
    parallel: usize,
) -> anyhow::Result<Vec<f64>> {
    let times = Mutex::new(Vec::new());
    let first_error = Mutex::new(None);
    std::thread::scope(|scope| {
        for lane in 0..parallel {
            let (times, first_error) = (&times, &first_error);
            scope.spawn(move || {
                for name in names.iter().skip(lane).step_by(parallel) {
                    match call(node, config, verb, name) {
                        Ok(took) => lock(times).push(took.as_secs_f64() * 1e3),
                        Err(error) => *lock(first_error) = Some(error),
                    }
                }
            });
        }
    });
    let failed = lock(&first_error).take();
    match failed {
        Some(error) => Err(error),
        None => Ok(std::mem::take(&mut *lock(&times))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn call(node: &Node, config: &str, verb: &str, container: &str) -> anyhow::Result<Duration> {
    let (config, verb, container) = (config.to_owned(), verb.to_owned(), container.to_owned());
    let result = node.machine().ns().run_blocking(move || -> anyhow::Result<Duration> {
        let started = Instant::now();
        let mut child = Command::new("/opt/cni/bin/bristle-cni")
            .env_clear()
            .env("CNI_COMMAND", &verb)
            .env("CNI_CONTAINERID", &container)
            .env("CNI_NETNS", format!("/run/netns/{container}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start the plugin")?;
        if let Some(mut stdin) = child.stdin.take() {
            std::io::Write::write_all(&mut stdin, config.as_bytes()).context("write the configuration")?;
        }
        let output = child.wait_with_output().context("wait for the plugin")?;
        let took = started.elapsed();
        if !output.status.success() {
            bail!("{verb} of {container}: {}", String::from_utf8_lossy(&output.stdout).trim());
        }
        Ok(took)
    });
    result.context("enter the node")?
}

/// The configuration that a runtime gives to the plugin: its part of the list, with the list's name and version.
fn plugin_config(node: &Node) -> anyhow::Result<String> {
    let path = node.file(CONFLIST);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let list: Value = serde_json::from_str(&text).context("the CNI configuration is not JSON")?;
    let mut plugin = list["plugins"][0].clone();
    if !plugin.is_object() {
        bail!("the CNI configuration has no plugin");
    }
    plugin["name"] = list["name"].clone();
    plugin["cniVersion"] = list["cniVersion"].clone();
    Ok(plugin.to_string())
}
