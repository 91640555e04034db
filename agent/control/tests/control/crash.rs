//! The agent dies after any single call to a port and is started again.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_api::cni::CniResult;
use agent_control::ports::{Document, Table};
use agent_control::{Event, NodeObject, PortError, Routing};

use crate::world::{World, add, del, node, underlay};

/// What the runtime and the API server did, until the agent was gone. Returns what the runtime knows: pods whose ADD was answered
/// (a DEL that is not answered is repeated).
struct Script {
    world: World,
    live: BTreeMap<String, CniResult>,
    to_delete: Vec<String>,
}

impl Script {
    fn add(&mut self, names: &[&str]) {
        let requests: Vec<_> = names.iter().map(|name| self.world.request(add(name))).collect();
        self.world.settle_or_die();
        for (name, request) in names.iter().zip(requests) {
            match self.world.answer(request) {
                Some(Ok(result)) => drop(self.live.insert((*name).to_owned(), result.unwrap())),
                _ => self.to_delete.push((*name).to_owned()),
            }
        }
    }

    fn del(&mut self, names: &[&str]) {
        let requests: Vec<_> = names.iter().map(|name| self.world.request(del(name))).collect();
        self.world.settle_or_die();
        for (name, request) in names.iter().zip(requests) {
            self.live.remove(*name);
            if !matches!(self.world.answer(request), Some(Ok(_))) {
                self.to_delete.push((*name).to_owned());
            }
        }
    }

    fn run(&mut self) {
        self.world.event(Event::Underlay(underlay()));
        self.world.event(Event::NodeListStarted);
        for n in 1..=3 {
            self.world.event(Event::NodeUpsert(node(n)));
        }
        self.world.event(Event::NodeListSynced);
        self.world.settle_or_die();
        self.add(&["a", "b", "c"]);
        self.del(&["b"]);
        self.world.event(Event::NodeUpsert(NodeObject { internal_ips: node(33).internal_ips, ..node(3) }));
        self.world.event(Event::NodeDelete { name: "node-2".into() });
        self.world.event(Event::NodeUpsert(node(4)));
        self.world.settle_or_die();
        self.add(&["d", "e"]);
        self.del(&["a", "d"]);
    }

    fn live_pods_are_served(&self, when: &str) {
        let rows = self.world.endpoints();
        for (name, result) in &self.live {
            let link = self.world.node.links().get(&result.interfaces[0].name);
            let link = link.unwrap_or_else(|| panic!("{when}: {name} has lost its link"));
            for ip in &result.ips {
                let row = rows.get(&ip.address.addr()).map(|row| row.ifindex);
                assert_eq!(row, Some(link.ifindex), "{when}: {name} {}", ip.address);
            }
        }
    }
}

impl World {
    fn settle_or_die(&mut self) {
        for _ in 0..50 {
            if self.faults.crashed() {
                return;
            }
            self.reconcile();
            if self.agent.next_deadline().is_none_or(|at| at > self.now) {
                return;
            }
        }
        panic!("the agent always has something to do at once");
    }
}

fn end_nodes() -> Vec<NodeObject> {
    vec![node(1), NodeObject { internal_ips: node(33).internal_ips, ..node(3) }, node(4)]
}

