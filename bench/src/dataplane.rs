//! `bench dataplane`: nanoseconds per packet, in the kernel by `BPF_PROG_TEST_RUN` and natively by criterion.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use dataplane_abi::program::Program;
use dataplane_loader::measure::{self, Case};
use lab::bins::BinDir;
use serde_json::Value;

use crate::figure::Figure;
use crate::traffic;

/// Highest cost of an established packet from a pod, with conntrack and policy in force, in nanoseconds.
const ESTABLISHED_GOAL_NS: f64 = 80.0;
/// Highest cost of an established packet with policy in force, beside one without.
const ESTABLISHED_RATIO: f64 = 1.03;
/// Highest cost of a new connection with policies of 10,000 identities, beside policies of 10.
const SIZE_RATIO: f64 = 1.5;
/// Criterion's figures are taken over if they are not older than this.
const FRESH: Duration = Duration::from_hours(1);

/// Measures every program, and reads what criterion measured of the native host just before.
pub fn run(quick: bool, cpu: Option<usize>, bin_dir: Option<&PathBuf>) -> anyhow::Result<Vec<Figure>> {
    let bins = BinDir::find(bin_dir.cloned()).context("find the eBPF object")?;
    let object = std::fs::read(&bins.object).with_context(|| format!("read {}", bins.object.display()))?;
    let cpus = std::thread::available_parallelism().context("count the CPUs")?.get();
    traffic::settle(None, Some(cpu.unwrap_or(cpus - 1)))?;
    let measured = measure::all(&object, if quick { 60 } else { 400 }).context("measure the programs")?;
    let mut figures: Vec<Figure> = measured.iter().map(kernel_figure).collect();
    figures.extend(policy_ratios(&measured));
    if let Some(target) = bins.path.parent() {
        figures.extend(native_figures(&target.join("criterion")));
    }
    Ok(figures)
}

fn kernel_figure(figure: &measure::Figure) -> Figure {
    let name = format!("dataplane.kernel.{}", figure.name().replace('/', "."));
    if figure.program == Program::FromContainer && figure.case == Case::Established {
        Figure::at_most(name, figure.ns, "ns", ESTABLISHED_GOAL_NS)
    } else {
        Figure::plain(name, figure.ns, "ns")
    }
}

/// What policy adds: to a known connection, which shall not notice it, and to a new one by the size of the policy.
fn policy_ratios(measured: &[measure::Figure]) -> Vec<Figure> {
    let ns = |case: Case, v6: bool| {
        measured.iter().find(|figure| figure.case == case && figure.v6 == v6).map(|figure| figure.ns)
    };
    let ratio = |name: &str, v6: bool, over: Case, under: Case, goal: f64| {
        let family = if v6 { "v6" } else { "v4" };
        let ratio = ns(over, v6)? / ns(under, v6)?;
        Some(Figure::at_most(format!("dataplane.kernel.policy.{name}.{family}"), ratio, "ratio", goal))
    };
    [false, true]
        .into_iter()
        .flat_map(|v6| {
            [
                ratio(
                    "established-to-open",
                    v6,
                    Case::EstablishedPolicy,
                    Case::EstablishedOpen,
                    ESTABLISHED_RATIO,
                ),
                ratio("new-10000-to-10", v6, Case::NewPolicyLarge, Case::NewPolicySmall, SIZE_RATIO),
            ]
        })
        .flatten()
        .collect()
}

/// The medians in criterion's directory, by the path that leads to them.
pub(crate) fn native_figures(criterion: &Path) -> Vec<Figure> {
    let mut found = Vec::new();
    collect(criterion, criterion, 0, &mut found);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn collect(root: &Path, dir: &Path, depth: usize, found: &mut Vec<Figure>) {
    if depth > 5 {
        return;
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        let estimates = path.join("estimates.json");
        if entry.file_name() == "new" && estimates.is_file() {
            found.extend(native_figure(root, dir, &estimates));
        } else {
            collect(root, &path, depth + 1, found);
        }
    }
}

fn native_figure(root: &Path, dir: &Path, estimates: &Path) -> Option<Figure> {
    let written = estimates.metadata().ok()?.modified().ok()?;
    if SystemTime::now().duration_since(written).is_ok_and(|age| age > FRESH) {
        return None;
    }
    let value: Value = serde_json::from_slice(&std::fs::read(estimates).ok()?).ok()?;
    let ns = value["median"]["point_estimate"].as_f64()?;
    let name = dir.strip_prefix(root).ok()?.to_string_lossy().replace('/', ".");
    Some(Figure::plain(format!("dataplane.native.{name}"), ns, "ns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_established_packets_from_a_pod_are_judged() {
        let figure =
            |program, case| kernel_figure(&measure::Figure { program, case, v6: false, to: "pod", ns: 79.0 });
        let judged = figure(Program::FromContainer, Case::Established);
        assert_eq!(judged.name, "dataplane.kernel.from_container.established.pod.v4");
        assert_eq!((judged.goal, judged.met), (Some(80.0), Some(true)));
        assert_eq!(figure(Program::FromContainer, Case::New).goal, None);
        assert_eq!(figure(Program::ToContainer, Case::Established).goal, None);
    }

    #[test]
    fn policy_is_judged_by_what_it_adds() {
        let figure =
            |case, ns| measure::Figure { program: Program::FromContainer, case, v6: true, to: "pod", ns };
        let ratios = policy_ratios(&[
            figure(Case::EstablishedOpen, 50.0),
            figure(Case::EstablishedPolicy, 51.0),
            figure(Case::NewPolicySmall, 200.0),
            figure(Case::NewPolicyLarge, 320.0),
        ]);
        let said: Vec<_> = ratios.iter().map(|ratio| (ratio.name.as_str(), ratio.value, ratio.met)).collect();
        assert_eq!(
            said,
            [
                ("dataplane.kernel.policy.established-to-open.v6", 1.02, Some(true)),
                ("dataplane.kernel.policy.new-10000-to-10.v6", 1.6, Some(false)),
            ]
        );
    }

    #[test]
    fn criterion_medians_are_found_by_their_path() {
        let dir = std::env::temp_dir().join(format!("bristle-bench-criterion-{}", std::process::id()));
        let new = dir.join("from_container/established v4/new");
        std::fs::create_dir_all(&new).expect("a directory");
        std::fs::write(new.join("estimates.json"), r#"{"median": {"point_estimate": 31.5}}"#)
            .expect("a file");
        std::fs::create_dir_all(dir.join("report")).expect("a directory");
        let figures = native_figures(&dir);
        std::fs::remove_dir_all(&dir).expect("is removed");
        assert_eq!(figures, [Figure::plain("dataplane.native.from_container.established v4", 31.5, "ns")]);
    }
}
