//! Nanoseconds per packet of the host in memory: new and established flows, drops, both families.

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dataplane_abi::config::{ConfigFlags, NodeConfig, Routing};
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::program::Program;
use dataplane_abi::{ABI_VERSION, Identity};
use dataplane_native::craft::Craft;
use dataplane_native::{Frame, Native};

const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn ips(family: u8) -> [IpAddr; 2] {
    [11_u8, 12].map(|n| {
        if family == 4 {
            IpAddr::from([10, 1, 1, n])
        } else {
            IpAddr::from([0xfd00, 1, 1, 0, 0, 0, 0, u16::from(n)])
        }
    })
}

fn node() -> Native {
    let mut native = Native::new();
    let config = NodeConfig {
        abi_version: ABI_VERSION,
        revision: 1,
        flags: ConfigFlags::all() - ConfigFlags::HOST_FIREWALL - ConfigFlags::OUTSIDE_CALLS,
        routing: Routing::Vxlan as u8,
        aggregation: 3,
        monitor_flags: 7,
        payload_len: 128,
        ticks_per_s: 250,
        monitor_interval_ticks: 1250,
        underlay_mtu: 1500,
        overlay_mtu: 1450,
        host_identity: Identity::HOST,
        ..NodeConfig::default()
    };
    native.tables_mut().config.set(0, config);
    for family in [4, 6] {
        for ((ip, mac), n) in ips(family).into_iter().zip(MACS).zip(0_u16..) {
            let entry = EndpointEntry {
                ifindex: 10 + u32::from(n),
                id: n,
                identity: Identity(1000 + u32::from(n)),
                mac,
                node_mac: GATEWAY,
                ..EndpointEntry::default()
            };
            native.tables_mut().endpoints.insert(EndpointKey::from_ip(ip), entry);
        }
    }
    native
}

fn packets(c: &mut Criterion) {
    for family in [4, 6] {
        let [a, b] = ips(family);
        let craft = Craft::new(a, b).macs(MACS[0], GATEWAY);
        let native = node();
        let established = Frame::new(craft.tcp(4000, 80, 16, &[0; 6]), 10);
        c.bench_function(&format!("from_container established v{family}"), |bencher| {
            let mut frame = established.clone();
            bencher.iter(|| {
                frame.bytes.clone_from(&established.bytes);
                black_box(native.run(Program::FromContainer, &mut frame))
            });
        });
        let spoofed = Frame::new(Craft::new(b, a).macs(MACS[0], GATEWAY).udp(1, 2, &[0; 22]), 10);
        c.bench_function(&format!("from_container drop v{family}"), |bencher| {
            let mut frame = spoofed.clone();
            bencher.iter(|| {
                native.drain_events();
                black_box(native.run(Program::FromContainer, &mut frame))
            });
        });
        let mut port = 0_u16;
        c.bench_function(&format!("from_container new v{family}"), |bencher| {
            bencher.iter_batched(
                || {
                    port = port.wrapping_add(1);
                    native.drain_events();
                    Frame::new(craft.udp(port, 53, &[0; 22]), 10)
                },
                |mut frame| black_box(native.run(Program::FromContainer, &mut frame)),
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, packets);
criterion_main!(benches);
