//! Services and their `EndpointSlices`.
//!
//! Numbers that are none make the object unreadable, so that what was in force of it stays. What is of no use here is left out:
//! names in place of addresses, other protocols. A word that is not known yet means what its absence means.

use std::collections::BTreeMap;
use std::net::IpAddr;

use agent_policy::proto;
use serde::Deserialize;

use super::Metadata;
use crate::objects::{ServiceObject, ServicePort, SliceEndpoint, SliceObject};

/// Label of an `EndpointSlice` with the name of its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Label of a service that is left to the proxy that it names.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// Label of a service that nobody serves although it has an address.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Seconds for which a client stays with its backend unless the service says otherwise: three hours.
const AFFINITY_S: u32 = 10_800;

#[derive(Deserialize)]
pub(super) struct Service {
    metadata: Metadata,
    #[serde(default)]
    spec: ServiceSpec,
    #[serde(default)]
    status: ServiceStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: Option<LoadBalancerStatus>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LoadBalancerStatus {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    ip: Option<IpText>,
    ip_mode: Option<String>,
}

/// An address in an object; where it is none, as where a load balancer has names alone, nothing is reached at it.
#[derive(Deserialize)]
#[serde(transparent)]
struct IpText(String);

impl IpText {
    fn read(&self) -> Option<IpAddr> {
        self.0.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    // The API allows null for all of these.
    selector: Option<BTreeMap<String, String>>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    ports: Option<Vec<Port>>,
    internal_traffic_policy: Option<String>,
    external_traffic_policy: Option<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<IpText>>,
    health_check_node_port: Option<u16>,
    session_affinity: Option<String>,
    session_affinity_config: Option<AffinityConfig>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientIp>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClientIp {
    timeout_seconds: Option<u32>,
}

/// A port of a service or of a slice.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Port {
    name: Option<Box<str>>,
    protocol: Option<String>,
    #[serde(rename = "port")]
    number: Option<u16>,
    #[serde(rename = "nodePort")]
    at_nodes: Option<u16>,
}

impl Port {
    fn is_tcp(&self) -> bool {
        self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    }

