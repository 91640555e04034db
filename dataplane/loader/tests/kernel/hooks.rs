//! Hooks: attached, replaced without missing a packet, found again, taken away.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};

use aya::sys::{Stats, enable_stats};
use dataplane_loader::attach::{Attached, detach, list, prune};
use dataplane_loader::{Hook, HookKind, Object, Pins};

use crate::support::{load, received, run, with_object};

fn kinds() -> Vec<HookKind> {
    let mut kinds = vec![HookKind::Clsact];
    if HookKind::of_kernel() == HookKind::Tcx {
        kinds.push(HookKind::Tcx);
    }
    kinds
}

fn program_of(pins: &Pins, hook: &Hook) -> Option<String> {
    list(pins)
        .unwrap()
        .into_iter()
        .find(|attachment| attachment.hook == *hook)
        .map(|attachment| attachment.program)
}

#[test]
fn attach_list_replace_detach() {
    with_object(|sandbox, bytes, mut object| {
        run("ip link add left type veth peer name right");
        let pins = sandbox.pins();
        for kind in kinds() {
            for hook in [Hook::ingress("left"), Hook::egress("left")] {
                let how = object.attach_by(&pins, "from_container", &hook, kind).unwrap();
                assert_eq!(how, Attached::New, "{kind} {hook}");
                assert_eq!(program_of(&pins, &hook).as_deref(), Some("from_container"));
                // The same again, another program, and the same program of another load.
                object.attach_by(&pins, "from_container", &hook, kind).unwrap();
                let how = object.attach_by(&pins, "to_container", &hook, kind).unwrap();
                assert_eq!(how, Attached::Replaced, "{kind} {hook}");
                assert_eq!(program_of(&pins, &hook).as_deref(), Some("to_container"));
                let mut restarted = load(sandbox, bytes);
                let how = restarted.attach_by(&pins, "to_container", &hook, kind).unwrap();
                assert_eq!(how, Attached::Replaced, "{kind} {hook}");
            }
            assert_eq!(list(&pins).unwrap().len(), 2);
            for hook in [Hook::ingress("left"), Hook::egress("left")] {
                assert!(detach(&pins, &hook).unwrap());
                assert!(!detach(&pins, &hook).unwrap());
            }
            assert_eq!(list(&pins).unwrap(), []);
        }
    });
}

#[test]
fn an_attachment_outlives_the_object_and_ends_with_its_device() {
    with_object(|sandbox, bytes, mut object| {
        let pins = sandbox.pins();
        let hook = Hook::ingress("left");
        for kind in kinds() {
            run("ip link add left type veth peer name right");
            object.attach_by(&pins, "from_container", &hook, kind).unwrap();
            drop(object);
            let found = &list(&pins).unwrap()[0];
            assert_eq!(found.kind, kind);
            assert!(found.ifindex.is_some());
            run("ip link del left");
            assert_eq!(list(&pins).unwrap()[0].ifindex, None);
            object = load(sandbox, bytes);
            assert!(object.attach_by(&pins, "from_container", &hook, kind).unwrap_err().is_no_device());
            // A new device of the old name is another device.
            run("ip link add left type veth peer name right");
            let how = object.attach_by(&pins, "from_container", &hook, kind).unwrap();
            assert_eq!(how, Attached::New, "{kind}");
            run("ip link del left");
            assert_eq!(prune(&pins).unwrap(), std::slice::from_ref(&hook));
            assert_eq!(list(&pins).unwrap(), []);
        }
    });
}

#[test]
fn another_abi_version_takes_the_link_over() {
    if HookKind::of_kernel() != HookKind::Tcx {
        return;
    }
    with_object(|sandbox, bytes, mut object| {
        run("ip link add left type veth peer name right");
        let hook = Hook::ingress("left");
        let old = sandbox.pins();
        object.attach(&old, "from_container", &hook).unwrap();
        let new = sandbox.pins().with_version(99);
        let mut newer = Object::load_bytes(bytes, Some(&new), &crate::support::small()).unwrap();
        let how = newer.attach(&new, "from_container", &hook).unwrap();
        assert_eq!(how, Attached::Replaced);
        assert_eq!(list(&old).unwrap(), []);
        assert_eq!(list(&new).unwrap().len(), 1);
    });
}

/// The kernel's own run counters against the device's packet counter, while the program is replaced again and again.
#[test]
fn no_packet_is_missed_while_programs_are_replaced() {
    with_object(|sandbox, bytes, first| {
        let pins = sandbox.pins();
        for kind in kinds() {
            let _stats = enable_stats(Stats::RunTime).unwrap();
            run("ip link add left type veth peer name right");
            run("ip addr add 10.9.0.1/24 dev right");
            run("ip link set lo up");
            run("ip link set left up");
            // A neighbour that never answers, so that packets leave without being asked for.
            run("ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev right");
            let hook = Hook::ingress("left");
            let mut objects: Vec<Object> = (0..3).map(|_| load(sandbox, bytes)).collect();
            objects[0].attach_by(&pins, "to_host", &hook, kind).unwrap();
            let before = received("left");
            run("ip link set right up");

            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
                    while !done.load(Ordering::Relaxed) {
                        for _ in 0..100 {
                            let _ = socket.send_to(&[0; 32], "10.9.0.2:9");
                        }
                    }
                });
                for round in 1..200 {
                    let index = round % objects.len();
                    let how = objects[index].attach_by(&pins, "to_host", &hook, kind).unwrap();
                    assert_eq!(how, Attached::Replaced);
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                done.store(true, Ordering::Relaxed);
            });
            run("ip link set right down");
            let counts = || {
                let runs: u64 = objects.iter().map(|object| object.run_count("to_host").unwrap()).sum();
                (received("left") - before, runs)
            };
            // Packets may still be on their way to the other end.
            let patience = std::time::Instant::now() + std::time::Duration::from_secs(5);
            let (packets, runs) = loop {
                std::thread::sleep(std::time::Duration::from_millis(100));
                let (packets, runs) = counts();
                if packets == runs || std::time::Instant::now() > patience {
                    break (packets, runs);
                }
            };
            assert!(packets > 1000, "only {packets} packets were sent");
            assert_eq!(runs, packets, "{kind}: runs of all programs against packets of the device");
            detach(&pins, &hook).unwrap();
            run("ip link del left");
        }
        drop(first);
    });
}
