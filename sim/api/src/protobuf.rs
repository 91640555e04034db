//! The protobuf form of objects, for reading only.
//!
//! Clients made with client-go (kubectl among them) send built-in kinds as protobuf and take answers as JSON. The
//! types of fields come from the schemas of the kinds, so that only the field numbers must be known here.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::schema::definitions;

/// First bytes of every message, before a `runtime.Unknown`.
const MAGIC: &[u8] = b"k8s\0";
/// Nesting beyond this is refused.
const MAX_DEPTH: usize = 64;

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It does not begin as Kubernetes objects do.
    #[error("not a Kubernetes protobuf message")]
    Magic,
    /// It ends too early or is malformed.
    #[error("malformed protobuf message")]
    Malformed,
    /// Its kind is not known in this form.
    #[error("kind {0} is not known in protobuf form")]
    UnknownKind(String),
}

/// How a field goes into JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    /// Under this name.
    Named(&'static str),
    /// It is a message of this type whose fields stand in the outer one.
    Inline(&'static str),
}

type Messages = BTreeMap<&'static str, BTreeMap<u32, Field>>;

fn messages() -> &'static Messages {
    static MESSAGES: OnceLock<Messages> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let lines = include_str!("protobuf/fields.txt").lines().filter(|l| !l.starts_with('#'));
        lines
            .filter_map(|line| {
                let mut words = line.split(' ');
                let name = words.next()?;
                let fields = words.filter_map(|w| {
                    let (number, field) = w.split_once(':')?;
                    let field = field.strip_prefix('+').map_or(Field::Named(field), Field::Inline);
                    Some((number.parse().ok()?, field))
                });
                Some((name, fields.collect()))
            })
            .collect()
    })
}

/// Numbers that are not set when they are zero; all others are (they are pointers in the original, where zero is a
/// value).
const ZERO_IS_UNSET: &[&str] = &[
    "hostPort",
    "nodePort",
    "generation",
    "minReadySeconds",
    "observedGeneration",
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
    "healthCheckNodePort",
    "collisionCount",
];

/// Truth values for which "no" differs from "not set".
const FALSE_COUNTS: &[&str] = &[
    "automountServiceAccountToken",
    "allowPrivilegeEscalation",
    "privileged",
    "readOnlyRootFilesystem",
    "runAsNonRoot",
    "optional",
    "enableServiceLinks",
    "shareProcessNamespace",
    "immutable",
    "controller",
    "blockOwnerDeletion",
    "allocateLoadBalancerNodePorts",
    "suspend",
    "hostUsers",
    "orphanDependents",
    "ready",
    "serving",
    "terminating",
    "allowVolumeExpansion",
    "setHostnameAsFQDN",
];

/// Reads an object.
///
/// # Errors
/// The bytes are no Kubernetes object or of a kind that is not known.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let unknown = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for item in Items(unknown) {
        match item? {
            (1, Wire::Bytes(meta)) => {
                for item in Items(meta) {
                    match item? {
                        (1, Wire::Bytes(b)) => api_version = text(b),
                        (2, Wire::Bytes(b)) => kind = text(b),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(b)) => raw = b,
            _ => {}
        }
    }
    let name = if kind == "DeleteOptions" {
        "meta.v1.DeleteOptions".to_owned()
    } else {
        // The package is the first word of the group: `rbac.authorization.k8s.io/v1` is `rbac.v1`.
        let (group, version) = api_version.split_once('/').unwrap_or(("core", &api_version));
        format!("{}.{version}.{kind}", group.split('.').next().unwrap_or(group))
    };
    let known = messages()
        .get_key_value(name.as_str())
        .ok_or_else(|| ProtobufError::UnknownKind(format!("{api_version} {kind}")))?
        .0;
    let mut object = Map::new();
    object.insert("apiVersion".into(), json!(api_version));
    object.insert("kind".into(), json!(kind));
    message(raw, known, definition(known), &mut object, 0)?;
    Ok(Value::Object(object))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The schema of a message.
fn definition(name: &str) -> &'static Value {
    static NOTHING: Value = Value::Null;
    let full = if name.starts_with("meta.") {
        format!("io.k8s.apimachinery.pkg.apis.{name}")
    } else {
        format!("io.k8s.api.{name}")
    };
    definitions().get(&full).unwrap_or(&NOTHING)
}

/// The definition a schema node refers to: its full name.
fn reference(node: &Value) -> Option<&str> {
    let direct = node.get("$ref").or_else(|| node.get("allOf")?.as_array()?.first()?.get("$ref"));
    direct?.as_str()?.rsplit('/').next()
}

