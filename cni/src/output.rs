//! Results in the versions of the specification.
//!
//! 0.1.0 and 0.2.0 have one address per family (`ip4`, `ip6`) with its routes; 0.3.0 to 0.4.0 have lists and say each address's family;
//! 1.0.0 leaves the family away; 1.1.0 adds MTU and details of routes.

use agent_api::cni::{CniError, CniResult, Dns, ErrorCode, Ip, ResultRoute};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::version::Version;

/// Keys of interfaces and routes that 1.1.0 brought.
const INTERFACE_KEYS_1_1: [&str; 3] = ["mtu", "socketPath", "pciID"];
const ROUTE_KEYS_1_1: [&str; 5] = ["mtu", "advmss", "priority", "table", "scope"];

/// The result as the version has it, with its `cniVersion`.
///
/// # Errors
/// Code 1 if the version cannot express it (no address, up to 0.2.0).
pub(crate) fn result_in_version(result: &CniResult, version: Version) -> Result<Value, CniError> {
    let mut object = Map::from_iter([("cniVersion".to_owned(), json!(version.as_str()))]);
    if version <= Version::V0_2_0 {
        object.extend(flat(result)?);
        return Ok(object.into());
    }
    let value = serde_json::to_value(result)
        .map_err(|error| CniError::new(ErrorCode::INTERNAL, error.to_string()))?;
    let Value::Object(fields) = value else {
        return Err(CniError::new(ErrorCode::INTERNAL, "a result is not an object"));
    };
    object.extend(fields);
    if version <= Version::V1_0_0 {
        remove_keys(object.get_mut("interfaces"), &INTERFACE_KEYS_1_1);
        remove_keys(object.get_mut("routes"), &ROUTE_KEYS_1_1);
    }
    if version < Version::V1_0_0 {
        for (value, ip) in elements(object.get_mut("ips")).zip(&result.ips) {
            value.insert("version".into(), if ip.address.addr().is_ipv4() { "4" } else { "6" }.into());
        }
    }
    Ok(object.into())
}