fn crash_after(routing: Routing, call: Option<u64>) -> u64 {
    let mut script = Script { world: World::new(routing), live: BTreeMap::new(), to_delete: Vec::new() };
    if let Some(call) = call {
        script.world.faults.crash_after(call);
    }
    script.run();
    let calls = script.world.faults.calls();
    let when = format!("crash after call {call:?}");
    script.live_pods_are_served(&when);

    // The next agent hears of the underlay, of half a list, of the whole list; at no step is a live pod left alone.
    script.world.restart();
    script.world.event(Event::Underlay(underlay()));
    script.world.settle();
    script.live_pods_are_served(&when);
    script.world.event(Event::NodeListStarted);
    script.world.event(Event::NodeUpsert(node(1)));
    script.world.settle();
    script.live_pods_are_served(&when);
    script.world.event(Event::NodeListStarted);
    for object in end_nodes() {
        script.world.event(Event::NodeUpsert(object));
    }
    script.world.event(Event::NodeListSynced);
    script.world.settle();
    script.live_pods_are_served(&when);
    // The runtime repeats what was not answered.
    for name in std::mem::take(&mut script.to_delete) {
        script.live.remove(&name);
        script.world.del(&name).unwrap_or_else(|error| panic!("{when}: DEL of {name}: {error}"));
    }
    script.world.assert_outside(&end_nodes(), &script.live);
    assert_eq!(script.world.agent.failures(), [], "{when}");
    // Each address is in use by a live pod, in quarantine, or free.
    let used: u64 = script.world.agent.ipam(script.world.now).iter().map(|pool| pool.used).sum();
    assert_eq!(used, 2 * script.live.len() as u64, "{when}");
    script.world.assert_restart_writes_nothing(&end_nodes());
    calls
}

#[test]
fn dies_after_every_single_call_and_comes_back() {
    for routing in [Routing::Vxlan, Routing::Native] {
        let calls = crash_after(routing, None);
        assert!(calls > 100, "the script makes {calls} calls");
        for call in 0..=calls {
            crash_after(routing, Some(call));
        }
    }
}

#[test]
fn dies_after_every_single_call_of_its_restart() {
    // A pod comes and goes, then an agent dies at every call of its start, then the next one starts.
    for call in 0..60 {
        let mut world = World::ready(Routing::Vxlan, 3);
        let pod = world.add("a").unwrap();
        world.add("b").unwrap();
        // What an agent that died half way through left behind: an announced endpoint, a row too many, a stale route.
        let half = String::from_utf8(
            world.node.documents().into_iter().find(|d| d.name == "endpoint-2").unwrap().content,
        );
        let half = half.unwrap().replace("\"ready\":true", "\"ready\":false");
        world.restart();
        world.node.set_document("endpoint-2", Some(half.into_bytes()));
        world.faults.crash_after(call);
        world.event(Event::Underlay(underlay()));
        world.event(Event::NodeListStarted);
        world.event(Event::NodeUpsert(node(1)));
        world.event(Event::NodeUpsert(node(2)));
        world.event(Event::NodeListSynced);
        world.settle_or_die();
        world.restart();
        world.sync(2);
        let live = BTreeMap::from([("a".to_owned(), pod)]);
        world.assert_outside(&[node(1), node(2)], &live);
        world.assert_restart_writes_nothing(&[node(1), node(2)]);
    }
}

#[test]
fn a_revision_that_was_not_raised_is_raised_by_the_next_agent() {
    let mut world = World::ready(Routing::Vxlan, 1);
    let revision = world.node_config().revision;
    world.faults.record();
    world.add("a").unwrap();
    let before_config =
        world.faults.recorded().iter().position(|op| op.starts_with("upsert CONFIG")).unwrap();
    let mut world = World::ready(Routing::Vxlan, 1);
    world.faults.crash_after(world.faults.calls() + before_config as u64);
    world.request(add("a"));
    world.settle_or_die();
    assert!(world.faults.crashed());
    assert_eq!(world.node_config().revision, revision);
    world.restart();
    world.sync(1);
    assert!(world.node_config().revision > revision, "rows changed without it");
}

#[test]
fn quarantine_and_round_robin_outlive_the_agent() {
    let mut world = World::ready(Routing::Vxlan, 1);
    let first = world.add("a").unwrap();
    world.del("a").unwrap();
    for n in 0..4 {
        world.restart();
        world.sync(1);
        let next = world.add(&format!("b{n}")).unwrap();
        assert_ne!(first.ips[0].address, next.ips[0].address);
        world.del(&format!("b{n}")).unwrap();
    }
    let quarantined: u64 = world.agent.ipam(world.now).iter().map(|pool| pool.quarantined).sum();
    assert_eq!(quarantined, 10);
    world.pass(Duration::from_secs(30));
    let quarantined: u64 = world.agent.ipam(world.now).iter().map(|pool| pool.quarantined).sum();
    assert_eq!(quarantined, 0);
}

