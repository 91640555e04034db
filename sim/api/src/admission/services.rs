//! Addresses and node ports of services.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::error::{ApiError, Cause};
use crate::object::{int_at, list_at, name, set, set_default, str_at};

/// Where nodes say whether they have endpoints of a service.
const HEALTH: [&str; 2] = ["spec", "healthCheckNodePort"];

/// What is given out.
#[derive(Debug, Clone)]
pub(crate) struct Allocator {
    /// Service ranges, the primary family first.
    pub(crate) cidrs: Vec<IpNet>,
    /// First and last node port.
    pub(crate) node_ports: (u16, u16),
}

/// What the services that are there use.
#[derive(Debug, Default)]
pub(crate) struct InUse {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<(i64, String)>,
}

impl InUse {
    /// Collects addresses and node ports of all services but the one that is being written.
    pub(crate) fn of<'a>(services: impl Iterator<Item = &'a Value>) -> Self {
        let mut used = Self::default();
        for service in services {
            used.addresses.extend(
                list_at(service, &["spec", "clusterIPs"])
                    .iter()
                    .filter_map(|v| v.as_str()?.parse::<IpAddr>().ok()),
            );
            if let Some(n) = int_at(service, &HEALTH).filter(|n| *n > 0) {
                used.ports.insert((n, "TCP".to_owned()));
            }
            for port in list_at(service, &["spec", "ports"]) {
                if let Some(n) = int_at(port, &["nodePort"]).filter(|n| *n > 0) {
                    used.ports.insert((n, str_at(port, &["protocol"]).to_owned()));
                }
            }
        }
        used
    }
}

fn family(net: &IpNet) -> &'static str {
    if net.addr().is_ipv4() { "IPv4" } else { "IPv6" }
}

impl Allocator {
    /// Gives a service its addresses and node ports and checks the ones it asks for.
    pub(crate) fn assign(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        used: &InUse,
    ) -> Result<(), ApiError> {
        let kind = str_at(service, &["spec", "type"]).to_owned();
        if kind == "ExternalName" {
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                crate::object::remove(service, &["spec", key]);
            }
            return Ok(());
        }
        self.addresses(service, used)?;
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            self.node_ports(service, old, used)?;
        } else {
            crate::object::remove(service, &HEALTH);
            for port in service.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten()
            {
                crate::object::remove(port, &["nodePort"]);
            }
        }
        Ok(())
    }

    fn addresses(&self, service: &mut Value, used: &InUse) -> Result<(), ApiError> {
        let mut wanted = texts(service, "clusterIPs");
        let first = str_at(service, &["spec", "clusterIP"]);
        if wanted.is_empty() && !first.is_empty() {
            wanted.push(first.to_owned());
        }
        let asked: Option<IpAddr> = wanted.first().and_then(|w| w.parse().ok());
        let chosen = self.ranges(service, asked).map_err(|cause| invalid(service, cause))?;
        set(service, &["spec", "ipFamilies"], chosen.iter().map(|c| family(c)).collect());
        set_default(service, &["spec", "ipFamilyPolicy"], json!("SingleStack"));
        if wanted.first().is_some_and(|w| w == "None") {
            set(service, &["spec", "clusterIP"], json!("None"));
            set(service, &["spec", "clusterIPs"], json!(["None"]));
            return Ok(());
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (i, cidr) in chosen.iter().enumerate() {
            addresses.push(match wanted.get(i) {
                Some(text) => claim(text, cidr, used).map_err(|cause| invalid(service, cause))?,
                None => free_address(cidr, &used.addresses, name(service))
                    .ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))?,
            });
        }
        if let Some(first) = addresses.first() {
            set(service, &["spec", "clusterIP"], json!(first));
            set(service, &["spec", "clusterIPs"], json!(addresses));
        }
        Ok(())
    }

    /// The ranges that a service gets addresses from: the families it names, else the one of the address it asks
    /// for, else the cluster's first; and the others as well if its policy wants both.
    fn ranges(&self, service: &Value, asked: Option<IpAddr>) -> Result<Vec<&IpNet>, Cause> {
        let mut chosen: Vec<&IpNet> = Vec::new();
        for wanted in texts(service, "ipFamilies") {
            let found = self.cidrs.iter().find(|c| family(c) == wanted);
            let unknown =
                || Cause::invalid("spec.ipFamilies[0]", &json!(wanted), "not configured on this cluster");
            chosen.push(found.ok_or_else(unknown)?);
        }
        if chosen.is_empty() {
            let same = asked.and_then(|a| self.cidrs.iter().find(|c| c.addr().is_ipv4() == a.is_ipv4()));
            chosen.extend(same.or(self.cidrs.first()));
        }
        let policy = str_at(service, &["spec", "ipFamilyPolicy"]);
        if matches!(policy, "" | "SingleStack") {
            chosen.truncate(1);
            return Ok(chosen);
        }
        for cidr in &self.cidrs {
            if !chosen.iter().any(|c| family(c) == family(cidr)) {
                chosen.push(cidr);
            }
        }
        if policy == "RequireDualStack" && chosen.len() < 2 {
            let detail = "this cluster is not configured for dual-stack services";
            return Err(Cause::invalid("spec.ipFamilyPolicy", &json!(policy), detail));
        }
        Ok(chosen)
    }

    fn node_ports(&self, service: &mut Value, old: Option<&Value>, used: &InUse) -> Result<(), ApiError> {
        let service_name = name(service).to_owned();
        let mut taken = self.health_port(service, old, used)?;
        let old_ports = old.map_or(&[][..], |o| list_at(o, &["spec", "ports"]));
        let Some(ports) = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else {
            return Ok(());
        };
        for (i, port) in ports.iter_mut().enumerate() {
            let protocol = str_at(port, &["protocol"]).to_owned();
            let same = |p: &&Value| p["port"] == port["port"] && str_at(p, &["protocol"]) == protocol;
            let before = old_ports.iter().find(same).and_then(|p| int_at(p, &["nodePort"]));
            let number = match int_at(port, &["nodePort"]).filter(|n| *n > 0).or(before) {
                Some(n) if taken.contains(&(n, protocol.clone())) => {
                    let cause = Cause::invalid(
                        format!("spec.ports[{i}].nodePort"),
                        &json!(n),
                        "provided port is already allocated",
                    );
                    return Err(ApiError::invalid("", "Service", &service_name, &[cause]));
                }
                Some(n) if n < i64::from(self.node_ports.0) || n > i64::from(self.node_ports.1) => {
                    let range = format!(
                        "provided port is not in the valid range. The range of valid ports is {}-{}",
                        self.node_ports.0, self.node_ports.1
                    );
                    let cause = Cause::invalid(format!("spec.ports[{i}].nodePort"), &json!(n), &range);
                    return Err(ApiError::invalid("", "Service", &service_name, &[cause]));
                }
                Some(n) => n,
                None => self.free_port(&format!("{service_name}/{i}"), &taken)?,
            };
            taken.insert((number, protocol));
            port["nodePort"] = json!(number);
        }
        Ok(())
    }

    /// Gives a service the port where nodes say whether they have endpoints of it, if those of other nodes are of no use to its
    /// clients. What is in use with that.
    fn health_port(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        used: &InUse,
    ) -> Result<BTreeSet<(i64, String)>, ApiError> {
        let mut taken = used.ports.clone();
        let is_local = str_at(service, &["spec", "externalTrafficPolicy"]) == "Local";
        if str_at(service, &["spec", "type"]) != "LoadBalancer" || !is_local {
            crate::object::remove(service, &HEALTH);
            return Ok(taken);
        }
        let given = |service: &Value| int_at(service, &HEALTH).filter(|n| *n > 0);
        let number = match given(service).or_else(|| old.and_then(given)) {
            Some(n) if taken.iter().any(|(t, _)| *t == n) => {
                let cause = Cause::invalid(HEALTH.join("."), &json!(n), "provided port is already allocated");
                return Err(invalid(service, cause));
            }
            Some(n) => n,
            None => self.free_port(&format!("{}/health", name(service)), &taken)?,
        };
        taken.insert((number, "TCP".to_owned()));
        set(service, &HEALTH, json!(number));
        Ok(taken)
    }

    /// A port of the range that nobody has for any protocol.
    fn free_port(&self, seed: &str, taken: &BTreeSet<(i64, String)>) -> Result<i64, ApiError> {
        let count = i64::from(self.node_ports.1 - self.node_ports.0) + 1;
        let start = i64::try_from(hash(seed) % 4096).unwrap_or(0) % count;
        let candidates = (0..count).map(|k| i64::from(self.node_ports.0) + (start + k) % count);
        let mut free = candidates.filter(|n| !taken.iter().any(|(t, _)| t == n));
        free.next().ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))
    }
}

