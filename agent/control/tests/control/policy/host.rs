//! The node as an endpoint: when its policies are in force, and that they do not cut it off from the API server unasked.

use agent_control::{ALLOW_API_CUT, Severity};
use agent_crd::CiliumClusterwideNetworkPolicy;
use dataplane_abi::config::{ConfigFlags, NodeConfig};

use super::*;

const NODE: &str = "172.30.0.1";
const SERVER: &str = "198.51.100.7";
const PORT: u16 = 6443;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn of_nodes(name: &str, annotations: &serde_json::Value, spec: &serde_json::Value) -> Object {
    let object = json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec});
    Object::CiliumClusterwideNetworkPolicy(CiliumClusterwideNetworkPolicy::from_json(object).unwrap())
}

/// To nodes of the east from pods "b" alone.
fn from_b() -> Object {
    of_nodes(
        "in",
        &json!({}),
        &json!({
            "nodeSelector": {"matchLabels": {"zone": "east"}},
            "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "b"}}]}],
        }),
    )
}

/// From nodes to pods "b" alone, and to some addresses.
fn to_b(annotations: &serde_json::Value, cidrs: &[&str]) -> Object {
    let entry = json!({"toEndpoints": [{"matchLabels": {"app": "b"}}]});
    let mut egress = vec![entry];
    if !cidrs.is_empty() {
        egress.push(
            json!({"toCIDR": cidrs, "toPorts": [{"ports": [{"port": PORT.to_string(), "protocol": "TCP"}]}]}),
        );
    }
    of_nodes("out", annotations, &json!({"nodeSelector": {}, "egress": egress}))
}

fn objects() -> Objects {
    let mut objects = Objects::new();
    let Object::EndpointSlice(slice) = slice("kubernetes", 1, &[SERVER]) else { panic!() };
    objects.set(Object::EndpointSlice(SliceObject { tcp_ports: [PORT].into(), ..slice }));
    objects
}

fn up(host_firewall: bool, objects: &Objects) -> World {
    let mut config = agent_control::Config::new(crate::world::OWN, Routing::Vxlan);
    config.policy = Some(PolicyConfig { host_firewall, ..PolicyConfig::default() });
    let mut world = World::with(config);
    world.nodes();
    world.lists(objects);
    world.settle();
    for name in ["a", "b", "c"] {
        world.add(name).unwrap();
    }
    world
}

impl World {
    fn flags(&self) -> EndpointFlags {
        self.endpoints()[&ip(NODE)].flags - EndpointFlags::HOST
    }

    fn firewall(&self) -> bool {
        let rows = self.maps.rows(Table::Config);
        let row = rows.values().next().unwrap();
        NodeConfig::read_from_bytes(row).unwrap().flags.contains(ConfigFlags::HOST_FIREWALL)
    }

    /// Whether the node may open a connection to the API server, be it that what is denied is only audited.
    fn reaches_server(&self) -> bool {
        let audits = self.flags().intersects(EndpointFlags::AUDIT | EndpointFlags::AUDIT_EGRESS);
        audits || self.judge(Direction::Egress, ip(NODE), ip(SERVER), PORT)
    }

    /// What is said about a policy.
    fn said(&self, name: &str) -> Vec<(Severity, String)> {
        let subject = format!("CiliumClusterwideNetworkPolicy/{name}");
        let findings = self.agent.findings().into_iter().filter(|finding| finding.subject == subject);
        findings.map(|finding| (finding.severity, finding.message)).collect()
    }
}

#[test]
fn policies_for_nodes_are_not_in_force_unless_asked_for() {
    let mut objects = objects();
    let mut world = up(false, objects.set(from_b()));
    assert!(!world.firewall());
    assert_eq!((world.endpoints()[&ip(NODE)].policy, world.flags()), (0, EndpointFlags::empty()));
    let said = world.said("in");
    assert!(said[0].0 == Severity::Error && said[0].1.contains("--host-firewall"), "{said:?}");
    restarts_in_any_order(&mut world, &objects);
}

#[test]
fn policies_that_select_the_node_are_in_force_for_its_addresses() {
    let mut objects = objects();
    let mut world = up(true, &objects);
    assert!(world.firewall(), "the programs follow the node's connections before there is a policy");
    assert_eq!(world.endpoints()[&ip(NODE)].policy, 0);
    world.upsert(from_b(), 5);
    objects.set(from_b());
    world.settle();
    assert_eq!(world.flags(), EndpointFlags::ENFORCE_INGRESS);
    let router = world.agent.network().router_ips[0];
    for own in [ip(NODE), router] {
        let [b, c] = ["b", "c"].map(|name| world.allows(own, world.address(name), 80));
        assert!(b && !c, "{own}");
        assert!(!world.allows(own, ip("10.10.2.9"), 80) && !world.allows(own, ip("192.0.2.1"), 80));
    }
    assert_eq!(world.said("in"), []);
    let listed = world.agent.policies().into_iter().find(|policy| policy.name == "in").unwrap();
    assert_eq!(listed.endpoints, [0], "the node itself");
    restarts_in_any_order(&mut world, &objects);

    // Another zone is not meant.
    world.event(Event::NodeUpsert(in_zone(1, "west")));
    world.settle();
    assert_eq!((world.endpoints()[&ip(NODE)].policy, world.flags()), (0, EndpointFlags::empty()));
}

