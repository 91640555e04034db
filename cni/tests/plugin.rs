//! The real binary against an agent that says what each test tells it to: what runtimes rely on, for every command and every kind of bad
//! input. Only what needs a network namespace of its own needs root.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a panic with its place")]

#[path = "plugin/harness.rs"]
mod harness;

use std::time::{Duration, Instant};

use agent_api::cni::delete_queue::{DeleteQueue, dir_for_socket};
use agent_api::cni::{
    Attachment, CniError, CniResult, ErrorCode, MAX_MESSAGE_BYTES, Operation, PROTOCOL_VERSION, Reply,
};
use harness::{Call, FakeAgent, Outcome, Scratch, with_netns};
use serde_json::{Value, json};

fn result() -> CniResult {
    serde_json::from_value(json!({
        "interfaces": [{"name": "lxc1", "mac": "02:00:00:00:00:01", "mtu": 1450}, {"name": "eth0", "sandbox": "/n", "mtu": 1450}],
        "ips": [{"address": "10.0.0.7/32", "gateway": "10.0.0.1", "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1450}],
    }))
    .unwrap()
}

fn attachment() -> Attachment {
    Attachment { container_id: "c1".into(), ifname: "eth0".into() }
}

#[test]
fn version_repeats_the_question_and_lists_what_is_supported() {
    let all = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    for (input, version) in [
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        (r#"{"cniVersion":"9.0.0"}"#, "9.0.0"),
        ("", "1.1.0"),
        ("{", "1.1.0"),
    ] {
        let outcome = Call::new("VERSION").stdin(input).run();
        assert_eq!(outcome.ok(), json!({"cniVersion": version, "supportedVersions": all}), "{input}");
    }
}

#[test]
fn people_get_an_answer() {
    let outcome = Call::bare().run();
    assert!(outcome.code == 0 && outcome.stdout.is_empty(), "{outcome:?}");
    assert!(outcome.stderr.contains("0.1.0, 0.2.0") && outcome.stderr.contains("bristle-cni"), "{outcome:?}");
    let outcome = Call::bare().argument("--version").run();
    assert_eq!(outcome.stdout.trim(), format!("bristle-cni {}", env!("CARGO_PKG_VERSION")));
    let outcome = Call::bare().argument("--help").run();
    assert!(
        outcome.code == 0
            && outcome.stdout.contains("agent-socket")
            && outcome.stdout.contains("CNI_COMMAND"),
        "{outcome:?}"
    );
    let outcome = Call::bare().argument("--nonsense").run();
    assert!(outcome.code == 2 && outcome.stderr.contains("--nonsense"), "{outcome:?}");
}

/// Everything that is refused before the agent hears of it. The agent's socket does not exist, so a request would be another error.
#[test]
fn bad_input_has_a_code_and_a_message() {
    let config = |extra: Value| {
        let mut config = json!({"cniVersion": "1.1.0", "name": "bristle", "type": "bristle-cni", "agent-socket": "/nowhere/cni.sock"});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config.to_string()
    };
    let good = config(json!({}));
    let add = || Call::new("ADD").attachment().netns("/proc/self/status").stdin(&good);
    let cases: Vec<(Call, u32, &str)> = vec![
        (Call::new("REMOVE").stdin(&good), 4, "CNI_COMMAND \"REMOVE\""),
        (Call::new("ADD").stdin(&good), 4, "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
        (Call::new("DEL").stdin(&good), 4, "CNI_CONTAINERID, CNI_IFNAME"),
        (Call::new("CHECK").stdin(&good), 4, "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
        (add().env("CNI_IFNAME", "a/b"), 4, "CNI_IFNAME \"a/b\""),
        (add().env("CNI_CONTAINERID", "../x"), 4, "CNI_CONTAINERID \"../x\""),
        (add().env("CNI_ARGS", "IP=10.0.0.9"), 4, "unknown keys: IP"),
        (add().stdin(""), 6, "standard input is empty"),
        (add().stdin(" \n"), 6, "standard input is empty"),
        (add().stdin("{\"name\":"), 6, "not a JSON object"),
        (add().stdin("[]"), 6, "not a JSON object"),
        (add().stdin(&config(json!({"cniVersion": 1}))), 6, "cniVersion must be a string"),
        (add().stdin(&config(json!({"cniVersion": "1.2.0"}))), 1, "cniVersion \"1.2.0\" is not supported"),
        (add().stdin(&config(json!({"name": ""}))), 7, "name \"\""),
        (add().stdin(&config(json!({"name": "a b"}))), 7, "name \"a b\""),
        (add().stdin(r#"{"cniVersion":"1.1.0"}"#), 7, "has no name"),
        (
            add().stdin(&config(json!({"ipam": {"type": "host-local"}}))),
            2,
            r#"ipam is not supported (value {"type":"host-local"})"#,
        ),
        (add().stdin(&config(json!({"prevResult": {"ips": []}}))), 7, "must be the first plugin"),
        (add(), 8, "is not a network namespace"),
        (add().netns("/nowhere"), 8, "CNI_NETNS \"/nowhere\" cannot be opened"),
        (add().netns("/proc/self/ns/net"), 8, "is the namespace of the node itself"),
        (Call::new("CHECK").attachment().netns("/nowhere").stdin(&good), 7, "CHECK needs prevResult"),
        (
            Call::new("CHECK").attachment().netns("/nowhere").stdin(&config(json!({"cniVersion": "0.3.1"}))),
            1,
            "CHECK came with CNI 0.4.0",
        ),
        (
            Call::new("CHECK")
                .attachment()
                .netns("/nowhere")
                .stdin(&config(json!({"prevResult": {"ips": 1}}))),
            6,
            "prevResult is not a CNI result",
        ),
        (
            Call::new("CHECK").attachment().netns("/nowhere").stdin(&config(json!({"prevResult": {}}))),
            8,
            "cannot be opened",
        ),
        (Call::new("GC").stdin(&config(json!({"cniVersion": "1.0.0"}))), 1, "GC came with CNI 1.1.0"),
        (Call::new("GC").stdin(&good), 7, "cni.dev/valid-attachments"),
        (
            Call::new("GC").stdin(&config(json!({"cni.dev/valid-attachments": [{"ifname": "x"}]}))),
            6,
            "not a list of attachments",
        ),
        (Call::new("STATUS").stdin(&config(json!({"cniVersion": "1.0.0"}))), 1, "STATUS came with CNI 1.1.0"),
        (Call::new("STATUS").stdin(&config(json!({"agent-socket": "relative"}))), 7, "agent-socket"),
        (Call::new("STATUS").stdin(&config(json!({"agent-timeout-seconds": 0}))), 7, "agent-timeout-seconds"),
    ];
    for (call, code, part) in cases {
        let command = format!("{call:?}");
        let error = call.run().error();
        assert_eq!(error["code"], code, "{command}: {error}");
        assert!(error["msg"].as_str().unwrap().contains(part), "{command}: {error} should contain {part:?}");
        assert!(error["cniVersion"].is_string(), "{command}: {error}");
    }
}

#[test]
fn without_an_agent_each_command_has_its_own_outcome() {
    let scratch = Scratch::new();
    let config = scratch.config("1.1.0", json!({"prevResult": {}, "cni.dev/valid-attachments": null}));
    for (command, code) in [("STATUS", 50), ("GC", 11)] {
        let error = Call::new(command).stdin(&config).run().error();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["msg"].as_str().unwrap().contains("start bristle-agent"), "{error}");
    }
    // A socket file on which nobody listens any more is the same as none.
    drop(FakeAgent::start(&scratch, |_| Some(Reply::Done)));
    assert!(scratch.socket().exists());
    assert_eq!(Call::new("STATUS").stdin(&config).run().error()["code"], 50);

    with_netns("add and check without an agent", |netns| {
        for command in ["ADD", "CHECK"] {
            let config =
                scratch.config("1.1.0", if command == "ADD" { json!({}) } else { json!({"prevResult": {}}) });
            let error = Call::new(command).attachment().netns(netns).stdin(&config).run().error();
            assert_eq!(error["code"], 11, "{error}");
            assert!(error["msg"].as_str().unwrap().contains("start bristle-agent"), "{error}");
        }
    });
}

#[test]
fn del_without_an_agent_is_kept_for_the_next_one() {
    let scratch = Scratch::new();
    let config = scratch.config("1.0.0", json!({"prevResult": result()}));
    for netns in ["/nowhere", "", "/nowhere"] {
        Call::new("DEL").attachment().netns(netns).stdin(&config).run().silent();
    }
    Call::new("DEL").attachment().env("CNI_CONTAINERID", "c2").stdin(&config).run().silent();
    let queue = DeleteQueue::lock(&dir_for_socket(&scratch.socket())).unwrap();
    let entries = queue.entries().unwrap();
    assert_eq!(entries.len(), 2, "{entries:?}");
    let kept = entries[0].content.as_ref().unwrap();
    assert_eq!(kept.attachment(), Some(&attachment()));
    assert_eq!((kept.request.network.as_str(), kept.request.protocol), ("bristle", PROTOCOL_VERSION));
    let Operation::Del { netns, prev_result, .. } = &kept.request.operation else { panic!("{kept:?}") };
    assert_eq!((netns.as_deref(), prev_result), (Some("/nowhere"), &Some(result())));
}

#[test]
fn del_goes_to_an_agent_that_starts_while_the_queue_is_locked() {
    let scratch = Scratch::new();
    let config = scratch.config("1.1.0", json!({}));
    let queue = DeleteQueue::lock(&dir_for_socket(&scratch.socket())).unwrap();
    let waiting = Call::new("DEL").attachment().stdin(&config).spawn();
    // The plugin has failed to connect and waits for the lock by now, or it will find the agent at once; both must end well.
    std::thread::sleep(Duration::from_millis(100));
    let agent = FakeAgent::start(&scratch, |_| Some(Reply::Done));
    assert!(queue.entries().unwrap().is_empty());
    drop(queue);
    waiting.wait().silent();
    assert_eq!(agent.requests().len(), 1);
}

#[test]
fn del_that_cannot_be_kept_says_so() {
    let scratch = Scratch::new();
    std::fs::write(dir_for_socket(&scratch.socket()), "a file where the directory should be").unwrap();
    let error = Call::new("DEL").attachment().stdin(&scratch.config("1.1.0", json!({}))).run().error();
    assert_eq!(error["code"], 5, "{error}");
}

#[test]
fn del_is_repeated_when_the_agent_ends_in_the_middle() {
    let scratch = Scratch::new();
    let mut calls = 0;
    let agent = FakeAgent::start(&scratch, move |_| {
        calls += 1;
        (calls > 2).then_some(Reply::Done)
    });
    Call::new("DEL").attachment().stdin(&scratch.config("1.1.0", json!({}))).run().silent();
    assert_eq!(agent.requests().len(), 3);
}

#[test]
fn del_passes_on_what_the_agent_says() {
    let scratch = Scratch::new();
    let _agent = FakeAgent::start(&scratch, |_| {
        Some(CniError::new(ErrorCode::IO_FAILURE, "delete link lxc1").with_details("why").into())
    });
    let error = Call::new("DEL").attachment().stdin(&scratch.config("0.4.0", json!({}))).run().error();
    assert_eq!(error, json!({"cniVersion": "0.4.0", "code": 5, "msg": "delete link lxc1", "details": "why"}));
}

#[test]
fn an_agent_that_does_not_answer_does_not_hang_the_runtime() {
    let scratch = Scratch::new();
    let _agent = FakeAgent::start(&scratch, |_| {
        std::thread::sleep(Duration::from_secs(3));
        Some(Reply::Done)
    });
    let start = Instant::now();
    let config = scratch.config("1.1.0", json!({"agent-timeout-seconds": 1}));
    let error = Call::new("DEL").attachment().stdin(&config).run().error();
    assert_eq!(error["code"], 11, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("within 1 s"), "{error}");
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    // The request was received, so it is not queued as well: replayed later it could meet a new ADD of the same container.
    assert!(DeleteQueue::lock(&dir_for_socket(&scratch.socket())).unwrap().entries().unwrap().is_empty());
}

#[test]
fn an_answer_that_cannot_be_understood_is_reported() {
    let scratch = Scratch::new();
    let _agent = FakeAgent::start_raw(&scratch, |_| Some(b"{\"reply\":\"later\"}".to_vec()));
    let error = Call::new("GC")
        .stdin(&scratch.config("1.1.0", json!({"cni.dev/valid-attachments": []})))
        .run()
        .error();
    assert_eq!(error["code"], 11, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("same version"), "{error}");
}

#[test]
fn gc_passes_the_list_in_both_spellings() {
    let scratch = Scratch::new();
    let agent = FakeAgent::start(&scratch, |_| Some(Reply::Done));
    let list = json!([{"containerID": "c1", "ifname": "eth0"}]);
    let key = "cni.dev/valid-attachments";
    for (extra, expected) in [
        (json!({"cni.dev/valid-attachments": list}), vec![attachment()]),
        (json!({"cni.dev/attachments": list}), vec![attachment()]),
        (json!({"cni.dev/valid-attachments": null}), vec![]),
    ] {
        Call::new("GC").stdin(&scratch.config("1.1.0", extra)).run().silent();
        let request = agent.requests().pop().unwrap().0;
        assert_eq!(request.operation, Operation::Gc { valid_attachments: expected });
        assert!(request.config.get(key).is_none(), "sent once, not twice");
    }
}

#[test]
fn gc_of_a_full_node_fits_into_a_message() {
    let scratch = Scratch::new();
    let agent = FakeAgent::start(&scratch, |_| Some(Reply::Done));
    let list = |count: usize| -> Value {
        (0..count)
            .map(|index| json!({"containerID": format!("{index:064x}"), "ifname": "eth0"}))
            .collect::<Vec<_>>()
            .into()
    };
    Call::new("GC")
        .stdin(&scratch.config("1.1.0", json!({"cni.dev/valid-attachments": list(1000)})))
        .run()
        .silent();
    let Operation::Gc { valid_attachments } = agent.requests().pop().unwrap().0.operation else { panic!() };
    assert_eq!(valid_attachments.len(), 1000);
    let error = Call::new("GC")
        .stdin(&scratch.config("1.1.0", json!({"cni.dev/valid-attachments": list(4000)})))
        .run()
        .error();
    assert!(error["msg"].as_str().unwrap().contains(&MAX_MESSAGE_BYTES.to_string()), "{error}");
}

#[test]
fn status_passes_on_what_the_agent_says() {
    let scratch = Scratch::new();
    let config = scratch.config("1.1.0", json!({}));
    {
        let agent = FakeAgent::start(&scratch, |_| Some(Reply::Done));
        Call::new("STATUS").stdin(&config).run().silent();
        assert!(agent.requests()[0].1.is_none(), "no descriptor");
    }
    let _agent = FakeAgent::start(&scratch, |_| {
        Some(CniError::new(ErrorCode::UNAVAILABLE_LIMITED, "no pod CIDR yet").into())
    });
    assert_eq!(Call::new("STATUS").stdin(&config).run().error()["code"], 51);
}

#[test]
fn add_hands_over_the_namespace_and_answers_in_every_version() {
    with_netns("add_hands_over_the_namespace_and_answers_in_every_version", |netns| {
        let scratch = Scratch::new();
        let agent = FakeAgent::start(&scratch, |_| Some(Reply::Added { result: result() }));
        for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let args = "IgnoreUnknown=1;K8S_POD_UID=u;K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;K8S_POD_INFRA_CONTAINER_ID=c1";
            let config = scratch.config(version, json!({"runtimeConfig": {"dns": {}}}));
            let answer =
                Call::new("ADD").attachment().netns(netns).env("CNI_ARGS", args).stdin(&config).run().ok();
            assert_eq!(answer["cniVersion"], version);
            let address = if version < "0.3" { &answer["ip4"]["ip"] } else { &answer["ips"][0]["address"] };
            assert_eq!(address, "10.0.0.7/32", "{answer}");
            assert_eq!(answer["interfaces"][0].get("mtu").is_some(), version == "1.1.0");
            assert_eq!(
                answer["ips"][0].get("version").is_some(),
                ("0.3".."1").contains(&version),
                "{answer}"
            );

            let (request, descriptor) = agent.requests().pop().unwrap();
            assert_eq!(request.operation, Operation::Add { attachment: attachment(), netns: netns.into() });
            assert_eq!(descriptor.unwrap(), harness::inode(netns), "the descriptor is the pod's namespace");
            let pod = request.pod().unwrap();
            assert_eq!(
                (pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_deref()),
                ("shop", "web", Some("u"))
            );
            assert_eq!((request.cni_version.as_str(), request.network.as_str()), (version, "bristle"));
            assert_eq!(request.config["runtimeConfig"], json!({"dns": {}}), "keys are passed through");
        }
    });
}

#[test]
fn add_and_check_pass_on_errors() {
    with_netns("add_and_check_pass_on_errors", |netns| {
        let scratch = Scratch::new();
        let _agent = FakeAgent::start(&scratch, |request| {
            Some(match &request.operation {
                Operation::Add { .. } => {
                    CniError::new(ErrorCode::TRY_AGAIN, "no free address in 10.0.0.0/24").into()
                }
                Operation::Check { prev_result, .. } if *prev_result == result() => Reply::Done,
                Operation::Check { .. } => CniError::new(ErrorCode::CHECK_FAILED, "route is missing").into(),
                other => panic!("{other:?}"),
            })
        });
        let call = |command: &str, extra: Value| {
            Call::new(command).attachment().netns(netns).stdin(&scratch.config("1.1.0", extra)).run()
        };
        assert_eq!(
            call("ADD", json!({})).error(),
            json!({"cniVersion": "1.1.0", "code": 11, "msg": "no free address in 10.0.0.0/24"})
        );
        call("CHECK", json!({"prevResult": result()})).silent();
        assert_eq!(call("CHECK", json!({"prevResult": {}})).error()["code"], 101);
    });
}

#[test]
fn del_works_with_and_without_a_namespace() {
    let scratch = Scratch::new();
    let agent = FakeAgent::start(&scratch, |_| Some(Reply::Done));
    // What containerd 2.1 sends when it repeats a DEL, a path that is gone, and things that are no namespace.
    for netns in ["", "/nowhere", "/proc/self/status", "/proc/self/ns/net"] {
        let call = Call::new("DEL").attachment().netns(netns).env("CNI_ARGS", "nonsense");
        call.stdin(&scratch.config("1.1.0", json!({"prevResult": "nonsense"}))).run().silent();
        let (request, descriptor) = agent.requests().pop().unwrap();
        assert!(descriptor.is_none(), "{netns}");
        let expected = (!netns.is_empty()).then(|| netns.to_owned());
        assert_eq!(
            request.operation,
            Operation::Del { attachment: attachment(), netns: expected, prev_result: None }
        );
    }
    with_netns("del with a namespace", |netns| {
        Call::new("DEL")
            .attachment()
            .netns(netns)
            .stdin(&scratch.config("0.3.1", json!({"prevResult": result()})))
            .run()
            .silent();
        let (request, descriptor) = agent.requests().pop().unwrap();
        assert_eq!(descriptor.unwrap(), harness::inode(netns));
        let Operation::Del { prev_result, .. } = request.operation else { panic!() };
        assert_eq!(prev_result, Some(result()));
    });
}

#[test]
fn nobody_reading_the_result_is_a_failure() {
    let outcome: Outcome = Call::new("VERSION").stdin("{}").stdout_closed().run();
    assert_ne!(outcome.code, 0);
}
