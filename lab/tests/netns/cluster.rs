//! Clusters made by the library: pods reach each other, agents come and go, nothing stays behind.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use lab::plan::{Family, Routing};
use lab::preflight::can_test;
use lab::state::{LabDir, ProcessId};
use lab::{BlockingCluster, Cluster};
use rstest::{fixture, rstest};

use crate::common::{PATIENCE, make};

/// Two nodes with a client on the first and a server on the second.
#[fixture]
fn cluster(
    #[default(Family::Dual)] family: Family,
    #[default(Routing::Vxlan)] routing: Routing,
    #[default(false)] pod_routes: bool,
) -> Option<BlockingCluster> {
    let builder = Cluster::builder().nodes(2).family(family).routing(routing);
    let cluster = make(builder.pod_routes(pod_routes))?;
    cluster
        .apply(
            "
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: bristle/client}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 1
  containers:
  - name: s
    image: bristle/http-echo
    readinessProbe: {httpGet: {path: /healthz, port: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {clusterIP: None, ipFamilyPolicy: PreferDualStack, selector: {app: server}, ports: [{port: 8080}]}
",
        )
        .expect("the objects are valid");
    for pod in ["client", "server"] {
        cluster.wait_running("default", pod, PATIENCE).expect("the pod gets ready");
    }
    Some(cluster)
}

fn exec(cluster: &BlockingCluster, command: &[&str]) -> lab::cluster::ExecOutput {
    cluster.exec("default", "client", command).expect("the client runs")
}

fn addresses(cluster: &BlockingCluster, pod: &str) -> Vec<String> {
    let object = cluster.store().get(&sim_api::resource::PODS, "default", pod).expect("the pod is there");
    let ips = object["status"]["podIPs"].as_array().cloned().unwrap_or_default();
    ips.iter().filter_map(|ip| ip["ip"].as_str().map(str::to_owned)).collect()
}

#[rstest]
#[case::vxlan(Family::Dual, Routing::Vxlan)]
#[case::native(Family::Dual, Routing::Native)]
#[case::only_v6(Family::V6, Routing::Vxlan)]
fn pods_of_two_nodes_reach_each_other(
    #[case] family: Family,
    #[case] routing: Routing,
    #[from(cluster)]
    #[with(family, routing)]
    cluster: Option<BlockingCluster>,
) {
    let Some(cluster) = cluster else { return };
    assert_eq!(cluster.plan().routing, routing);
    let addresses = addresses(&cluster, "server");
    assert_eq!(addresses.len(), if family == Family::Dual { 2 } else { 1 });
    for ip in &addresses {
        let ping = exec(&cluster, &["ping", "-c", "3", "-i", "0.1", "-W", "2", ip]);
        assert!(ping.success(), "{ping:?}");
        let url = if ip.contains(':') {
            format!("http://[{ip}]:8080/x?y=1")
        } else {
            format!("http://{ip}:8080/x?y=1")
        };
        let curl = exec(&cluster, &["curl", "-sS", "-m", "5", &url]);
        let answer: serde_json::Value =
            serde_json::from_str(&curl.stdout).unwrap_or_else(|e| panic!("{e}: {curl:?}"));
        assert_eq!((answer["hostname"].as_str(), answer["query"].as_str()), (Some("server"), Some("y=1")));
        // Nobody translates addresses between pods.
        let client = answer["client"].as_str().unwrap_or_default();
        assert!(self::addresses(&cluster, "client").iter().any(|ip| ip == client), "{client}");
    }
    let names = exec(&cluster, &["nslookup", "server.default.svc.cluster.local"]);
    assert!(addresses.iter().all(|ip| names.stdout.contains(ip.as_str())), "{names:?}");
    let world =
        cluster.nodes()[0].run("curl", &["-sS", "-m", "5", "http://one.outside.test/"]).expect("curl runs");
    assert!(String::from_utf8_lossy(&world.stdout).contains("one.outside.test"), "{world:?}");
}

#[rstest]
#[case::vxlan(Routing::Vxlan)]
#[case::native(Routing::Native)]
fn the_world_answers_pods_whose_addresses_it_can_reach(
    #[case] routing: Routing,
    #[from(cluster)]
    #[with(Family::Dual, routing, true)]
    cluster: Option<BlockingCluster>,
) {
    let Some(cluster) = cluster else { return };
    assert_eq!(cluster.plan().routing, routing);
    let own = addresses(&cluster, "client");
    for (family, own) in ["-4", "-6"].iter().zip(&own) {
        let curl = exec(&cluster, &["curl", family, "-sS", "-m", "5", "http://one.outside.test/"]);
        let answer: serde_json::Value =
            serde_json::from_str(&curl.stdout).unwrap_or_else(|e| panic!("{e}: {curl:?}"));
        assert_eq!(answer["client"].as_str(), Some(own.as_str()), "nobody translates its address");
    }
}

#[rstest]
fn a_killed_agent_comes_back_and_no_ping_is_lost(cluster: Option<BlockingCluster>) {
    let Some(cluster) = cluster else { return };
    let ip = addresses(&cluster, "server").remove(0);
    let agent = cluster.node("node-2").expect("node-2").agent();
    let (before, starts) = (agent.process().expect("it runs"), agent.starts());
    let (ping, again) = cluster.wait(|c| async {
        let command = ["ping", "-c", "300", "-i", "0.01", "-W", "2", &ip];
        let ping = c.exec("default", "client", &command);
        let kill = async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            assert!(c.kill_agent("node-2").expect("node-2"), "an agent runs");
            c.node("node-2").expect("node-2").agent().wait_started_after(starts).await
        };
        tokio::join!(ping, kill)
    });
    let ping = ping.expect("ping runs");
    assert!(ping.stdout.contains("300 received"), "{ping:?}");
    assert!(!before.is_alive() && again != before);
}

#[rstest]
fn nodes_can_be_cut_off(cluster: Option<BlockingCluster>) {
    let Some(cluster) = cluster else { return };
    let ip = addresses(&cluster, "server").remove(0);
    cluster.set_connected("node-2", false).expect("node-2 is cut off");
    assert!(!exec(&cluster, &["ping", "-c", "1", "-W", "1", &ip]).success());
    cluster.set_connected("node-2", true).expect("node-2 is back");
    let back = exec(&cluster, &["ping", "-c", "50", "-i", "0.1", "-w", "10", &ip]);
    assert!(back.stdout.contains("bytes from"), "{back:?}");
}

/// What of a cluster can be seen from the root namespaces.
fn traces(dir: &LabDir, machines: &[ProcessId], cgroup: &Path) -> Vec<String> {
    let mut traces: Vec<String> =
        machines.iter().filter(|m| m.is_alive()).map(|m| format!("process {}", m.pid)).collect();
    for path in [dir.path(), cgroup] {
        if path.exists() {
            traces.push(path.display().to_string());
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    traces.extend(mounts.lines().filter(|l| l.contains(dir.name().as_str())).map(str::to_owned));
    traces
}

#[rstest]
fn nothing_is_left_after_a_panic() {
    if !can_test() {
        return;
    }
    let mut seen = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let cluster = make(Cluster::builder()).expect("a cluster");
        let machines = cluster.dir().record().expect("a record").machines;
        let cgroup = lab::cgroup::lab_path(cluster.dir().name()).expect("cgroup2");
        assert!(machines.iter().all(|m| m.is_alive()) && cgroup.exists());
        seen = Some((cluster.dir().clone(), machines, cgroup));
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let (dir, machines, cgroup) = seen.expect("the cluster was made");
    assert_eq!(traces(&dir, &machines, &cgroup), Vec::<String>::new());
}
