//! `bristle-bench`: measures and reports.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use bench::figure::{self, Figure};
use bench::traffic::{self, Metric, PORT};
use bench::{
    STOP, cni as cni_bench, dataplane, lab_bench, net as net_bench, policy as policy_bench,
    service as service_bench, sim as sim_bench,
};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Measures, prints a table and exits with 0, whether or not goals are met.
#[derive(Parser)]
#[command(name = "bristle-bench", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Nanoseconds per packet of each program
    Dataplane(DataplaneArgs),
    /// Paths between pods beside a direct veth pair, kernel routing, bridge, host-gw and VXLAN
    Net(NetArgs),
    /// How fast a cluster comes up, 250 pods on one node, the agent's memory
    Lab(Common),
    /// ADD and DEL of the plugin, 20 at once
    Cni(Common),
    /// An agent with the policies of a large cluster: memory, first computation, updates
    Policy(Common),
    /// Calls to services beside kube-proxy's rules, and what services cost the agent
    Service(ServiceArgs),
    /// Packets per second in memory, the matrix in the simulator, clusters of up to 1000 nodes in one process
    Sim(Common),
    /// One end of a measurement (used by `net`)
    #[command(hide = true)]
    Traffic(TrafficArgs),
}

#[derive(Args)]
struct Common {
    /// Write the figures as a JSON list here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure less and shorter
    #[arg(long)]
    quick: bool,
    /// Directory with the programs and the eBPF object
    #[arg(long, value_name = "DIR", env = "BRISTLE_BIN_DIR")]
    bin_dir: Option<PathBuf>,
}

#[derive(Args)]
struct DataplaneArgs {
    #[command(flatten)]
    common: Common,
    /// CPU to measure on (default: the last)
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Args)]
struct NetArgs {
    #[command(flatten)]
    common: Common,
    /// Only contenders whose name contains one of these words
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these metrics
    #[arg(long, value_delimiter = ',', value_enum)]
    metrics: Vec<Metric>,
    /// Repeats of each measurement (default 5, quick 3)
    #[arg(long)]
    repeats: Option<u32>,
    /// Seconds of one measurement (default 0.6, quick 0.3)
    #[arg(long)]
    seconds: Option<f64>,
    /// CPU that client and server share (default: the last)
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Args)]
#[command(after_help = "\
Contenders stand at once and take turns: bristle-N are pods of labs with N services, nftables-N and iptables-N are pods
behind a node with the rules that kube-proxy would write for as many, limit is a direct veth pair. The last of the
services is called. Modes of kube-proxy that this machine cannot do are left out with a line that says why.

Examples:
  cargo xtask bench service --json service.json
  cargo xtask bench service --only rate --sizes 1,1000 --repeats 3
  cargo xtask bench service --only programming,memory      the agent alone, half a minute
  cargo xtask bench service --only packets                 nanoseconds per packet by BPF_PROG_TEST_RUN

What each figure means, and the goals, are in docs/bench.md.")]
struct ServiceArgs {
    #[command(flatten)]
    common: Common,
    /// Only these parts (default: all)
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<service_bench::Part>,
    /// Only so many services: 1, 1000 and 10000 (default: each of them)
    #[arg(long, value_delimiter = ',', value_name = "NUMBER")]
    sizes: Vec<service_bench::model::Size>,
    /// Repeats of each measurement of traffic (default 7, quick 3)
    #[arg(long)]
    repeats: Option<u32>,
    /// Seconds of one measurement of traffic (default 0.6, quick 0.3)
    #[arg(long)]
    seconds: Option<f64>,
    /// CPU that client and server share (default: the last)
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Args)]
struct TrafficArgs {
    /// Network namespace to enter
    #[arg(long, value_name = "FILE")]
    netns: Option<PathBuf>,
    /// Control group to join
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// CPU to stay on
    #[arg(long)]
    cpu: Option<usize>,
    #[command(subcommand)]
    end: End,
}

