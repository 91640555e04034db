//! What is wrong with a file is said with line, column, what was found and what was expected.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

use sim_scenario::{Known, Scenario};

const HEAD: &str = "bristle: scenario/v1\nname: t\n";

/// The errors of a text, one a line.
fn errors(text: &str) -> String {
    Scenario::parse_valid(text, "t.yaml", &Known::default()).unwrap_err().to_string()
}

/// The errors of steps that begin at line 6, after pods `a` and `b` at lines 4 and 5.
fn step_errors(steps: &str) -> String {
    let pods = "- pod: {name: a, node: node-1}\n- pod: {name: b, serve: [\"http:80\", \"udp:53\"]}\n";
    errors(&format!("{HEAD}steps:\n{pods}{steps}\n"))
}

#[track_caller]
fn table(rows: &[(&str, &str)], errors: impl Fn(&str) -> String) {
    for (input, expected) in rows {
        assert_eq!(errors(input), *expected, "of: {input}");
    }
}

#[test]
fn of_the_whole_file() {
    table(
        &[
            ("", "t.yaml:1:1: found no mapping, expected one that begins with `bristle: scenario/v1`"),
            (
                "name: t\nsteps: []\n",
                "t.yaml:1:1: the field `bristle` is missing: write `bristle: scenario/v1`",
            ),
            (
                "name: t\nbristle: scenario/v2\nnew: 1\n",
                "t.yaml:2:10: found format `scenario/v2`, this reads `scenario/v1` alone",
            ),
            ("bristle: scenario/v1\nname: t\n", "t.yaml:1:1: the field `steps` is missing"),
            (
                "bristle: scenario/v1\nname: [\n",
                "t.yaml:3:1: did not find expected node content, while parsing a flow node",
            ),
            (
                "bristle: scenario/v1\nnames: t\nsteps: []\n",
                "t.yaml:2:1: `names` is no field here; the fields are `bristle`, `name`, `description`, `cluster`, `steps`; did you mean `name`?",
            ),
            (
                "bristle: scenario/v1\nname: 7\nsteps: []\n",
                "t.yaml:2:7: found the number 7, expected text; put it in quotes",
            ),
            (
                "bristle: scenario/v1\nname: T 1\nsteps: []\n",
                "t.yaml:2:7: `T 1` is no name: write lower case letters, digits and `-`",
            ),
        ],
        errors,
    );
}

#[test]
fn of_the_cluster() {
    table(
        &[
            ("nodes: 0", "t.yaml:4:10: a cluster has at least 1 node"),
            ("nodes: -1", "t.yaml:4:10: found the number -1, expected a whole number from 0 to 65535"),
            ("nodes: many", "t.yaml:4:10: found `many`, expected a whole number from 0 to 65535"),
            ("nodes: 300\n  pod-cidr-bits: 16", "t.yaml:4:10: 300 pod CIDRs of /16 do not fit into a /8"),
            ("mtu: 1279", "t.yaml:4:8: 1279 is no possible MTU: 1280 to 9000"),
            ("pod-cidr-bits: 31", "t.yaml:4:18: 31 is no possible prefix length of a pod CIDR: 16 to 30"),
            ("family: v5", "t.yaml:4:11: found `v5`, expected one of `v4`, `v6`, `dual`; did you mean `v4`?"),
            ("routing: geneve", "t.yaml:4:12: found `geneve`, expected one of `vxlan`, `native`"),
            (
                "tables: {CT5: 8}",
                "t.yaml:4:17: `CT5` is no table; there are CONFIG, ENDPOINTS, IPCACHE, POLICY, POLICY_BLOCKS, POLICY_L4, STAGED, CT4, CT6, FRAGS4, FRAGS6, NAT4, NAT6, NO_MASQUERADE, SERVICES, BACKENDS, AFFINITY, SOCK_REVNAT, METRICS, EVENTS, CLOCK; did you mean `CT4`?",
            ),
            ("tables: {CT4: 0}", "t.yaml:4:17: a table has at least 1 row"),
        ],
        |cluster| errors(&format!("{HEAD}cluster:\n  {cluster}\nsteps: []\n")),
    );
}

