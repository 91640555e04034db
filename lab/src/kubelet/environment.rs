//! What a container finds around it: variables, files, volumes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::Value;
use sim_api::Store;
use sim_api::object::{at, labels, name, namespace, str_at, uid};
use sim_api::resource::{CONFIGMAPS, SECRETS};

use super::context::NodeContext;
use super::spec::{Container, PodSpec, expand};
use crate::container::Mount;
use crate::image::dns::CLUSTER_DOMAIN;

/// Why a container cannot have its environment (yet): a reference that leads nowhere, a kind of volume that labs do not have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvironmentError {
    /// A ConfigMap or Secret, or a key in it, is missing.
    #[error("{0} not found")]
    Missing(String),
    /// A volume source that is not supported.
    #[error(
        "volume \"{0}\" has a source that labs do not support: use emptyDir, hostPath, configMap, secret or downwardAPI"
    )]
    Volume(String),
    /// A file could not be written.
    #[error("write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Variables that every container has.
pub(crate) fn default_env(hostname: &str) -> BTreeMap<String, String> {
    let set = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("HOSTNAME", hostname),
    ];
    set.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// The data of a ConfigMap or Secret as text; secrets are decoded.
fn data(store: &Store, secret: bool, ns: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let kind = if secret { SECRETS } else { CONFIGMAPS };
    let object = store.get(&kind, ns, name).ok()?;
    let decode = |v: &str| base64::engine::general_purpose::STANDARD.decode(v).unwrap_or_default();
    let mut all = BTreeMap::new();
    for (field, encoded) in [("data", secret), ("binaryData", true)] {
        for (key, value) in at(&object, &[field]).as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            all.insert(key.clone(), if encoded { decode(value) } else { value.as_bytes().to_vec() });
        }
    }
    Some(all)
}

/// A field of the pod that the downward API offers.
fn field(pod: &Value, path: &str, ips: &[IpAddr], node: &NodeContext) -> String {
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let keyed = |what: &str| {
        path.strip_prefix(what)
            .and_then(|r| r.strip_prefix("['"))
            .and_then(|r| r.strip_suffix("']"))
            .map(str::to_owned)
    };
    match path {
        "metadata.name" => name(pod).to_owned(),
        "metadata.namespace" => namespace(pod).to_owned(),
        "metadata.uid" => uid(pod).to_owned(),
        "spec.nodeName" => node.name.clone(),
        "spec.serviceAccountName" => str_at(pod, &["spec", "serviceAccountName"]).to_owned(),
        "status.hostIP" => join(&node.addresses[..1.min(node.addresses.len())]),
        "status.hostIPs" => join(&node.addresses),
        "status.podIP" => join(&ips[..1.min(ips.len())]),
        "status.podIPs" => join(ips),
        "metadata.labels" => labels(pod).into_iter().flatten().fold(String::new(), |mut text, (k, v)| {
            let _ = writeln!(text, "{k}={v}");
            text
        }),
        _ => match (keyed("metadata.labels"), keyed("metadata.annotations")) {
            (Some(key), _) => str_at(pod, &["metadata", "labels", &key]).to_owned(),
            (_, Some(key)) => str_at(pod, &["metadata", "annotations", &key]).to_owned(),
            _ => String::new(),
        },
    }
}

/// The container's variables.
pub(crate) fn variables(
    store: &Store,
    node: &NodeContext,
    pod: &Value,
    hostname: &str,
    container: &Container,
    ips: &[IpAddr],
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let ns = namespace(pod);
    let mut env = default_env(hostname);
    for source in &container.env_from {
        for (reference, secret) in [(&source.config_map_ref, false), (&source.secret_ref, true)] {
            let Some(reference) = reference else { continue };
            match data(store, secret, ns, &reference.name) {
                Some(all) => env.extend(all.into_iter().map(|(k, v)| {
                    (format!("{}{k}", source.prefix), String::from_utf8_lossy(&v).into_owned())
                })),
                None if reference.optional => {}
                None => {
                    return Err(EnvironmentError::Missing(format!(
                        "{} \"{}\"",
                        kind_word(secret),
                        reference.name
                    )));
                }
            }
        }
    }
    for var in &container.env {
        let value = match &var.value_from {
            None => expand(var.value.as_deref().unwrap_or_default(), &env),
            Some(from) => match value_from(store, node, pod, from, ips)? {
                Some(value) => value,
                None => continue,
            },
        };
        env.insert(var.name.clone(), value);
    }
    Ok(env)
}

