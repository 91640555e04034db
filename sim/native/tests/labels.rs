//! Operator and agents that are given the same label filter come to the same identities.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_api::Timestamp;
use agent_api::cni::{Attachment, Operation, PodRef};
use agent_control::memory::{Faults, MemoryMaps, MemoryNode};
use agent_control::{
    Agent, CniRequest, Config, DeviceFacts, Event, NamespaceObject, NetnsHandle, NodeObject, Now, Object,
    ObjectKind, ObjectName, PodObject, PolicyConfig, RequestId, Routing,
};
use agent_crd::{CiliumIdentity, LabelFilter};
use bristle_operator::core::{self as operator, Action, Kind, Operator, Seen};
use rstest::rstest;

const NOW: Now = Now::from_secs(1_000);

/// Pods by name, each with its labels.
const PODS: [(&str, &[(&str, &str)]); 4] = [
    ("a", &[("app", "web"), ("team", "red"), ("pod-template-hash", "1")]),
    ("b", &[("app", "web"), ("team", "blue"), ("job-name", "x")]),
    ("c", &[("app.kubernetes.io/name", "web"), ("application", "old")]),
    ("d", &[]),
];

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn of_namespace() -> BTreeMap<String, String> {
    labels(&[("kubernetes.io/metadata.name", "shop"), ("stage", "test")])
}

/// The identities that the operator makes for the pods.
fn made(filter: &LabelFilter) -> Vec<CiliumIdentity> {
    let mut mind = Operator::new(operator::Config { labels: filter.clone(), ..operator::Config::default() });
    mind.handle(Duration::ZERO, operator::Event::Leading(true));
    let namespace = operator::Namespace { name: "shop".to_owned(), labels: of_namespace() };
    let pods = PODS.map(|(name, own)| operator::Pod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        labels: labels(own),
        ..operator::Pod::default()
    });
    for kind in Kind::ALL {
        mind.handle(Duration::ZERO, operator::Event::ListStarted(kind));
        let seen: Vec<Seen> = match kind {
            Kind::Namespace => vec![Seen::Namespace(namespace.clone())],
            Kind::Pod => pods.iter().cloned().map(Seen::Pod).collect(),
            _ => Vec::new(),
        };
        seen.into_iter().for_each(|seen| mind.handle(Duration::ZERO, operator::Event::Upsert(seen)));
        mind.handle(Duration::ZERO, operator::Event::ListSynced(kind));
    }
    let commands = mind.commands(Duration::ZERO).into_iter();
    let made = commands.filter_map(|command| match command.action {
        Action::CreateIdentity(identity) => Some(identity),
        _ => None,
    });
    made.collect()
}

/// The numbers that the agent gives the pods, by name.
fn given(filter: &LabelFilter, identities: &[CiliumIdentity]) -> BTreeMap<String, i64> {
    let policy = PolicyConfig { labels: filter.clone(), ..PolicyConfig::default() };
    let config = Config { policy: Some(policy), ..Config::new("n", Routing::Vxlan) };
    let mut agent = Agent::new(config, Vec::new());
    let mut maps = MemoryMaps::new(Faults::default());
    let mut node = MemoryNode::new("eth0", Faults::default());
    let address = "172.30.0.1".parse().expect("an address");
    let mut events = vec![
        Event::Underlay(DeviceFacts {
            name: "eth0".to_owned(),
            ifindex: 2,
            mac: [2; 6],
            mtu: 1500,
            addresses: vec![address],
        }),
        Event::NodeListStarted,
        Event::NodeUpsert(NodeObject {
            name: "n".to_owned(),
            pod_cidrs: vec!["10.10.1.0/24".to_owned()],
            internal_ips: vec![address.to_string()],
            ..NodeObject::default()
        }),
        Event::NodeListSynced,
    ];
    for kind in ObjectKind::ALL {
        let objects: Vec<Object> = match kind {
            ObjectKind::Namespace => {
                vec![Object::Namespace(NamespaceObject { name: "shop".to_owned(), labels: of_namespace() })]
            }
            ObjectKind::Identity => identities.iter().cloned().map(Object::Identity).collect(),
            ObjectKind::Pod => PODS
                .map(|(name, own)| {
                    Object::Pod(PodObject {
                        namespace: "shop".to_owned(),
                        name: name.to_owned(),
                        uid: String::new(),
                        labels: labels(own),
                        service_account: String::new(),
                        named_ports: Vec::new(),
                    })
                })
                .into(),
            _ => Vec::new(),
        };
        events.push(Event::ListStarted(kind));
        events
            .extend(objects.into_iter().map(|object| Event::Upsert { object: Box::new(object), version: 1 }));
        events.push(Event::ListSynced(kind));
    }
    for (id, (name, _)) in (1..).zip(PODS) {
        let attachment = Attachment { container_id: name.to_owned(), ifname: "eth0".to_owned() };
        let pod = PodRef { namespace: "shop".to_owned(), name: name.to_owned(), uid: None };
        events.push(Event::Cni(CniRequest {
            id: RequestId(id),
            received: Timestamp::from_unix_nanos(0),
            netns: Some(NetnsHandle(id)),
            pod: Some(pod),
            operation: Operation::Add { attachment, netns: format!("/run/netns/{name}") },
        }));
    }
    for event in events {
        agent.handle(NOW, event);
        agent.reconcile(NOW, &mut maps, &mut node);
    }
    let published = agent.published().into_iter();
    let number = |(name, object): (ObjectName, agent_crd::CiliumEndpoint)| {
        Some((name.name, object.status.identity?.id?))
    };
    published.filter_map(number).collect()
}

/// How many identities four pods have, with each filter.
#[rstest]
#[case("", 4)]
#[case("k8s:!team k8s:!job-name", 3)]
#[case("k8s:app$", 3)]
#[case("k8s:app", 3)]
#[case("k8s:nothing", 2)]
#[case("k8s:nothing k8s:!app\\.kubernetes\\.io", 1)]
#[case("k8s:!io\\.cilium\\.k8s\\.namespace\\.labels\\.stage", 4)]
fn operator_and_agent_derive_the_same(#[case] text: &str, #[case] count: usize) {
    let filter = LabelFilter::read(text).expect("a filter");
    let identities = made(&filter);
    assert_eq!(identities.len(), count, "{identities:?}");
    let given = given(&filter, &identities);
    assert_eq!(given.len(), PODS.len(), "{given:?}");
    for identity in &identities {
        let number = identity.number().map(i64::from).expect("a number");
        assert!(given.values().any(|given| *given == number), "nobody has {number}: {given:?}");
    }
    assert!(given.values().all(|number| *number >= 256), "{given:?}");
}
