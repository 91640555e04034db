//! What is set for one endpoint alone: how policies are enforced on it, and that the next agent knows it.

use agent_api::{EndpointConfigChange, PolicyAuditMode, PolicyEnforcement};

use super::*;

impl World {
    fn id(&self, pod: &str) -> u16 {
        self.agent.endpoints().into_iter().find(|endpoint| endpoint.pod == pod).expect("it is there").id
    }

    fn set(&mut self, pod: &str, change: EndpointConfigChange) {
        let id = self.id(pod);
        self.event(Event::EndpointConfig { id, change });
    }

    fn enforced(&self, pod: &str) -> EndpointFlags {
        let entry = self.endpoints()[&self.address(pod)];
        if entry.policy == 0 {
            assert!(!entry.flags.intersects(BOTH), "without a policy nothing is judged");
        }
        entry.flags
    }
}

fn enforcement(mode: PolicyEnforcement) -> EndpointConfigChange {
    EndpointConfigChange { policy_enforcement: Some(mode), ..EndpointConfigChange::default() }
}

fn audit(mode: PolicyAuditMode) -> EndpointConfigChange {
    EndpointConfigChange { policy_audit_mode: Some(mode), ..EndpointConfigChange::default() }
}

const INGRESS: EndpointFlags = EndpointFlags::ENFORCE_INGRESS;
const BOTH: EndpointFlags = INGRESS.union(EndpointFlags::ENFORCE_EGRESS);
const NONE: EndpointFlags = EndpointFlags(0);

#[test]
fn an_endpoint_is_isolated_as_is_set_for_it() {
    let mut objects = Objects::new();
    let mut world = World::up(objects.set(first()));
    assert_eq!((world.enforced("a"), world.enforced("b")), (INGRESS, NONE));
    world.set("b", enforcement(PolicyEnforcement::Always));
    world.settle();
    let [a, b, c] = ["a", "b", "c"].map(|pod| world.address(pod));
    assert_eq!((world.enforced("b"), world.enforced("c")), (BOTH, NONE));
    assert!(!world.allows(b, c, 80));
    let asked = |from, to| world.agent.explain_policy(from, to, 6, 8080).expect("an answer").passes;
    assert!(!asked("default/c", "default/b") && !asked("default/b", "default/a"));
    world.set("a", enforcement(PolicyEnforcement::Never));
    world.settle();
    assert_eq!(world.enforced("a"), NONE);
    assert!(world.agent.explain_policy("default/c", "default/a", 6, 80).expect("an answer").passes);
    // As policies say, and as the node's flags say, are the same here.
    world.set("a", enforcement(PolicyEnforcement::Default));
    world.set("b", enforcement(PolicyEnforcement::Node));
    world.settle();
    assert_eq!((world.enforced("a"), world.enforced("b")), (INGRESS, NONE));
    assert!(world.allows(a, b, 8080) && !world.allows(a, c, 8080));
}

#[test]
fn an_endpoint_is_audited_as_is_set_for_it() {
    let mut config = agent_control::Config::new(crate::world::OWN, Routing::Vxlan);
    let mut policy = PolicyConfig::default();
    policy.engine.audit = true;
    config.policy = Some(policy);
    let mut world = World::with(config);
    world.nodes();
    let mut objects = Objects::new();
    world.lists(objects.set(first()));
    world.settle();
    world.add("a").unwrap();
    let audited = INGRESS | EndpointFlags::AUDIT;
    assert_eq!(world.enforced("a"), audited);
    for (mode, flags) in [
        (PolicyAuditMode::Disabled, INGRESS),
        (PolicyAuditMode::Enabled, audited),
        (PolicyAuditMode::Disabled, INGRESS),
        (PolicyAuditMode::Node, audited),
    ] {
        world.set("a", audit(mode));
        world.settle();
        assert_eq!(world.enforced("a"), flags, "{mode:?}");
        // Who asks is told what the policies say, and that it passes all the same.
        let asked = world.agent.explain_policy("192.0.2.1", "default/a", 6, 80).expect("an answer");
        let side = asked.ingress.expect("a has policies");
        let is_audited = flags == audited;
        assert_eq!((side.passes, side.audited, asked.passes), (false, is_audited, is_audited), "{mode:?}");
    }
}

#[test]
fn the_next_agent_knows_what_is_set() {
    let mut objects = Objects::new();
    let mut world = World::up(objects.set(first()));
    world.set("a", audit(PolicyAuditMode::Enabled));
    world.set("b", enforcement(PolicyEnforcement::Always));
    // One that is not there has nothing to set.
    world.event(Event::EndpointConfig { id: 999, change: audit(PolicyAuditMode::Enabled) });
    world.settle();
    let before = ["a", "b", "c"].map(|pod| world.enforced(pod));
    assert_eq!(before, [INGRESS | EndpointFlags::AUDIT, BOTH, NONE]);
    restarts_in_any_order(&mut world, &objects);
    assert_eq!(["a", "b", "c"].map(|pod| world.enforced(pod)), before);
    let told: Vec<String> = world.agent.findings().into_iter().map(|finding| finding.message).collect();
    assert!(told.iter().any(|text| text.contains("default/a has PolicyAuditMode=Enabled")), "{told:?}");
    // A pod of the same name is another pod.
    world.del("b").unwrap();
    world.add("b").unwrap();
    assert_eq!(world.enforced("b"), NONE);
}

/// Whoever was told that it is set finds it set, whenever the agent dies; before, it is set or not.
#[test]
fn an_agent_that_dies_has_set_it_or_not() {
    let mut objects = Objects::new();
    objects.set(first());
    let changed = || {
        let mut world = World::up(&objects);
        world.set("a", enforcement(PolicyEnforcement::Never));
        world.faults.revive();
        world
    };
    let mut whole = changed();
    whole.settle();
    assert!(whole.agent.is_kept(whole.id("a")));
    let calls = whole.faults.calls();
    assert!(calls > 1, "rows and a document are written");
    for call in 0..=calls {
        let mut world = changed();
        world.faults.crash_after(call);
        world.reconcile();
        let kept = world.agent.is_kept(world.id("a"));
        world.faults.revive();
        world.restart();
        world.nodes();
        world.lists(&objects);
        world.settle();
        let now = world.enforced("a");
        assert!(now == NONE || (now == INGRESS && !kept), "after call {call}: {now:?}");
    }
}
