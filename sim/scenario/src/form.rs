//! The form of a scenario where derived code does not do: short forms, and kinds that stand beside other fields.
//!
//! Serde's `flatten` cannot refuse unknown fields, so [`Step`] and [`Fault`] are read by hand: one key says the kind, the others are theirs.

use std::fmt;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer as _, MapAccess, VariantAccess,
    Visitor,
};
use serde::{Deserialize, Serialize, Serializer};

use crate::model::{Action, Failures, Fault, FaultKind, Step, Until, Wait, time};

const STEP_FIELDS: &[&str] =
    &["at", "pod", "delete-pod", "apply", "delete", "wait", "traffic", "fault", "request", "expect"];

const FAULT_FIELDS: &[&str] = &[
    "node",
    "for",
    "link",
    "partition",
    "kill",
    "stall",
    "skew",
    "api",
    "cni",
    "table-full",
    "ring-full",
    "failures",
    "heal",
];

/// Reads text into a value.
pub(crate) struct Text<T> {
    /// What it should be, for errors.
    pub(crate) what: &'static str,
    /// How to read it.
    pub(crate) read: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }
}

/// A time as a value of a map.
struct Time;

impl<'de> DeserializeSeed<'de> for Time {
    type Value = Duration;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Duration, D::Error> {
        time::deserialize(deserializer)
    }
}

/// One of the known keys.
struct Key(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<&'static str, E> {
        self.0.iter().find(|known| **known == text).copied().ok_or_else(|| E::unknown_field(text, self.0))
    }
}

/// An enum whose variant is `key` and whose content is the value that comes next in `map`.
struct Entry<'a, M> {
    key: &'static str,
    map: &'a mut M,
}

impl<'de, M: MapAccess<'de>> Deserializer<'de> for Entry<'_, M> {
    type Error = M::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, M::Error> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, M: MapAccess<'de>> EnumAccess<'de> for Entry<'_, M> {
    type Error = M::Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), M::Error> {
        let name: StringDeserializer<M::Error> = self.key.to_owned().into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de, M: MapAccess<'de>> VariantAccess<'de> for Entry<'_, M> {
    type Error = M::Error;

    fn unit_variant(self) -> Result<(), M::Error> {
        self.map.next_value()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, M::Error> {
        self.map.next_value_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, M::Error> {
        self.map.next_value_seed(Fields { fields: &[], visitor })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, M::Error> {
        self.map.next_value_seed(Fields { fields, visitor })
    }
}

/// The fields of a variant.
struct Fields<V> {
    fields: &'static [&'static str],
    visitor: V,
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Fields<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_struct("", self.fields, self.visitor)
    }
}

/// The one kind among the fields of a map, if none was there yet.
fn kind<'de, M: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut M,
    key: &'static str,
    found: &mut Option<(&'static str, T)>,
) -> Result<(), M::Error> {
    if let Some((first, _)) = found {
        return Err(M::Error::custom(format!("`{first}` and `{key}` stand side by side: one of them alone")));
    }
    *found = Some((key, T::deserialize(Entry { key, map })?));
    Ok(())
}

fn one_of(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Step", STEP_FIELDS, StepVisitor)
    }
}

struct StepVisitor;

impl<'de> Visitor<'de> for StepVisitor {
    type Value = Step;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a step: a mapping with one of {}", one_of(&STEP_FIELDS[1..]))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Step, M::Error> {
        let mut at = None;
        let mut action: Option<(&'static str, Action)> = None;
        while let Some(key) = map.next_key_seed(Key(STEP_FIELDS))? {
            if key == "at" {
                at = Some(map.next_value_seed(Time)?);
            } else {
                kind(&mut map, key, &mut action)?;
            }
        }
        let (_, action) = action.ok_or_else(|| {
            M::Error::custom(format!("the step does nothing: give it one of {}", one_of(&STEP_FIELDS[1..])))
        })?;
        Ok(Step { at, action })
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FaultVisitor)
    }
}

