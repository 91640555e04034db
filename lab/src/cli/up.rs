//! `up`: starts a supervisor and shows what it does until the cluster works.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use lab::bins::BinDir;
use lab::plan::LabName;
use lab::preflight;
use lab::state::{LabDir, STATE_ROOT};
use lab::supervisor::{self, Message, UpSpec, early_log};

use super::{COMMAND, name_flag, say};
use crate::Up;

/// Runs `up`.
pub(crate) fn up(options: Up) -> anyhow::Result<()> {
    options.on.check()?;
    preflight::machine()?;
    let bins = BinDir::find(options.bin_dir)?;
    let name = options.lab.name;
    refuse_existing(&name)?;
    let [one, two]: [String; 2] =
        options.outside_names.try_into().map_err(|_| anyhow::anyhow!("give two outside names"))?;
    let spec = UpSpec {
        name: name.clone(),
        nodes: options.nodes,
        family: options.family,
        routing: options.routing,
        outside_names: [one, two],
        bin_dir: Some(bins.path.clone()),
        demo: !options.bare,
        agent_args: options.agent_args,
        kube_proxy_replacement: options.kube_proxy_replacement,
        policy: !options.no_policy,
        mtu: options.mtu,
        pod_cidr_bits: options.pod_cidr_bits,
        pod_routes: options.pod_routes,
        software_fabric: options.software_fabric.then_some(options.fabric_seed),
        record_state: options.record_state,
    };
    let started = Instant::now();
    say(format_args!(
        "lab '{name}': {} nodes, {} addresses, {} routing",
        spec.nodes, spec.family, spec.routing
    ));
    fs::create_dir_all(STATE_ROOT).with_context(|| format!("make {STATE_ROOT}"))?;
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(early_log(&name))
        .context("open the supervisor's log")?;
    let mut child = Command::new(bins.lab())
        .arg("supervise")
        .arg(serde_json::to_string(&spec)?)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("start the supervisor")?;
    let output = child.stdout.take().context("standard output is piped")?;
    for line in BufReader::new(output).lines() {
        match serde_json::from_str(&line.context("read progress")?).context("parse progress")? {
            Message::Progress(text) => {
                say(format_args!("  {:>5.1} s  {text}", started.elapsed().as_secs_f64()));
            }
            Message::Failed(why) => bail!("{why}\n(log of the supervisor: {})", early_log(&name).display()),
            Message::Ready => {
                say(format_args!(
                    "ready after {:.1} s\n\n{}",
                    started.elapsed().as_secs_f64(),
                    what_next(&name)
                ));
                return Ok(());
            }
        }
    }
    let status = child.wait().context("wait for the supervisor")?;
    bail!("the supervisor ended ({status}); its log is {}", early_log(&name).display())
}

/// One lab of a name; a crashed one is to be removed on purpose, because somebody may want to look at its logs.
fn refuse_existing(name: &LabName) -> anyhow::Result<()> {
    let dir = LabDir::of(name);
    if !dir.path().exists() {
        return Ok(());
    }
    let flag = name_flag(name);
    match dir.record() {
        Ok(record) if record.owner.is_alive() => bail!(
            "lab '{name}' is up already: see it with `{COMMAND} status{flag}`, remove it with `{COMMAND} down{flag}`, or start another one with --name"
        ),
        _ => bail!(
            "a lab '{name}' crashed earlier: remove what it left with `{COMMAND} down{flag}`, then start again"
        ),
    }
}

fn what_next(name: &LabName) -> String {
    let flag = name_flag(name);
    let kubeconfig = LabDir::of(name).kubeconfig();
    format!(
        "kubeconfig: {kubeconfig}\n\nTry next:\n  \
         {COMMAND} status{flag}\n  \
         {COMMAND} kubectl{flag} -- get pods -A -o wide\n  \
         {COMMAND} shell{flag} client                      # curl, ping, nslookup and tcpdump are there\n  \
         {COMMAND} shell{flag} client -- ping -c 3 node-2\n  \
         {COMMAND} capture{flag} node-1 -i eth0 udp port 8472\n  \
         {COMMAND} shell{flag} node-1 -- /opt/bristle/bin/bristle status\n  \
         {COMMAND} logs{flag} node-1\n  \
         {COMMAND} down{flag}",
        kubeconfig = kubeconfig.display()
    )
}

/// Runs the hidden command `supervise`.
pub(crate) fn supervise(spec: &str) -> anyhow::Result<()> {
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("BRISTLE_LAB_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    supervisor::main(serde_json::from_str(spec).context("parse the lab's description")?)
}