#[test]
fn of_the_form_of_a_step() {
    let kinds = "`link`, `partition`, `kill`, `stall`, `skew`, `api`, `cni`, `table-full`, `ring-full`, `failures`, `heal`";
    let actions = "`pod`, `delete-pod`, `apply`, `delete`, `wait`, `traffic`, `fault`, `request`, `expect`";
    let rows: &[(&str, &str)] = &[
        ("- 5", "t.yaml:6:3: found the number 5, expected a mapping; its fields are `at`, ACTIONS"),
        ("- at: 1s", "t.yaml:6:3: the step does nothing: give it one of ACTIONS"),
        (
            "- wait: rest\n  expect: no-drops",
            "t.yaml:6:3: `wait` and `expect` stand side by side: one of them alone",
        ),
        (
            "- wiat: rest",
            "t.yaml:6:3: `wiat` is no field here; the fields are `at`, ACTIONS; did you mean `wait`?",
        ),
        (
            "- at: 5\n  wait: rest",
            "t.yaml:6:7: found the number 5, expected a time such as 250us, 150ms, 2s, 5m or 1h",
        ),
        ("- at: 5 s\n  wait: rest", "t.yaml:6:7: `5 s` is no time: write 250us, 150ms, 2s, 5m or 1h"),
        ("- wait: soon", "t.yaml:6:9: `soon` is nothing to wait for: write ready, rest or a time such as 2s"),
        ("- wait:\n    for: traffic", "t.yaml:7:10: `traffic` needs a value: write `traffic: …`"),
        ("- wait:\n    for: {ready: 1}", "t.yaml:7:10: `ready` takes no value"),
        (
            "- wait:\n    for: {time: 1s, ready: }",
            "t.yaml:7:10: found a mapping of 2 fields, expected one alone of `ready`, `rest`, `traffic`, `time`",
        ),
        (
            "- pod: {name: c, serve: [http]}",
            "t.yaml:6:26: `http` is no server: write http:PORT, tcp:PORT or udp:PORT",
        ),
        (
            "- pod: {name: c, nodes: node-1}",
            "t.yaml:6:18: `nodes` is no field here; the fields are `name`, `namespace`, `node`, `labels`, `serve`, `ports`, `host-network`, `ready`, `linger`; did you mean `node`?",
        ),
        (
            "- traffic: {id: t, from: pod/a, to: pods/b, kind: ping}",
            "t.yaml:6:37: `pods/b` is no place: write pod/NAME, pod/NAMESPACE/NAME, node/NAME, service/NAME, node-port/NODE, world/first, world/second or an IP address",
        ),
        (
            "- traffic: {id: t, from: pod/a, to: pod/b, kind: pong}",
            "t.yaml:6:50: found `pong`, expected one of `ping`, `http`, `tcp`, `udp`; did you mean `ping`?",
        ),
        ("- traffic: {id: t, from: pod/a, kind: ping}", "t.yaml:6:12: the field `to` is missing"),
        (
            "- traffic: {id: t, from: pod/a, to: pod/b, kind: ping, background: maybe}",
            "t.yaml:6:68: found `maybe`, expected true or false",
        ),
        ("- fault: explode", "t.yaml:6:10: found `explode`, expected one of KINDS"),
        ("- fault: kill", "t.yaml:6:10: `kill` needs a value: write `kill: …`"),
        ("- fault: {node: node-1}", "t.yaml:6:10: the fault breaks nothing: give it one of KINDS"),
        (
            "- fault: {stall: , heal: }",
            "t.yaml:6:10: `stall` and `heal` stand side by side: one of them alone",
        ),
        (
            "- fault: {link: {los: 0.5}}",
            "t.yaml:6:18: `los` is no field here; the fields are `loss`, `duplicate`, `reorder`, `corrupt`, `delay`, `jitter`, `mtu`; did you mean `loss`?",
        ),
        ("- fault: {link: {loss: much}}", "t.yaml:6:24: found `much`, expected a number"),
        (
            "- fault: {api: {slow: 3}}",
            "t.yaml:6:23: found the number 3, expected a time such as 250us, 150ms, 2s, 5m or 1h",
        ),
        (
            "- fault: {api: {shy: 3}}",
            "t.yaml:6:17: found `shy`, expected one of `cut`, `down`, `slow`, `coalesce`, `duplicate`, `stale`, `partial-list`, `error`, `reorder`",
        ),
        (
            "- fault: {table-full: {table: CT4, row: 1}}",
            "t.yaml:6:36: `row` is no field here; the fields are `table`, `rows`; did you mean `rows`?",
        ),
        (
            "- expect: {lost: {traffic: t, at_most: 1}}",
            "t.yaml:6:31: `at_most` is no field here; the fields are `traffic`, `at-most`; did you mean `at-most`?",
        ),
        (
            "- expect: !drops 1",
            "t.yaml:6:11: found a YAML tag, expected one of `pods-ready`, `allocated`, `no-drops`, `drops`, `lost`, `not-ready`",
        ),
        (
            "- delete: {kind: Service, name: s, nampespace: x}",
            "t.yaml:6:36: `nampespace` is no field here; the fields are `apiVersion`, `kind`, `name`, `namespace`; did you mean `namespace`?",
        ),
    ];
    for (input, expected) in rows {
        let expected = expected.replace("KINDS", kinds).replace("ACTIONS", actions);
        assert_eq!(step_errors(input), expected, "of: {input}");
    }
}

