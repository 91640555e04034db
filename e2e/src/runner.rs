//! Runs the selected cases one after the other and reports each.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

use crate::capture::Capture;
use crate::cluster::{Family, usable_nodes};
use crate::diagnose;
use crate::exec::{self, Output};
use crate::matrix::{Case, Expect, Matrix, Profile, Requirements, Target};
use crate::policy::Policies;
use crate::probe::Recorder;
use crate::profile::{self, Finding, Flow};
use crate::report::{self, CaseReport, Outcome, Report, Run};
use crate::workloads::{self, Deployed, Images, PodFacts};

/// A capture lasts at least this long after its command: what must not come needs time to come.
const LINGER_LEAST: Duration = Duration::from_millis(100);
/// And at most this long, if something that must come has not come.
const LINGER_MOST: Duration = Duration::from_secs(2);
/// Longer than curl's connect timeout and ping's deadline.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where captures are written.
    pub captures: PathBuf,
    /// Families to run in; none: those that the pods have.
    pub families: Option<Vec<Family>>,
    /// Images of the workloads.
    pub images: Images,
    /// Names of the two nodes to use; none: the first two that take pods.
    pub nodes: Option<(String, String)>,
    /// How long the workloads may take to become ready.
    pub ready_limit: Duration,
    /// Take any certificate from the outside: a lab signs its own.
    pub any_certificate: bool,
    /// How long the services' names may take to resolve, all together.
    pub name_limit: Duration,
    /// Leave everything in place at the end.
    pub keep: bool,
}

/// Sets up, runs the cases, cleans up. `progress` is told each line worth showing as it happens.
pub async fn run(
    client: &Client,
    matrix: &Matrix,
    cases: &[&Case],
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let started = Instant::now();
    std::fs::create_dir_all(&options.captures)
        .with_context(|| format!("create {}", options.captures.display()))?;
    let version = client.apiserver_version().await.context("reach the API server")?;
    let mut nodes = usable_nodes(client).await?;
    if let Some((a, b)) = &options.nodes {
        nodes = [a, b]
            .map(|name| {
                nodes
                    .iter()
                    .find(|node| &node.name == name)
                    .cloned()
                    .with_context(|| format!("no node {name}"))
            })
            .into_iter()
            .collect::<Result<_, _>>()?;
    }
    let names: Vec<String> = nodes.iter().take(2).map(|node| node.name.clone()).collect();
    progress(&format!(
        "deploying to {} and {} in namespace {}",
        names[0], names[1], matrix.topology.namespace
    ));
    let deployed =
        workloads::deploy(client, &matrix.topology, &options.images, &nodes, options.ready_limit).await;
    let deployed = match deployed {
        Ok(deployed) => deployed,
        Err(error) => {
            if !options.keep {
                clean(client, matrix, progress).await;
            }
            return Err(error.context("set up the workloads"));
        }
    };
    let families = match &options.families {
        Some(families) => families.clone(),
        None => deployed.families(),
    };
    if families.is_empty() {
        bail!("the test pods share no IP family");
    }
    progress(&format!("pods are ready after {:.1} s", started.elapsed().as_secs_f64()));

    let mut policies = Policies::probe(client, matrix).await;
    let mut session = Session {
        matrix,
        pods: Api::namespaced(client.clone(), &matrix.topology.namespace),
        deployed,
        families: families.clone(),
        captures: options.captures.clone(),
        any_certificate: options.any_certificate,
        names: BTreeMap::new(),
    };
    if cases.iter().any(|case| matches!(case.to, Target::Service(_))) {
        session.wait_for_names(options.name_limit, progress).await;
    }
    let mut reports = Vec::new();
    for case in cases {
        let report = session.case(case, &mut policies).await;
        progress(&report::case_line(&report));
        reports.push(report);
    }
    if let Err(why) = policies.clear().await {
        progress(&format!("policies are left behind: {why}"));
    }
    if !options.keep {
        clean(client, matrix, progress).await;
    }
    Ok(Report::new(version.git_version, families, names, reports, started.elapsed().as_secs_f64()))
}

async fn clean(client: &Client, matrix: &Matrix, progress: &mut dyn FnMut(&str)) {
    if let Err(error) = workloads::remove(client, &matrix.topology.namespace, Duration::from_mins(1)).await {
        progress(&format!("the namespace is left behind: {error:#}"));
    }
}

/// What all cases of a run share.
struct Session<'m> {
    matrix: &'m Matrix,
    pods: Api<Pod>,
    deployed: Deployed,
    families: Vec<Family>,
    captures: PathBuf,
    any_certificate: bool,
    /// Service names that did not resolve before the first case, with the resolver's complaint.
    names: BTreeMap<String, String>,
}

