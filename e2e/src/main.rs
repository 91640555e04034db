//! `bristle-e2e`: runs the connectivity matrix against a cluster, and scenarios on labs.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use e2e::cluster::{self, Family};
use e2e::matrix::{Case, Matrix, Target};
use e2e::native;
use e2e::netns::{self, LabOptions};
use e2e::report::{Report, table};
use e2e::runner::{self, Options};
use e2e::scenario;
use e2e::select::Selection;
use e2e::suite;
use e2e::workloads::Images;
use sim_scenario::model::{self, Families};
use tokio::signal::unix::{SignalKind, signal};

/// Runs the connectivity matrix against a cluster, and scenarios on labs.
#[derive(Parser)]
#[command(name = "bristle-e2e", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run cases against a cluster that is there
    Run(RunArgs),
    /// Bring up a lab on this machine, run cases against it, take it down
    Netns(NetnsArgs),
    /// Run cases in the simulator: one process, no privileges, virtual time
    Native(NativeArgs),
    /// Bring up a lab, carry a scenario out on it, take it down
    #[command(after_help = SCENARIO_HELP)]
    Scenario(ScenarioArgs),
    /// List the cases
    List,
    /// Show everything about a case
    Show {
        /// Id of the case: 7, x1
        case: String,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Kubeconfig of the cluster; without it the one that kubectl would use
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// IP families to run each case in
    #[arg(long, value_enum, default_value_t = FamilyWish::Auto)]
    family: FamilyWish,
    /// Names of the two nodes to use; without it the first two that take pods
    #[arg(long, value_name = "A,B")]
    nodes: Option<String>,
    #[command(flatten)]
    workloads: Workloads,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct NetnsArgs {
    /// Directory with the programs and the eBPF object; without it the one of this program
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// How packets travel between nodes
    #[arg(long, value_enum, default_value_t = lab::plan::Routing::Vxlan)]
    routing: lab::plan::Routing,
    /// Families of nodes and pods
    #[arg(long, value_enum, default_value_t = lab::plan::Family::Dual)]
    family: lab::plan::Family,
    /// How many nodes; the matrix uses two
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// Agents send calls to services (cluster IPs) to their endpoints
    #[arg(long)]
    kube_proxy_replacement: bool,
    /// Where they do it
    #[arg(long, value_enum, default_value_t = Translation::Socket, requires = "kube_proxy_replacement")]
    service_translation: Translation,
    /// Many policies on standing pods instead of the matrix; `--case` then takes numbers of its cases, or their names, or seeds
    #[arg(long, value_enum, conflicts_with_all = ["extra", "keep"])]
    suite: Option<Suite>,
    #[command(flatten)]
    workloads: Workloads,
    #[command(flatten)]
    common: Common,
}

/// As agents take it, and scenarios.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Translation {
    /// At the socket
    Socket,
    /// Packet by packet, what pods send
    Packet,
    /// At the socket, and packet by packet what was not translated there
    Both,
}

