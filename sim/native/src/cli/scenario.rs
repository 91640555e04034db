//! One scenario: run it, or print the one of a seed.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use sim_native::Options;
use sim_scenario::Scenario;
use sim_scenario::generate::generate as of_seed;
use sim_scenario::profile::{PROFILES, Profile};

use super::{Output, files, tell};

/// Run one scenario file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The scenario.
    file: PathBuf,
    /// Decides every order and delay.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the outcome, to compare it with another arm's.
    #[arg(long, value_name = "FILE.json")]
    outcome: Option<PathBuf>,
    /// Pods send nothing of their own accord, as on other arms; the outcome then tells the flows of traffic.
    #[arg(long)]
    plain_pods: bool,
    /// Write the last frames that were seen, whatever comes of it.
    #[arg(long, value_name = "FILE.pcap")]
    pcap: Option<PathBuf>,
    /// Where replay file and capture are written if it fails.
    #[arg(long, value_name = "DIR", default_value = files::DIR)]
    out: PathBuf,
    /// Run twice and compare.
    #[arg(long)]
    twice: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Print the random scenario of a seed.
#[derive(clap::Args)]
pub(crate) struct GenerateArgs {
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What kind of scenario.
    #[arg(long, default_value = "mixed")]
    profile: String,
    /// Number of nodes, instead of a random one.
    #[arg(long)]
    nodes: Option<u16>,
}

/// The profile of that name.
pub(crate) fn profile(name: &str) -> anyhow::Result<&'static Profile> {
    Profile::by_name(name).ok_or_else(|| {
        let names: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
        anyhow!("there is no profile {name}; there are {}", names.join(", "))
    })
}

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let scenario = Scenario::load_valid(&args.file, &sim_native::known())?;
    let options = Options { seed: args.seed, plain_pods: args.plain_pods, ..Options::default() };
    let report = sim_native::run(&scenario, &options);
    if args.twice {
        let again = sim_native::run(&scenario, &options);
        if again.trace_hash != report.trace_hash {
            return Err(anyhow!("two runs differ: {} and {}", report.trace_hash, again.trace_hash));
        }
    }
    let json = serde_json::to_string_pretty(&report.outcome)?;
    if let Some(path) = &args.outcome {
        std::fs::write(path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.pcap {
        files::capture(path, &report)?;
    }
    match args.output {
        Output::Json => println!("{json}"),
        Output::Text => {
            if let Some(violation) = &report.violation {
                tell::violation(violation);
            }
            tell::outcome(&report);
        }
    }
    if let Some(violation) = &report.violation {
        // One file for each seed, for the report of a defect seldom says which shows it.
        let name = format!("{}-{}", scenario.name, args.seed);
        let replay = files::replay(&options, None, &scenario, &report, violation);
        let path = files::save(&args.out, &name, &replay, &report).context("keep the failure")?;
        match args.output {
            // What a program reads is the outcome alone.
            Output::Json => eprintln!("{}", files::hints(&path)),
            Output::Text => println!("{}", files::hints(&path)),
        }
    }
    Ok(report.outcome.failures.is_empty())
}

/// Prints it.
pub(crate) fn generate(args: &GenerateArgs) -> anyhow::Result<bool> {
    let profile = profile(&args.profile)?;
    print!("{}", of_seed(args.seed, profile, args.nodes).to_yaml());
    Ok(true)
}

/// Lists the profiles.
pub(crate) fn profiles() {
    for profile in PROFILES {
        println!("{:<8} {}", profile.name, profile.description);
    }
}
