//! The rules of kube-proxy's nftables mode, in the structure that its documentation describes (kubernetes.io, "Virtual IPs and Service
//! Proxies"; KEP-3866): one look-up in a verdict map leads to the chain of the service, which draws the chain of an endpoint, which
//! translates.

use std::fmt::Write as _;

use super::model::{Place, Service};

/// All of it, for `nft -f`.
pub fn rules(services: &[Service], place: &Place) -> String {
    let mut chains = String::new();
    let (mut cluster_ips, mut by_address, mut by_node_port) = (Vec::new(), Vec::new(), Vec::new());
    for service in services {
        let (name, address, port) = (name(service), service.address, service.port);
        cluster_ips.push(address.to_string());
        by_address.push(format!("{address} . tcp . {port} : goto service-{name}"));
        let drawn = (0..service.endpoints.len())
            .map(|k| format!("{k} : goto {}", endpoint(service, k)))
            .collect::<Vec<_>>()
            .join(", ");
        // Writing to a string cannot fail.
        let _: std::fmt::Result = writeln!(
            chains,
            " chain service-{name} {{\n  ip daddr {address} tcp dport {port} ip saddr != {} jump mark-for-masquerade\n  \
             numgen random mod {} vmap {{ {drawn} }}\n }}",
            place.pods,
            service.endpoints.len(),
        );
        for (k, to) in service.endpoints.iter().enumerate() {
            let _: std::fmt::Result = writeln!(
                chains,
                " chain {} {{\n  ip saddr {} jump mark-for-masquerade\n  meta l4proto tcp dnat to {to}\n }}",
                endpoint(service, k),
                to.ip(),
            );
        }
        if let Some(node_port) = service.node_port {
            by_node_port.push(format!("tcp . {node_port} : goto external-{name}"));
            let _: std::fmt::Result = writeln!(
                chains,
                " chain external-{name} {{\n  jump mark-for-masquerade\n  goto service-{name}\n }}",
            );
        }
    }
    let by_address_type = "type ipv4_addr . inet_proto . inet_service : verdict;";
    let by_port_type = "type inet_proto . inet_service : verdict;";
    format!(
        "table ip kube-proxy {{
{MASQUERADE}{chains} set cluster-ips {{ type ipv4_addr; {} }}
 set nodeport-ips {{ type ipv4_addr; {} }}
 map no-endpoint-services {{ {by_address_type} }}
 map no-endpoint-nodeports {{ {by_port_type} }}
 map firewall-ips {{ {by_address_type} }}
 map service-ips {{ {by_address_type} {} }}
 map service-nodeports {{ {by_port_type} {} }}
{BASE}}}
",
        elements(&cluster_ips),
        elements(&[place.node.to_string()]),
        elements(&by_address),
        elements(&by_node_port),
    )
}

/// Who has no way back through this node is masqueraded.
const MASQUERADE: &str = " chain mark-for-masquerade {
  meta mark set meta mark | 0x4000
 }
 chain masquerading {
  meta mark & 0x4000 == 0 return
  meta mark set meta mark ^ 0x4000
  masquerade fully-random
 }
";

/// Where packets come in. Only first packets of connections come to chains of type nat.
const BASE: &str = " chain services {
  ip daddr . meta l4proto . th dport vmap @service-ips
  ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
 }
 chain service-endpoints-check {
  ip daddr . meta l4proto . th dport vmap @no-endpoint-services
 }
 chain nodeport-endpoints-check {
  ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
 }
 chain firewall-check {
  ip daddr . meta l4proto . th dport vmap @firewall-ips
 }
 chain cluster-ips-check {
  ip daddr @cluster-ips reject
 }
 chain filter-prerouting-pre-dnat {
  type filter hook prerouting priority -110;
  ct state new jump firewall-check
 }
 chain filter-input {
  type filter hook input priority -110;
  ct state new jump nodeport-endpoints-check
  ct state new jump service-endpoints-check
 }
 chain filter-forward {
  type filter hook forward priority -110;
  ct state new jump service-endpoints-check
  ct state new jump cluster-ips-check
 }
 chain filter-output {
  type filter hook output priority -110;
  ct state new jump service-endpoints-check
  ct state new jump firewall-check
 }
 chain filter-output-post-dnat {
  type filter hook output priority -90;
  ct state new jump cluster-ips-check
 }
 chain nat-prerouting {
  type nat hook prerouting priority -100;
  jump services
 }
 chain nat-output {
  type nat hook output priority -100;
  jump services
 }
 chain nat-postrouting {
  type nat hook postrouting priority 100;
  jump masquerading
 }
";

fn name(service: &Service) -> String {
    format!("{}-bench/{}/tcp/http", service.hash(), service.name)
}

fn endpoint(service: &Service, k: usize) -> String {
    let to = service.endpoints.get(k).map(|to| format!("{}/{}", to.ip(), to.port())).unwrap_or_default();
    format!("endpoint-{}__{to}", name(service))
}

fn elements(all: &[String]) -> String {
    if all.is_empty() { String::new() } else { format!("elements = {{ {} }}", all.join(",\n")) }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{PLACE, two};
    use super::*;

    #[test]
    fn a_map_leads_to_the_service_which_draws_an_endpoint_which_translates() {
        let text = rules(&two(), &PLACE);
        let other = "0A601001-bench/service-1/tcp/http";
        let called = "0A601002-bench/called/tcp/http";
        for part in [
            format!(
                "map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ 10.96.16.1 . tcp . 5000 : goto service-{other},\n10.96.16.2 . tcp . 5000 : goto service-{called} }} }}"
            ),
            format!(
                "chain service-{other} {{\n  ip daddr 10.96.16.1 tcp dport 5000 ip saddr != 10.10.0.0/16 jump mark-for-masquerade\n  numgen random mod 2 vmap {{ 0 : goto endpoint-{other}__10.20.0.1/8080, 1 : goto endpoint-{other}__10.21.0.1/8080 }}\n }}"
            ),
            format!(
                "chain endpoint-{called}__10.10.1.3/5000 {{\n  ip saddr 10.10.1.3 jump mark-for-masquerade\n  meta l4proto tcp dnat to 10.10.1.3:5000\n }}"
            ),
            format!(
                "map service-nodeports {{ type inet_proto . inet_service : verdict; elements = {{ tcp . 30500 : goto external-{called} }} }}"
            ),
            format!("chain external-{called} {{\n  jump mark-for-masquerade\n  goto service-{called}\n }}"),
            "set nodeport-ips { type ipv4_addr; elements = { 192.168.50.1 } }".to_owned(),
            "set cluster-ips { type ipv4_addr; elements = { 10.96.16.1,\n10.96.16.2 } }".to_owned(),
        ] {
            assert!(text.contains(&part), "{part}\nis not in\n{text}");
        }
        // What is jumped to stands before who jumps to it, and braces close.
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert_eq!(text.matches("chain endpoint-").count(), 3);
    }

    #[test]
    fn maps_without_elements_have_none() {
        let mut services = two();
        services.retain(|service| service.node_port.is_none());
        let text = rules(&services, &PLACE);
        assert!(
            text.contains("map service-nodeports { type inet_proto . inet_service : verdict;  }"),
            "{text}"
        );
    }
}
