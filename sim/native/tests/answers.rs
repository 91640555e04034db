//! What scenarios ask of answers: who answers, whom they see, that a call is refused, what the API server says. What is not so fails.

use sim_native::Options;
use sim_scenario::Scenario;
use sim_scenario::validate::Known;

const HEAD: &str = r#"
bristle: scenario/v1
name: answers
cluster: {nodes: 2, kube-proxy-replacement: true}
steps:
  - pod: {name: client, node: node-1}
  - pod: {name: a, node: node-1, labels: {app: web}, serve: ["http:8080"]}
  - pod: {name: b, node: node-2, labels: {app: web}, serve: ["http:8080"], linger: 20s}
  - pod: {name: unready, node: node-2, labels: {app: slow}, serve: ["http:8080"], ready: false}
  - apply:
      - {apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}
      - {apiVersion: v1, kind: Service, metadata: {name: slow, namespace: default}, spec: {ipFamilyPolicy: PreferDualStack, selector: {app: slow}, ports: [{port: 80, targetPort: 8080}]}}
  - wait: rest
"#;

/// What failed in a run of these steps after the first ones; each is asked for the words of its failure, none for nothing.
fn check(cases: &[(&str, &str)]) {
    for (steps, words) in cases {
        let text = format!("{HEAD}{steps}  - wait: rest\n  - wait: ready\n");
        let scenario = Scenario::parse_valid(&text, "here", &Known::default());
        let scenario = scenario.unwrap_or_else(|error| panic!("{error}"));
        let report = sim_native::run(&scenario, &Options { seed: 1, ..Options::default() });
        let failures = report.outcome.failures.join("; ");
        assert!(
            if words.is_empty() { failures.is_empty() } else { failures.contains(words) },
            "{steps}: {failures}"
        );
    }
}

fn http(more: &str) -> String {
    format!(
        "  - traffic: {{id: t, from: pod/client, kind: http, port: 80, family: dual, interval: 5ms, {more}}}\n"
    )
}

#[test]
fn who_answers_and_whom_they_see() {
    check(&[
        (&http("count: 30, to: service/web, answered-by: {each: [a, b]}"), ""),
        (&http("count: 30, to: service/web, answered-by: {several: [a, b]}"), ""),
        (
            &http("count: 30, to: service/web, answered-by: {each: [a]}"),
            "each of a shall answer and nobody else",
        ),
        (&http("count: 30, to: service/web, answered-by: {one: [a, b]}"), "one of a, b shall answer all"),
        (&http("to: service/web, seen-as: pod/client"), ""),
        (&http("to: service/web, seen-as: pod/a"), "the caller was seen at"),
    ]);
}

#[test]
fn calls_are_refused_or_not() {
    check(&[
        (&http("to: service/slow, expect: refused"), ""),
        (&http("to: service/web, expect: refused"), "should be refused"),
        (
            &http("to: 203.0.113.77, timeout: 1s, expect: refused").replace("family: dual, ", ""),
            "should be refused",
        ),
    ]);
}

#[test]
fn a_pod_that_lingers_serves_until_it_ends() {
    let ends = "  - delete-pod: a\n  - delete-pod: b\n  - wait: rest\n";
    check(&[
        (&format!("{ends}{}", http("count: 9, to: service/web, answered-by: {each: [b]}")), ""),
        (&format!("{ends}  - wait: ready\n{}", http("to: service/web, expect: refused")), ""),
    ]);
}

#[test]
fn the_api_server_answers_as_it_shall() {
    let request = |more: &str| {
        format!("  - request: {{method: GET, path: /api/v1/namespaces/default/services/{more}}}\n")
    };
    check(&[
        (&request("web, has: {spec: {type: ClusterIP, externalName: null}}"), ""),
        (&request("web, has: {spec: {type: NodePort}}"), ".spec.type is \"ClusterIP\", not \"NodePort\""),
        (&request("none, refused: 404, says: not found"), ""),
        (&request("none"), "was refused with 404"),
        (&request("web, refused: 404"), "shall be refused with 404, it was 200"),
    ]);
}
