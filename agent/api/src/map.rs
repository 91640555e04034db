//! `GET /v1/maps` and `GET /v1/maps/{name}`: the tables that programs and agent share.

use serde::{Deserialize, Serialize};

/// One pinned map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapInfo {
    /// Symbol of the map, at most 15 characters.
    pub name: String,
    /// Kind as bpftool prints it: `hash`, `lru_hash`, `lpm_trie`, `array`, …
    pub kind: String,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// Room, in entries (bytes for a ring buffer).
    pub max_entries: u32,
    /// Entries now; absent where counting makes no sense (arrays, ring buffers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Who writes it: `agent` or `dataplane`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub writer: String,
}

/// One map with its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDump {
    /// The map.
    #[serde(flatten)]
    pub info: MapInfo,
    /// Rows in the order the kernel gave them.
    pub rows: Vec<MapRow>,
    /// Rows were left out because there were more than asked for.
    #[serde(default)]
    pub truncated: bool,
}

/// One row in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRow {
    /// The key, in words or as hexadecimal bytes.
    pub key: String,
    /// The value, in words or as hexadecimal bytes.
    pub value: String,
}