fn elements(list: Option<&mut Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    list.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn remove_keys(list: Option<&mut Value>, keys: &[&str]) {
    for element in elements(list) {
        element.retain(|key, _| !keys.contains(&key.as_str()));
    }
}

/// `ip4` or `ip6` of a result up to 0.2.0.
#[derive(Debug, Serialize, Deserialize)]
struct FlatIp {
    ip: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<std::net::IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<FlatRoute>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FlatRoute {
    dst: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gw: Option<std::net::IpAddr>,
}

/// Up to 0.2.0: the first address of each family.
fn flat(result: &CniResult) -> Result<Map<String, Value>, CniError> {
    let mut object = Map::new();
    for (key, ipv6) in [("ip4", false), ("ip6", true)] {
        let Some(ip) = result.ips.iter().find(|ip| ip.address.addr().is_ipv6() == ipv6) else { continue };
        let routes = result.routes.iter().filter(|route| route.dst.addr().is_ipv6() == ipv6);
        let routes = routes.map(|route| FlatRoute { dst: route.dst, gw: route.gw }).collect();
        object.insert(key.into(), json!(FlatIp { ip: ip.address, gateway: ip.gateway, routes }));
    }
    if object.is_empty() {
        let msg = "the result has no address, which CNI before 0.3.0 cannot express; raise cniVersion in the network configuration";
        return Err(CniError::new(ErrorCode::INCOMPATIBLE_VERSION, msg));
    }
    if !result.dns.is_empty() {
        object.insert("dns".into(), json!(result.dns));
    }
    Ok(object)
}

/// Reads a result of any version.
///
/// # Errors
/// When it is no result.
pub(crate) fn result_from_version(value: &Value) -> Result<CniResult, serde_json::Error> {
    if !value.is_object() {
        return Err(serde::de::Error::custom("a result must be an object"));
    }
    if value.get("ip4").is_none() && value.get("ip6").is_none() {
        // The family that 0.3.0 to 0.4.0 say of each address is in the address as well.
        return CniResult::deserialize(value);
    }
    let mut result = CniResult::default();
    for key in ["ip4", "ip6"] {
        let Some(ip) = value.get(key).filter(|ip| !ip.is_null()) else { continue };
        let ip = FlatIp::deserialize(ip)?;
        result.ips.push(Ip { address: ip.ip, gateway: ip.gateway, interface: None });
        result.routes.extend(ip.routes.into_iter().map(|route| ResultRoute::new(route.dst, route.gw)));
    }
    if let Some(dns) = value.get("dns") {
        result.dns = Dns::deserialize(dns)?;
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Value {
        json!({
            "interfaces": [
                {"name": "lxc1", "mac": "02:00:00:00:00:01", "mtu": 1450},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1450, "sandbox": "/n", "pciID": "x"},
            ],
            "ips": [
                {"address": "fd00::7/128", "gateway": "fd00::1", "interface": 1},
                {"address": "10.0.0.7/32", "gateway": "10.0.0.1", "interface": 1},
            ],
            "routes": [{"dst": "10.0.0.1/32", "scope": 253}, {"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1450, "table": 7}, {"dst": "::/0", "gw": "fd00::1"}],
            "dns": {"nameservers": ["10.0.0.2"]},
        })
    }

    fn check(version: &str) -> Value {
        result_in_version(&result_from_version(&full()).unwrap(), Version::find(version).unwrap()).unwrap()
    }

    #[test]
    fn the_newest_version_has_everything() {
        let mut expected = full();
        expected["cniVersion"] = json!("1.1.0");
        assert_eq!(check("1.1.0"), expected);
    }

    #[test]
    fn version_1_0_0_has_no_mtu_and_no_details_of_routes() {
        let value = check("1.0.0");
        assert_eq!(
            value["interfaces"][1],
            json!({"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/n"})
        );
        assert_eq!(value["routes"][0], json!({"dst": "10.0.0.1/32"}));
        assert_eq!(value["routes"][1], json!({"dst": "0.0.0.0/0", "gw": "10.0.0.1"}));
        assert_eq!(value["ips"], full()["ips"]);
        assert_eq!(value["dns"], full()["dns"]);
    }

    #[test]
    fn versions_0_3_0_to_0_4_0_say_the_family() {
        for version in ["0.3.0", "0.3.1", "0.4.0"] {
            let value = check(version);
            assert_eq!(value["cniVersion"], version);
            assert_eq!(
                value["ips"][0],
                json!({"version": "6", "address": "fd00::7/128", "gateway": "fd00::1", "interface": 1})
            );
            assert_eq!(value["ips"][1]["version"], "4");
            assert_eq!(value["interfaces"][0], json!({"name": "lxc1", "mac": "02:00:00:00:00:01"}));
        }
    }

    #[test]
    fn versions_up_to_0_2_0_are_flat() {
        for version in ["0.1.0", "0.2.0"] {
            let expected = json!({
                "cniVersion": version,
                "ip4": {"ip": "10.0.0.7/32", "gateway": "10.0.0.1", "routes": [{"dst": "10.0.0.1/32"}, {"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]},
                "ip6": {"ip": "fd00::7/128", "gateway": "fd00::1", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
                "dns": {"nameservers": ["10.0.0.2"]},
            });
            assert_eq!(check(version), expected);
        }
        let error = result_in_version(&CniResult::default(), Version::V0_2_0).unwrap_err();
        assert_eq!(error.code, ErrorCode::INCOMPATIBLE_VERSION);
    }

    #[test]
    fn results_of_old_versions_read_back() {
        let newest = result_from_version(&full()).unwrap();
        assert_eq!(result_from_version(&check("0.4.0")).unwrap().ips, newest.ips);
        let flat = result_from_version(&check("0.2.0")).unwrap();
        assert_eq!(flat.ips.len(), 2);
        assert_eq!(flat.routes.len(), 3);
        assert_eq!(flat.dns, newest.dns);
        assert!(result_from_version(&json!({"ips": [{"address": "10.0.0.300/32"}]})).is_err());
        assert!(result_from_version(&json!([])).is_err());
    }
}
