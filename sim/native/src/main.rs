//! To come.
#![forbid(unsafe_code)]
fn main() {
    let file = std::env::args().nth(1).unwrap();
    let seed = std::env::args().nth(2).map_or(1, |s| s.parse().unwrap());
    let scenario = sim_scenario::Scenario::load(&file).unwrap();
    let t = std::time::Instant::now();
    let report = sim_native::run(&scenario, &sim_native::Options { seed, taps: vec![] });
    if let Some(v) = &report.violation { println!("{} at {:?}: {}\n{}", v.invariant, v.at, v.message, v.details.join("\n")); }
    println!("{:#?}", report.outcome);
    println!("{} {:?} virtual {:?} real {:?}", report.trace_hash, report.stats, report.virtual_time, t.elapsed());
}
