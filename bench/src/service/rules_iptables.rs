//! The rules of kube-proxy's iptables mode, in the structure that its documentation describes (kubernetes.io, "Virtual IPs and Service
//! Proxies"): a list with one rule for each service, which leads to the chain of the service, which draws the chain of an endpoint by
//! chance, which translates.

use super::model::{Place, Service};

/// All of it, for `iptables-restore`.
pub fn rules(services: &[Service], place: &Place) -> String {
    let (mut chains, mut list, mut at_nodes, mut rules) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for service in services {
        let (svc, title) = (format!("KUBE-SVC-{}", long(&service.hash())), service.title());
        let is_it = format!("-m tcp -p tcp -d {} --dport {}", service.address, service.port);
        chains.push(format!(":{svc} - [0:0]"));
        list.push(format!("-A KUBE-SERVICES -m comment --comment \"{title} cluster IP\" {is_it} -j {svc}"));
        rules.push(format!(
            "-A {svc} -m comment --comment \"{title} cluster IP\" {is_it} ! -s {} -j KUBE-MARK-MASQ",
            place.pods
        ));
        if let Some(node_port) = service.node_port {
            let ext = format!("KUBE-EXT-{}", long(&service.hash()));
            chains.push(format!(":{ext} - [0:0]"));
            at_nodes.push(format!(
                "-A KUBE-NODEPORTS -m comment --comment {title} -m tcp -p tcp --dport {node_port} -j {ext}"
            ));
            rules.push(format!(
                "-A {ext} -m comment --comment \"masquerade traffic for {title} external destinations\" -j KUBE-MARK-MASQ"
            ));
            rules.push(format!("-A {ext} -j {svc}"));
        }
        let mut seps = Vec::new();
        for (k, to) in service.endpoints.iter().enumerate() {
            let sep = format!("KUBE-SEP-{}", long(&format!("{}{k}", service.hash())));
            chains.push(format!(":{sep} - [0:0]"));
            let left = service.endpoints.len() - k;
            let chance = match u32::try_from(left) {
                // The last one has all that is left.
                Ok(..=1) | Err(_) => String::new(),
                Ok(left) => {
                    format!(" -m statistic --mode random --probability {:.11}", 1.0 / f64::from(left))
                }
            };
            rules.push(format!("-A {svc} -m comment --comment \"{title} -> {to}\"{chance} -j {sep}"));
            seps.push(format!("-A {sep} -m comment --comment {title} -s {} -j KUBE-MARK-MASQ", to.ip()));
            seps.push(format!(
                "-A {sep} -m comment --comment {title} -m tcp -p tcp -j DNAT --to-destination {to}"
            ));
        }
        rules.extend(seps);
    }
    let at_the_end = "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" \
                      -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS";
    [
        &[FILTER, NAT_CHAINS][..],
        &chains.iter().map(String::as_str).collect::<Vec<_>>(),
        &[NAT_RULES],
        &at_nodes.iter().chain(&list).map(String::as_str).collect::<Vec<_>>(),
        &[at_the_end],
        &rules.iter().map(String::as_str).collect::<Vec<_>>(),
        &["COMMIT", ""],
    ]
    .concat()
    .join("\n")
}

const FILTER: &str = "*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT";

const NAT_CHAINS: &str = "*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]";

const NAT_RULES: &str = "-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully";

/// Sixteen characters, as hashes of names are in chains' names.
fn long(hash: &str) -> String {
    format!("{hash:X>16}")
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{PLACE, two};
    use super::*;

    #[test]
    fn a_list_leads_to_the_service_which_draws_an_endpoint_which_translates() {
        let text = rules(&two(), &PLACE);
        let lines: Vec<&str> = text.lines().collect();
        let at = |line: &str| {
            lines.iter().position(|its| *its == line).unwrap_or_else(|| panic!("{line}\nis not in\n{text}"))
        };
        let svc = "KUBE-SVC-XXXXXXXX0A601001";
        let seps = ["KUBE-SEP-XXXXXXX0A6010010", "KUBE-SEP-XXXXXXX0A6010011"];
        let title = "bench/service-1:http";
        let order = [
            format!(":{svc} - [0:0]"),
            format!(
                "-A KUBE-SERVICES -m comment --comment \"{title} cluster IP\" -m tcp -p tcp -d 10.96.16.1 --dport 5000 -j {svc}"
            ),
            format!(
                "-A {svc} -m comment --comment \"{title} cluster IP\" -m tcp -p tcp -d 10.96.16.1 --dport 5000 ! -s 10.10.0.0/16 -j KUBE-MARK-MASQ"
            ),
            format!(
                "-A {svc} -m comment --comment \"{title} -> 10.20.0.1:8080\" -m statistic --mode random --probability 0.50000000000 -j {}",
                seps[0]
            ),
            format!("-A {svc} -m comment --comment \"{title} -> 10.21.0.1:8080\" -j {}", seps[1]),
            format!("-A {} -m comment --comment {title} -s 10.21.0.1 -j KUBE-MARK-MASQ", seps[1]),
            format!(
                "-A {} -m comment --comment {title} -m tcp -p tcp -j DNAT --to-destination 10.21.0.1:8080",
                seps[1]
            ),
        ];
        assert!(order.iter().map(|line| at(line)).is_sorted());
        // The called one is the last of the list, and node ports come after all of it.
        let of_list = lines.iter().filter(|line| line.starts_with("-A KUBE-SERVICES")).collect::<Vec<_>>();
        assert_eq!(of_list.len(), 3);
        assert!(of_list[1].contains("-d 10.96.16.2") && of_list[2].ends_with("-j KUBE-NODEPORTS"));
        let ext = "KUBE-EXT-XXXXXXXX0A601002";
        at(&format!(
            "-A KUBE-NODEPORTS -m comment --comment bench/called:http -m tcp -p tcp --dport 30500 -j {ext}"
        ));
        at(&format!("-A {ext} -j KUBE-SVC-XXXXXXXX0A601002"));
        assert_eq!(lines.iter().filter(|line| **line == "COMMIT").count(), 2);
    }

    #[test]
    fn names_of_chains_fit_what_the_kernel_allows() {
        let text = rules(&two(), &PLACE);
        let names = text.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        // XT_EXTENSION_MAXNAMELEN less the terminating zero.
        assert!(names.map(str::len).all(|length| length <= 28));
    }
}
