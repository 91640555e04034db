//! From a YAML value to a type, with errors that know where they are.
//!
//! An enum is a word, or a mapping of one field whose name is the word; YAML tags are not used.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_yaml_ng::{Mapping, Value};

use crate::error::{Problem, hint};
use crate::path::{Part, Path};

/// Reads a value.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    T::deserialize(Node(value)).map_err(|Failure(problem)| *problem)
}

#[derive(Debug)]
struct Failure(Box<Problem>);

impl Failure {
    fn within(mut self, part: Part) -> Self {
        self.0.path = self.0.path.within(part);
        self
    }

    fn at_key(mut self, name: &str) -> Self {
        self.0.path = Path::key(name);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl serde::de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Box::new(Problem::new(Path::default(), message.to_string())))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let quotes = if expected == "a string" { "; put it in quotes" } else { "" };
        Self::custom(format!("found {}, expected {}{quotes}", shown(&found), wanted(&expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("found {}, expected {}", shown(&found), wanted(&expected.to_string())))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::custom(format!(
            "`{field}` is no field here; the fields are {}{}",
            listed(known),
            hint(field, known)
        ))
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::custom(format!("found `{word}`, expected one of {}{}", listed(known), hint(word, known)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("the field `{field}` is missing"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::custom(format!("the field `{field}` is there twice"))
    }
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn shown(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(value) => format!("`{value}`"),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

fn wanted(expected: &str) -> String {
    match expected {
        "a string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" => "a whole number, not negative".to_owned(),
        "f64" => "a number".to_owned(),
        "unit" => "nothing".to_owned(),
        other => other.to_owned(),
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(number) => number
            .as_u64()
            .map(Unexpected::Unsigned)
            .or_else(|| number.as_i64().map(Unexpected::Signed))
            .unwrap_or(Unexpected::Float(number.as_f64().unwrap_or(f64::NAN))),
        Value::String(text) => Unexpected::Str(text),
        Value::Sequence(_) => Unexpected::Seq,
        Value::Mapping(_) => Unexpected::Map,
        Value::Tagged(_) => Unexpected::Other("a YAML tag"),
    }
}

struct Node<'v>(&'v Value);

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Sequence(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Value::Mapping(fields) => visitor.visit_map(Fields { fields: fields.iter(), value: None }),
            Value::Tagged(_) => Err(Failure::custom("YAML tags (`!word`) are not used here")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if !self.0.is_mapping() {
            let found = shown(&unexpected(self.0));
            return Err(Failure::custom(format!(
                "found {found}, expected a mapping; its fields are {}",
                listed(fields)
            )));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.0 {
            Value::String(word) => visitor.visit_enum(Variant { word, value: None }),
            Value::Mapping(fields) => match single(fields) {
                Some((word, value)) => visitor.visit_enum(Variant { word, value: Some(value) }),
                None => Err(Failure::custom(format!(
                    "found a mapping of {} fields, expected one alone of {}",
                    fields.len(),
                    listed(variants)
                ))),
            },
            other => {
                let found = shown(&unexpected(other));
                Err(Failure::custom(format!("found {found}, expected one of {}", listed(variants))))
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct
        map identifier ignored_any
    }
}

fn single(fields: &Mapping) -> Option<(&str, &Value)> {
    let (name, value) = fields.iter().next()?;
    (fields.len() == 1).then_some((name.as_str()?, value))
}

struct Items<'v>(std::iter::Enumerate<std::slice::Iter<'v, Value>>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        let Some((index, value)) = self.0.next() else {
            return Ok(None);
        };
        seed.deserialize(Node(value)).map(Some).map_err(|failure| failure.within(Part::Item(index)))
    }
}

struct Fields<'v> {
    fields: serde_yaml_ng::mapping::Iter<'v>,
    value: Option<(&'v str, &'v Value)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        let Some((key, value)) = self.fields.next() else {
            return Ok(None);
        };
        let Some(name) = key.as_str() else {
            let found = shown(&unexpected(key));
            return Err(Failure::custom(format!("found {found} as the name of a field, expected text")));
        };
        self.value = Some((name, value));
        let name_node: StrDeserializer<'_, Failure> = name.into_deserializer();
        seed.deserialize(name_node).map(Some).map_err(|failure| failure.at_key(name))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failure> {
        let (name, value) = self.value.take().ok_or_else(|| Failure::custom("a value without a name"))?;
        seed.deserialize(Node(value)).map_err(|failure| failure.within(Part::Field(name.to_owned())))
    }
}

struct Variant<'v> {
    word: &'v str,
    value: Option<&'v Value>,
}

impl Variant<'_> {
    fn content<T>(&self, read: impl FnOnce(Node<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let word = self.word;
        let value = self
            .value
            .ok_or_else(|| Failure::custom(format!("`{word}` needs a value: write `{word}: …`")))?;
        read(Node(value)).map_err(|failure| failure.within(Part::Field(word.to_owned())))
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Failure> {
        let name: StrDeserializer<'_, Failure> = self.word.into_deserializer();
        let variant = seed
            .deserialize(name)
            .map_err(|failure| if self.value.is_some() { failure.at_key(self.word) } else { failure })?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        match self.value {
            None | Some(Value::Null) => Ok(()),
            Some(_) => Err(Failure::custom(format!("`{}` takes no value", self.word))),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Failure> {
        self.content(|node| seed.deserialize(node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Failure> {
        self.content(|node| node.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.content(|node| node.deserialize_struct("", fields, visitor))
    }
}
