//! Ports and protocols of rules.

use crate::support::check_policies;

const FROM_ALL: &str = "podSelector: {matchLabels: {role: db}}\ningress: [{ports: PORTS}]";
const TO_ALL: &str =
    "podSelector: {matchLabels: {role: frontend}}\npolicyTypes: [Egress]\negress: [{ports: PORTS}]";

/// Ports of a rule, then attempts at one of the databases.
type Case = (&'static str, &'static [(&'static str, bool)]);

const CASES: &[Case] = &[
    (
        "[{port: client}]",
        &[
            // Each pod has its own number for the name.
            ("default/db tcp:6379", true),
            ("default/db tcp:16379", false),
            ("default/db2 tcp:16379", true),
            ("default/db2 tcp:6379", false),
            ("default/db udp:6379", false),
            ("default/db tcp:6379 v6", true),
        ],
    ),
    // A port of another container, and of an init container that goes on running.
    ("[{port: metrics}]", &[("default/db tcp:9121", true), ("default/db2 tcp:9121", false)]),
    ("[{port: proxy}]", &[("default/db tcp:15001", true)]),
    ("[{port: setup}]", &[("default/db tcp:1", false)]),
    // The protocol of the rule and that of the container port must be the same.
    ("[{port: dns}]", &[("default/db tcp:53", false), ("default/db udp:53", false)]),
    ("[{port: dns, protocol: UDP}]", &[("default/db udp:53", true), ("default/db tcp:53", false)]),
    ("[{port: client, protocol: UDP}]", &[("default/db udp:6379", false), ("default/db tcp:6379", false)]),
    // A name that no container has.
    ("[{port: nothing}]", &[("default/db tcp:6379", false), ("default/db2 tcp:80", false)]),
    ("[{port: nothing}, {port: 80}]", &[("default/db tcp:80", true)]),
    ("[{port: 7, endPort: 7}]", &[("default/db tcp:7", true), ("default/db tcp:8", false)]),
    ("[{port: 65535}]", &[("default/db tcp:65535", true), ("default/db tcp:65534", false)]),
    (
        "[{port: 5, endPort: 6, protocol: SCTP}]",
        &[("default/db sctp:6", true), ("default/db tcp:6", false), ("default/db sctp:7", false)],
    ),
    (
        "[{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]",
        &[
            ("default/db tcp:1", true),
            ("default/db udp:1", true),
            ("default/db sctp:1", true),
            ("default/db icmp", false),
        ],
    ),
];

#[test]
fn of_ingress_and_egress_alike() {
    for (ports, attempts) in CASES {
        println!("{ports}");
        for direction in [FROM_ALL, TO_ALL] {
            let spec = direction.replace("PORTS", ports);
            for (to, allowed) in *attempts {
                check_policies(&[&spec], &[(&format!("default/frontend > {to}"), *allowed)]);
            }
        }
    }
}

#[test]
fn names_mean_nothing_where_no_pod_is() {
    check_policies(
        &[&TO_ALL.replace("PORTS", "[{port: client}]")],
        &[
            ("default/frontend > 8.8.8.8 tcp:6379", false),
            ("default/frontend > node:node-1 tcp:6379", false),
            ("default/frontend > default/plain tcp:6379", false),
        ],
    );
}