#[test]
fn a_lost_state_directory_takes_no_pod_down() {
    let mut world = World::ready(Routing::Vxlan, 2);
    let pod = world.add("a").unwrap();
    for document in world.node.documents() {
        world.node.set_document(&document.name, None);
    }
    let rows = world.endpoints();
    world.restart();
    world.sync(2);
    assert_eq!(world.endpoints(), rows);
    assert_eq!(world.rows_changed(), 0);
    assert!(world.agent.findings().iter().any(|finding| finding.message.contains("is lost")));
    world.assert_outside(&[node(1), node(2)], &BTreeMap::from([("a".to_owned(), pod)]));
    let other = world.add("b").unwrap();
    assert_eq!(
        other.ips[0].address.to_string(),
        "10.10.1.3/32",
        "the address of the pod without a document is taken"
    );
    world.del("a").unwrap();
    world.assert_outside(&[node(1), node(2)], &BTreeMap::from([("b".to_owned(), other)]));
}

#[test]
fn an_unreadable_document_takes_no_pod_down() {
    let mut world = World::ready(Routing::Vxlan, 1);
    let pod = world.add("a").unwrap();
    world.node.set_document("endpoint-1", Some(b"{\"version\": 9}".to_vec()));
    world.restart();
    world.sync(1);
    world.assert_outside(&[node(1)], &BTreeMap::from([("a".to_owned(), pod)]));
    assert!(world.agent.findings().iter().any(|finding| finding.message.contains("version 9")));
}

#[test]
fn a_pod_that_went_while_the_agent_was_down_is_cleaned_up() {
    let mut world = World::ready(Routing::Vxlan, 1);
    world.add("a").unwrap();
    let kept = world.add("b").unwrap();
    world.node.destroy_netns(&crate::world::netns("a"));
    world.restart();
    world.sync(1);
    world.assert_outside(&[node(1)], &BTreeMap::from([("b".to_owned(), kept)]));
    world.del("a").unwrap();
}

#[test]
fn a_reboot_leaves_nothing_to_be_confused_by() {
    // The state directory survives here, maps, links and clock do not.
    let mut world = World::ready(Routing::Vxlan, 2);
    world.add("a").unwrap();
    world.add("b").unwrap();
    world.del("b").unwrap();
    let mut rebooted = World::new(Routing::Vxlan);
    for document in world.node.documents() {
        rebooted.node.set_document(&document.name, Some(document.content));
    }
    rebooted.now = agent_control::Now::from_secs(20);
    rebooted.restart();
    rebooted.sync(2);
    rebooted.assert_outside(&[node(1), node(2)], &BTreeMap::new());
    assert_eq!(rebooted.maps.rows(Table::Endpoints).len(), 4);
    rebooted.add("c").unwrap();
}

#[test]
fn the_agent_serves_pods_before_it_hears_of_the_api_server() {
    let mut world = World::ready(Routing::Vxlan, 2);
    let old = world.add("old").unwrap();
    world.restart();
    world.event(Event::Underlay(underlay()));
    world.settle();
    assert!(!world.agent.nodes_synced());
    world.check("old", &old).unwrap();
    let new = world.add("new").unwrap();
    world.del("old").unwrap();
    assert!(!world.endpoints().contains_key(&old.ips[0].address.addr()));
    world.assert_outside(&[node(1), node(2)], &BTreeMap::from([("new".to_owned(), new)]));
}

