//! Prints a random scenario: `cargo run -p sim-scenario --example generate -- SEED [PROFILE]`.
#![forbid(unsafe_code)]

use sim_scenario::{Profile, generate};

fn main() {
    let mut words = std::env::args().skip(1);
    let seed = words.next().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let profile = words.next().map_or(Some(<&Profile>::default()), |name| Profile::by_name(&name));
    match profile {
        Some(profile) => print!("{}", generate(seed, profile, None).to_yaml()),
        None => eprintln!("no such profile; there are {}", names()),
    }
}

fn names() -> String {
    sim_scenario::profile::PROFILES.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", ")
}
