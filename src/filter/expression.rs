//! An expression as it was written, and its written form.

use std::fmt;

use super::{Fault, Limits, parse};

/// What must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// At least one of them.
    Any(Vec<Expression>),
    /// Every one of them.
    All(Vec<Expression>),
    Not(Box<Expression>),
    Match(Match),
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// At least one name; names behind the first may be any text.
    pub selector: Vec<String>,
    pub operator: Operator,
    /// Empty where the operator takes none.
    pub value: String,
}

/// How a selector's field is compared. `contains` is [`In`](Self::In) from the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    In,
    NotIn,
    Matches,
    NotMatches,
    IsEmpty,
    IsNotEmpty,
}

impl Operator {
    /// Consul's name of it in refusals.
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "Equal",
            Self::NotEqual => "Not Equal",
            Self::In => "In",
            Self::NotIn => "Not In",
            Self::Matches => "Matches",
            Self::NotMatches => "Not Matches",
            Self::IsEmpty => "Is Empty",
            Self::IsNotEmpty => "Is Not Empty",
        }
    }
}

impl Expression {
    /// Reads a text, whatever its selectors may lead to.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, Fault> {
        parse::parse(text, limits)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(parts) => joined(f, parts, " or ", |part| matches!(part, Self::Any(_))),
            Self::All(parts) => joined(f, parts, " and ", |part| matches!(part, Self::Any(_) | Self::All(_))),
            Self::Not(part) => match &**part {
                Self::Match(inner) => write!(f, "not {inner}"),
                other => write!(f, "not ({other})"),
            },
            Self::Match(inner) => write!(f, "{inner}"),
        }
    }
}

fn joined(
    f: &mut fmt::Formatter<'_>,
    parts: &[Expression],
    word: &str,
    grouped: impl Fn(&Expression) -> bool,
) -> fmt::Result {
    for (number, part) in parts.iter().enumerate() {
        if number > 0 {
            f.write_str(word)?;
        }
        if grouped(part) {
            write!(f, "({part})")?;
        } else {
            write!(f, "{part}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (selector, value) = (Selector(&self.selector), Quoted(&self.value));
        match self.operator {
            Operator::Equal => write!(f, "{selector} == {value}"),
            Operator::NotEqual => write!(f, "{selector} != {value}"),
            Operator::In => write!(f, "{value} in {selector}"),
            Operator::NotIn => write!(f, "{value} not in {selector}"),
            Operator::Matches => write!(f, "{selector} matches {value}"),
            Operator::NotMatches => write!(f, "{selector} not matches {value}"),
            Operator::IsEmpty => write!(f, "{selector} is empty"),
            Operator::IsNotEmpty => write!(f, "{selector} is not empty"),
        }
    }
}

struct Selector<'a>(&'a [String]);

impl fmt::Display for Selector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, name) in self.0.iter().enumerate() {
            match number {
                0 => f.write_str(name)?,
                _ if parse::is_identifier(name) => write!(f, ".{name}")?,
                _ => write!(f, "[{}]", Quoted(name))?,
            }
        }
        Ok(())
    }
}

/// A text in double quotes with Go's escapes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\x22")?,
                '\\' => f.write_str("\\\\")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}
