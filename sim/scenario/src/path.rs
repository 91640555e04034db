//! Where something stands in a scenario, and at which line of its text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The way from the root of the document to a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path {
    parts: Vec<Part>,
    /// The name of the field itself is meant and not its value.
    at_key: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Field(String),
    Item(usize),
}

impl Path {
    /// A field of the document.
    pub fn of(field: &str) -> Self {
        Self::default().field(field)
    }

    /// The step with this index.
    pub fn step(index: usize) -> Self {
        let mut path = Self::of("steps");
        path.parts.push(Part::Item(index));
        path
    }

    /// A field of what is there.
    #[must_use]
    pub fn field(mut self, name: &str) -> Self {
        self.parts.push(Part::Field(name.to_owned()));
        self
    }

    /// The index of the step, if it is in one.
    pub fn step_index(&self) -> Option<usize> {
        match (self.parts.first(), self.parts.get(1)) {
            (Some(Part::Field(steps)), Some(Part::Item(index))) if steps == "steps" => Some(*index),
            _ => None,
        }
    }

    /// The same, seen from a value that holds this one.
    pub(crate) fn within(mut self, part: Part) -> Self {
        self.parts.insert(0, part);
        self
    }

    pub(crate) fn key(name: &str) -> Self {
        Self { parts: vec![Part::Field(name.to_owned())], at_key: true }
    }

    /// Line and column of the place in a YAML text, counted from 1. What is not there itself is where the nearest thing around it is.
    pub fn locate(&self, text: &str) -> Option<(usize, usize)> {
        let mut path = self.clone();
        loop {
            if let Some(place) = path.find(text) {
                return Some(place);
            }
            path.parts.pop()?;
            path.at_key = false;
        }
    }

    /// The parser is led to the place and stopped there: its error knows the line.
    fn find(&self, text: &str) -> Option<(usize, usize)> {
        let way = Way { parts: &self.parts, at_key: self.at_key };
        let stopped = way.deserialize(serde_yaml_ng::Deserializer::from_str(text)).err()?;
        stopped.location().map(|at| (at.line(), at.column()))
    }
}

impl fmt::Display for Path {
    /// For people: a step by its number, counted from 1, and the fields within.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self.parts.as_slice();
        if let Some(index) = self.step_index() {
            write!(f, "step {}", index + 1)?;
            parts = &parts[2..];
            if !parts.is_empty() {
                f.write_str(", ")?;
            }
        }
        for (i, part) in parts.iter().enumerate() {
            match part {
                Part::Field(name) if i == 0 => f.write_str(name)?,
                Part::Field(name) => write!(f, ".{name}")?,
                Part::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Way<'a> {
    parts: &'a [Part],
    at_key: bool,
}

impl<'de> DeserializeSeed<'de> for Way<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.parts.is_empty() {
            deserializer.deserialize_any(Stop)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Way<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what holds the place")
    }

    // A scalar does not hold it; it is no error, for an error would be taken for the place.
    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Part::Item(wanted), rest)) = self.parts.split_first() else {
            while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let mut index = 0;
        loop {
            let more = if index == *wanted {
                seq.next_element_seed(Way { parts: rest, ..self })?.is_some()
            } else {
                seq.next_element::<serde::de::IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Part::Field(wanted), rest)) = self.parts.split_first() else {
            while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let key = KeyIs { wanted, stop: self.at_key && rest.is_empty() };
        while let Some(found) = map.next_key_seed(key)? {
            if found {
                map.next_value_seed(Way { parts: rest, ..self })?;
            } else {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Is the key the wanted one? And if so, is it the place?
#[derive(Clone, Copy)]
struct KeyIs<'a> {
    wanted: &'a str,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        if key != self.wanted {
            return Ok(false);
        }
        if self.stop {
            return Err(E::custom("here"));
        }
        Ok(true)
    }
}

/// Fails wherever it comes.
struct Stop;

impl<'de> Visitor<'de> for Stop {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom("here"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Stop.visit_str("")
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Stop.visit_str("")
    }
}