#[test]
fn what_would_cut_the_node_off_is_only_audited() {
    let mut objects = objects();
    let mut world = up(true, objects.set(from_b()).set(to_b(&json!({}), &[])));
    let in_force = EndpointFlags::ENFORCE_INGRESS | EndpointFlags::ENFORCE_EGRESS;
    assert_eq!(world.flags(), in_force | EndpointFlags::AUDIT_EGRESS, "what comes in is not audited");
    let said = world.said("out");
    assert_eq!(said.len(), 1);
    for part in [&format!("{SERVER}:{PORT}"), ALLOW_API_CUT] {
        assert!(said[0].0 == Severity::Error && said[0].1.contains(part), "{said:?}");
    }
    assert_eq!(world.said("in"), []);
    let asked = world.agent.explain_policy(NODE, "198.51.100.77", 6, 443).expect("an answer");
    let side = asked.egress.expect("policies are for the node");
    assert_eq!((side.passes, side.audited, asked.passes), (false, true, true));
    restarts_in_any_order(&mut world, &objects);

    // It is allowed, for the servers that the cluster names; the agent's own way there is another one.
    let change = |world: &mut World, objects: &mut Objects, policy: Object| {
        world.upsert(policy.clone(), 9);
        objects.set(policy);
        world.settle();
    };
    change(&mut world, &mut objects, to_b(&json!({}), &["198.51.100.0/24"]));
    assert_eq!((world.flags(), world.said("out")), (in_force, Vec::new()));
    world.event(Event::ApiServer(BTreeSet::from(["192.0.2.9:443".parse().unwrap()])));
    world.settle();
    assert!(
        world.flags().contains(EndpointFlags::AUDIT_EGRESS)
            && world.said("out")[0].1.contains("192.0.2.9:443")
    );
    world.event(Event::ApiServer(BTreeSet::from([format!("{SERVER}:{PORT}").parse().unwrap()])));
    world.settle();
    assert_eq!(world.flags(), in_force);

    // It is meant.
    change(&mut world, &mut objects, to_b(&json!({ALLOW_API_CUT: "true"}), &[]));
    assert_eq!((world.flags(), world.said("out")), (in_force, Vec::new()));
    assert!(!world.reaches_server());
}

#[test]
fn without_a_known_server_nothing_is_cut_off() {
    let mut world = up(true, Objects::new().set(to_b(&json!({}), &["0.0.0.0/0"])));
    assert!(world.flags().contains(EndpointFlags::AUDIT_EGRESS));
    assert!(world.said("out")[0].1.contains("not known"), "{:?}", world.said("out"));
    // One on this node is reached without any device.
    world.event(Event::ApiServer(BTreeSet::from([format!("{NODE}:{PORT}").parse().unwrap()])));
    world.settle();
    assert_eq!((world.flags(), world.said("out")), (EndpointFlags::ENFORCE_EGRESS, Vec::new()));
}

#[test]
fn the_services_own_address_is_not_what_leaves_the_node() {
    let mut objects = objects();
    let Object::Service(service) = service("kubernetes", &[]) else { panic!() };
    objects.set(Object::Service(ServiceObject { cluster_ips: [ip("10.96.0.1")].into(), ..service }));
    objects.set(to_b(&json!({}), &["198.51.100.0/24"]));
    let mut world = up(true, &objects);
    world.event(Event::ApiServer(BTreeSet::from(["10.96.0.1:443".parse().unwrap()])));
    world.settle();
    assert_eq!((world.flags(), world.said("out")), (EndpointFlags::ENFORCE_EGRESS, Vec::new()));
}

/// An agent that is dead cannot take anything back.
#[test]
fn whenever_the_agent_dies_the_node_reaches_the_server() {
    let states = [None, Some(to_b(&json!({}), &["198.51.100.0/24"])), Some(to_b(&json!({}), &[]))];
    for (from, to) in [(0, 1), (1, 2), (0, 2), (2, 1), (2, 0), (1, 0)] {
        let with = |state: &Option<Object>| {
            let mut objects = objects();
            if let Some(policy) = state {
                objects.set(policy.clone());
            }
            objects
        };
        let (from, to) = (with(&states[from]), with(&states[to]));
        let change = |world: &mut World| world.list(ObjectKind::CiliumClusterwideNetworkPolicy, &to);
        let mut whole = up(true, &from);
        whole.faults.revive();
        change(&mut whole);
        whole.settle();
        for call in 0..whole.faults.calls() {
            let mut world = up(true, &from);
            world.faults.revive();
            world.faults.crash_after(call);
            change(&mut world);
            world.reconcile();
            assert!(world.reaches_server(), "after call {call}");
            world.restart();
            world.settle();
            assert!(world.reaches_server(), "after call {call}, with a new agent that knows nothing");
            world.nodes();
            world.lists(&to);
            world.settle();
            assert!(world.reaches_server());
            assert_eq!(world.maps.rows(Table::Endpoints), whole.maps.rows(Table::Endpoints));
        }
    }
}
