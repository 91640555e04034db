//! `bristle monitor`: the stream of events, a line each.

use crate::client::Client;
use crate::flags::{MonitorFlags, Output};
use crate::show::identity;
use agent_api::monitor::{MonitorEvent, PacketInfo};
use agent_api::paths;
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;

/// Prints events until the agent stops, the wanted number is reached, or the reader of our output goes away.
pub(crate) fn run(client: &Client, wanted: &MonitorFlags, output: Output) -> Result<()> {
    let ids = wanted.endpoint.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let kinds = wanted.kind.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(",");
    let lines = client.lines(&format!("{}?endpoint={ids}&kind={kinds}", paths::MONITOR))?;
    let mut left = wanted.count;
    let mut out = io::stdout().lock();
    for line in lines {
        let text = line.context("the agent stopped; start `bristle monitor` again when it is back")?;
        // Empty lines tell the agent that we are still here.
        if text.is_empty() {
            continue;
        }
        if left == Some(0) {
            break;
        }
        match output {
            Output::Json => writeln!(out, "{text}")?,
            Output::Table => match serde_json::from_str(&text) {
                Ok(event) => writeln!(out, "{}", line_of(&event))?,
                Err(_of_another_version) => writeln!(out, "{text}")?,
            },
        }
        out.flush()?;
        left = left.map(|left| left - 1);
        if left == Some(0) {
            break;
        }
    }
    Ok(())
}

/// One event on one line.
fn line_of(event: &MonitorEvent) -> String {
    match event {
        MonitorEvent::Drop(drop) => {
            format!(
                "{} drop  {} {}{} {}",
                drop.time.time_of_day(),
                drop.reason,
                drop.direction,
                rules(&drop.decided_by, drop.cookie),
                packet(&drop.packet)
            )
        }
        MonitorEvent::Trace(trace) => {
            format!(
                "{} trace {} {} {}",
                trace.time.time_of_day(),
                trace.point,
                trace.reason,
                packet(&trace.packet)
            )
        }
        MonitorEvent::PolicyVerdict(verdict) => {
            let reason =
                if verdict.reason.is_empty() { String::new() } else { format!(" ({})", verdict.reason) };
            let staged = if verdict.staged.is_empty() {
                String::new()
            } else {
                format!(" staged {}{}", verdict.staged, rules(&verdict.staged_by, verdict.staged_cookie))
            };
            format!(
                "{} policy {}{reason} {} match {}{}{staged} {}",
                verdict.time.time_of_day(),
                verdict.verdict,
                verdict.direction,
                verdict.match_type,
                rules(&verdict.decided_by, verdict.cookie),
                packet(&verdict.packet)
            )
        }
        MonitorEvent::Debug(debug) => {
            format!(
                "{} debug endpoint {} code {} {:?}",
                debug.time.time_of_day(),
                debug.endpoint,
                debug.code,
                debug.args
            )
        }
        MonitorEvent::Lost(lost) => {
            format!("{} lost  {} events ({})", lost.time.time_of_day(), lost.count, lost.place)
        }
    }
}

/// The rules that decided, if any did; where they are not known what stands for them.
fn rules(names: &[String], cookie: u32) -> String {
    match (names, cookie) {
        ([], 0) => String::new(),
        ([], cookie) => format!(" cookie {cookie}"),
        (names, _) => format!(" by {}", names.join(", ")),
    }
}

/// `endpoint 12 10.11.1.5:4242 (init) -> 10.11.2.7:8080 (remote-node) tcp SYN 74 bytes`
fn packet(packet: &PacketInfo) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let mut add = |part: std::fmt::Arguments<'_>| text.write_fmt(part).expect("a String takes any text");
    match (packet.endpoint, packet.to_endpoint) {
        (0, 0) => add(format_args!("node")),
        (0, to) => add(format_args!("to endpoint {to}")),
        (from, 0) => add(format_args!("endpoint {from}")),
        (from, to) if from == to => add(format_args!("endpoint {from}")),
        (from, to) => add(format_args!("endpoint {from} to {to}")),
    }
    if let (Some(source), Some(destination)) = (packet.source, packet.destination) {
        add(format_args!(
            " {} ({}) -> {} ({})",
            end(source, packet.source_port),
            who(&packet.source_pod, &packet.source_labels, packet.source_identity),
            end(destination, packet.destination_port),
            who(&packet.destination_pod, &packet.destination_labels, packet.destination_identity)
        ));
    }
    for part in [&packet.protocol, &packet.detail] {
        if !part.is_empty() {
            add(format_args!(" {part}"));
        }
    }
    add(format_args!(" {} bytes", packet.length));
    text
}

/// A pod by its name, others by their labels; and the number of the identity, or the name of a reserved one.
fn who(pod: &str, labels: &[String], number: u32) -> String {
    let number_or_name = identity(number);
    match (pod, labels) {
        ("", labels) if labels.is_empty() || number_or_name.parse::<u32>().is_err() => number_or_name,
        ("", labels) => format!("{number_or_name} {}", labels.join(",")),
        (pod, _) => format!("{number_or_name} {pod}"),
    }
}

