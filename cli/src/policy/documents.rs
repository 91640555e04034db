//! Objects of the Kubernetes API in files, as they are written there.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Kinds that are in no namespace, of those that are looked at.
const OF_CLUSTER: &[&str] = &[
    "Namespace",
    "Node",
    "CiliumIdentity",
    "CiliumCIDRGroup",
    "CiliumClusterwideNetworkPolicy",
    "ClusterNetworkPolicy",
    "NodePolicyStatus",
];

/// Kinds that are looked at, beside workloads.
pub(crate) const KINDS: &[(&str, &str)] = &[
    ("Pod", "v1"),
    ("Namespace", "v1"),
    ("Node", "v1"),
    ("Service", "v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
    ("CiliumCIDRGroup", "cilium.io/v2"),
    ("NetworkPolicy", "networking.k8s.io/v1"),
    ("CiliumNetworkPolicy", "cilium.io/v2"),
    ("CiliumClusterwideNetworkPolicy", "cilium.io/v2"),
    ("ClusterNetworkPolicy", "policy.networking.k8s.io/v1alpha2"),
];

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: String,
    /// Empty for objects of the cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind, self.name),
            namespace => write!(f, "{}/{namespace}/{}", self.kind, self.name),
        }
    }
}

/// An object, and where it is written.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) key: Key,
    /// File and place in it.
    pub(crate) origin: String,
    /// With its namespace, also where the file leaves it out.
    pub(crate) object: Value,
}

/// Objects by name. One that comes again takes the place of the one before, as when it is applied.
pub(crate) type Documents = BTreeMap<Key, Document>;

/// Whether objects of the kind are in no namespace.
pub(crate) fn is_of_cluster(kind: &str) -> bool {
    OF_CLUSTER.iter().any(|own| own.eq_ignore_ascii_case(kind))
}

/// Reads all objects, in the order of the files.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Document>> {
    let mut found = Vec::new();
    for path in paths {
        for file in files(path)? {
            let text = text_of(&file)?;
            let shown = shown(&file);
            for (place, object) in parse(&text).with_context(|| format!("{shown} is not YAML or JSON"))? {
                take(object, &format!("{shown}{place}"), &mut found)?;
            }
        }
    }
    Ok(found)
}

/// By name.
pub(crate) fn by_key(documents: Vec<Document>) -> Documents {
    documents.into_iter().map(|document| (document.key.clone(), document)).collect()
}

fn shown(file: &Path) -> String {
    if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// The file, or those of a directory that look like objects, by name.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if is_stdin(path) || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries =
        std::fs::read_dir(path).with_context(|| format!("read the directory {}", path.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.with_context(|| format!("read the directory {}", path.display()))?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if file.is_file() && matches!(ending, Some("yaml" | "yml" | "json")) {
            files.push(file);
        }
    }
    ensure!(!files.is_empty(), "{} has no .yaml, .yml or .json files", path.display());
    files.sort();
    Ok(files)
}

fn text_of(file: &Path) -> Result<String> {
    if is_stdin(file) {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

/// The documents of a text with their places.
fn parse(text: &str) -> Result<Vec<(String, Value)>> {
    let json = text.trim_start().starts_with(['{', '[']);
    let documents: Vec<Value> = if json {
        serde_json::Deserializer::from_str(text).into_iter::<Value>().collect::<Result<_, _>>()?
    } else {
        serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize).collect::<Result<_, _>>()?
    };
    let many = documents.len() > 1;
    let place = |at: usize| if many { format!(" document {}", at + 1) } else { String::new() };
    Ok(documents.into_iter().enumerate().map(|(at, document)| (place(at), document)).collect())
}

/// Takes an object, or those of a list.
fn take(mut object: Value, origin: &str, found: &mut Vec<Document>) -> Result<()> {
    if object.is_null() {
        return Ok(());
    }
    let list = object.is_array()
        || object.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    if list {
        // Lists of one kind, as the API gives them, name it once.
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let (kind, version) =
            (text("kind").trim_end_matches("List").to_owned(), text("apiVersion").to_owned());
        let items = if object.is_array() { object } else { object["items"].take() };
        let Value::Array(items) = items else { bail!("{origin}: a list needs items") };
        for (at, mut item) in items.into_iter().enumerate() {
            if item.is_object() && item["kind"].is_null() && !kind.is_empty() {
                item["kind"] = kind.clone().into();
                item["apiVersion"] = version.clone().into();
            }
            take(item, &format!("{origin} item {}", at + 1), found)?;
        }
        return Ok(());
    }
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, name, mut namespace) = (text("/kind"), text("/metadata/name"), text("/metadata/namespace"));
    ensure!(
        object.is_object() && !kind.is_empty(),
        "{origin} is no object of the Kubernetes API: it needs apiVersion, kind and metadata"
    );
    let generated = text("/metadata/generateName");
    let name = if name.is_empty() { generated } else { name };
    ensure!(!name.is_empty(), "{origin}: the {kind} has no name: give it one in metadata.name");
    if is_of_cluster(&kind) {
        namespace.clear();
    } else if namespace.is_empty() {
        "default".clone_into(&mut namespace);
        object["metadata"]["namespace"] = namespace.clone().into();
    }
    let key = Key { kind, namespace, name };
    found.push(Document { key, origin: origin.to_owned(), object });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn keys(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (place, object) in parse(text).unwrap() {
            take(object, &format!("file{place}"), &mut found).unwrap();
        }
        found.iter().map(|document| document.key.to_string()).collect()
    }

    #[rstest]
    #[case("kind: Pod\nmetadata: {name: a}\n", &["Pod/default/a"])]
    #[case("---\n# nothing\n---\nkind: Pod\nmetadata: {name: a, namespace: b}\n---\nkind: Node\nmetadata: {name: n}\n",
        &["Pod/b/a", "Node/n"])]
    #[case(r#"{"kind": "List", "items": [{"kind": "Pod", "metadata": {"name": "a"}}]}"#, &["Pod/default/a"])]
    #[case("{\"kind\": \"Namespace\",\t\"metadata\": {\"name\": \"x\"}} {\"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"}}",
        &["Namespace/x", "Pod/default/a"])]
    #[case("kind: PodList\nitems:\n- metadata: {name: a}\n", &["Pod/default/a"])]
    fn texts_of_all_kinds_are_read(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(keys(text), expected);
    }

    #[rstest]
    #[case("just words", "is no object")]
    #[case("metadata: {name: a}", "is no object")]
    #[case("kind: Pod\nmetadata: {}", "has no name")]
    #[case("kind: List\nitems: 3", "needs items")]
    fn what_is_no_object_is_told(#[case] text: &str, #[case] expected: &str) {
        let object = parse(text).unwrap().remove(0).1;
        let error = take(object, "file", &mut Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("file") && error.contains(expected), "{error}");
    }
}