impl From<Translation> for model::Translation {
    fn from(translation: Translation) -> Self {
        match translation {
            Translation::Socket => Self::Socket,
            Translation::Packet => Self::Packet,
            Translation::Both => Self::Both,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// The Kubernetes network policy conformance suite
    NetworkPolicy,
    /// The L3/L4 and deny tests of Cilium's connectivity check
    Connectivity,
    /// The Kubernetes end-to-end suite for services, by its meaning
    Services,
    /// Random policies beside the oracle, a seed each (300 without --case)
    Generated,
}

/// Seeds without a wish, and the highest.
const SEEDS: &str = "1-300";
const MOST_SEEDS: u64 = u32::MAX as u64;

#[derive(Args)]
struct NativeArgs {
    /// How packets travel between nodes
    #[arg(long, value_enum, default_value_t = lab::plan::Routing::Vxlan)]
    routing: lab::plan::Routing,
    /// Families of nodes and pods
    #[arg(long, value_enum, default_value_t = lab::plan::Family::Dual)]
    family: lab::plan::Family,
    /// How many nodes; the matrix uses two
    #[arg(long, default_value_t = 3)]
    nodes: u16,
    /// Decides every order and delay: the same seed, the same run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Agents send calls to services (cluster IPs) to their endpoints
    #[arg(long)]
    kube_proxy_replacement: bool,
    /// Where they do it
    #[arg(long, value_enum, default_value_t = Translation::Socket, requires = "kube_proxy_replacement")]
    service_translation: Translation,
    /// Many policies on standing pods instead of the matrix, on two nodes; `--case` then takes numbers or names of its cases
    #[arg(long, value_enum)]
    suite: Option<Suite>,
    #[command(flatten)]
    common: Common,
}

const SCENARIO_HELP: &str = "\
The lab has the scenario's nodes, families, routing and MTU, and no cluster DNS. Steps happen in real time.
What cannot be done on real nodes (skewed clocks, full tables, a crash between two commands) is refused before anything starts.

Exit code: 0 the scenario passed, 1 it failed, 2 it could not be run.

Examples:
  bristle-e2e scenario sim/scenarios/traffic.yaml
  bristle-e2e scenario sim/scenarios/lossy-link.yaml --seed 7 --outcome out/lossy.json";

#[derive(Args)]
struct ScenarioArgs {
    /// The scenario
    #[arg(value_name = "FILE.yaml")]
    file: PathBuf,
    /// What it runs on
    #[arg(long, value_enum, default_value_t = OnArm::Netns)]
    on: OnArm,
    /// Decides about the chances of broken links, and which agent is killed where the scenario names none
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory with the programs and the eBPF object; without it the one of this program
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Write the outcome as JSON here
    #[arg(long, value_name = "FILE.json")]
    outcome: Option<PathBuf>,
    /// Keep the lab afterwards until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// What goes to stdout at the end
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum OnArm {
    /// Network namespaces on this machine: real agents, real eBPF
    Netns,
}

#[derive(Args)]
struct Common {
    /// Cases to run, as in 1-6,20-23,x1; without it all 69
    #[arg(long, value_name = "CASES")]
    case: Option<String>,
    /// After the 69 also the extra cases
    #[arg(long, conflicts_with = "case")]
    extra: bool,
    /// Write the report as JSON here, as XML for CI systems and as Markdown beside it
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Write packet captures here; without it beside the report, or among the temporary files
    #[arg(long, value_name = "DIR")]
    captures: Option<PathBuf>,
    /// What goes to stdout at the end
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// What is deployed to a cluster that is reached through its API.
#[derive(Args)]
struct Workloads {
    /// Leave the workloads in the cluster
    #[arg(long)]
    keep: bool,
    /// Image with shell, curl, ping, nslookup and tcpdump that sleeps
    #[arg(long, default_value = "bristle/client", value_name = "IMAGE")]
    client_image: String,
    /// Image of an HTTP server on 8080
    #[arg(long, default_value = "bristle/http-echo", value_name = "IMAGE")]
    echo_image: String,
    /// The outside name that policies may allow; answers HTTP on 80, TLS on 443
    #[arg(long, value_name = "NAME")]
    world_first: Option<String>,
    /// Another outside name, at another address; answers HTTP on 80
    #[arg(long, value_name = "NAME")]
    world_second: Option<String>,
    /// How long the workloads may take to become ready
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    ready_limit: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum FamilyWish {
    /// Those that the pods have
    Auto,
    /// IPv4
    V4,
    /// IPv6
    V6,
    /// Both
    Dual,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table by group
    Table,
    /// The report as JSON
    Json,
}

/// What is logged without `RUST_LOG`. That pods cannot be made at once is what some scenarios are about.
const DEFAULT_LOG: &str = "warn,lab::kubelet=error";

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| DEFAULT_LOG.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match command(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => {
            let matrix = args.workloads.matrix()?;
            let client = cluster::connect(args.kubeconfig.as_deref()).await?;
            let mut options = args.workloads.options(&args.common);
            options.families = args.family.list();
            options.nodes = match &args.nodes {
                Some(pair) => Some(two(pair)?),
                None => None,
            };
            run(&client, &matrix, &args.common, &options).await
        }
        Command::Netns(args) if args.suite == Some(Suite::Services) => {
            let cases = suite::services::select(args.common.case.as_deref())?;
            let mut progress = |line: &str| eprintln!("{line}");
            let options = args.services();
            let work = Box::pin(suite::services::run_netns(&cases, &options, &mut progress));
            args.common.publish(&or_interrupted(work).await?, None)
        }
        Command::Netns(args) if args.suite.is_some() => run_suite(&args).await,
        Command::Netns(args) => {
            let mut matrix = args.workloads.matrix()?;
            // Selecting first: a wrong case should not cost a lab.
            args.common.select(&matrix)?;
            let lab_options = args.lab_options(&matrix);
            let lab = or_interrupted(netns::up(&lab_options, |step| eprintln!("{step}"))).await?;
            let [first, second] = lab.plan().outside_names.clone();
            matrix.set_world(&first, &second);
            let client = cluster::connect(Some(&lab.dir().kubeconfig())).await?;
            let mut options = args.workloads.options(&args.common);
            options.families = Some(args.families());
            // The lab goes as a whole; deleting its objects one by one first would only take time.
            options.keep = true;
            options.any_certificate = true;
            let code = run(&client, &matrix, &args.common, &options).await;
            drop(lab);
            code
        }
        Command::Native(args) if args.suite.is_some() => native_suite(&args),
        Command::Native(args) => {
            let matrix = Matrix::built_in()?;
            let cases = args.common.select(&matrix)?;
            let options = args.options();
            let report = native::run(&matrix, &cases, &options, &mut |line| eprintln!("{line}"))?;
            args.common.publish(&report, Some(&options.captures))
        }
        Command::Scenario(args) => run_scenario(&args).await,
        Command::List => {
            for case in Matrix::built_in()?.all() {
                println!("{:>3}  {:<38} {}", case.id.to_string(), case.group, case.title());
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { case } => {
            let matrix = Matrix::built_in()?;
            let picked = case.parse::<Selection>().and_then(|selection| selection.pick(&matrix))?;
            for case in picked {
                show(&matrix, case)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run(
    client: &kube::Client,
    matrix: &Matrix,
    common: &Common,
    options: &Options,
) -> anyhow::Result<ExitCode> {
    let cases = common.select(matrix)?;
    let mut progress = |line: &str| eprintln!("{line}");
    let report = or_interrupted(runner::run(client, matrix, &cases, options, &mut progress)).await?;
    common.publish(&report, Some(&options.captures))
}

async fn run_suite(args: &NetnsArgs) -> anyhow::Result<ExitCode> {
    let wish = args.common.case.as_deref();
    // Selecting first: a wrong case should not cost a lab.
    let of = |suite| wish.filter(|_| args.suite == Some(suite));
    let cases = suite::network_policy::select(of(Suite::NetworkPolicy))?;
    let connectivity = suite::connectivity::select(of(Suite::Connectivity))?;
    let seeds = match args.suite {
        Some(Suite::Generated) => suite::numbers(wish.unwrap_or(SEEDS), MOST_SEEDS)?,
        _ => Vec::new(),
    };
    let matrix = args.workloads.matrix()?;
    let lab = or_interrupted(netns::up(&args.lab_options(&matrix), |step| eprintln!("{step}"))).await?;
    let client = cluster::connect(Some(&lab.dir().kubeconfig())).await?;
    let options = suite::Options {
        families: args.families(),
        ready_limit: Duration::from_secs(args.workloads.ready_limit),
    };
    let mut progress = |line: &str| eprintln!("{line}");
    let report = match args.suite {
        Some(Suite::Generated) => {
            or_interrupted(suite::generated::run(&client, &seeds, &options, &mut progress)).await
        }
        Some(Suite::Connectivity) => {
            let world = lab.plan().outside_servers();
            or_interrupted(suite::connectivity::run(&client, &connectivity, world, &options, &mut progress))
                .await
        }
        _ => or_interrupted(suite::network_policy::run(&client, &cases, &options, &mut progress)).await,
    };
    drop(lab);
    args.common.publish(&report?, None)
}

fn native_suite(args: &NativeArgs) -> anyhow::Result<ExitCode> {
    let wish = args.common.case.as_deref();
    let matrix_options = args.options();
    let options = suite::native::Options {
        routing: matrix_options.routing,
        families: match matrix_options.family {
            Families::V4 => vec![Family::V4],
            Families::V6 => vec![Family::V6],
            Families::Dual => Family::ALL.to_vec(),
        },
    };
    let mut progress = |line: &str| eprintln!("{line}");
    let report = match args.suite {
        Some(Suite::Services) => {
            let options = suite::services::Options {
                families: options.families,
                routing: options.routing,
                kube_proxy_replacement: matrix_options.kube_proxy_replacement,
                service_translation: matrix_options.service_translation,
                seed: matrix_options.seed,
                bin_dir: None,
            };
            suite::services::run_native(&suite::services::select(wish)?, &options, &mut progress)
        }
        Some(Suite::Connectivity) => {
            suite::native::run_connectivity(&suite::connectivity::select(wish)?, &options, &mut progress)?
        }
        Some(Suite::Generated) => {
            let seeds = suite::numbers(wish.unwrap_or(SEEDS), MOST_SEEDS)?;
            suite::native::run_generated(&seeds, &options, &mut progress)?
        }
        _ => {
            suite::native::run_network_policy(&suite::network_policy::select(wish)?, &options, &mut progress)?
        }
    };
    args.common.publish(&report, None)
}

async fn run_scenario(args: &ScenarioArgs) -> anyhow::Result<ExitCode> {
    let OnArm::Netns = args.on;
    let scenario = scenario::load(&args.file)?;
    let options = scenario::Options { bin_dir: args.bin_dir.clone(), seed: args.seed };
    let arm = or_interrupted(scenario::up(&scenario, &options, |step| eprintln!("{step}"))).await?;
    let outcome = or_interrupted(scenario::run(&arm, &scenario, |step| eprintln!("{step}"))).await?;
    let text = serde_json::to_string_pretty(&outcome).context("write the outcome as JSON")?;
    if let Some(path) = &args.outcome {
        std::fs::write(path, format!("{text}\n")).with_context(|| format!("write {}", path.display()))?;
    }
    match args.output {
        Format::Json => println!("{text}"),
        Format::Table => println!("{}", scenario::report::table(&outcome)),
    }
    if args.keep {
        eprintln!(
            "the lab stays until Ctrl-C: KUBECONFIG={} kubectl get pods -A -o wide",
            arm.cluster.kubeconfig().display()
        );
        tokio::signal::ctrl_c().await.context("watch SIGINT")?;
    }
    drop(arm);
    Ok(if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lets a SIGINT or SIGTERM end the work like an error, so that everything is taken down on the way out.
async fn or_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("told to end"),
    }
}

impl Workloads {
    fn matrix(&self) -> anyhow::Result<Matrix> {
        let mut matrix = Matrix::built_in()?;
        let world = matrix.topology.world.clone();
        let first = self.world_first.as_ref().unwrap_or(&world.first);
        let second = self.world_second.as_ref().unwrap_or(&world.second);
        if first == second {
            bail!("the two outside names must differ");
        }
        matrix.set_world(first, second);
        Ok(matrix)
    }

    fn options(&self, common: &Common) -> Options {
        Options {
            captures: common.captures(),
            families: None,
            images: Images { client: self.client_image.clone(), echo: self.echo_image.clone() },
            nodes: None,
            ready_limit: Duration::from_secs(self.ready_limit),
            any_certificate: false,
            name_limit: Duration::from_secs(15),
            keep: self.keep,
        }
    }
}

impl NetnsArgs {
    fn lab_options(&self, matrix: &Matrix) -> LabOptions {
        LabOptions {
            bin_dir: self.bin_dir.clone(),
            nodes: self.nodes,
            family: self.family,
            routing: self.routing,
            // What a policy says of the world can be seen only where the world answers.
            pod_routes: self.suite == Some(Suite::Connectivity),
            host_firewall: self.suite == Some(Suite::Connectivity),
            kube_proxy_replacement: self.kube_proxy_replacement,
            service_translation: self.service_translation.into(),
            outside_names: [matrix.topology.world.first.clone(), matrix.topology.world.second.clone()],
        }
    }

    fn services(&self) -> suite::services::Options {
        suite::services::Options {
            families: self.families(),
            routing: routing(self.routing),
            kube_proxy_replacement: self.kube_proxy_replacement,
            service_translation: self.service_translation.into(),
            seed: 1,
            bin_dir: self.bin_dir.clone(),
        }
    }

    fn families(&self) -> Vec<Family> {
        match self.family {
            lab::plan::Family::V4 => vec![Family::V4],
            lab::plan::Family::V6 => vec![Family::V6],
            lab::plan::Family::Dual => Family::ALL.to_vec(),
        }
    }
}

impl NativeArgs {
    fn options(&self) -> native::Options {
        native::Options {
            routing: routing(self.routing),
            family: match self.family {
                lab::plan::Family::V4 => Families::V4,
                lab::plan::Family::V6 => Families::V6,
                lab::plan::Family::Dual => Families::Dual,
            },
            nodes: self.nodes,
            seed: self.seed,
            kube_proxy_replacement: self.kube_proxy_replacement,
            service_translation: self.service_translation.into(),
            captures: self.common.captures(),
        }
    }
}

impl Common {
    fn select<'m>(&self, matrix: &'m Matrix) -> anyhow::Result<Vec<&'m Case>> {
        Ok(match &self.case {
            Some(text) => text.parse::<Selection>()?.pick(matrix)?,
            None if self.extra => matrix.all().collect(),
            None => matrix.cases.iter().collect(),
        })
    }

    fn captures(&self) -> PathBuf {
        match (&self.captures, &self.report) {
            (Some(dir), _) => dir.clone(),
            (None, Some(report)) => runner::captures_beside(report),
            (None, None) => runner::default_captures(),
        }
    }

    /// Hands the report out; the code says whether all cases passed.
    fn publish(&self, report: &Report, captures: Option<&Path>) -> anyhow::Result<ExitCode> {
        if let Some(path) = &self.report {
            report.write(path)?;
            eprintln!("report: {} (and .xml, .md)", path.display());
        }
        if let Some(captures) = captures {
            eprintln!("captures: {}", captures.display());
        }
        match self.output {
            Format::Table => println!("\n{}", table(report)),
            Format::Json => {
                println!("{}", serde_json::to_string_pretty(report).context("write the report as JSON")?);
            }
        }
        Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl FamilyWish {
    fn list(self) -> Option<Vec<Family>> {
        match self {
            Self::Auto => None,
            Self::V4 => Some(vec![Family::V4]),
            Self::V6 => Some(vec![Family::V6]),
            Self::Dual => Some(Family::ALL.to_vec()),
        }
    }
}

/// How packets travel, in the words of scenarios.
const fn routing(routing: lab::plan::Routing) -> model::Routing {
    match routing {
        lab::plan::Routing::Vxlan => model::Routing::Vxlan,
        lab::plan::Routing::Native => model::Routing::Native,
    }
}

fn two(pair: &str) -> anyhow::Result<(String, String)> {
    match pair.split_once(',') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() && a != b => Ok((a.to_owned(), b.to_owned())),
        _ => bail!("--nodes takes the names of two different nodes, as in node-1,node-2"),
    }
}

fn show(matrix: &Matrix, case: &Case) -> anyhow::Result<()> {
    println!("case {}: {}", case.id, case.title());
    println!("  group    {}", case.group);
    println!("  expect   {}", serde_json::to_value(case.expect)?.as_str().unwrap_or_default());
    if let Target::World(which) = case.to {
        println!("  name     {}", matrix.outside_name(which));
    }
    for name in &case.policies {
        println!("  policy   {name}: {}", matrix.policies[name].about);
    }
    for name in &case.proves_gone {
        println!("  gone     {name}");
    }
    if let Some(name) = &case.profile {
        let profile = &matrix.profiles[name];
        println!("  packets  {name}: {}", profile.about);
        let list = |tokens: &[e2e::matrix::Token]| {
            tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        for (end, requirements) in [("source", Some(&profile.source)), ("target", profile.target.as_ref())] {
            if let Some(requirements) = requirements {
                println!(
                    "    {end}  need [{}]  never [{}]",
                    list(&requirements.need),
                    list(&requirements.never)
                );
            }
        }
    }
    for name in &case.policies {
        println!("---\n{}", serde_yaml_ng::to_string(&matrix.policies[name].spec)?.trim_end());
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
    fn node_pairs_are_two_different_names() {
        assert_eq!(two("a,b").expect("a pair"), ("a".into(), "b".into()));
        for wrong in ["a", "a,a", ",b", "a,"] {
            assert!(two(wrong).is_err(), "{wrong}");
        }
    }
}