/// Reads the fields of a message into `out`.
fn message(
    bytes: &[u8],
    name: &str,
    schema: &Value,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Malformed);
    }
    let Some(fields) = messages().get(name) else { return Ok(()) };
    for item in Items(bytes) {
        let (number, wire) = item?;
        match (fields.get(&number), wire) {
            (Some(Field::Inline(inner)), Wire::Bytes(b)) => message(b, inner, schema, out, depth + 1)?,
            (Some(Field::Named(field)), wire) => {
                let node = &schema["properties"][*field];
                self::field(field, wire, node, out, depth)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn field(
    name: &str,
    wire: Wire<'_>,
    node: &Value,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let kind = node.get("type").and_then(Value::as_str).unwrap_or("");
    if kind == "array" {
        let item = value(wire, &node["items"], depth)?;
        if let Value::Array(list) = out.entry(name).or_insert_with(|| json!([])) {
            list.push(item);
        }
        return Ok(());
    }
    if kind == "object"
        && let (Some(items), Wire::Bytes(entry)) = (node.get("additionalProperties"), &wire)
    {
        let (mut key, mut entry_value) = (String::new(), Value::Null);
        for item in Items(entry) {
            match item? {
                (1, Wire::Bytes(b)) => key = text(b),
                (2, wire) => entry_value = value(wire, items, depth)?,
                _ => {}
            }
        }
        if entry_value.is_null() {
            entry_value = json!("");
        }
        if let Value::Object(map) = out.entry(name).or_insert_with(|| json!({})) {
            map.insert(key, entry_value);
        }
        return Ok(());
    }
    let value = value(wire, node, depth)?;
    let unset = match &value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Number(n) => n.as_i64() == Some(0) && ZERO_IS_UNSET.contains(&name),
        Value::Bool(b) => !b && !FALSE_COUNTS.contains(&name),
        _ => false,
    };
    if !unset {
        out.insert(name.to_owned(), value);
    }
    Ok(())
}

fn value(wire: Wire<'_>, node: &Value, depth: usize) -> Result<Value, ProtobufError> {
    if let Some(full) = reference(node) {
        let Wire::Bytes(bytes) = wire else { return Err(ProtobufError::Malformed) };
        return referenced(bytes, full, depth);
    }
    let kind = node.get("type").and_then(Value::as_str).unwrap_or("");
    Ok(match (kind, wire) {
        ("integer", Wire::Number(n)) => json!(n.cast_signed()),
        ("boolean", Wire::Number(n)) => json!(n != 0),
        ("string", Wire::Bytes(b)) if node.get("format").and_then(Value::as_str) == Some("byte") => {
            json!(base64::engine::general_purpose::STANDARD.encode(b))
        }
        ("string", Wire::Bytes(b)) => json!(text(b)),
        ("object" | "", Wire::Bytes(b)) => raw_json(b)?,
        _ => return Err(ProtobufError::Malformed),
    })
}

/// A message that a schema refers to; some have a form of their own in JSON.
fn referenced(bytes: &[u8], full: &str, depth: usize) -> Result<Value, ProtobufError> {
    let kind = full.rsplit('.').next().unwrap_or(full);
    Ok(match kind {
        "Time" | "MicroTime" => time(bytes, kind == "MicroTime")?,
        "Quantity" => first_text(bytes)?,
        "IntOrString" => int_or_string(bytes)?,
        "RawExtension" | "JSON" => raw_json(bytes)?,
        "ByteString" => json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
        _ => {
            let name =
                full.trim_start_matches("io.k8s.apimachinery.pkg.apis.").trim_start_matches("io.k8s.api.");
            let mut map = Map::new();
            message(bytes, name, definitions().get(full).unwrap_or(&Value::Null), &mut map, depth + 1)?;
            Value::Object(map)
        }
    })
}

fn time(bytes: &[u8], micro: bool) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos) = (0, 0);
    for item in Items(bytes) {
        match item? {
            (1, Wire::Number(n)) => seconds = n.cast_signed(),
            (2, Wire::Number(n)) => nanos = i32::try_from(n).unwrap_or(0),
            _ => {}
        }
    }
    let stamp = jiff::Timestamp::new(seconds, nanos).ok().filter(|_| seconds != 0);
    Ok(stamp.map_or(Value::Null, |t| {
        json!(if micro { crate::clock::rfc3339_micro(t) } else { crate::clock::rfc3339(t) })
    }))
}

fn first_text(bytes: &[u8]) -> Result<Value, ProtobufError> {
    for item in Items(bytes) {
        if let (1, Wire::Bytes(b)) = item? {
            return Ok(json!(text(b)));
        }
    }
    Ok(Value::Null)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut string) = (false, 0, String::new());
    for item in Items(bytes) {
        match item? {
            (1, Wire::Number(n)) => is_text = n == 1,
            (2, Wire::Number(n)) => number = n.cast_signed(),
            (3, Wire::Bytes(b)) => string = text(b),
            _ => {}
        }
    }
    Ok(if is_text { json!(string) } else { json!(number) })
}

