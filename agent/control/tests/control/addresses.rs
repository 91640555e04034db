//! Whose an address is while pods, runtimes and agents come and go in the wrong order. The node has one address for pods.

use std::time::Duration;

use agent_api::Timestamp;
use agent_api::cni::{CniError, CniResult, ErrorCode, Operation, PodRef};
use agent_control::ports::{PortError, Table};
use agent_control::{CniRequest, Config, Event, NetnsHandle, NodeObject, RequestId, Routing};

use crate::world::{OWN, World, add, attachment, del, netns, node, underlay};

const QUARANTINE: Duration = Duration::from_secs(30);

/// A node with one address, which is in quarantine for [`QUARANTINE`] after use.
fn one_address() -> World {
    let mut world = World::with(Config { quarantine: QUARANTINE, ..Config::new(OWN, Routing::Vxlan) });
    hear(&mut world);
    world
}

/// What an agent hears of the node when it starts.
fn hear(world: &mut World) {
    world.event(Event::Underlay(underlay()));
    world.event(Event::NodeListStarted);
    world.event(Event::NodeUpsert(NodeObject { pod_cidrs: vec!["10.10.1.0/30".into()], ..node(1) }));
    world.event(Event::NodeListSynced);
    world.settle();
}

/// A request for a pod of the namespace `default`, with its answer.
fn of_pod(
    world: &mut World,
    id: u64,
    pod: &str,
    operation: Operation,
) -> Result<Option<CniResult>, CniError> {
    let netns = matches!(operation, Operation::Add { .. }).then_some(NetnsHandle(id));
    let pod = Some(PodRef { namespace: "default".into(), name: pod.into(), uid: None });
    let id = RequestId(id);
    let received = Timestamp::from_unix_nanos(0);
    world.event(Event::Cni(CniRequest { id, received, netns, pod, operation }));
    world.settle();
    world.answer(id).expect("every request is answered")
}

#[test]
fn a_late_del_touches_neither_the_next_owner_nor_the_next_sandbox() {
    let late = |prev_result: Option<CniResult>| Operation::Del {
        attachment: attachment("old"),
        netns: Some(netns("old")),
        prev_result,
    };
    for (pod, with_result) in [("other", true), ("web", false), ("web", true)] {
        let mut world = one_address();
        let old = of_pod(&mut world, 1001, "web", add("old")).unwrap().unwrap();
        of_pod(&mut world, 1002, "web", del("old")).unwrap();
        world.pass(QUARANTINE);
        let new = of_pod(&mut world, 1003, pod, add("new")).unwrap().unwrap();
        assert_eq!(new.ips[0].address, old.ips[0].address);
        let rows = (world.endpoints(), world.ipcache());
        of_pod(&mut world, 1004, "web", late(with_result.then_some(old))).unwrap();
        assert_eq!((world.endpoints(), world.ipcache()), rows, "new sandbox of {pod}");
        world.check("new", &new).unwrap();
    }
}

#[test]
fn a_pod_that_went_while_the_agent_was_down_leaves_its_address_in_quarantine() {
    let mut world = one_address();
    world.add("old").unwrap();
    world.node.destroy_netns(&netns("old"));
    world.restart();
    hear(&mut world);
    assert_eq!(world.add("new").unwrap_err().code, ErrorCode::TRY_AGAIN);
    world.pass(QUARANTINE);
    world.add("new").unwrap();
}

#[test]
fn an_address_whose_quarantine_could_not_be_saved_is_not_given_out_by_the_next_agent() {
    let mut world = one_address();
    world.add("old").unwrap();
    world.faults.refuse("save ipam", PortError::retryable("", "no space left"));
    let error = world.del("old").unwrap_err();
    assert!(error.msg.contains("no space left"), "{}", error.msg);
    world.restart();
    hear(&mut world);
    assert_eq!(world.add("new").unwrap_err().code, ErrorCode::TRY_AGAIN);
    world.del("old").unwrap();
    world.pass(QUARANTINE);
    world.add("new").unwrap();
}

#[test]
fn del_does_not_succeed_while_a_row_of_the_pod_remains() {
    for table in [Table::Ipcache, Table::Endpoints] {
        let mut world = one_address();
        let old = world.add("old").unwrap();
        let address = old.ips[0].address.addr();
        world.faults.refuse(format!("delete {}", table.name()), PortError::retryable("", "busy"));
        let error = world.del("old").unwrap_err();
        assert_eq!(error.code, ErrorCode::TRY_AGAIN, "{table:?}: {}", error.msg);
        world.pass(QUARANTINE * 2);
        world.add("new").unwrap_err();
        world.faults.accept();
        world.del("old").unwrap();
        assert!(!world.endpoints().contains_key(&address), "{table:?}");
        assert!(!world.ipcache().contains_key(&address.into()), "{table:?}");
        world.pass(QUARANTINE);
        world.add("new").unwrap();
    }
}
