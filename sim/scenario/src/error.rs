//! What can be wrong with a scenario or a replay file.

use std::fmt;

use crate::path::Path;

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// Its name.
        file: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {file}")]
    Write {
        /// Its name.
        file: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The text has another form than it should.
    #[error("{0}")]
    Form(Problem),
    /// The form is right, what it says is not possible.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Everything that is not possible in a scenario; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// One by one, in the order of the steps.
    pub problems: Vec<Problem>,
}

impl Invalid {
    /// The same, with the lines of the file.
    #[must_use]
    pub fn in_file(mut self, file: &str, text: &str) -> Self {
        for problem in &mut self.problems {
            problem.in_file(file, text);
        }
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// One thing that is wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the scenario.
    pub path: Path,
    /// Where in a file, if it came from one.
    pub place: Option<FilePlace>,
    /// What was found and what was expected.
    pub message: String,
}

/// A place in a file. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlace {
    /// Name of the file.
    pub file: String,
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Problem {
    pub(crate) fn new(path: Path, message: impl Into<String>) -> Self {
        Self { path, place: None, message: message.into() }
    }

    pub(crate) fn in_file(&mut self, file: &str, text: &str) {
        let (line, column) = self.path.locate(text).unwrap_or((1, 1));
        self.place = Some(FilePlace { file: file.to_owned(), line, column });
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string();
        match &self.place {
            Some(FilePlace { file, line, column }) => write!(f, "{file}:{line}:{column}: {}", self.message),
            None if path.is_empty() => f.write_str(&self.message),
            None => write!(f, "{path}: {}", self.message),
        }
    }
}

/// The known word that `word` was probably meant to be.
pub(crate) fn meant<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, best) = known.iter().map(|candidate| (distance(word, candidate), *candidate)).min()?;
    (distance <= 1 + word.len() / 4).then_some(best)
}

/// ` (did you mean …?)`, or nothing.
pub(crate) fn hint(word: &str, known: &[&str]) -> String {
    meant(word, known).map_or_else(String::new, |best| format!("; did you mean `{best}`?"))
}

/// Edits from one word to the other (insert, remove, replace a letter, swap two); letters of either case are the same.
fn distance(a: &str, b: &str) -> usize {
    let letters = |word: &str| word.to_lowercase().chars().collect::<Vec<char>>();
    let (a, b) = (letters(a), letters(b));
    let first: Vec<usize> = (0..=b.len()).collect();
    let mut rows = vec![first];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood_and_another_word_is_not() {
        let known = ["count", "interval", "INVALID_SOURCE_IP"];
        assert_eq!(meant("cuont", &known), Some("count"));
        assert_eq!(meant("intervall", &known), Some("interval"));
        assert_eq!(meant("invalid_source_ip", &known), Some("INVALID_SOURCE_IP"));
        assert_eq!(meant("colour", &known), None);
        assert_eq!(meant("x", &[]), None);
    }
}
