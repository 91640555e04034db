//! `bristle service list` and `bristle bpf lb list` as text for people.

use crate::table::Table;
use agent_api::{LbBackend, LbFrontend, Service, ServiceFrontend};

/// What is the same for all endpoints of a service's port, in words.
fn notes(service: &Service) -> String {
    let notes = [
        service.affinity_s.map(|seconds| format!("affinity {seconds}s")),
        service.node.as_ref().map(|node| format!("{node} only")),
        service.hinted.then(|| "by hints".to_owned()),
        service.ending.then(|| "none is ready".to_owned()),
    ];
    notes.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// How a service is called; what is not said is a cluster IP.
fn frontend(frontend: &ServiceFrontend) -> String {
    match (frontend.kind.as_str(), frontend.outside) {
        ("ClusterIP", _) => frontend.address.to_string(),
        (kind, false) => format!("{} ({kind})", frontend.address),
        (kind, true) => format!("{} ({kind} from outside)", frontend.address),
    }
}

/// `bristle service list`
pub(crate) fn services(services: &[Service]) -> String {
    let mut table = Table::new(&["SERVICE", "PORT", "PROTO", "FRONTENDS", "BACKENDS", "NOTES"]);
    for service in services {
        let backends = service.backends.iter().map(|backend| match backend.state.as_str() {
            "active" => backend.address.to_string(),
            state => format!("{} ({state})", backend.address),
        });
        table.row([
            format!("{}/{}", service.namespace, service.name),
            service.port.clone(),
            service.protocol.clone(),
            service.frontends.iter().map(frontend).collect::<Vec<_>>().join(", "),
            backends.collect::<Vec<_>>().join(", "),
            notes(service),
        ]);
    }
    table.to_string()
}

/// `bristle bpf lb list`
pub(crate) fn frontends(frontends: &[LbFrontend]) -> String {
    let mut table = Table::new(&[
        "FRONTEND", "PROTO", "SCOPE", "SERVICE", "AFFINITY", "SLOT", "BACKEND", "ADDRESS", "STATE",
    ]);
    for frontend in frontends {
        let affinity =
            if frontend.affinity_s == 0 { String::new() } else { format!("{}s", frontend.affinity_s) };
        let mut row = |backend: Option<&LbBackend>| {
            let of = |text: fn(&LbBackend) -> String| backend.map(text).unwrap_or_default();
            table.row([
                frontend.frontend.to_string(),
                frontend.protocol.clone(),
                frontend.scope.clone(),
                frontend.service.to_string(),
                affinity.clone(),
                of(|backend| backend.slot.to_string()),
                of(|backend| backend.id.to_string()),
                of(|backend| backend.address.map(|address| address.to_string()).unwrap_or_default()),
                of(|backend| backend.state.clone()),
            ]);
        };
        if frontend.backends.is_empty() {
            row(None);
        }
        frontend.backends.iter().for_each(|backend| row(Some(backend)));
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::{frontends, services};
    use agent_api::{LbBackend, LbFrontend, Service, ServiceBackend, ServiceFrontend};

    #[test]
    fn services_are_a_table() {
        let backend = |address: &str, state: &str| ServiceBackend {
            address: address.parse().unwrap(),
            state: state.to_owned(),
        };
        let way = |address: &str, kind: &str, outside| ServiceFrontend {
            address: address.parse().unwrap(),
            kind: kind.to_owned(),
            outside,
        };
        let service = Service {
            namespace: "shop".into(),
            name: "web".into(),
            protocol: "tcp".into(),
            frontends: vec![
                way("10.96.0.1:80", "ClusterIP", false),
                way("0.0.0.0:30080", "NodePort", false),
                way("192.0.2.1:80", "LoadBalancer", true),
            ],
            backends: vec![backend("10.1.0.1:8080", "active"), backend("10.1.0.2:8080", "terminating")],
            affinity_s: Some(30),
            node: Some("node-1".into()),
            ..Service::default()
        };
        assert_eq!(
            services(&[service]),
            "SERVICE   PORT  PROTO  FRONTENDS                                                                         BACKENDS                                    NOTES\n\
             shop/web  -     tcp    10.96.0.1:80, 0.0.0.0:30080 (NodePort), 192.0.2.1:80 (LoadBalancer from outside)  10.1.0.1:8080, 10.1.0.2:8080 (terminating)  affinity 30s, node-1 only\n"
        );
    }

    #[test]
    fn a_frontend_has_a_line_for_each_slot_or_one() {
        let backend =
            LbBackend { slot: 1, id: 7, address: "10.1.0.1:53".parse().ok(), state: "active".into() };
        let frontend = |backends| LbFrontend {
            frontend: "10.96.0.1:53".parse().unwrap(),
            protocol: "udp".into(),
            scope: "internal".into(),
            service: 5,
            affinity_s: 0,
            backends,
        };
        assert_eq!(
            frontends(&[frontend(vec![backend]), frontend(vec![])]),
            "FRONTEND      PROTO  SCOPE     SERVICE  AFFINITY  SLOT  BACKEND  ADDRESS      STATE\n\
             10.96.0.1:53  udp    internal  5        -         1     7        10.1.0.1:53  active\n\
             10.96.0.1:53  udp    internal  5        -         -     -        -            -\n"
        );
    }
}