/// One command to run and what belongs to it.
struct Attempt {
    command: Vec<String>,
    flow: Flow,
}

/// The end of the wire that a capture is made at.
struct CapturePoint<'a> {
    word: &'static str,
    place: &'a PodFacts,
    device: &'static str,
    filter: String,
    requirements: &'a Requirements,
}

impl Session<'_> {
    /// Waits for the services' names; what does not resolve is remembered, its cases will say so.
    async fn wait_for_names(&mut self, limit: Duration, progress: &mut dyn FnMut(&str)) {
        let client = &self.deployed.pods["client"];
        let deadline = Instant::now() + limit;
        for name in self.matrix.topology.services.keys() {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Err(complaint) = workloads::wait_for_name(&self.pods, &client.place, name, left).await {
                progress(&format!("the name {name} does not resolve in a pod: {complaint}"));
                self.names.insert(name.clone(), complaint);
            }
        }
    }

    async fn case(&self, case: &Case, policies: &mut Policies<'_>) -> CaseReport {
        let started = Instant::now();
        let mut runs = Vec::new();
        let mut reason = policies.prepare(case).await.err();
        if reason.is_none() && case.expect.is_traffic() {
            for family in &self.families {
                runs.push(self.traffic(case, *family).await);
            }
            let reasons: Vec<String> = runs
                .iter()
                .filter_map(|run| run.reason.as_ref().map(|why| format!("{}: {why}", run.family.word())))
                .collect();
            reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        }
        CaseReport {
            id: case.id.clone(),
            group: case.group.clone(),
            title: case.title(),
            result: if reason.is_none() { Outcome::Passed } else { Outcome::Failed },
            reason,
            seconds: started.elapsed().as_secs_f64(),
            captures: runs.iter().flat_map(|run| run.captures.clone()).collect(),
            runs,
        }
    }

    async fn traffic(&self, case: &Case, family: Family) -> Run {
        let mut run = Run {
            family,
            result: Outcome::Failed,
            reason: None,
            command: String::new(),
            exit_code: None,
            captures: Vec::new(),
        };
        match self.attempt(case, family) {
            Ok(attempt) => {
                run.command = attempt.command.join(" ");
                run.reason = self.record(case, &attempt, &mut run).await.err();
            }
            Err(why) => run.reason = Some(why),
        }
        if run.reason.is_none() {
            run.result = Outcome::Passed;
        }
        run
    }

    /// Captures, runs, checks; the error is the reason why the case failed.
    async fn record(&self, case: &Case, attempt: &Attempt, run: &mut Run) -> Result<(), String> {
        let from = &self.deployed.pods[case.from.as_ref().ok_or("the case has no sender")?];
        let profile = case
            .profile
            .as_ref()
            .and_then(|name| self.matrix.profiles.get(name))
            .ok_or("the case has no profile")?;
        let points = self.capture_points(case, attempt, profile, from);
        let mut recorders = Vec::new();
        for point in &points {
            let file = format!("{:0>3}-{}-{}.pcap", case.id.to_string(), run.family.word(), point.word);
            let path = self.captures.join(file);
            let started =
                Recorder::start(&self.pods, &point.place.place, point.device, &point.filter, &path).await;
            run.captures.push(path);
            recorders.push(started.map_err(|error| format!("no capture at the {}: {error:#}", point.word))?);
        }
        let output = exec::run(&self.pods, &from.place, &attempt.command, COMMAND_LIMIT).await;
        let as_expected =
            output.as_ref().is_ok_and(|output| judge(case.expect, &attempt.command[0], output).is_none());
        // After a failed command there is nothing more to wait for.
        linger(&points, &recorders, &attempt.flow, if as_expected { LINGER_MOST } else { LINGER_LEAST })
            .await;
        let mut problems = Vec::new();
        match &output {
            Ok(output) => {
                run.exit_code = Some(output.code);
                if let Some(problem) = judge(case.expect, &attempt.command[0], output) {
                    let hint = self.hint(case, &attempt.command, run.family, from).await;
                    problems.push(match hint {
                        Some(hint) => format!("{hint}: {problem}"),
                        None => problem,
                    });
                }
            }
            Err(error) => problems.push(describe(error)),
        }
        for (point, recorder) in points.iter().zip(recorders) {
            match recorder.stop().await {
                Ok(capture) => problems.extend(complaint(point, &attempt.flow, &capture)),
                Err(error) => problems.push(format!("no capture at the {}: {error:#}", point.word)),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    fn capture_points<'a>(
        &'a self,
        case: &Case,
        attempt: &Attempt,
        profile: &'a Profile,
        from: &'a PodFacts,
    ) -> Vec<CapturePoint<'a>> {
        let mut points = vec![CapturePoint {
            word: "source",
            place: from,
            device: "eth0",
            filter: String::new(),
            requirements: &profile.source,
        }];
        let Some(requirements) = &profile.target else { return points };
        match &case.to {
            Target::Pod(name) => points.push(CapturePoint {
                word: "target",
                place: &self.deployed.pods[name],
                device: "eth0",
                filter: String::new(),
                requirements,
            }),
            Target::Node(letter) => {
                if let Some(helper) = self.deployed.helpers.get(letter) {
                    points.push(CapturePoint {
                        word: "target",
                        place: helper,
                        device: "any",
                        filter: format!("host {}", attempt.flow.source),
                        requirements,
                    });
                }
            }
            Target::Service(_) | Target::NodePort(_) | Target::World(_) | Target::Agents => {}
        }
        points
    }

    /// The command of a case in a family; the error is why it cannot be run at all.
    fn attempt(&self, case: &Case, family: Family) -> Result<Attempt, String> {
        let from = &self.deployed.pods[case.from.as_ref().ok_or("the case has no sender")?];
        let source = family
            .pick(&from.addresses)
            .ok_or_else(|| format!("pod {} has no address of this family", from.place.pod))?;
        let attempt = |command, target, ports| Ok(Attempt { command, flow: Flow { source, target, ports } });
        match &case.to {
            Target::Pod(name) => {
                let pod = &self.deployed.pods[name];
                let address = family
                    .pick(&pod.addresses)
                    .ok_or_else(|| format!("pod {} has no address of this family", pod.place.pod))?;
                match self.matrix.topology.workloads[name].port {
                    Some(port) => attempt(curl(family, &url_of(address, port)), Some(address), vec![port]),
                    None => attempt(ping(family, address), Some(address), vec![]),
                }
            }
            Target::Node(letter) => {
                let address = self.node_address(letter, family)?;
                attempt(ping(family, address), Some(address), vec![])
            }
            Target::Service(name) => {
                let port = self.deployed.services[name].port;
                attempt(curl(family, &format!("http://{name}:{port}/")), None, vec![port])
            }
            Target::NodePort(letter) => {
                let address = self.node_address(letter, family)?;
                // Either echo service will do; take the one whose pod is on the node that is asked.
                let (name, service) = self.service_on(letter)?;
                let port = service.node_port.ok_or_else(|| {
                    format!("services are not implemented: service {name} was given no node port")
                })?;
                attempt(curl(family, &url_of(address, port)), None, vec![port, service.port])
            }
            Target::World(which) => {
                let name = self.matrix.outside_name(*which);
                let port = case.port.unwrap_or(80);
                let scheme = if port == 443 { "https" } else { "http" };
                let mut command = curl(family, &format!("{scheme}://{name}:{port}/"));
                if self.any_certificate {
                    command.insert(1, "--insecure".to_owned());
                }
                attempt(command, None, vec![port])
            }
            Target::Agents => Err("the case has no traffic".to_owned()),
        }
    }

    fn node_address(&self, letter: &str, family: Family) -> Result<IpAddr, String> {
        let node = &self.deployed.nodes[letter];
        family
            .pick(&node.addresses)
            .ok_or_else(|| format!("node {} has no address of this family", node.name))
    }

    fn service_on(&self, letter: &str) -> Result<(&String, &workloads::ServiceFacts), String> {
        let workloads = &self.matrix.topology.workloads;
        self.deployed
            .services
            .iter()
            .find(|(name, _)| workloads.get(*name).is_some_and(|workload| workload.node == letter))
            .ok_or_else(|| format!("no service has its pod on node {letter}"))
    }

    async fn hint(&self, case: &Case, command: &[String], family: Family, from: &PodFacts) -> Option<String> {
        if case.expect == Expect::NoAnswer {
            return None;
        }
        let name = match &case.to {
            Target::Service(name) => name,
            Target::NodePort(letter) => self.service_on(letter).ok()?.0,
            Target::World(which) => {
                let node = self
                    .deployed
                    .nodes
                    .iter()
                    .find(|(_, node)| node.name == from.node)
                    .map(|(letter, _)| letter);
                let helper = node.and_then(|letter| self.deployed.helpers.get(letter)).map(|pod| &pod.place);
                let name = self.matrix.outside_name(*which);
                return diagnose::world(&self.pods, &from.place, helper, name, command).await;
            }
            Target::Pod(_) | Target::Node(_) | Target::Agents => return None,
        };
        let backend = family.pick(&self.deployed.pods[name].addresses)?;
        let service = &self.deployed.services[name];
        let direct = curl(family, &url_of(backend, service.port));
        let unresolved = matches!(case.to, Target::Service(_)).then(|| self.names.get(name)).flatten();
        Some(diagnose::service(&self.pods, &from.place, name, service, unresolved, &direct).await)
    }
}

