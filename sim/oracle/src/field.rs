//! Reading JSON by path, with errors that name the object and the field.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde_json::Value;

use crate::error::OracleError;

/// A place in an object, and the value there if it has one. JSON null is the same as nothing, as everywhere in the Kubernetes API.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    object: &'a str,
    path: String,
    value: Option<&'a Value>,
}

impl<'a> Field<'a> {
    /// The object itself. `object` is what errors call it.
    pub(crate) fn root(object: &'a str, value: &'a Value) -> Self {
        Self { object, path: String::new(), value: Some(value).filter(|value| !value.is_null()) }
    }

    /// The field at a dotted path below this one; nothing if any part of the way is missing.
    pub(crate) fn at(&self, path: &str) -> Result<Self, OracleError> {
        path.split('.').try_fold(self.clone(), |field, key| field.child(key))
    }

    fn child(&self, key: &str) -> Result<Self, OracleError> {
        let value = match self.value {
            None => None,
            Some(Value::Object(fields)) => fields.get(key).filter(|value| !value.is_null()),
            Some(_) => return Err(self.wrong("must be an object")),
        };
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Ok(Self { object: self.object, path, value })
    }

    /// An error about this field.
    pub(crate) fn wrong(&self, problem: impl Into<String>) -> OracleError {
        OracleError { object: self.object.to_owned(), field: self.path.clone(), problem: problem.into() }
    }

    /// Whether there is a value.
    pub(crate) fn is_present(&self) -> bool {
        self.value.is_some()
    }

    /// This field if it has a value, for what is optional as a whole.
    pub(crate) fn present(self) -> Option<Self> {
        self.is_present().then_some(self)
    }

    /// The elements of a list; none if there is no list.
    pub(crate) fn items(&self) -> Result<Vec<Self>, OracleError> {
        match self.value {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, value)| Self {
                    object: self.object,
                    path: format!("{}[{index}]", self.path),
                    value: Some(value).filter(|value| !value.is_null()),
                })
                .collect()),
            Some(_) => Err(self.wrong("must be a list")),
        }
    }

    /// A string.
    pub(crate) fn text(&self) -> Result<Option<&'a str>, OracleError> {
        match self.value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong("must be a string")),
        }
    }

    /// A string that must be there and say something.
    pub(crate) fn required_text(&self) -> Result<&'a str, OracleError> {
        match self.text()? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(self.wrong("must be set")),
        }
    }

    /// A string that is written form of something else. An empty one is nothing.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self) -> Result<Option<T>, OracleError> {
        match self.text()? {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|error| self.wrong(format!("{text:?}: {error}"))),
        }
    }

    /// A list of strings that are written forms of something else.
    pub(crate) fn all_parsed<T: FromStr<Err: Display>>(&self) -> Result<Vec<T>, OracleError> {
        self.items()?.iter().map(|item| item.parsed()?.ok_or_else(|| item.wrong("must be set"))).collect()
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<Option<T>, OracleError> {
        let Some(text) = self.text()? else {
            return Ok(None);
        };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(self.wrong(format!("{text:?} is none of {}", words.join(", "))))
            }
        }
    }

    /// A boolean.
    pub(crate) fn flag(&self) -> Result<Option<bool>, OracleError> {
        match self.value {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong("must be true or false")),
        }
    }

    /// A whole number between two bounds, both included.
    pub(crate) fn number(&self, least: u64, most: u64) -> Result<Option<u64>, OracleError> {
        let Some(value) = self.value else {
            return Ok(None);
        };
        match value.as_u64().filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(format!("must be a whole number from {least} to {most}"))),
        }
    }

    /// A port number, 1 to 65535.
    pub(crate) fn port(&self) -> Result<Option<u16>, OracleError> {
        // The bound makes the conversion succeed.
        Ok(self.number(1, u64::from(u16::MAX))?.and_then(|number| u16::try_from(number).ok()))
    }

    /// A port number that must be there.
    pub(crate) fn required_port(&self) -> Result<u16, OracleError> {
        self.port()?.ok_or_else(|| self.wrong("must be set"))
    }

    /// Whether the value is a string; for what may be a number or a name.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.value, Some(Value::String(_)))
    }

    /// A map of strings, such as labels; empty if there is none.
    pub(crate) fn texts(&self) -> Result<BTreeMap<String, String>, OracleError> {
        match self.value {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(fields)) => fields
                .keys()
                .map(|key| Ok((key.clone(), self.child(key)?.text()?.unwrap_or_default().to_owned())))
                .collect(),
            Some(_) => Err(self.wrong("must be an object")),
        }
    }
}