fn end(ip: IpAddr, port: Option<u16>) -> String {
    match (ip, port) {
        (ip, None) => ip.to_string(),
        (IpAddr::V4(ip), Some(port)) => format!("{ip}:{port}"),
        (IpAddr::V6(ip), Some(port)) => format!("[{ip}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::line_of;
    use agent_api::Timestamp;
    use agent_api::monitor::{
        DropEvent, LostEvent, MonitorEvent, PacketInfo, PolicyVerdictEvent, TraceEvent,
    };

    fn packet() -> PacketInfo {
        PacketInfo {
            endpoint: 12,
            source_identity: 5,
            destination_identity: 300,
            length: 74,
            source: Some("10.11.1.5".parse().unwrap()),
            destination: Some("10.11.2.7".parse().unwrap()),
            source_port: Some(4242),
            destination_port: Some(8080),
            protocol: "tcp".into(),
            detail: "SYN".into(),
            ..PacketInfo::default()
        }
    }

    #[test]
    fn a_drop_fits_on_a_line() {
        let drop = DropEvent {
            time: Timestamp::from_unix_nanos(43_201_123_000_000),
            reason: "POLICY_DENIED".into(),
            direction: "egress".into(),
            packet: packet(),
            ..DropEvent::default()
        };
        assert_eq!(
            line_of(&MonitorEvent::Drop(drop)),
            "12:00:01.123 drop  POLICY_DENIED egress endpoint 12 10.11.1.5:4242 (init) -> 10.11.2.7:8080 (300) tcp SYN 74 bytes"
        );
    }

    #[test]
    fn what_is_known_by_name_is_named() {
        let drop = DropEvent {
            reason: "POLICY_DENIED".into(),
            direction: "ingress".into(),
            cookie: 9,
            decided_by: vec![
                "NetworkPolicy/shop/db isolates".into(),
                "NetworkPolicy/shop/all isolates".into(),
            ],
            packet: PacketInfo {
                source_labels: vec!["reserved:init".into()],
                destination_pod: "shop/db-0".into(),
                destination_labels: vec!["k8s:app=db".into()],
                ..packet()
            },
            ..DropEvent::default()
        };
        assert_eq!(
            line_of(&MonitorEvent::Drop(drop)),
            "00:00:00.000 drop  POLICY_DENIED ingress by NetworkPolicy/shop/db isolates, NetworkPolicy/shop/all isolates \
             endpoint 12 10.11.1.5:4242 (init) -> 10.11.2.7:8080 (300 shop/db-0) tcp SYN 74 bytes"
        );
        let verdict = PolicyVerdictEvent {
            direction: "ingress".into(),
            verdict: "allowed".into(),
            match_type: "all".into(),
            staged: "deny".into(),
            staged_cookie: 8,
            staged_by: vec!["CiliumNetworkPolicy/shop/db ingressDeny[0]".into()],
            packet: PacketInfo { destination_labels: vec!["k8s:app=db".into()], ..packet() },
            ..PolicyVerdictEvent::default()
        };
        assert_eq!(
            line_of(&MonitorEvent::PolicyVerdict(verdict)),
            "00:00:00.000 policy allowed ingress match all staged deny by CiliumNetworkPolicy/shop/db ingressDeny[0] \
             endpoint 12 10.11.1.5:4242 (init) -> 10.11.2.7:8080 (300 k8s:app=db) tcp SYN 74 bytes"
        );
    }

    #[test]
    fn a_verdict_says_by_which_rules() {
        let verdict = PolicyVerdictEvent {
            direction: "ingress".into(),
            verdict: "denied".into(),
            reason: "POLICY_DENY".into(),
            match_type: "L3-L4".into(),
            cookie: 7,
            staged: "allow".into(),
            staged_cookie: 8,
            packet: packet(),
            ..PolicyVerdictEvent::default()
        };
        assert_eq!(
            line_of(&MonitorEvent::PolicyVerdict(verdict.clone())),
            "00:00:00.000 policy denied (POLICY_DENY) ingress match L3-L4 cookie 7 staged allow cookie 8 \
             endpoint 12 10.11.1.5:4242 (init) -> 10.11.2.7:8080 (300) tcp SYN 74 bytes"
        );
        let allowed = PolicyVerdictEvent {
            verdict: "allowed".into(),
            reason: String::new(),
            match_type: "all".into(),
            cookie: 0,
            staged: String::new(),
            ..verdict
        };
        assert!(
            line_of(&MonitorEvent::PolicyVerdict(allowed))
                .contains(" policy allowed ingress match all endpoint 12")
        );
    }

    #[test]
    fn ipv6_ends_have_brackets_and_packets_without_addresses_none() {
        let source = Some("fd00::1".parse().unwrap());
        let trace = TraceEvent {
            point: "to-endpoint".into(),
            packet: PacketInfo { source, ..packet() },
            ..TraceEvent::default()
        };
        assert!(line_of(&MonitorEvent::Trace(trace)).contains("[fd00::1]:4242 (init)"));
        let trace = TraceEvent { point: "from-host".into(), reason: "new".into(), ..TraceEvent::default() };
        assert_eq!(line_of(&MonitorEvent::Trace(trace)), "00:00:00.000 trace from-host new node 0 bytes");
        let lost = LostEvent { count: 7, place: "reader".into(), ..LostEvent::default() };
        assert_eq!(line_of(&MonitorEvent::Lost(lost)), "00:00:00.000 lost  7 events (reader)");
    }
}