#[test]
fn of_what_does_not_exist() {
    table(
        &[
            (
                "- pod: {name: c, node: node-4}",
                "t.yaml:6:24: there is no node `node-4`: they are node-1 to node-3",
            ),
            (
                "- pod: {name: c, node: node-01}",
                "t.yaml:6:24: there is no node `node-01`: they are node-1 to node-3",
            ),
            (
                "- pod: {name: C}",
                "t.yaml:6:15: `C` is no name: up to 63 lower case letters, digits and `-`, no `-` at an end",
            ),
            ("- pod: {name: a}", "t.yaml:6:15: pod `a` is there already"),
            (
                "- delete-pod: a\n- pod: {name: a}",
                "t.yaml:7:15: pod `a` may be there still: wait for `ready` or `rest` after its deletion",
            ),
            ("- delete-pod: c", "t.yaml:6:15: there is no pod `c` at this step; did you mean `a`?"),
            ("- delete-pod: web/a", "t.yaml:6:15: there is no pod `web/a` at this step"),
            (
                "- delete-pod: a\n- wait: rest\n- delete-pod: a",
                "t.yaml:8:15: pod `a` has been deleted before this step",
            ),
            (
                "- pod: {name: c, serve: [\"http:80\", \"tcp:80\"]}",
                "t.yaml:6:25: `tcp:80` and `http:80` want the same port",
            ),
            (
                "- traffic: {id: t, from: pod/x, to: pod/b, kind: ping}",
                "t.yaml:6:26: there is no pod `x` at this step; did you mean `a`?",
            ),
            (
                "- traffic: {id: t, from: world/first, to: pod/b, kind: ping}",
                "t.yaml:6:26: `world/first` cannot send: only pods and nodes can",
            ),
            (
                "- traffic: {id: t, from: node/node-9, to: pod/b, kind: ping}",
                "t.yaml:6:26: there is no node `node-9`: they are node-1 to node-3",
            ),
            (
                "- traffic: {id: t, from: pod/a, to: service/web, kind: http, port: 80}",
                "t.yaml:6:37: there is no service `default/web` at this step",
            ),
            (
                "- wait: {for: {traffic: t}}",
                "t.yaml:6:15: no traffic with the id `t` has begun before this step",
            ),
            (
                "- traffic: {id: one, from: pod/a, to: pod/b, kind: ping}\n- expect: {lost: {traffic: onw, at-most: 1}}",
                "t.yaml:7:28: no traffic with the id `onw` has begun before this step; did you mean `one`?",
            ),
            ("- expect: {not-ready: c}", "t.yaml:6:23: there is no pod `c` at this step; did you mean `a`?"),
            (
                "- expect: {drops: {reason: INVALID_SOURCE_IPS, at-least: 1}}",
                "t.yaml:6:28: `INVALID_SOURCE_IPS` is no drop reason; did you mean `INVALID_SOURCE_IP`?",
            ),
            ("- expect: {pods-ready: 3}", "t.yaml:6:24: 3 pods cannot be ready: there are 2"),
            ("- apply: [{kind: Service, apiVersion: v1}]", "t.yaml:6:10: the Service has no `metadata.name`"),
            ("- apply: [{metadata: {name: x}}]", "t.yaml:6:10: an object has `apiVersion` and `kind`"),
            (
                "- delete: {kind: Service, name: s}",
                "t.yaml:6:11: there is no Service `default/s` at this step: no step applied it",
            ),
            (
                "- delete: {kind: Namespace, name: default}\n- delete-pod: a",
                "t.yaml:7:15: pod `a` has been deleted before this step",
            ),
            (
                "- fault: {node: node-7, stall: , for: 1s}",
                "t.yaml:6:17: there is no node `node-7`: they are node-1 to node-3",
            ),
            (
                "- fault: {table-full: {table: CT, rows: 1}}",
                "t.yaml:6:31: `CT` is no table; there are CONFIG, ENDPOINTS, IPCACHE, POLICY, POLICY_BLOCKS, POLICY_L4, STAGED, CT4, CT6, FRAGS4, FRAGS6, NAT4, NAT6, NO_MASQUERADE, SERVICES, BACKENDS, AFFINITY, SOCK_REVNAT, METRICS, EVENTS, CLOCK; did you mean `CT4`?",
            ),
        ],
        step_errors,
    );
}