    /// As it is translated. A slice's port without number stands for "no restriction", which means nothing to a service.
    fn read(self) -> Option<ServicePort> {
        let proto = match self.protocol.as_deref() {
            None | Some("TCP") => proto::TCP,
            Some("UDP") => proto::UDP,
            Some(_) => return None,
        };
        let node_port = self.at_nodes.filter(|port| *port != 0);
        Some(ServicePort { name: self.name.unwrap_or_default(), proto, port: self.number?, node_port })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slice {
    metadata: Metadata,
    #[serde(default)]
    address_type: Option<String>,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    addresses: Vec<String>,
    conditions: Option<Conditions>,
    node_name: Option<Box<str>>,
    hints: Option<Hints>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Hints {
    for_zones: Option<Vec<Named>>,
    for_nodes: Option<Vec<Named>>,
}

#[derive(Deserialize)]
struct Named {
    name: Box<str>,
}

fn names(list: Option<Vec<Named>>) -> Box<[Box<str>]> {
    list.into_iter().flatten().map(|named| named.name).collect()
}

/// A list without room for more: there are many of them, and they stay as they are.
fn exact<T>(elements: impl Iterator<Item = T>) -> Vec<T> {
    elements.collect::<Box<[T]>>().into_vec()
}

impl From<Service> for ServiceObject {
    fn from(service: Service) -> Self {
        let Service { metadata, spec, status } = service;
        let is = |kind: &str| spec.kind.as_deref() == Some(kind);
        let is_left = [PROXY_NAME, HEADLESS].iter().any(|label| metadata.labels.contains_key(*label));
        let is_anothers = is("ExternalName") || is_left;
        // What an earlier type has left says nothing.
        let (is_balanced, has_node_ports) = (is("LoadBalancer"), is("NodePort") || is("LoadBalancer"));
        let ports = spec.ports.into_iter().flatten().filter_map(Port::read);
        let ports =
            ports.map(|port| ServicePort { node_port: port.node_port.filter(|_| has_node_ports), ..port });
        let ingress = status.load_balancer.and_then(|status| status.ingress).into_iter().flatten();
        let ingress = ingress.filter(|ingress| is_balanced && ingress.ip_mode.as_deref() != Some("Proxy"));
        let texts = spec.cluster_ips.filter(|all| !all.is_empty());
        let texts = texts.unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
        let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let health_port = spec.health_check_node_port.filter(|port| *port != 0);
        let timeout = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
        Self {
            namespace: metadata.namespace,
            name: metadata.name,
            labels: metadata.labels.into_iter().collect(),
            selector: spec.selector.unwrap_or_default().into_iter().collect(),
            cluster_ips: texts.iter().filter_map(|text| text.parse().ok()).collect(),
            external_ips: spec.external_ips.iter().flatten().filter_map(IpText::read).collect(),
            balancer_ips: ingress.filter_map(|ingress| ingress.ip?.read()).collect(),
            created: metadata.creation_timestamp.unwrap_or_default().into(),
            ports: exact(ports),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local,
            health_port: health_port.filter(|_| is_balanced && external_local && !is_anothers),
            affinity_s: (spec.session_affinity.as_deref() == Some("ClientIP"))
                .then(|| timeout.unwrap_or(AFFINITY_S)),
            is_anothers,
        }
    }
}

impl From<Slice> for SliceObject {
    fn from(slice: Slice) -> Self {
        let Slice { mut metadata, address_type, endpoints, ports } = slice;
        let ports = ports.unwrap_or_default();
        let tcp_ports = ports.iter().filter(|port| port.is_tcp()).filter_map(|port| port.number).collect();
        // What is no address of the slice's kind is a mistake of whoever made it. Without a kind any will do.
        let is_its = |address: &IpAddr| match address_type.as_deref() {
            Some("IPv4") => address.is_ipv4(),
            Some("IPv6") => address.is_ipv6(),
            Some(_) => false,
            None => true,
        };
        let endpoints = endpoints.into_iter().flatten().filter_map(Endpoint::read);
        let endpoints = exact(endpoints.filter(|e| is_its(&e.address)));
        Self {
            addresses: endpoints.iter().map(|endpoint| endpoint.address).collect(),
            tcp_ports,
            ports: exact(ports.into_iter().filter_map(Port::read)),
            endpoints,
            service: metadata.labels.remove(SERVICE_NAME).unwrap_or_default(),
            namespace: metadata.namespace,
            name: metadata.name,
        }
    }
}

impl Endpoint {
    /// Of several addresses only the first counts.
    fn read(self) -> Option<SliceEndpoint> {
        let address = self.addresses.first()?.parse().ok()?;
        let conditions = self.conditions.unwrap_or_default();
        let hints = self.hints.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        Some(SliceEndpoint {
            address,
            node: self.node_name.unwrap_or_default(),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            zones: names(hints.for_zones),
            nodes: names(hints.for_nodes),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::few::Few;
    use crate::objects::{Object, ObjectKind};

    fn service(spec: &Value) -> ServiceObject {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": spec,
        });
        let Some(Object::Service(service)) = Object::read(ObjectKind::Service, &object).unwrap() else {
            panic!()
        };
        service
    }

    fn slice(object: &Value) -> SliceObject {
        let Some(Object::EndpointSlice(slice)) = Object::read(ObjectKind::EndpointSlice, object).unwrap()
        else {
            panic!()
        };
        slice
    }

    #[test]
    fn a_service_is_read_with_what_says_where_its_traffic_goes() {
        let read = service(&json!({
            "type": "ClusterIP",
            "clusterIPs": ["10.96.0.1", "fd00:96::1"],
            "ports": [
                {"name": "web", "port": 80, "targetPort": "http"},
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "sctp", "port": 7, "protocol": "SCTP"},
            ],
            "internalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP",
        }));
        let port = |name: &str, proto, port| ServicePort { name: name.into(), proto, port, node_port: None };
        assert_eq!(read.cluster_ips, Few::from(["10.96.0.1", "fd00:96::1"].map(|ip| ip.parse().unwrap())));
        assert_eq!(read.ports, [port("web", 6, 80), port("dns", 17, 53)]);
        assert_eq!((read.internal_local, read.affinity_s, read.is_anothers), (true, Some(10_800), false));
        assert_eq!(&*read.created, "2026-01-01T00:00:00Z");

        let read = service(&json!({
            "clusterIP": "10.96.0.2",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 30}},
        }));
        assert_eq!(read.cluster_ips, Few::from(["10.96.0.2".parse().unwrap()]), "as old servers said it");
        assert_eq!((read.internal_local, read.affinity_s), (false, Some(30)));
        assert!(service(&json!({"type": "ExternalName", "externalName": "x.example"})).is_anothers);
        let nothing =
            service(&json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": null, "selector": null}));
        assert_eq!((nothing.cluster_ips.len(), nothing.ports.len(), nothing.affinity_s), (0, 0, None));
    }

    #[test]
    fn a_service_is_left_to_whom_its_labels_leave_it() {
        for (label, left) in
            [(PROXY_NAME, true), (HEADLESS, true), ("service.kubernetes.io/topology-mode", false)]
        {
            let object = json!({
                "metadata": {"namespace": "shop", "name": "web", "labels": {label: ""}},
                "spec": {"clusterIP": "10.96.0.1"},
            });
            let Some(Object::Service(read)) = Object::read(ObjectKind::Service, &object).unwrap() else {
                panic!("{label}");
            };
            assert_eq!(read.is_anothers, left, "{label}");
        }
    }

    #[test]
    fn a_service_is_read_with_what_it_has_outside() {
        let object = |kind: &str| {
            json!({
                "metadata": {"namespace": "shop", "name": "web"},
                "spec": {
                    "type": kind,
                    "clusterIP": "10.96.0.1",
                    "ports": [{"name": "web", "port": 80, "nodePort": 30_080}, {"name": "admin", "port": 81, "nodePort": 0}],
                    "externalIPs": ["192.0.2.1", "2001:db8::1", "web.example"],
                    "externalTrafficPolicy": "Local",
                    "healthCheckNodePort": 32_000,
                },
                "status": {"loadBalancer": {"ingress": [
                    {"ip": "198.51.100.1"},
                    {"ip": "198.51.100.2", "ipMode": "Proxy"},
                    {"ip": "198.51.100.3", "ipMode": "VIP"},
                    {"hostname": "web.example"},
                ]}},
            })
        };
        let read = |kind| match Object::read(ObjectKind::Service, &object(kind)).unwrap() {
            Some(Object::Service(service)) => service,
            other => panic!("{other:?}"),
        };
        let addresses = |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect::<Few<IpAddr>>();
        let balanced = addresses(&["198.51.100.1", "198.51.100.3"]);
        for (kind, node_port, balancer) in [
            ("LoadBalancer", Some(30_080), balanced),
            ("NodePort", Some(30_080), addresses(&[])),
            ("ClusterIP", None, addresses(&[])),
        ] {
            let service = read(kind);
            let ports: Vec<_> = service.ports.iter().map(|port| port.node_port).collect();
            assert_eq!((ports, service.balancer_ips), (vec![node_port, None], balancer), "{kind}");
            assert_eq!(service.external_ips, addresses(&["192.0.2.1", "2001:db8::1"]));
            assert!(service.external_local && !service.internal_local);
            assert_eq!(service.health_port, (kind == "LoadBalancer").then_some(32_000), "{kind}");
        }
    }

    #[test]
    fn numbers_that_are_none_make_a_service_unreadable_and_new_words_do_not() {
        let new =
            json!({"type": "Magic", "internalTrafficPolicy": "PreferLocal", "sessionAffinity": "Cookie"});
        let read = service(&new);
        assert_eq!((read.is_anothers, read.internal_local, read.affinity_s), (false, false, None));
        for spec in [
            json!({"ports": [{"port": 70_000}]}),
            json!({"ports": [{"port": "http"}]}),
            json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": -1}}}),
        ] {
            let object = json!({"metadata": {"name": "a"}, "spec": spec});
            assert!(Object::read(ObjectKind::Service, &object).is_err(), "{object}");
        }
    }

    #[test]
    fn a_slice_is_read_with_the_first_address_of_each_endpoint() {
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "shop", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["192.0.2.1", "192.0.2.2"], "conditions": {"ready": false}},
                {"addresses": ["web.example.com"]},
                {"addresses": ["fd00::1"]},
                {"addresses": []},
            ],
        });
        assert_eq!(ObjectKind::of(&object), Some(ObjectKind::EndpointSlice));
        let read = slice(&object);
        let addresses = Few::from(["192.0.2.1".parse().unwrap()]);
        assert_eq!((read.service.as_str(), read.addresses), ("web", addresses));
        let nothing = slice(&json!({"metadata": {"name": "a"}, "endpoints": null}));
        assert_eq!((nothing.endpoints.len(), nothing.ports.len()), (0, 0));
    }

    #[test]
    fn conditions_that_are_not_known_have_their_meanings() {
        let object = json!({
            "metadata": {"name": "a"}, "addressType": "IPv6",
            "ports": [{"name": "web", "port": 8080}, {"name": "all"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
            "endpoints": [
                {"addresses": ["fd00::1"]},
                {"addresses": ["fd00::2"], "conditions": {"ready": null}, "nodeName": "node-1"},
                {"addresses": ["fd00::3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["fd00::4"], "conditions": {"ready": false}, "hints": {"forZones": [{"name": "z"}]}},
            ],
        });
        let read = slice(&object);
        let flags: Vec<_> = read.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
        assert_eq!(
            flags,
            [(true, true, false), (true, true, false), (false, true, true), (false, false, false)]
        );
        assert_eq!(&*read.endpoints[1].node, "node-1");
        assert_eq!(read.endpoints[3].zones.iter().map(|zone| &**zone).collect::<Vec<_>>(), ["z"]);
        assert_eq!(read.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [8080, 53]);
    }
}
