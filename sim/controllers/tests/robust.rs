//! Whatever objects the store takes, the controllers look at them without a panic.

#[path = "../../api/tests/support/spoil.rs"]
mod spoil;

use sim_api::store::StoreOptions;
use sim_api::{DeleteOptions, Patch, Store, Sub, WriteOptions};
use sim_controllers::{ControllerOptions, Controllers};
use spoil::{Random, samples};

#[test]
fn spoiled_objects_do_not_stop_the_controllers() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..60 {
        let store = Store::new(StoreOptions::default());
        let cidrs = vec![("10.0.0.0/16".parse().expect("a CIDR"), 24)];
        let mut controllers =
            Controllers::new(store.clone(), ControllerOptions { pod_cidrs: cidrs, node_grace_s: 40 });
        let options = WriteOptions::default();
        for (r, ns, sample) in samples() {
            let mut first = sample.clone();
            random.spoil(&mut first);
            if store.create(&r, ns, first, &options).is_err() {
                drop(store.create(&r, ns, sample.clone(), &options));
            }
            for sub in [Sub::Main, Sub::Status] {
                let mut other = sample.clone();
                random.spoil(&mut other);
                drop(store.patch(&r, ns, "o", sub, &Patch::Merge(other), &options));
            }
            // Ten steps are enough to see everything once; odd objects need not come to rest.
            controllers.settle(10);
        }
        for (r, ns, _) in samples() {
            drop(store.delete(&r, ns, "o", &DeleteOptions::default()));
            controllers.settle(10);
        }
    }
}