#[test]
fn of_what_makes_no_sense() {
    let ping = |more: &str| format!("- traffic: {{id: t, from: pod/a, to: pod/b, kind: ping{more}}}");
    let http = |more: &str| format!("- traffic: {{id: t, from: pod/a, to: pod/b, kind: http{more}}}");
    table(
        &[
            (&ping(", port: 1"), "t.yaml:6:62: a ping has no port"),
            (&http(""), "t.yaml:6:12: `port` is missing: only a ping has none"),
            (&http(", port: 0"), "t.yaml:6:62: a port is 1 to 65535"),
            (&http(", port: 81"), "t.yaml:6:62: nothing in pod `b` answers: it does not serve `http:81`"),
            (&ping(", answered-by: {each: [b]}"), "t.yaml:6:69: who answers is known of `http` alone"),
            (&ping(", count: 0"), "t.yaml:6:63: a count is at least 1"),
            (&ping(", size: 65001"), "t.yaml:6:62: 65001 bytes are too many: 0 to 65000"),
            (&ping(", timeout: 0s"), "t.yaml:6:65: nothing is answered in no time"),
            (
                "- traffic: {id: t, from: pod/a, to: 10.0.0.1, kind: ping, family: v6}",
                "t.yaml:6:67: 10.0.0.1 is no address of IPv6",
            ),
            (&format!("{}\n{}", ping(""), ping("")), "t.yaml:7:17: the id `t` is used by earlier traffic"),
            (
                "- {at: 2s, wait: ready}\n- {at: 1s, wait: ready}",
                "t.yaml:7:8: 1s is before 2s of an earlier step",
            ),
            (
                "- wait: {for: {time: 1s}, within: 2s}",
                "t.yaml:6:35: `within` makes no sense for a time: it takes as long as it takes",
            ),
            (
                "- expect: {drops: {reason: INVALID_SOURCE_IP, at-least: 0}}",
                "t.yaml:6:57: at least 0 is always so",
            ),
            (
                "- fault: {link: {}}",
                "t.yaml:6:17: the link has no fault: give it loss, duplicate, reorder, corrupt, delay, jitter or mtu",
            ),
            ("- fault: {link: {loss: 1.5}}", "t.yaml:6:24: 1.5 is no probability: 0 to 1"),
            ("- fault: {link: {corrupt: -0.1}}", "t.yaml:6:27: -0.1 is no probability: 0 to 1"),
            ("- fault: {link: {loss: .nan}}", "t.yaml:6:24: NaN is no probability: 0 to 1"),
            ("- fault: {link: {mtu: 67}}", "t.yaml:6:23: 67 is no possible MTU: at least 68"),
            (
                "- fault: {kill: {}, for: 1s}",
                "t.yaml:6:26: `for` makes no sense here: `kill` happens at once",
            ),
            (
                "- fault: {api: cut, for: 1s}",
                "t.yaml:6:26: `for` makes no sense here: `api: cut` happens at once",
            ),
            ("- fault: {partition: , for: 0s}", "t.yaml:6:29: a fault that lasts no time is none"),
            (
                "- fault: stall",
                "t.yaml:6:10: `for` is missing: no later `heal` ends this `stall`, and nothing comes to rest before it ends",
            ),
            (
                "- fault: {node: node-1, api: down}\n- fault: {node: node-2, heal: }",
                "t.yaml:6:10: `for` is missing: no later `heal` ends this `api: down`, and nothing comes to rest before it ends",
            ),
            (
                "- fault: {api: {error: 404}, for: 1s}",
                "t.yaml:6:24: 404 is not among the known: 410, 429, 500, 503",
            ),
            ("- fault: {api: {stale: 0}}", "t.yaml:6:24: behind by 0 changes is not behind"),
            ("- fault: {skew: 0s}", "t.yaml:6:17: a jump of nothing is none"),
        ],
        step_errors,
    );
}