struct FaultVisitor;

impl<'de> Visitor<'de> for FaultVisitor {
    type Value = Fault;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a fault: a mapping with one of {}", one_of(&FAULT_FIELDS[2..]))
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Fault, E> {
        let kind = match word {
            "partition" => FaultKind::Partition,
            "stall" => FaultKind::Stall,
            "heal" => FaultKind::Heal,
            _ if FAULT_FIELDS[2..].contains(&word) => {
                return Err(E::custom(format!("`{word}` needs a value: write `{word}: …`")));
            }
            _ => return Err(E::unknown_variant(word, &FAULT_FIELDS[2..])),
        };
        Ok(Fault { node: None, lasts: None, kind })
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fault, M::Error> {
        let (mut node, mut lasts) = (None, None);
        let mut found: Option<(&'static str, FaultKind)> = None;
        while let Some(key) = map.next_key_seed(Key(FAULT_FIELDS))? {
            match key {
                "node" => node = Some(map.next_value()?),
                "for" => lasts = Some(map.next_value_seed(Time)?),
                _ => kind(&mut map, key, &mut found)?,
            }
        }
        let (_, kind) = found.ok_or_else(|| {
            M::Error::custom(format!(
                "the fault breaks nothing: give it one of {}",
                one_of(&FAULT_FIELDS[2..])
            ))
        })?;
        Ok(Fault { node, lasts, kind })
    }
}

/// The fields of [`Failures`] where they are written out.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename = "Failures")]
struct FailuresForm {
    probability: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<String>,
}

impl<'de> Deserialize<'de> for Failures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FailuresVisitor)
    }
}

struct FailuresVisitor;

impl<'de> Visitor<'de> for FailuresVisitor {
    type Value = Failures;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a probability, or a mapping with `probability` and `of`")
    }

    fn visit_f64<E: Error>(self, probability: f64) -> Result<Failures, E> {
        Ok(Failures { probability, of: None })
    }

    fn visit_u64<E: Error>(self, whole: u64) -> Result<Failures, E> {
        // More than one is refused later, with its place.
        self.visit_f64(u32::try_from(whole).map_or(f64::MAX, f64::from))
    }

    fn visit_i64<E: Error>(self, whole: i64) -> Result<Failures, E> {
        self.visit_f64(i32::try_from(whole).map_or(f64::MIN, f64::from))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Failures, M::Error> {
        let FailuresForm { probability, of } = FailuresForm::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Failures { probability, of })
    }
}

impl Serialize for Failures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.of.is_none() {
            return serializer.serialize_f64(self.probability);
        }
        FailuresForm { probability: self.probability, of: self.of.clone() }.serialize(serializer)
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let unit = matches!(self.kind, FaultKind::Partition | FaultKind::Stall | FaultKind::Heal);
        if unit && self.node.is_none() && self.lasts.is_none() {
            return serializer.serialize_str(self.kind.word());
        }
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WaitVisitor)
    }
}

struct WaitVisitor;

impl<'de> Visitor<'de> for WaitVisitor {
    type Value = Wait;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`ready`, `rest`, a time, or a mapping with `for` and `within`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Wait, E> {
        Ok(Wait::new(match text {
            "ready" => Until::Ready,
            "rest" => Until::Rest,
            _ => Until::Time(time::parse(text).map_err(|_| {
                E::custom(format!("`{text}` is nothing to wait for: write ready, rest or a time such as 2s"))
            })?),
        }))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Wait, M::Error> {
        Wait::deserialize(MapAccessDeserializer::new(map))
    }
}

impl Serialize for Wait {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self != Self::new(self.until.clone()) {
            return Self::serialize(self, serializer);
        }
        match &self.until {
            Until::Ready => serializer.serialize_str("ready"),
            Until::Rest => serializer.serialize_str("rest"),
            Until::Time(duration) => time::serialize(duration, serializer),
            Until::Traffic(_) => Self::serialize(self, serializer),
        }
    }
}
