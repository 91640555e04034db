//! The cluster as users of `kubectl` see it. Needs a `kubectl` 1.32 or later and skips loudly without.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests: a panic is the report")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/kubectl.rs"]
mod kubectl;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use cluster::Cluster;
use kubectl::Kubectl;

/// Runs a test against a cluster of three nodes; the test itself blocks, so it runs beside the server.
fn with_cluster(test: impl FnOnce(Kubectl) + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::start(TcpListener::bind("127.0.0.1:0").unwrap(), 3);
        if let Some(kubectl) = Kubectl::find(&cluster.server.url()) {
            tokio::task::spawn_blocking(move || test(kubectl)).await.unwrap();
        }
    });
}

/// True if one line holds all these words, in this order.
fn has_row(table: &str, words: &[&str]) -> bool {
    table.lines().any(|line| {
        let mut cells = line.split_whitespace();
        words.iter().all(|w| cells.any(|c| c == *w))
    })
}

fn assert_row(table: &str, words: &[&str]) {
    assert!(has_row(table, words), "no row {words:?} in\n{table}");
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'web:1', ports: [{containerPort: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
";

#[test]
fn reading() {
    with_cluster(|k| {
        let nodes = k.run(&["get", "nodes", "-o", "wide"]);
        assert_row(&nodes, &["NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP"]);
        assert_row(&nodes, &["node-a", "Ready", "<none>", "172.30.0.1"]);
        assert!(k.run(&["version"]).contains("Server Version: v1.33"));
        let resources = k.run(&["api-resources"]);
        assert_row(&resources, &["deployments", "deploy", "apps/v1", "true", "Deployment"]);
        assert_row(&resources, &["nodes", "no", "v1", "false", "Node"]);
        assert!(k.run(&["explain", "pod.spec.containers.ports"]).contains("hostPort\t<integer>"));
        assert!(k.run(&["explain", "networkpolicy"]).contains("VERSION:    v1"));
        assert!(k.run(&["describe", "node", "node-a"]).contains("PodCIDRs:                     10.10."));
        assert_eq!(k.run(&["get", "ns", "-o", "name"]).lines().count(), 4);
        assert_row(&k.run(&["get", "svc"]), &["kubernetes", "ClusterIP", "10.96.0.1", "<none>", "443/TCP"]);
        assert_eq!(k.run(&["auth", "can-i", "create", "pods"]).trim(), "yes");
        let (code, said) = k.fails(&["get", "pods", "nope"], "");
        assert_eq!((code, said.trim()), (1, "Error from server (NotFound): pods \"nope\" not found"));
        assert!(k.fails(&["get", "things"], "").1.contains("doesn't have a resource type \"things\""));
    });
}

#[test]
fn applying() {
    with_cluster(|k| {
        let apply = ["apply", "-f", "-"];
        assert!(k.run_with(&apply, WEB).contains("deployment.apps/web created"));
        assert!(
            k.run(&["rollout", "status", "deploy/web", "--timeout=30s"]).contains("successfully rolled out")
        );
        assert!(k.run_with(&apply, WEB).contains("deployment.apps/web unchanged"));
        assert!(
            k.run_with(&apply, &WEB.replace("replicas: 2", "replicas: 3"))
                .contains("deployment.apps/web configured")
        );
        let dry = ["apply", "--dry-run=server", "-f", "-"];
        assert!(
            k.run_with(&dry, &WEB.replace("replicas: 2", "replicas: 9"))
                .contains("configured (server dry run)")
        );
        k.run(&["rollout", "status", "deploy/web", "--timeout=30s"]);
        assert_row(
            &k.run(&["get", "deploy", "-o", "wide"]),
            &["web", "3/3", "3", "3", "web", "web:1", "app=web"],
        );
        assert_row(&k.run(&["get", "endpointslices"]), &["IPv4", "80"]);
        let wrong = k.fails(&apply, &WEB.replace("replicas: 2", "replicsa: 2")).1;
        assert!(wrong.contains("unknown field \"spec.replicsa\""), "{wrong}");

        let map = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {a: '1', b: '2'}}";
        let ssa = ["apply", "--server-side", "-f", "-"];
        k.run_with(&ssa, map);
        let other = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
        let conflict = k.fails(&other, &map.replace("'1'", "'9'")).1;
        assert!(conflict.contains("conflict with \"kubectl\": .data.a"), "{conflict}");
        k.run_with(
            &["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"],
            &map.replace("'1'", "'9'"),
        );
        assert_eq!(k.run(&["get", "cm", "m", "-o", "jsonpath={.data.a}"]), "9");
        // An object that was applied by the client goes over to the server's way without conflicts.
        k.run_with(&["apply", "--server-side", "-f", "-"], &WEB.replace("replicas: 2", "replicas: 3"));
    });
}

#[test]
fn changing() {
    with_cluster(|k| {
        k.run(&["create", "deployment", "d", "--image=i:1", "--replicas=2", "--port=80"]);
        k.run(&["expose", "deploy", "d", "--type=NodePort"]);
        k.run(&["scale", "deploy", "d", "--replicas=3"]);
        k.run(&["rollout", "status", "deploy/d", "--timeout=30s"]);
        k.run(&["set", "image", "deploy/d", "*=i:2"]);
        k.run(&["rollout", "status", "deploy/d", "--timeout=30s"]);
        assert_eq!(
            k.run(&["rollout", "history", "deploy/d"]).lines().filter(|l| l.ends_with("<none>")).count(),
            2
        );
        k.run(&["rollout", "undo", "deploy/d"]);
        k.run(&["rollout", "status", "deploy/d", "--timeout=30s"]);
        assert_eq!(
            k.run(&["get", "deploy", "d", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]),
            "i:1"
        );
        for (kind, patch, expect) in [
            (
                "strategic",
                r#"{"spec":{"template":{"spec":{"containers":[{"name":"i","image":"i:3"}]}}}}"#,
                "i:3",
            ),
            ("merge", r#"{"spec":{"template":{"spec":{"containers":[{"name":"i","image":"i:4"}]}}}}"#, "i:4"),
            (
                "json",
                r#"[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"i:5"}]"#,
                "i:5",
            ),
        ] {
            k.run(&["patch", "deploy", "d", "--type", kind, "-p", patch]);
            assert_eq!(
                k.run(&["get", "deploy", "d", "-o", "jsonpath={.spec.template.spec.containers[*].image}"]),
                expect
            );
        }
        k.run(&["label", "deploy", "d", "tier=front"]);
        k.run(&["annotate", "deploy", "d", "note=x"]);
        assert_row(&k.run(&["get", "deploy", "-l", "tier in (front)", "-L", "tier"]), &["d", "front"]);
        assert_eq!(k.run(&["get", "deploy", "-l", "tier!=front", "-o", "name"]), "");
        k.run(&["rollout", "status", "deploy/d", "--timeout=30s"]);
        k.run(&["cordon", "node-b"]);
        assert_row(&k.run(&["get", "nodes"]), &["node-b", "Ready,SchedulingDisabled"]);
        k.run(&["drain", "node-b", "--ignore-daemonsets", "--timeout=30s"]);
        assert_eq!(k.run(&["get", "pods", "--field-selector", "spec.nodeName=node-b", "-o", "name"]), "");
        k.run(&["uncordon", "node-b"]);
        k.run(&["taint", "node", "node-c", "k=v:NoSchedule"]);
        assert!(k.run(&["describe", "node", "node-c"]).contains("k=v:NoSchedule"));
        assert!(k.run(&["get", "events"]).contains("Scaled up replica set"));
        assert!(k.run(&["describe", "deploy", "d"]).contains("NewReplicaSetAvailable"));
    });
}

#[test]
fn deleting() {
    with_cluster(|k| {
        k.run(&["create", "deployment", "d", "--image=i:1", "--replicas=2"]);
        k.run(&["rollout", "status", "deploy/d", "--timeout=30s"]);
        k.run(&["delete", "deploy", "d", "--cascade=orphan", "--timeout=30s"]);
        assert_eq!(k.run(&["get", "rs", "-o", "name"]).lines().count(), 1);
        k.run(&["delete", "rs", "-l", "app=d", "--cascade=foreground", "--timeout=30s"]);
        k.run(&["wait", "--for=delete", "pod", "-l", "app=d", "--timeout=30s"]);
        assert_eq!(k.run(&["get", "rs,pods", "-o", "name"]), "");

        k.run(&["create", "configmap", "m", "--from-literal=a=b"]);
        k.run(&["patch", "cm", "m", "-p", r#"{"metadata":{"finalizers":["example.com/hold"]}}"#]);
        k.run(&["delete", "cm", "m", "--wait=false"]);
        assert_ne!(k.run(&["get", "cm", "m", "-o", "jsonpath={.metadata.deletionTimestamp}"]), "");
        k.run(&[
            "patch",
            "cm",
            "m",
            "--type=json",
            "-p",
            r#"[{"op":"remove","path":"/metadata/finalizers"}]"#,
        ]);
        k.fails(&["get", "cm", "m"], "");

        k.run(&["create", "ns", "x"]);
        k.run(&["run", "p", "-n", "x", "--image=i:1"]);
        k.run(&["delete", "ns", "x", "--timeout=30s"]);
        k.fails(&["get", "ns", "x"], "");
    });
}

const WIDGETS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1, description: How big it is.}
              replicas: {type: integer}
              color: {type: string, enum: [red, green]}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
";

#[test]
fn custom_resources() {
    with_cluster(|k| {
        let widget = "---\n{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}, spec: {size: 3}}";
        assert!(k.fails(&["apply", "-f", "-"], widget).1.contains("no matches for kind \"Widget\""));
        k.run_with(&["apply", "-f", "-"], WIDGETS);
        k.run(&["wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=10s"]);
        k.run_with(&["apply", "-f", "-"], widget);
        assert_row(&k.run(&["get", "wd"]), &["NAME", "SIZE"]);
        assert_row(&k.run(&["get", "wd"]), &["w", "3"]);
        k.run_with(&["apply", "-f", "-"], &widget.replace("size: 3", "size: 4"));
        assert_eq!(k.run(&["get", "widget", "w", "-o", "jsonpath={.spec.size}"]), "4");
        k.run(&["scale", "widget", "w", "--replicas=7"]);
        k.run(&[
            "patch",
            "widget",
            "w",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"x":1}}"#,
        ]);
        assert_eq!(k.run(&["get", "widget", "w", "-o", "jsonpath={.spec.replicas}{.status.x}"]), "71");
        assert!(k.run(&["explain", "widget.spec"]).contains("How big it is."));
        assert!(
            k.fails(&["apply", "-f", "-"], &widget.replace("size: 3", "size: 0")).1.contains("spec.size")
        );
        assert!(
            k.fails(&["apply", "-f", "-"], &widget.replace("size: 3", "size: 3, hue: 1"))
                .1
                .contains("unknown field \"spec.hue\"")
        );
        k.run(&["delete", "crd", "widgets.example.com", "--timeout=30s"]);
        k.fails(&["get", "widgets"], "");
    });
}

#[test]
fn processes() {
    with_cluster(|k| {
        k.run(&["run", "p", "--image=i:1"]);
        k.run(&["wait", "--for=condition=Ready", "pod/p", "--timeout=30s"]);
        assert_eq!(k.run(&["exec", "p", "--", "sh", "-c", "echo $POD_NAME"]), "p\n");
        assert_eq!(k.run_with(&["exec", "-i", "p", "--", "cat"], "in and out"), "in and out");
        let (code, said) = k.fails(&["exec", "p", "--", "sh", "-c", "echo bad >&2; exit 3"], "");
        assert_eq!(code, 3);
        assert!(said.starts_with("bad\n"), "{said}");
        assert!(k.fails(&["exec", "p", "-c", "nope", "--", "true"], "").1.contains("container nope"));

        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let content = "some text\n".repeat(50_000);
        std::fs::write(path("a"), &content).unwrap();
        k.run(&["cp", &path("a"), &format!("p:{}", path("b"))]);
        k.run(&["cp", &format!("p:{}", path("b")), &path("c")]);
        assert_eq!(std::fs::read_to_string(path("c")).unwrap(), content);

        assert_eq!(k.run(&["logs", "p", "--tail=1"]), "line 3\n");
        assert_eq!(k.run(&["logs", "-f", "p"]).lines().count(), 6);
        assert!(
            k.run(&["logs", "p", "--timestamps", "--limit-bytes=40"])
                .starts_with("2026-01-01T00:00:00.000000000Z line 1\n")
        );
        assert!(k.fails(&["logs", "-p", "p"], "").1.contains("previous terminated container"));
    });
}

#[test]
fn forwarding() {
    with_cluster(|k| {
        k.run(&["run", "p", "--image=i:1"]);
        k.run(&["wait", "--for=condition=Ready", "pod/p", "--timeout=30s"]);
        let mut forward = k.start(&["port-forward", "pod/p", ":80"]);
        let mut lines = BufReader::new(forward.0.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let port: u16 = first.split(" -> ").next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        // Several connections at once, and more bytes than any buffer on the way holds.
        let mut connections: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        for (i, connection) in connections.iter_mut().enumerate() {
            connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let sent = format!("{i}abc").repeat(100_000);
            let mut writer = connection.try_clone().unwrap();
            let text = sent.clone();
            #[expect(
                clippy::disallowed_methods,
                reason = "kubectl is a process, and may answer before it has read all"
            )]
            let writing = std::thread::spawn(move || writer.write_all(text.as_bytes()).unwrap());
            let mut got = vec![0; sent.len()];
            connection.read_exact(&mut got).unwrap();
            writing.join().unwrap();
            assert_eq!(got, sent.to_uppercase().into_bytes());
        }
    });
}

#[test]
fn watching() {
    with_cluster(|k| {
        let mut watch = k.start(&["get", "pods", "-w"]);
        let mut lines = BufReader::new(watch.0.stdout.take().unwrap()).lines();
        k.run(&["run", "p", "--image=i:1"]);
        k.run(&["wait", "--for=condition=Ready", "pod/p", "--timeout=30s"]);
        k.run(&["delete", "pod", "p", "--timeout=30s"]);
        let mut seen = Vec::new();
        while !seen.iter().any(|l: &String| l.contains("Terminating")) {
            seen.push(lines.next().expect("the watch goes on").unwrap());
        }
        assert_row(&seen[0], &["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
        assert_eq!(seen.iter().filter(|l| l.starts_with("NAME")).count(), 1);
        assert_row(&seen.join("\n"), &["p", "1/1", "Running"]);
    });
}
