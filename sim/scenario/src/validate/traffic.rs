//! Is the traffic possible?

use super::Walk;
use super::objects::PodKey;
use crate::model::{AnsweredBy, Families, Place, Serve, ServeKind, Traffic, TrafficExpect, TrafficKind};

const MOST_BYTES: u16 = 65_000;

pub(super) fn check(walk: &mut Walk<'_>, traffic: &Traffic) {
    if traffic.id.is_empty() {
        walk.wrong("traffic.id", "traffic has an id that is not empty");
    }
    if !walk.objects.traffic.insert(traffic.id.clone()) {
        walk.wrong("traffic.id", format!("the id `{}` is used by earlier traffic", traffic.id));
    }
    if !matches!(traffic.from, Place::Pod { .. } | Place::Node(_)) {
        walk.wrong("traffic.from", format!("`{}` cannot send: only pods and nodes can", traffic.from));
    }
    walk.place("traffic.from", &traffic.from);
    walk.place("traffic.to", &traffic.to);
    port(walk, traffic);
    family(walk, traffic);
    numbers(walk, traffic);
    served(walk, traffic);
    answered(walk, traffic);
}

/// Who answers, and whom they see, is told over HTTP alone.
fn answered(walk: &mut Walk<'_>, traffic: &Traffic) {
    for (field, asked) in
        [("answered-by", traffic.answered_by.is_some()), ("seen-as", traffic.seen_as.is_some())]
    {
        if asked && traffic.kind != TrafficKind::Http {
            walk.wrong(&format!("traffic.{field}"), "who answers is known of `http` alone");
        }
    }
    for pod in traffic.answered_by.iter().flat_map(AnsweredBy::pods) {
        let key = PodKey::parse(pod);
        if !walk.objects.has_known(&key) {
            walk.wrong("traffic.answered-by", format!("there was never a pod `{key}` before this step"));
        }
    }
    match &traffic.seen_as {
        Some(place @ (Place::Pod { .. } | Place::Node(_))) => walk.place("traffic.seen-as", place),
        Some(place) => {
            walk.wrong("traffic.seen-as", format!("`{place}` is nobody's: only pods and nodes are seen"));
        }
        None => {}
    }
}

fn port(walk: &mut Walk<'_>, traffic: &Traffic) {
    match (traffic.kind, traffic.port) {
        (TrafficKind::Ping, Some(_)) => walk.wrong("traffic.port", "a ping has no port"),
        (TrafficKind::Ping, None) if matches!(traffic.to, Place::NodePort(_)) => {
            walk.wrong("traffic.to", "a node port cannot be pinged");
        }
        (TrafficKind::Ping, None) => {}
        (_, None) => walk.wrong("traffic", "`port` is missing: only a ping has none"),
        (_, Some(0)) => walk.wrong("traffic.port", "a port is 1 to 65535"),
        (_, Some(_)) => {}
    }
}

fn family(walk: &mut Walk<'_>, traffic: &Traffic) {
    let cluster = walk.scenario.cluster.family;
    let of_address = match &traffic.to {
        Place::Address(address) if address.is_ipv4() => Some(Families::V4),
        Place::Address(_) => Some(Families::V6),
        _ => None,
    };
    let lacks = |family: Families| cluster != Families::Dual && cluster != family;
    if let Some(family) = traffic.family {
        if lacks(family) {
            walk.wrong("traffic.family", format!("the cluster is {} alone", word(cluster)));
        } else if of_address.is_some_and(|of| of != family) {
            walk.wrong("traffic.family", format!("{} is no address of {}", traffic.to, word(family)));
        }
    } else if let Some(of) = of_address.filter(|of| lacks(*of)) {
        walk.wrong(
            "traffic.to",
            format!("{} is {}, the cluster is {} alone", traffic.to, word(of), word(cluster)),
        );
    }
}

const fn word(family: Families) -> &'static str {
    match family {
        Families::V4 => "IPv4",
        Families::V6 => "IPv6",
        Families::Dual => "both families",
    }
}

fn numbers(walk: &mut Walk<'_>, traffic: &Traffic) {
    if traffic.count == 0 {
        walk.wrong("traffic.count", "a count is at least 1");
    }
    if traffic.size > MOST_BYTES {
        walk.wrong("traffic.size", format!("{} bytes are too many: 0 to {MOST_BYTES}", traffic.size));
    }
    if traffic.timeout.is_zero() {
        walk.wrong("traffic.timeout", "nothing is answered in no time");
    }
}

/// Whether something listens that can answer, if an answer is expected.
fn served(walk: &mut Walk<'_>, traffic: &Traffic) {
    let (Place::Pod { namespace, name }, Some(port)) = (&traffic.to, traffic.port) else {
        return;
    };
    let key = PodKey::new(namespace, name);
    let Some(serves) = walk.objects.serves(&key) else {
        return;
    };
    let answers = answered_by(serves, traffic.kind, port);
    let expected = matches!(traffic.expect, TrafficExpect::Ok | TrafficExpect::Survive);
    if expected && !answers && port != 0 && traffic.kind != TrafficKind::Ping {
        let wanted = Serve { kind: server_of(traffic.kind), port };
        walk.wrong("traffic.port", format!("nothing in pod `{key}` answers: it does not serve `{wanted}`"));
    }
}

/// Whether one of the servers answers such traffic.
pub(crate) fn answered_by(serves: &[Serve], kind: TrafficKind, port: u16) -> bool {
    serves.contains(&Serve { kind: server_of(kind), port })
}

const fn server_of(kind: TrafficKind) -> ServeKind {
    match kind {
        TrafficKind::Http => ServeKind::Http,
        TrafficKind::Udp => ServeKind::Udp,
        TrafficKind::Tcp | TrafficKind::Ping => ServeKind::Tcp,
    }
}
