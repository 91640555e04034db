//! Why an object cannot be taken.

use std::fmt;

/// Why an object cannot be taken, with the field that is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidPolicy {
    /// The field, such as `spec.ingress[0].toPorts[1].ports[0].port`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Everything that was found wrong with an object, in the order in which it is written. Never empty.
///
/// Of one entry of a rule only the first mistake is named, since the next may follow from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", join(.0))]
pub struct Mistakes(pub(crate) Vec<InvalidPolicy>);

impl Mistakes {
    /// One by one.
    pub fn each(&self) -> &[InvalidPolicy] {
        &self.0
    }
}

fn join(mistakes: &[InvalidPolicy]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl InvalidPolicy {
    /// The same, seen from the object that holds the field.
    pub(crate) fn within(mut self, outer: impl fmt::Display) -> Self {
        self.field =
            if self.field.is_empty() { outer.to_string() } else { format!("{outer}.{}", self.field) };
        self
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Exactly one of several fields has to be there.
    #[error("needs exactly one of {0}")]
    OneOf(&'static str),
    /// Fields that exclude each other.
    #[error("{0} and {1} exclude each other")]
    Exclude(&'static str, &'static str),
    /// A rule without entries.
    #[error("needs at least one of ingress, ingressDeny, egress, egressDeny")]
    NoEntries,
    /// It is not supported, and has to be empty.
    #[error("is not supported any more and must be empty")]
    MustBeEmpty,
    /// A list without entries.
    #[error("needs at least one entry")]
    Empty,
    /// A list is too long.
    #[error("has more than {0} entries")]
    TooMany(usize),
    /// It may not be here.
    #[error("is not possible here: {0}")]
    NotHere(&'static str),
    /// A word that is not known.
    #[error("`{0}` is not known")]
    Unknown(String),
    /// A key of a label that is empty.
    #[error("a label needs a key")]
    NoKey,
    /// In and NotIn need values, the others may have none.
    #[error("operator {0} does not go with {1} values")]
    Values(String, usize),
    /// Not a CIDR.
    #[error("`{0}` is no CIDR")]
    Cidr(String),
    /// An exception that is not inside.
    #[error("`{0}` is not inside of {1}")]
    NotInside(String, String),
    /// Not a port.
    #[error("`{0}` is neither a port nor a name of one")]
    Port(String),
    /// Not a range of ports.
    #[error("{0} to {1} is no range of ports")]
    Range(String, i64),
    /// Not a type of ICMP.
    #[error("`{0}` is no type of {1}")]
    IcmpType(String, &'static str),
    /// A number out of its range.
    #[error("{0} is not between {1} and {2}")]
    NotBetween(i64, i64, i64),
    /// Text that is too long, or not printable.
    #[error("must be at most {0} printable characters")]
    Text(usize),
}

impl Problem {
    /// The problem of a field.
    pub(crate) fn of(self, field: impl fmt::Display) -> InvalidPolicy {
        InvalidPolicy { field: field.to_string(), problem: self }
    }
}
