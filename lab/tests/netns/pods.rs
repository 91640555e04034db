//! What the kubelet stand-in does with pods, on one node.

use std::fs;
use std::time::Duration;

use lab::{BlockingCluster, Cluster};
use rstest::{fixture, rstest};
use serde_json::Value;
use sim_api::NodeRuntime as _;
use sim_api::options::DeleteOptions;
use sim_api::resource::PODS;
use sim_api::runtime::LogRequest;

use crate::common::{PATIENCE, make};

#[fixture]
fn cluster() -> Option<BlockingCluster> {
    make(Cluster::builder().nodes(1))
}

fn pod(cluster: &BlockingCluster, name: &str) -> Value {
    cluster.store().get(&PODS, "default", name).map(|p| (*p).clone()).unwrap_or_default()
}

/// Waits until the pod's status satisfies the check.
fn wait(cluster: &BlockingCluster, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
    let waited = cluster.wait(|c| {
        c.wait_for(what, PATIENCE, |store| {
            let pod = store.get(&PODS, "default", name).map_err(|e| e.to_string())?;
            if check(&pod["status"]) { Ok(pod["status"].clone()) } else { Err(pod["status"].to_string()) }
        })
    });
    waited.unwrap_or_else(|e| panic!("{e}"))
}

fn log(cluster: &BlockingCluster, name: &str, previous: bool) -> String {
    use futures::StreamExt as _;
    let request = LogRequest { container: "c".into(), previous, ..LogRequest::default() };
    let reference = cluster.pod_ref("default", name).expect("the pod is there");
    let lines = cluster.wait(|c| async {
        let lines = c.kubelets().logs(reference, request).await.expect("there is a log");
        lines.collect::<Vec<_>>().await
    });
    lines.iter().map(|l| String::from_utf8_lossy(&l.text).into_owned()).collect()
}

fn apply(cluster: &BlockingCluster, name: &str, spec: &str) {
    let yaml = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {spec}\n");
    cluster.apply(&yaml).expect("the pod is valid");
}