fn invalid(service: &Value, cause: Cause) -> ApiError {
    ApiError::invalid("", "Service", name(service), &[cause])
}

/// A list of texts in the spec.
fn texts(service: &Value, key: &str) -> Vec<String> {
    list_at(service, &["spec", key]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The address a service asks for, if it may have it.
fn claim(text: &str, cidr: &IpNet, used: &InUse) -> Result<IpAddr, Cause> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(Cause::invalid("spec.clusterIPs[0]", &json!(text), "must be a valid IP address"));
    };
    let why = if used.addresses.contains(&address) {
        "provided IP is already allocated"
    } else if cidr.contains(&address) {
        return Ok(address);
    } else {
        "the provided network does not match the current range"
    };
    let detail = format!("failed to allocate IP {address}: {why}");
    Err(Cause::invalid("spec.clusterIPs", &json!([address]), &detail))
}

/// FNV-1a; spreads what is given out without being random.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn nth(cidr: &IpNet, n: u128) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from(u32::from(a).wrapping_add(u32::try_from(n).unwrap_or(0)))),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from(u128::from(a).wrapping_add(n))),
    }
}

/// A free address, neither the first ones (kept for well-known services) nor the last.
fn free_address(cidr: &IpNet, used: &BTreeSet<IpAddr>, seed: &str) -> Option<IpAddr> {
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len()).min(16);
    let size = 1_u128 << bits;
    let first = if size > 64 { 16 } else { 1 };
    let count = size.checked_sub(first + 1)?;
    let start = u128::from(hash(seed)) % count.max(1);
    (0..count).map(|i| nth(cidr, first + (start + i) % count)).find(|a| !used.contains(a))
}

/// The first address of a range: the API server's own service.
pub(crate) fn first_address(cidr: &IpNet) -> IpAddr {
    nth(cidr, 1)
}
