//! Fits an expression to a kind of thing: selectors, operators, values.

use regex::Regex;

use super::expression::{Expression, Match, Operator};
use super::{Fault, Fields, Kind, re2};

/// An expression that fits.
#[derive(Debug, Clone)]
pub(super) enum Checked {
    Any(Vec<Checked>),
    All(Vec<Checked>),
    Not(Box<Checked>),
    Match(Comparison),
}

/// A comparison that fits.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    pub(super) path: Vec<String>,
    pub(super) rule: Rule,
    /// Whether the operator is the negated form of the rule.
    pub(super) negated: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Rule {
    IsText(String),
    IsInteger(i64),
    IsBool(bool),
    /// Part of a text, a member of a list, a key of a map.
    Contains(String),
    Empty,
    Matches(Regex),
}

pub(super) fn check(expression: &Expression, fields: Fields) -> Result<Checked, Fault> {
    let all =
        |parts: &[Expression]| parts.iter().map(|part| check(part, fields)).collect::<Result<Vec<_>, _>>();
    Ok(match expression {
        Expression::Any(parts) => Checked::Any(all(parts)?),
        Expression::All(parts) => Checked::All(all(parts)?),
        Expression::Not(part) => Checked::Not(Box::new(check(part, fields)?)),
        Expression::Match(of) => Checked::Match(comparison(of, fields)?),
    })
}

/// What may stand behind a name.
enum Level {
    Named(Fields),
    Any(&'static Kind),
    Nothing,
}

fn kind_of(selector: &[String], fields: Fields) -> Result<Kind, Fault> {
    let invalid = |count: usize| Fault::Selector(selector[..count].join("."));
    let (mut level, mut found) = (Level::Named(fields), None);
    for (number, name) in selector.iter().enumerate() {
        let kind = match level {
            Level::Named(fields) => fields.iter().find(|(own, _)| own == name).map(|(_, kind)| *kind),
            Level::Any(kind) => Some(*kind),
            Level::Nothing => None,
        };
        let kind = kind.ok_or_else(|| invalid(number + 1))?;
        level = match kind {
            Kind::Struct(fields) | Kind::List(fields) => Level::Named(fields),
            Kind::Map(inner) => Level::Any(inner),
            Kind::Text | Kind::Integer | Kind::Bool | Kind::Texts => Level::Nothing,
        };
        found = Some(kind);
    }
    found.ok_or_else(|| invalid(0))
}

fn comparison(of: &Match, fields: Fields) -> Result<Comparison, Fault> {
    use Operator::{Equal, In, IsEmpty, IsNotEmpty, Matches, NotEqual, NotIn, NotMatches};
    let kind = kind_of(&of.selector, fields)?;
    let value = &of.value;
    let coerced =
        |reason: String| Fault::Value { value: value.clone(), selector: of.selector.join("."), reason };
    let rule = match (kind, of.operator) {
        (Kind::Text, Equal | NotEqual) => Rule::IsText(value.clone()),
        (Kind::Integer, Equal | NotEqual) => Rule::IsInteger(integer(value).map_err(coerced)?),
        (Kind::Bool, Equal | NotEqual) => Rule::IsBool(boolean(value).map_err(coerced)?),
        (Kind::Text | Kind::Texts | Kind::Map(_), In | NotIn) => Rule::Contains(value.clone()),
        (Kind::Text, Matches | NotMatches) => {
            Rule::Matches(re2::compile(value).map_err(|reason| Fault::Regex(value.clone(), reason))?)
        }
        (Kind::Texts | Kind::Map(_) | Kind::List(_), IsEmpty | IsNotEmpty) => Rule::Empty,
        (_, operator) => {
            let selector = of.selector.join(".");
            return Err(Fault::Operator { operator: operator.name(), selector });
        }
    };
    let negated = matches!(of.operator, NotEqual | NotIn | NotMatches | IsNotEmpty);
    Ok(Comparison { path: of.selector.clone(), rule, negated })
}

/// As Go's `strconv.ParseInt` with base 0: the prefix says the base, and with one underscores may part digits.
fn integer(text: &str) -> Result<i64, String> {
    let invalid = || format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let digits = if radix == 10 { digits.to_owned() } else { digits.replace('_', "") };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(invalid());
    }
    let sign = if text.starts_with('-') { "-" } else { "" };
    i64::from_str_radix(&format!("{sign}{digits}"), radix)
        .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: value out of range"))
}

/// As Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}