/// Waits until the captures show what they must, within bounds.
async fn linger(points: &[CapturePoint<'_>], recorders: &[Recorder], flow: &Flow, most: Duration) {
    let started = Instant::now();
    tokio::time::sleep(LINGER_LEAST).await;
    while started.elapsed() < most {
        let waiting = points.iter().zip(recorders).any(|(point, recorder)| {
            profile::check(point.requirements, flow, &recorder.so_far())
                .iter()
                .any(|finding| matches!(finding, Finding::Missing(_)))
        });
        if !waiting {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is wrong with how a command ended, if anything.
fn judge(expect: Expect, tool: &str, output: &Output) -> Option<String> {
    let failed = output.code != 0;
    match expect {
        Expect::NoAnswer if failed => None,
        Expect::NoAnswer => Some(format!("{tool} succeeded, and policy should have stopped it")),
        _ if failed => Some(format!("{tool} exited with {}: {}", output.code, output.complaint())),
        _ if !output.stderr.trim().is_empty() => {
            Some(format!("{tool} succeeded but complained: {}", output.complaint()))
        }
        _ => None,
    }
}

fn complaint(point: &CapturePoint<'_>, flow: &Flow, capture: &Capture) -> Option<String> {
    let findings = profile::check(point.requirements, flow, capture);
    if findings.is_empty() {
        return None;
    }
    let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
    Some(format!("capture at the {}: {}", point.word, list.join(", ")))
}

fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn url_of(address: IpAddr, port: u16) -> String {
    format!("http://{}/", SocketAddr::new(address, port))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Silent, failing on status 400 and above, body discarded; errors are shown because they are the reason of a failure.
fn curl(family: Family, url: &str) -> Vec<String> {
    let family = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let head = ["curl", family, "--silent", "--show-error", "--fail", "--noproxy", "*"];
    words(
        &[&head[..], &["--connect-timeout", "5", "--max-time", "15", "--output", "/dev/null", url]].concat(),
    )
}

fn ping(family: Family, address: IpAddr) -> Vec<String> {
    let family = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    words(&["ping", family, "-c", "1", "-w", "3", &address.to_string()])
}

/// Where captures go when nobody says: a directory of their own among the temporary files.
pub fn default_captures() -> PathBuf {
    let seconds =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    std::env::temp_dir().join(format!("bristle-e2e-{seconds}"))
}

/// Captures beside a report: `e2e.json` → `e2e-captures/`.
pub fn captures_beside(report: &Path) -> PathBuf {
    let stem = report.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    report.with_file_name(format!("{stem}-captures"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(code: i32, stderr: &str) -> Output {
        Output { code, stdout: String::new(), stderr: stderr.to_owned() }
    }

    #[test]
    fn success_is_exit_zero_and_silence_and_refusal_is_any_failure() {
        for (expect, output, problem) in [
            (Expect::HttpOk, output(0, ""), None),
            (Expect::HttpOk, output(0, "Warning: x"), Some("curl succeeded but complained: Warning: x")),
            (Expect::EchoReply, output(1, ""), Some("curl exited with 1: no output")),
            (Expect::HttpBelow400, output(22, "curl: (22) 404"), Some("curl exited with 22: curl: (22) 404")),
            (Expect::NoAnswer, output(28, "curl: (28) timeout"), None),
            (Expect::NoAnswer, output(0, ""), Some("curl succeeded, and policy should have stopped it")),
        ] {
            assert_eq!(judge(expect, "curl", &output).as_deref(), problem);
        }
    }

    #[test]
    fn commands_name_their_family_and_bracket_addresses() {
        let v6: IpAddr = "fd00::7".parse().expect("an address");
        let command = curl(Family::V6, &url_of(v6, 8080)).join(" ");
        assert!(command.starts_with("curl -6 ") && command.ends_with(" http://[fd00::7]:8080/"), "{command}");
        assert_eq!(ping(Family::V4, [10, 0, 0, 1].into()).join(" "), "ping -4 -c 1 -w 3 10.0.0.1");
    }

    #[test]
    fn captures_lie_beside_the_report() {
        assert_eq!(captures_beside(Path::new("out/vxlan-v4.json")), Path::new("out/vxlan-v4-captures"));
        assert_eq!(captures_beside(Path::new("e2e.json")), Path::new("e2e-captures"));
    }
}
