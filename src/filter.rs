//! Filter expressions of Consul's API: `ServiceMeta.env == "prod" and not "canary" in ServiceTags`.
//!
//! A text is [parsed](parse) into an [`Expression`], whose selectors are checked against the [`Fields`] of the kind of
//! thing that is filtered; values are brought to the field's kind and regexes compiled. That makes a [`Filter`], which says
//! of each thing whether it matches. A thing is any [`Root`]: it hands out what a selector leads to, borrowed, so that
//! nothing is serialised or copied to be filtered. The grammar is that of go-bexpr 0.1, which Consul 1.21 uses.
//!
//! Pure. The work is bounded: octets and comparisons by [`Limits`], nesting by [`NESTING_MAX`], regexes by size, and they
//! run in time linear in what they search.

mod check;
mod evaluate;
pub mod expression;
mod parse;
mod re2;

pub use evaluate::{Found, Root, Test, among, flag, integer, list, pairs, text};
pub use expression::Expression;

/// How deep parentheses and `not` may stand in one another: the stack that parsing and evaluation take is fixed.
pub const NESTING_MAX: usize = 64;

/// How large one expression may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub octets_max: usize,
    /// Comparisons (`a == b`, `x in y`, ...) in one expression.
    pub matches_max: usize,
}

/// What a selector leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    Bool,
    /// A list of texts.
    Texts,
    /// Values under keys that are the thing's own, such as meta.
    Map(&'static Kind),
    /// Fields of its own.
    Struct(Fields),
    /// A list of things with fields; a comparison holds when it does for any of them.
    List(Fields),
}

/// Names and what they lead to.
pub type Fields = &'static [(&'static str, Kind)];

/// Why a text is no filter. The texts are those of Consul's API, as far as it has them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("1:{} ({at}): {what}", at + 1)]
    Syntax { at: usize, what: &'static str },
    #[error("Selector {0:?} is not valid")]
    Selector(String),
    #[error("Invalid match operator {operator:?} for selector {selector:?}")]
    Operator { operator: &'static str, selector: String },
    #[error("Failed to coerce value {value:?} for selector {selector:?}: {reason}")]
    Value { value: String, selector: String, reason: String },
    #[error("Failed to compile regular expression {0:?}: {1}")]
    Regex(String, String),
    #[error("the expression has {octets} octets; at most {max} are allowed ([limits] filter_octets_max)")]
    TooLong { octets: usize, max: usize },
    #[error("the expression has more than {max} comparisons ([limits] filter_matches_max)")]
    TooMany { max: usize },
    #[error("the expression is nested more than {NESTING_MAX} deep")]
    TooDeep,
}

impl Fault {
    /// Whether the text is too large rather than wrong.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::TooMany { .. } | Self::TooDeep)
    }
}

/// An expression that fits a kind of thing.
#[derive(Debug, Clone)]
pub struct Filter(check::Checked);

impl Filter {
    /// Reads a text and fits it to what has `fields`.
    pub fn new(text: &str, fields: Fields, limits: &Limits) -> Result<Self, Fault> {
        Self::of(&parse::parse(text, limits)?, fields)
    }

    /// Fits an expression to what has `fields`.
    pub fn of(expression: &Expression, fields: Fields) -> Result<Self, Fault> {
        check::check(expression, fields).map(Self)
    }

    /// Whether a thing matches.
    pub fn matches(&self, root: &impl Root) -> bool {
        evaluate::holds(&self.0, root)
    }
}

#[cfg(test)]
mod tests;
