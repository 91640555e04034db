//! Keeps what the cluster DNS answers, and where pods find it, in step with the cluster's objects.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sim_api::Store;
use sim_api::object::{labels, list_at, name, namespace, str_at};
use sim_api::resource::{ENDPOINTSLICES, PODS, SERVICES};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::image::dns::{CLUSTER_DOMAIN, ZONE_FILE, Zone};

/// Changes that come together are taken together.
const SETTLE: Duration = Duration::from_millis(10);

/// Names that do not come from the cluster.
pub(crate) type FixedNames = BTreeMap<String, Vec<IpAddr>>;

/// Writes the zone and tells the DNS server's addresses whenever they change; never returns.
pub(crate) async fn keep(
    store: Store,
    share: PathBuf,
    fixed: FixedNames,
    servers: watch::Sender<Vec<IpAddr>>,
) {
    let mut revisions = store.subscribe();
    let mut written = None;
    loop {
        revisions.mark_unchanged();
        let zone = Zone { names: names(&store, &fixed) };
        if written.as_ref() != Some(&zone) {
            match write(&share, &zone) {
                Ok(()) => written = Some(zone),
                Err(e) => tracing::warn!(error = %e, "cannot write the DNS zone"),
            }
        }
        let now = server_addresses(&store);
        servers.send_if_modified(|old| {
            let changed = *old != now;
            old.clone_from(&now);
            changed
        });
        if revisions.changed().await.is_err() {
            return;
        }
        sleep(SETTLE).await;
    }
}

fn write(share: &Path, zone: &Zone) -> std::io::Result<()> {
    let new = share.join("dns.json.new");
    std::fs::write(&new, serde_json::to_vec(zone).map_err(std::io::Error::other)?)?;
    std::fs::rename(new, share.join(ZONE_FILE))
}

fn parse_ips<'a>(list: impl IntoIterator<Item = &'a Value>) -> Vec<IpAddr> {
    list.into_iter().filter_map(|v| v.as_str()?.parse().ok()).collect()
}

/// The DNS pods' addresses: pods reach these directly as long as there is no service translation. One family only, because
/// resolvers ask the servers of a list one after the other.
fn server_addresses(store: &Store) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = Vec::new();
    for pod in store.list(&PODS, "kube-system") {
        let is_dns = labels(&pod).and_then(|l| l.get("k8s-app")).is_some_and(|app| app == "kube-dns");
        if is_dns && !sim_api::object::is_deleting(&pod) {
            all.extend(parse_ips(list_at(&pod, &["status", "podIPs"]).iter().filter_map(|ip| ip.get("ip"))));
        }
    }
    let v4: Vec<IpAddr> = all.iter().copied().filter(IpAddr::is_ipv4).collect();
    if v4.is_empty() { all } else { v4 }
}

/// The names of services, of endpoints with host names, and of pods (Kubernetes DNS specification 1.1).
fn names(store: &Store, fixed: &FixedNames) -> BTreeMap<String, Vec<IpAddr>> {
    let mut all = fixed.clone();
    let mut slices: BTreeMap<(String, String), Vec<_>> = BTreeMap::new();
    for slice in store.list(&ENDPOINTSLICES, "") {
        if let Some(service) =
            labels(&slice).and_then(|l| l.get("kubernetes.io/service-name")).and_then(Value::as_str)
        {
            slices.entry((namespace(&slice).to_owned(), service.to_owned())).or_default().push(slice);
        }
    }
    for service in store.list(&SERVICES, "") {
        let base = format!("{}.{}.svc.{CLUSTER_DOMAIN}", name(&service), namespace(&service));
        let mut ips = parse_ips(list_at(&service, &["spec", "clusterIPs"]));
        if ips.is_empty() {
            ips = parse_ips([&service["spec"]["clusterIP"]]);
        }
        if str_at(&service, &["spec", "clusterIP"]) == "None" {
            let unready_too = service["spec"]["publishNotReadyAddresses"] == true;
            for slice in
                slices.get(&(namespace(&service).to_owned(), name(&service).to_owned())).into_iter().flatten()
            {
                for endpoint in list_at(slice, &["endpoints"]) {
                    if endpoint["conditions"]["ready"] == false && !unready_too {
                        continue;
                    }
                    let addresses = parse_ips(list_at(endpoint, &["addresses"]));
                    if let Some(hostname) = endpoint["hostname"].as_str() {
                        all.entry(format!("{hostname}.{base}")).or_default().extend(&addresses);
                    }
                    ips.extend(addresses);
                }
            }
        }
        if !ips.is_empty() {
            all.insert(base.to_lowercase(), ips);
        }
    }
    for pod in store.list(&PODS, "") {
        for ip in parse_ips(list_at(&pod, &["status", "podIPs"]).iter().filter_map(|ip| ip.get("ip"))) {
            let dashed = ip.to_string().replace(['.', ':'], "-");
            all.insert(format!("{dashed}.{}.pod.{CLUSTER_DOMAIN}", namespace(&pod)), vec![ip]);
        }
    }
    all
}