#[test]
fn a_state_that_cannot_be_read_back_is_not_guessed() {
    let mut world = World::ready(Routing::Vxlan, 2);
    let pod = world.add("a").unwrap();
    world.restart();
    let error = PortError::retryable("", "interrupted");
    world.faults.refuse("list pod links", error);
    world.sync(2);
    let refused = world.add("b").unwrap_err();
    assert!(refused.msg.contains("read back"), "{}", refused.msg);
    world.del("nobody").unwrap_err();
    let waiting = world.reconcile();
    assert!(
        waiting.errors.is_empty() && waiting.pending > 0,
        "it is not tried at once, and nothing is in order"
    );
    assert_eq!(world.rows_changed(), 0);
    world.faults.accept();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.reconcile().pending, 0);
    assert_eq!(world.rows_changed(), 0);
    world.assert_outside(&[node(1), node(2)], &BTreeMap::from([("a".to_owned(), pod)]));
}

#[test]
fn an_old_document_of_a_pod_that_is_gone_takes_nothing_from_who_has_its_address_now() {
    let mut world = World::new(Routing::Vxlan);
    world.sync(2);
    let before = world.node.documents();
    let old = world.add("old").unwrap();
    let with_old = world.node.documents();
    world.del("old").unwrap();
    // The disk is older than the tables: the address was never given out, as far as the agent can tell.
    restore(&mut world, &before);
    world.restart();
    world.sync(2);
    let new = world.add("new").unwrap();
    assert_eq!(new.ips[0].address, old.ips[0].address, "the test is about an address that is used again");

    restore(&mut world, &with_old);
    world.restart();
    world.sync(2);
    let link = world.node.links()[&new.interfaces[0].name].ifindex;
    let rows = world.endpoints();
    for ip in &new.ips {
        assert_eq!(rows.get(&ip.address.addr()).map(|row| row.ifindex), Some(link), "{}", ip.address);
    }
    world.del("new").unwrap();
    assert_eq!(world.endpoints().len(), 4, "the node's own addresses are left");
}

#[test]
fn a_del_that_comes_before_the_links_are_read_removes_a_pod_without_a_document() {
    let mut world = World::new(Routing::Vxlan);
    world.sync(2);
    let before = world.node.documents();
    let pod = world.add("a").unwrap();
    restore(&mut world, &before);
    world.restart();
    let request = world.request(del("a"));
    world.sync(2);
    assert_eq!(world.answer(request), Some(Ok(None)));
    assert!(!world.node.links().contains_key(&pod.interfaces[0].name));
    assert_eq!(world.endpoints().len(), 4, "the node's own addresses are left");
    assert!(world.agent.endpoints().is_empty() && world.agent.failures().is_empty());
}

#[test]
fn an_add_behind_a_del_of_the_same_container_is_served() {
    let mut world = World::new(Routing::Vxlan);
    world.sync(2);
    let first = world.request(del("a"));
    let second = world.request(add("a"));
    world.settle();
    assert_eq!(world.answer(first), Some(Ok(None)));
    assert!(matches!(world.answer(second), Some(Ok(Some(_)))));
}

/// Puts the state directory back to what it was.
fn restore(world: &mut World, documents: &[Document]) {
    for document in world.node.documents() {
        world.node.set_document(&document.name, None);
    }
    for document in documents {
        world.node.set_document(&document.name, Some(document.content.clone()));
    }
}

/// Its lists are complete before the node lets it have its links: what the earlier agent made goes on meanwhile.
#[test]
fn routes_outlive_a_start_that_cannot_make_the_base_links() {
    for routing in [Routing::Vxlan, Routing::Native] {
        let mut world = World::ready(routing, 2);
        let pod = world.add("a").unwrap();
        let routes = world.routes();
        assert!(!routes.is_empty());
        world.restart();
        world.faults.refuse("ensure the base links", PortError::retryable("", "busy"));
        world.sync(2);
        assert_eq!(world.agent.failures().len(), 1);
        assert_eq!(world.routes(), routes);
        // A node that went meanwhile keeps its route until the links are there.
        world.event(Event::NodeDelete { name: "node-2".into() });
        world.settle();
        assert_eq!(world.routes(), routes);
        world.faults.accept();
        world.pass(Duration::from_secs(5));
        world.assert_outside(&[node(1)], &BTreeMap::from([("a".to_owned(), pod)]));
        assert!(world.routes().len() < routes.len());
    }
}
