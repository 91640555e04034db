//! Whatever the way: the rows say what the rules say, and no step in between says anything else than before or after.

use std::collections::BTreeMap;

use agent_policy::{Config, EndpointId, Enforcement, ObjectRef};
use proptest::prelude::*;

use crate::world::{FAMILIES, Step, World, from_scratch, step};

fn config() -> Config {
    Config { families: FAMILIES, ..Config::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_in_the_rows_of_its_end(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new(config());
        for step in &steps {
            world.take(step);
        }
        world.commit();
        world.compare();
        let canonical = world.policy.canonical();
        for backwards in [false, true] {
            let fresh = from_scratch(&world.present, config(), backwards);
            prop_assert_eq!(&canonical, &fresh.canonical());
        }
    }

    #[test]
    fn numbers_are_the_same_after_a_new_start(steps in proptest::collection::vec(step(), 1..25)) {
        let mut world = World::new(config());
        for step in &steps {
            world.take(step);
        }
        world.commit();
        let rows: Vec<_> = world.policy.rows().collect();
        let fresh = from_scratch(&world.present, config(), false);
        prop_assert_eq!(rows, fresh.rows().collect::<Vec<_>>());
    }

    #[test]
    fn who_shares_a_policy_is_selected_by_the_same_objects(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new(config());
        for step in &steps {
            world.take(step);
        }
        world.commit();
        let mut objects: BTreeMap<EndpointId, Vec<&ObjectRef>> = BTreeMap::new();
        for name in world.present.objects.keys() {
            for id in world.policy.selected_by(name) {
                objects.entry(id).or_default().push(name);
            }
        }
        let mut shared: BTreeMap<u32, Option<&Vec<&ObjectRef>>> = BTreeMap::new();
        for id in world.present.endpoints.keys().map(|n| EndpointId(*n)) {
            let number = world.policy.endpoint(id).unwrap().number;
            let own = objects.get(&id);
            prop_assert_eq!(*shared.entry(number).or_insert(own), own, "policy {}", number);
        }
    }

    #[test]
    fn what_came_and_went_leaves_nothing(steps in proptest::collection::vec(step(), 1..25)) {
        let mut world = World::new(config());
        for step in &steps {
            world.take(step);
        }
        world.commit();
        for name in world.present.objects.keys().cloned().collect::<Vec<_>>() {
            world.policy.delete(&name);
        }
        world.present.objects.clear();
        world.take(&Step::Mode(Enforcement::Never));
        // The only one with a mode of its own.
        world.take(&Step::EndpointGone(2));
        world.take(&Step::ApiServer(None));
        world.commit();
        prop_assert_eq!(world.policy.rows().count(), 0);
        prop_assert_eq!(world.policy.sets().count(), 0);
        prop_assert_eq!(world.policy.all_blocks().count(), 0);
        prop_assert_eq!(world.policy.prefixes().count(), 0);
    }
}
