//! The matrix in the simulator: what passes on a real kernel passes there, and the rest fails for a reason that names the feature.

use std::path::Path;

use e2e::capture;
use e2e::matrix::{CaseId, Matrix};
use e2e::native::{self, Options};
use e2e::report::{CaseReport, Outcome, Report};
use sim_scenario::model::{Families, Routing, Translation};

/// Cases that need neither services nor a proxy. Those that call the world name servers by address here, so that nobody asks the DNS.
fn passes(id: &CaseId) -> bool {
    matches!(id, CaseId::Number(1..=6 | 17..=30 | 41..=66))
}

/// Those of them without policies, in which every packet arrives.
fn is_plain(id: &CaseId) -> bool {
    matches!(id, CaseId::Number(1..=6 | 20..=23))
}

/// What passes besides where agents send calls to services, at their own address or at a node's port, to their endpoints.
fn calls_a_service(id: &CaseId) -> bool {
    matches!(id, CaseId::Number(7..=16 | 31..=40))
}

fn run(routing: Routing, family: Families, captures: &Path) -> Report {
    run_with(routing, family, captures, None)
}

fn run_with(routing: Routing, family: Families, captures: &Path, services: Option<Translation>) -> Report {
    let matrix = Matrix::built_in().expect("the matrix that is compiled in can be read");
    let cases: Vec<_> = matrix.cases.iter().collect();
    let captures = captures.to_owned();
    let (kube_proxy_replacement, service_translation) = (services.is_some(), services.unwrap_or_default());
    let options =
        Options { routing, family, nodes: 3, seed: 1, kube_proxy_replacement, service_translation, captures };
    native::run(&matrix, &cases, &options, &mut |_| {}).expect("the matrix runs")
}

fn assert_all_without_services(report: &Report) {
    for case in &report.cases {
        let wanted = if passes(&case.id) { Outcome::Passed } else { Outcome::Failed };
        assert_eq!(case.result, wanted, "case {}: {:?}", case.id, case.reason);
    }
    assert_eq!((report.total, report.passed, report.failed), (69, 46, 23));
}

fn assert_reason_names_a_feature(case: &CaseReport) {
    let reason = case.reason.as_deref().expect("a failed case has a reason");
    let features = ["policy is not implemented: ", "services are not implemented: "];
    assert!(features.iter().any(|feature| reason.contains(feature)), "case {}: {reason}", case.id);
}

#[test]
fn without_services_46_cases_pass_with_vxlan_and_the_others_say_what_is_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let report = run(Routing::Vxlan, Families::Dual, dir.path());
    assert_all_without_services(&report);
    assert_eq!(report.server, "simulated");
    report.cases.iter().filter(|case| !passes(&case.id)).for_each(assert_reason_names_a_feature);
    for case in report.cases.iter().filter(|case| is_plain(&case.id)) {
        assert_eq!(case.runs.len(), 2, "case {} runs in both families", case.id);
        assert_eq!(case.captures.len(), 4, "case {} is captured at both ends", case.id);
        for file in &case.captures {
            let capture = capture::read_file(file).expect("is a capture");
            assert!(!capture.packets.is_empty() && capture.undecoded == 0, "{}", file.display());
        }
    }
}

#[test]
fn the_same_46_pass_with_native_routing_and_in_either_family_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    for (routing, family) in [
        (Routing::Native, Families::Dual),
        (Routing::Native, Families::V4),
        (Routing::Native, Families::V6),
        (Routing::Vxlan, Families::V4),
        (Routing::Vxlan, Families::V6),
    ] {
        assert_all_without_services(&run(routing, family, dir.path()));
    }
}

#[test]
fn a_seed_decides_the_captures_to_the_last_byte() {
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    for dir in [&first, &second] {
        run(Routing::Vxlan, Families::V4, dir.path());
    }
    let read = |dir: &Path| std::fs::read(dir.join("002-v4-source.pcap")).expect("a capture");
    assert_eq!(read(first.path()), read(second.path()));
}

#[test]
fn pods_reach_services_where_agents_replace_kube_proxy() {
    let dir = tempfile::tempdir().expect("a directory");
    for (routing, translation) in [
        (Routing::Vxlan, Translation::Socket),
        (Routing::Native, Translation::Socket),
        (Routing::Vxlan, Translation::Packet),
        (Routing::Native, Translation::Packet),
        (Routing::Vxlan, Translation::Both),
    ] {
        let report = run_with(routing, Families::Dual, dir.path(), Some(translation));
        for case in &report.cases {
            let passes = passes(&case.id) || calls_a_service(&case.id);
            let wanted = if passes { Outcome::Passed } else { Outcome::Failed };
            assert_eq!(case.result, wanted, "case {}: {:?}", case.id, case.reason);
        }
        assert_eq!((report.total, report.passed, report.failed), (69, 66, 3));
    }
}