#[rstest]
fn containers_end_and_run_again_as_the_policy_says(cluster: Option<BlockingCluster>) {
    let Some(cluster) = cluster else { return };
    let command = |script: &str| {
        format!("containers: [{{name: c, image: bristle/client, command: [sh, -c, '{script}']}}]")
    };
    apply(&cluster, "never", &format!("{{restartPolicy: Never, {}}}", command("echo once; exit 3")));
    apply(&cluster, "done", &format!("{{restartPolicy: OnFailure, {}}}", command("exit 0")));
    apply(&cluster, "again", &format!("{{{}}}", command("echo run $$; sleep 0.2; exit 1")));
    apply(
        &cluster,
        "nosuch",
        "{containers: [{name: c, image: bristle/client, command: [/no/such/program]}]}",
    );
    apply(&cluster, "unknown", "{containers: [{name: c, image: 'nginx:1'}]}");

    let never = wait(&cluster, "never", "Failed", |s| s["phase"] == "Failed");
    assert_eq!(never["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    assert_eq!(log(&cluster, "never", false), "once\n");
    wait(&cluster, "done", "Succeeded", |s| s["phase"] == "Succeeded");
    let again = wait(&cluster, "again", "a pause between runs", |s| {
        s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    assert_eq!(
        (again["phase"].as_str(), again["containerStatuses"][0]["restartCount"].as_u64()),
        (Some("Running"), Some(1))
    );
    assert_eq!(again["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    assert!(log(&cluster, "again", true).starts_with("run "));
    let nosuch = wait(&cluster, "nosuch", "a failed start", |s| {
        s["containerStatuses"][0]["lastState"]["terminated"].is_object()
    });
    let ended = &nosuch["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(ended["reason"], "StartError");
    assert!(ended["message"].as_str().is_some_and(|m| m.contains("/no/such/program")), "{ended}");
    let unknown = wait(&cluster, "unknown", "no image", |s| {
        s["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
    });
    let message = unknown["containerStatuses"][0]["state"]["waiting"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(message.contains("bristle/http-echo"), "{message}");
}

#[rstest]
fn probes_decide_about_ready_and_restart(cluster: Option<BlockingCluster>) {
    let Some(cluster) = cluster else { return };
    let probe = "periodSeconds: 1, failureThreshold: 1, exec: {command: [test, -e, /tmp/ok]}";
    let sleep = "image: bristle/client, command: [sh, -c, 'touch /tmp/ok; sleep 1000']";
    apply(&cluster, "ready", &format!("{{containers: [{{name: c, {sleep}, readinessProbe: {{{probe}}}}}]}}"));
    apply(
        &cluster,
        "live",
        &format!(
            "{{terminationGracePeriodSeconds: 1, containers: [{{name: c, {sleep}, livenessProbe: {{{probe}}}}}]}}"
        ),
    );
    for name in ["ready", "live"] {
        cluster.wait_running("default", name, PATIENCE).expect("it gets ready");
    }
    for name in ["ready", "live"] {
        // Gives the liveness probe its first success, so that one failure counts.
        std::thread::sleep(Duration::from_millis(1500));
        let removed = cluster.exec("default", name, &["rm", "/tmp/ok"]).expect("exec works");
        assert!(removed.success(), "{removed:?}");
    }
    wait(&cluster, "ready", "no longer ready", |s| s["containerStatuses"][0]["ready"] == false);
    let live = wait(&cluster, "live", "a restart", |s| {
        s["containerStatuses"][0]["restartCount"] == 1 && s["containerStatuses"][0]["ready"] == true
    });
    assert!(live["containerStatuses"][0]["lastState"]["terminated"].is_object());
}

#[rstest]
fn containers_find_their_environment(cluster: Option<BlockingCluster>) {
    let Some(cluster) = cluster else { return };
    cluster
        .apply(
            "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, file.txt: hello}
---
apiVersion: v1
kind: Pod
metadata: {name: env, labels: {a: b}}
spec:
  volumes: [{name: config, configMap: {name: settings}}, {name: scratch, emptyDir: {}}]
  initContainers:
  - {name: init, image: bristle/client, command: [sh, -c, 'echo from-init > /scratch/x'], volumeMounts: [{name: scratch, mountPath: /scratch}]}
  containers:
  - name: c
    image: bristle/client
    workingDir: /tmp
    env:
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: BOTH, value: '$(COLOR)-$(NOT)'}
    volumeMounts: [{name: config, mountPath: /config}, {name: scratch, mountPath: /data}]
",
        )
        .expect("the objects are valid");
    cluster.wait_running("default", "env", PATIENCE).expect("it gets ready");
    let script = "echo $COLOR $IP $BOTH; hostname; pwd; cat /config/file.txt /data/x; touch /root/mine; head -1 /proc/1/cgroup; ls /sys/fs/cgroup/pods | wc -l";
    let output = cluster.exec("default", "env", &["sh", "-c", script]).expect("exec works");
    let ip = pod(&cluster, "env")["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    assert!(
        output.stdout.starts_with(&format!("blue {ip} blue-$(NOT)\nenv\n/tmp\nhellofrom-init\n")),
        "{output:?}"
    );
    assert!(!std::path::Path::new("/root/mine").exists(), "what a pod writes stays in the pod");
}

#[rstest]
fn a_deleted_pod_ends_in_order_and_leaves_nothing(cluster: Option<BlockingCluster>) {
    let Some(cluster) = cluster else { return };
    let trap = "trap \"echo bye; exit 0\" TERM; echo up; while :; do sleep 0.05; done";
    apply(
        &cluster,
        "polite",
        &format!(
            "{{terminationGracePeriodSeconds: 30, containers: [{{name: c, image: bristle/client, command: [sh, -c, '{trap}']}}]}}"
        ),
    );
    apply(
        &cluster,
        "deaf",
        "{terminationGracePeriodSeconds: 1, containers: [{name: c, image: bristle/client, command: [sh, -c, 'trap \"\" TERM; while :; do sleep 0.1; done']}]}",
    );
    apply(
        &cluster,
        "forced",
        "{terminationGracePeriodSeconds: 600, containers: [{name: c, image: bristle/client, command: [sh, -c, 'trap \"\" TERM; while :; do sleep 0.1; done']}]}",
    );
    let logs = cluster.dir().node("node-1").join("pods");
    let is_said =
        |word| walk(&logs).iter().any(|f| fs::read_to_string(f).is_ok_and(|text| text.contains(word)));
    for name in ["polite", "deaf", "forced"] {
        cluster.wait_running("default", name, PATIENCE).expect("it gets ready");
        if name == "polite" {
            // Until then it has no trap, and ends without a word.
            let up = cluster.wait(|c| {
                c.wait_for("the program's word", PATIENCE, |_| {
                    is_said("up").then_some(()).ok_or(String::new())
                })
            });
            up.unwrap_or_else(|e| panic!("{e}"));
        }
        let uid = pod(&cluster, name)["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let node = &cluster.nodes()[0];
        let traces = [
            format!("/run/netns/cni-{uid}-0"),
            format!("/run/pods/{uid}"),
            format!("/sys/fs/cgroup/pods/{uid}"),
        ];
        assert!(traces.iter().all(|t| node.file(t).exists()), "{traces:?}");
        let options = if name == "forced" { DeleteOptions::now() } else { DeleteOptions::default() };
        let start = std::time::Instant::now();
        cluster.store().delete(&PODS, "default", name, &options).expect("it can be deleted");
        let gone = cluster.wait(|c| {
            c.wait_for("the pod gone", PATIENCE, |store| {
                let left: Vec<&String> = traces.iter().filter(|t| node.file(t).exists()).collect();
                match store.get(&PODS, "default", name) {
                    Err(_) if left.is_empty() => Ok(()),
                    _ => Err(format!("{left:?}")),
                }
            })
        });
        gone.unwrap_or_else(|e| panic!("{e}"));
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "{name} took {took:?}");
        if name == "deaf" {
            assert!(took > Duration::from_secs(1), "it has its grace: {took:?}");
        }
    }
    assert!(is_said("bye"), "SIGTERM reaches the program");
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.flat_map(|e| if e.path().is_dir() { walk(&e.path()) } else { vec![e.path()] }).collect()
}

#[rstest]
fn forty_pods_at_once_get_addresses_of_their_own(cluster: Option<BlockingCluster>) {
    let Some(cluster) = cluster else { return };
    for n in 0..40 {
        apply(
            &cluster,
            &format!("p{n}"),
            "{terminationGracePeriodSeconds: 0, containers: [{name: c, image: bristle/client}]}",
        );
    }
    let waited = cluster.wait(|c| {
        c.wait_for("40 pods ready", PATIENCE, |store| {
            let ready =
                store.list(&PODS, "default").iter().filter(|p| lab::cluster::workloads::is_ready(p)).count();
            if ready == 40 { Ok(()) } else { Err(format!("{ready} are")) }
        })
    });
    waited.unwrap_or_else(|e| panic!("{e}"));
    let mut ips: Vec<String> = cluster
        .store()
        .list(&PODS, "")
        .iter()
        .flat_map(|p| p["status"]["podIPs"].as_array().cloned().unwrap_or_default())
        .map(|ip| ip.to_string())
        .collect();
    ips.sort();
    let count = ips.len();
    ips.dedup();
    assert_eq!((ips.len(), count), (82, 82), "two for each pod, also for that of the DNS");
    assert!(cluster.kubelets().add_times("node-1").len() >= 41);
}