fn kind_word(secret: bool) -> &'static str {
    if secret { "secret" } else { "configmap" }
}

fn value_from(
    store: &Store,
    node: &NodeContext,
    pod: &Value,
    from: &Value,
    ips: &[IpAddr],
) -> Result<Option<String>, EnvironmentError> {
    let path = str_at(from, &["fieldRef", "fieldPath"]);
    if !path.is_empty() {
        return Ok(Some(field(pod, path, ips, node)));
    }
    for (source, secret) in [("configMapKeyRef", false), ("secretKeyRef", true)] {
        let Some(reference) = from.get(source) else { continue };
        let (object, key) = (str_at(reference, &["name"]), str_at(reference, &["key"]));
        return match data(store, secret, namespace(pod), object).and_then(|mut all| all.remove(key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            None if at(reference, &["optional"]) == true => Ok(None),
            None => {
                Err(EnvironmentError::Missing(format!("key {key} in {} \"{object}\"", kind_word(secret))))
            }
        };
    }
    Ok(Some(String::new()))
}

/// Directory of a pod's files on its node.
pub(crate) fn pod_dir(uid: &str) -> PathBuf {
    Path::new("/run/pods").join(uid)
}

/// The pod's host name (core/v1 PodSpec.hostname; the pod's name cut to 63 characters otherwise).
pub(crate) fn hostname(pod: &Value, spec: &PodSpec, node: &NodeContext) -> String {
    if spec.host_network {
        return node.name.clone();
    }
    let name = spec.hostname.clone().unwrap_or_else(|| name(pod).to_owned());
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// Writes the files that all containers of the pod share and returns how they are mounted.
pub(crate) fn write_pod_files(
    node: &NodeContext,
    pod: &Value,
    spec: &PodSpec,
    ips: &[IpAddr],
) -> Result<Vec<Mount>, EnvironmentError> {
    let dir = pod_dir(uid(pod));
    let hostname = hostname(pod, spec, node);
    let mut hosts = if spec.host_network {
        node.hosts.clone()
    } else {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        );
        for ip in ips {
            let _ = match &spec.subdomain {
                Some(sub) => writeln!(
                    text,
                    "{ip}\t{hostname}.{sub}.{}.svc.{CLUSTER_DOMAIN}\t{hostname}",
                    namespace(pod)
                ),
                None => writeln!(text, "{ip}\t{hostname}"),
            };
        }
        text
    };
    for alias in &spec.host_aliases {
        let _ = writeln!(hosts, "{}\t{}", alias.ip, alias.hostnames.join("\t"));
    }
    write(node, &dir.join("etc/hosts"), hosts.as_bytes())?;
    write(node, &dir.join("etc/hostname"), format!("{hostname}\n").as_bytes())?;
    write_resolv_conf(node, pod, spec)?;
    let files = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];
    Ok(files
        .into_iter()
        .map(|f| Mount { from: dir.join(f), to: Path::new("/").join(f), read_only: false })
        .collect())
}