#[derive(Subcommand)]
enum End {
    /// Serve until killed
    Server {
        /// TCP and UDP port
        #[arg(long, default_value_t = PORT)]
        port: u16,
    },
    /// Measure once and print the sample as JSON
    Client {
        /// The server
        #[arg(long)]
        target: SocketAddr,
        /// What to send
        #[arg(long, value_enum)]
        metric: Metric,
        /// How long
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        // No runtime here: its threads would be measured with the traffic.
        Command::Traffic(args) => generate(&args),
        Command::Dataplane(args) => {
            let cpu = args.cpu;
            let common = &args.common;
            dataplane::run(common.quick, cpu, common.bin_dir.as_ref())
                .and_then(|figures| publish(&figures, common))
        }
        Command::Net(args) => net(&args),
        Command::Lab(common) => lab(&common),
        Command::Cni(common) => cni(&common),
        Command::Policy(common) => policy_bench::run(common.quick, common.bin_dir.as_ref())
            .and_then(|figures| publish(&figures, &common)),
        Command::Service(args) => service(&args),
        Command::Sim(common) => sim_bench::run(common.quick, common.bin_dir.as_ref())
            .and_then(|figures| publish(&figures, &common)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn generate(args: &TrafficArgs) -> anyhow::Result<()> {
    if let Some(cgroup) = &args.cgroup {
        lab::cgroup::join(cgroup).with_context(|| format!("join {}", cgroup.display()))?;
    }
    traffic::settle(args.netns.as_deref(), args.cpu)?;
    match &args.end {
        End::Server { port } => traffic::server::serve(*port),
        End::Client { target, metric, seconds } => {
            let sample = traffic::client::measure(*target, *metric, Duration::from_secs_f64(*seconds))?;
            println!("{}", serde_json::to_string(&sample).context("write the sample")?);
            Ok(())
        }
    }
}

#[tokio::main]
async fn net(args: &NetArgs) -> anyhow::Result<()> {
    stop_on_signals()?;
    let options = net_bench::Options {
        quick: args.common.quick,
        only: args.only.clone(),
        metrics: args.metrics.clone(),
        repeats: args.repeats,
        seconds: args.seconds,
        cpu: args.cpu,
        bin_dir: args.common.bin_dir.clone(),
    };
    publish(&net_bench::run(&options).await?, &args.common)
}

#[tokio::main]
async fn service(args: &ServiceArgs) -> anyhow::Result<()> {
    stop_on_signals()?;
    let options = service_bench::Options {
        quick: args.common.quick,
        only: args.only.clone(),
        sizes: args.sizes.clone(),
        repeats: args.repeats,
        seconds: args.seconds,
        cpu: args.cpu,
        bin_dir: args.common.bin_dir.clone(),
    };
    publish(&service_bench::run(&options).await?, &args.common)
}

#[tokio::main]
async fn lab(common: &Common) -> anyhow::Result<()> {
    stop_on_signals()?;
    let figures = lab_bench::run(common.quick, common.bin_dir.as_ref()).await?;
    publish(&figures, common)
}

#[tokio::main]
async fn cni(common: &Common) -> anyhow::Result<()> {
    stop_on_signals()?;
    let figures = cni_bench::run(common.quick, common.bin_dir.as_ref()).await?;
    publish(&figures, common)
}

fn stop_on_signals() -> anyhow::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = signal(kind).context("watch signals")?;
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                STOP.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(())
}

fn publish(figures: &[Figure], common: &Common) -> anyhow::Result<()> {
    // The plain figures of a long list are in the tables above and in the file.
    let judged: Vec<Figure> = figures.iter().filter(|figure| figure.goal.is_some()).cloned().collect();
    let many = figures.len() > 60 && !judged.is_empty();
    println!("{}", figure::table(if many { &judged } else { figures }));
    if let Some(path) = &common.json {
        figure::write(figures, path)?;
        eprintln!("figures: {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn services_are_measured_by_parts_and_sizes() {
        let read = |words: &[&str]| {
            let words = ["bristle-bench", "service"].iter().chain(words);
            match Cli::try_parse_from(words).map(|cli| cli.command) {
                Ok(Command::Service(args)) => Ok(args),
                Ok(_) => panic!("another command"),
                Err(error) => Err(error.to_string()),
            }
        };
        let args =
            read(&["--only", "rate,node-port", "--sizes", "1,10000", "--repeats", "2"]).expect("is right");
        assert_eq!(args.only, [service_bench::Part::Rate, service_bench::Part::NodePort]);
        let sizes: Vec<u32> = args.sizes.iter().map(|size| size.services).collect();
        assert_eq!((sizes, args.repeats), (vec![1, 10_000], Some(2)));
        let all = read(&[]).expect("is right");
        assert!(all.only.is_empty() && all.sizes.is_empty());
        for (wrong, says) in
            [(["--sizes", "7"], "give 1, 1000 or 10000"), (["--only", "speed"], "programming")]
        {
            let error = read(&wrong).err().expect("is refused");
            assert!(error.contains(says), "{error}");
        }
    }
}