#[test]
fn of_a_family_that_the_cluster_lacks() {
    let text = format!(
        "{HEAD}cluster: {{family: v6}}\nsteps:\n- pod: {{name: a}}\n- traffic:\n    id: t\n    from: pod/a\n    to: 10.1.1.1\n    kind: ping\n- traffic:\n    id: u\n    from: pod/a\n    to: node/node-1\n    kind: ping\n    family: dual\n"
    );
    assert_eq!(
        errors(&text),
        "t.yaml:9:9: 10.1.1.1 is IPv4, the cluster is IPv6 alone\nt.yaml:16:13: the cluster is IPv6 alone"
    );
}

/// A scenario that nobody wrote into a file has steps for places.
#[test]
fn without_a_file_they_name_the_step() {
    let text = format!("{HEAD}steps: [wait: rest, delete-pod: x, fault: {{node: n, heal: }}]");
    let mut scenario = Scenario::parse(&text, "-").unwrap();
    scenario.cluster.mtu = 1;
    assert_eq!(
        scenario.validate(&Known::default()).unwrap_err().to_string(),
        "cluster.mtu: 1 is no possible MTU: 1280 to 9000\nstep 2, delete-pod: there is no pod `x` at this step\n\
         step 3, fault.node: there is no node `n`: they are node-1 to node-3"
    );
}

#[test]
fn of_a_file_that_is_not_there() {
    let missing = tempfile::tempdir().unwrap().path().join("none.yaml");
    let error = Scenario::load(&missing).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", missing.display()));
}

#[test]
fn the_names_are_those_of_the_dataplane() {
    let known = Known::default();
    let reasons: Vec<&str> = dataplane_abi::DropReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(known.drop_reasons, reasons);
    let tables: Vec<&str> = dataplane_abi::table::TABLES.iter().map(|table| table.name).collect();
    assert_eq!(known.tables, tables);
}

#[test]
fn of_kinds_that_the_cluster_does_not_know() {
    let known = Known { kinds: Some(|group, kind| (group, kind) == ("", "Service")), ..Known::default() };
    let of = |step: &str| {
        let text = format!("bristle: scenario/v1\nname: t\ncluster: {{nodes: 1}}\nsteps:\n{step}\n");
        Scenario::parse_valid(&text, "t.yaml", &known).map_err(|error| error.to_string())
    };
    let widget = "{apiVersion: example.org/v1, kind: Widget, metadata: {name: w}}";
    let definition = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: d}, \
        spec: {group: example.org, names: {kind: Widget}}}";
    of("- apply: [{apiVersion: v1, kind: Service, metadata: {name: s}}]").unwrap();
    for step in [
        format!("- apply: [{widget}]"),
        format!("- apply: [{{apiVersion: v1, kind: List, items: [{widget}]}}]"),
    ] {
        assert_eq!(
            of(&step).unwrap_err(),
            "t.yaml:5:10: the cluster knows no kind `Widget` in `example.org/v1`, and no step defines it"
        );
    }
    // The kind of definitions is not known here either.
    assert!(of(&format!("- apply: [{definition}]")).unwrap_err().contains("CustomResourceDefinition"));
    let all = Known { kinds: Some(|group, _| group == "apiextensions.k8s.io"), ..Known::default() };
    let text = format!(
        "bristle: scenario/v1\nname: t\ncluster: {{nodes: 1}}\nsteps:\n- apply: [{definition}, {widget}]\n"
    );
    Scenario::parse_valid(&text, "t.yaml", &all).unwrap();
}