/// Writes the pod's resolv.conf; again whenever the cluster DNS has another address. It is written in place, because containers
/// have this very file mounted.
pub(crate) fn write_resolv_conf(
    node: &NodeContext,
    pod: &Value,
    spec: &PodSpec,
) -> Result<(), EnvironmentError> {
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !spec.host_network,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut servers: Vec<String> = Vec::new();
    let mut searches: Vec<String> = Vec::new();
    let mut options: Vec<String> = Vec::new();
    if cluster {
        servers.extend(node.dns.borrow().iter().map(ToString::to_string));
        searches.extend([
            format!("{}.svc.{CLUSTER_DOMAIN}", namespace(pod)),
            format!("svc.{CLUSTER_DOMAIN}"),
            CLUSTER_DOMAIN.to_owned(),
        ]);
        options.push("ndots:5".into());
    }
    if let Some(config) = &spec.dns_config {
        servers.extend(config.nameservers.iter().cloned());
        searches.extend(config.searches.iter().cloned());
        options.extend(
            config
                .options
                .iter()
                .map(|o| o.value.as_ref().map_or(o.name.clone(), |v| format!("{}:{v}", o.name))),
        );
    }
    let mut text = String::new();
    for server in servers.iter().take(3) {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !searches.is_empty() {
        let _ = writeln!(text, "search {}", searches.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    write(node, &pod_dir(uid(pod)).join("etc/resolv.conf"), text.as_bytes())
}

fn write(node: &NodeContext, path: &Path, bytes: &[u8]) -> Result<(), EnvironmentError> {
    let file = node.file(path);
    let made = file.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(&file, bytes))
        .map_err(|source| EnvironmentError::Io { path: path.to_owned(), source })
}

/// Prepares the pod's volumes; name → directory or file on the node.
pub(crate) fn volumes(
    store: &Store,
    node: &NodeContext,
    pod: &Value,
    spec: &PodSpec,
    ips: &[IpAddr],
) -> Result<BTreeMap<String, PathBuf>, EnvironmentError> {
    let mut all = BTreeMap::new();
    for volume in &spec.volumes {
        let volume_name = str_at(volume, &["name"]).to_owned();
        let dir = pod_dir(uid(pod)).join("volumes").join(&volume_name);
        let host = node.file(&dir);
        fs::create_dir_all(&host).map_err(|source| EnvironmentError::Io { path: dir.clone(), source })?;
        let mut place = dir.clone();
        let object = volume.as_object().and_then(|o| o.iter().find(|(k, _)| *k != "name"));
        match object.map(|(k, v)| (k.as_str(), v)) {
            None | Some(("emptyDir", _)) => {}
            Some(("hostPath", source)) => place = PathBuf::from(str_at(source, &["path"])),
            Some((kind @ ("configMap" | "secret"), source)) => {
                write_data(store, node, pod, kind == "secret", source, &dir)?;
            }
            Some(("downwardAPI", source)) => {
                for item in sim_api::object::list_at(source, &["items"]) {
                    let text = field(pod, str_at(item, &["fieldRef", "fieldPath"]), ips, node);
                    write(node, &dir.join(str_at(item, &["path"]).trim_start_matches('/')), text.as_bytes())?;
                }
            }
            // The token volume that an admission plugin adds: there is nothing to put into it.
            Some(("projected", _)) => {}
            Some(_) => return Err(EnvironmentError::Volume(volume_name)),
        }
        all.insert(volume_name, place);
    }
    Ok(all)
}

fn write_data(
    store: &Store,
    node: &NodeContext,
    pod: &Value,
    secret: bool,
    source: &Value,
    dir: &Path,
) -> Result<(), EnvironmentError> {
    let object = str_at(source, &[if secret { "secretName" } else { "name" }]);
    let Some(all) = data(store, secret, namespace(pod), object) else {
        return if at(source, &["optional"]) == true {
            Ok(())
        } else {
            Err(EnvironmentError::Missing(format!("{} \"{object}\"", kind_word(secret))))
        };
    };
    let items = sim_api::object::list_at(source, &["items"]);
    if items.is_empty() {
        return all.iter().try_for_each(|(key, value)| write(node, &dir.join(key), value));
    }
    for item in items {
        let key = str_at(item, &["key"]);
        let value = all.get(key).ok_or_else(|| {
            EnvironmentError::Missing(format!("key {key} in {} \"{object}\"", kind_word(secret)))
        })?;
        write(node, &dir.join(str_at(item, &["path"]).trim_start_matches('/')), value)?;
    }
    Ok(())
}
