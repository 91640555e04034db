//! What is told of a packet that breaks an invariant: a row is spoilt behind the agent's back, and the next packet meets it.

use std::net::IpAddr;

use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use sim_scenario::Scenario;
use sim_scenario::validate::Known;

use crate::check::Violation;
use crate::sim::Sim;
use crate::steps::Runner;
use crate::world::World;

const PODS: &str = r#"
bristle: scenario/v1
name: three-pods
cluster: {nodes: 2, family: v4}
steps:
  - pod: {name: client, node: node-1, labels: {app: client}}
  - pod: {name: server, node: node-2, serve: ["tcp:9000"], labels: {app: server}}
  - pod: {name: other, node: node-2}
  - apply:
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: server, namespace: default}
        spec:
          podSelector: {matchLabels: {app: server}}
          ingress:
            - from: [{podSelector: {matchLabels: {app: client}}}]
              ports: [{port: 9000}]
  - wait: rest
"#;

const STREAM: &str = "
  - traffic: {id: stream, from: pod/client, to: pod/server, kind: tcp, port: 9000, count: 3}
  - wait: rest
";

/// A client's stream is led to another pod of the server's node; what is told of it, and the addresses of client and server.
fn misled() -> (Violation, [IpAddr; 2], EndpointEntry) {
    let read = |text: &str| {
        Scenario::parse_valid(text, "here", &Known::default()).unwrap_or_else(|error| panic!("{error}"))
    };
    let (pods, mut stream) = (read(PODS), read(&format!("{}{}", PODS.trim_end(), STREAM)));
    stream.steps.drain(..pods.steps.len());
    let mut world = World::new(&pods.cluster, 5, false);
    world.odd = None;
    world.boot();
    let sim = Sim::new(world);
    let mut runner = Runner::new(&sim);
    runner.run(&pods);
    assert_eq!(runner.failures, [""; 0]);
    let (ends, spoilt) = {
        let mut world = sim.world();
        assert_eq!(world.violation, None);
        let [client, server, other] = ["default/client", "default/server", "default/other"]
            .map(|pod| world.addresses()[pod].first().copied().expect("an address"));
        let rows = &mut world.nodes[1].native.tables_mut().endpoints;
        let row = |pod: IpAddr| *rows.get(&EndpointKey::from_ip(pod)).expect("a row");
        let spoilt = EndpointEntry { ifindex: row(other).ifindex, ..row(server) };
        rows.insert(EndpointKey::from_ip(server), spoilt);
        ([client, server], spoilt)
    };
    Runner::new(&sim).run(&stream);
    let violation = sim.into_world().violation;
    (violation.expect("the checker sees it"), ends, spoilt)
}

#[test]
fn a_packet_that_breaks_an_invariant_is_told_with_its_way_and_the_rows_it_met() {
    let (Violation { invariant, message, details, .. }, [client, server], spoilt) = misled();
    assert_eq!(invariant, "delivery", "{message}");
    let subject = format!(", {client} → {server} protocol 6 ");
    assert!(message.contains(&subject) && message.ends_with("→9000"), "{message}");

    let told = details.join("\n");
    let link = spoilt.ifindex;
    let mut from = 0;
    for wanted in [
        "s node-1     from_container: Tunnel { ifindex: ".to_owned(),
        "s node-1     out onto the wire".to_owned(),
        "s node-2     in from the wire".to_owned(),
        format!("s node-2     from_overlay: Peer {{ ifindex: {link} }}"),
        format!("node-1 IPCACHE   destination {server}: identity {}, behind ", spoilt.identity.0),
        format!("node-1 POLICY egress of {client}: not in force (policy 0)"),
        "node-1 CT4 row of the connection: syn, not answered, made 0.00".to_owned(),
        "node-1 CT4 original: judged at revision ".to_owned(),
        format!("node-2 ENDPOINTS destination {server}: link {link}, endpoint {}, ", spoilt.id),
        format!("node-2 POLICY ingress of {server}: policy {}, row of identity ", spoilt.policy),
        "node-2 POLICY_L4 set ".to_owned(),
        ", protocol 6 port 9000: allow, cookie ".to_owned(),
        "node-2 CT4 row of the connection: syn, not answered, ".to_owned(),
        format!("to a pod of this node (link {link}, endpoint {}), from identity ", spoilt.id),
        "node-2 CT4 reply: judged at revision ".to_owned(),
        format!(", through the tunnel (link 12, endpoint 0), from identity {}, 0 packets", spoilt.identity.0),
        "node-2 CONFIG revision: ".to_owned(),
    ] {
        let at =
            told[from..].find(&wanted).unwrap_or_else(|| panic!("no `{wanted}` in its place in:\n{told}"));
        from += at + wanted.len();
    }
}

#[test]
fn a_packet_that_policy_drops_is_told_with_the_row_that_says_so() {
    let scenario = Scenario::parse_valid(
        &format!(
            "{}{}",
            PODS.trim_end(),
            STREAM.replace("pod/client", "pod/other").replace("count: 3", "expect: fail, timeout: 1s")
        ),
        "here",
        &Known::default(),
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let mut world = World::new(&scenario.cluster, 5, false);
    world.odd = None;
    world.boot();
    let sim = Sim::new(world);
    Runner::new(&sim).run(&scenario);
    let mut world = sim.into_world();
    assert_eq!(world.violation, None);
    let [server, other] = ["default/server", "default/other"]
        .map(|pod| world.addresses()[pod].first().copied().expect("an address"));
    let last = world.last_packet;
    let id = (1..=last).rev().find(|id| {
        let view = world.trace.packet(*id).and_then(|passport| passport.view.as_ref());
        view.is_some_and(|view| (view.src, view.dst, view.proto) == (other, server, 6))
    });
    world.violate_packet("drop", id.expect("its first packet is remembered"), "as if it were wrong");
    let Violation { message, details, .. } = world.violation.take().expect("a violation");
    assert!(message.starts_with("as if it were wrong: packet "), "{message}");
    let told = details.join("\n");
    assert!(told.contains(": drop, Policy denied (133)"), "{told}");
    let wanted = format!("node-2 POLICY ingress of {server}: policy ");
    let line = details.iter().find(|line| line.starts_with(&wanted));
    assert!(line.is_some_and(|line| line.contains("has none): Policy denied, cookie ")), "{told}");
    assert!(told.contains("node-2 CT4 row of the connection: none"), "{told}");
}
