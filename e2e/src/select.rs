//! `--case 1-6,20-23,x1`: which cases to run.

use thiserror::Error;

use crate::matrix::{Case, CaseId, Matrix};

/// Why a selection was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SelectError {
    /// A part is neither an id nor a range.
    #[error("`{0}` is neither a case (7, x1) nor a range (20-23)")]
    Syntax(String),
    /// A range runs backwards.
    #[error("the range {0} runs backwards")]
    Backwards(String),
    /// There is no such case.
    #[error("there is no case {0}")]
    Unknown(String),
}

/// A wish for cases, in the order of the matrix whatever order it was written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Range(u16, u16),
    Name(String),
}

impl std::str::FromStr for Selection {
    type Err = SelectError;

    /// Parses `1-6,20-23,x1`; spaces are allowed around each part.
    fn from_str(text: &str) -> Result<Self, SelectError> {
        let parts = text.split(',').map(str::trim).map(Part::parse).collect::<Result<_, _>>()?;
        Ok(Self { parts })
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, SelectError> {
        let syntax = || SelectError::Syntax(text.to_owned());
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| syntax());
        if let Some(rest) = text.strip_prefix('x') {
            number(rest)?;
            return Ok(Self::Name(text.to_owned()));
        }
        let (low, high) = match text.split_once('-') {
            Some((low, high)) => (number(low)?, number(high)?),
            None => (number(text)?, number(text)?),
        };
        if low > high {
            return Err(SelectError::Backwards(text.to_owned()));
        }
        Ok(Self::Range(low, high))
    }

    fn holds(&self, id: &CaseId) -> bool {
        match (self, id) {
            (Self::Range(low, high), CaseId::Number(n)) => (low..=high).contains(&n),
            (Self::Name(name), CaseId::Name(id)) => name == id,
            _ => false,
        }
    }
}

impl Selection {
    /// The cases that are wished for, in matrix order; a part that names a case that is not there is an error.
    pub fn pick<'m>(&self, matrix: &'m Matrix) -> Result<Vec<&'m Case>, SelectError> {
        for part in &self.parts {
            let ends = match part {
                Part::Range(low, high) => vec![CaseId::Number(*low), CaseId::Number(*high)],
                Part::Name(name) => vec![CaseId::Name(name.clone())],
            };
            for end in ends {
                if !matrix.all().any(|case| case.id == end) {
                    return Err(SelectError::Unknown(end.to_string()));
                }
            }
        }
        Ok(matrix.all().filter(|case| self.parts.iter().any(|part| part.holds(&case.id))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(text: &str) -> Result<String, SelectError> {
        let matrix = Matrix::built_in().expect("the matrix that is compiled in can be read");
        let cases = text.parse::<Selection>()?.pick(&matrix)?;
        Ok(cases.iter().map(|case| case.id.to_string()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn ranges_and_single_cases_come_in_matrix_order_and_once() {
        for (text, ids) in [
            ("1-6,20-23", "1 2 3 4 5 6 20 21 22 23"),
            ("69", "69"),
            ("x2,3-4,4", "3 4 x2"),
            (" 2 , 1 ", "1 2"),
            ("5-5", "5"),
        ] {
            assert_eq!(pick(text).as_deref(), Ok(ids), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_part_named() {
        let syntax = |text: &str| SelectError::Syntax(text.to_owned());
        for (text, error) in [
            ("", syntax("")),
            ("1,,2", syntax("")),
            ("one", syntax("one")),
            ("-3", syntax("-3")),
            ("1-", syntax("1-")),
            ("xa", syntax("xa")),
            ("99999999", syntax("99999999")),
            ("6-1", SelectError::Backwards("6-1".into())),
            ("0-3", SelectError::Unknown("0".into())),
            ("68-70", SelectError::Unknown("70".into())),
            ("x9", SelectError::Unknown("x9".into())),
        ] {
            assert_eq!(pick(text), Err(error), "{text}");
        }
    }
}
