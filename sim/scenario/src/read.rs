//! From a file to a scenario and back.

use std::path::Path as FilePath;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;

use crate::decode::decode;
use crate::error::{FilePlace, Problem, ScenarioError};
use crate::model::{FORMAT, Scenario};
use crate::path::Path;
use crate::validate::Known;

impl Scenario {
    /// Reads a scenario's form; `file` is its name for errors. What it says is not judged: see [`Scenario::validate`].
    ///
    /// # Errors
    /// The first thing that has another form than it should, with line and column.
    pub fn parse(text: &str, file: &str) -> Result<Self, ScenarioError> {
        document(text, file, &[("", FORMAT)])
    }

    /// Reads a scenario from a file.
    ///
    /// # Errors
    /// The file cannot be read, and those of [`Scenario::parse`].
    pub fn load(path: impl AsRef<FilePath>) -> Result<Self, ScenarioError> {
        let (file, text) = content(path.as_ref())?;
        Self::parse(&text, &file)
    }

    /// Reads a scenario and judges it, so that also errors of meaning have line and column.
    ///
    /// # Errors
    /// Those of [`Scenario::parse`] and [`Scenario::validate`].
    pub fn parse_valid(text: &str, file: &str, known: &Known<'_>) -> Result<Self, ScenarioError> {
        let scenario = Self::parse(text, file)?;
        scenario.validate(known).map_err(|invalid| invalid.in_file(file, text))?;
        Ok(scenario)
    }

    /// Reads a scenario from a file and judges it.
    ///
    /// # Errors
    /// The file cannot be read, and those of [`Scenario::parse_valid`].
    pub fn load_valid(path: impl AsRef<FilePath>, known: &Known<'_>) -> Result<Self, ScenarioError> {
        let (file, text) = content(path.as_ref())?;
        Self::parse_valid(&text, &file, known)
    }

    /// The scenario as a file that reads back the same. What is as by default is left out.
    pub fn to_yaml(&self) -> String {
        yaml(self)
    }
}

pub(crate) fn content(path: &FilePath) -> Result<(String, String), ScenarioError> {
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((file, text)),
        Err(source) => Err(ScenarioError::Read { file, source }),
    }
}

/// Reads a document that has these formats, each in the field `bristle` of the document (named by an empty name) or of one of its fields.
pub(crate) fn document<T: DeserializeOwned>(
    text: &str,
    file: &str,
    formats: &[(&str, &str)],
) -> Result<T, ScenarioError> {
    let value: Value = serde_yaml_ng::from_str(text).map_err(|error| syntax(&error, file))?;
    let placed = |mut problem: Problem| {
        problem.in_file(file, text);
        ScenarioError::Form(problem)
    };
    for (field, format) in formats {
        check_format(&value, field, format).map_err(placed)?;
    }
    decode(&value).map_err(placed)
}

fn check_format(document: &Value, field: &str, format: &str) -> Result<(), Problem> {
    let (value, path) = match field {
        "" => (document, Path::default()),
        // If it is missing, that is for the decoder to say.
        _ => match document.get(field) {
            Some(value) => (value, Path::of(field)),
            None => return Ok(()),
        },
    };
    if !value.is_mapping() {
        let message = format!("found no mapping, expected one that begins with `bristle: {format}`");
        return Err(Problem::new(path, message));
    }
    match value.get("bristle") {
        Some(Value::String(found)) if found == format => Ok(()),
        Some(Value::String(found)) => {
            let message = format!("found format `{found}`, this reads `{format}` alone");
            Err(Problem::new(path.field("bristle"), message))
        }
        Some(_) => {
            Err(Problem::new(path.field("bristle"), format!("found no text, expected the format `{format}`")))
        }
        None => Err(Problem::new(path, format!("the field `bristle` is missing: write `bristle: {format}`"))),
    }
}

fn syntax(error: &serde_yaml_ng::Error, file: &str) -> ScenarioError {
    let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
    let text = error.to_string();
    let message = text.replace(&format!(" at line {line} column {column}"), "");
    let place = Some(FilePlace { file: file.to_owned(), line, column });
    ScenarioError::Form(Problem { path: Path::default(), place, message })
}

/// Text of a document. It goes by way of JSON, which has no tags for enums.
pub(crate) fn yaml<T: Serialize>(document: &T) -> String {
    let value = serde_json::to_value(document).expect("our types have only text for keys");
    serde_yaml_ng::to_string(&value).expect("what JSON can say, YAML can say")
}