/// JSON text in field 1, as `RawExtension` has it.
fn raw_json(bytes: &[u8]) -> Result<Value, ProtobufError> {
    for item in Items(bytes) {
        if let (1, Wire::Bytes(b)) = item? {
            return serde_json::from_slice(b).map_err(|_| ProtobufError::Malformed);
        }
    }
    Ok(json!({}))
}

/// A field's value on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message as they stand on the wire.
struct Items<'a>(&'a [u8]);

impl Items<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }
}

impl<'a> Items<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(bytes)
    }

    fn item(&mut self) -> Option<(u32, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Number(u64::from(u32::from_le_bytes(self.take(4)?.try_into().ok()?))),
            _ => return None,
        };
        Some((u32::try_from(tag >> 3).ok()?, wire))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<(u32, Wire<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        match self.item() {
            Some(item) => Some(Ok(item)),
            None => {
                self.0 = &[];
                Some(Err(ProtobufError::Malformed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field with length and bytes.
    fn f(number: u8, bytes: &[u8]) -> Vec<u8> {
        let tag = u32::from(number) << 3 | 2;
        let tag = if tag < 128 {
            vec![u8::try_from(tag).unwrap()]
        } else {
            vec![u8::try_from(tag & 0x7f).unwrap() | 0x80, u8::try_from(tag >> 7).unwrap()]
        };
        [&tag[..], &[u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn unknown(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [f(1, api_version.as_bytes()), f(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), f(1, &meta), f(2, raw)].concat()
    }

    #[test]
    fn objects() {
        let metadata =
            [f(1, b"web"), f(2, b""), f(11, &[f(1, b"app"), f(2, b"web")].concat()), f(8, &[])].concat();
        let port = [
            f(1, b"http"),
            f(2, b"TCP"),
            vec![3 << 3, 80],
            f(4, &[8, 1, 16, 0, 26, 1, b'x']),
            vec![5 << 3, 0],
        ]
        .concat();
        let spec =
            [f(1, &port), f(2, &[f(1, b"app"), f(2, b"web")].concat()), f(4, b"NodePort"), vec![13 << 3, 0]]
                .concat();
        let got = decode(&unknown("v1", "Service", &[f(1, &metadata), f(2, &spec)].concat())).unwrap();
        assert_eq!(
            got,
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": {"app": "web"}},
                "spec": {"ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "x"}], "selector": {"app": "web"}, "type": "NodePort"},
            })
        );
    }

    #[test]
    fn embedded_messages_and_bytes() {
        let volume = [f(1, b"v"), f(2, &f(19, &f(1, &f(1, b"settings"))))].concat();
        let container = [
            f(1, b"c"),
            f(11, &[f(1, &f(2, &[f(1, b"/ok"), f(2, &[8, 0, 16, 80])].concat())), vec![4 << 3, 0]].concat()),
        ]
        .concat();
        let got = decode(&unknown("v1", "Pod", &f(2, &[f(1, &volume), f(2, &container)].concat()))).unwrap();
        assert_eq!(got["spec"]["volumes"], json!([{"name": "v", "configMap": {"name": "settings"}}]));
        assert_eq!(
            got["spec"]["containers"],
            json!([{"name": "c", "readinessProbe": {"httpGet": {"path": "/ok", "port": 80}}}])
        );
        let secret = decode(&unknown("v1", "Secret", &f(2, &[f(1, b"k"), f(2, b"hi")].concat()))).unwrap();
        assert_eq!(secret["data"], json!({"k": "aGk="}));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
        assert_eq!(decode(b"k8s\0\x0a\xff"), Err(ProtobufError::Malformed));
        assert_eq!(decode(&unknown("v9", "Thing", &[])), Err(ProtobufError::UnknownKind("v9 Thing".into())));
        assert_eq!(decode(&unknown("v1", "Pod", &[0x12, 0x7f])), Err(ProtobufError::Malformed));
    }

    #[test]
    fn spoiled_messages_never_panic() {
        let container = [f(1, b"c"), f(2, b"i"), f(6, &[24, 80])].concat();
        let pod = [f(1, &[f(1, b"p"), f(8, &[8, 1])].concat()), f(2, &f(2, &container))].concat();
        let message = unknown("v1", "Pod", &pod);
        for i in 0..message.len() {
            for byte in 0..=255 {
                let mut spoiled = message.clone();
                spoiled[i] = byte;
                drop(decode(&spoiled));
            }
            drop(decode(&message[..i]));
        }
    }
}
